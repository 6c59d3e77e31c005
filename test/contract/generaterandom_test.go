package contract

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

func TestGenerateRandom(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for _, size := range []int32{1, 16, 1023, 1024} {
			out, err := s.Client().GenerateRandom(t.Context(), &kms.GenerateRandomInput{NumberOfBytes: aws.Int32(size)})
			require.NoError(t, err)
			require.Len(t, out.Plaintext, int(size))
		}
		q := request{"GenerateRandom", members{"NumberOfBytes": 1024}}
		first := requireMembers(t, q.requireSuccess(t, s), members{}, "Plaintext")["Plaintext"]
		second := requireMembers(t, q.requireSuccess(t, s), members{}, "Plaintext")["Plaintext"]
		require.NotEqual(t, first, second)
		require.NotEqual(t, first[:512], first[512:])
	})
}

func TestGenerateRandomSizes(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q := request{"GenerateRandom", members{}}
		q.requireRefusal(t, s, "ValidationException", "NumberOfBytes is required.")
		q.with("NumberOfBytes", nil).requireRefusal(t, s, "ValidationException", "NumberOfBytes is required.")
		testNumberOfBytes(t, s, q)
	})
}

// TestGenerateRandomMembers tests what else a request may say.
func TestGenerateRandomMembers(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q := request{"GenerateRandom", members{"NumberOfBytes": 32}}
		testRecipient(t, s, q)
		q.with("CustomKeyStoreId", nil).requireSuccess(t, s)
		q.with("CustomKeyStoreId", "cks-1234567890abcdef0").requireRefusal(t, s, "CustomKeyStoreNotFoundException",
			"The custom key store cks-1234567890abcdef0 does not exist.")
		q.with("CustomKeyStoreId", "").requireRefusal(t, s, "ValidationException",
			invalid("Value '' at 'customKeyStoreId'", "have length greater than or equal to 1"))
		long := strings.Repeat("c", 65)
		q.with("CustomKeyStoreId", long).requireRefusal(t, s, "ValidationException",
			invalid("Value '"+long+"' at 'customKeyStoreId'", "have length less than or equal to 64"))
	})
}
