package pkcs11

import (
	"context"
	"crypto/aes"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"time"

	"hsmkms/hsm"
)

// opener decrypts into the scratch of a session, which the caller wipes, and gives the part of it that is the plaintext.
type opener func(s *session) ([]byte, error)

// sealer encrypts.
type sealer func(s *session, plaintext []byte) (hsm.Sealed, error)

// symmetric tells whether an algorithm is AES-GCM.
func symmetric(a hsm.Algorithm) bool { return a == "" || a == hsm.SymmetricDefault }

// checkSymmetric refuses keys that are not for AES-GCM.
func checkSymmetric(ref hsm.KeyRef) error {
	if ref.Kind != hsm.AES256 {
		return &hsm.Error{Class: hsm.Unsupported, Cause: fmt.Errorf("AES-GCM with a key of the kind %q", ref.Kind)}
	}
	return nil
}

func (t *Token) opener(ctx context.Context, o hsm.Opening) (opener, error) {
	if !symmetric(o.Algorithm) {
		return t.openerRSA(ctx, o)
	}
	return func(s *session) ([]byte, error) { return s.open(o) }, checkSymmetric(o.Key)
}

func (t *Token) sealer(w hsm.Sealing) (sealer, error) {
	if !symmetric(w.Algorithm) {
		return sealerRSA(w)
	}
	return func(s *session, plaintext []byte) (hsm.Sealed, error) { return s.seal(w, plaintext) }, checkSymmetric(w.Key)
}

// Encrypt implements hsm.Token.
func (t *Token) Encrypt(ctx context.Context, w hsm.Sealing, plaintext []byte) (hsm.Sealed, error) {
	seal, err := t.sealer(w)
	if err != nil {
		return hsm.Sealed{}, err
	}
	if !symmetric(w.Algorithm) {
		if err := ctx.Err(); err != nil {
			return hsm.Sealed{}, &hsm.Error{Class: hsm.Busy, Cause: err}
		}
		return seal(nil, plaintext)
	}
	return do(ctx, t, &task[hsm.Sealed]{f: func(s *session) (hsm.Sealed, error) { return seal(s, plaintext) }})
}

// Decrypt implements hsm.Token.
func (t *Token) Decrypt(ctx context.Context, o hsm.Opening) ([]byte, error) {
	open, err := t.opener(ctx, o)
	if err != nil {
		return nil, err
	}
	take := func(s *session) ([]byte, error) {
		defer clear(s.scratch)
		plaintext, err := open(s)
		if err != nil {
			return nil, err
		}
		return append(make([]byte, 0, len(plaintext)), plaintext...), nil // not nil, though it may be empty
	}
	return do(ctx, t, &task[[]byte]{f: take, discard: func(_ *session, b []byte) { clear(b) }})
}

// ReEncrypt implements hsm.Token. The plaintext goes from C_Decrypt into the session's scratch buffer and from there
// into C_Encrypt, or to the public key of the destination.
func (t *Token) ReEncrypt(ctx context.Context, o hsm.Opening, w hsm.Sealing) (hsm.Sealed, error) {
	open, err := t.opener(ctx, o)
	if err != nil {
		return hsm.Sealed{}, ofSource(err)
	}
	seal, err := t.sealer(w)
	if err != nil {
		return hsm.Sealed{}, err
	}
	return do(ctx, t, &task[hsm.Sealed]{f: func(s *session) (hsm.Sealed, error) {
		defer clear(s.scratch)
		plaintext, err := open(s)
		if err != nil {
			return hsm.Sealed{}, ofSource(err)
		}
		return seal(s, plaintext)
	}})
}

// ofSource marks a failure of the decryption in a ReEncrypt.
func ofSource(err error) error {
	var e *hsm.Error
	if errors.As(err, &e) {
		marked := *e
		marked.Source = true
		return &marked
	}
	return &hsm.Error{Class: hsm.Failed, Source: true, Cause: err}
}

// open is an opener of AES-GCM.
func (s *session) open(o hsm.Opening) (plaintext []byte, err error) {
	if len(o.Sealed.Data) <= hsm.TagSize || len(o.Sealed.Data) > hsm.MaxPlaintext+hsm.TagSize {
		return nil, &hsm.Error{Class: hsm.BadInput, Cause: errors.New("ciphertext too short or too long")}
	}
	err = s.withKey(o.Key, func(key *loadedKey) error {
		n, err := s.decrypt(key, o, s.scratch)
		plaintext = s.scratch[:n]
		return err
	})
	return plaintext, err
}

// seal encrypts under a fresh IV.
func (s *session) seal(w hsm.Sealing, plaintext []byte) (sealed hsm.Sealed, err error) {
	if len(plaintext) == 0 || len(plaintext) > hsm.MaxPlaintext {
		return sealed, &hsm.Error{Class: hsm.BadInput, Cause: errors.New("plaintext empty or too long")}
	}
	err = s.withKey(w.Key, func(key *loadedKey) error {
		sealed, err = s.encrypt(key, w.AAD, plaintext)
		return err
	})
	return sealed, err
}

// withKey runs f with the handle of a key, once more with a handle looked up anew when the token does not know it.
func (s *session) withKey(ref hsm.KeyRef, f func(*loadedKey) error) error {
	return s.keys.anew(func() error {
		key, err := s.keys.acquire(s, ref)
		if err != nil {
			return err
		}
		defer s.keys.release(key)
		return f(key)
	}, ref.ID, ref.WrappedBy)
}

