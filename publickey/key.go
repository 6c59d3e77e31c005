// Package publickey is the half of asymmetric cryptography that needs no secret: it reads public keys, verifies signatures
// and encrypts to RSA keys, in this process, for the algorithms of the AWS KMS API. The other half is the token's.
//
// Key specs and algorithms go by their names in the AWS API, such as RSA_2048 and RSASSA_PSS_SHA_256.
package publickey

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// What fails because of what the caller gave. Errors of this package wrap these; others are about keys that can't be read.
var (
	// ErrSignature: the signature is not one of the message by the key.
	ErrSignature = errors.New("the signature is invalid")
	// ErrAlgorithm: the algorithm is unknown, or does not belong to the key.
	ErrAlgorithm = errors.New("the algorithm does not fit the key")
	// ErrMessageType: the algorithm does not take messages of the type.
	ErrMessageType = errors.New("the message type does not fit the algorithm")
	// ErrDigestLength: a digest is not as long as the algorithm's hash.
	ErrDigestLength = errors.New("the digest has the wrong length")
	// ErrPlaintextLength: a plaintext is too long for the key and the algorithm.
	ErrPlaintextLength = errors.New("the plaintext is too long")
)

// Key specs that are named one by one.
const (
	specP256      = "ECC_NIST_P256"
	specP384      = "ECC_NIST_P384"
	specP521      = "ECC_NIST_P521"
	specSecp256k1 = "ECC_SECG_P256K1"
	specEd25519   = "ECC_NIST_EDWARDS25519"
)

// Key is a public key. It never changes and can be used concurrently.
type Key struct {
	spec  string
	der   []byte // the SubjectPublicKeyInfo
	point []byte // of an elliptic curve
	// public is an *rsa.PublicKey, *ecdsa.PublicKey, *secp256k1.PublicKey or ed25519.PublicKey.
	public any
}

// Spec is the key spec, such as ECC_NIST_P256.
func (k *Key) Spec() string { return k.spec }

// Marshal gives the SubjectPublicKeyInfo (RFC 5280, section 4.1) in DER, as GetPublicKey answers it. Parse accepts nothing
// else for the same key.
func (k *Key) Marshal() []byte { return bytes.Clone(k.der) }

// Point gives the uncompressed point of a key of a Weierstrass curve (SEC 1, section 2.3.3), the 32 bytes of an Ed25519 key
// (RFC 8032, section 5.1.5), and nil for an RSA key.
func (k *Key) Point() []byte { return bytes.Clone(k.point) }

var (
	oidRSA     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1} // RFC 3279, section 2.3.1
	oidEC      = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}     // RFC 5480, section 2.1.1
	oidEd25519 = asn1.ObjectIdentifier{1, 3, 101, 112}             // RFC 8410, section 3
)

type subjectPublicKeyInfo struct {
	Algorithm pkix.AlgorithmIdentifier
	Key       asn1.BitString
}

type rsaPublicKey struct {
	N *big.Int
	E int
}

// curve is a Weierstrass curve of the AWS API.
type curve struct {
	spec string
	oid  asn1.ObjectIdentifier // RFC 5480, section 2.1.1.1, and SEC 2, appendix A.2
	size int                   // of a coordinate and of a number modulo the order, in bytes
	// parse reads an uncompressed point that is on the curve and not at infinity.
	parse func(point []byte) (any, error)
}

var curves = []curve{
	{specP256, asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}, 32, nist(elliptic.P256())},
	{specP384, asn1.ObjectIdentifier{1, 3, 132, 0, 34}, 48, nist(elliptic.P384())},
	{specP521, asn1.ObjectIdentifier{1, 3, 132, 0, 35}, 66, nist(elliptic.P521())},
	{specSecp256k1, asn1.ObjectIdentifier{1, 3, 132, 0, 10}, 32, parseSecp256k1},
}

func nist(c elliptic.Curve) func(point []byte) (any, error) {
	return func(point []byte) (any, error) { return ecdsa.ParseUncompressedPublicKey(c, point) }
}

func curveOf(spec string) (curve, bool) {
	i := slices.IndexFunc(curves, func(c curve) bool { return c.spec == spec })
	if i < 0 {
		return curve{}, false
	}
	return curves[i], true
}

// Parse reads a SubjectPublicKeyInfo in DER. It takes one encoding of each key, the one that AWS gives out and that Marshal
// gives back: named curves, uncompressed points, no trailing bytes. der stays the caller's.
func Parse(der []byte) (*Key, error) {
	var info subjectPublicKeyInfo
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return nil, fmt.Errorf("parsing public key: %w", err)
	}
	key, err := info.key()
	if err != nil {
		return nil, fmt.Errorf("parsing public key: %w", err)
	}
	if !bytes.Equal(key.der, der) {
		return nil, errors.New("parsing public key: there are other bytes than those of its one encoding")
	}
	return key, nil
}

