package contract

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// TestCancelKeyDeletion saves a key, several times: it is Disabled then, whatever it was before, and works again once it
// is enabled, with all its aliases and for all its ciphertexts.
func TestCancelKeyDeletion(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		alias := newAlias(t, s, id)
		blob := s.Encrypt(t, id, []byte("hello"), nil)
		was := describe(t, s, id)
		for _, name := range []string{id, kmstest.KeyARN(id), id} {
			scheduleDeletion(t, s, id)
			require.Equal(t, members{"KeyId": kmstest.KeyARN(id)}, accept(t, s, "CancelKeyDeletion", object(t, "KeyId", name)))
			was["Enabled"], was["KeyState"] = false, "Disabled"
			require.Equal(t, was, describe(t, s, id), "the very next request, without DeletionDate")
			s.Post(t, "Decrypt", object(t, "CiphertextBlob", blob)).RequireRefusal(t, "DisabledException", kmstest.KeyARN(id)+" is disabled.")
			perform(t, s, "EnableKey", object(t, "KeyId", id))
			require.Equal(t, "hello", string(s.Decrypt(t, blob, nil)))
			require.Equal(t, kmstest.KeyARN(id), keyOf(t, s, alias))
			perform(t, s, "DisableKey", object(t, "KeyId", id)) // the next time it is disabled already
		}
	})
}

// TestCancelKeyDeletionOfExternalKey saves a key that waits for its material: it goes on waiting.
func TestCancelKeyDeletionOfExternalKey(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewExternalKey(t)
		scheduleDeletion(t, s, id)
		accept(t, s, "CancelKeyDeletion", object(t, "KeyId", id))
		require.Equal(t, "PendingImport", describe(t, s, id)["KeyState"])
	})
}

func TestCancelKeyDeletionSDK(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		scheduleDeletion(t, s, id)
		out, err := s.Client().CancelKeyDeletion(t.Context(), &kms.CancelKeyDeletionInput{KeyId: &id})
		require.NoError(t, err)
		require.Equal(t, kmstest.KeyARN(id), *out.KeyId)
		_, err = s.Client().CancelKeyDeletion(t.Context(), &kms.CancelKeyDeletionInput{KeyId: &id})
		kmstest.RequireError(t, err, "KMSInvalidStateException", kmstest.KeyARN(id)+" is not pending deletion.")
	})
}

func TestCancelKeyDeletionRefusals(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for _, id := range []string{s.NewKey(t), newDisabledKey(t, s), s.NewExternalKey(t)} {
			s.Post(t, "CancelKeyDeletion", object(t, "KeyId", id)).
				RequireRefusal(t, "KMSInvalidStateException", kmstest.KeyARN(id)+" is not pending deletion.")
		}
		s.Post(t, "CancelKeyDeletion", "{}").RequireRefusal(t, "ValidationException", missing("keyId"))
		requireKeyNames(t, s, "CancelKeyDeletion", "keyId", false, func(name string) string { return `{"KeyId":` + name + `}` })
	})
}
