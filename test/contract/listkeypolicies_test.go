package contract

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// onePolicy is every answer of ListKeyPolicies.
var onePolicy = members{"PolicyNames": []any{"default"}, "Truncated": false}

func TestListKeyPolicies(t *testing.T) {
	s := anyHome()
	id := s.NewKey(t)
	for _, body := range []string{
		object(t, "KeyId", id), object(t, "KeyId", kmstest.KeyARN(id)), object(t, "KeyId", id, "Limit", 1), object(t, "KeyId", id, "Limit", 1000),
		object(t, "KeyId", id, "Limit", nil, "Marker", nil),
	} {
		require.Equal(t, onePolicy, accept(t, s, "ListKeyPolicies", body))
	}
	pages := kms.NewListKeyPoliciesPaginator(s.Client(), &kms.ListKeyPoliciesInput{KeyId: &id, Limit: aws.Int32(1)})
	out, err := pages.NextPage(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"default"}, out.PolicyNames)
	require.False(t, pages.HasMorePages())
}

func TestListKeyPoliciesStates(t *testing.T) {
	s := anyHome()
	inEveryState(t, s, func(t *testing.T, id, _ string) {
		require.Equal(t, onePolicy, accept(t, s, "ListKeyPolicies", object(t, "KeyId", id)))
	})
}

func TestListKeyPoliciesRefusals(t *testing.T) {
	s := anyHome()
	requireKeyNames(t, s, "ListKeyPolicies", "keyId", false, func(name string) string { return `{"KeyId":` + name + `}` })
	s.Post(t, "ListKeyPolicies", "{}").RequireRefusal(t, "ValidationException", missing("keyId"))
	id := s.NewKey(t)
	newAlias(t, s, id)
	newAlias(t, s, id)
	ofAliases := accept(t, s, "ListAliases", object(t, "KeyId", id, "Limit", 1))["NextMarker"].(string)
	for _, marker := range []string{"x", "default", ofAliases, strings.Repeat("m", 1024)} {
		s.Post(t, "ListKeyPolicies", object(t, "KeyId", id, "Marker", marker)).RequireRefusal(t, "InvalidMarkerException", "The marker is not valid.")
	}
	long := strings.Repeat("m", 1025)
	for _, test := range []struct {
		member        string
		value         any
		code, message string
	}{
		{"Limit", 0, "ValidationException", violated("0", "limit", "have value greater than or equal to 1")},
		{"Limit", 1001, "ValidationException", violated("1001", "limit", "have value less than or equal to 1000")},
		{"Limit", "1", "SerializationException", "STRING_VALUE can not be converted to an Integer"},
		{"Marker", "", "ValidationException", violated("", "marker", "have length greater than or equal to 1")},
		{"Marker", long, "ValidationException", violated(long, "marker", "have length less than or equal to 1024")},
		{"Marker", 1, "SerializationException", "NUMBER_VALUE can not be converted to a String"},
	} {
		s.Post(t, "ListKeyPolicies", object(t, "KeyId", id, test.member, test.value)).RequireRefusal(t, test.code, test.message)
	}
}
