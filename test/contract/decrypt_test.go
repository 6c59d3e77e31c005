package contract

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// newDecrypt is a request of Decrypt that succeeds and names its key.
func newDecrypt(t *testing.T, s *kmstest.Server) source {
	id := newPlainKey(t, s)
	blob := s.Encrypt(t, id, []byte("plaintext"), nil)
	return source{
		request: request{"Decrypt", members{"CiphertextBlob": blob, "KeyId": id}}, keyID: id,
		keyMember: "KeyId", contextMember: "EncryptionContext",
	}
}

// TestDecrypt decrypts with the SDK, naming the key in every way and not at all.
func TestDecrypt(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		alias := newAlias(t, s, id)
		context := map[string]string{"purpose": "test"}
		blob := s.Encrypt(t, id, []byte("plaintext"), context)
		names := []*string{nil, aws.String(id), aws.String(kmstest.KeyARN(id)), aws.String(alias), aws.String(kmstest.AliasARN(alias))}
		for _, name := range names {
			out, err := s.Client().Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob, KeyId: name, EncryptionContext: context})
			require.NoError(t, err)
			require.Equal(t, "plaintext", string(out.Plaintext))
			require.Equal(t, kmstest.KeyARN(id), *out.KeyId)
		}
	})
}

func TestDecryptAnswer(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for _, id := range []string{s.NewKey(t), newMultiRegionKey(t, s)} {
			q := request{"Decrypt", members{"CiphertextBlob": s.Encrypt(t, id, []byte("plaintext"), nil)}}
			want := members{"EncryptionAlgorithm": "SYMMETRIC_DEFAULT", "KeyId": kmstest.KeyARN(id), "KeyMaterialId": currentMaterial(t, s, id)}
			plaintext := requireMembers(t, q.requireSuccess(t, s), want, "Plaintext")["Plaintext"]
			require.Equal(t, "plaintext", string(plaintext))
		}
	})
}

func TestDecryptForgeries(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q := newDecrypt(t, s)
		testForgeries(t, s, q)
		testBlobSizes(t, s, q)
	})
}

func TestDecryptEncryptionContext(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q := newDecrypt(t, s)
		testContexts(t, s, q)
		testSourceContextLimit(t, s, q)
	})
}

func TestDecryptKeyNames(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q := newDecrypt(t, s)
		testKeyNames(t, s, q.request, "KeyId", "Decrypt")
		q.with("KeyId", nil).requireSuccess(t, s)
	})
}

func TestDecryptIncorrectKey(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q := newDecrypt(t, s)
		testIncorrectKey(t, s, q)
		_, err := s.Client().Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: q.blob(), KeyId: aws.String(s.NewKey(t))})
		var incorrect *types.IncorrectKeyException
		require.ErrorAs(t, err, &incorrect)
	})
}

func TestDecryptDisabledKey(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q := newDecrypt(t, s)
		testDisabled(t, s, q.request, q.keyID)
		testDisabled(t, s, q.without("KeyId"), q.keyID)
	})
}

func TestDecryptDryRunModifiers(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q := newDecrypt(t, s)
		testDryRunModifiers(t, s, q)
		testIdleModifiers(t, s, q)
		blind := q.with("DryRun", true).with("DryRunModifiers", []string{"IGNORE_CIPHERTEXT"}).without("CiphertextBlob")
		blind.with("EncryptionAlgorithm", "RSAES_OAEP_SHA_1").requireRefusal(t, s, "InvalidKeyUsageException",
			"Algorithm RSAES_OAEP_SHA_1 is incompatible with key spec SYMMETRIC_DEFAULT.")
	})
}

// TestDecryptMembers tests what else a request may say.
func TestDecryptMembers(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q := newDecrypt(t, s)
		testAlgorithm(t, s, q.request, "EncryptionAlgorithm")
		testGrantTokens(t, s, q.request)
		testDryRun(t, s, q.request)
		testRecipient(t, s, q.request)
	})
}
