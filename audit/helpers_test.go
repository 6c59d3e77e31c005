package audit

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// testKey signs as a token would.
type testKey struct {
	key    *ecdsa.PrivateKey
	public []byte
	fail   atomic.Pointer[error]
	signed atomic.Int64
}

func newTestKey(t testing.TB) *testKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	require.NoError(t, err)
	return &testKey{key: key, public: public}
}

func (k *testKey) signer() Signer {
	return Signer{PublicKey: k.public, Sign: func(_ context.Context, digest []byte) ([]byte, error) {
		if err := k.fail.Load(); err != nil {
			return nil, *err
		}
		k.signed.Add(1)
		return ecdsa.SignASN1(rand.Reader, k.key, digest)
	}}
}

// testClock is a clock that tests set.
type testClock struct{ unix atomic.Int64 }

func newTestClock() *testClock {
	c := &testClock{}
	c.unix.Store(time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC).Unix())
	return c
}

func (c *testClock) now() time.Time          { return time.Unix(c.unix.Load(), 0) }
func (c *testClock) advance(d time.Duration) { c.unix.Add(int64(d / time.Second)) }

const (
	accountA = "111122223333"
	accountB = "444455556666"
)

func keyARN(account string, i int) string {
	return fmt.Sprintf("arn:aws:kms:us-east-1:%s:key/1234abcd-12ab-34cd-56ef-%012d", account, i)
}

// reEncrypt is a call of the usual size, with a number to know it by.
func reEncrypt(i int) *Event {
	return &Event{
		UserIdentity: UserIdentity{
			Type: "IAMUser", PrincipalID: "AIDACKCEVSQ6C2EXAMPLE", ARN: "arn:aws:iam::111122223333:user/Alice", AccountID: accountA,
			AccessKeyID: "AKIAIOSFODNN7EXAMPLE", UserName: "Alice",
		},
		EventTime: time.Date(2026, 11, 25, 21, 25, 21, 999, time.UTC),
		EventName: "ReEncrypt", AWSRegion: "us-east-1", SourceIPAddress: "192.0.2.17", UserAgent: "aws-cli/2.31.0",
		RequestParameters: Parameters{
			{"sourceEncryptionAlgorithm", Text("SYMMETRIC_DEFAULT")},
			{"sourceEncryptionContext", Pairs(map[string]string{"tenant": "blue"})},
			{"destinationKeyId", Text(keyARN(accountA, 2))},
			{"destinationEncryptionAlgorithm", Text("SYMMETRIC_DEFAULT")},
		},
		RequestID: fmt.Sprintf("request-%d", i), ReadOnly: true,
		Resources: []Resource{{AccountID: accountA, ARN: keyARN(accountA, 1)}, {AccountID: accountA, ARN: keyARN(accountA, 2)}},
	}
}

// open opens a trail that is closed with the test.
func open(t testing.TB, cfg Config) *Trail {
	t.Helper()
	trail, err := New(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = trail.Close(context.Background()) })
	return trail
}

func record(t testing.TB, trail *Trail, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		require.NoError(t, trail.Record(t.Context(), reEncrypt(i)))
	}
}

func closeTrail(t testing.TB, trail *Trail) {
	t.Helper()
	require.NoError(t, trail.Close(context.Background()))
}

// waitSigned waits until a checkpoint covers a record.
func waitSigned(t testing.TB, trail *Trail, sequence uint64) {
	t.Helper()
	require.Eventually(t, func() bool { return trail.Status().Signed.Sequence >= sequence }, 20*time.Second, time.Millisecond)
}

// verify verifies a directory or files.
func verify(t testing.TB, key *testKey, paths ...string) *Report {
	t.Helper()
	return verifyWith(t, VerifyOptions{PublicKeys: [][]byte{key.public}}, paths...)
}

func verifyWith(t testing.TB, options VerifyOptions, paths ...string) *Report {
	t.Helper()
	report, err := Verify(t.Context(), paths, options)
	require.NoError(t, err)
	return report
}

// lines reads all lines of the files of a trail, in order.
func lines(t testing.TB, dir string) []string {
	t.Helper()
	var all []string
	for _, path := range paths(t, dir) {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, strings.HasSuffix(string(text), "\n"), path)
		all = append(all, strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")...)
	}
	return all
}

func paths(t testing.TB, dir string) []string {
	t.Helper()
	paths, err := trailFiles(dir)
	require.NoError(t, err)
	return paths
}

// highS gives the other form of a signature: see lowS.
func highS(t testing.TB, signature []byte) []byte {
	t.Helper()
	var pair struct{ R, S *big.Int }
	_, err := asn1.Unmarshal(signature, &pair)
	require.NoError(t, err)
	pair.S.Sub(elliptic.P256().Params().N, pair.S)
	high, err := asn1.Marshal(pair)
	require.NoError(t, err)
	return high
}
