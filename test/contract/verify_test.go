package contract

import (
	"bytes"
	"crypto/sha256"
	"encoding/asn1"
	"math/big"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// newVerify is a request of Verify that succeeds.
func newVerify(t *testing.T, s *kmstest.Server) (request, string) {
	q, id := newSign(t, s)
	return request{"Verify", q.body}.with("Signature", blobOf(t, q.requireSuccess(t, s), "Signature")), id
}

// TestVerify verifies signatures of every key and algorithm, of messages and digests, and what is none.
func TestVerify(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for spec, algorithms := range signers {
			id := sharedKey(t, s, spec, "SIGN_VERIFY")
			for _, algorithm := range algorithms {
				t.Run(spec+" "+algorithm, func(t *testing.T) { testVerify(t, s, id, spec, algorithm) })
			}
		}
	})
}

func testVerify(t *testing.T, s *kmstest.Server, id, spec, algorithm string) {
	message := []byte("message")
	sign := request{"Sign", members{"KeyId": id, "Message": message, "SigningAlgorithm": algorithm}}
	signature := blobOf(t, sign.requireSuccess(t, s), "Signature")
	q := request{"Verify", sign.body}.with("Signature", signature)
	want := members{"KeyId": kmstest.KeyARN(id), "SigningAlgorithm": algorithm, "SignatureValid": true}
	require.Equal(t, want, q.requireSuccess(t, s))
	require.Equal(t, want, q.with("MessageType", "RAW").requireSuccess(t, s))

	refuse := func(q request) {
		t.Helper()
		q.requireRefusal(t, s, "KMSInvalidSignatureException", "")
		q.with("DryRun", true).requireRefusal(t, s, "KMSInvalidSignatureException", "")
	}
	if spec != "ECC_NIST_EDWARDS25519" {
		digest := q.with("MessageType", "DIGEST").with("Message", digestOf(algorithm, message))
		require.Equal(t, want, digest.requireSuccess(t, s))
		refuse(digest.with("MessageType", "RAW"))
		refuse(digest.with("Message", digestOf(algorithm, []byte("other"))))
	}
	refuse(q.with("Message", []byte("messagE")))
	refuse(q.with("Message", []byte("message ")))
	for i := range signature {
		if i%16 != 0 && i != len(signature)-1 {
			continue
		}
		flipped := bytes.Clone(signature)
		flipped[i] ^= 1
		refuse(q.with("Signature", flipped))
	}
	refuse(q.with("Signature", signature[1:]))
	refuse(q.with("Signature", signature[:len(signature)-1]))
	refuse(q.with("Signature", append(bytes.Clone(signature), 0)))
	refuse(q.with("Signature", make([]byte, len(signature))))
	refuse(q.with("Signature", []byte{0}))
	refuse(q.with("Signature", make([]byte, 6144)))
}

// TestVerifyOtherSignatures verifies with another key, and with another algorithm of the same one.
func TestVerifyOtherSignatures(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, _ := newVerify(t, s)
		q.with("KeyId", newKeyOf(t, s, "ECC_NIST_P256", "SIGN_VERIFY")).requireRefusal(t, s, "KMSInvalidSignatureException", "")
		sign := request{"Sign", members{"KeyId": sharedKey(t, s, "RSA_2048", "SIGN_VERIFY"), "Message": []byte("message")}}
		for _, algorithm := range rsaSigning {
			signature := sign.with("SigningAlgorithm", algorithm).requireSuccess(t, s)["Signature"]
			for _, other := range rsaSigning {
				q := request{"Verify", sign.body}.with("Signature", signature).with("SigningAlgorithm", other)
				if other == algorithm {
					q.requireSuccess(t, s)
				} else {
					q.requireRefusal(t, s, "KMSInvalidSignatureException", "")
				}
			}
		}
	})
}

