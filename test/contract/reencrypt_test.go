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

// newReEncrypt is a request of ReEncrypt that succeeds, names its source and has no encryption contexts, and the id of its
// destination.
func newReEncrypt(t *testing.T, s *kmstest.Server) (q source, destination string) {
	from, to := newPlainKey(t, s), s.NewKey(t)
	blob := s.Encrypt(t, from, []byte("plaintext"), nil)
	return source{
		request: request{"ReEncrypt", members{"CiphertextBlob": blob, "SourceKeyId": from, "DestinationKeyId": to}}, keyID: from,
		keyMember: "SourceKeyId", contextMember: "SourceEncryptionContext",
	}, to
}

// TestReEncrypt re-encrypts with the SDK, naming the source in every way and not at all.
func TestReEncrypt(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		from, to := s.NewKey(t), s.NewKey(t)
		fromAlias, toAlias := newAlias(t, s, from), newAlias(t, s, to)
		before, after := map[string]string{"old": "context"}, map[string]string{"new": "context"}
		blob := s.Encrypt(t, from, []byte("plaintext"), before)
		sources := []*string{nil, aws.String(from), aws.String(kmstest.KeyARN(from)), aws.String(fromAlias), aws.String(kmstest.AliasARN(fromAlias))}
		for _, name := range sources {
			out, err := s.Client().ReEncrypt(t.Context(), &kms.ReEncryptInput{
				CiphertextBlob: blob, SourceKeyId: name, SourceEncryptionContext: before,
				DestinationKeyId: &toAlias, DestinationEncryptionContext: after,
			})
			require.NoError(t, err)
			require.Equal(t, kmstest.KeyARN(from), *out.SourceKeyId)
			require.Equal(t, kmstest.KeyARN(to), *out.KeyId)
			require.Equal(t, currentMaterial(t, s, from), *out.SourceKeyMaterialId)
			require.Equal(t, currentMaterial(t, s, to), *out.DestinationKeyMaterialId)
			require.Equal(t, types.EncryptionAlgorithmSpecSymmetricDefault, out.SourceEncryptionAlgorithm)
			require.Equal(t, types.EncryptionAlgorithmSpecSymmetricDefault, out.DestinationEncryptionAlgorithm)
			require.Equal(t, "plaintext", string(s.Decrypt(t, out.CiphertextBlob, after)))
		}
		require.Equal(t, "plaintext", string(s.Decrypt(t, blob, before)), "the old ciphertext is as good as ever")
	})
}

func TestReEncryptAnswer(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, to := newReEncrypt(t, s)
		want := members{
			"DestinationEncryptionAlgorithm": "SYMMETRIC_DEFAULT", "DestinationKeyMaterialId": currentMaterial(t, s, to), "KeyId": kmstest.KeyARN(to),
			"SourceEncryptionAlgorithm": "SYMMETRIC_DEFAULT", "SourceKeyId": kmstest.KeyARN(q.keyID), "SourceKeyMaterialId": currentMaterial(t, s, q.keyID),
		}
		require.NotEqual(t, want["SourceKeyMaterialId"], want["DestinationKeyMaterialId"])
		first := requireMembers(t, q.requireSuccess(t, s), want, "CiphertextBlob")["CiphertextBlob"]
		second := requireMembers(t, q.without("SourceKeyId").requireSuccess(t, s), want, "CiphertextBlob")["CiphertextBlob"]
		for _, blob := range [][]byte{first, second} {
			requireHeader(t, blob, to, currentMaterial(t, s, to))
			require.Equal(t, "plaintext", string(s.Decrypt(t, blob, nil)))
		}
		require.NotEqual(t, first[ivOffset:ivOffset+12], second[ivOffset:ivOffset+12], "the IV of two results")
		require.NotEqual(t, first[ivOffset+12:], second[ivOffset+12:])
	})
}

// TestReEncryptSameKey moves a ciphertext to the key where it is, with the encryption context that it has and another one.
func TestReEncryptSameKey(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for _, id := range []string{s.NewKey(t), newMultiRegionKey(t, s)} {
			before, after := map[string]string{"old": "context"}, map[string]string{"new": "context"}
			blob := s.Encrypt(t, id, []byte("plaintext"), before)
			q := request{"ReEncrypt", members{"CiphertextBlob": blob, "SourceEncryptionContext": before, "DestinationKeyId": id}}
			material := currentMaterial(t, s, id)
			want := members{
				"DestinationEncryptionAlgorithm": "SYMMETRIC_DEFAULT", "DestinationKeyMaterialId": material, "KeyId": kmstest.KeyARN(id),
				"SourceEncryptionAlgorithm": "SYMMETRIC_DEFAULT", "SourceKeyId": kmstest.KeyARN(id), "SourceKeyMaterialId": material,
			}
			same := requireMembers(t, q.with("DestinationEncryptionContext", before).requireSuccess(t, s), want, "CiphertextBlob")["CiphertextBlob"]
			require.NotEqual(t, blob, same)
			require.Equal(t, "plaintext", string(s.Decrypt(t, same, before)))
			other := requireMembers(t, q.with("DestinationEncryptionContext", after).requireSuccess(t, s), want, "CiphertextBlob")["CiphertextBlob"]
			require.Equal(t, "plaintext", string(s.Decrypt(t, other, after)))
			_, err := s.Client().Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: other, EncryptionContext: before})
			kmstest.RequireError(t, err, "InvalidCiphertextException", "")
		}
	})
}

