package pkcs11

import (
	"bytes"
	"errors"
	"fmt"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
	"hsmkms/publickey"
)

// makePair makes a key pair, leaves the private key alone on the token and gives the public key, a DER SubjectPublicKeyInfo.
// The caller holds objectsMu.
func (s *session) makePair(t template) (p11.ObjectHandle, []byte, error) {
	made, err := s.callMakePair(t)
	if err != nil {
		return 0, nil, fmt.Errorf("generating key pair: %w", err)
	}
	public, err := s.readPublic(t.kind, made.public)
	_ = s.destroy(made.public) // a session object: gone with the session at the latest
	if err != nil {
		_ = s.destroy(made.private)
		return 0, nil, fmt.Errorf("reading a new public key: %w", err)
	}
	return made.private, public, nil
}

func (s *session) callMakePair(t template) (made pair, err error) {
	privateMust, privateMay := t.attributes()
	publicMust, publicMay := t.publicAttributes()
	mechanism := mechanismOf(kinds[t.kind].forms[t.form].mechanism, nil)
	generate := func(public, private []*p11.Attribute) error {
		return s.m.call("C_GenerateKeyPair", func() (err error) {
			made.public, made.private, err = s.m.ctx.GenerateKeyPair(s.handle, mechanism, public, private)
			return err
		})
	}
	err = generate(append(publicMust[:len(publicMust):len(publicMust)], publicMay...), append(privateMust[:len(privateMust):len(privateMust)], privateMay...))
	if refusedTemplate(err) {
		err = generate(publicMust, privateMust)
	}
	return made, err
}

// readPublic reads a public key of a kind from its object.
func (s *session) readPublic(kind hsm.KeyKind, object p11.ObjectHandle) ([]byte, error) {
	k := kinds[kind]
	var key *publickey.Key
	switch k.forms[0].keyType {
	case p11.CKK_RSA:
		modulus, err := s.read(object, p11.CKA_MODULUS)
		if err != nil {
			return nil, err
		}
		exponent, err := s.read(object, p11.CKA_PUBLIC_EXPONENT)
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(bytes.TrimLeft(exponent, "\x00"), []byte{1, 0, 1}) {
			return nil, &hsm.Error{Class: hsm.Failed, Function: "C_GenerateKeyPair", Cause: errors.New("another exponent than was asked for")}
		}
		if key, err = publickey.FromModulus(modulus, exponent); err != nil {
			return nil, &hsm.Error{Class: hsm.Failed, Function: "C_GenerateKeyPair", Cause: err}
		}
	case ckkMLDSA:
		return s.readMLDSA(k.spec, object)
	default:
		point, err := s.read(object, p11.CKA_EC_POINT)
		if err != nil {
			return nil, err
		}
		if key, err = publickey.FromPoint(k.spec, point); err != nil {
			return nil, &hsm.Error{Class: hsm.Failed, Function: "C_GenerateKeyPair", Cause: err}
		}
	}
	if key.Spec() != k.spec {
		return nil, &hsm.Error{Class: hsm.Failed, Function: "C_GenerateKeyPair", Cause: fmt.Errorf("a public key %s", key.Spec())}
	}
	return key.Marshal(), nil
}

// publicKey reads the public key of a reference.
func publicKey(ref hsm.KeyRef) (*publickey.Key, error) {
	key, err := publickey.Parse(ref.Public)
	if err == nil && key.Spec() != kinds[ref.Kind].spec {
		err = fmt.Errorf("it is %s", key.Spec())
	}
	if err != nil {
		return nil, &hsm.Error{Class: hsm.Failed, Cause: fmt.Errorf("reading the public key of %s, of the kind %s: %w", ref.ID, ref.Kind, err)}
	}
	return key, nil
}
