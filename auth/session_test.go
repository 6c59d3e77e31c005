package auth

import (
	"context"
	"crypto/sha256"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// sessionConfig knows one access key, which is that of a session.
func sessionConfig(token string, expires time.Time) Config {
	config := testConfig()
	config.Credential = func(_ context.Context, id string) (Credential, bool, error) {
		return Credential{
			Caller: testPrincipal, Version: "1", Session: true, Token: sha256.Sum256([]byte(token)), Expires: expires,
		}, id == testKeyID, nil
	}
	return config
}

func TestSessionTokens(t *testing.T) {
	later := testNow.Add(time.Second)
	for name, test := range map[string]struct {
		config Config
		signing
		kind, message string
	}{
		"the token":                 {sessionConfig("abc", later), signing{token: "abc"}, "", ""},
		"no token":                  {sessionConfig("abc", later), signing{}, unrecognizedClientException, unrecognizedText},
		"another token":             {sessionConfig("abc", later), signing{token: "abd"}, unrecognizedClientException, unrecognizedText},
		"a longer token":            {sessionConfig("abc", later), signing{token: "abcd"}, unrecognizedClientException, unrecognizedText},
		"a token without a session": {testConfig(), signing{token: "abc"}, unrecognizedClientException, unrecognizedText},
		"just expired": {sessionConfig("abc", testNow), signing{token: "abc"}, expiredTokenException,
			"The security token included in the request is expired"},
		"expired, another token": {sessionConfig("abc", testNow), signing{token: "abd"}, unrecognizedClientException, unrecognizedText},
		"a token without an expected one": {sessionConfig("", later), signing{token: "abc"}, unrecognizedClientException,
			unrecognizedText},
		"the token, another secret": {sessionConfig("abc", later), signing{token: "abc", secret: "other"}, invalidSignatureException, mismatchText},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRequest(t, testBody)
			test.sign(t, r, []byte(testBody))
			identity, err := newVerifier(t, test.config).Verify(t.Context(), r, []byte(testBody), testServices)
			if test.kind == "" {
				require.NoError(t, err)
				require.Same(t, testPrincipal, identity.Caller)
				return
			}
			requireError(t, err, test.kind, test.message)
		})
	}
}

// TestTokenMustBeSigned sends the right token, but outside of the signature; and twice.
func TestTokenMustBeSigned(t *testing.T) {
	v := newVerifier(t, sessionConfig("abc", testNow.Add(time.Hour)))
	r := newRequest(t, testBody)
	signing{}.sign(t, r, []byte(testBody))
	r.Header.Set("X-Amz-Security-Token", "abc")
	_, err := v.Verify(t.Context(), r, []byte(testBody), testServices)
	requireError(t, err, invalidSignatureException, "'X-Amz-Security-Token' must be a 'SignedHeader' in the AWS Authorization.")

	r = newRequest(t, testBody)
	signing{token: "abc"}.sign(t, r, []byte(testBody))
	r.Header.Add("X-Amz-Security-Token", "abc")
	_, err = v.Verify(t.Context(), r, []byte(testBody), testServices)
	requireError(t, err, unrecognizedClientException, unrecognizedText)
}

// TestServices verifies signatures for several services: a signing key is good for one of them alone.
func TestServices(t *testing.T) {
	v := newVerifier(t, testConfig())
	for _, service := range []string{"kms", "iam", "sts", "kms"} {
		r := newRequest(t, testBody)
		signing{service: service}.sign(t, r, []byte(testBody))
		identity, err := v.Verify(t.Context(), r, []byte(testBody), []string{"kms", "iam", "sts"})
		require.NoError(t, err, service)
		require.Equal(t, service, identity.Service)

		_, err = v.Verify(t.Context(), r, []byte(testBody), []string{"one", "two"})
		requireError(t, err, invalidSignatureException, "Credential should be scoped to correct service: 'one' or 'two'. ")
	}
}
