package main

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/stretchr/testify/require"

	"hsmkms/api"
	"hsmkms/hsm"
	"hsmkms/iam"
	"hsmkms/kms"
	"hsmkms/store/bolt"
)

// TestRegionsOfSignatures sends requests that are signed for all kinds of Regions to a server of eu-west-1: IAM and STS have
// us-east-1 beside it, KMS has not.
func TestRegionsOfSignatures(t *testing.T) {
	handler, access := newTestHandler(t, "eu-west-1")
	for _, test := range []struct {
		service, region string
		served          bool
	}{
		{"kms", "eu-west-1", true},
		{"kms", globalRegion, false},
		{"kms", "eu-north-1", false},
		{"iam", "eu-west-1", true},
		{"iam", globalRegion, true},
		{"iam", "eu-north-1", false},
		{"sts", "eu-west-1", true},
		{"sts", globalRegion, true},
		{"sts", "eu-north-1", false},
	} {
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, signedRequest(t, access, test.service, test.region))
		if test.served {
			require.Equal(t, http.StatusOK, answer.Code, "%v: %s", test, answer.Body)
			continue
		}
		require.NotEqual(t, http.StatusOK, answer.Code, "%v", test)
		require.Contains(t, answer.Body.String(), "Credential should be scoped to a valid region.", "%v", test)
	}
}

// newTestHandler makes the handler of a server of a Region with an account, without a token worth the name.
func newTestHandler(t *testing.T, region string) (http.Handler, aws.Credentials) {
	t.Helper()
	st, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "db")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	service, err := kms.New(kms.Config{Store: st, Regions: map[string]kms.Region{region: {Token: plainToken{}}}})
	require.NoError(t, err)
	t.Cleanup(service.Close)
	identities, err := iam.New(iam.Config{Store: st, Vault: hsm.Vault{Token: plainToken{}}})
	require.NoError(t, err)
	var access aws.Credentials
	require.NoError(t, identities.CreateAccount(t.Context(), "111122223333", func(key iam.RootKey) error {
		access = aws.Credentials{AccessKeyID: key.ID, SecretAccessKey: string(key.Secret)}
		return nil
	}))
	cfg := &config{Regions: map[string]regionConfig{region: {}}, RequestTimeout: 10 * time.Second}
	handler, err := newHandler(cfg, service, identities, nil, api.NewMetrics(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return handler, access
}

// signedRequest is a request that the root user may make of a service, signed for a Region.
func signedRequest(t *testing.T, access aws.Credentials, service, region string) *http.Request {
	t.Helper()
	body := map[string]string{"kms": "{}", "iam": "Action=ListUsers&Version=2010-05-08", "sts": "Action=GetCallerIdentity&Version=2011-06-15"}[service]
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1:8600/", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if service == "kms" {
		r.Header.Set("Content-Type", "application/x-amz-json-1.1")
		r.Header.Set("X-Amz-Target", "TrentService.ListKeys")
	}
	digest := sha256.Sum256([]byte(body))
	require.NoError(t, v4.NewSigner().SignHTTP(t.Context(), access, r, hex.EncodeToString(digest[:]), service, region, time.Now()))
	return r
}
