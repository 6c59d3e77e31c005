package pkcs11

import (
	"bytes"
	"crypto/subtle"
	"encoding/asn1"

	p11 "github.com/miekg/pkcs11"
)

// optional gives the content of the next value if that has a context-specific tag.
func (r *derReader) optional(tag int, compound bool) ([]byte, bool) {
	var value asn1.RawValue // its fields are parts of what is read
	rest, err := asn1.Unmarshal(r.rest, &value)
	if r.failed || err != nil || value.Class != asn1.ClassContextSpecific || value.Tag != tag || value.IsCompound != compound {
		return nil, false
	}
	r.rest = rest
	return value.Bytes, true
}

// inside reads on within the next value.
func (r *derReader) inside(tag int) *derReader {
	content := r.next(tag)
	return &derReader{rest: content, failed: r.failed}
}

// done tells whether all was read, and right.
func (r *derReader) done() bool { return !r.failed && len(r.rest) == 0 }

// privateNumber gives the private key of an elliptic curve from a PrivateKeyInfo (PKCS#8, RFC 5958): a number that is as long
// as the order of the curve (RFC 5915), or a seed (RFC 8410). It is a part of material, which is copied nowhere. A public key
// beside a number is passed over, for the public key is found out in any case; one beside a seed must be that of the seed.
func privateNumber(k kind, material []byte) ([]byte, error) {
	outer := &derReader{rest: material}
	info := outer.inside(asn1.TagSequence)
	version := info.next(asn1.TagInteger)
	algorithm := info.next(asn1.TagSequence)
	value := info.next(asn1.TagOctetString)
	info.optional(0, true) // attributes
	public, hasPublic := info.optional(1, false)
	if !outer.done() || !info.done() || len(version) != 1 || version[0] > 1 || hasPublic && version[0] != 1 {
		return nil, errMaterial
	}
	switch {
	case k.edwards() && bytes.Equal(algorithm, edwardsOID): // alone: RFC 8410, section 3
		return edwardsSeed(value, public, hasPublic)
	case !k.edwards() && bytes.Equal(algorithm, append(oidECPublicKey[:len(oidECPublicKey):len(oidECPublicKey)], k.curve()...)):
		return ecPrivateNumber(value, k.curve(), (k.size+7)/8)
	default:
		return nil, errMaterial
	}
}

// oidECPublicKey is id-ecPublicKey, RFC 5480, section 2.1.1, in DER.
var oidECPublicKey = []byte{asn1.TagOID, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1}

// ecPrivateNumber reads an ECPrivateKey, RFC 5915. params is the name of the curve in DER.
func ecPrivateNumber(material, params []byte, size int) ([]byte, error) {
	outer := &derReader{rest: material}
	key := outer.inside(asn1.TagSequence)
	version := key.next(asn1.TagInteger)
	number := key.next(asn1.TagOctetString)
	curve, named := key.optional(0, true)
	key.optional(1, true)
	if !outer.done() || !key.done() || !bytes.Equal(version, []byte{1}) || named && !bytes.Equal(curve, params) || len(number) != size {
		return nil, errMaterial
	}
	if subtle.ConstantTimeCompare(number, make([]byte, size)) == 1 {
		return nil, errMaterial
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
