package contract

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// TestDisableKey checks that every cryptographic operation refuses the key from the very next request on, under all its
// names, and that other keys go on.
func TestDisableKey(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id, other := s.NewKey(t), s.NewKey(t)
		alias := newAlias(t, s, id)
		blob, otherBlob := s.Encrypt(t, id, []byte("hello"), nil), s.Encrypt(t, other, []byte("other"), nil)
		for range 2 { // the second time it is disabled already
			perform(t, s, "DisableKey", object(t, "KeyId", id))
			for _, name := range []string{id, kmstest.KeyARN(id), alias, kmstest.AliasARN(alias)} {
				for operation, body := range map[string]string{
					"Encrypt":                         object(t, "KeyId", name, "Plaintext", []byte("x")),
					"Decrypt":                         object(t, "KeyId", name, "CiphertextBlob", blob),
					"ReEncrypt":                       object(t, "DestinationKeyId", name, "CiphertextBlob", otherBlob),
					"GenerateDataKey":                 object(t, "KeyId", name, "KeySpec", "AES_256"),
					"GenerateDataKeyWithoutPlaintext": object(t, "KeyId", name, "KeySpec", "AES_256"),
				} {
					s.Post(t, operation, body).RequireRefusal(t, "DisabledException", kmstest.KeyARN(id)+" is disabled.")
				}
			}
			s.Post(t, "Decrypt", object(t, "CiphertextBlob", blob)).RequireRefusal(t, "DisabledException", kmstest.KeyARN(id)+" is disabled.")
			s.Post(t, "ReEncrypt", object(t, "CiphertextBlob", blob, "DestinationKeyId", other)).
				RequireRefusal(t, "DisabledException", kmstest.KeyARN(id)+" is disabled.")
			enabled, state := keyState(t, s, id)
			require.False(t, enabled)
			require.Equal(t, "Disabled", state)
			require.Equal(t, "other", string(s.Decrypt(t, otherBlob, nil)))
		}
	})
}

// TestDisabledKeyIsManaged checks that a disabled key takes every change that AWS allows.
func TestDisabledKeyIsManaged(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		perform(t, s, "DisableKey", object(t, "KeyId", kmstest.KeyARN(id)))
		alias := newAlias(t, s, id)
		perform(t, s, "UpdateKeyDescription", object(t, "KeyId", id, "Description", "asleep"))
		perform(t, s, "UpdateAlias", object(t, "AliasName", alias, "TargetKeyId", id))
		require.Equal(t, []string{alias}, column(list(t, accept(t, s, "ListAliases", object(t, "KeyId", id)), "Aliases"), "AliasName"))
		perform(t, s, "DeleteAlias", object(t, "AliasName", alias))
		metadata := accept(t, s, "DescribeKey", object(t, "KeyId", id))["KeyMetadata"].(members)
		require.Equal(t, wantMetadata(metadata, members{"Description": "asleep", "Enabled": false, "KeyState": "Disabled"}), metadata)
	})
}

func TestDisableKeySDK(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		_, err := s.Client().DisableKey(t.Context(), &kms.DisableKeyInput{KeyId: &id})
		require.NoError(t, err)
		_, err = s.Client().Encrypt(t.Context(), &kms.EncryptInput{KeyId: &id, Plaintext: []byte("x")})
		kmstest.RequireError(t, err, "DisabledException", kmstest.KeyARN(id)+" is disabled.")
	})
}

func TestDisableKeyRefusals(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		s.Post(t, "DisableKey", "{}").RequireRefusal(t, "ValidationException", missing("keyId"))
		requireKeyNames(t, s, "DisableKey", "keyId", false, func(name string) string { return `{"KeyId":` + name + `}` })
	})
}
