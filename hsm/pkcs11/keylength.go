package pkcs11

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"fmt"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// hasLength tells whether a secret key has a length in bytes. The token is not asked for it (SoftHSM says 0 of a key that was
// unwrapped) if it can show it, see extends.
func (s *session) hasLength(key p11.ObjectHandle, size int) (bool, error) {
	same, err := s.extends(key, size)
	if err == nil || suspect(err) {
		return same, err
	}
	if told := s.attribute(key, p11.CKA_VALUE_LEN); len(told) == 8 && binary.NativeEndian.Uint64(told) > 0 {
		return binary.NativeEndian.Uint64(told) == uint64(size), nil
	}
	return false, err
}

// extends proves the length of a secret key by the length extension of SHA-256 (FIPS 180-4, section 5.1.1): from a digest of
// a key, which the token makes with C_DigestKey, the digest of that key with its padding and a suffix follows, without
// knowing the key, for who knows how long it is. The token makes that one too, of the padding for a key of size bytes. They
// are the same if, and only if, the key is as long. The salt in front is there for the digest to be of no use to anybody.
func (s *session) extends(key p11.ObjectHandle, size int) (bool, error) {
	var salt, suffix [sha256.BlockSize]byte
	_, _ = rand.Read(salt[:]) // never fails
	_, _ = rand.Read(suffix[:])
	first, err := s.digestKey(salt[:], key, nil)
	if err != nil {
		return false, err
	}
	padding := paddingSHA256(len(salt) + size)
	got, err := s.digestKey(salt[:], key, append(padding, suffix[:]...))
	if err != nil {
		return false, err
	}
	want, err := resumeSHA256(first, len(salt)+size+len(padding), suffix[:])
	return bytes.Equal(got, want), err
}

// paddingSHA256 is what SHA-256 appends to a message of n bytes.
func paddingSHA256(n int) []byte {
	padding := make([]byte, 1+(2*sha256.BlockSize-9-n%sha256.BlockSize)%sha256.BlockSize)
	padding[0] = 0x80
	return binary.BigEndian.AppendUint64(padding, uint64(n)*8)
}

// resumeSHA256 goes on from the digest of n bytes, which are whole blocks.
func resumeSHA256(digest []byte, n int, more []byte) ([]byte, error) {
	h := sha256.New()
	h.Write(make([]byte, n))
	state, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("taking the state of SHA-256: %w", err)
	}
	copy(state[len("sha\x03"):], digest)
	if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
		return nil, fmt.Errorf("setting the state of SHA-256: %w", err)
	}
	h.Write(more)
	return h.Sum(nil), nil
}

// digestKey is SHA-256 of a key between two texts.
func (s *session) digestKey(before []byte, key p11.ObjectHandle, after []byte) (digest []byte, err error) {
	steps := []struct {
		function string
		f        func() error
	}{
		{"C_DigestInit", func() error { return s.m.ctx.DigestInit(s.handle, mechanismOf(p11.CKM_SHA256, nil)) }},
		{"C_DigestUpdate", func() error { return s.m.ctx.DigestUpdate(s.handle, before) }},
		{"C_DigestKey", func() error { return s.m.ctx.DigestKey(s.handle, key) }},
		{"C_DigestUpdate", func() error {
			if len(after) == 0 { // which the binding does not survive
				return nil
			}
			return s.m.ctx.DigestUpdate(s.handle, after)
		}},
	}
	for i, step := range steps {
		if err = s.m.call(step.function, step.f); err != nil && i == 0 {
			return nil, err
		}
		if err != nil {
			break
		}
	}
	// In any case, or the session could digest nothing any more.
	last := s.m.call("C_DigestFinal", func() (err error) {
		digest, err = s.m.ctx.DigestFinal(s.handle)
		return err
	})
	if err == nil {
		err = last
	}
	if err == nil && len(digest) != sha256.Size {
		err = &hsm.Error{Class: hsm.Failed, Function: "C_DigestFinal", Cause: fmt.Errorf("a SHA-256 of %d bytes", len(digest))}
	}
	return digest, err
}