// TestReEncryptContexts goes from every context to every other: the result opens under the destination's alone.
func TestReEncryptContexts(t *testing.T) {
	contexts := []map[string]string{nil, {"ab": "c"}, {"a": "bc"}, {"a": "1", "b": "2"}, {"ключ": "値 😀"}}
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, to := newReEncrypt(t, s)
		for i, before := range contexts {
			blob := s.Encrypt(t, q.keyID, []byte("plaintext"), before)
			for j, after := range contexts {
				moved, err := s.Client().ReEncrypt(t.Context(), &kms.ReEncryptInput{
					CiphertextBlob: blob, SourceEncryptionContext: before, DestinationKeyId: &to, DestinationEncryptionContext: after,
				})
				require.NoError(t, err)
				require.Equal(t, "plaintext", string(s.Decrypt(t, moved.CiphertextBlob, after)))
				if i != j {
					_, err = s.Client().Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: moved.CiphertextBlob, EncryptionContext: before})
					kmstest.RequireError(t, err, "InvalidCiphertextException", "")
					crossed := q.with("CiphertextBlob", blob).with("SourceEncryptionContext", after).with("DestinationEncryptionContext", before)
					crossed.requireRefusal(t, s, "InvalidCiphertextException", "")
				}
			}
		}
	})
}

// TestReEncryptSizes moves plaintexts of every kind, there and back again.
func TestReEncryptSizes(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		from, to := s.NewKey(t), newMultiRegionKey(t, s)
		for _, size := range []int{1, 15, 16, 17, 4095, 4096} {
			plaintext := bytes.Repeat([]byte{0, 0xFF, 'x'}, size)[:size]
			blob := s.Encrypt(t, from, plaintext, nil)
			for _, key := range []string{to, from, from, to} {
				out, err := s.Client().ReEncrypt(t.Context(), &kms.ReEncryptInput{CiphertextBlob: blob, DestinationKeyId: aws.String(key)})
				require.NoError(t, err)
				require.Len(t, out.CiphertextBlob, len(blob))
				blob = out.CiphertextBlob
				require.Equal(t, plaintext, s.Decrypt(t, blob, nil))
			}
		}
	})
}

// TestReEncryptDataKeys moves what GenerateDataKey and GenerateDataKeyWithoutPlaintext made.
func TestReEncryptDataKeys(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, to := newReEncrypt(t, s)
		for _, operation := range []string{"GenerateDataKey", blindDataKey} {
			made := request{operation, members{"KeyId": q.keyID, "NumberOfBytes": 1024}}.requireSuccess(t, s)["CiphertextBlob"]
			moved := q.with("CiphertextBlob", made).requireSuccess(t, s)["CiphertextBlob"]
			decrypt := request{"Decrypt", members{"CiphertextBlob": made}}
			want := decrypt.requireSuccess(t, s)["Plaintext"]
			got := decrypt.with("CiphertextBlob", moved).with("KeyId", to).requireSuccess(t, s)["Plaintext"]
			require.Equal(t, want, got)
		}
	})
}

func TestReEncryptForgeries(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, _ := newReEncrypt(t, s)
		testForgeries(t, s, q)
		testBlobSizes(t, s, q)
	})
}

func TestReEncryptSourceContext(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, _ := newReEncrypt(t, s)
		q = q.with("DestinationEncryptionContext", members{"stays": "the same"})
		testContexts(t, s, q)
		testSourceContextLimit(t, s, q)
	})
}

func TestReEncryptDestinationContext(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, to := newReEncrypt(t, s)
		q.with("DestinationEncryptionContext", nil).requireSuccess(t, s)
		testContextLimit(t, s, q.request, "DestinationEncryptionContext", func(t *testing.T, q request) {
			decrypt := request{"Decrypt", members{"CiphertextBlob": q.requireSuccess(t, s)["CiphertextBlob"], "KeyId": to}}
			decrypt.with("EncryptionContext", q.body["DestinationEncryptionContext"]).requireSuccess(t, s)
			decrypt.requireRefusal(t, s, "InvalidCiphertextException", "")
		})
	})
}

