package contract

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// isTested tells whether an operation has its file in this folder.
func isTested(t testing.TB, operation string) bool {
	t.Helper()
	_, err := os.Stat(strings.ToLower(operation) + "_test.go")
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	require.NoError(t, err)
	return true
}

// TestUnsupportedOperations asks for every operation of the model. One that has a file of tests here is served; every
// other one says so, naming itself, whatever the request. So neither an operation without tests nor tests of an operation
// that is not served can be added.
func TestUnsupportedOperations(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		tested := 0
		for operation := range model(t).Operations {
			refusal := "The operation " + operation + " is not supported."
			if isTested(t, operation) {
				tested++
				require.NotContains(t, s.Post(t, operation, "[]").Body, "UnsupportedOperationException", operation)
				require.NotContains(t, s.Post(t, operation, "{}").Body, refusal, operation)
				continue
			}
			for _, body := range []string{"", "{}", `{"KeyId":"` + absentKey + `"}`, "[]", "{", "\xff"} {
				s.Post(t, operation, body).RequireRefusal(t, "UnsupportedOperationException", refusal)
			}
		}
		require.GreaterOrEqual(t, tested, 16)
	})
}