// TestVerifyMirroredSignature takes both values of s of ECDSA, as AWS does.
func TestVerifyMirroredSignature(t *testing.T) {
	orders := map[string]string{
		"ECC_NIST_P256":   "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
		"ECC_SECG_P256K1": "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
	}
	each(t, func(t *testing.T, s *kmstest.Server) {
		for spec, hex := range orders {
			order, _ := new(big.Int).SetString(hex, 16)
			sign := request{"Sign", members{"KeyId": sharedKey(t, s, spec, "SIGN_VERIFY"), "Message": []byte("message"), "SigningAlgorithm": "ECDSA_SHA_256"}}
			var signature struct{ R, S *big.Int }
			_, err := asn1.Unmarshal(blobOf(t, sign.requireSuccess(t, s), "Signature"), &signature)
			require.NoError(t, err)
			signature.S.Sub(order, signature.S)
			mirrored, err := asn1.Marshal(signature)
			require.NoError(t, err)
			request{"Verify", sign.body}.with("Signature", mirrored).requireSuccess(t, s)
		}
	})
}

// TestVerifyNeedsNoToken verifies without a call to the token, also Ed25519ph, which SoftHSM does not do.
func TestVerifyNeedsNoToken(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, _ := newVerify(t, s)
		ph := request{"Verify", members{
			"KeyId": sharedKey(t, s, "ECC_NIST_EDWARDS25519", "SIGN_VERIFY"), "Message": make([]byte, 64), "MessageType": "DIGEST",
			"SigningAlgorithm": "ED25519_PH_SHA_512", "Signature": make([]byte, 64),
		}}
		awaitCalm(t, s)
		before := s.Calls(t)
		q.requireSuccess(t, s)
		ph.requireRefusal(t, s, "KMSInvalidSignatureException", "")
		// Not C_Sign, which a checkpoint of the audit trail may call at any moment.
		for _, function := range []string{"C_VerifyInit", "C_Verify", "C_FindObjects", "C_GetAttributeValue"} {
			require.Equal(t, before[function], s.Calls(t)[function], function)
		}
	})
}

func TestVerifySDK(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, id := newVerify(t, s)
		digest := sha256.Sum256([]byte("message"))
		in := &kms.VerifyInput{
			KeyId: &id, Message: digest[:], MessageType: types.MessageTypeDigest, Signature: q.body["Signature"].([]byte),
			SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256,
		}
		out, err := s.Client().Verify(t.Context(), in)
		require.NoError(t, err)
		require.True(t, out.SignatureValid)
		in.MessageType = types.MessageTypeRaw
		_, err = s.Client().Verify(t.Context(), in)
		kmstest.RequireError(t, err, "KMSInvalidSignatureException", "")
		var wrong *types.KMSInvalidSignatureException
		require.ErrorAs(t, err, &wrong)
		require.Nil(t, wrong.Message)
	})
}

// TestVerifyMembers tests what else a request may say.
func TestVerifyMembers(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, id := newVerify(t, s)
		testKeyNames(t, s, q, "KeyId", "Verify")
		q.without("KeyId").requireRefusal(t, s, "ValidationException", missing("keyId"))
		testDisabled(t, s, q, id)
		testGrantTokens(t, s, q)
		testDryRun(t, s, q)
		testEnum(t, s, q, "SigningAlgorithm", "SigningAlgorithmSpec")
		testIncompatible(t, s, q, "SigningAlgorithm", "SigningAlgorithmSpec", "ECC_NIST_P256", "ECDSA_SHA_256")
		testWrongUsage(t, s, q.with("SigningAlgorithm", "SM2DSA").with("Signature", []byte("no signature")), "SIGN_VERIFY")
		testMessage(t, s, q, func(t *testing.T, q request, _ []byte) { q.requireRefusal(t, s, "KMSInvalidSignatureException", "") })
		const at = "Value at 'signature'"
		q.with("Signature", []byte{}).requireRefusal(t, s, "ValidationException", invalid(at, "have length greater than or equal to 1"))
		q.with("Signature", make([]byte, 6145)).requireRefusal(t, s, "ValidationException", invalid(at, "have length less than or equal to 6144"))
		q.without("Signature").requireRefusal(t, s, "ValidationException", invalid(at, "not be null"))
	})
}
