package fault

import (
	"net/http"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"hsmkms/test/kmstest"
)

// limitFiles has all writes of a process fail that go beyond so many bytes of a file, as they do on a full disk: the
// system lets them fail with EFBIG.
func limitFiles(t *testing.T, s *kmstest.Server, size uint64) {
	t.Helper()
	require.NoError(t, unix.Prlimit(s.PID(), unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: size, Max: unix.RLIM_INFINITY}, nil))
}

// TestDiskFull fills the disk for the store alone, whose first two pages can still be written, and for the token too.
// What needs no write goes on, and of what was refused nothing is left.
func TestDiskFull(t *testing.T) {
	for name, size := range map[string]uint64{"store": 8 << 10, "store and token": 0} {
		t.Run(name, func(t *testing.T) {
			eachHome(t, func(t *testing.T, home string) { fillDisk(t, home, size) })
		})
	}
}

func fillDisk(t *testing.T, home string, size uint64) {
	r := &rig{Server: kmstest.Start(t, kmstest.Options{Home: home, NoAudit: true})} // without the fault module, which writes too
	x, other := newSecret(t, r.Server, "kept"), r.NewKey(t)
	named := body(t, map[string]any{"KeyId": x.key})
	answer := r.Post(t, "CreateAlias", body(t, map[string]any{"AliasName": "alias/kept", "TargetKeyId": x.key}))
	require.Equal(t, http.StatusOK, answer.Status, answer.Body)
	requireStockTaken(t, r.Server)

	limitFiles(t, r.Server, size)
	for range 2 {
		for operation, text := range map[string]string{
			"CreateKey":            "{}",
			"CreateAlias":          body(t, map[string]any{"AliasName": "alias/lost", "TargetKeyId": x.key}),
			"UpdateAlias":          body(t, map[string]any{"AliasName": "alias/kept", "TargetKeyId": other}),
			"DeleteAlias":          body(t, map[string]any{"AliasName": "alias/kept"}),
			"DisableKey":           named,
			"UpdateKeyDescription": body(t, map[string]any{"KeyId": x.key, "Description": "lost"}),
		} {
			r.requireFault(t, r.Post(t, operation, text), internalError, "")
		}
		requireUnchanged(t, r.Server, x, other)
	}
	r.requireReady(t)

	limitFiles(t, r.Server, unix.RLIM_INFINITY)
	requireUnchanged(t, r.Server, x, other)
	more := newSecret(t, r.Server, "more")
	answer = r.Post(t, "UpdateKeyDescription", body(t, map[string]any{"KeyId": other, "Description": "new"}))
	require.Equal(t, http.StatusOK, answer.Status, answer.Body)

	require.NoError(t, r.Stop())
	require.NoError(t, r.Run())
	require.Zero(t, requireStockTaken(t, r.Server), "refused keys were left on the token")
	requireUnchanged(t, r.Server, x, other, more.key)
	more.requireOpens(t, r.Server)
	described, err := r.Client().DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &other})
	require.NoError(t, err)
	require.Equal(t, "new", *described.KeyMetadata.Description)
}

// requireUnchanged checks that there are the keys and the alias of before and no others, and that they work.
func requireUnchanged(t *testing.T, s *kmstest.Server, x secret, others ...string) {
	t.Helper()
	client := s.Client()
	keys, err := client.ListKeys(t.Context(), &kms.ListKeysInput{})
	require.NoError(t, err)
	ids := []string{}
	for _, key := range keys.Keys {
		ids = append(ids, *key.KeyId)
	}
	require.ElementsMatch(t, append([]string{x.key}, others...), ids)
	aliases, err := client.ListAliases(t.Context(), &kms.ListAliasesInput{})
	require.NoError(t, err)
	require.Len(t, aliases.Aliases, 1)
	require.Equal(t, x.key, *aliases.Aliases[0].TargetKeyId)
	described, err := client.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: aws.String("alias/kept")})
	require.NoError(t, err)
	require.Equal(t, types.KeyStateEnabled, described.KeyMetadata.KeyState)
	require.Empty(t, *described.KeyMetadata.Description)
	moved, err := client.ReEncrypt(t.Context(), &kms.ReEncryptInput{CiphertextBlob: x.blob, DestinationKeyId: &others[0]})
	require.NoError(t, err)
	require.Equal(t, x.plaintext, string(s.Decrypt(t, moved.CiphertextBlob, nil)))
}
