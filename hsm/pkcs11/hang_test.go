package pkcs11

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
)

// soon is a deadline for calls that would otherwise never return. Nothing here depends on how long it is.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func requireBusy(t *testing.T, err error) {
	t.Helper()
	require.Equal(t, hsm.Busy, hsm.ClassOf(err), "%v", err)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// TestHang has calls into the module that do not return: first one, then all.
func TestHang(t *testing.T) {
	r := newRig(t, options{drain: 20 * time.Millisecond})
	ref := r.homes()["wrapped"]
	o := r.seal(ref, []byte("data"))

	r.fault.Set("C_Decrypt hang=1 count=1")
	_, err := r.token.Decrypt(soon(t), o)
	requireBusy(t, err)
	require.Equal(t, 1, r.token.Usage().Busy)
	for range 20 { // the other session serves on
		r.requireOpens(o, []byte("data"))
		_, err := r.token.ReEncrypt(t.Context(), o, hsm.Sealing{Key: ref})
		require.NoError(t, err)
	}

	r.fault.Set("C_Decrypt hang=1")
	_, err = r.token.ReEncrypt(soon(t), o, hsm.Sealing{Key: ref})
	requireBusy(t, err)
	encrypted := r.fault.Calls("C_Encrypt")
	for method, request := range r.requests(ref, o) {
		if method != "Objects" { // has a session of its own
			requireBusy(t, request(soon(t)))
		}
	}
	require.Equal(t, encrypted, r.fault.Calls("C_Encrypt"), "something was begun for a caller who has gone")
	require.Len(t, r.objects(), 2)
	require.Equal(t, Usage{Sessions: 3, Busy: 2}, r.token.Usage())

	finalized := r.fault.Calls("C_Finalize")
	for range 2 {
		require.ErrorIs(t, r.module.Close(), errHanging)
	}
	require.Equal(t, finalized, r.fault.Calls("C_Finalize"), "C_Finalize beside a call crashes modules")
	require.Equal(t, hsm.TokenGone, hsm.ClassOf(r.token.Check(t.Context())))

	r.fault.Clear()
	r.eventually(func() bool { return r.module.Close() == nil })
	require.Equal(t, finalized+1, r.fault.Calls("C_Finalize"))
	require.NoError(t, r.module.Close())
	require.Equal(t, finalized+1, r.fault.Calls("C_Finalize"))
}

// TestHangEnds has a call come back when its caller has gone.
func TestHangEnds(t *testing.T) {
	r := newRig(t, options{profile: Profile{Sessions: 1}})
	o := r.seal(r.homes()["token"], []byte("data"))
	r.fault.Set("C_Decrypt hang=1")
	_, err := r.token.Decrypt(soon(t), o)
	requireBusy(t, err)
	r.fault.Clear()
	r.requireOpens(o, []byte("data"))
	opened := r.fault.Calls("C_OpenSession")
	r.requireOpens(o, []byte("data"))
	require.Equal(t, opened, r.fault.Calls("C_OpenSession"))
}

// TestHangWhileLoading has the session hang that all keys are loaded with.
func TestHangWhileLoading(t *testing.T) {
	r := newRig(t, options{profile: Profile{KeyCache: 1}})
	homes := r.homes()
	o := r.seal(homes["wrapped"], []byte("data"))
	r.fault.Set("C_CopyObject hang=1")
	_, err := r.token.Encrypt(soon(t), hsm.Sealing{Key: homes["token"]}, []byte("data"))
	requireBusy(t, err)
	r.requireOpens(o, []byte("data")) // loaded already
	r.fault.Clear()
	r.requireOpens(r.seal(homes["token"], []byte("data")), []byte("data"))
}

