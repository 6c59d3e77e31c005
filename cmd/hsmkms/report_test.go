package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
)

// poorToken carries some kinds of keys, and fails for as long as it has failures left.
type poorToken struct {
	hsm.Token
	kinds    map[hsm.KeyKind]hsm.Support
	failures int
}

func (p *poorToken) Support(_ context.Context, kind hsm.KeyKind) (hsm.Support, error) {
	if p.failures > 0 {
		p.failures--
		return hsm.Support{}, errors.New("token lost")
	}
	return p.kinds[kind], nil
}

func TestReportKeys(t *testing.T) {
	token := &poorToken{failures: 1, kinds: map[hsm.KeyKind]hsm.Support{
		hsm.AES256:         {Algorithms: map[hsm.Algorithm]hsm.Route{hsm.SymmetricDefault: hsm.OnToken}, Wraps: true},
		hsm.Ed25519Sign:    {Algorithms: map[hsm.Algorithm]hsm.Route{hsm.Ed25519: hsm.OnToken}},
		hsm.RSA2048Decrypt: {Algorithms: map[hsm.Algorithm]hsm.Route{hsm.OAEPWithSHA1: hsm.OnToken, hsm.OAEPWithSHA256: hsm.InProcess}, Wraps: true},
	}}
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	require.False(t, reportKeysOf(t.Context(), "us-east-1", token, log))
	require.Contains(t, out.String(), "token lost")
	out.Reset()
	require.True(t, reportKeysOf(t.Context(), "us-east-1", token, log))
	require.Contains(t, out.String(), `carried="[AES_256 ED25519_SIGN RSA_2048_DECRYPT]"`)
	require.Contains(t, out.String(), `neverWrapped=[ED25519_SIGN]`)
	require.Contains(t, out.String(), `ML_DSA_87_SIGN`)
	require.Contains(t, out.String(), `inProcess="[RSA_2048_DECRYPT RSAES_OAEP_SHA_256]"`)

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	token.failures = 1
	out.Reset()
	require.False(t, reportKeysOf(ended, "us-east-1", token, log))
	require.Empty(t, out.String(), "a server that stops has no fault to tell of")
}
