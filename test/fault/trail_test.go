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

	"hsmkms/store"
	"hsmkms/store/bolt"
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

// TestNothingChangesUnrecorded fills the disk for the trail alone. What comes first may change something, because only its record
// shows that there is no room; nothing else does, and be its record short enough for what is left.
func TestNothingChangesUnrecorded(t *testing.T) {
	r := &rig{Server: kmstest.Start(t, kmstest.Options{AdminSocket: true})}
	key, external := r.NewKey(t), r.NewExternalKey(t)
	set := r.ImportSet(t, external, "RSAES_OAEP_SHA_256", "RSA_2048")
	describe := func(n int) string {
		return body(t, map[string]any{"KeyId": key, "Description": fmt.Sprint(n, strings.Repeat("x", 8000))})
	}
	trail := trailFile(t, r)
	for fileSize(t, trail) < 2*fileSize(t, filepath.Join(r.Dir, "hsmkms.db")) {
		r.Encrypt(t, key, []byte("text"), map[string]string{"long": strings.Repeat("x", 8000)})
	}
	limitFiles(t, r.Server, uint64(fileSize(t, trail))+8000)
	parameters := body(t, map[string]any{"KeyId": external, "WrappingAlgorithm": "RSAES_OAEP_SHA_256", "WrappingKeySpec": "RSA_2048"})
	for n := range 12 {
		r.requireFault(t, r.Post(t, "UpdateKeyDescription", describe(n)), internalError, "")
		r.requireFault(t, r.Post(t, "DescribeKey", body(t, map[string]any{"KeyId": key})), internalError, "")
		r.requireFault(t, r.Post(t, "CreateAlias", body(t, map[string]any{"AliasName": fmt.Sprint("alias/", n), "TargetKeyId": key})), internalError, "")
		r.requireFault(t, r.Post(t, "GetParametersForImport", parameters), internalError, "")
		session := r.PostForm(t, r.Credentials(), "sts", "Action", "GetSessionToken", "Version", "2011-06-15")
		require.Equal(t, http.StatusInternalServerError, session.Status)
		said, err := r.CreateAccount(t, "444455556666")
		require.Error(t, err)
		require.Contains(t, said, "nothing was done, because the audit trail fails")
	}
	limitFiles(t, r.Server, unix.RLIM_INFINITY)
	eventually(t, func() bool {
		_, err := r.Client().CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: aws.String("alias/end"), TargetKeyId: &key})
		return err == nil
	}, "changes are still refused")
	require.Equal(t, map[string]string{"alias/end": key}, listAliases(t, r.Client(), nil))
	out, err := r.Client().DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &key})
	require.NoError(t, err)
	require.Equal(t, "0", strings.TrimRight(*out.KeyMetadata.Description, "x"), "the first came before anybody knew")
	r.NewAccount(t, "444455556666")
	r.Import(t, set, make([]byte, 32)) // it was not pushed out by newer ones
	require.NoError(t, r.Stop())
	require.Zero(t, countRecords(t, r, "ASIA"), "sessions that nobody was given")
}

func trailFile(t *testing.T, r *rig) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(r.Dir, "audit", "audit-*.jsonl"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	return files[0]
}

// countRecords counts the records with a text in their keys in the store of a server that does not run.
func countRecords(t *testing.T, r *rig, text string) (count int) {
	t.Helper()
	file, err := bolt.Open(bolt.Config{Path: filepath.Join(r.Dir, "hsmkms.db")})
	require.NoError(t, err)
	defer file.Close()
	require.NoError(t, file.View(t.Context(), func(reader store.Reader) error {
		return reader.Scan("", "", func(key string, _ []byte) bool {
			if strings.Contains(key, text) {
				count++
			}
			return true
		})
	}))
	return count
}

// TestTrailThatHangs has a collector that does not read: calls wait for it, and not longer than a request may take. From then on
// nothing is changed, of which the server, when it is killed, would leave no record.
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
	for n := range 3 {
		r.requireFault(t, r.Post(t, "CreateAlias", body(t, map[string]any{"AliasName": fmt.Sprint("alias/", n), "TargetKeyId": key})), internalError, "")
	}
	require.NoError(t, r.Kill())
	require.Zero(t, countRecords(t, r, "alias/"))
}

func fileSize(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info.Size()
}
