package contract

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

func TestLivezAndReadyz(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		status, body := s.AdminGet(t, "/livez")
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, "ok\n", body)
		status, body = s.AdminGet(t, "/readyz")
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, "store ok\ntoken us-east-1 ok\n", body)
		for _, path := range []string{"/", "/readyz/", "/debug/pprof/", "/metrics/x"} {
			status, _ = s.AdminGet(t, path)
			require.Equal(t, http.StatusNotFound, status, path)
		}
	})
}

// TestLivezNeverTouchesTheToken asks often, also for metrics: none of it is passed on.
func TestLivezNeverTouchesTheToken(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		awaitCalm(t, s)
		before := s.Calls(t)
		for range 50 {
			s.AdminGet(t, "/livez")
			s.AdminGet(t, "/metrics")
		}
		require.Equal(t, before, s.Calls(t))
	})
}

var metricLine = regexp.MustCompile(`(?m)^(hsmkms_\w+(?:\{[^}]*\})?) (\S+)$`)

// metrics gives the server's own metrics, by name with labels, without fractions.
func metrics(t testing.TB, s *kmstest.Server) map[string]int {
	t.Helper()
	status, text := s.AdminGet(t, "/metrics")
	require.Equal(t, http.StatusOK, status)
	values := map[string]int{}
	for _, match := range metricLine.FindAllStringSubmatch(text, -1) {
		value, err := strconv.ParseFloat(match[2], 64)
		require.NoError(t, err)
		values[match[1]] = int(value)
	}
	require.NotEmpty(t, values)
	return values
}

// requestCount matches the metrics that each request adds one to.
var requestCount = regexp.MustCompile(`^hsmkms_request(s_total|_seconds_count)\{`)

// gauge is the name of a metric of the Region.
func gauge(name string) string { return name + `{region="` + kmstest.Region + `"}` }

// awaitCalm waits for the end of what the server does with the token by itself after its start.
func awaitCalm(t testing.TB, s *kmstest.Server) {
	t.Helper()
	require.Eventually(t, func() bool { _, done := metrics(t, s)[gauge("hsmkms_token_missing")]; return done }, waitLimit, waitStep)
	s.AwaitTrials(t)
}

// grown gives what became more, and by how much.
func grown(before, after map[string]int) map[string]int {
	more := map[string]int{}
	for name, value := range after {
		if value != before[name] {
			more[name] = value - before[name]
		}
	}
	return more
}

// TestRequestMetrics checks the counters of requests. What a request makes up never becomes a label.
func TestRequestMetrics(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		before := metrics(t, s)
		for range 3 {
			accept(t, s, "DescribeKey", object(t, "KeyId", id))
		}
		for _, key := range []string{absentKey, "made-up"} {
			require.Equal(t, http.StatusBadRequest, s.Post(t, "DescribeKey", object(t, "KeyId", key)).Status)
		}
		for _, operation := range []string{"ConnectCustomKeyStore", "MadeUpOperation", "MadeUpToo"} {
			require.Equal(t, http.StatusBadRequest, s.Post(t, operation, "{}").Status)
		}
		forgedRequests[0].send(t, s, "TrentService.DescribeKey", "{}")
		require.Equal(t, http.StatusBadRequest, s.Post(t, "ListKeys", "{").Status)
		after := metrics(t, s)
		more := grown(before, after)
		maps.DeleteFunc(more, func(name string, _ int) bool { return !requestCount.MatchString(name) })
		require.Equal(t, map[string]int{
			`hsmkms_requests_total{code="",operation="DescribeKey"}`:                                        3,
			`hsmkms_requests_total{code="NotFoundException",operation="DescribeKey"}`:                       2,
			`hsmkms_requests_total{code="UnsupportedOperationException",operation="ConnectCustomKeyStore"}`: 1,
			`hsmkms_requests_total{code="UnknownOperationException",operation="unknown"}`:                   2,
			`hsmkms_requests_total{code="MissingAuthenticationTokenException",operation="unknown"}`:         1,
			`hsmkms_requests_total{code="SerializationException",operation="ListKeys"}`:                     1,
			`hsmkms_request_seconds_count{operation="DescribeKey"}`:                                         5,
			`hsmkms_request_seconds_count{operation="ConnectCustomKeyStore"}`:                               1,
			`hsmkms_request_seconds_count{operation="unknown"}`:                                             3,
			`hsmkms_request_seconds_count{operation="ListKeys"}`:                                            1,
		}, more)
		for name := range after {
			require.NotContains(t, name, "MadeUp")
		}
	})
}

