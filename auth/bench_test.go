package auth

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// typical gives a request of the SDK as a server gets it, with a body of 400 bytes.
func typical(b *testing.B) (*http.Request, []byte) {
	b.Helper()
	body := `{"CiphertextBlob":"` + strings.Repeat("A", 400-len(`{"CiphertextBlob":""}`)) + `"}`
	r := newRequest(b, body)
	r.Header.Set("User-Agent", "aws-sdk-go-v2/1.47.8 ua/2.1 os/linux lang/go#1.26 md/GOOS#linux api/kms#1.62.5")
	r.Header.Set("Accept-Encoding", "identity")
	signing{}.sign(b, r, []byte(body))
	return transmit(b, r)
}

// BenchmarkVerify has the signing key in the cache.
func BenchmarkVerify(b *testing.B) {
	r, body := typical(b)
	v := newVerifier(b, testConfig())
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(ctx, r, body, testServices); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerifyParallel shows what the lock of the cache costs.
func BenchmarkVerifyParallel(b *testing.B) {
	r, body := typical(b)
	v := newVerifier(b, testConfig())
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := v.Verify(context.Background(), r, body, testServices); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkVerifyMiss derives the signing key each time, from a secret at hand.
func BenchmarkVerifyMiss(b *testing.B) {
	r, body := typical(b)
	v := newVerifier(b, testConfig())
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		v.keys.keys.Purge()
		if _, err := v.Verify(ctx, r, body, testServices); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerifyRefuse is the cost of a request that is too old.
func BenchmarkVerifyRefuse(b *testing.B) {
	r, body := typical(b)
	config := testConfig()
	config.Clock = func() time.Time { return testNow.Add(time.Hour) }
	v := newVerifier(b, config)
	b.ReportAllocs()
	for b.Loop() {
		_, err := v.Verify(b.Context(), r, body, testServices)
		if err == nil {
			b.Fatal("accepted")
		}
	}
}

// TestVerifyAllocatesLittle holds the bound that the benchmark shows.
func TestVerifyAllocatesLittle(t *testing.T) {
	r := newRequest(t, testBody)
	signing{}.sign(t, r, []byte(testBody))
	received, body := transmit(t, r)
	v := newVerifier(t, testConfig())
	ctx := t.Context()
	allocations := testing.AllocsPerRun(100, func() {
		_, err := v.Verify(ctx, received, body, testServices)
		require.NoError(t, err)
	})
	require.Less(t, allocations, 15.0)
}
