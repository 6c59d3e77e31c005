package contract

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// modelErrors gives the exceptions that the published model lists for an operation.
func modelErrors(t *testing.T, operation string) []string {
	t.Helper()
	text, err := os.ReadFile("../../api/model/kms-2014-11-01.json")
	require.NoError(t, err)
	var model struct {
		Operations map[string]struct {
			Errors []struct {
				Shape string `json:"shape"`
			} `json:"errors"`
		} `json:"operations"`
	}
	require.NoError(t, json.Unmarshal(text, &model))
	var names []string
	for _, e := range model.Operations[operation].Errors {
		names = append(names, e.Shape)
	}
	require.NotEmpty(t, names)
	return names
}

// elsewhere names the tests that reach the exceptions which no request to a sound server with an Enabled or Disabled key
// can.
var elsewhere = map[string]struct{ file, test string }{
	"KMSInvalidStateException":   {"../../kms/reencrypt_test.go", "TestReEncryptKeyStates"},
	"KeyUnavailableException":    {"../../kms/reencrypt_test.go", "TestReEncryptTokenFailures"},
	"DependencyTimeoutException": {"../../kms/reencrypt_test.go", "TestReEncryptTokenFailures"},
	"KMSInternalException":       {"../../kms/reencrypt_test.go", "TestReEncryptTokenFailures"},
}

// TestReEncryptExceptions reaches every exception that the model lists for ReEncrypt, or knows the test that does.
func TestReEncryptExceptions(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, to := newReEncrypt(t, s)
		requests := map[string]request{
			"NotFoundException":          q.with("DestinationKeyId", absentKey).request,
			"DisabledException":          q.with("DestinationKeyId", newDisabledKey(t, s)).request,
			"InvalidCiphertextException": q.with("SourceEncryptionContext", members{"wrong": "context"}).request,
			"IncorrectKeyException":      q.with("SourceKeyId", to).request,
			"InvalidKeyUsageException":   q.with("DestinationEncryptionAlgorithm", "RSAES_OAEP_SHA_256").request,
			"InvalidGrantTokenException": q.with("GrantTokens", []string{"token"}).request,
			"DryRunOperationException":   q.with("DryRun", true).request,
		}
		for name, q := range requests {
			require.Equal(t, name, q.send(t, s).JSON(t)["__type"])
		}
		reached := slices.Collect(maps.Keys(requests))
		require.ElementsMatch(t, modelErrors(t, "ReEncrypt"), slices.AppendSeq(reached, maps.Keys(elsewhere)))
	})
	for name, there := range elsewhere {
		require.Contains(t, testsIn(t, there.file), there.test, name)
	}
}

// testsIn gives the names of the functions of a file.
func testsIn(t *testing.T, path string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	var names []string
	for _, declaration := range file.Decls {
		if f, ok := declaration.(*ast.FuncDecl); ok {
			names = append(names, f.Name.Name)
		}
	}
	return names
}
