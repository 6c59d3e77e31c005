package contract

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// signers are the algorithms of the specs that sign, in AWS's order. SoftHSM has no Ed25519ph.
var signers = map[string][]string{
	"RSA_2048": rsaSigning, "RSA_3072": rsaSigning, "RSA_4096": rsaSigning,
	"ECC_NIST_P256": {"ECDSA_SHA_256"}, "ECC_NIST_P384": {"ECDSA_SHA_384"}, "ECC_NIST_P521": {"ECDSA_SHA_512"}, "ECC_SECG_P256K1": {"ECDSA_SHA_256"},
	"ECC_NIST_EDWARDS25519": {"ED25519_SHA_512"},
}

var rsaSigning = []string{
	"RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PKCS1_V1_5_SHA_384", "RSASSA_PKCS1_V1_5_SHA_512", "RSASSA_PSS_SHA_256", "RSASSA_PSS_SHA_384", "RSASSA_PSS_SHA_512",
}

// hashOf gives the hash of a signing algorithm.
func hashOf(algorithm string) crypto.Hash {
	return map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[algorithm[len(algorithm)-3:]]
}

func digestOf(algorithm string, message []byte) []byte {
	h := hashOf(algorithm).New()
	h.Write(message)
	return h.Sum(nil)
}

// verifiesInGo verifies with Go's cryptography, which has no secp256k1; for that with openssl.
func verifiesInGo(t *testing.T, s *kmstest.Server, id, spec, algorithm string, message, signature []byte) bool {
	t.Helper()
	hash, digest := hashOf(algorithm), digestOf(algorithm, message)
	switch {
	case spec == "ECC_SECG_P256K1":
		return verifiesInOpenSSL(t, s, id, spec, algorithm, message, signature)
	case spec == "ECC_NIST_EDWARDS25519":
		return ed25519.Verify(publicKey[ed25519.PublicKey](t, s, id), message, signature)
	case strings.HasPrefix(spec, "ECC_"):
		return ecdsa.VerifyASN1(publicKey[*ecdsa.PublicKey](t, s, id), digest, signature)
	case strings.HasPrefix(algorithm, "RSASSA_PSS"):
		return rsa.VerifyPSS(publicKey[*rsa.PublicKey](t, s, id), hash, digest, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
	default:
		return rsa.VerifyPKCS1v15(publicKey[*rsa.PublicKey](t, s, id), hash, digest, signature) == nil
	}
}

// verifiesInOpenSSL verifies with the openssl command.
func verifiesInOpenSSL(t *testing.T, s *kmstest.Server, id, spec, algorithm string, message, signature []byte) bool {
	t.Helper()
	files := map[string][]byte{"public": publicDER(t, s, id), "message": message, "signature": signature}
	args := []string{"pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER", "-inkey", "public", "-in", "message", "-sigfile", "signature"}
	if spec != "ECC_NIST_EDWARDS25519" {
		hash := strings.ToLower(strings.ReplaceAll(hashOf(algorithm).String(), "-", ""))
		args = append(args, "-digest", hash)
	}
	if strings.HasPrefix(algorithm, "RSASSA_PSS") {
		args = append(args, "-pkeyopt", "rsa_padding_mode:pss", "-pkeyopt", "rsa_pss_saltlen:digest")
	}
	out, err := openssl(t, files, args...)
	if err != nil {
		require.Contains(t, err.Error(), "Signature Verification Failure")
		return false
	}
	require.Contains(t, string(out), "Signature Verified Successfully")
	return true
}

// newSign is a request of Sign that succeeds.
func newSign(t *testing.T, s *kmstest.Server) (request, string) {
	id := newKeyOf(t, s, "ECC_NIST_P256", "SIGN_VERIFY")
	return request{"Sign", members{"KeyId": id, "Message": []byte("message"), "SigningAlgorithm": "ECDSA_SHA_256"}}, id
}

// TestSign signs with every key and algorithm, messages and digests, and verifies in Go, with openssl and with Verify.
func TestSign(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for spec, algorithms := range signers {
			id := sharedKey(t, s, spec, "SIGN_VERIFY")
			for _, algorithm := range algorithms {
				t.Run(spec+" "+algorithm, func(t *testing.T) { testSign(t, s, id, spec, algorithm) })
			}
		}
	})
}

