package contract

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

func TestDeleteAlias(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		name, kept := newAlias(t, s, id), newAlias(t, s, id)
		require.Equal(t, kmstest.KeyARN(id), keyOf(t, s, name))
		perform(t, s, "DeleteAlias", object(t, "AliasName", name))
		gone := "Alias " + kmstest.AliasARN(name) + " is not found."
		for _, alias := range []string{name, kmstest.AliasARN(name)} { // the very next request
			s.Post(t, "Encrypt", object(t, "KeyId", alias, "Plaintext", []byte("x"))).RequireRefusal(t, "NotFoundException", gone)
		}
		s.Post(t, "DeleteAlias", object(t, "AliasName", name)).RequireRefusal(t, "NotFoundException", gone)
		require.Equal(t, []string{kept}, aliasesOf(t, s, id))
		require.Equal(t, kmstest.KeyARN(id), keyOf(t, s, id), "the key is not touched")
		require.Equal(t, kmstest.KeyARN(id), keyOf(t, s, kept))
	})
}

// TestDeleteAliasForgetsTheKey checks that a new alias of the same name has nothing of the old one.
func TestDeleteAliasForgetsTheKey(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		first, second := s.NewKey(t), s.NewKey(t)
		name := newAlias(t, s, first)
		for range 3 {
			perform(t, s, "DeleteAlias", object(t, "AliasName", name))
			perform(t, s, "CreateAlias", object(t, "AliasName", name, "TargetKeyId", second))
			require.Equal(t, kmstest.KeyARN(second), keyOf(t, s, name))
			require.Empty(t, aliasesOf(t, s, first))
			require.Equal(t, []string{name}, aliasesOf(t, s, second))
			first, second = second, first
		}
	})
}

func TestDeleteAliasSDK(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		name := newAlias(t, s, s.NewKey(t))
		_, err := s.Client().DeleteAlias(t.Context(), &kms.DeleteAliasInput{AliasName: &name})
		require.NoError(t, err)
		_, err = s.Client().DeleteAlias(t.Context(), &kms.DeleteAliasInput{AliasName: &name})
		kmstest.RequireError(t, err, "NotFoundException", "Alias "+kmstest.AliasARN(name)+" is not found.")
	})
}

func TestDeleteAliasRefusals(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) { requireAliasNameChecks(t, s, "DeleteAlias") })
}
