// Package test holds the tests of the whole: the layering of the rooms here, and the contract with AWS clients,
// failures and benchmarks in the folders beside it.
package test

import (
	"go/build"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "hsmkms"

// mayImport says which rooms each room may import. A room that is not here may not exist; cmd and test may import
// anything.
var mayImport = map[string][]string{
	"policy":          {},
	"publickey":       {},
	"audit":           {},
	"hsm":             {},
	"store":           {},
	"kms/ciphertext":  {},
	"auth":            {"policy"},
	"iam":             {"policy", "store"},
	"hsm/pkcs11":      {"hsm", "publickey"},
	"store/bolt":      {"store"},
	"kms":             {"audit", "policy", "publickey", "hsm", "store", "kms/ciphertext"},
	"api":             {"audit", "kms", "auth", "iam", "hsm", "policy"},
	"hsm/hsmtest":     {"hsm", "publickey"},
	"store/storetest": {"store"},
}

// onlyIn says which rooms alone may import a library.
var onlyIn = map[string][]string{
	"github.com/miekg/pkcs11":             {"hsm/pkcs11"},
	"github.com/decred/dcrd":              {"publickey"},
	"github.com/c2sp/wycheproof":          {}, // tests only
	"github.com/ThalesGroup/crypto11":     {"hsm/pkcs11"},
	"go.etcd.io/bbolt":                    {"store/bolt"},
	"github.com/gorilla/mux":              {"api"},
	"github.com/prometheus/client_golang": {"api"},
	"github.com/spf13/cobra":              {"cmd/hsmkms"},
	"go.yaml.in/yaml/v3":                  {"cmd/hsmkms"},
	"net/http":                            {"api", "auth", "cmd/hsmkms"},
	"C":                                   {"hsm/pkcs11"},
	"github.com/stretchr/testify":         {"hsm/hsmtest", "store/storetest"},
}

// packages gives the imports of every package of the module, tests left out, by its folder.
func packages(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	require.NoError(t, filepath.WalkDir("..", func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		if name := entry.Name(); path != ".." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin") {
			return filepath.SkipDir
		}
		p, err := build.ImportDir(path, 0)
		if err == nil {
			room, err := filepath.Rel("..", path)
			require.NoError(t, err)
			found[filepath.ToSlash(room)] = p.Imports
		}
		return nil
	}))
	require.Greater(t, len(found), 10)
	return found
}

func TestImportsRunDownward(t *testing.T) {
	for room, imports := range packages(t) {
		free := strings.HasPrefix(room, "cmd/") || strings.HasPrefix(room, "test")
		allowed, known := mayImport[room]
		require.True(t, known || free, "room %s is not in the table of rooms", room)
		for _, path := range imports {
			if other, ours := strings.CutPrefix(path, module+"/"); ours && !free {
				require.Contains(t, allowed, other, "%s imports %s", room, other)
			}
		}
	}
}

func TestLibrariesStayInTheirRooms(t *testing.T) {
	for room, imports := range packages(t) {
		if strings.HasPrefix(room, "test") {
			continue
		}
		for library, rooms := range onlyIn {
			uses := slices.ContainsFunc(imports, func(path string) bool { return path == library || strings.HasPrefix(path, library+"/") })
			require.False(t, uses && !slices.Contains(rooms, room), "%s imports %s", room, library)
		}
	}
}
