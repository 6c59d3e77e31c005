package pkcs11

import (
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
)

// TestForgeryEncryptsNothing has somebody who may only decrypt send forgeries, each of which must cost the key none of its
// encryptions.
func TestForgeryEncryptsNothing(t *testing.T) {
	r := newRig(t, options{})
	for home, ref := range r.homes() {
		forged := r.seal(ref, []byte("data"))
		forged.AAD[0] = 1
		before := r.counts("C_EncryptInit", "C_Encrypt")
		for range 1000 {
			_, err := r.token.Decrypt(t.Context(), forged)
			require.Equal(t, hsm.BadInput, hsm.ClassOf(err), "%s: %v", home, err)
		}
		require.Equal(t, before, r.counts("C_EncryptInit", "C_Encrypt"), home)
	}
}

// TestNewKeyEncryptsOnce counts what a key has spent when it is given out.
func TestNewKeyEncryptsOnce(t *testing.T) {
	r := newRig(t, options{})
	for range 3 {
		before := r.fault.Calls("C_Encrypt")
		r.generate(hsm.KeyRequest{Kind: hsm.AES256})
		require.Equal(t, before+1, r.fault.Calls("C_Encrypt"))
	}
}

// TestKeyWithoutProof cannot tell a forgery from a broken token. It must take it for neither.
func TestKeyWithoutProof(t *testing.T) {
	r := newRig(t, options{})
	for home, ref := range r.homes() {
		o := r.seal(ref, []byte("data"))
		for _, proof := range [][]byte{nil, {}, ref.Proof[1:], append(ref.Proof[:len(ref.Proof):len(ref.Proof)], 0)} {
			o.Key.Proof = proof
			r.requireOpens(o, []byte("data"))
			forged := o
			forged.AAD[0] = 1
			before := r.counts("C_EncryptInit", "C_Encrypt", "C_Login")
			_, err := r.token.Decrypt(t.Context(), forged)
			require.Equal(t, hsm.Failed, hsm.ClassOf(err), "%s: %v", home, err)
			require.Equal(t, before, r.counts("C_EncryptInit", "C_Encrypt", "C_Login"), home)
			require.NoError(t, r.token.Check(t.Context()))
		}
	}
}

// TestProofOfAnother has a proof that the key does not open, as a broken token would not open the right one.
func TestProofOfAnother(t *testing.T) {
	r := newRig(t, options{})
	ref, other := r.generate(hsm.KeyRequest{Kind: hsm.AES256}), r.generate(hsm.KeyRequest{Kind: hsm.AES256})
	o := r.seal(ref, []byte("data"))
	forged := o
	forged.AAD[0] = 1
	forged.Key.Proof = other.Proof
	_, err := r.token.Decrypt(t.Context(), forged)
	require.Equal(t, hsm.TokenGone, hsm.ClassOf(err), "%v", err)
	r.healed()
	r.requireOpens(o, []byte("data"))
}
