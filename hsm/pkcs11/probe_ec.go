package pkcs11

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/asn1"
	"errors"
	"fmt"
	"strconv"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"

	"hsmkms/publickey"
)

// Constants of PKCS#11 3.0, which the binding's 2.40 headers lack.
const (
	ckkECEdwards           = 0x40
	ckmECEdwardsKeyPairGen = 0x1055
	ckmEDDSA               = 0x1057
)

// curve is an elliptic curve of the AWS API.
type curve struct {
	keySpec string
	kind    hsm.KeyKind
	hash    crypto.Hash
	// algorithm is the AWS API's name of ECDSA with hash.
	algorithm string
	// ecdh is nil for a curve on which the AWS API has no key agreement.
	ecdh ecdh.Curve
}

var curves = []curve{
	{"ECC_NIST_P256", hsm.P256Sign, crypto.SHA256, "ECDSA_SHA_256", ecdh.P256()},
	{"ECC_NIST_P384", hsm.P384Sign, crypto.SHA384, "ECDSA_SHA_384", ecdh.P384()},
	{"ECC_NIST_P521", hsm.P521Sign, crypto.SHA512, "ECDSA_SHA_512", ecdh.P521()},
	{"ECC_SECG_P256K1", hsm.Secp256k1Sign, crypto.SHA256, "ECDSA_SHA_256", nil},
}

func (c curve) spec() template {
	t := template{kind: c.kind, label: probeName, uses: []uint{p11.CKA_SIGN}}
	if c.ecdh != nil {
		t.uses = append(t.uses, p11.CKA_DERIVE)
	}
	return t
}

func ecGroup(c curve) group {
	k := pairs{}
	g := group{
		key:        c.keySpec,
		generate:   func(p *prober) (string, error) { return k.generate(p, c.spec()) },
		algorithms: []step{{c.algorithm, c.signs(k)}},
	}
	if c.ecdh != nil {
		g.algorithms = append(g.algorithms, step{"ECDH", c.agrees(k)})
	}
	return g
}

// ecKey reads a public key of a key spec.
func (p *prober) ecKey(public p11.ObjectHandle, keySpec string) (*publickey.Key, error) {
	key, err := publickey.FromPoint(keySpec, p.anchor.attribute(public, p11.CKA_EC_POINT))
	if err != nil {
		return nil, fmt.Errorf("reading the public key: %w", err)
	}
	return key, nil
}

func (c curve) signs(k pairs) check {
	return func(p *prober) (string, error) {
		made, err := k.of(p11.CKA_SIGN)
		if err != nil {
			return "", err
		}
		return "", p.signsECDSA(c, made)
	}
}

// signsECDSA checks that a private key belongs to a public one, and that a signature is r and s at full width.
func (p *prober) signsECDSA(c curve, made pair) error {
	key, err := p.ecKey(made.public, c.keySpec)
	if err != nil {
		return err
	}
	digest, err := p.digest(c.hash)
	if err != nil {
		return err
	}
	raw, err := p.sign(mechanismOf(p11.CKM_ECDSA, nil), made.private, digest)
	if err != nil {
		return err
	}
	signature, err := key.ECDSASignature(raw)
	if err != nil {
		return err
	}
	if key.Verify(publickey.Signed{Algorithm: c.algorithm, Type: publickey.Digest, Message: digest, Signature: signature}) != nil {
		return errUnverified
	}
	return nil
}

// agrees checks key agreement against Go, which makes the other party's key.
func (c curve) agrees(k pairs) check {
	return func(p *prober) (string, error) {
		made, err := k.of(p11.CKA_DERIVE)
		if err != nil {
			return "", err
		}
		key, err := p.ecKey(made.public, c.keySpec)
		if err != nil {
			return "", err
		}
		public, err := c.ecdh.NewPublicKey(key.Point())
		if err != nil {
			return "", fmt.Errorf("using the token's public key: %w", err)
		}
		other, err := c.ecdh.GenerateKey(p.rand)
		if err != nil {
			return "", fmt.Errorf("generating in Go: %w", err)
		}
		want, err := other.ECDH(public)
		if err != nil {
			return "", fmt.Errorf("agreeing in Go: %w", err)
		}
		return p.derives(made.private, other.PublicKey().Bytes(), want)
	}
}

// derives checks the secret that the token agrees on. It gives the peer's point bare, as the specification prefers, and
// in DER to a token that wants it so.
func (p *prober) derives(private p11.ObjectHandle, point, want []byte) (string, error) {
	der, err := asn1.Marshal(point)
	if err != nil {
		return "", fmt.Errorf("encoding point: %w", err)
	}
	handle, err := p.derive(private, point, len(want))
	detail := ""
	if err != nil {
		var again error
		if handle, again = p.derive(private, der, len(want)); again != nil {
			return "", err
		}
		detail = "takes the point in DER"
	}
	if !bytes.Equal(p.anchor.attribute(handle, p11.CKA_VALUE), want) {
		return "", errWrongResult
	}
	return detail, nil
}

