package fault

import (
	"net/http"
	"testing"

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
