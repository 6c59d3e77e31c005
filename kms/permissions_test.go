package kms

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// permissionsFile is the table of what each operation needs, compiled from the published API reference.
const permissionsFile = "testdata/permissions.md"

// published is a row of the table.
type published struct {
	permissions []string
	keyPolicy   bool // a key policy decides, if it is not about the alias
	foreign     bool
}

func publishedPermissions(t *testing.T) map[string]published {
	t.Helper()
	text, err := os.ReadFile(permissionsFile)
	require.NoError(t, err)
	rows, name := map[string]published{}, regexp.MustCompile(`kms:(\w+)`)
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, " | ")
		if len(cells) != 5 || !strings.HasPrefix(line, "| ") || cells[0] == "| operation" {
			continue
		}
		row := published{keyPolicy: strings.Contains(cells[2], "key policy"), foreign: cells[3] == "yes"}
		for _, match := range name.FindAllStringSubmatch(cells[1], -1) {
			row.permissions = append(row.permissions, match[1])
		}
		rows[strings.TrimPrefix(cells[0], "| ")] = row
	}
	require.Len(t, rows, 54)
	return rows
}

// declaredActions reads the table of actions.go.
func declaredActions(t *testing.T) map[string]bool {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "actions.go", nil, 0)
	require.NoError(t, err)
	actions := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		literal, ok := n.(*ast.CompositeLit)
		if !ok {
			return true
		}
		permission, foreign := "", false
		for _, element := range literal.Elts {
			pair := element.(*ast.KeyValueExpr)
			switch pair.Key.(*ast.Ident).Name {
			case "permission":
				permission = strings.Trim(pair.Value.(*ast.BasicLit).Value, `"`)
			case "foreign":
				foreign = pair.Value.(*ast.Ident).Name == "true"
			}
		}
		actions[permission] = foreign
		return true
	})
	require.Greater(t, len(actions), 40)
	return actions
}

// TestActions holds the table of actions against the published one. That each operation asks for its action, and for nothing else,
// is tested in test/contract.
func TestActions(t *testing.T) {
	actions, unserved := declaredActions(t), regexp.MustCompile(`CustomKeyStore|ReplicateKey|UpdatePrimaryRegion`)
	known := map[string]bool{}
	for operation, row := range publishedPermissions(t) {
		for _, permission := range row.permissions {
			known[permission] = true
			foreign, declared := actions[permission]
			if unserved.MatchString(operation) {
				require.False(t, declared && permission == operation, operation)
				continue
			}
			if row.keyPolicy || permission == "RetireGrant" {
				require.True(t, declared, permission)
			}
			if declared && operation != "CreateKey" {
				require.Equal(t, row.foreign, foreign, permission)
			}
		}
	}
	for permission := range actions {
		require.True(t, known[permission], permission)
	}
}
