package pkcs11

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// Constants of PKCS#11 3.2, which the binding's 2.40 headers lack.
const (
	ckkMLDSA           = 0x4a
	ckmMLDSAKeyPairGen = 0x1c
	ckmMLDSA           = 0x1d
	ckaParameterSet    = 0x61d
)

// mldsaSet is a parameter set of ML-DSA, FIPS 204, section 4.
type mldsaSet struct {
	name string
	kind hsm.KeyKind
	set  uint // CK_ML_DSA_PARAMETER_SET_TYPE
	// publicSize and signatureSize are in bytes.
	publicSize, signatureSize int
}

var mldsaSets = []mldsaSet{{"ML_DSA_44", hsm.MLDSA44Sign, 1, 1312, 2420}, {"ML_DSA_65", hsm.MLDSA65Sign, 2, 1952, 3309}, {"ML_DSA_87", hsm.MLDSA87Sign, 3, 2592, 4627}}

func mldsaGroup(s mldsaSet) group {
	var made pair
	return group{
		key: s.name,
		generate: func(p *prober) (_ string, err error) {
			made, err = p.generatePair(template{kind: s.kind, label: probeName})
			return "", err
		},
		algorithms: []step{{"ML_DSA_SHAKE_256", func(p *prober) (string, error) { return s.signs(p, made) }}},
	}
}

// signs lets the token verify its own signature, because the standard library has no ML-DSA to do it.
func (s mldsaSet) signs(p *prober, made pair) (string, error) {
	message, err := p.random(64)
	if err != nil {
		return "", err
	}
	signature, err := p.sign(mechanismOf(ckmMLDSA, nil), made.private, message)
	if err != nil {
		return "", err
	}
	if len(signature) != s.signatureSize {
		return "", fmt.Errorf("a signature of %d bytes", len(signature))
	}
	if err := p.verify(mechanismOf(ckmMLDSA, nil), made.public, message, signature); err != nil {
		return "", err
	}
	message[0] ^= 1
	if p.verify(mechanismOf(ckmMLDSA, nil), made.public, message, signature) == nil {
		return "", errors.New("the token verifies a forged signature")
	}
	return "verified by the token alone", nil
}

// oidMLDSA is the arc of ML-DSA-44, and one and two above it of the others; RFC 9881, section 2.
var oidMLDSA = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3, 17}

type mldsaPublicKey struct {
	Algorithm pkix.AlgorithmIdentifier
	Key       asn1.BitString
}

// readMLDSA reads a public key from its object.
func (s *session) readMLDSA(spec string, object p11.ObjectHandle) ([]byte, error) {
	value, err := s.read(object, p11.CKA_VALUE)
	if err != nil {
		return nil, err
	}
	return mldsaPublic(spec, value)
}

// mldsaPublic makes a SubjectPublicKeyInfo of the value of CKA_VALUE.
func mldsaPublic(spec string, value []byte) ([]byte, error) {
	i := slices.IndexFunc(mldsaSets, func(set mldsaSet) bool { return set.name == spec })
	if len(value) != mldsaSets[i].publicSize {
		return nil, &hsm.Error{Class: hsm.Failed, Function: "C_GenerateKeyPair", Cause: fmt.Errorf("a public key of %d bytes", len(value))}
	}
	oid := slices.Clone(oidMLDSA)
	oid[len(oid)-1] += i
	return asn1.Marshal(mldsaPublicKey{pkix.AlgorithmIdentifier{Algorithm: oid}, asn1.BitString{Bytes: value, BitLength: 8 * len(value)}})
}

// rehearseMLDSA lets the token verify its own signature, because the standard library has no ML-DSA to do it.
func (s *session) rehearseMLDSA(key *loadedKey, ref hsm.KeyRef) error {
	message, err := randomBytes(64)
	if err != nil {
		return err
	}
	signature, err := s.sign(key, hsm.Signing{Key: ref, Algorithm: hsm.MLDSA, Input: message})
	if err != nil {
		return err
	}
	var public mldsaPublicKey
	if _, err := asn1.Unmarshal(ref.Public, &public); err != nil {
		return &hsm.Error{Class: hsm.Failed, Cause: fmt.Errorf("reading the public key: %w", err)}
	}
	must, _ := template{kind: ref.Kind, unlabelled: true}.publicAttributes()
	must = append(must, p11.NewAttribute(p11.CKA_VALUE, public.Key.Bytes))
	var object p11.ObjectHandle
	err = s.m.call("C_CreateObject", func() (err error) { object, err = s.m.ctx.CreateObject(s.handle, must); return })
	if err != nil {
		return err
	}
	defer func() { _ = s.destroy(object) }()
	err = s.m.call("C_VerifyInit", func() error { return s.m.ctx.VerifyInit(s.handle, mechanismOf(ckmMLDSA, nil), object) })
	if err != nil {
		return err
	}
	return s.m.call("C_Verify", func() error { return s.m.ctx.Verify(s.handle, message, signature) })
}
