package pkcs11

import (
	"context"
	"crypto/ecdh"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// agreements are the curves of the kinds that agree on secrets.
var agreements = map[hsm.KeyKind]ecdh.Curve{hsm.P256Derive: ecdh.P256(), hsm.P384Derive: ecdh.P384(), hsm.P521Derive: ecdh.P521()}

// kindShared is a secret that was agreed on. It leaves the token at once.
const kindShared hsm.KeyKind = "shared"

// DeriveSecret implements hsm.Token.
func (t *Token) DeriveSecret(ctx context.Context, ref hsm.KeyRef, point []byte) ([]byte, error) {
	curve, ok := agreements[ref.Kind]
	if !ok {
		return nil, &hsm.Error{Class: hsm.Unsupported, Cause: fmt.Errorf("agreement with a key of the kind %q", ref.Kind)}
	}
	// A token may not look whether the point is on the curve, and give away its private key bit by bit, or answer as if it
	// were broken.
	if _, err := curve.NewPublicKey(point); err != nil {
		return nil, &hsm.Error{Class: hsm.BadInput, Cause: errors.New("not a point on the curve of the key")}
	}
	derive := func(s *session) (secret []byte, err error) {
		err = s.withKey(ref, func(key *loadedKey) error {
			secret, err = s.derive(key, ref.Kind, point)
			return err
		})
		return secret, err
	}
	return do(ctx, t, &task[[]byte]{f: derive, discard: func(_ *session, secret []byte) { clear(secret) }})
}

// derive gives the x coordinate of the product, which the caller wipes.
func (s *session) derive(key *loadedKey, kind hsm.KeyKind, point []byte) ([]byte, error) {
	s.keys.passing.RLock()
	defer s.keys.passing.RUnlock()
	size := (kinds[kind].size + 7) / 8
	object, err := s.deriveObject(key, point, size)
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.destroy(object) }()
	secret := make([]byte, size)
	if err := s.readSecret(object, p11.CKA_VALUE, secret); err != nil {
		clear(secret)
		return nil, err
	}
	return secret, nil
}

// deriveObject gives the token the point as the specification prefers it, bare, and then in DER, as some makes want it
// (PKCS#11 3.0, section 2.3.17).
func (s *session) deriveObject(key *loadedKey, point []byte, size int) (p11.ObjectHandle, error) {
	object, err := s.callDerive(key, point, size)
	if err == nil || suspect(err) || hsm.ClassOf(err) == hsm.KeyMissing {
		return object, err
	}
	der, failed := asn1.Marshal(point)
	if failed != nil {
		return 0, err
	}
	if object, again := s.callDerive(key, der, size); again == nil {
		return object, nil
	}
	return 0, err
}

func (s *session) callDerive(key *loadedKey, point []byte, size int) (object p11.ObjectHandle, err error) {
	// A parameter of the binding can be used once.
	t := template{kind: kindShared, readable: true, unlabelled: true}
	err = t.make(func(attributes []*p11.Attribute) error {
		attributes = append(slices.Clip(attributes), p11.NewAttribute(p11.CKA_VALUE_LEN, size))
		params := p11.NewECDH1DeriveParams(p11.CKD_NULL, nil, point)
		return s.m.call("C_DeriveKey", func() (err error) {
			object, err = s.m.ctx.DeriveKey(s.handle, mechanismOf(p11.CKM_ECDH1_DERIVE, params), key.handle, attributes)
			return err
		})
	})
	if err != nil {
		return 0, fmt.Errorf("deriving: %w", err)
	}
	return object, nil
}

// readSecret reads an attribute of a known length that is not for other eyes.
func (s *session) readSecret(object p11.ObjectHandle, attribute uint, out []byte) error {
	n, err := s.readUpTo(object, attribute, out)
	if err == nil && n != len(out) {
		err = &hsm.Error{Class: hsm.Failed, Function: "C_GetAttributeValue", Cause: fmt.Errorf("%d bytes of a secret of %d", n, len(out))}
	}
	return err
}

// readUpTo reads an attribute that is not for other eyes and gives its length.
func (s *session) readUpTo(object p11.ObjectHandle, attribute uint, out []byte) (int, error) {
	start := time.Now()
	n, rv := s.m.direct.read(s.handle, object, attribute, out)
	err := s.observe("C_GetAttributeValue", rv, start)
	if err == nil && n > len(out) {
		err = &hsm.Error{Class: hsm.Failed, Function: "C_GetAttributeValue", Cause: fmt.Errorf("%d bytes", n)}
	}
	return n, err
}
