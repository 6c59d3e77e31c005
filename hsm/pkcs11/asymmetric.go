package pkcs11

import (
	"context"
	"errors"

	"hsmkms/hsm"
)

var errNotYet = &hsm.Error{Class: hsm.Unsupported, Cause: errors.New("not built yet")}

// GenerateDataPair implements hsm.Token.
func (t *Token) GenerateDataPair(context.Context, hsm.KeyKind) (hsm.DataPair, error) {
	return hsm.DataPair{}, errNotYet
}
