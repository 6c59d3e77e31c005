package pkcs11

import (
	"bytes"
	"crypto/cipher"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"math/big"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

var errPrivateKeyInfo = &hsm.Error{Class: hsm.Failed, Function: "C_WrapKey", Cause: errors.New("the token wrapped something else than the PKCS#8 private key")}

// keyUnwrap undoes the wrapping of a private key in place, and gives the part of wrapped that is the key.
func keyUnwrap(block cipher.Block, format hsm.WrapFormat, wrapped []byte) ([]byte, error) {
	if len(wrapped) < 24 || len(wrapped)%8 != 0 {
		return nil, errPrivateKeyInfo
	}
	iv := keyUnwrapIV(block, wrapped)
	key := wrapped[8:]
	if format == hsm.WrapPKCS7 {
		padding := int(key[len(key)-1])
		if iv != 0xa6a6a6a6a6a6a6a6 || padding < 1 || padding > 8 {
			return nil, errPrivateKeyInfo
		}
		return key[:len(key)-padding], nil
	}
	n := int(uint32(iv))
	if iv>>32 != 0xa65959a6 || n > len(key) || n <= len(key)-8 {
		return nil, errPrivateKeyInfo
	}
	return key[:n], nil
}

// keyUnwrapIV is the reverse of keyWrapIV in place; RFC 3394, section 2.2.2.
func keyUnwrapIV(block cipher.Block, wrapped []byte) uint64 {
	n := len(wrapped)/8 - 1
	var b [16]byte
	defer clear(b[:])
	for t := 6 * n; t > 0; t-- {
		r := wrapped[8*((t-1)%n+1):][:8]
		binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(wrapped)^uint64(t))
		copy(b[8:], r)
		block.Decrypt(b[:], b[:])
		copy(wrapped, b[:8])
		copy(r, b[8:])
	}
	return binary.BigEndian.Uint64(wrapped)
}

// privateKeyInfo reads the PKCS#8 of a token and writes it as the AWS API has it. Neither copies the key anywhere else.
func privateKeyInfo(kind hsm.KeyKind, public, der []byte) ([]byte, error) {
	algorithm, bits, err := publicParts(public)
	if err != nil {
		return nil, err
	}
	info := derReader{rest: der}
	fields := derReader{rest: info.next(asn1.TagSequence)}
	version := fields.next(asn1.TagInteger)
	_ = fields.next(asn1.TagSequence) // the algorithm, which some write in another way
	key := fields.next(asn1.TagOctetString)
	filling := bytes.Trim(info.rest, "\x00") // SoftHSM fills up to whole blocks
	if info.failed || fields.failed || len(filling) > 0 || len(info.rest) > 7 || len(version) != 1 {
		return nil, errPrivateKeyInfo
	}
	switch kinds[kind].forms[0].keyType {
	case p11.CKK_RSA:
		if !hasModulus(key, bits) {
			return nil, errPrivateKeyInfo
		}
		return keyInfo(algorithm, rope{key}), nil
	case ckkECEdwards: // RFC 8410, section 7: an OCTET STRING in another
		inner := derReader{rest: key}
		return curveKeyInfo(kind, public, inner.next(asn1.TagOctetString))
	default: // RFC 5915, section 3
		inner := derReader{rest: key}
		private := derReader{rest: inner.next(asn1.TagSequence)}
		_ = private.next(asn1.TagInteger)
		return curveKeyInfo(kind, public, private.next(asn1.TagOctetString))
	}
}

// hasModulus tells whether an RSAPrivateKey (RFC 8017, appendix A.1.2) has the modulus of an RSAPublicKey.
func hasModulus(private, public []byte) bool {
	outer, other := derReader{rest: private}, derReader{rest: public}
	numbers, publicNumbers := derReader{rest: outer.next(asn1.TagSequence)}, derReader{rest: other.next(asn1.TagSequence)}
	_ = numbers.next(asn1.TagInteger) // the version
	modulus := numbers.next(asn1.TagInteger)
	return len(modulus) > 0 && len(outer.rest) == 0 && bytes.Equal(modulus, publicNumbers.next(asn1.TagInteger))
}

// curveKeyInfo makes a PrivateKeyInfo of the number that is the private key of an elliptic curve: of an ECPrivateKey with the
// public key and without the name of the curve, which is in the algorithm (as OpenSSL, Java and Go have it), or a
// CurvePrivateKey (RFC 8410, section 7).
func curveKeyInfo(kind hsm.KeyKind, public, number []byte) ([]byte, error) {
	algorithm, point, err := publicParts(public)
	if err != nil {
		return nil, err
	}
	k := kinds[kind]
	size := (k.size + 7) / 8
	edwards := k.edwards()
	for len(number) > size && number[0] == 0 && !edwards {
		number = number[1:]
	}
	if len(number) > size || len(number) == 0 || edwards && len(number) != size {
		return nil, errPrivateKeyInfo
	}
	padded := rope{make([]byte, size-len(number)), number}
	if edwards {
		return keyInfo(algorithm, padded.in(asn1.TagOctetString)), nil
	}
	bits := rope{{0}, point}.in(asn1.TagBitString)
	private := append(rope{{asn1.TagInteger, 1, 1}}, padded.in(asn1.TagOctetString)...)
	return keyInfo(algorithm, append(private, bits.in(0xa1)...).in(asn1.TagSequence|0x20)), nil
}

// keyInfo is a PrivateKeyInfo; RFC 5208, section 5.
func keyInfo(algorithm []byte, key rope) []byte {
	fields := rope{{asn1.TagInteger, 1, 0}, algorithm}
	return append(fields, key.in(asn1.TagOctetString)...).in(asn1.TagSequence | 0x20).bytes()
}

// publicParts gives the AlgorithmIdentifier of a SubjectPublicKeyInfo, in DER, and the key.
func publicParts(public []byte) (algorithm, key []byte, err error) {
	var info struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(public, &info); err != nil {
		return nil, nil, &hsm.Error{Class: hsm.Failed, Cause: err}
	}
	return info.Algorithm.FullBytes, info.Key.Bytes, nil
}

// derReader reads DER without copying it. It remembers a failure.
type derReader struct {
	rest   []byte
	failed bool
}

// next gives the content of the next value, which must be of a universal type.
func (r *derReader) next(tag int) []byte {
	var value asn1.RawValue // its fields are parts of what is read
	rest, err := asn1.Unmarshal(r.rest, &value)
	if r.failed || err != nil || value.Class != asn1.ClassUniversal || value.Tag != tag || value.IsCompound != (tag == asn1.TagSequence) {
		r.failed, r.rest = true, nil
		return nil
	}
	r.rest = rest
	return value.Bytes
}

// rope is bytes in pieces, so that a private key among them is written once, into memory of the right size.
type rope [][]byte

// in puts a DER tag and a length before the bytes.
func (r rope) in(tag byte) rope {
	n := r.len()
	header := []byte{tag, byte(n)}
	if n >= 0x80 {
		length := new(big.Int).SetInt64(int64(n)).Bytes()
		header = append([]byte{tag, 0x80 | byte(len(length))}, length...)
	}
	return append(rope{header}, r...)
}

func (r rope) len() int {
	n := 0
	for _, piece := range r {
		n += len(piece)
	}
	return n
}

func (r rope) bytes() []byte {
	b := make([]byte, 0, r.len())
	for _, piece := range r {
		b = append(b, piece...)
	}
	return b
}