// derive is C_DeriveKey of a secret of n bytes that can be read, as DeriveSharedSecret of the AWS API returns it.
func (p *prober) derive(private p11.ObjectHandle, point []byte, n int) (p11.ObjectHandle, error) {
	params := p11.NewECDH1DeriveParams(p11.CKD_NULL, nil, point)
	must, may := secret{keyType: p11.CKK_GENERIC_SECRET, readable: true}.attributes()
	return p.object("C_DeriveKey", append(must, p11.NewAttribute(p11.CKA_VALUE_LEN, n)), may,
		func(attributes []*p11.Attribute) (p11.ObjectHandle, error) {
			return p.m.ctx.DeriveKey(p.anchor.handle, mechanismOf(p11.CKM_ECDH1_DERIVE, params), private, attributes)
		})
}

// ed25519Spec is the AWS API's name of Ed25519 keys.
const ed25519Spec = "ECC_NIST_EDWARDS25519"

func ed25519Group() group {
	var made pair
	return group{
		key: ed25519Spec,
		generate: func(p *prober) (_ string, err error) {
			made, err = p.generateEd25519(ed25519Template)
			return "", err
		},
		algorithms: []step{
			{"ED25519_SHA_512", func(p *prober) (string, error) { return "", p.signsEd25519(made) }},
			{"ED25519_PH_SHA_512", func(p *prober) (string, error) { return "", p.signsEd25519ph(made) }},
		},
	}
}

// ed25519Template is that of a throw-away key pair.
var ed25519Template = template{kind: hsm.Ed25519Sign, label: probeName}

// generateEd25519 names the curve in both ways that there are.
func (p *prober) generateEd25519(t template) (pair, error) {
	made, err := p.generatePair(t)
	if err == nil {
		return made, nil
	}
	t.form = 1
	if made, again := p.generatePair(t); again == nil {
		return made, nil
	}
	return pair{}, err
}

// signsEd25519 checks that a private key belongs to a public one.
func (p *prober) signsEd25519(made pair) error {
	key, err := p.ecKey(made.public, ed25519Spec)
	if err != nil {
		return err
	}
	message, err := p.random(64)
	if err != nil {
		return err
	}
	signature, err := p.sign(mechanismOf(ckmEDDSA, nil), made.private, message)
	if err == nil && !ed25519.Verify(key.Point(), message, signature) {
		err = errUnverified
	}
	return err
}

// signsEd25519ph checks the prehashed variant. The AWS API gives the digest, so a token that hashes by itself is of no
// use.
func (p *prober) signsEd25519ph(made pair) error {
	key, err := p.ecKey(made.public, ed25519Spec)
	if err != nil {
		return err
	}
	digest, err := p.digest(crypto.SHA512)
	if err != nil {
		return err
	}
	signature, err := p.sign(mechanismOf(ckmEDDSA, prehashParams()), made.private, digest)
	if err != nil {
		return err
	}
	return isEd25519ph(key.Point(), digest, signature)
}

// isEd25519ph tells what a token made of a digest when it was asked for Ed25519ph; there are tokens that ignore the
// question (SoftHSM 2.6.1).
func isEd25519ph(public ed25519.PublicKey, digest, signature []byte) error {
	twice := sha512.Sum512(digest)
	ph := &ed25519.Options{Hash: crypto.SHA512}
	switch {
	case ed25519.VerifyWithOptions(public, digest, signature, ph) == nil:
		return nil
	case ed25519.VerifyWithOptions(public, twice[:], signature, ph) == nil:
		return errors.New("the token hashes what it is given: it signs messages, not digests")
	case ed25519.Verify(public, digest, signature):
		return errors.New("the token signs pure Ed25519 instead")
	default:
		return errUnverified
	}
}

// prehashParams is a CK_EDDSA_PARAMS of PKCS#11 3.0 with phFlag set and no context: a CK_BBOOL, then, aligned, a CK_ULONG
// and a pointer.
func prehashParams() []byte {
	params := make([]byte, 3*strconv.IntSize/8)
	params[0] = 1
	return params
}

// sm2Group says that SM2 was not looked for: PKCS#11 has no mechanisms for it, and vendors' own ones are not known here.
func sm2Group() group {
	absent := func(*prober) (string, error) {
		return "", errors.New("not tried: PKCS#11 has no standard mechanism for it")
	}
	return group{key: "SM2", generate: absent, algorithms: []step{{"SM2DSA", absent}, {"SM2PKE", absent}}}
}