// encrypt is one AES-GCM encryption in the token's IV mode.
func (s *session) encrypt(key *loadedKey, aad hsm.AAD, plaintext []byte) (hsm.Sealed, error) {
	mode := s.keys.token.cfg.Profile.IV
	clear(s.iv)
	if mode == IVCaller {
		if _, err := io.ReadFull(s.keys.token.cfg.Rand, s.iv); err != nil {
			return hsm.Sealed{}, &hsm.Error{Class: hsm.Failed, Cause: fmt.Errorf("making IV: %w", err)}
		}
	}
	copy(s.aad, aad[:])
	op := gcm{session: s.handle, key: key.handle, iv: s.iv, aad: s.aad, in: plaintext, out: make([]byte, len(plaintext)+2*hsm.TagSize)}
	if mode == IVAppended {
		op.iv = nil
	}
	start := time.Now()
	n, function, rv := s.m.direct.encrypt(op)
	if err := s.observe(function, rv, start); err != nil {
		return hsm.Sealed{}, err
	}
	return s.sealed(mode, op.out[:min(n, len(op.out))], len(plaintext))
}

// sealed reads the result of an encryption. It fails closed: a token that does not do with the IV what its profile says
// could encrypt twice under one IV, which lays the key stream open.
func (s *session) sealed(mode IVMode, out []byte, plaintextSize int) (hsm.Sealed, error) {
	size := plaintextSize + hsm.TagSize
	var sealed hsm.Sealed
	switch {
	case mode == IVAppended && len(out) == size+hsm.IVSize:
		copy(sealed.IV[:], out[size:])
	case mode != IVAppended && len(out) == size:
		copy(sealed.IV[:], s.iv)
	default:
		return hsm.Sealed{}, &hsm.Error{Class: hsm.Failed, Function: "C_Encrypt", Cause: fmt.Errorf(
			"%d bytes for a plaintext of %d: the token's IV mode is not %q, see `hsmkms token show`", len(out), plaintextSize, mode)}
	}
	if sealed.IV == [hsm.IVSize]byte{} {
		return hsm.Sealed{}, &hsm.Error{Class: hsm.Failed, Function: "C_Encrypt", Cause: fmt.Errorf(
			"no IV was made: the token's IV mode is not %q, see `hsmkms token show`", mode)}
	}
	sealed.Data = out[:size]
	return sealed, nil
}

// decrypt is one AES-GCM decryption into out, which must have room for the ciphertext.
func (s *session) decrypt(key *loadedKey, o hsm.Opening, out []byte) (int, error) {
	copy(s.iv, o.Sealed.IV[:])
	copy(s.aad, o.AAD[:])
	start := time.Now()
	n, function, rv := s.m.direct.decrypt(gcm{session: s.handle, key: key.handle, iv: s.iv, aad: s.aad, in: o.Sealed.Data, out: out})
	took := time.Since(start)
	err := result(function, rv)
	if function == "C_Decrypt" && hsm.ClassOf(err) == hsm.Failed {
		err = s.judge(key, o.Key.Proof, rv)
	}
	s.m.cfg.Observe(function, hsm.ClassOf(err), took)
	if err != nil {
		return 0, err
	}
	if n != len(o.Sealed.Data)-hsm.TagSize {
		return 0, &hsm.Error{Class: hsm.Failed, Function: function, Cause: fmt.Errorf("%d bytes from a ciphertext of %d", n, len(o.Sealed.Data))}
	}
	return n, nil
}

// judge decides what an unspecific return code of C_Decrypt means. SoftHSM answers a forged ciphertext with
// CKR_GENERAL_ERROR and nShield with CKR_FUNCTION_FAILED; a broken token may answer the same. If the same key on the same
// session still opens its proof, the ciphertext was bad. To take the code for a broken token would let anybody who may call
// Decrypt have it re-opened at will, and to encrypt anything here would let them use up the key. A key without a proof is
// not judged: the code stays what it is, a failure.
func (s *session) judge(key *loadedKey, proof []byte, rv uint) error {
	err := failure("C_Decrypt", rv)
	if len(proof) != proofSize {
		return err
	}
	if test := s.openProof(key, proof); test != nil {
		err.Class, err.Cause = hsm.TokenGone, test
		return err
	}
	err.Class = hsm.BadInput
	return err
}

// proofSize is the length of a KeyRef.Proof.
const proofSize = hsm.IVSize + aes.BlockSize + hsm.TagSize

// makeProof encrypts a block of zeros and sees that it can be decrypted. It is the only encryption of the server itself
// under a key, once in the key's life.
func (s *session) makeProof(key *loadedKey) ([]byte, error) {
	var zeros [aes.BlockSize]byte
	sealed, err := s.encrypt(key, hsm.AAD{}, zeros[:])
	if err != nil {
		return nil, err
	}
	proof := append(sealed.IV[:], sealed.Data...)
	return proof, s.openProof(key, proof)
}

// openProof fails if the key does not open its proof, which is of the right length.
func (s *session) openProof(key *loadedKey, proof []byte) error {
	var zeros [aes.BlockSize]byte
	copy(s.iv, proof)
	clear(s.aad)
	op := gcm{session: s.handle, key: key.handle, iv: s.iv, aad: s.aad, in: proof[hsm.IVSize:], out: make([]byte, proofSize-hsm.IVSize)}
	start := time.Now()
	n, function, rv := s.m.direct.decrypt(op)
	if err := s.observe(function, rv, start); err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(op.out[:min(n, len(op.out))], zeros[:]) != 1 {
		return &hsm.Error{Class: hsm.Failed, Function: function, Cause: errors.New("the token did not decrypt what it encrypted")}
	}
	return nil
}
