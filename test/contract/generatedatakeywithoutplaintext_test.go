package contract

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

const blindDataKey = "GenerateDataKeyWithoutPlaintext"

// TestGenerateDataKeyWithoutPlaintext makes data keys with the SDK and decrypts them.
func TestGenerateDataKeyWithoutPlaintext(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		alias := newAlias(t, s, s.NewKey(t))
		context := map[string]string{"purpose": "test"}
		in := &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: &alias, NumberOfBytes: aws.Int32(64), EncryptionContext: context}
		out, err := s.Client().GenerateDataKeyWithoutPlaintext(t.Context(), in)
		require.NoError(t, err)
		again, err := s.Client().GenerateDataKeyWithoutPlaintext(t.Context(), in)
		require.NoError(t, err)
		first, second := s.Decrypt(t, out.CiphertextBlob, context), s.Decrypt(t, again.CiphertextBlob, context)
		require.Len(t, first, 64)
		require.Len(t, second, 64)
		require.NotEqual(t, first, second)
		require.NotEqual(t, make([]byte, 64), first, "what was wiped was encrypted")
		_, err = s.Client().Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: out.CiphertextBlob})
		kmstest.RequireError(t, err, "InvalidCiphertextException", "")
	})
}

func TestGenerateDataKeyWithoutPlaintextAnswer(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for _, id := range []string{s.NewKey(t), newMultiRegionKey(t, s)} {
			q := request{blindDataKey, members{"KeyId": id, "KeySpec": "AES_256"}}
			want := members{"KeyId": kmstest.KeyARN(id), "KeyMaterialId": currentMaterial(t, s, id)}
			blob := requireMembers(t, q.requireSuccess(t, s), want, "CiphertextBlob")["CiphertextBlob"]
			requireHeader(t, blob, id, currentMaterial(t, s, id))
		}
	})
}

func TestGenerateDataKeyWithoutPlaintextSizes(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, id := newDataKey(t, s, blindDataKey)
		want := members{"KeyId": kmstest.KeyARN(id), "KeyMaterialId": currentMaterial(t, s, id)}
		testDataKeySizes(t, s, q, func(answer members) []byte {
			return s.Decrypt(t, requireMembers(t, answer, want, "CiphertextBlob")["CiphertextBlob"], nil)
		})
	})
}

func TestGenerateDataKeyWithoutPlaintextKeyNames(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, id := newDataKey(t, s, blindDataKey)
		testKeyNames(t, s, q, "KeyId", blindDataKey)
		testDisabled(t, s, q, id)
		q.without("KeyId").requireRefusal(t, s, "ValidationException", invalid("Value at 'keyId'", "not be null"))
	})
}

// TestGenerateDataKeyWithoutPlaintextMembers tests what else a request may say. Recipient is not a member here, and
// ignored as any other word.
func TestGenerateDataKeyWithoutPlaintextMembers(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, _ := newDataKey(t, s, blindDataKey)
		testGrantTokens(t, s, q)
		testDryRun(t, s, q)
		testContextLimit(t, s, q, "EncryptionContext", func(t *testing.T, q request) { q.requireSuccess(t, s) })
		q.with("Recipient", members{}).requireSuccess(t, s)
	})
}
