package contract

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

func TestDescribeKey(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		created := createKey(t, s, `{"Description":"to be described"}`)
		id := created["KeyId"].(string)
		alias := newAlias(t, s, id)
		want := members{"KeyMetadata": wantMetadata(created, members{"Description": "to be described"})}
		for _, name := range []string{id, kmstest.KeyARN(id), alias, kmstest.AliasARN(alias)} {
			require.Equal(t, want, accept(t, s, "DescribeKey", object(t, "KeyId", name)), name)
		}
		require.Equal(t, want, accept(t, s, "DescribeKey", object(t, "KeyId", id, "GrantTokens", []string{})))
	})
}

func TestDescribeKeySDK(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		out, err := s.Client().DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &id})
		require.NoError(t, err)
		require.Equal(t, kmstest.KeyARN(id), *out.KeyMetadata.Arn)
		require.Nil(t, out.KeyMetadata.DeletionDate)
	})
}

func TestDescribeKeyDisabled(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		created := createKey(t, s, "{}")
		body := object(t, "KeyId", created["KeyId"])
		perform(t, s, "DisableKey", body)
		disabled := wantMetadata(created, members{"Enabled": false, "KeyState": "Disabled"})
		require.Equal(t, members{"KeyMetadata": disabled}, accept(t, s, "DescribeKey", body))
		perform(t, s, "EnableKey", body)
		require.Equal(t, members{"KeyMetadata": created}, accept(t, s, "DescribeKey", body))
	})
}

func TestDescribeKeyRefusals(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		requireKeyNames(t, s, "DescribeKey", "keyId", true, func(name string) string { return `{"KeyId":` + name + `}` })
		id, long := s.NewKey(t), strings.Repeat("g", 8193)
		eleven := strings.Split(strings.Repeat("g", 11), "")
		const elements = "satisfy constraint: [Member must have length less than or equal to 8192, Member must have length greater than or equal to 1]"
		for _, test := range []struct{ body, code, message string }{
			{"{}", "ValidationException", missing("keyId")},
			{"", "ValidationException", missing("keyId")},
			{`{"KeyId":null}`, "ValidationException", missing("keyId")},
			{object(t, "KeyId", id, "GrantTokens", []string{"never-given"}), "InvalidGrantTokenException", "The specified grant token is not valid."},
			{object(t, "KeyId", id, "GrantTokens", eleven), "ValidationException", invalid("Value at 'grantTokens'", "have length less than or equal to 10")},
			{object(t, "KeyId", id, "GrantTokens", []string{"g", ""}), "ValidationException", invalid("Value at 'grantTokens'", elements)},
			{object(t, "KeyId", id, "GrantTokens", []string{long}), "ValidationException", invalid("Value at 'grantTokens'", elements)},
			{object(t, "KeyId", id, "GrantTokens", "g"), "SerializationException", "Unexpected field type"},
		} {
			s.Post(t, "DescribeKey", test.body).RequireRefusal(t, test.code, test.message)
		}
	})
}
