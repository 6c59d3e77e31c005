package pkcs11

import (
	"bytes"
	"crypto/rand"
	"crypto/sha512"
	"errors"
	"fmt"

	"hsmkms/hsm"
	"hsmkms/publickey"
)

// prove shows that the key does what it is for, and gives the KeyRef.Proof of one that encrypts. SoftHSM can leave a key
// that is found but has no value.
func (s *session) prove(a ability, ref hsm.KeyRef) ([]byte, error) {
	if ref.Kind == hsm.AES256Wrap {
		return nil, s.proveWrap(ref)
	}
	key, err := s.keys.acquire(s, ref)
	if err != nil {
		return nil, err
	}
	defer s.keys.release(key)
	if ref.Kind == hsm.AES256 {
		return s.makeProof(key)
	}
	algorithm, route := a.first(ref.Kind)
	return nil, s.rehearseKey(key, ref, algorithm, route)
}

func (s *session) proveWrap(ref hsm.KeyRef) error {
	object, err := s.keys.object(s, ref.ID)
	if err != nil {
		return err
	}
	s.keys.objectsMu.Lock()
	defer s.keys.objectsMu.Unlock()
	handle, err := s.generateKey(template{kind: hsm.AES256, extractable: true})
	if err != nil {
		return err
	}
	defer func() { _ = s.destroy(handle) }()
	_, _, err = s.wrap(object, handle)
	return err
}

// rehearseKey has a key do what it is for and checks the result in this process: against the public key in the reference,
// which so is seen to belong to it.
func (s *session) rehearseKey(key *loadedKey, ref hsm.KeyRef, a hsm.Algorithm, route hsm.Route) error {
	switch {
	case a == hsm.SymmetricDefault:
		_, err := s.makeProof(key)
		return err
	case a == hsm.MLDSA:
		return s.rehearseMLDSA(key, ref)
	case signers[a].mechanism != 0:
		return s.rehearseSignature(key, ref, a)
	case macs[a] != 0:
		return s.rehearseMAC(key, ref)
	case a == hsm.ECDH:
		return s.rehearseAgreement(key, ref)
	default:
		return s.rehearseDecryption(key, ref, a, route)
	}
}

func (s *session) rehearseSignature(key *loadedKey, ref hsm.KeyRef, a hsm.Algorithm) error {
	public, err := publicKey(ref)
	if err != nil {
		return err
	}
	message, err := randomBytes(max(signers[a].input, 1))
	if err != nil {
		return err
	}
	signed := publickey.Signed{Algorithm: string(a), Type: publickey.Digest, Message: message}
	w := hsm.Signing{Key: ref, Algorithm: a, Input: message}
	switch a { //nolint:exhaustive // the others sign a digest as it is
	case hsm.Ed25519:
		signed.Type = publickey.Raw
	case hsm.Ed25519ph: // of which publickey verifies what AWS signs: the digest is a message
		digest := sha512.Sum512(message)
		w.Input = digest[:]
	}
	if signed.Signature, err = s.sign(key, w); err != nil {
		return err
	}
	if err := public.Verify(signed); err != nil {
		return &hsm.Error{Class: hsm.Failed, Function: "C_Sign", Cause: err}
	}
	return nil
}

// rehearseMAC can only see whether the key has a value and the same one each time.
func (s *session) rehearseMAC(key *loadedKey, ref hsm.KeyRef) error {
	message, err := randomBytes(64)
	if err != nil {
		return err
	}
	first, err := s.mac(key, ref.Kind, message)
	if err != nil {
		return err
	}
	second, err := s.mac(key, ref.Kind, message)
	if err == nil && !bytes.Equal(first, second) {
		err = &hsm.Error{Class: hsm.Failed, Function: "C_Sign", Cause: errors.New("another MAC of the same message")}
	}
	return err
}

func (s *session) rehearseAgreement(key *loadedKey, ref hsm.KeyRef) error {
	public, err := publicKey(ref)
	if err != nil {
		return err
	}
	curve := agreements[ref.Kind]
	ours, err := curve.NewPublicKey(public.Point())
	if err != nil {
		return &hsm.Error{Class: hsm.Failed, Cause: fmt.Errorf("using the public key: %w", err)}
	}
	other, err := curve.GenerateKey(rand.Reader)
	if err != nil {
		return &hsm.Error{Class: hsm.Failed, Cause: fmt.Errorf("generating in Go: %w", err)}
	}
	want, err := other.ECDH(ours)
	if err != nil {
		return &hsm.Error{Class: hsm.Failed, Cause: fmt.Errorf("agreeing in Go: %w", err)}
	}
	got, err := s.derive(key, ref.Kind, other.PublicKey().Bytes())
	if err == nil && !bytes.Equal(got, want) {
		err = &hsm.Error{Class: hsm.Failed, Function: "C_DeriveKey", Cause: errWrongResult}
	}
	return err
}

func (s *session) rehearseDecryption(key *loadedKey, ref hsm.KeyRef, a hsm.Algorithm, route hsm.Route) error {
	public, err := publicKey(ref)
	if err != nil {
		return err
	}
	plaintext, err := randomBytes(32)
	if err != nil {
		return err
	}
	ciphertext, err := public.Encrypt(string(a), plaintext)
	if err != nil {
		return &hsm.Error{Class: hsm.Failed, Cause: fmt.Errorf("encrypting in Go: %w", err)}
	}
	out := make([]byte, len(ciphertext))
	n, err := s.decryptOAEP(key, a, route, ciphertext, out)
	if err == nil && !bytes.Equal(out[:n], plaintext) {
		err = &hsm.Error{Class: hsm.Failed, Function: "C_Decrypt", Cause: errWrongResult}
	}
	return err
}

// randomBytes gives n bytes of this process.
func randomBytes(n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		return nil, &hsm.Error{Class: hsm.Failed, Cause: fmt.Errorf("making random bytes: %w", err)}
	}
	return b, nil
}
