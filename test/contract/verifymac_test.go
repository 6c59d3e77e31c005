package contract

import (
	"bytes"
	"testing"

	"hsmkms/test/kmstest"
)

// newVerifyMac is a request of VerifyMac that succeeds.
func newVerifyMac(t *testing.T, s *kmstest.Server) (request, string) {
	q, id := newMac(t, s)
	return request{"VerifyMac", q.body}.with("Mac", blobOf(t, q.requireSuccess(t, s), "Mac")), id
}

// TestVerifyMac verifies what is none of the message's MACs; those that are, are verified with GenerateMac.
func TestVerifyMac(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for spec, algorithm := range macAlgorithms {
			q := request{"GenerateMac", members{"KeyId": sharedKey(t, s, spec, "GENERATE_VERIFY_MAC"), "MacAlgorithm": algorithm.algorithm, "Message": []byte("message")}}
			mac := blobOf(t, q.requireSuccess(t, s), "Mac")
			q = request{"VerifyMac", q.body}.with("Mac", mac)
			q.requireSuccess(t, s)
			refuse := func(q request) {
				t.Helper()
				q.requireRefusal(t, s, "KMSInvalidMacException", "")
				q.with("DryRun", true).requireRefusal(t, s, "KMSInvalidMacException", "")
			}
			for i := range mac {
				flipped := bytes.Clone(mac)
				flipped[i] ^= 0x80
				refuse(q.with("Mac", flipped))
			}
			refuse(q.with("Mac", mac[1:]))
			refuse(q.with("Mac", mac[:len(mac)-1]))
			refuse(q.with("Mac", mac[:1]))
			refuse(q.with("Mac", append(bytes.Clone(mac), 0)))
			refuse(q.with("Mac", make([]byte, 6144)))
			refuse(q.with("Message", []byte("messagE")))
			refuse(q.with("KeyId", newKeyOf(t, s, spec, "GENERATE_VERIFY_MAC")))
		}
	})
}

// TestVerifyMacMembers tests what else a request may say.
func TestVerifyMacMembers(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, id := newVerifyMac(t, s)
		testKeyNames(t, s, q, "KeyId", "VerifyMac")
		q.without("KeyId").requireRefusal(t, s, "ValidationException", missing("keyId"))
		testDisabled(t, s, q, id)
		testGrantTokens(t, s, q)
		testDryRun(t, s, q)
		testEnum(t, s, q, "MacAlgorithm", "MacAlgorithmSpec")
		testIncompatible(t, s, q, "MacAlgorithm", "MacAlgorithmSpec", "HMAC_256", "HMAC_SHA_256")
		testWrongUsage(t, s, q.with("MacAlgorithm", "HMAC_SHA_512").with("Mac", []byte("no MAC")), "GENERATE_VERIFY_MAC")
		testMessage(t, s, q, func(t *testing.T, q request, _ []byte) { q.requireRefusal(t, s, "KMSInvalidMacException", "") })
		const at = "Value at 'mac'"
		q.with("Mac", []byte{}).requireRefusal(t, s, "ValidationException", invalid(at, "have length greater than or equal to 1"))
		q.with("Mac", make([]byte, 6145)).requireRefusal(t, s, "ValidationException", invalid(at, "have length less than or equal to 6144"))
		q.without("Mac").requireRefusal(t, s, "ValidationException", invalid(at, "not be null"))
	})
}
