package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/hsm/hsmtest"
)

// TestDeadToken has a token that fails for good until it is repaired. No call here has a deadline, so none may wait.
func TestDeadToken(t *testing.T) {
	for name, rule := range map[string]string{"every call": "* rv=0x30", "every code": "* rv=0xE0"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, options{})
			homes := r.homes()
			sealed := map[string]hsm.Opening{}
			for home, ref := range homes {
				sealed[home] = r.seal(ref, []byte(home))
			}
			r.fault.Set(rule)
			for range 10 {
				for method, request := range r.requests(homes["token"], sealed["token"]) {
					require.Equal(t, hsm.TokenGone, hsm.ClassOf(request(t.Context())), method)
				}
				_, err := r.token.GenerateKey(t.Context(), hsm.KeyRequest{Kind: hsm.AES256})
				require.Equal(t, hsm.TokenGone, hsm.ClassOf(err))
				require.Equal(t, hsm.TokenGone, hsm.ClassOf(r.token.DestroyKey(t.Context(), homes["token"])))
			}
			require.Equal(t, Usage{}, r.token.Usage())
			r.fault.Clear()
			r.healed()
			for home, o := range sealed {
				r.requireOpens(o, []byte(home))
			}
		})
	}
}

// TestRestart has modules that heal by C_Finalize and C_Initialize only.
func TestRestart(t *testing.T) {
	for name, rules := range map[string][]string{
		"device error":             {"C_Finalize", "* rv=0x30 until=C_Initialize"},
		"general error":            {"C_Finalize", "* rv=0x5 until=C_Initialize"},
		"function failed":          {"C_Finalize", "* rv=0x6 until=C_Initialize"},
		"not initialised any more": {"C_Finalize rv=0x190 when=after until=C_Initialize", "* rv=0x190 until=C_Initialize"},
		"C_Initialize fails once":  {"C_Finalize", "C_Initialize rv=0x5 count=1", "* rv=0x30 until=C_Initialize"},
		"sessions only":            {"C_GenerateRandom rv=0x30 until=C_Initialize", "C_OpenSession rv=0xB1 until=C_Initialize", "C_Decrypt rv=0x30 count=1"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, options{})
			sealed := map[string]hsm.Opening{}
			for home, ref := range r.homes() {
				sealed[home] = r.seal(ref, []byte(home))
			}
			r.fault.Set(rules...)
			_, err := r.token.Decrypt(t.Context(), sealed["token"])
			require.Equal(t, hsm.TokenGone, hsm.ClassOf(err), "%v", err)
			r.healed() // while the rules are in force
			require.GreaterOrEqual(t, r.fault.Calls("C_Initialize"), 2)
			for home, o := range sealed {
				r.requireOpens(o, []byte(home))
			}
			require.Len(t, r.objects(), 2)
		})
	}
}

// TestLostBehindOurBack takes away what an epoch is built on, by means of the token itself.
func TestLostBehindOurBack(t *testing.T) {
	for name, lose := range map[string]func(*rig, *witness) error{
		"login":        func(_ *rig, w *witness) error { return w.ctx.Logout(w.session) },
		"all sessions": func(_ *rig, w *witness) error { return w.ctx.CloseAllSessions(w.slot) },
		"session objects": func(r *rig, w *witness) error {
			return w.ctx.CloseSession(r.token.epoch.Load().keys.anchor.handle)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, options{})
			for home, ref := range r.homes() {
				o := r.seal(ref, []byte(home))
				w := newWitness(t, r.soft)
				require.NoError(t, lose(r, w))
				_ = w.ctx.CloseSession(w.session)
				w.ctx.Destroy()
				r.eventually(func() bool {
					got, err := r.token.Decrypt(t.Context(), o)
					require.Contains(t, []hsm.Class{"", hsm.TokenGone, hsm.SessionDead}, hsm.ClassOf(err), "%v", err)
					return string(got) == home
				})
				require.NoError(t, r.token.Check(t.Context()))
			}
			require.Len(t, r.objects(), 2)
		})
	}
}

// TestLoggedOutHidesNothing asks for things that are not found without a login. The answer must not be that they do not
// exist.
func TestLoggedOutHidesNothing(t *testing.T) {
	r := newRig(t, options{})
	ref := r.homes()["token"]
	ask := map[string]func() error{
		"Objects": func() error {
			objects, err := r.token.Objects(t.Context())
			if err == nil {
				require.Len(t, objects, 2)
			}
			return err
		},
		"DestroyKey of a key of another server": func() error {
			if e := r.token.epoch.Load(); e != nil {
				e.keys.forget(ref.ID)
			}
			return r.token.DestroyKey(t.Context(), ref)
		},
	}
	for _, name := range []string{"Objects", "DestroyKey of a key of another server"} {
		w := newWitness(t, r.soft)
		require.NoError(t, w.ctx.Logout(w.session))
		w.close()
		r.eventually(func() bool { return ask[name]() == nil })
	}
	require.Len(t, r.objects(), 1)
}

