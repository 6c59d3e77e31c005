package contract

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

const blindDataKeyPair = "GenerateDataKeyPairWithoutPlaintext"

// newDataKeyPair is a request for a data key pair that succeeds, and the id of its key.
func newDataKeyPair(t *testing.T, s *kmstest.Server, operation string) (request, string) {
	id := s.NewKey(t)
	return request{operation, members{"KeyId": id, "KeyPairSpec": "ECC_NIST_P256"}}, id
}

// requirePair checks that a private and a public key, in PKCS#8 and as a SubjectPublicKeyInfo, are a key pair of a spec: Go
// reads both, but secp256k1, and openssl gets the one from the other.
func requirePair(t *testing.T, spec string, private, public []byte) {
	t.Helper()
	derived, err := openssl(t, map[string][]byte{"private": private}, "pkey", "-inform", "DER", "-in", "private", "-pubout", "-outform", "DER")
	require.NoError(t, err)
	require.Equal(t, public, derived)
	text, err := openssl(t, map[string][]byte{"private": private}, "pkey", "-inform", "DER", "-in", "private", "-noout", "-text")
	require.NoError(t, err)
	require.Regexp(t, map[string]string{
		"RSA_2048": `2048 bit`, "RSA_3072": `3072 bit`, "RSA_4096": `4096 bit`, "ECC_NIST_P256": `prime256v1`, "ECC_NIST_P384": `secp384r1`,
		"ECC_NIST_P521": `secp521r1`, "ECC_SECG_P256K1": `secp256k1`, "ECC_NIST_EDWARDS25519": `ED25519`,
	}[spec], string(text))
	if spec == "ECC_SECG_P256K1" {
		return
	}
	key, err := x509.ParsePKCS8PrivateKey(private)
	require.NoError(t, err)
	again, err := x509.MarshalPKIXPublicKey(key.(crypto.Signer).Public())
	require.NoError(t, err)
	require.Equal(t, public, again)
}

// pairsOf are the specs of data key pairs that SoftHSM can make.
func pairsOf(t testing.TB) []string {
	t.Helper()
	all := enum(t, "DataKeyPairSpec")
	return slices.DeleteFunc(all, func(spec string) bool { return spec == "SM2" })
}

// TestGenerateDataKeyPair makes key pairs of every spec, whose private keys decrypt like any other ciphertext.
func TestGenerateDataKeyPair(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for _, id := range []string{s.NewKey(t), newMultiRegionKey(t, s)} {
			context := map[string]string{"purpose": "test"}
			for _, spec := range pairsOf(t) {
				if strings.HasPrefix(id, "mrk-") && strings.HasPrefix(spec, "RSA_") {
					continue // they take long to make
				}
				q := request{"GenerateDataKeyPair", members{"KeyId": id, "KeyPairSpec": spec, "EncryptionContext": context}}
				want := members{"KeyId": kmstest.KeyARN(id), "KeyMaterialId": currentMaterial(t, s, id), "KeyPairSpec": spec}
				blobs := requireMembers(t, q.requireSuccess(t, s), want, "PrivateKeyCiphertextBlob", "PrivateKeyPlaintext", "PublicKey")
				requirePair(t, spec, blobs["PrivateKeyPlaintext"], blobs["PublicKey"])
				requireHeader(t, blobs["PrivateKeyCiphertextBlob"], id, currentMaterial(t, s, id))
				require.Equal(t, blobs["PrivateKeyPlaintext"], s.Decrypt(t, blobs["PrivateKeyCiphertextBlob"], context))
				decrypt := request{"Decrypt", members{"CiphertextBlob": blobs["PrivateKeyCiphertextBlob"]}}
				decrypt.requireRefusal(t, s, "InvalidCiphertextException", "")
			}
		}
	})
}

