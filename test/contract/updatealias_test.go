package contract

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// TestUpdateAlias moves an alias to and fro: the very next request sees it, and the lists of both keys follow.
func TestUpdateAlias(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		first, second := s.NewKey(t), s.NewKey(t)
		name := newAlias(t, s, first)
		kept := newAlias(t, s, first)
		require.Equal(t, kmstest.KeyARN(first), keyOf(t, s, name))
		blob := s.Encrypt(t, name, []byte("old"), nil)
		for range 3 {
			perform(t, s, "UpdateAlias", object(t, "AliasName", name, "TargetKeyId", second))
			require.Equal(t, kmstest.KeyARN(second), keyOf(t, s, name))
			require.Equal(t, []string{kept}, aliasesOf(t, s, first))
			require.Equal(t, []string{name}, aliasesOf(t, s, second))
			require.Equal(t, "old", string(s.Decrypt(t, blob, nil)), "a ciphertext names its key, not the alias")
			s.Post(t, "Decrypt", object(t, "KeyId", name, "CiphertextBlob", blob)).RequireRefusal(t, "IncorrectKeyException",
				"The key ID in the request does not identify a CMK that can perform this operation.")

			perform(t, s, "UpdateAlias", object(t, "AliasName", name, "TargetKeyId", kmstest.KeyARN(first)))
			require.Equal(t, kmstest.KeyARN(first), keyOf(t, s, kmstest.AliasARN(name)))
			require.ElementsMatch(t, []string{name, kept}, aliasesOf(t, s, first))
			require.Empty(t, aliasesOf(t, s, second))
		}
	})
}

// TestUpdateAliasDates checks that an alias keeps its creation date.
func TestUpdateAliasDates(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		name := newAlias(t, s, id)
		before := list(t, accept(t, s, "ListAliases", object(t, "KeyId", id)), "Aliases")[0]
		created, updated := before["CreationDate"], before["LastUpdatedDate"].(float64)
		for updated == created { // the server's clock moves on by a millisecond within a few requests
			perform(t, s, "UpdateAlias", object(t, "AliasName", name, "TargetKeyId", id))
			after := list(t, accept(t, s, "ListAliases", object(t, "KeyId", id)), "Aliases")[0]
			updated = after["LastUpdatedDate"].(float64)
			before["LastUpdatedDate"] = updated
			require.Equal(t, before, after)
		}
		require.Greater(t, updated, created)
	})
}

func TestUpdateAliasSDK(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id, name := s.NewKey(t), freeAlias()
		_, err := s.Client().UpdateAlias(t.Context(), &kms.UpdateAliasInput{AliasName: &name, TargetKeyId: &id})
		kmstest.RequireError(t, err, "NotFoundException", "Alias "+kmstest.AliasARN(name)+" is not found.")
		name = newAlias(t, s, s.NewKey(t))
		_, err = s.Client().UpdateAlias(t.Context(), &kms.UpdateAliasInput{AliasName: &name, TargetKeyId: &id})
		require.NoError(t, err)
	})
}

func TestUpdateAliasRefusals(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		name := newAlias(t, s, id)
		requireAliasNameChecks(t, s, "UpdateAlias", "TargetKeyId", id)
		requireKeyNames(t, s, "UpdateAlias", "targetKeyId", false, func(key string) string { return `{"AliasName":"` + name + `","TargetKeyId":` + key + `}` })
		s.Post(t, "UpdateAlias", object(t, "AliasName", name)).RequireRefusal(t, "ValidationException", missing("targetKeyId"))
		s.Post(t, "UpdateAlias", "{}").RequireRefusal(t, "ValidationException",
			"2 validation errors detected: Value at 'aliasName' failed to satisfy constraint: Member must not be null; "+
				"Value at 'targetKeyId' failed to satisfy constraint: Member must not be null")
		absent := freeAlias()
		s.Post(t, "UpdateAlias", object(t, "AliasName", absent, "TargetKeyId", id)).
			RequireRefusal(t, "NotFoundException", "Alias "+kmstest.AliasARN(absent)+" is not found.")
		require.Equal(t, []string{name}, aliasesOf(t, s, id))
	})
}

// TestUpdateAliasOtherKeys moves an alias to keys of another type or usage, which would break the code that uses it, and to one
// of another spec of the same type.
func TestUpdateAliasOtherKeys(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		name := newAlias(t, s, s.NewKey(t))
		for _, other := range []keySpec{{spec: "RSA_2048", usage: "ENCRYPT_DECRYPT"}, {spec: "HMAC_256", usage: "GENERATE_VERIFY_MAC"}, {spec: "ECC_NIST_P256", usage: "SIGN_VERIFY"}} {
			s.Post(t, "UpdateAlias", object(t, "AliasName", name, "TargetKeyId", sharedKey(t, s, other.spec, other.usage))).
				RequireRefusal(t, "ValidationException", "Alias "+name+" cannot be updated from a key with KeySpec SYMMETRIC_DEFAULT and KeyUsage ENCRYPT_DECRYPT"+
					" to a key with KeySpec "+other.spec+" and KeyUsage "+other.usage+".")
		}
		signs := newAlias(t, s, sharedKey(t, s, "ECC_NIST_P256", "SIGN_VERIFY"))
		perform(t, s, "UpdateAlias", object(t, "AliasName", signs, "TargetKeyId", sharedKey(t, s, "RSA_2048", "SIGN_VERIFY")))
		s.Post(t, "UpdateAlias", object(t, "AliasName", signs, "TargetKeyId", sharedKey(t, s, "ECC_NIST_P256", "KEY_AGREEMENT"))).
			RequireRefusal(t, "ValidationException", "Alias "+signs+" cannot be updated from a key with KeySpec RSA_2048 and KeyUsage SIGN_VERIFY"+
				" to a key with KeySpec ECC_NIST_P256 and KeyUsage KEY_AGREEMENT.")
	})
}
