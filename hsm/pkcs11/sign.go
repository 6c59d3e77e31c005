package pkcs11

import (
	"context"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// signer is how a token carries out a signing algorithm.
type signer struct {
	mechanism uint
	parameter []byte
	// input is the length in bytes of what is signed; 0 for messages, of 1 to hsm.MaxMessage bytes.
	input int
	// prefix goes before the input.
	prefix []byte
	// raw tells that the token gives r and s of an ECDSA signature as they are.
	raw bool
	// doubted tells that there are tokens that sign something else instead and report success.
	doubted bool
}

var signers = map[hsm.Algorithm]signer{
	hsm.PKCS1WithSHA256: pkcs1Signer(rsaSHA256),
	hsm.PKCS1WithSHA384: pkcs1Signer(rsaSHA384),
	hsm.PKCS1WithSHA512: pkcs1Signer(rsaSHA512),
	hsm.PSSWithSHA256:   pssSigner(rsaSHA256),
	hsm.PSSWithSHA384:   pssSigner(rsaSHA384),
	hsm.PSSWithSHA512:   pssSigner(rsaSHA512),
	hsm.ECDSAWithSHA256: {mechanism: p11.CKM_ECDSA, input: 32, raw: true},
	hsm.ECDSAWithSHA384: {mechanism: p11.CKM_ECDSA, input: 48, raw: true},
	hsm.ECDSAWithSHA512: {mechanism: p11.CKM_ECDSA, input: 64, raw: true},
	hsm.Ed25519:         {mechanism: ckmEDDSA},
	hsm.Ed25519ph:       {mechanism: ckmEDDSA, parameter: prehashParams(), input: 64, doubted: true},
	hsm.MLDSA:           {mechanism: ckmMLDSA},
}

// pkcs1Signer has CKM_RSA_PKCS sign a DigestInfo that is made here: tokens have that for every hash.
func pkcs1Signer(h rsaHash) signer {
	return signer{mechanism: p11.CKM_RSA_PKCS, input: h.hash.Size(), prefix: h.prefix}
}

func pssSigner(h rsaHash) signer {
	return signer{mechanism: p11.CKM_RSA_PKCS_PSS, parameter: ulongs(h.mechanism, h.mgf, uint(h.hash.Size())), input: h.hash.Size()}
}

// Sign implements hsm.Token.
func (t *Token) Sign(ctx context.Context, w hsm.Signing) ([]byte, error) {
	signer, err := signerOf(w)
	if err != nil {
		return nil, err
	}
	if signer.doubted {
		if _, err := t.demand(ctx, w.Key.Kind, w.Algorithm); err != nil {
			return nil, err
		}
	}
	return do(ctx, t, &task[[]byte]{f: func(s *session) (signature []byte, err error) {
		err = s.withKey(w.Key, func(key *loadedKey) error {
			signature, err = s.sign(key, w)
			return err
		})
		return signature, err
	}})
}

// signerOf refuses, before the token hears of it, what does not belong to the kind of key or is of the wrong length: a token
// may answer such things as if it were broken.
func signerOf(w hsm.Signing) (signer, error) {
	signer, signs := signers[w.Algorithm]
	if !signs || !slices.Contains(kinds[w.Key.Kind].algorithms, w.Algorithm) {
		return signer, &hsm.Error{Class: hsm.Unsupported, Cause: fmt.Errorf("%q with a key of the kind %q", w.Algorithm, w.Key.Kind)}
	}
	if n := len(w.Input); n != signer.input && signer.input > 0 || n == 0 || n > hsm.MaxMessage {
		return signer, &hsm.Error{Class: hsm.BadInput, Cause: fmt.Errorf("%d bytes to be signed with %s", n, w.Algorithm)}
	}
	return signer, nil
}

// sign signs what signerOf has let pass.
func (s *session) sign(key *loadedKey, w hsm.Signing) ([]byte, error) {
	signer, size := signers[w.Algorithm], signatureSize(w.Key.Kind)
	in := append(slices.Clip(signer.prefix), w.Input...)
	signature, err := s.signBare(bare{key: key.handle, mechanism: signer.mechanism, parameter: signer.parameter, in: in}, size)
	if err == nil && signer.raw {
		return ecdsaSignature(signature)
	}
	return signature, err
}

// signBare runs an operation whose result is of a known length.
func (s *session) signBare(op bare, size int) ([]byte, error) {
	op.session, op.out = s.handle, make([]byte, size)
	start := time.Now()
	n, function, rv := s.m.direct.sign(op)
	if err := s.observe(function, rv, start); err != nil {
		return nil, err
	}
	if n != size {
		return nil, &hsm.Error{Class: hsm.Failed, Function: function, Cause: fmt.Errorf("a signature of %d bytes instead of %d", n, size)}
	}
	return op.out, nil
}

// signatureSize is the length of a signature as a token gives it.
func signatureSize(kind hsm.KeyKind) int {
	k := kinds[kind]
	switch k.forms[0].keyType {
	case p11.CKK_RSA:
		return k.size / 8
	case ckkMLDSA:
		return k.size
	default: // two numbers modulo the order of the curve, or a point and a number
		return 2 * ((k.size + 7) / 8)
	}
}

// ecdsaSignature makes an Ecdsa-Sig-Value (RFC 3279, section 2.2.3) of r and s at full length (PKCS#11 3.0, section 2.3.1).
func ecdsaSignature(raw []byte) ([]byte, error) {
	r, s := new(big.Int).SetBytes(raw[:len(raw)/2]), new(big.Int).SetBytes(raw[len(raw)/2:])
	if r.Sign() == 0 || s.Sign() == 0 {
		return nil, &hsm.Error{Class: hsm.Failed, Function: "C_Sign", Cause: errors.New("an ECDSA signature with a zero in it")}
	}
	der, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
	if err != nil {
		return nil, &hsm.Error{Class: hsm.Failed, Cause: fmt.Errorf("encoding signature: %w", err)}
	}
	return der, nil
}