func TestReEncryptKeyNames(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, _ := newReEncrypt(t, s)
		testKeyNames(t, s, q.request, "SourceKeyId", "ReEncryptFrom")
		testKeyNames(t, s, q.request, "DestinationKeyId", "ReEncryptTo")
		testKeyNames(t, s, q.without("SourceKeyId"), "DestinationKeyId", "ReEncryptTo")
		q.with("SourceKeyId", nil).requireSuccess(t, s)
		for _, none := range []request{q.without("DestinationKeyId"), q.with("DestinationKeyId", nil).request} {
			none.requireRefusal(t, s, "ValidationException", invalid("Value at 'destinationKeyId'", "not be null"))
		}
	})
}

func TestReEncryptIncorrectKey(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, to := newReEncrypt(t, s)
		testIncorrectKey(t, s, q)
		testIncorrectKey(t, s, q.with("DestinationKeyId", newDisabledKey(t, s)))
		q.with("SourceKeyId", to).requireRefusal(t, s, "IncorrectKeyException", textIncorrectKey)
		q.with("SourceKeyId", to).with("DestinationKeyId", absentKey).requireRefusal(t, s, "IncorrectKeyException", textIncorrectKey)
		_, err := s.Client().ReEncrypt(t.Context(), &kms.ReEncryptInput{CiphertextBlob: q.blob(), SourceKeyId: &to, DestinationKeyId: &to})
		var incorrect *types.IncorrectKeyException
		require.ErrorAs(t, err, &incorrect)
	})
}

func TestReEncryptDisabledKeys(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, to := newReEncrypt(t, s)
		testDisabled(t, s, q.request, q.keyID)
		testDisabled(t, s, q.without("SourceKeyId"), q.keyID)
		testDisabled(t, s, q.request, to)
		setEnabled(t, s, to, false)
		setEnabled(t, s, q.keyID, false)
		q.requireRefusal(t, s, "DisabledException", kmstest.KeyARN(q.keyID)+" is disabled.")
	})
}

// TestReEncryptOrder pins which of two mistakes is reported: the source is judged before the destination.
func TestReEncryptOrder(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, _ := newReEncrypt(t, s)
		noDestination := "Key '" + kmstest.KeyARN(absentKey) + "' does not exist"
		const badAlgorithm = "Algorithm RSAES_OAEP_SHA_1 is incompatible with key spec SYMMETRIC_DEFAULT."
		lost := q.with("DestinationKeyId", absentKey)
		lost.requireRefusal(t, s, "NotFoundException", noDestination)
		lost.with("CiphertextBlob", []byte("rubbish")).requireRefusal(t, s, "InvalidCiphertextException", "")
		lost.with("CiphertextBlob", absentKeyBlob(t, absentKey)).without("SourceKeyId").requireRefusal(t, s, "AccessDeniedException", textUnreachable)
		lost.with("SourceEncryptionAlgorithm", "RSAES_OAEP_SHA_1").requireRefusal(t, s, "InvalidKeyUsageException", badAlgorithm)
		lost.with("SourceKeyId", "alias/missing").requireRefusal(t, s, "NotFoundException", "Alias "+kmstest.AliasARN("alias/missing")+" is not found.")
		// Whether the ciphertext opens is known last.
		shut := q.with("SourceEncryptionContext", members{"wrong": "context"})
		shut.requireRefusal(t, s, "InvalidCiphertextException", "")
		shut.with("DestinationKeyId", absentKey).requireRefusal(t, s, "NotFoundException", noDestination)
	})
}

func TestReEncryptDryRunModifiers(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, _ := newReEncrypt(t, s)
		testDryRunModifiers(t, s, q)
		testIdleModifiers(t, s, q)
		blind := q.with("DryRun", true).with("DryRunModifiers", []string{"IGNORE_CIPHERTEXT"}).without("CiphertextBlob")
		disabled := newDisabledKey(t, s)
		blind.with("DestinationKeyId", disabled).requireRefusal(t, s, "DisabledException", kmstest.KeyARN(disabled)+" is disabled.")
		blind.with("DestinationKeyId", absentKey).requireRefusal(t, s, "NotFoundException", "Key '"+kmstest.KeyARN(absentKey)+"' does not exist")
		blind.without("DestinationKeyId").requireRefusal(t, s, "ValidationException", invalid("Value at 'destinationKeyId'", "not be null"))
		for _, member := range []string{"SourceEncryptionAlgorithm", "DestinationEncryptionAlgorithm"} {
			blind.with(member, "RSAES_OAEP_SHA_1").requireRefusal(t, s, "InvalidKeyUsageException",
				"Algorithm RSAES_OAEP_SHA_1 is incompatible with key spec SYMMETRIC_DEFAULT.")
		}
	})
}

// TestReEncryptMembers tests what else a request may say.
func TestReEncryptMembers(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, _ := newReEncrypt(t, s)
		testAlgorithm(t, s, q.request, "SourceEncryptionAlgorithm")
		testAlgorithm(t, s, q.request, "DestinationEncryptionAlgorithm")
		testGrantTokens(t, s, q.request)
		testDryRun(t, s, q.request)
		testDryRun(t, s, q.without("SourceKeyId"))
	})
}
