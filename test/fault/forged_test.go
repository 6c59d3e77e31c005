package fault

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"hsmkms/kms/ciphertext"
	"hsmkms/test/kmstest"
)

// forge gives a ciphertext of the greatest length with the header and IV of a real one: only the token can tell.
func forge(t *testing.T, blob []byte) []byte {
	t.Helper()
	forged := make([]byte, ciphertext.MaxSize)
	_, err := rand.Read(forged)
	require.NoError(t, err)
	copy(forged, blob[:ciphertext.Overhead-ciphertext.TagSize])
	return forged
}

// TestForgeriesUnderLoad mixes forged ciphertexts with honest requests. They are refused, and nobody else notices.
func TestForgeriesUnderLoad(t *testing.T) {
	eachHome(t, func(t *testing.T, home string) {
		r := newRig(t, kmstest.Options{Home: home, Settings: []string{"sessions: 4"}})
		x, destination := newSecret(t, r.Server, "kept"), r.NewKey(t)
		answer := r.Post(t, "ReEncrypt", x.reEncrypt(t, destination)) // both keys are loaded
		require.Equal(t, http.StatusOK, answer.Status, answer.Body)
		requireStockTaken(t, r.Server)
		setup := func() map[string]int {
			calls := map[string]int{}
			for _, f := range []string{"C_OpenSession", "C_CloseSession", "C_Login", "C_Initialize", "C_CopyObject", "C_UnwrapKey", "C_FindObjectsInit"} {
				calls[f] = r.fault.Calls(f)
			}
			return calls
		}
		before := setup()
		forged := secret{blob: forge(t, x.blob)}
		honest, dishonest := x.reEncrypt(t, destination), forged.reEncrypt(t, destination)
		var group sync.WaitGroup
		decrypts := r.fault.Calls("C_Decrypt")
		answers := make([][]kmstest.Answer, 8)
		for i := range answers {
			group.Go(func() {
				for range 100 {
					answers[i] = append(answers[i], r.Post(t, "ReEncrypt", []string{honest, dishonest}[i%2]))
				}
			})
		}
		group.Wait()
		for i := range answers {
			require.Len(t, answers[i], 100)
			for _, answer := range answers[i] {
				if i%2 == 0 {
					require.Equal(t, http.StatusOK, answer.Status, answer.Body)
				} else {
					answer.RequireRefusal(t, "InvalidCiphertextException", "")
				}
			}
		}
		require.GreaterOrEqual(t, r.fault.Calls("C_Decrypt"), decrypts+800, "the token was not asked")
		require.Equal(t, before, setup(), "forgeries cost sessions or handles")
		r.requireReady(t)
	})
}

// The dose of forgeries, and how much the memory of the server may grow meanwhile. A copy of each ciphertext that is not
// freed, as the usual binding for PKCS#11 leaves it in C memory, makes 300 MiB.
const (
	forgeries   = 50_000
	connections = 16
	leeway      = 32 << 20
)

// TestForgeriesLeaveNoMemory sends forged ciphertexts of 6 KiB and looks at the process's resident memory before and
// after. The server runs without the race detector, which multiplies memory.
func TestForgeriesLeaveNoMemory(t *testing.T) {
	eachHome(t, func(t *testing.T, home string) {
		s := kmstest.Start(t, kmstest.Options{Home: home, NoRace: true})
		x, destination := newSecret(t, s, "kept"), s.NewKey(t)
		bodies := make([]string, 100)
		for i := range bodies {
			bodies[i] = secret{blob: forge(t, x.blob)}.reEncrypt(t, destination)
		}
		sendForgeries(t, s, bodies, forgeries/5) // what is allocated once
		before := residentMemory(t, s.PID())
		for range 10 {
			sendForgeries(t, s, bodies, forgeries/10)
		}
		grown := residentMemory(t, s.PID()) - before
		t.Logf("resident memory: %d KiB, and %d KiB more after %d forgeries", before>>10, grown>>10, forgeries)
		require.Less(t, grown, leeway)
		require.Greater(t, s.Calls(t)["C_Decrypt"], forgeries, "the token was not asked")
		x.requireOpens(t, s)
	})
}

// sendForgeries sends signed requests as bytes, which the client can do faster than the server can answer, and checks
// each answer. Signatures are good for five minutes, so that a batch signs its own.
func sendForgeries(t *testing.T, s *kmstest.Server, bodies []string, n int) {
	t.Helper()
	wires := make([][]byte, len(bodies))
	for i := range bodies {
		var wire bytes.Buffer
		require.NoError(t, s.Request(t, "ReEncrypt", bodies[i]).Write(&wire))
		wires[i] = wire.Bytes()
	}
	var group errgroup.Group
	for i := range connections {
		group.Go(func() error { return sendAll(s, wires, i, n/connections+1) })
	}
	require.NoError(t, group.Wait())
}

// sendAll sends n requests over one connection, each of which must be refused as a forgery.
func sendAll(s *kmstest.Server, wires [][]byte, first, n int) error {
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.Endpoint, "http://"))
	if err != nil {
		return err
	}
	defer conn.Close()
	answers := bufio.NewReader(conn)
	for i := range n {
		if _, err := conn.Write(wires[(first+i)%len(wires)]); err != nil {
			return err
		}
		answer, err := http.ReadResponse(answers, nil)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(answer.Body)
		if err := errors.Join(err, answer.Body.Close()); err != nil {
			return err
		}
		if answer.StatusCode != http.StatusBadRequest || string(text) != `{"__type":"InvalidCiphertextException"}` {
			return fmt.Errorf("%s: %s", answer.Status, text)
		}
	}
	return nil
}

var vmRSS = regexp.MustCompile(`(?m)^VmRSS:\s+(\d+) kB$`)

// residentMemory gives the bytes of memory of a process that are in RAM.
func residentMemory(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	require.NoError(t, err)
	match := vmRSS.FindSubmatch(text)
	require.NotNil(t, match, "%s", text)
	kib, err := strconv.Atoi(string(match[1]))
	require.NoError(t, err)
	return kib << 10
}