// TestTwoTokens has two tokens in one module, of which one is lost. The other must go on.
func TestTwoTokens(t *testing.T) {
	r := newModule(t, options{})
	r.soft.Token(t, "other")
	require.NoError(t, r.module.reopen(true)) // for SoftHSM to see the second token
	var broken atomic.Pointer[error]
	other, err := r.module.OpenToken(TokenConfig{Label: "other", PIN: func() ([]byte, error) {
		if err := broken.Load(); err != nil {
			return nil, *err
		}
		return pin()
	}})
	require.NoError(t, err)
	r.open(options{})

	unreadable := errors.New("the file is gone")
	broken.Store(&unreadable)
	restarts := r.fault.Calls("C_Finalize")
	other.epoch.Load().lose()
	r.eventually(func() bool { return r.fault.Calls("C_Finalize") >= restarts+2 })
	r.healed() // though the other one fails all the time, and was opened first
	require.Equal(t, hsm.TokenGone, hsm.ClassOf(other.Check(t.Context())))

	var refused error = &hsm.Error{Class: hsm.LoginFailed}
	broken.Store(&refused)
	r.eventually(func() bool { return hsm.ClassOf(other.Check(t.Context())) == hsm.LoginFailed })
	r.healed()
	r.module.recoverAll()
	restarts = r.fault.Calls("C_Finalize")
	epoch := r.token.epoch.Load()
	r.module.recoverAll()
	require.Equal(t, restarts, r.fault.Calls("C_Finalize"), "a restart does not help against a wrong PIN")
	require.Same(t, epoch, r.token.epoch.Load())
}

// TestSessionNotReplaced loses a session and cannot open another one: the epoch ends and a new one begins.
func TestSessionNotReplaced(t *testing.T) {
	r := newRig(t, options{})
	o := r.seal(r.homes()["wrapped"], []byte("data"))
	r.fault.Set("C_Decrypt rv=0xB3 count=1", "C_OpenSession rv=0xB1 count=1")
	_, err := r.token.Decrypt(t.Context(), o)
	require.Equal(t, hsm.SessionDead, hsm.ClassOf(err))
	r.healed()
	r.requireOpens(o, []byte("data"))
	require.Equal(t, 2, r.fault.Calls("C_Login"))
}

// TestDestroyDuringLoad destroys a key while a copy of it is being made, which must not outlive it.
func TestDestroyDuringLoad(t *testing.T) {
	r := newRig(t, options{profile: Profile{KeyCache: 1}})
	ref, another := r.generate(hsm.KeyRequest{Kind: hsm.AES256}), r.generate(hsm.KeyRequest{Kind: hsm.AES256})
	r.seal(another, []byte("evicts the key from the cache of one"))
	copied := r.fault.Calls("C_CopyObject")
	r.fault.Set("C_CopyObject hang=1 when=after")
	destroyed := make(chan error, 1)
	var used sync.WaitGroup
	used.Go(func() { // may work, for it comes first
		_, _ = r.token.Encrypt(context.WithoutCancel(t.Context()), hsm.Sealing{Key: ref}, []byte("data"))
	})
	r.eventually(func() bool { return r.fault.Calls("C_CopyObject") > copied })
	gone := r.fault.Calls("C_DestroyObject")
	go func() { destroyed <- r.token.DestroyKey(context.WithoutCancel(t.Context()), ref) }()
	r.eventually(func() bool { return r.fault.Calls("C_DestroyObject") > gone })
	r.fault.Clear()
	require.NoError(t, <-destroyed)
	used.Wait()
	_, err := r.token.Encrypt(t.Context(), hsm.Sealing{Key: ref}, []byte("data"))
	require.Equal(t, hsm.KeyMissing, hsm.ClassOf(err))
}

// TestFewerSessions has a token that gives no more than a number of sessions.
func TestFewerSessions(t *testing.T) {
	for name, c := range map[string]struct{ room, requests, all int }{
		"anchor, one worker":              {2, 1, 1},
		"anchor, two workers":             {3, 2, 2},
		"anchor, three workers":           {4, 3, 3},
		"anchor, three workers, slow one": {5, 3, 4},
	} {
		t.Run(name, func(t *testing.T) {
			r := newModule(t, options{})
			r.fault.Set(fmt.Sprintf("C_OpenSession count=%d", c.room), "C_OpenSession rv=0xB1")
			r.open(options{profile: Profile{Sessions: 3}})
			require.Equal(t, c.all, r.token.Usage().Sessions)
			for home, ref := range r.homes() {
				r.requireOpens(r.seal(ref, []byte(home)), []byte(home))
			}
			require.Len(t, r.objects(), 2)
		})
	}
	t.Run("none to work with", func(t *testing.T) {
		r := newModule(t, options{})
		r.fault.Set("C_OpenSession count=1", "C_OpenSession rv=0xB1")
		_, err := r.module.OpenToken(options{}.token())
		require.Equal(t, hsm.Busy, hsm.ClassOf(err))
		require.Equal(t, 1, r.fault.Calls("C_CloseSession"))
		r.fault.Clear()
		r.open(options{})
		require.NoError(t, r.token.Check(t.Context()))
	})
}

