package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
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

// ImportRoutes has material of symmetric keys come to the token in two ways, one of which passes through the process. That of
// all others comes in one way, or fails with the token.
func (p *poorToken) ImportRoutes(_ context.Context, kind hsm.KeyKind) (map[hsm.ImportWrap]hsm.Route, error) {
	if p.failures > 0 {
		p.failures--
		return nil, errors.New("token lost")
	}
	if kind == hsm.AES256 {
		return map[hsm.ImportWrap]hsm.Route{hsm.OAEPSHA1: hsm.OnToken, hsm.OAEPSHA256: hsm.InProcess}, nil
	}
	return map[hsm.ImportWrap]hsm.Route{hsm.RSAAESSHA1: hsm.OnToken}, nil
}

// reportOf gives what a report tells of a token that fails once, of which it tells too, unless the server stops.
func reportOf(t *testing.T, token *poorToken, report func(context.Context, string, hsm.Token, *slog.Logger) bool) string {
	t.Helper()
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	token.failures = 2
	require.False(t, report(ended, "us-east-1", token, log))
	require.Empty(t, out.String(), "a server that stops has no fault to tell of")
	require.False(t, report(t.Context(), "us-east-1", token, log))
	require.Contains(t, out.String(), "token lost")
	out.Reset()
	require.True(t, report(t.Context(), "us-east-1", token, log))
	return out.String()
}

// TestReportImports must find the way that passes through the process named, and no other.
func TestReportImports(t *testing.T) {
	token := &poorToken{}
	out := reportOf(t, token, reportImportsOf)
	require.Contains(t, out, `level=INFO msg="importing key material" region=us-east-1 keySpecs=[SYMMETRIC_DEFAULT] onToken=[RSAES_OAEP_SHA_1]`)
	require.Contains(t, out, `level=WARN msg="the token cannot unwrap key material that is imported in these ways: this process does it; `+
		`strict_on_token refuses them" region=us-east-1 keySpecs=[SYMMETRIC_DEFAULT] inProcess=[RSAES_OAEP_SHA_256]`)
	require.Contains(t, out, `onToken=[RSA_AES_KEY_WRAP_SHA_1]`)
	require.Equal(t, 1, strings.Count(out, "level=WARN"))
}

func TestReportKeys(t *testing.T) {
	token := &poorToken{kinds: map[hsm.KeyKind]hsm.Support{
		hsm.AES256:         {Algorithms: map[hsm.Algorithm]hsm.Route{hsm.SymmetricDefault: hsm.OnToken}, Wraps: true},
		hsm.Ed25519Sign:    {Algorithms: map[hsm.Algorithm]hsm.Route{hsm.Ed25519: hsm.OnToken}},
		hsm.RSA2048Decrypt: {Algorithms: map[hsm.Algorithm]hsm.Route{hsm.OAEPWithSHA1: hsm.OnToken, hsm.OAEPWithSHA256: hsm.InProcess}, Wraps: true},
	}}
	out := reportOf(t, token, reportKeysOf)
	require.Contains(t, out, `carried="[AES_256 ED25519_SIGN RSA_2048_DECRYPT]"`)
	require.Contains(t, out, `neverWrapped=[ED25519_SIGN]`)
	require.Contains(t, out, `ML_DSA_87_SIGN`)
	require.Contains(t, out, `inProcess="[RSA_2048_DECRYPT RSAES_OAEP_SHA_256]"`)
}
