package pkcs11

import (
	"errors"
	"fmt"

	p11 "github.com/miekg/pkcs11"
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
	name          string
	set           uint // CK_ML_DSA_PARAMETER_SET_TYPE
	signatureSize int
}

var mldsaSets = []mldsaSet{{"ML_DSA_44", 1, 2420}, {"ML_DSA_65", 2, 3309}, {"ML_DSA_87", 3, 4627}}

func mldsaGroup(s mldsaSet) group {
	var made pair
	return group{
		key: s.name,
		generate: func(p *prober) (_ string, err error) {
			made, err = p.generatePair(pairSpec{
				keyType: ckkMLDSA, mechanism: ckmMLDSAKeyPairGen,
				public: []*p11.Attribute{p11.NewAttribute(ckaParameterSet, s.set)},
				uses:   []uint{p11.CKA_SIGN},
			})
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
