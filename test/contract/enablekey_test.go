package contract

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// keyState gives Enabled and KeyState of a key as DescribeKey shows them.
func keyState(t testing.TB, s *kmstest.Server, id string) (enabled bool, state string) {
	t.Helper()
	out, err := s.Client().DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &id})
	require.NoError(t, err)
	return out.KeyMetadata.Enabled, string(out.KeyMetadata.KeyState)
}

func TestEnableKey(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		blob := s.Encrypt(t, id, []byte("hello"), nil)
		for _, name := range []string{id, kmstest.KeyARN(id)} {
			perform(t, s, "EnableKey", object(t, "KeyId", name)) // it is enabled already
			perform(t, s, "DisableKey", object(t, "KeyId", id))
			perform(t, s, "EnableKey", object(t, "KeyId", name))
			require.Equal(t, "hello", string(s.Decrypt(t, blob, nil)), "the very next request")
			enabled, state := keyState(t, s, id)
			require.True(t, enabled)
			require.Equal(t, "Enabled", state)
		}
	})
}

func TestEnableKeySDK(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		_, err := s.Client().EnableKey(t.Context(), &kms.EnableKeyInput{KeyId: &id})
		require.NoError(t, err)
	})
}

func TestEnableKeyRefusals(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		s.Post(t, "EnableKey", "{}").RequireRefusal(t, "ValidationException", missing("keyId"))
		requireKeyNames(t, s, "EnableKey", "keyId", false, func(name string) string { return `{"KeyId":` + name + `}` })
	})
}
