package publickey

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"fmt"
	"math/big"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// Signed is a message with its signature.
type Signed struct {
	// Algorithm is the name of a signing algorithm.
	Algorithm string
	Type      MessageType
	Message   []byte
	// Signature of ECDSA is in DER.
	Signature []byte
}

// Verify checks a signature. It fails with ErrSignature, ErrAlgorithm, ErrMessageType and ErrDigestLength, and with nothing
// else.
func (k *Key) Verify(s Signed) error {
	a, known := Signing(s.Algorithm)
	if !known || !a.Fits(k.spec) {
		return fmt.Errorf("%w: %q for %s", ErrAlgorithm, s.Algorithm, k.spec)
	}
	input, err := a.Input(s.Type, s.Message)
	if err != nil {
		return err
	}
	if !k.verifies(a, input, s.Signature) {
		return ErrSignature
	}
	return nil
}

// verifies needs an algorithm of a scheme that is for the key.
func (k *Key) verifies(a SigningAlgorithm, input, signature []byte) bool {
	switch public := k.public.(type) {
	case *rsa.PublicKey:
		if a.Scheme == PSS {
			return rsa.VerifyPSS(public, a.Hash, input, signature, &rsa.PSSOptions{SaltLength: a.Salt}) == nil
		}
		return rsa.VerifyPKCS1v15(public, a.Hash, input, signature) == nil
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(public, input, signature)
	case *secp256k1.PublicKey:
		return verifySecp256k1(public, input, signature)
	case ed25519.PublicKey:
		options := &ed25519.Options{}
		if a.Scheme == Ed25519ph {
			options.Hash = crypto.SHA512
		}
		return ed25519.VerifyWithOptions(public, input, signature, options) == nil
	default:
		return false
	}
}

// ecdsaSignature is the Ecdsa-Sig-Value of RFC 3279, section 2.2.3.
type ecdsaSignature struct{ R, S *big.Int }

// parseECDSA reads a signature of strict DER, as crypto/ecdsa does for its own curves; the numbers may be anything.
func parseECDSA(der []byte) (ecdsaSignature, bool) {
	var parsed ecdsaSignature
	if _, err := asn1.Unmarshal(der, &parsed); err != nil {
		return ecdsaSignature{}, false
	}
	// encoding/asn1 overlooks what follows the last member of a SEQUENCE.
	again, err := asn1.Marshal(parsed)
	return parsed, err == nil && bytes.Equal(again, der)
}

// ECDSASignature makes a signature as Verify takes it of one as C_Sign gives it for CKM_ECDSA: r and s, each as long as the
// order of the key's curve (PKCS#11 3.0, section 2.3.1). It does not verify it.
func (k *Key) ECDSASignature(raw []byte) ([]byte, error) {
	c, known := curveOf(k.spec)
	if !known {
		return nil, fmt.Errorf("%w: ECDSA for %s", ErrAlgorithm, k.spec)
	}
	if len(raw) != 2*c.size {
		return nil, fmt.Errorf("a signature of %d bytes for %s", len(raw), k.spec)
	}
	r, s := new(big.Int).SetBytes(raw[:c.size]), new(big.Int).SetBytes(raw[c.size:])
	der, err := asn1.Marshal(ecdsaSignature{r, s})
	if err != nil {
		return nil, fmt.Errorf("encoding signature: %w", err)
	}
	return der, nil
}

// Encrypt encrypts to an RSA key under an encryption algorithm. It fails with ErrAlgorithm and ErrPlaintextLength; else the
// ciphertext is as long as the modulus.
//
// The plaintext stays the caller's, who wipes it. crypto/rsa makes copies that no one can: the padded block that it masks in
// place, from which the plaintext can be told, and the same as a number. They stay on the heap until their memory is used
// again.
func (k *Key) Encrypt(algorithm string, plaintext []byte) ([]byte, error) {
	a, known := Encryption(algorithm)
	public, fits := k.public.(*rsa.PublicKey)
	if !known || !fits {
		return nil, fmt.Errorf("%w: %q for %s", ErrAlgorithm, algorithm, k.spec)
	}
	if longest := a.MaxPlaintext(k.spec); len(plaintext) > longest {
		return nil, fmt.Errorf("%w: %d bytes of at most %d", ErrPlaintextLength, len(plaintext), longest)
	}
	ciphertext, err := rsa.EncryptOAEP(a.Hash.New(), rand.Reader, public, plaintext, nil)
	if err != nil {
		return nil, fmt.Errorf("encrypting to %s: %w", k.spec, err)
	}
	return ciphertext, nil
}
