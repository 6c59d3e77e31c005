package auth

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"
)

// newServer answers verified requests as GenerateRandom does, and the others with their error. It speaks HTTP/1.1, or
// HTTP/2 under TLS.
func newServer(t *testing.T, config Config, http2 bool) *httptest.Server {
	t.Helper()
	v := newVerifier(t, config)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			_, err = v.Verify(r.Context(), r, body, testServices)
		}
		var e *Error
		if errors.As(err, &e) {
			w.Header().Set("X-Amzn-Errortype", e.Type)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.Header().Set("Protocol", r.Proto)
		_, _ = io.WriteString(w, `{"Plaintext":"aGVsbG8="}`)
	}))
	if http2 {
		server.EnableHTTP2 = true
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	return server
}

// TestSDKClient has the whole client of the SDK sign, with all headers that it sends.
func TestSDKClient(t *testing.T) {
	config := testConfig()
	config.Clock = nil
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			server := newServer(t, config, http2)
			client := func(keyID, secret string) *kms.Client {
				return kms.New(kms.Options{
					Region:           testRegion,
					BaseEndpoint:     aws.String(server.URL),
					Credentials:      credentials.NewStaticCredentialsProvider(keyID, secret, ""),
					HTTPClient:       server.Client(),
					RetryMaxAttempts: 1,
				})
			}
			out, err := client(testKeyID, testSecret).GenerateRandom(t.Context(), &kms.GenerateRandomInput{NumberOfBytes: aws.Int32(5)})
			require.NoError(t, err)
			require.Equal(t, "hello", string(out.Plaintext))

			var e smithy.APIError
			_, err = client(testKeyID, "other").ListKeys(t.Context(), &kms.ListKeysInput{})
			require.ErrorAs(t, err, &e)
			require.Equal(t, invalidSignatureException, e.ErrorCode())
			_, err = client("AKIDOTHER", testSecret).ListKeys(t.Context(), &kms.ListKeysInput{})
			require.ErrorAs(t, err, &e)
			require.Equal(t, unrecognizedClientException, e.ErrorCode())
		})
	}
}

// TestOddRequestsThroughAServer sends what no KMS client sends; net/http changes names, white space and paths on the way.
func TestOddRequestsThroughAServer(t *testing.T) {
	for name, prepare := range map[string]func(*http.Request){
		"plain":          func(*http.Request) {},
		"spaces":         func(r *http.Request) { r.Header.Set("X-Amz-Meta-A", "  a \t  b   c  ") },
		"duplicates":     func(r *http.Request) { r.Header["X-Amz-Meta-A"] = []string{"b", "", " a  a"} },
		"names":          func(r *http.Request) { r.Header["x-aMZ-meta-A_b.c"] = []string{"1"} },
		"UTF-8 value":    func(r *http.Request) { r.Header.Set("X-Amz-Meta-A", "grüße ☃") },
		"UTF-8 path":     func(r *http.Request) { r.URL.Path = "/grüße ☃/%/a+b//../;:@&=$," },
		"encoded path":   func(r *http.Request) { r.URL.Path, r.URL.RawPath = "/a/b!c", "/a%2fb!c" },
		"query":          func(r *http.Request) { r.URL.RawQuery = "b=2&a=+%2b~%7e*&a=1&&c&ü=☃&a/b=1&a-b=2" },
		"other host":     func(r *http.Request) { r.Host = "KMS.example.com" },
		"method":         func(r *http.Request) { r.Method = "DELETE" },
		"no body":        func(r *http.Request) { r.Body, r.ContentLength = http.NoBody, 0 },
		"unknown length": func(r *http.Request) { r.ContentLength = -1 },
		"compressed":     func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") },
	} {
		t.Run(name, func(t *testing.T) {
			for _, http2 := range []bool{false, true} {
				server := newServer(t, testConfig(), http2)
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/", strings.NewReader(testBody))
				require.NoError(t, err)
				r.Header.Set("X-Amz-Target", "TrentService.Encrypt")
				prepare(r)
				body, err := io.ReadAll(r.Body)
				require.NoError(t, err)
				signing{}.sign(t, r, body)
				r.Body = io.NopCloser(bytes.NewReader(body))
				answer, err := server.Client().Do(r)
				require.NoError(t, err)
				require.NoError(t, answer.Body.Close())
				require.Equal(t, http.StatusOK, answer.StatusCode, answer.Header)
				require.Equal(t, map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[http2], answer.Header.Get("Protocol"))
			}
		})
	}
}