// TestOpenFails has each step of opening a token fail: nothing may be left open, and it may be tried again.
func TestOpenFails(t *testing.T) {
	r := newModule(t, options{})
	for _, rule := range []string{
		"C_GetSlotList rv=0x30", "C_GetTokenInfo rv=0x30", "C_OpenSession rv=0x30", "C_Login rv=0x30", "C_FindObjectsInit rv=0x30",
		"C_FindObjects rv=0x30", "C_OpenSession rv=0x30 skip=1", "C_OpenSession rv=0x30 skip=3", "C_GetSessionInfo rv=0x30",
	} {
		opened, closed := r.fault.Calls("C_OpenSession"), r.fault.Calls("C_CloseSession")
		failed := r.seen.failed("C_OpenSession", hsm.TokenGone)
		r.fault.Set(rule)
		_, err := r.module.OpenToken(options{}.token())
		require.Equal(t, hsm.TokenGone, hsm.ClassOf(err), "%s: %v", rule, err)
		r.fault.Clear()
		opened = r.fault.Calls("C_OpenSession") - opened - (r.seen.failed("C_OpenSession", hsm.TokenGone) - failed)
		require.Equal(t, opened, r.fault.Calls("C_CloseSession")-closed, rule)
	}
	r.open(options{})
	require.NoError(t, r.token.Check(t.Context()))
}

func TestWrongPINAtOpening(t *testing.T) {
	for name, c := range map[string]struct {
		rule   string
		pin    string
		class  hsm.Class
		logins int
	}{
		"wrong":       {"", "not the PIN", hsm.LoginFailed, 1},
		"locked":      {"C_Login rv=0xA4", hsmtest.PIN, hsm.LoginFailed, 1},
		"expired":     {"C_Login rv=0xA3", hsmtest.PIN, hsm.LoginFailed, 1},
		"not set":     {"C_Login rv=0x102", hsmtest.PIN, hsm.LoginFailed, 1},
		"other user":  {"C_Login rv=0x104", hsmtest.PIN, hsm.LoginFailed, 1},
		"empty":       {"", "", hsm.LoginFailed, 0},
		"token fault": {"C_Login rv=0x30", hsmtest.PIN, hsm.TokenGone, 1},
		"already":     {"C_Login rv=0x100 when=after", hsmtest.PIN, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newModule(t, options{})
			r.fault.Set(c.rule)
			secret := []byte(c.pin)
			asked := 0
			o := options{pin: func() ([]byte, error) { asked++; return secret, nil }}
			_, err := r.module.OpenToken(o.token())
			require.Equal(t, c.class, hsm.ClassOf(err), "%v", err)
			require.Equal(t, 1, asked)
			r.module.recoverAll()
			require.Equal(t, 1, asked)
			require.Equal(t, c.logins, r.fault.Calls("C_Login"))
			require.Equal(t, make([]byte, len(secret)), secret, "the PIN was not wiped")
		})
	}
}

// TestWrongPINLater has the PIN changed while the server runs. It must not lock the token by trying.
func TestWrongPINLater(t *testing.T) {
	var asked atomic.Int32
	r := newRig(t, options{pin: func() ([]byte, error) {
		if asked.Add(1) > 1 {
			return []byte("not the PIN"), nil
		}
		return pin()
	}})
	ref := r.homes()["token"]
	r.token.epoch.Load().lose()
	r.eventually(func() bool { return hsm.ClassOf(r.token.Check(t.Context())) == hsm.LoginFailed })
	for range 3 {
		r.module.report()
		require.NoError(t, r.module.reopen(false))
		require.NoError(t, r.module.reopen(true))
		for method, request := range r.requests(ref, hsm.Opening{Key: ref, Sealed: hsm.Sealed{Data: make([]byte, 40)}}) {
			require.Equal(t, hsm.LoginFailed, hsm.ClassOf(request(t.Context())), method)
		}
	}
	require.Equal(t, 2, r.fault.Calls("C_Login"))
	require.EqualValues(t, 2, asked.Load())
}
