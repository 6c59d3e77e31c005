package test

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	kmstest.Cleanup()
	os.Exit(code)
}

// operationRow is a row of the table in docs/api.md.
var operationRow = regexp.MustCompile(`(?m)^\| (\w+) \| (complete|not yet) \|`)

// tableLine is a line of any table: none of them may escape operationRow.
var tableLine = regexp.MustCompile(`(?m)^\s*\|`)

// apiPage gives the parts of docs/api.md, each of which has one table: the operations of KMS, its key specs, and the operations
// of IAM and STS.
func apiPage(t *testing.T) (operations, specs, identities []byte) {
	t.Helper()
	page, err := os.ReadFile("../docs/api.md")
	require.NoError(t, err)
	operations, specs, found := bytes.Cut(page, []byte("\n## Key specs\n"))
	require.True(t, found)
	specs, identities, found = bytes.Cut(specs, []byte("\n## IAM and STS\n"))
	require.True(t, found)
	return operations, specs, identities
}

// identityRow is a row of the table of IAM and STS.
var identityRow = regexp.MustCompile(`(?m)^\| (iam|sts):(\w+) \| complete \|`)

// TestDocumentedIdentityOperations holds the table of IAM and STS to the models that are served and to a running server, which
// does not answer these operations as it answers others.
func TestDocumentedIdentityOperations(t *testing.T) {
	_, _, page := apiPage(t)
	rows := identityRow.FindAllSubmatch(page, -1)
	require.Len(t, tableLine.FindAll(page, -1), len(rows)+2, "rows, head and rule")
	s := kmstest.Start(t, kmstest.Options{})
	versions := map[string]string{"iam": "2010-05-08", "sts": "2011-06-15"}
	var listed []string
	for _, row := range rows {
		service, operation := string(row[1]), string(row[2])
		listed = append(listed, service+":"+operation)
		answer := s.PostForm(t, s.Credentials(), service, "Action", operation, "Version", versions[service])
		require.NotContains(t, answer.Body, "InvalidAction", operation)
	}
	var served []string
	for _, service := range []string{"iam", "sts"} {
		text, err := os.ReadFile("../api/model/" + service + "-" + versions[service] + ".json")
		require.NoError(t, err)
		var model struct{ Operations map[string]json.RawMessage }
		require.NoError(t, json.Unmarshal(text, &model))
		for _, operation := range slices.Sorted(maps.Keys(model.Operations)) {
			served = append(served, service+":"+operation)
		}
	}
	require.Equal(t, served, listed)
	require.Contains(t, s.PostForm(t, s.Credentials(), "iam", "Action", "CreateGroup", "Version", versions["iam"]).Body, "InvalidAction")
}

// TestDocumentedOperations holds docs/api.md to what a running server does with each operation of the published model.
func TestDocumentedOperations(t *testing.T) {
	page, _, _ := apiPage(t)
	rows := operationRow.FindAllSubmatch(page, -1)
	require.Len(t, tableLine.FindAll(page, -1), len(rows)+2, "rows, head and rule")

	var listed []string
	s := kmstest.Start(t, kmstest.Options{})
	for _, row := range rows {
		operation, status := string(row[1]), string(row[2])
		listed = append(listed, operation)
		require.Equal(t, status, statusOf(t, s, operation), operation)
	}
	text, err := os.ReadFile("../api/model/kms-2014-11-01.json")
	require.NoError(t, err)
	var model struct{ Operations map[string]json.RawMessage }
	require.NoError(t, json.Unmarshal(text, &model))
	require.Len(t, model.Operations, 54)
	require.Equal(t, slices.Sorted(maps.Keys(model.Operations)), listed)
}

// statusOf asks the server. A request that is an array is refused by each operation that reads its request, and by one
// that does not exist in another way.
func statusOf(t *testing.T, s *kmstest.Server, operation string) string {
	t.Helper()
	answer := s.Post(t, operation, "[]")
	require.Equal(t, http.StatusBadRequest, answer.Status)
	switch answer.JSON(t)["__type"] {
	case "SerializationException":
		return "complete"
	case "UnsupportedOperationException":
		return "not yet"
	}
	return answer.Body
}
