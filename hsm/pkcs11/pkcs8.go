package pkcs11

import (
	"bytes"
	"crypto/ed25519"
	"crypto/subtle"
	"encoding/asn1"
	"errors"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// errPrivateKey says that decrypted material is no private key of the kind that was asked for.
var errPrivateKey = &hsm.Error{Class: hsm.WrongMaterial, Cause: errors.New("key material that is no PKCS#8 private key of the right kind")}

// Tags of DER, X.690, section 8.1.2: those of the universal types, and of context-specific ones that are constructed or not.
const (
	derInteger    = asn1.TagInteger
	derOctets     = asn1.TagOctetString
	derOID        = asn1.TagOID
	derSequence   = asn1.TagSequence | 0x20
	derAttributes = 0xA0 // of a PrivateKeyInfo: [0] IMPLICIT SET
	derPublic     = 0x81 // of a OneAsymmetricKey: [1] IMPLICIT BIT STRING
	derParams     = 0xA0 // of an ECPrivateKey: [0] EXPLICIT
	derPoint      = 0xA1 // of an ECPrivateKey: [1] EXPLICIT
)

// der reads DER that must not be copied: what it gives are parts of what it was given. It remembers a failure.
type der struct {
	rest   []byte
	failed bool
}

// next gives the content of the next value, which must have the tag. Lengths have the shortest form and at most two bytes.
func (d *der) next(tag byte) []byte {
	b := d.rest
	if d.failed || len(b) < 2 || b[0] != tag {
		d.failed = true
		return nil
	}
	n, header := int(b[1]), 2
	switch {
	case n == 0x81 && len(b) > 2 && b[2] >= 0x80:
		n, header = int(b[2]), 3
	case n == 0x82 && len(b) > 3 && b[2] > 0:
		n, header = int(b[2])<<8|int(b[3]), 4
	case n >= 0x80:
		d.failed = true
		return nil
	}
	if n > len(b)-header {
		d.failed = true
		return nil
	}
	d.rest = b[header+n:]
	return b[header : header+n]
}

// optional is next for a value that may be absent.
func (d *der) optional(tag byte) ([]byte, bool) {
	if d.failed || len(d.rest) == 0 || d.rest[0] != tag {
		return nil, false
	}
	return d.next(tag), !d.failed
}

// inside reads on within a value.
func (d *der) inside(tag byte) *der { return &der{rest: d.next(tag), failed: d.failed} }

// done tells whether all was read, and right.
func (d *der) done() bool { return !d.failed && len(d.rest) == 0 }

// privateNumber gives the private key of an elliptic curve from a PrivateKeyInfo (PKCS#8, RFC 5958): of a Weierstrass curve the
// number, as long as the order of the curve (RFC 5915), of Ed25519 the 32 bytes of RFC 8410. It is a part of material. A
// public key in it is passed over: the token's is found out in any case.
func privateNumber(k kind, material []byte) ([]byte, error) {
	outer := &der{rest: material}
	info := outer.inside(derSequence)
	version := info.next(derInteger)
	algorithm := info.inside(derSequence)
	value := info.next(derOctets)
	info.optional(derAttributes)
	_, hasPublic := info.optional(derPublic)
	if !outer.done() || !info.done() || len(version) != 1 || version[0] > 1 || hasPublic && version[0] != 1 {
		return nil, errPrivateKey
	}
	name := algorithm.next(derOID)
	if k.keyType() == ckkECEdwards {
		return edwardsSeed(algorithm, name, value)
	}
	if algorithm.failed || !bytes.Equal(name, oidECPublicKey) || !bytes.Equal(algorithm.rest, k.curve()) {
		return nil, errPrivateKey
	}
	return ecPrivateNumber(value, k.curve(), (k.size+7)/8)
}

// edwardsSeed reads a CurvePrivateKey, RFC 8410, section 7.
func edwardsSeed(algorithm *der, name, value []byte) ([]byte, error) {
	inner := &der{rest: value}
	seed := inner.next(derOctets)
	if !algorithm.done() || !bytes.Equal(name, edwardsOID[2:]) || !inner.done() || len(seed) != ed25519.SeedSize {
		return nil, errPrivateKey
	}
	return seed, nil
}

// oidECPublicKey is the content of id-ecPublicKey, RFC 5480, section 2.1.1.
var oidECPublicKey = []byte{0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1}

// ecPrivateNumber reads an ECPrivateKey, RFC 5915. params is the name of the curve in DER.
func ecPrivateNumber(material, params []byte, size int) ([]byte, error) {
	outer := &der{rest: material}
	key := outer.inside(derSequence)
	version := key.next(derInteger)
	number := key.next(derOctets)
	curve, named := key.optional(derParams)
	key.optional(derPoint)
	if !outer.done() || !key.done() || !bytes.Equal(version, []byte{1}) || named && !bytes.Equal(curve, params) || len(number) != size {
		return nil, errPrivateKey
	}
	if subtle.ConstantTimeCompare(number, make([]byte, size)) == 1 {
		return nil, errPrivateKey
	}
	return number, nil
}

// curve gives CKA_EC_PARAMS of a key on an elliptic curve.
func (k kind) curve() []byte { return k.forms[0].params() }

func (f form) params() []byte {
	for _, a := range f.public {
		if a.Type == p11.CKA_EC_PARAMS {
			return a.Value
		}
	}
	return nil
}
