package contract

import (
	"bytes"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// newEncrypt is a request of Encrypt that succeeds, and the id of its key.
func newEncrypt(t *testing.T, s *kmstest.Server) (request, string) {
	id := s.NewKey(t)
	return request{"Encrypt", members{"KeyId": id, "Plaintext": []byte("plaintext")}}, id
}

// TestEncrypt encrypts with the SDK, naming the key in every way, and decrypts.
func TestEncrypt(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		alias := newAlias(t, s, id)
		context := map[string]string{"purpose": "test"}
		for _, name := range []string{id, kmstest.KeyARN(id), alias, kmstest.AliasARN(alias)} {
			out, err := s.Client().Encrypt(t.Context(), &kms.EncryptInput{
				KeyId: aws.String(name), Plaintext: []byte("plaintext"), EncryptionContext: context,
				EncryptionAlgorithm: types.EncryptionAlgorithmSpecSymmetricDefault,
			})
			require.NoError(t, err)
			require.Equal(t, kmstest.KeyARN(id), *out.KeyId)
			require.Equal(t, types.EncryptionAlgorithmSpecSymmetricDefault, out.EncryptionAlgorithm)
			require.NotContains(t, string(out.CiphertextBlob), "plaintext")
			require.Equal(t, "plaintext", string(s.Decrypt(t, out.CiphertextBlob, context)))
		}
	})
}

func TestEncryptAnswer(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, id := newEncrypt(t, s)
		want := members{"EncryptionAlgorithm": "SYMMETRIC_DEFAULT", "KeyId": kmstest.KeyARN(id)}
		first := requireMembers(t, q.requireSuccess(t, s), want, "CiphertextBlob")["CiphertextBlob"]
		second := requireMembers(t, q.requireSuccess(t, s), want, "CiphertextBlob")["CiphertextBlob"]
		requireHeader(t, first, id, currentMaterial(t, s, id))
		require.Equal(t, first[:ivOffset], second[:ivOffset])
		require.NotEqual(t, first[ivOffset:ivOffset+12], second[ivOffset:ivOffset+12], "the IV of two encryptions")
		require.NotEqual(t, first[ivOffset+12:], second[ivOffset+12:])
	})
}

func TestEncryptMultiRegionKey(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := newMultiRegionKey(t, s)
		q := request{"Encrypt", members{"KeyId": id, "Plaintext": []byte("plaintext")}}
		blob := requireMembers(t, q.requireSuccess(t, s),
			members{"EncryptionAlgorithm": "SYMMETRIC_DEFAULT", "KeyId": kmstest.KeyARN(id)}, "CiphertextBlob")["CiphertextBlob"]
		requireHeader(t, blob, id, currentMaterial(t, s, id))
		require.Equal(t, "plaintext", string(s.Decrypt(t, blob, nil)))
		testKeyNames(t, s, q, "KeyId", "Encrypt")
	})
}

func TestEncryptSizes(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, id := newEncrypt(t, s)
		for _, size := range []int{1, 15, 16, 17, 4095, 4096} {
			plaintext := bytes.Repeat([]byte{0, 0xFF, 'x'}, size)[:size]
			require.Equal(t, plaintext, s.Decrypt(t, s.Encrypt(t, id, plaintext, nil), nil))
		}
		const at = "Value at 'plaintext'"
		_, err := s.Client().Encrypt(t.Context(), &kms.EncryptInput{KeyId: &id, Plaintext: make([]byte, 4097)})
		kmstest.RequireError(t, err, "ValidationException", invalid(at, "have length less than or equal to 4096"))
		q.with("Plaintext", []byte{}).requireRefusal(t, s, "ValidationException", invalid(at, "have length greater than or equal to 1"))
		q.without("Plaintext").requireRefusal(t, s, "ValidationException", invalid(at, "not be null"))
		q.with("Plaintext", nil).requireRefusal(t, s, "ValidationException", invalid(at, "not be null"))
		q.with("Plaintext", "not base64!").requireRefusal(t, s, "SerializationException", "")
	})
}

func TestEncryptKeyNames(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, _ := newEncrypt(t, s)
		testKeyNames(t, s, q, "KeyId", "Encrypt")
		for _, none := range []request{q.without("KeyId"), q.with("KeyId", nil)} {
			none.requireRefusal(t, s, "ValidationException", invalid("Value at 'keyId'", "not be null"))
		}
		q.without("KeyId").without("Plaintext").requireRefusal(t, s, "ValidationException",
			"2 validation errors detected: Value at 'keyId' failed to satisfy constraint: Member must not be null; "+
				"Value at 'plaintext' failed to satisfy constraint: Member must not be null")
	})
}

func TestEncryptDisabledKey(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, id := newEncrypt(t, s)
		testDisabled(t, s, q, id)
	})
}

// TestEncryptMembers tests what else a request may say.
func TestEncryptMembers(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, _ := newEncrypt(t, s)
		testAlgorithm(t, s, q, "EncryptionAlgorithm")
		testGrantTokens(t, s, q)
		testDryRun(t, s, q)
		q.with("EncryptionContext", nil).requireSuccess(t, s)
		testContextLimit(t, s, q, "EncryptionContext", func(t *testing.T, q request) { q.requireSuccess(t, s) })
	})
}
