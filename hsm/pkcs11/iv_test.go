package pkcs11

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
)

// emulations are the rules for tokens of each IV mode.
var emulations = map[IVMode]string{
	IVCaller: "", IVInPlace: "C_Encrypt emulate=iv_in_place", IVAppended: "C_Encrypt emulate=iv_appended",
}

// TestIVModes has every profile on every token. Where they do not fit, nothing may be encrypted that a caller could get:
// SoftHSM, for one, takes an IV of zeros and even an empty one.
func TestIVModes(t *testing.T) {
	r := newRig(t, options{})
	ref := r.generate(hsm.KeyRequest{Kind: hsm.AES256})
	o := r.seal(ref, []byte("data"))
	fits := map[[2]IVMode]bool{
		{IVCaller, IVCaller}: true, {IVInPlace, IVInPlace}: true, {IVAppended, IVAppended}: true,
		{IVCaller, IVInPlace}: true, // the IV that was used is read back
	}
	for profile := range emulations {
		for token, rule := range emulations {
			r.fault.Set(rule)
			r.token.cfg.Profile.IV = profile
			sealed, err := r.token.Encrypt(t.Context(), hsm.Sealing{Key: ref}, []byte("data"))
			moved, err2 := r.token.ReEncrypt(t.Context(), o, hsm.Sealing{Key: ref})
			_, err3 := r.token.GenerateKey(t.Context(), hsm.KeyRequest{Kind: hsm.AES256, Label: "another"})
			if fits[[2]IVMode{profile, token}] {
				require.NoError(t, errors.Join(err, err2, err3), "profile %s, token %s", profile, token)
				require.NotEqual(t, sealed.IV, moved.IV)
				require.NotZero(t, sealed.IV)
				r.requireOpens(hsm.Opening{Key: ref, Sealed: sealed}, []byte("data"))
				r.requireOpens(hsm.Opening{Key: ref, Sealed: moved}, []byte("data"))
				continue
			}
			require.Zero(t, sealed)
			require.Zero(t, moved)
			for _, err := range []error{err, err2, err3} {
				require.Contains(t, []hsm.Class{hsm.Failed, hsm.Unsupported}, hsm.ClassOf(err), "profile %s, token %s: %v", profile, token, err)
			}
		}
	}
	r.requireOpens(o, []byte("data"))
	require.Len(t, r.objects(), 1+len(fits), "keys that failed their test were left behind")
	require.Equal(t, 1, r.fault.Calls("C_Login"), "a wrong profile is no lost token")
}

// reader is a source of randomness made of a function.
type reader func([]byte) (int, error)

func (r reader) Read(b []byte) (int, error) { return r(b) }

// TestRandomnessFails has no randomness on this side.
func TestRandomnessFails(t *testing.T) {
	broken := errors.New("no randomness")
	var rand reader = func(b []byte) (int, error) { return copy(b, "0123456789abcdef"), nil }
	r := newRig(t, options{rand: reader(func(b []byte) (int, error) { return rand(b) })})
	ref := r.generate(hsm.KeyRequest{Kind: hsm.AES256})
	require.EqualValues(t, "30313233343536373839616263646566", ref.ID)
	o := r.seal(ref, []byte("data"))
	require.EqualValues(t, "0123456789ab", o.Sealed.IV[:])
	for name, source := range map[string]reader{
		"fails":     func([]byte) (int, error) { return 0, broken },
		"ends":      func(b []byte) (int, error) { return copy(b, "short"), broken },
		"all zeros": func(b []byte) (int, error) { clear(b); return len(b), nil },
	} {
		rand = source
		_, err := r.token.Encrypt(t.Context(), hsm.Sealing{Key: ref}, []byte("data"))
		var e *hsm.Error
		require.ErrorAs(t, err, &e, name)
		require.Equal(t, hsm.Failed, e.Class)
		sealed, err := r.token.ReEncrypt(t.Context(), o, hsm.Sealing{Key: ref})
		require.ErrorAs(t, err, &e, name)
		require.Equal(t, hsm.Failed, e.Class)
		require.False(t, e.Source)
		require.Zero(t, sealed)
		if name != "all zeros" {
			_, err = r.token.GenerateKey(t.Context(), hsm.KeyRequest{Kind: hsm.AES256})
			require.ErrorAs(t, err, &e, name)
			require.ErrorIs(t, err, broken)
		}
	}
	r.requireOpens(o, []byte("data"))
}
