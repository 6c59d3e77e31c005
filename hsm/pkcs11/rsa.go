package pkcs11

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"hsmkms/hsm"
	"hsmkms/publickey"
)

// openerRSA decrypts with a key pair.
func (t *Token) openerRSA(ctx context.Context, o hsm.Opening) (opener, error) {
	if err := checkRSA(o.Key, o.Algorithm); err != nil {
		return nil, err
	}
	ciphertext, err := possible(o.Key, o.Sealed.Data)
	if err != nil {
		return nil, err
	}
	route, err := t.demand(ctx, o.Key.Kind, o.Algorithm)
	if err != nil {
		return nil, err
	}
	return func(s *session) (plaintext []byte, err error) {
		err = s.withKey(o.Key, func(key *loadedKey) error {
			n, err := s.decryptOAEP(key, o.Algorithm, route, ciphertext, s.scratch)
			plaintext = s.scratch[:n]
			return s.judgeOAEP(key, o, route, err)
		})
		return plaintext, err
	}, nil
}

// checkRSA refuses what a kind of keys does not do.
func checkRSA(ref hsm.KeyRef, a hsm.Algorithm) error {
	if _, known := decrypters[a]; !known || !slices.Contains(kinds[ref.Kind].algorithms, a) {
		return &hsm.Error{Class: hsm.Unsupported, Cause: fmt.Errorf("%q with a key of the kind %q", a, ref.Kind)}
	}
	return nil
}

// possible gives a ciphertext, or, for what cannot be one by its length or as a number, zeros of the right length. They fail
// as every other bad ciphertext does: with the same error, after the same calls.
func possible(ref hsm.KeyRef, ciphertext []byte) ([]byte, error) {
	modulus, err := modulusOf(ref)
	if err != nil {
		return nil, err
	}
	if len(ciphertext) != len(modulus) || bytes.Compare(ciphertext, modulus) >= 0 {
		return make([]byte, len(modulus)), nil
	}
	return ciphertext, nil
}

// modulusOf gives the modulus of a key pair, big-endian and of full length.
func modulusOf(ref hsm.KeyRef) ([]byte, error) {
	parsed, err := x509.ParsePKIXPublicKey(ref.Public)
	key, ok := parsed.(*rsa.PublicKey)
	if err == nil && (!ok || key.N.BitLen() != kinds[ref.Kind].size) {
		err = errors.New("it is of another kind")
	}
	if err != nil {
		return nil, &hsm.Error{Class: hsm.Failed, Cause: fmt.Errorf("reading the public key of %s, of the kind %s: %w", ref.ID, ref.Kind, err)}
	}
	return key.N.FillBytes(make([]byte, key.Size())), nil
}

// judgeOAEP decides what a failed decryption means, as judge does for AES-GCM: if the same key on the same session decrypts
// what is encrypted to its public key now, the ciphertext was bad, and the error is errOAEP whatever was wrong with it. It is
// asked whatever the code, so that neither codes nor the time taken tell ciphertexts apart. A block that the token decrypted
// and that has no padding has shown already that the token works.
func (s *session) judgeOAEP(key *loadedKey, o hsm.Opening, route hsm.Route, err error) error {
	if errors.Is(err, errOAEP) || !undecided(err) {
		return err
	}
	test := s.rehearseDecryption(key, o.Key, o.Algorithm, route)
	switch {
	case test == nil:
		return errOAEP
	case vague(test) || suspect(test):
		return &hsm.Error{Class: hsm.TokenGone, Cause: test}
	default:
		return &hsm.Error{Class: hsm.Failed, Cause: test}
	}
}

// sealerRSA encrypts to a key pair. No token is needed for it.
func sealerRSA(w hsm.Sealing) (sealer, error) {
	if err := checkRSA(w.Key, w.Algorithm); err != nil {
		return nil, err
	}
	public, err := publicKey(w.Key)
	if err != nil {
		return nil, err
	}
	return func(_ *session, plaintext []byte) (hsm.Sealed, error) {
		data, err := public.Encrypt(string(w.Algorithm), plaintext)
		if errors.Is(err, publickey.ErrPlaintextLength) {
			return hsm.Sealed{}, &hsm.Error{Class: hsm.TooLong, Cause: err}
		}
		if err != nil {
			return hsm.Sealed{}, &hsm.Error{Class: hsm.Failed, Cause: err}
		}
		return hsm.Sealed{Data: data}, nil
	}, nil
}
