package api

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/kms"
)

// loadedModel parses the embedded model once for all tests.
var loadedModel = sync.OnceValues(func() (*model, error) { return parseModel(kmsModel) })

// published gives the embedded model, which tests must not change.
func published(t testing.TB) *model {
	m, err := loadedModel()
	require.NoError(t, err)
	return m
}

func TestModelListsOperations(t *testing.T) {
	names := published(t).operationNames()
	require.Len(t, names, 54)
	require.IsIncreasing(t, names)
	require.Equal(t, "CancelKeyDeletion", names[0])
	require.Contains(t, names, "ReEncrypt")
}

func TestModelReferencesResolve(t *testing.T) {
	m := published(t)
	for name, s := range m.Shapes {
		references := []reference{}
		for _, r := range s.Members {
			references = append(references, r)
		}
		for _, r := range []*reference{s.Member, s.Key, s.Value} {
			if r != nil {
				references = append(references, *r)
			}
		}
		for _, r := range references {
			require.Contains(t, m.Shapes, r.Shape, name)
		}
		for _, member := range s.Required {
			require.Contains(t, s.Members, member, name)
		}
	}
	for name, op := range m.Operations {
		require.Equal(t, name, op.Name)
		require.Contains(t, m.Shapes, op.Input.Shape)
		for _, e := range op.Errors {
			require.True(t, m.Shapes[e.Shape].Exception, e.Shape)
		}
	}
}

func TestModelFaults(t *testing.T) {
	m := published(t)
	for _, e := range []kms.ErrorType{kms.InternalError, kms.DependencyTimeout, kms.KeyUnavailable} {
		require.True(t, m.isFault(e), e)
	}
	for _, e := range []kms.ErrorType{kms.NotFound, kms.InvalidState, kms.Validation, "", "KeyIdType"} {
		require.False(t, m.isFault(e), e)
	}
}

func TestModelMemberOrder(t *testing.T) {
	m := published(t)
	require.Equal(t, []string{"Message", "KeyId", "MacAlgorithm", "DryRun", "GrantTokens"}, m.Shapes["GenerateMacRequest"].memberOrder())
	require.Equal(t, []string{"Limit", "Marker"}, m.Shapes["ListKeysRequest"].memberOrder())
	require.Empty(t, (&shape{}).memberOrder())
}

func TestParseModelRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"text that is not JSON":           `{`,
		"a constraint it does not know":   `{"shapes": {"A": {"type": "list", "uniqueItems": true}}}`,
		"a pattern that does not compile": `{"shapes": {"A": {"type": "string", "pattern": "["}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseModel(text)
			require.Error(t, err)
		})
	}
}

// TestPatterns holds the translation from Java's syntax against values that the two syntaxes, or a match of a part
// instead of the whole, would judge differently.
func TestPatterns(t *testing.T) {
	for _, test := range []struct {
		shape   string
		value   string
		matches bool
	}{
		{"AccountIdType", "111122223333", true},
		{"AccountIdType", "1111222233334", false},
		{"AccountIdType", "x111122223333", false},
		{"AliasNameType", "alias/a_b-c:1", true},
		{"AliasNameType", "alias/a\n", false},
		{"AliasNameType", "alias/é", false},
		{"BackingKeyIdType", "0123456789abcdef", true},
		{"BackingKeyIdType", "ABC", false},
		{"CloudHsmClusterIdType", "cluster-1a23b4cdefg", false},
		{"CloudHsmClusterIdType", "cluster-2a23b4cdefg", true},
		{"KeyMaterialDescriptionType", "a b\tc\vd\n", true},
		{"KeyMaterialDescriptionType", "a\u00A0b", false},
		{"KeyMaterialDescriptionType", "", false},
		{"MarkerType", "", true},
		{"MarkerType", " ÿ~", true},
		{"MarkerType", "\u0100", false},
		{"MarkerType", "a\tb", false},
		{"PolicyNameType", "default", true},
		{"PolicyNameType", "de-fault", false},
		{"PolicyType", "{\r\n\t\"Id\": \"é\"}", true},
		{"PolicyType", "a\x00", false},
		{"PolicyType", "€", false},
		{"PrincipalIdType", "arn:aws:iam::111122223333:role/a+b=c,d.e@f-g", true},
		{"PrincipalIdType", "*", false},
		{"RegionType", "us-gov-west-1", true},
		{"RegionType", "us1", false},
		{"XksKeyIdType", "a-_.9", true},
		{"XksKeyIdType", "a/b", false},
		{"XksProxyAuthenticationRawSecretAccessKeyType", "a/b+c=", true},
		{"XksProxyUriPathType", "/a/kms/xks/v1", true},
		{"XksProxyUriPathType", "/kms/xks/v12", true},
		{"XksProxyUriPathType", "/kms/xks/v123", false},
		{"XksProxyUriPathType", "x/kms/xks/v1", false},
		{"XksProxyVpcEndpointServiceNameType", "com.amazonaws.vpce.us-east-1.vpce-svc-0a", true},
		{"XksProxyVpcEndpointServiceNameType", "comXamazonaws.vpce.us-east-1.vpce-svc-0a", false},
	} {
		got := published(t).Shapes[test.shape].pattern.MatchString(test.value)
		require.Equal(t, test.matches, got, "%s %q", test.shape, test.value)
	}
}