func testSign(t *testing.T, s *kmstest.Server, id, spec, algorithm string) {
	message := []byte("what is signed with " + algorithm)
	q := request{"Sign", members{"KeyId": id, "Message": message, "SigningAlgorithm": algorithm}}
	want := members{"KeyId": kmstest.KeyARN(id), "SigningAlgorithm": algorithm}
	forms := []request{q, q.with("MessageType", "RAW")}
	if spec != "ECC_NIST_EDWARDS25519" {
		forms = append(forms, q.with("MessageType", "DIGEST").with("Message", digestOf(algorithm, message)))
	}
	for i, form := range forms {
		signature := requireMembers(t, form.requireSuccess(t, s), want, "Signature")["Signature"]
		require.True(t, verifiesInGo(t, s, id, spec, algorithm, message, signature))
		require.False(t, verifiesInGo(t, s, id, spec, algorithm, []byte("another message"), signature))
		if i == len(forms)-1 {
			require.True(t, verifiesInOpenSSL(t, s, id, spec, algorithm, message, signature))
		}
		verify := request{"Verify", members{"KeyId": id, "Message": message, "SigningAlgorithm": algorithm, "Signature": signature}}
		require.Equal(t, members{"KeyId": kmstest.KeyARN(id), "SigningAlgorithm": algorithm, "SignatureValid": true}, verify.requireSuccess(t, s))
	}
}

// TestSignSDK names the key in every way.
func TestSignSDK(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := sharedKey(t, s, "ECC_NIST_P256", "SIGN_VERIFY")
		out, err := s.Client().Sign(t.Context(), &kms.SignInput{
			KeyId: &id, Message: []byte("message"), MessageType: types.MessageTypeRaw, SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256,
		})
		require.NoError(t, err)
		require.True(t, verifiesInGo(t, s, id, "ECC_NIST_P256", "ECDSA_SHA_256", []byte("message"), out.Signature))
		verified, err := s.Client().Verify(t.Context(), &kms.VerifyInput{
			KeyId: &id, Message: []byte("message"), Signature: out.Signature, SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256,
		})
		require.NoError(t, err)
		require.True(t, verified.SignatureValid)
	})
}

func TestSignMessages(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for spec, algorithm := range map[string]string{"ECC_NIST_P256": "ECDSA_SHA_256", "ECC_NIST_EDWARDS25519": "ED25519_SHA_512", "RSA_2048": "RSASSA_PSS_SHA_512"} {
			id := sharedKey(t, s, spec, "SIGN_VERIFY")
			q := request{"Sign", members{"KeyId": id, "SigningAlgorithm": algorithm}}
			testMessage(t, s, q, func(t *testing.T, q request, message []byte) {
				signature := blobOf(t, q.requireSuccess(t, s), "Signature")
				require.True(t, verifiesInGo(t, s, id, spec, algorithm, message, signature))
			})
		}
	})
}

// TestSignDigests gives digests of wrong lengths, to Sign and to Verify.
func TestSignDigests(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for _, spec := range []string{"RSA_2048", "ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521", "ECC_SECG_P256K1"} {
			for _, algorithm := range signers[spec] {
				q := request{"Sign", members{"KeyId": sharedKey(t, s, spec, "SIGN_VERIFY"), "MessageType": "DIGEST", "SigningAlgorithm": algorithm}}
				for _, size := range []int{1, 20, 31, 32, 33, 48, 63, 64, 65, 4096} {
					if size == hashOf(algorithm).Size() {
						continue
					}
					q := q.with("Message", make([]byte, size))
					text := "Digest is invalid length for algorithm " + algorithm + "."
					q.requireRefusal(t, s, "ValidationException", text)
					q.with("DryRun", true).requireRefusal(t, s, "ValidationException", text)
					verify := request{"Verify", q.body}
					verify.with("Signature", []byte("signature")).requireRefusal(t, s, "ValidationException", text)
				}
			}
		}
	})
}