func TestTokenMetrics(t *testing.T) {
	eachFresh(t, func(t *testing.T, s *kmstest.Server) {
		awaitCalm(t, s)
		id := s.NewKey(t)
		s.Encrypt(t, id, []byte("x"), nil)
		before := metrics(t, s)
		s.Encrypt(t, id, []byte("x"), nil)
		after := metrics(t, s)
		more := grown(before, after)
		require.Equal(t, 1, more[`hsmkms_token_calls_total{class="",function="C_Encrypt"}`])
		require.Equal(t, 1, more[`hsmkms_token_call_seconds_count{function="C_Encrypt"}`])
		require.Positive(t, after[gauge("hsmkms_token_sessions")])
		for _, name := range []string{"hsmkms_token_sessions_busy", "hsmkms_token_waiting", "hsmkms_token_orphans", "hsmkms_token_missing"} {
			value, found := after[gauge(name)]
			require.True(t, found, name)
			require.Zero(t, value, name)
		}
	})
}

// TestSteadyState sends a thousand requests to a warm server, eight at a time. Of the token they use the cryptographic
// calls themselves and nothing else: no session is opened, no object searched, copied or unwrapped, nobody logs in.
func TestSteadyState(t *testing.T) {
	const clients, rounds = 8, 18
	each(t, func(t *testing.T, s *kmstest.Server) {
		awaitCalm(t, s)
		first, second := s.NewKey(t), s.NewKey(t)
		alias := newAlias(t, s, first)
		require.NoError(t, everyUse(t.Context(), s.Client(), alias, second))
		before, requests := s.Calls(t), metrics(t, s)
		require.NoError(t, together(clients, func(int) error {
			client := s.Client()
			for range rounds {
				if err := everyUse(t.Context(), client, alias, second); err != nil {
					return err
				}
			}
			return nil
		}))
		const n = clients * rounds
		calls := grown(before, s.Calls(t))
		delete(calls, "C_Sign") // of a checkpoint of the audit trail, which may be due at any moment
		require.Equal(t, map[string]int{"C_Encrypt": 4 * n, "C_Decrypt": 2 * n, "C_GenerateRandom": 3 * n}, calls)
		served := 0
		for name, more := range grown(requests, metrics(t, s)) {
			if strings.HasPrefix(name, `hsmkms_requests_total{code=""`) {
				served += more
			}
		}
		require.Equal(t, 7*n, served)
		require.Greater(t, 7*n, 1000)
	})
}

// everyUse makes each request that uses two keys on the token, and one that does not.
func everyUse(ctx context.Context, client *kms.Client, from, to string) error {
	encrypted, err := client.Encrypt(ctx, &kms.EncryptInput{KeyId: &from, Plaintext: []byte("x")})
	if err != nil {
		return err
	}
	moved, err := client.ReEncrypt(ctx, &kms.ReEncryptInput{CiphertextBlob: encrypted.CiphertextBlob, DestinationKeyId: &to})
	if err != nil {
		return err
	}
	opened, err := client.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: moved.CiphertextBlob})
	if err == nil && string(opened.Plaintext) != "x" {
		err = fmt.Errorf("decrypted to %q", opened.Plaintext)
	}
	if err != nil {
		return err
	}
	_, err1 := client.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: &to, KeySpec: types.DataKeySpecAes256})
	_, err2 := client.GenerateDataKeyWithoutPlaintext(ctx, &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: &from, KeySpec: types.DataKeySpecAes128})
	_, err3 := client.GenerateRandom(ctx, &kms.GenerateRandomInput{NumberOfBytes: aws.Int32(32)})
	_, err4 := client.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &from})
	return errors.Join(err1, err2, err3, err4)
}
