package contract

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

func TestUpdateKeyDescription(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		created := createKey(t, s, `{"Description":"first"}`)
		id := created["KeyId"].(string)
		for _, description := range []string{"second", "second", "<é😀> \"\\\n\t\u0000", strings.Repeat("d", 8192), strings.Repeat("😀", 4096), "", "last"} {
			for _, name := range []string{id, kmstest.KeyARN(id)} {
				perform(t, s, "UpdateKeyDescription", object(t, "KeyId", name, "Description", description))
				require.Equal(t, members{"KeyMetadata": wantMetadata(created, members{"Description": description})},
					accept(t, s, "DescribeKey", object(t, "KeyId", id)))
			}
		}
	})
}

func TestUpdateKeyDescriptionSDK(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		_, err := s.Client().UpdateKeyDescription(t.Context(), &kms.UpdateKeyDescriptionInput{KeyId: &id, Description: aws.String("new")})
		require.NoError(t, err)
	})
}

func TestUpdateKeyDescriptionRefusals(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		requireKeyNames(t, s, "UpdateKeyDescription", "keyId", false, func(name string) string { return `{"Description":"x","KeyId":` + name + `}` })
		created := createKey(t, s, `{"Description":"kept"}`)
		id, long := created["KeyId"], strings.Repeat("d", 8193)
		const tooLong = "have length less than or equal to 8192"
		for _, test := range []struct{ body, code, message string }{
			{object(t, "KeyId", id, "Description", long), "ValidationException", violated(long, "description", tooLong)},
			{object(t, "KeyId", absentKey, "Description", long), "ValidationException", violated(long, "description", tooLong)},
			{object(t, "KeyId", id), "ValidationException", missing("description")},
			{object(t, "Description", "x"), "ValidationException", missing("keyId")},
			{"{}", "ValidationException", "2 validation errors detected: Value at 'keyId' failed to satisfy constraint: Member must not be null; " +
				"Value at 'description' failed to satisfy constraint: Member must not be null"},
			{object(t, "KeyId", id, "Description", 1), "SerializationException", "NUMBER_VALUE can not be converted to a String"},
		} {
			s.Post(t, "UpdateKeyDescription", test.body).RequireRefusal(t, test.code, test.message)
		}
		require.Equal(t, members{"KeyMetadata": created}, accept(t, s, "DescribeKey", object(t, "KeyId", id)))
	})
}