// TestSignMessageTypes gives types of messages that an algorithm does not take, to Sign and to Verify.
func TestSignMessageTypes(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for _, test := range []struct{ spec, algorithm, messageType string }{
			{"ECC_NIST_EDWARDS25519", "ED25519_SHA_512", "DIGEST"},
			{"ECC_NIST_EDWARDS25519", "ED25519_SHA_512", "EXTERNAL_MU"},
			{"ECC_NIST_P256", "ECDSA_SHA_256", "EXTERNAL_MU"},
			{"RSA_2048", "RSASSA_PSS_SHA_512", "EXTERNAL_MU"},
			{"RSA_2048", "RSASSA_PKCS1_V1_5_SHA_512", "EXTERNAL_MU"},
		} {
			q := request{"Sign", members{
				"KeyId": sharedKey(t, s, test.spec, "SIGN_VERIFY"), "Message": make([]byte, 64), "MessageType": test.messageType, "SigningAlgorithm": test.algorithm,
			}}
			text := "MessageType " + test.messageType + " is not valid for algorithm " + test.algorithm + "."
			q.requireRefusal(t, s, "ValidationException", text)
			q.with("DryRun", true).requireRefusal(t, s, "ValidationException", text)
			request{"Verify", q.body}.with("Signature", []byte("signature")).requireRefusal(t, s, "ValidationException", text)
		}
		q, _ := newSign(t, s)
		for _, value := range []string{"INVALID", ""} {
			q.with("MessageType", value).requireRefusal(t, s, "ValidationException", violated(value, "messageType", enumText(t, "MessageType")))
		}
		q.with("MessageType", nil).requireSuccess(t, s)
	})
}

// TestSignUnsupported asks SoftHSM for what it does not do.
func TestSignUnsupported(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q := request{"Sign", members{
			"KeyId": sharedKey(t, s, "ECC_NIST_EDWARDS25519", "SIGN_VERIFY"), "Message": make([]byte, 64), "MessageType": "DIGEST", "SigningAlgorithm": "ED25519_PH_SHA_512",
		}}
		const text = "Algorithm ED25519_PH_SHA_512 is not supported by the HSM token of this Region."
		q.requireRefusal(t, s, "UnsupportedOperationException", text)
		q.with("DryRun", true).requireRefusal(t, s, "UnsupportedOperationException", text)
	})
}

func TestSignAlgorithms(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for spec, algorithms := range signers {
			if spec == "ECC_NIST_EDWARDS25519" {
				algorithms = append(algorithms, "ED25519_PH_SHA_512")
			}
			q := request{"Sign", members{"KeyId": sharedKey(t, s, spec, "SIGN_VERIFY"), "Message": []byte("message")}}
			testIncompatible(t, s, q, "SigningAlgorithm", "SigningAlgorithmSpec", spec, algorithms...)
		}
		q, _ := newSign(t, s)
		testEnum(t, s, q, "SigningAlgorithm", "SigningAlgorithmSpec")
		testWrongUsage(t, s, q.with("SigningAlgorithm", "SM2DSA").with("MessageType", "EXTERNAL_MU"), "SIGN_VERIFY")
	})
}

// TestSignRandomness signs twice: two signatures of ECDSA and PSS differ, and those of PKCS #1 v1.5 and Ed25519 do not.
func TestSignRandomness(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for spec, algorithms := range signers {
			for _, algorithm := range algorithms {
				q := request{"Sign", members{"KeyId": sharedKey(t, s, spec, "SIGN_VERIFY"), "Message": []byte("message"), "SigningAlgorithm": algorithm}}
				first, second := blobOf(t, q.requireSuccess(t, s), "Signature"), blobOf(t, q.requireSuccess(t, s), "Signature")
				fixed := strings.Contains(algorithm, "PKCS1") || strings.HasPrefix(algorithm, "ED25519")
				require.Equal(t, fixed, bytes.Equal(first, second), algorithm)
			}
		}
	})
}

// TestSignMembers tests what else a request may say.
func TestSignMembers(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, id := newSign(t, s)
		testKeyNames(t, s, q, "KeyId", "Sign")
		q.without("KeyId").requireRefusal(t, s, "ValidationException", missing("keyId"))
		testDisabled(t, s, q, id)
		testGrantTokens(t, s, q)
		testDryRun(t, s, q)
	})
}
