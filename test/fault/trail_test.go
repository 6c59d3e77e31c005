package fault

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"hsmkms/test/kmstest"
)

// TestTrailOnFullDisk lets no call pass that cannot be recorded, unless told to, and goes on by itself when there is room.
func TestTrailOnFullDisk(t *testing.T) {
	r := &rig{Server: kmstest.Start(t, kmstest.Options{})} // without the fault module, which writes too
	key := r.NewKey(t)
	blob := r.Encrypt(t, key, []byte("text"), nil)
	limitFiles(t, r.Server, 0)
	for range 3 {
		r.requireFault(t, r.Post(t, "Decrypt", body(t, map[string]any{"CiphertextBlob": blob})), internalError, "")
		r.requireFault(t, r.Post(t, "DescribeKey", body(t, map[string]any{"KeyId": key})), internalError, "")
	}
	_, metrics := r.AdminGet(t, "/metrics")
	require.Contains(t, metrics, "hsmkms_audit_failing 1\n")
	limitFiles(t, r.Server, unix.RLIM_INFINITY)
	eventually(t, func() bool {
		return r.Post(t, "Decrypt", body(t, map[string]any{"CiphertextBlob": blob})).Status == http.StatusOK
	}, "calls are still refused")
	require.Equal(t, "text", string(r.Decrypt(t, blob, nil)))
}

// TestNothingChangesUnrecorded fills the disk for the trail alone. One change may be made before that shows, and no other.
func TestNothingChangesUnrecorded(t *testing.T) {
	r := &rig{Server: kmstest.Start(t, kmstest.Options{})}
	key := r.NewKey(t)
	trail, err := filepath.Glob(filepath.Join(r.Dir, "audit", "audit-*.jsonl"))
	require.NoError(t, err)
	require.Len(t, trail, 1)
	for fileSize(t, trail[0]) < 2*fileSize(t, filepath.Join(r.Dir, "hsmkms.db")) {
		r.Encrypt(t, key, []byte("text"), map[string]string{"long": strings.Repeat("x", 8000)})
	}
	limitFiles(t, r.Server, uint64(fileSize(t, trail[0])))
	for n := range 5 {
		alias := body(t, map[string]any{"AliasName": fmt.Sprint("alias/", n), "TargetKeyId": key})
		r.requireFault(t, r.Post(t, "CreateAlias", alias), internalError, "")
	}
	limitFiles(t, r.Server, unix.RLIM_INFINITY)
	eventually(t, func() bool {
		_, err := r.Client().CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: aws.String("alias/end"), TargetKeyId: &key})
		return err == nil
	}, "changes are still refused")
	aliases := listAliases(t, r.Client(), nil)
	require.Len(t, aliases, 2)
	require.Contains(t, aliases, "alias/0")
}

// TestTrailThatHangs has a collector that does not read: calls wait for it, and not longer than a request may take.
func TestTrailThatHangs(t *testing.T) {
	collector, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer collector.Close()
	r := &rig{Server: kmstest.Start(t, kmstest.Options{
		NoAudit: true, Top: []string{"audit: {sinks: [syslog+tcp:" + collector.Addr().String() + "]}", "request_timeout: 2s"},
	})}
	key := r.NewKey(t)
	long := body(t, map[string]any{"KeyId": key, "Plaintext": []byte("x"), "EncryptionContext": map[string]string{"long": strings.Repeat("x", 8000)}})
	var answer kmstest.Answer
	for range 2000 { // until the buffers of the connection are full
		asked := time.Now()
		if answer = r.Post(t, "Encrypt", long); answer.Status != http.StatusOK {
			require.Greater(t, time.Since(asked), time.Second, "it did not wait")
			require.Less(t, time.Since(asked), 8*time.Second, "it waited until the sink gave up")
			break
		}
	}
	r.requireFault(t, answer, internalError, "")
}

func fileSize(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info.Size()
}
