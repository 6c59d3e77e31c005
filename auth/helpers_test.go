package auth

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/stretchr/testify/require"

	"hsmkms/policy"
)

// The access key of AWS's published examples.
const (
	testKeyID  = "AKIDEXAMPLE"
	testSecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	testRegion = "us-east-1"
	testBody   = `{"KeyId":"alias/invoices","Plaintext":"aGVsbG8="}`
)

var (
	testNow       = time.Date(2026, 1, 1, 0, 5, 0, 0, time.UTC)
	testPrincipal = &policy.Caller{Principal: policy.Principal{
		Type:        policy.Root,
		ARN:         "arn:aws:iam::111122223333:root",
		Account:     "111122223333",
		AccessKeyID: testKeyID,
	}}
	testServices = []string{"kms"}
)

// testConfig knows one access key and serves two Regions.
func testConfig() Config {
	return Config{
		Regions: func(_, region string) bool { return region == testRegion || region == "eu-west-1" },
		Credential: func(_ context.Context, id string) (Credential, bool, error) {
			return Credential{Caller: testPrincipal, Version: "1"}, id == testKeyID, nil
		},
		Secret: func(context.Context, string) ([]byte, error) { return []byte(testSecret), nil },
		Clock:  func() time.Time { return testNow },
	}
}

func newVerifier(t testing.TB, config Config) *Verifier {
	t.Helper()
	v, err := New(config)
	require.NoError(t, err)
	return v
}

// signing is what a client signs with; the zero value of a field means what testConfig expects.
type signing struct {
	keyID, secret, token, region, service string
	time                                  time.Time
}

func or(value, fallback string) string {
	if value == "" {
		return fallback
	}
	return value
}

// sign signs r with the AWS SDK's signer.
func (s signing) sign(t testing.TB, r *http.Request, body []byte) {
	t.Helper()
	if s.time.IsZero() {
		s.time = testNow
	}
	credentials := aws.Credentials{
		AccessKeyID: or(s.keyID, testKeyID), SecretAccessKey: or(s.secret, testSecret), SessionToken: s.token,
	}
	err := v4.NewSigner().SignHTTP(t.Context(), credentials, r, hashOf(string(body)),
		or(s.service, "kms"), or(s.region, testRegion), s.time)
	require.NoError(t, err)
}

// newRequest makes the request of a KMS client, unsigned.
func newRequest(t testing.TB, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, "http://kms.example.com:8600/", strings.NewReader(body))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "TrentService.Encrypt")
	r.Header.Set("Amz-Sdk-Invocation-Id", "a6f5bd0d-8a35-4b4c-9d2f-6d5ff9a9b1ce")
	r.Header.Set("Amz-Sdk-Request", "attempt=1; max=3")
	return r
}

// transmit writes a client's request as bytes and reads it as a server does.
func transmit(t testing.TB, r *http.Request) (*http.Request, []byte) {
	t.Helper()
	var wire bytes.Buffer
	require.NoError(t, r.Write(&wire))
	received, body, err := receive(wire.Bytes())
	require.NoError(t, err)
	return received, body
}

func receive(wire []byte) (*http.Request, []byte, error) {
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(wire)))
	if err != nil {
		return nil, nil, err
	}
	body, err := io.ReadAll(r.Body)
	return r, body, err
}

// signText signs a canonical request that the test wrote by hand, without any code of the package.
func signText(canonical, stamp, scope string) string {
	text := "AWS4-HMAC-SHA256\n" + stamp + "\n" + scope + "\n" + hashOf(canonical)
	key := []byte("AWS4" + testSecret)
	for _, part := range append(strings.Split(scope, "/"), text) {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	return hex.EncodeToString(key)
}

func hashOf(body string) string {
	digest := sha256.Sum256([]byte(body))
	return hex.EncodeToString(digest[:])
}

// requireError asserts that err is an Error with this type and text.
func requireError(t testing.TB, err error, wantType, wantMessage string) {
	t.Helper()
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, Error{Type: wantType, Message: wantMessage}, *e)
	require.Equal(t, wantType+": "+wantMessage, err.Error())
}
