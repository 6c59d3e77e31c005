package pkcs11

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
	"hsmkms/publickey"
)

// edwardsSeed gives the seed in a CurvePrivateKey, RFC 8410, section 7. public is the content of the BIT STRING beside it.
func edwardsSeed(material, public []byte, hasPublic bool) ([]byte, error) {
	key := &derReader{rest: material}
	seed := key.next(asn1.TagOctetString)
	if !key.done() || len(seed) != ed25519.SeedSize {
		return nil, errMaterial
	}
	if hasPublic && !bytes.Equal(public, append([]byte{0}, edwardsPoint(seed)...)) {
		return nil, errMaterial
	}
	return seed, nil
}

// edwardsPoint gives the public key that follows from a seed, without leaving a trace of it: Go works on the stack alone, and
// overwrites there what it left when it does the same once more, with a seed of zeros. It does so before, too, so that the stack
// need not grow, and be copied, with the seed on it.
//
//go:noinline
func edwardsPoint(seed []byte) []byte {
	point, none := make([]byte, ed25519.PublicKeySize), make([]byte, ed25519.SeedSize)
	for i, s := range [][]byte{none, seed, none} {
		key := ed25519.NewKeyFromSeed(s)
		if i == 1 {
			copy(point, key[ed25519.SeedSize:])
		}
		clear(key)
	}
	return point
}

// identifyEdwards gives the public key and sees that the carrier signs with its private key. It follows from the seed if the
// process has that; else the token must show it.
func (l *landing) identifyEdwards(kind hsm.KeyKind, carrier p11.ObjectHandle) ([]byte, error) {
	public, err := l.edwardsPublic(kind, carrier)
	if err != nil {
		return nil, err
	}
	ref := hsm.KeyRef{Kind: kind, Public: public.Marshal()}
	return ref.Public, l.s.rehearseSignature(&loadedKey{handle: carrier}, ref, hsm.Ed25519)
}

func (l *landing) edwardsPublic(kind hsm.KeyKind, carrier p11.ObjectHandle) (*publickey.Key, error) {
	if l.value != nil {
		return shownAs(publickey.FromPoint(kinds[kind].spec, edwardsPoint(l.value)))
	}
	point, err := l.s.read(carrier, p11.CKA_EC_POINT)
	if err != nil {
		return nil, err
	}
	if len(point) > 0 {
		return shownAs(publickey.FromPoint(kinds[kind].spec, point))
	}
	info, err := l.s.read(carrier, p11.CKA_PUBLIC_KEY_INFO)
	if err != nil {
		return nil, err
	}
	return shownAs(publickey.Parse(info))
}

// shownAs is for public keys that a token shows, or should.
func shownAs(key *publickey.Key, err error) (*publickey.Key, error) {
	if err == nil && key.Spec() != ed25519Spec {
		err = errors.New("it is " + key.Spec())
	}
	if err != nil {
		return nil, &hsm.Error{Class: hsm.Failed, Function: "C_GetAttributeValue", Cause: fmt.Errorf("the public key of a private one: %w", err)}
	}
	return key, nil
}

func edwardsSample() (sample, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return sample{}, fmt.Errorf("making a private key: %w", err)
	}
	material, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return sample{}, fmt.Errorf("encoding a private key: %w", err)
	}
	evidence, err := x509.MarshalPKIXPublicKey(public)
	return sample{material, evidence}, err
}