// TestHangBesideLoss loses the token while a call hangs: it must not be re-opened under that call.
func TestHangBesideLoss(t *testing.T) {
	r := newRig(t, options{drain: 20 * time.Millisecond})
	o := r.seal(r.homes()["token"], []byte("data"))
	r.fault.Set("C_Decrypt hang=1 count=1")
	_, err := r.token.Decrypt(soon(t), o)
	requireBusy(t, err)
	r.fault.Set("C_Decrypt hang=1", "C_OpenSession rv=0x30", "C_Encrypt rv=0x30")
	_, err = r.token.Encrypt(t.Context(), hsm.Sealing{Key: o.Key}, []byte("data"))
	require.Equal(t, hsm.TokenGone, hsm.ClassOf(err))
	require.ErrorIs(t, r.module.reopen(false), errHanging)
	require.ErrorIs(t, r.module.reopen(true), errHanging)
	require.Zero(t, r.fault.Calls("C_Finalize"))
	require.Equal(t, hsm.TokenGone, hsm.ClassOf(r.token.Check(t.Context())))
	r.fault.Clear()
	r.healed()
	r.requireOpens(o, []byte("data"))
}

// TestHangSparesOtherTokens has a lost token whose call hangs. The other token of the module must not be closed for the
// sake of a restart that cannot be.
func TestHangSparesOtherTokens(t *testing.T) {
	r := newModule(t, options{drain: 20 * time.Millisecond})
	r.soft.Token(t, "other")
	require.NoError(t, r.module.reopen(true)) // for SoftHSM to see the second token
	r.open(options{})
	other, err := r.module.OpenToken(TokenConfig{Label: "other", PIN: pin})
	require.NoError(t, err)
	epoch := r.token.epoch.Load()
	r.fault.Set("C_GenerateRandom hang=1 count=1")
	requireBusy(t, other.Check(soon(t)))
	other.epoch.Load().lose()
	require.ErrorIs(t, r.module.reopen(true), errHanging)
	require.Same(t, epoch, r.token.epoch.Load())
	require.NoError(t, r.token.Check(t.Context()))
	r.fault.Clear()
	r.eventually(func() bool { return other.Check(t.Context()) == nil })
}

// TestHangInRecovery has the recovery itself hang. Close must not wait for it for ever.
func TestHangInRecovery(t *testing.T) {
	r := newRig(t, options{drain: 20 * time.Millisecond})
	opened := r.fault.Calls("C_OpenSession")
	r.fault.Set("C_OpenSession hang=1")
	r.token.epoch.Load().lose()
	r.eventually(func() bool { return r.fault.Calls("C_OpenSession") > opened })
	require.Equal(t, hsm.TokenGone, hsm.ClassOf(r.token.Check(t.Context())))
	require.ErrorIs(t, r.module.Close(), errHanging)
	require.Zero(t, r.fault.Calls("C_Finalize"))
	r.fault.Clear()
	r.eventually(func() bool { return r.module.Close() == nil })
}

// TestAbandonedResult gives up on a task that then succeeds: its result must be wiped.
func TestAbandonedResult(t *testing.T) {
	r := newRig(t, options{profile: Profile{Sessions: 1}})
	begun, answer, discarded := make(chan struct{}), make(chan struct{}), make(chan struct{})
	result := []byte("a plaintext that nobody waits for")
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	_, err := do(ctx, r.token, &task[[]byte]{
		f:       func(*session) ([]byte, error) { close(begun); <-answer; return result, nil },
		discard: func(_ *session, b []byte) { clear(b); close(discarded) },
	})
	close(answer)
	require.Equal(t, hsm.Busy, hsm.ClassOf(err))
	<-discarded
	require.Equal(t, make([]byte, len(result)), result)
}

// TestPanicInTask must cost one operation, not the worker.
func TestPanicInTask(t *testing.T) {
	r := newRig(t, options{profile: Profile{Sessions: 1}})
	for range 3 {
		_, err := do(t.Context(), r.token, &task[int]{f: func(*session) (int, error) { panic("out of order") }})
		require.Equal(t, hsm.Failed, hsm.ClassOf(err))
		require.NoError(t, r.token.Check(t.Context()))
	}
}
