package pkcs11

import (
	"crypto/aes"
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"

	p11 "github.com/miekg/pkcs11"
	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
)

// TestResumeSHA256 goes on from digests of messages of every length around a block's.
func TestResumeSHA256(t *testing.T) {
	for n := range 200 {
		message := make([]byte, n)
		digest := sha256.Sum256(message)
		padded := slices.Concat(message, paddingSHA256(n))
		require.Zero(t, len(padded)%sha256.BlockSize, "%d bytes", n)
		got, err := resumeSHA256(digest[:], len(padded), []byte("suffix"))
		require.NoError(t, err)
		want := sha256.Sum256(append(padded, "suffix"...))
		require.Equal(t, want[:], got, "%d bytes", n)
	}
}

// TestHasLength has keys of every length that could be mistaken for another, as SoftHSM unwraps them: it says nothing of their
// length. One that it creates it knows the length of, in case there is no C_DigestKey.
func TestHasLength(t *testing.T) {
	r := newRig(t, options{})
	for _, size := range []int{16, 27, 28, 29, 31, 32, 33, 47, 48, 63, 64, 65, 100} {
		lengths := func(s *session) ([]string, error) { return lengthsOf(r, s, size) }
		got, err := do(t.Context(), r.token, &task[[]string]{slow: true, f: lengths})
		require.NoError(t, err)
		want := []string{fmt.Sprint("shown ", size), fmt.Sprint("told ", size), "unsupported"}
		require.Equal(t, want, got)
	}
}

// lengthsOf tries all lengths on a key of size bytes.
func lengthsOf(r *rig, s *session, size int) (found []string, err error) {
	known := material()
	transport, err := s.create(template{kind: kindTransport}, known)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(known)
	if err != nil {
		return nil, err
	}
	made, err := s.create(template{kind: hsm.HMAC512, extractable: true}, make([]byte, size))
	if err != nil {
		return nil, err
	}
	unwrapped, err := s.unwrapAs(template{kind: hsm.HMAC512}, mechanismOf(p11.CKM_AES_KEY_WRAP_PAD, nil), transport, keyWrapPadded(block, make([]byte, size)))
	if err != nil {
		return nil, err
	}
	try := func(name string, key p11.ObjectHandle, from, to int) {
		for claimed := from; claimed <= to; claimed++ {
			if same, failed := s.hasLength(key, claimed); failed != nil {
				err = failed
			} else if same {
				found = append(found, fmt.Sprint(name, " ", claimed))
			}
		}
	}
	try("shown", unwrapped, 0, 110)
	if err != nil {
		return nil, err
	}
	r.fault.Set("C_DigestKey rv=0x54")
	defer r.fault.Clear()
	try("told", made, size-1, size+1)
	if err != nil {
		return nil, err
	}
	_, err = s.hasLength(unwrapped, size)
	return append(found, string(hsm.ClassOf(err))), nil
}
