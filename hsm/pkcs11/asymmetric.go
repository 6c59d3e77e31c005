package pkcs11

import (
	"context"
	"errors"

	"hsmkms/hsm"
)

var errNotYet = &hsm.Error{Class: hsm.Unsupported, Cause: errors.New("not built yet")}

// Support implements hsm.Token.
func (t *Token) Support(context.Context, hsm.KeyKind) (hsm.Support, error) { return hsm.Support{}, nil }

// Sign implements hsm.Token.
func (t *Token) Sign(context.Context, hsm.Signing) ([]byte, error) { return nil, errNotYet }

// MAC implements hsm.Token.
func (t *Token) MAC(context.Context, hsm.KeyRef, hsm.Algorithm, []byte) ([]byte, error) {
	return nil, errNotYet
}

// DeriveSecret implements hsm.Token.
func (t *Token) DeriveSecret(context.Context, hsm.KeyRef, []byte) ([]byte, error) {
	return nil, errNotYet
}

// GenerateDataPair implements hsm.Token.
func (t *Token) GenerateDataPair(context.Context, hsm.KeyKind) (hsm.DataPair, error) {
	return hsm.DataPair{}, errNotYet
}
