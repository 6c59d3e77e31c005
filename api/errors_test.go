package api

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/auth"
	"hsmkms/hsm"
	"hsmkms/kms"
)

func TestWriteError(t *testing.T) {
	s, err := newService("kms", kmsModel, served)
	require.NoError(t, err)
	for want, test := range map[string]struct {
		err    error
		status int
	}{
		`{"__type":"NotFoundException","message":"Key 'x' does not exist"}`: {kms.Errorf(kms.NotFound, "Key 'x' does not exist"), http.StatusBadRequest},
		`{"__type":"InvalidCiphertextException"}`:                           {&kms.Error{Type: kms.InvalidCiphertext, Cause: errors.New("secret")}, http.StatusBadRequest},
		`{"__type":"ValidationException","message":""}`:                     {&kms.Error{Type: kms.Validation}, http.StatusBadRequest},
		`{"__type":"ValidationException","message":"a<b & \"c\""}`:          {kms.Errorf(kms.Validation, `a<b & "c"`), http.StatusBadRequest},
		`{"__type":"DependencyTimeoutException","message":"x"}`:             {kms.Errorf(kms.DependencyTimeout, "x"), http.StatusInternalServerError},
		`{"__type":"KMSInternalException","message":"` + internalMessage + `"}`: {
			fmt.Errorf("opening the secret file: %w", errors.New("no such file")), http.StatusInternalServerError},
	} {
		var out bytes.Buffer
		failure := s.describe(test.err)
		s.writeError(&out, failure, "id")
		require.Equal(t, test.status, failure.status)
		require.Equal(t, want, out.String())
	}
}

func TestAuthError(t *testing.T) {
	for want, err := range map[kms.ErrorType]error{
		kms.InvalidSignature:  &auth.Error{Type: "InvalidSignatureException", Message: "x"},
		kms.KeyUnavailable:    fmt.Errorf("getting the secret: %w", &hsm.Error{Class: hsm.TokenGone}),
		kms.DependencyTimeout: fmt.Errorf("getting the secret: %w", &hsm.Error{Class: hsm.Busy}),
		kms.InternalError:     errors.New("something else"),
	} {
		require.Equal(t, want, kms.TypeOf(authError(err)))
	}
}
