package kmstest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/stretchr/testify/require"
)

// Credentials are those of the root user.
func (s *Server) Credentials() aws.Credentials {
	return aws.Credentials{AccessKeyID: s.AccessKeyID, SecretAccessKey: s.Secret}
}

// httpClient sends the requests of SDK clients. It hides the WriteTo method of their bodies: smithy-go's fails with io.EOF
// once the body was closed, as it is on the arrival of the answer, and net/http, if it is then still looking for more
// of the body, closes the connection under the answer. An SDK client that retries gets over that.
var httpClient = smithyhttp.ClientDoFunc(func(r *http.Request) (*http.Response, error) {
	r.Body = struct{ io.ReadCloser }{r.Body}
	return http.DefaultClient.Do(r)
})

// Client is an AWS SDK client of the root user that does not retry.
func (s *Server) Client() *kms.Client {
	return kms.New(kms.Options{
		Region:       Region,
		BaseEndpoint: aws.String(s.Endpoint),
		Credentials:  aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return s.Credentials(), nil }),
		Retryer:      aws.NopRetryer{},
		HTTPClient:   httpClient,
	})
}

// NewKey makes a symmetric key and gives its id.
func (s *Server) NewKey(t testing.TB) string {
	t.Helper()
	out, err := s.Client().CreateKey(t.Context(), &kms.CreateKeyInput{})
	require.NoError(t, err)
	return *out.KeyMetadata.KeyId
}

// KeyARN gives the ARN of a key of Account in Region.
func KeyARN(id string) string { return "arn:aws:kms:" + Region + ":" + Account + ":key/" + id }

// AliasARN gives the ARN of an alias of Account in Region.
func AliasARN(name string) string { return "arn:aws:kms:" + Region + ":" + Account + ":" + name }

// Encrypt encrypts under a key and gives the blob.
func (s *Server) Encrypt(t testing.TB, keyID string, plaintext []byte, encryptionContext map[string]string) []byte {
	t.Helper()
	out, err := s.Client().Encrypt(t.Context(), &kms.EncryptInput{KeyId: &keyID, Plaintext: plaintext, EncryptionContext: encryptionContext})
	require.NoError(t, err)
	return out.CiphertextBlob
}

// Decrypt decrypts a blob and gives the plaintext.
func (s *Server) Decrypt(t testing.TB, blob []byte, encryptionContext map[string]string) []byte {
	t.Helper()
	out, err := s.Client().Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: encryptionContext})
	require.NoError(t, err)
	return out.Plaintext
}

// RequireError checks the type and the exact message of an AWS error.
func RequireError(t testing.TB, err error, code, message string) {
	t.Helper()
	var failure smithy.APIError
	require.ErrorAs(t, err, &failure)
	require.Equal(t, code, failure.ErrorCode())
	require.Equal(t, message, failure.ErrorMessage())
}

// Answer is an answer as it came over the wire.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// JSON gives the body as a map.
func (a Answer) JSON(t testing.TB) map[string]any {
	t.Helper()
	var m map[string]any
	require.NoError(t, json.Unmarshal([]byte(a.Body), &m), "body: %q", a.Body)
	return m
}

// Request makes a signed request of an operation with a body of JSON text. Each edit changes it before it is signed.
func (s *Server) Request(t testing.TB, operation, body string, edits ...func(*http.Request)) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.Endpoint+"/", bytes.NewReader([]byte(body)))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "TrentService."+operation)
	for _, edit := range edits {
		edit(r)
	}
	digest := sha256.Sum256([]byte(body))
	require.NoError(t, v4.NewSigner().SignHTTP(t.Context(), s.Credentials(), r, hex.EncodeToString(digest[:]), "kms", Region, time.Now()))
	return r
}

// Send sends a request and reads the answer.
func (s *Server) Send(t testing.TB, r *http.Request) Answer {
	t.Helper()
	answer, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return Answer{Status: answer.StatusCode, Header: answer.Header, Body: string(body)}
}

// Post makes a signed request and sends it.
func (s *Server) Post(t testing.TB, operation, body string, edits ...func(*http.Request)) Answer {
	t.Helper()
	return s.Send(t, s.Request(t, operation, body, edits...))
}

// RequireRefusal checks that an answer is an AWS error with status 400, of a type and with an exact message; "" means
// that there is no message member.
func (a Answer) RequireRefusal(t testing.TB, code, message string) {
	t.Helper()
	require.Equal(t, http.StatusBadRequest, a.Status, "body: %s", a.Body)
	want := map[string]any{"__type": code}
	if message != "" {
		want["message"] = message
	}
	require.Equal(t, want, a.JSON(t))
	require.NotEmpty(t, a.Header.Get("X-Amzn-Requestid"))
}
