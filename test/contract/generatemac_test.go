package contract

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// macAlgorithms are the one algorithm of each spec, and the length of its MACs.
var macAlgorithms = map[string]struct {
	algorithm string
	size      int
}{
	"HMAC_224": {"HMAC_SHA_224", 28}, "HMAC_256": {"HMAC_SHA_256", 32}, "HMAC_384": {"HMAC_SHA_384", 48}, "HMAC_512": {"HMAC_SHA_512", 64},
}

// newMac is a request of GenerateMac that succeeds.
func newMac(t *testing.T, s *kmstest.Server) (request, string) {
	id := newKeyOf(t, s, "HMAC_256", "GENERATE_VERIFY_MAC")
	return request{"GenerateMac", members{"KeyId": id, "Message": []byte("message"), "MacAlgorithm": "HMAC_SHA_256"}}, id
}

// TestGenerateMac makes MACs with keys of every spec. No key leaves the token, so that they can be compared with those of
// others for imported keys only.
func TestGenerateMac(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for spec, mac := range macAlgorithms {
			id := sharedKey(t, s, spec, "GENERATE_VERIFY_MAC")
			q := request{"GenerateMac", members{"KeyId": id, "MacAlgorithm": mac.algorithm}}
			want := members{"KeyId": kmstest.KeyARN(id), "MacAlgorithm": mac.algorithm}
			seen := map[string]bool{}
			testMessage(t, s, q, func(t *testing.T, q request, _ []byte) {
				first := requireMembers(t, q.requireSuccess(t, s), want, "Mac")["Mac"]
				require.Len(t, first, mac.size)
				require.Equal(t, first, blobOf(t, q.requireSuccess(t, s), "Mac"))
				require.False(t, seen[string(first)], "two messages with the same MAC")
				seen[string(first)] = true
				verify := request{"VerifyMac", q.body}.with("Mac", first)
				require.Equal(t, members{"KeyId": kmstest.KeyARN(id), "MacAlgorithm": mac.algorithm, "MacValid": true}, verify.requireSuccess(t, s))
			})
			other := q.with("KeyId", newKeyOf(t, s, spec, "GENERATE_VERIFY_MAC")).with("Message", []byte{0})
			require.False(t, seen[string(blobOf(t, other.requireSuccess(t, s), "Mac"))], "two keys with the same MAC")
			testIncompatible(t, s, q.with("Message", []byte("message")), "MacAlgorithm", "MacAlgorithmSpec", spec, mac.algorithm)
		}
	})
}

func TestGenerateMacSDK(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		_, id := newMac(t, s)
		out, err := s.Client().GenerateMac(t.Context(), &kms.GenerateMacInput{KeyId: &id, Message: []byte("message"), MacAlgorithm: types.MacAlgorithmSpecHmacSha256})
		require.NoError(t, err)
		in := &kms.VerifyMacInput{KeyId: &id, Message: []byte("message"), Mac: out.Mac, MacAlgorithm: types.MacAlgorithmSpecHmacSha256}
		verified, err := s.Client().VerifyMac(t.Context(), in)
		require.NoError(t, err)
		require.True(t, verified.MacValid)
		in.Message = []byte("messagE")
		_, err = s.Client().VerifyMac(t.Context(), in)
		kmstest.RequireError(t, err, "KMSInvalidMacException", "")
		var wrong *types.KMSInvalidMacException
		require.ErrorAs(t, err, &wrong)
		require.Nil(t, wrong.Message)
	})
}

// TestGenerateMacMembers tests what else a request may say.
func TestGenerateMacMembers(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, id := newMac(t, s)
		testKeyNames(t, s, q, "KeyId", "GenerateMac")
		q.without("KeyId").requireRefusal(t, s, "ValidationException", missing("keyId"))
		testDisabled(t, s, q, id)
		testGrantTokens(t, s, q)
		testDryRun(t, s, q)
		testEnum(t, s, q, "MacAlgorithm", "MacAlgorithmSpec")
		testWrongUsage(t, s, q.with("MacAlgorithm", "HMAC_SHA_512"), "GENERATE_VERIFY_MAC")
	})
}