// TestGenerateDataKeyPairLeavesNothing makes data key pairs. No object of them stays on the token, and no two are the same.
func TestGenerateDataKeyPairLeavesNothing(t *testing.T) {
	eachFresh(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		objects := len(tokenObjects(t, s))
		seen := map[string]bool{}
		for range 3 {
			for _, operation := range []string{"GenerateDataKeyPair", blindDataKeyPair} {
				for _, spec := range []string{"RSA_2048", "ECC_NIST_P256", "ECC_NIST_EDWARDS25519"} {
					public := blobOf(t, request{operation, members{"KeyId": id, "KeyPairSpec": spec}}.requireSuccess(t, s), "PublicKey")
					require.False(t, seen[string(public)])
					seen[string(public)] = true
				}
			}
		}
		require.Len(t, tokenObjects(t, s), objects)
		require.NoError(t, s.Stop())
		require.NotContains(t, s.Log(), "PRIVATE")
	})
}

// TestGenerateDataKeyPairReEncrypts moves the longest private key to another key, and fails to move it to where it does not fit.
func TestGenerateDataKeyPairReEncrypts(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		answer := request{"GenerateDataKeyPair", members{"KeyId": s.NewKey(t), "KeyPairSpec": "RSA_4096"}}.requireSuccess(t, s)
		blob, private := blobOf(t, answer, "PrivateKeyCiphertextBlob"), blobOf(t, answer, "PrivateKeyPlaintext")
		require.Greater(t, len(private), 2300)
		q := request{"ReEncrypt", members{"CiphertextBlob": blob, "DestinationKeyId": s.NewKey(t)}}
		moved := blobOf(t, q.requireSuccess(t, s), "CiphertextBlob")
		require.True(t, bytes.Equal(private, s.Decrypt(t, moved, nil)))
		q.with("DestinationKeyId", sharedKey(t, s, "RSA_2048", "ENCRYPT_DECRYPT")).with("DestinationEncryptionAlgorithm", "RSAES_OAEP_SHA_256").
			requireRefusal(t, s, "ValidationException", "Algorithm RSAES_OAEP_SHA_256 and key spec RSA_2048 cannot encrypt data larger than 190 bytes.")
	})
}

func TestGenerateDataKeyPairSDK(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		out, err := s.Client().GenerateDataKeyPair(t.Context(), &kms.GenerateDataKeyPairInput{KeyId: &id, KeyPairSpec: types.DataKeyPairSpecEccNistP384})
		require.NoError(t, err)
		requirePair(t, "ECC_NIST_P384", out.PrivateKeyPlaintext, out.PublicKey)
		blind, err := s.Client().GenerateDataKeyPairWithoutPlaintext(t.Context(), &kms.GenerateDataKeyPairWithoutPlaintextInput{
			KeyId: &id, KeyPairSpec: types.DataKeyPairSpecEccNistP384,
		})
		require.NoError(t, err)
		requirePair(t, "ECC_NIST_P384", s.Decrypt(t, blind.PrivateKeyCiphertextBlob, nil), blind.PublicKey)
	})
}

// testDataKeyPairMembers tests what else a request for a data key pair may say.
func testDataKeyPairMembers(t *testing.T, s *kmstest.Server, operation string) {
	q, id := newDataKeyPair(t, s, operation)
	testKeyNames(t, s, q, "KeyId", operation)
	q.without("KeyId").requireRefusal(t, s, "ValidationException", missing("keyId"))
	testDisabled(t, s, q, id)
	testGrantTokens(t, s, q)
	testDryRun(t, s, q)
	testEnum(t, s, q, "KeyPairSpec", "DataKeyPairSpec")
	testContextLimit(t, s, q, "EncryptionContext", func(t *testing.T, q request) { q.requireSuccess(t, s) })
	for _, dry := range []bool{false, true} {
		q.with("KeyPairSpec", "SM2").with("DryRun", dry).requireRefusal(t, s, "UnsupportedOperationException", "KeyPairSpec SM2 is not supported.")
	}
	testWrongUsage(t, s, q.with("KeyPairSpec", "SM2"), "ENCRYPT_DECRYPT")
	q.with("KeyId", sharedKey(t, s, "RSA_2048", "ENCRYPT_DECRYPT")).requireRefusal(t, s, "InvalidKeyUsageException",
		"Algorithm SYMMETRIC_DEFAULT is incompatible with key spec RSA_2048.")
}

func TestGenerateDataKeyPairMembers(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		testDataKeyPairMembers(t, s, "GenerateDataKeyPair")
		q, _ := newDataKeyPair(t, s, "GenerateDataKeyPair")
		testRecipient(t, s, q)
	})
}
