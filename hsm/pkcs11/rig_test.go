package pkcs11

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/hsm/hsmtest"
)

// label is that of the token under test.
const label = "token under test"

func pin() ([]byte, error) { return []byte(hsmtest.PIN), nil }

func newSoft(t testing.TB) hsmtest.SoftHSM {
	t.Helper()
	soft := hsmtest.New(t)
	soft.Token(t, label)
	return soft
}

// rig is a token behind the fault module.
type rig struct {
	t      *testing.T
	soft   hsmtest.SoftHSM
	fault  *hsmtest.Fault
	seen   *observed
	module *Module
	token  *Token
}

// options are what differs between rigs; see ModuleConfig and TokenConfig.
type options struct {
	profile Profile // two sessions if it does not say
	drain   time.Duration
	pin     func() ([]byte, error)
	rand    io.Reader
	strict  bool
}

// newModule makes a rig without an open token.
func newModule(t *testing.T, o options) *rig {
	t.Helper()
	r := &rig{t: t, soft: newSoft(t), seen: &observed{calls: map[call]int{}}}
	r.fault = hsmtest.NewFault(t, r.soft)
	var err error
	r.module, err = OpenModule(ModuleConfig{
		Path: r.fault.Module, Observe: r.seen.observe, Drain: o.drain, RetryMin: time.Millisecond, RetryMax: 5 * time.Millisecond,
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		r.fault.Clear()
		r.eventually(func() bool { return r.module.Close() == nil })
	})
	return r
}

// newRig makes a rig with an open token.
func newRig(t *testing.T, o options) *rig {
	t.Helper()
	r := newModule(t, o)
	r.open(o)
	return r
}

func (r *rig) open(o options) {
	r.t.Helper()
	var err error
	r.token, err = r.module.OpenToken(o.token())
	require.NoError(r.t, err)
}

func (o options) token() TokenConfig {
	c := TokenConfig{Label: label, PIN: o.pin, Profile: o.profile, Rand: o.rand, StrictOnToken: o.strict}
	if c.PIN == nil {
		c.PIN = pin
	}
	if c.Profile.Sessions == 0 {
		c.Profile.Sessions = 2
	}
	return c
}

// eventually waits until something is so, for which there is no signal. Its limit is for a hopeless case only.
func (r *rig) eventually(is func() bool) {
	r.t.Helper()
	require.Eventually(r.t, is, time.Minute, time.Millisecond)
}

// healed waits until the token works again.
func (r *rig) healed() {
	r.t.Helper()
	r.eventually(func() bool { return r.token.Check(r.t.Context()) == nil })
}

// homes gives a key in each home of key material.
func (r *rig) homes() map[string]hsm.KeyRef {
	r.t.Helper()
	domain := r.generate(hsm.KeyRequest{Kind: hsm.AES256Wrap})
	return map[string]hsm.KeyRef{
		"token":   r.generate(hsm.KeyRequest{Kind: hsm.AES256}),
		"wrapped": r.generate(hsm.KeyRequest{Kind: hsm.AES256, WrapUnder: domain.ID}),
	}
}

func (r *rig) generate(q hsm.KeyRequest) hsm.KeyRef {
	r.t.Helper()
	ref, err := r.token.GenerateKey(r.t.Context(), q)
	require.NoError(r.t, err)
	return ref
}

// seal encrypts under a key.
func (r *rig) seal(ref hsm.KeyRef, plaintext []byte) hsm.Opening {
	r.t.Helper()
	sealed, err := r.token.Encrypt(r.t.Context(), hsm.Sealing{Key: ref}, plaintext)
	require.NoError(r.t, err)
	return hsm.Opening{Key: ref, Sealed: sealed}
}

func (r *rig) requireOpens(o hsm.Opening, plaintext []byte) {
	r.t.Helper()
	got, err := r.token.Decrypt(r.t.Context(), o)
	require.NoError(r.t, err)
	require.Equal(r.t, plaintext, got)
}

func (r *rig) objects() []hsm.Object {
	r.t.Helper()
	objects, err := r.token.Objects(r.t.Context())
	require.NoError(r.t, err)
	return objects
}

// requests gives one call of each method that may be repeated on another session.
func (r *rig) requests(ref hsm.KeyRef, o hsm.Opening) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Encrypt": func(ctx context.Context) error {
			_, err := r.token.Encrypt(ctx, hsm.Sealing{Key: ref}, []byte("data"))
			return err
		},
		"Decrypt": func(ctx context.Context) error {
			_, err := r.token.Decrypt(ctx, o)
			return err
		},
		"ReEncrypt": func(ctx context.Context) error {
			_, err := r.token.ReEncrypt(ctx, o, hsm.Sealing{Key: ref})
			return err
		},
		"Random": func(ctx context.Context) error { return r.token.Random(ctx, make([]byte, 8)) },
		"Check":  r.token.Check,
		"Objects": func(ctx context.Context) error {
			_, err := r.token.Objects(ctx)
			return err
		},
	}
}

// counts gives the number of calls of functions so far, as the fault module counts them.
func (r *rig) counts(functions ...string) map[string]int {
	r.t.Helper()
	counts := map[string]int{}
	for _, f := range functions {
		counts[f] = r.fault.Calls(f)
	}
	return counts
}

// observed counts what Observe is told.
type observed struct {
	mu    sync.Mutex
	calls map[call]int
}

type call struct {
	function string
	class    hsm.Class
}

func (o *observed) observe(function string, class hsm.Class, _ time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.calls[call{function, class}]++
}

// total gives the number of calls of a function, whatever became of them.
func (o *observed) total(function string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for c, count := range o.calls {
		if c.function == function {
			n += count
		}
	}
	return n
}

// failed gives the number of calls of a function that failed with a class.
func (o *observed) failed(function string, class hsm.Class) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.calls[call{function, class}]
}
