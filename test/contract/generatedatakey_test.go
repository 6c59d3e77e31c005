package contract

import (
	"strconv"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// newDataKey is a request for a data key that succeeds, and the id of its key.
func newDataKey(t *testing.T, s *kmstest.Server, operation string) (request, string) {
	id := s.NewKey(t)
	return request{operation, members{"KeyId": id, "KeySpec": "AES_256"}}, id
}

// testRecipient asks for an answer to an enclave, which is refused.
func testRecipient(t *testing.T, s *kmstest.Server, q request) {
	q.with("Recipient", nil).requireSuccess(t, s)
	for _, recipient := range []members{{}, {"AttestationDocument": []byte("document"), "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256"}} {
		q.with("Recipient", recipient).requireRefusal(t, s, "UnsupportedOperationException", textRecipient)
	}
	q.with("Recipient", members{"KeyEncryptionAlgorithm": "RSA"}).requireRefusal(t, s, "ValidationException",
		invalid("Value 'RSA' at 'recipient.keyEncryptionAlgorithm'", "satisfy enum value set: [RSAES_OAEP_SHA_256]"))
	q.with("Recipient", members{"AttestationDocument": []byte{}}).requireRefusal(t, s, "ValidationException",
		invalid("Value at 'recipient.attestationDocument'", "have length greater than or equal to 1"))
}

// testDataKeySizes asks for data keys of every length, right and wrong. plaintextOf gives the data key of an answer.
func testDataKeySizes(t *testing.T, s *kmstest.Server, q request, plaintextOf func(members) []byte) {
	q = q.without("KeySpec").without("NumberOfBytes")
	for spec, size := range map[string]int{"AES_128": 16, "AES_256": 32} {
		require.Len(t, plaintextOf(q.with("KeySpec", spec).requireSuccess(t, s)), size)
		require.Len(t, plaintextOf(q.with("KeySpec", spec).with("NumberOfBytes", nil).requireSuccess(t, s)), size)
	}
	for _, size := range []int{1, 16, 64, 1023, 1024} {
		require.Len(t, plaintextOf(q.with("NumberOfBytes", size).requireSuccess(t, s)), size)
		require.Len(t, plaintextOf(q.with("NumberOfBytes", size).with("KeySpec", nil).requireSuccess(t, s)), size)
	}
	for _, dry := range []bool{false, true} {
		q := q.with("DryRun", dry)
		const text = "Please specify either number of bytes or key spec."
		q.requireRefusal(t, s, "ValidationException", text)
		q.with("KeySpec", nil).with("NumberOfBytes", nil).requireRefusal(t, s, "ValidationException", text)
		q.with("KeySpec", "AES_256").with("NumberOfBytes", 32).requireRefusal(t, s, "ValidationException", text)
		q.with("KeySpec", "AES_512").requireRefusal(t, s, "ValidationException",
			invalid("Value 'AES_512' at 'keySpec'", "satisfy enum value set: [AES_256, AES_128]"))
		testNumberOfBytes(t, s, q)
	}
}

// testNumberOfBytes asks for a number of random bytes that there cannot be.
func testNumberOfBytes(t *testing.T, s *kmstest.Server, q request) {
	for number, demand := range map[int]string{-1: "greater than or equal to 1", 0: "greater than or equal to 1", 1025: "less than or equal to 1024", 1 << 30: "less than or equal to 1024"} {
		q.with("NumberOfBytes", number).requireRefusal(t, s, "ValidationException", invalid("Value '"+strconv.Itoa(number)+"' at 'numberOfBytes'", "have value "+demand))
	}
	q.with("NumberOfBytes", 1.5).requireRefusal(t, s, "SerializationException", "NUMBER_VALUE can not be converted to an Integer")
	q.with("NumberOfBytes", "32").requireRefusal(t, s, "SerializationException", "STRING_VALUE can not be converted to an Integer")
}

// TestGenerateDataKey makes data keys with the SDK and decrypts them.
func TestGenerateDataKey(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		context := map[string]string{"purpose": "test"}
		in := &kms.GenerateDataKeyInput{KeyId: aws.String(kmstest.KeyARN(id)), KeySpec: types.DataKeySpecAes256, EncryptionContext: context}
		out, err := s.Client().GenerateDataKey(t.Context(), in)
		require.NoError(t, err)
		require.Len(t, out.Plaintext, 32)
		require.Equal(t, out.Plaintext, s.Decrypt(t, out.CiphertextBlob, context))
		_, err = s.Client().Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: out.CiphertextBlob})
		kmstest.RequireError(t, err, "InvalidCiphertextException", "")
		again, err := s.Client().GenerateDataKey(t.Context(), in)
		require.NoError(t, err)
		require.NotEqual(t, out.Plaintext, again.Plaintext)
		require.NotEqual(t, out.CiphertextBlob, again.CiphertextBlob)
	})
}

func TestGenerateDataKeyAnswer(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for _, id := range []string{s.NewKey(t), newMultiRegionKey(t, s)} {
			q := request{"GenerateDataKey", members{"KeyId": id, "KeySpec": "AES_256"}}
			want := members{"KeyId": kmstest.KeyARN(id), "KeyMaterialId": currentMaterial(t, s, id)}
			blobs := requireMembers(t, q.requireSuccess(t, s), want, "CiphertextBlob", "Plaintext")
			requireHeader(t, blobs["CiphertextBlob"], id, currentMaterial(t, s, id))
			require.Equal(t, blobs["Plaintext"], s.Decrypt(t, blobs["CiphertextBlob"], nil))
		}
	})
}

func TestGenerateDataKeySizes(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, id := newDataKey(t, s, "GenerateDataKey")
		want := members{"KeyId": kmstest.KeyARN(id), "KeyMaterialId": currentMaterial(t, s, id)}
		testDataKeySizes(t, s, q, func(answer members) []byte {
			blobs := requireMembers(t, answer, want, "CiphertextBlob", "Plaintext")
			require.Equal(t, blobs["Plaintext"], s.Decrypt(t, blobs["CiphertextBlob"], nil))
			return blobs["Plaintext"]
		})
	})
}

func TestGenerateDataKeyKeyNames(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, id := newDataKey(t, s, "GenerateDataKey")
		testKeyNames(t, s, q, "KeyId", "GenerateDataKey")
		testDisabled(t, s, q, id)
		q.without("KeyId").requireRefusal(t, s, "ValidationException", invalid("Value at 'keyId'", "not be null"))
	})
}

// TestGenerateDataKeyMembers tests what else a request may say.
func TestGenerateDataKeyMembers(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, _ := newDataKey(t, s, "GenerateDataKey")
		testGrantTokens(t, s, q)
		testDryRun(t, s, q)
		testRecipient(t, s, q)
		testContextLimit(t, s, q, "EncryptionContext", func(t *testing.T, q request) { q.requireSuccess(t, s) })
	})
}
