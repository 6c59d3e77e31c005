package fault

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// TestOrphan kills the server when the token has a key of which the store does not know yet. It is reported at every
// start, and stays.
func TestOrphan(t *testing.T) {
	r := newRig(t, kmstest.Options{})
	x := newSecret(t, r.Server, "kept")
	r.fault.Set("C_GenerateKey kill=1 when=after")
	_, err := r.Client().CreateKey(t.Context(), &kms.CreateKeyInput{})
	require.Error(t, err)
	require.ErrorContains(t, r.Wait(), "signal: killed")
	r.fault.Clear()
	for range 2 {
		require.NoError(t, r.Run())
		require.Equal(t, 1, requireStockTaken(t, r.Server))
		r.requireLogged(t, `"msg":"object on the token without a key`, 1)
		r.requireLogged(t, `"label":"kms/`, 1)
		x.requireOpens(t, r.Server)
		keys, err := r.Client().ListKeys(t.Context(), &kms.ListKeysInput{})
		require.NoError(t, err)
		require.Equal(t, []types.KeyListEntry{{KeyArn: aws.String(kmstest.KeyARN(x.key)), KeyId: &x.key}}, keys.Keys)
		require.NoError(t, r.Stop())
	}
}

// TestInitKilledAfterKey kills init after each of the keys that it makes, its throw-away keys included. The next init
// completes the work.
func TestInitKilledAfterKey(t *testing.T) {
	eachHome(t, func(t *testing.T, home string) {
		r := newRig(t, kmstest.Options{Home: home})
		require.NoError(t, r.Stop())
		before := r.fault.Calls("C_GenerateKey")
		out, err := r.initAnew(t)
		require.NoError(t, err, "%s", out)
		keys := r.fault.Calls("C_GenerateKey") - before
		require.Positive(t, keys)
		for i := range keys {
			r.fault.Set(fmt.Sprintf("C_GenerateKey kill=1 when=after skip=%d", i))
			_, err = r.initAnew(t)
			require.ErrorContains(t, err, "signal: killed")
			r.fault.Clear()
			out, err = initCommand(t, r.Server).CombinedOutput()
			require.NoError(t, err, "%s", out)
			require.NoError(t, r.Run())
			requireStockTaken(t, r.Server)
			newSecret(t, r.Server, "text").requireOpens(t, r.Server)
			require.NoError(t, r.Kill())
		}
	})
}

// initAnew runs init on an empty store.
func (r *rig) initAnew(t *testing.T) ([]byte, error) {
	t.Helper()
	for _, name := range []string{"hsmkms.db", "credentials"} {
		require.NoError(t, os.RemoveAll(filepath.Join(r.Dir, name)))
	}
	return initCommand(t, r.Server).CombinedOutput()
}