// key is lenient: what it overlooks, the comparison in Parse finds.
func (i subjectPublicKeyInfo) key() (*Key, error) {
	switch id := i.Algorithm.Algorithm; {
	case id.Equal(oidRSA):
		var public rsaPublicKey
		if _, err := asn1.Unmarshal(i.Key.Bytes, &public); err != nil {
			return nil, err
		}
		return newRSA(public)
	case id.Equal(oidEC):
		var named asn1.ObjectIdentifier
		if _, err := asn1.Unmarshal(i.Algorithm.Parameters.FullBytes, &named); err != nil {
			return nil, fmt.Errorf("reading name of curve: %w", err)
		}
		at := slices.IndexFunc(curves, func(c curve) bool { return c.oid.Equal(named) })
		if at < 0 {
			return nil, fmt.Errorf("unknown curve %s", named)
		}
		return curves[at].key(i.Key.Bytes)
	case id.Equal(oidEd25519):
		return newEd25519(i.Key.Bytes)
	default:
		return nil, fmt.Errorf("unknown algorithm %s", id)
	}
}

// FromModulus makes an RSA key of the values of CKA_MODULUS and CKA_PUBLIC_EXPONENT: big-endian numbers, which may have
// zeros in front. They stay the caller's.
func FromModulus(modulus, exponent []byte) (*Key, error) {
	e := new(big.Int).SetBytes(exponent)
	if e.BitLen() > maxExponentBits {
		return nil, fmt.Errorf("an RSA exponent of %d bits", e.BitLen())
	}
	return newRSA(rsaPublicKey{new(big.Int).SetBytes(modulus), int(e.Int64())})
}

// FromPoint makes a key of a key spec with an elliptic curve of the value of CKA_EC_POINT. That is a DER OCTET STRING by the
// specification (PKCS#11 3.0, section 2.3.3), but some modules give the bare point and some a DER BIT STRING; the three
// differ in length. The point must be uncompressed; it stays the caller's.
func FromPoint(keySpec string, value []byte) (*Key, error) {
	if keySpec == specEd25519 {
		point, err := unwrapPoint(value, ed25519.PublicKeySize)
		if err != nil {
			return nil, err
		}
		return newEd25519(point)
	}
	c, known := curveOf(keySpec)
	if !known {
		return nil, fmt.Errorf("%s is not a key spec with a known curve", keySpec)
	}
	point, err := unwrapPoint(value, 1+2*c.size)
	if err != nil {
		return nil, err
	}
	return c.key(point)
}

func unwrapPoint(value []byte, size int) ([]byte, error) {
	if len(value) == size {
		return value, nil
	}
	var octets []byte
	if rest, err := asn1.Unmarshal(value, &octets); err == nil && len(rest) == 0 && len(octets) == size {
		return octets, nil
	}
	var bits asn1.BitString
	if rest, err := asn1.Unmarshal(value, &bits); err == nil && len(rest) == 0 && bits.BitLength == 8*size {
		return bits.Bytes, nil
	}
	return nil, fmt.Errorf("not a point of %d bytes", size)
}

// maxExponentBits is what crypto/rsa takes.
const maxExponentBits = 31

// newRSA takes what crypto/rsa takes, in the sizes of the AWS API.
func newRSA(public rsaPublicKey) (*Key, error) {
	spec := fmt.Sprintf("RSA_%d", public.N.BitLen())
	switch {
	case public.N.Sign() <= 0 || !slices.Contains(rsaSpecs, spec):
		return nil, fmt.Errorf("an RSA modulus of %d bits", public.N.BitLen())
	case public.N.Bit(0) == 0:
		return nil, errors.New("an even RSA modulus")
	case public.E < 3 || public.E%2 == 0 || public.E > 1<<maxExponentBits-1:
		return nil, fmt.Errorf("an RSA exponent of %d", public.E)
	}
	bits, err := asn1.Marshal(public)
	if err != nil {
		return nil, fmt.Errorf("encoding RSA key: %w", err)
	}
	key := &Key{spec: spec, public: &rsa.PublicKey{N: public.N, E: public.E}}
	return key.encoded(oidRSA, asn1.NullRawValue, bits)
}

func (c curve) key(point []byte) (*Key, error) {
	public, err := c.parse(point)
	if err != nil {
		return nil, fmt.Errorf("reading point: %w", err)
	}
	parameters, err := asn1.Marshal(c.oid)
	if err != nil {
		return nil, fmt.Errorf("encoding name of curve: %w", err)
	}
	key := &Key{spec: c.spec, point: bytes.Clone(point), public: public}
	return key.encoded(oidEC, asn1.RawValue{FullBytes: parameters}, point)
}

func newEd25519(point []byte) (*Key, error) {
	if !onEdwards25519(point) {
		return nil, errors.New("not a point of edwards25519")
	}
	point = bytes.Clone(point)
	key := &Key{spec: specEd25519, point: point, public: ed25519.PublicKey(point)}
	return key.encoded(oidEd25519, asn1.RawValue{}, point)
}

// encoded completes a key with its encoding.
func (k *Key) encoded(algorithm asn1.ObjectIdentifier, parameters asn1.RawValue, bits []byte) (*Key, error) {
	der, err := asn1.Marshal(subjectPublicKeyInfo{
		Algorithm: pkix.AlgorithmIdentifier{Algorithm: algorithm, Parameters: parameters},
		Key:       asn1.BitString{Bytes: bits, BitLength: 8 * len(bits)},
	})
	if err != nil {
		return nil, fmt.Errorf("encoding public key: %w", err)
	}
	k.der = der
	return k, nil
}
