// Package fault holds the server, as a process, to what it promises when things go wrong: when the token fails, hangs or
// is lied to, when the disk is full, when the process is killed or told to end, and when it is set up wrongly. The token
// is SoftHSM behind a module that misbehaves on request (hsmtest.Fault).
package fault

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm/hsmtest"
	"hsmkms/test/kmstest"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	defer kmstest.Cleanup()
	// For processes that are started here: with the race detector, each would wait a second before it ends.
	if err := os.Setenv("GORACE", "halt_on_error=1 atexit_sleep_ms=0"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// homes are the homes of key material.
var homes = []string{kmstest.HomeToken, kmstest.HomeWrapped}

// eachHome runs a test for each home of key material.
func eachHome(t *testing.T, test func(t *testing.T, home string)) {
	t.Helper()
	for _, home := range homes {
		t.Run(home, func(t *testing.T) { test(t, home) })
	}
}

// rig is a server on a token that misbehaves by rules.
type rig struct {
	*kmstest.Server
	fault *hsmtest.Fault
}

// newRig starts a server whose token has no rules yet, and waits until it is calm.
func newRig(t *testing.T, o kmstest.Options) *rig {
	t.Helper()
	fault := hsmtest.NewFault(t, hsmtest.SoftHSM{Module: hsmtest.ModulePath(t)}) // the configuration says which tokens
	o.Module, o.Env = fault.Module, fault.Env
	s := kmstest.Start(t, o)
	t.Cleanup(fault.Clear) // before the server is stopped, which a hanging call would hold up
	r := &rig{Server: s, fault: fault}
	r.requireCalm(t)
	return r
}

// requireCalm waits until the server, which was just started, calls its token for its clients and its schedule only. Before
// that, a rule may hit the calls with which the server tries the token out, and counts of calls are not those of a request.
func (r *rig) requireCalm(t *testing.T) {
	t.Helper()
	requireStockTaken(t, r.Server)
	r.AwaitTrials(t)
}

// eventually waits until something is so, for which there is no signal. Its limit is for a hopeless case only.
func eventually(t *testing.T, is func() bool, what string) {
	t.Helper()
	require.Eventually(t, is, time.Minute, 20*time.Millisecond, what)
}

// requireReady waits until /readyz says that the server can do its work.
func (r *rig) requireReady(t *testing.T) {
	t.Helper()
	eventually(t, func() bool {
		status, text := r.AdminGet(t, "/readyz")
		return status == http.StatusOK && text == "store ok\ntoken us-east-1 ok\n"
	}, "the server does not get ready")
}

// requireNotReady waits until /readyz says that the token is out of order, and asks the process for its pulse.
func (r *rig) requireNotReady(t *testing.T) {
	t.Helper()
	eventually(t, func() bool {
		status, text := r.AdminGet(t, "/readyz")
		return status == http.StatusServiceUnavailable && text == "store ok\ntoken us-east-1 failed\n"
	}, "the server says that it is ready")
	r.requireAlive(t)
}

func (r *rig) requireAlive(t *testing.T) {
	t.Helper()
	status, text := r.AdminGet(t, "/livez")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "ok\n", text)
}

// body makes the body of a request.
func body(t *testing.T, in map[string]any) string {
	t.Helper()
	text, err := json.Marshal(in)
	require.NoError(t, err)
	return string(text)
}

// The answers to faults: type and message.
var (
	keyUnavailable    = [2]string{"KeyUnavailableException", "The request was rejected because the key is not available. Try again later."}
	dependencyTimeout = [2]string{"DependencyTimeoutException", "The system timed out while trying to fulfill the request."}
	internalError     = [2]string{"KMSInternalException", "An internal error occurred. The request can be retried."}
)

// requireFault checks that an answer is a fault with AWS's status and holds nothing but its type and message, and that
// the log names the cause.
func (r *rig) requireFault(t *testing.T, answer kmstest.Answer, want [2]string, cause string) {
	t.Helper()
	require.Equal(t, http.StatusInternalServerError, answer.Status, "body: %s", answer.Body)
	require.Equal(t, map[string]any{"__type": want[0], "message": want[1]}, answer.JSON(t))
	line := r.logLine(t, answer.Header.Get("X-Amzn-Requestid"))
	require.Equal(t, "ERROR", line["level"], line)
	require.Equal(t, want[0], line["code"], line)
	require.Contains(t, line["cause"], cause)
}

// logLine waits for the log line of a request.
func (r *rig) logLine(t *testing.T, requestID string) (line map[string]any) {
	t.Helper()
	require.NotEmpty(t, requestID)
	eventually(t, func() bool {
		for text := range strings.Lines(r.Log()) {
			if strings.Contains(text, `"requestId":"`+requestID+`"`) && strings.HasSuffix(text, "}\n") {
				return json.Unmarshal([]byte(text), &line) == nil
			}
		}
		return false
	}, "no log line for "+requestID)
	return line
}

// secret is a ciphertext with what it must open to.
type secret struct {
	key       string
	plaintext string
	blob      []byte
}

// newSecret encrypts a text under a new key.
func newSecret(t *testing.T, s *kmstest.Server, text string) secret {
	t.Helper()
	key := s.NewKey(t)
	return secret{key: key, plaintext: text, blob: s.Encrypt(t, key, []byte(text), nil)}
}

func (x secret) requireOpens(t *testing.T, s *kmstest.Server) {
	t.Helper()
	require.Equal(t, x.plaintext, string(s.Decrypt(t, x.blob, nil)))
}

// reEncrypt is the body of a request that moves the secret under a key.
func (x secret) reEncrypt(t *testing.T, destination string) string {
	t.Helper()
	return body(t, map[string]any{"CiphertextBlob": x.blob, "DestinationKeyId": destination})
}

// requireLogged waits until the log has a text in so many lines.
func (r *rig) requireLogged(t *testing.T, text string, lines int) {
	t.Helper()
	eventually(t, func() bool { return strings.Count(r.Log(), text) >= lines }, "not in the log: "+text)
}

// gauge reads a metric of the Region, and tells whether there is one.
func gauge(t *testing.T, s *kmstest.Server, name string) (value int, found bool) {
	t.Helper()
	_, text := s.AdminGet(t, "/metrics")
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name+`{region="us-east-1"} `); ok {
			value, err := strconv.Atoi(strings.TrimSpace(rest))
			require.NoError(t, err)
			return value, true
		}
	}
	return 0, false
}

// requireStockTaken waits until the server has compared the token with the store, and gives the number of orphans. No key
// may be without its object.
func requireStockTaken(t *testing.T, s *kmstest.Server) (orphans int) {
	t.Helper()
	s.AwaitTrials(t) // whose calls a rule would hit
	eventually(t, func() bool {
		_, found := gauge(t, s, "hsmkms_token_missing")
		return found
	}, "the server does not compare token and store")
	missing, _ := gauge(t, s, "hsmkms_token_missing")
	require.Zero(t, missing, "keys without their object on the token")
	orphans, found := gauge(t, s, "hsmkms_token_orphans")
	require.True(t, found)
	return orphans
}
