package fault

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// TestDrainWaitsForRequests tells a server to end while requests are in the token. They are answered, new ones are not
// taken, and it ends well.
func TestDrainWaitsForRequests(t *testing.T) {
	eachHome(t, func(t *testing.T, home string) {
		r := newRig(t, kmstest.Options{Home: home, Settings: []string{"sessions: 1"}})
		x, destination := newSecret(t, r.Server, "kept"), r.NewKey(t)
		r.fault.Set("C_Decrypt hang=1")
		decrypts := r.fault.Calls("C_Decrypt")
		var group sync.WaitGroup
		answers := make([]kmstest.Answer, 8)
		for i := range answers {
			group.Go(func() { answers[i] = r.Post(t, "ReEncrypt", x.reEncrypt(t, destination)) })
		}
		eventually(t, func() bool {
			waiting, _ := gauge(t, r.Server, "hsmkms_token_waiting")
			return r.fault.Calls("C_Decrypt") == decrypts+1 && waiting == len(answers)-1
		}, "the requests do not get to the token")
		require.NoError(t, r.Terminate())
		eventually(t, func() bool {
			conn, err := net.Dial("tcp", strings.TrimPrefix(r.Endpoint, "http://"))
			if err == nil {
				require.NoError(t, conn.Close())
			}
			return errors.Is(err, syscall.ECONNREFUSED)
		}, "the server still takes connections")
		r.fault.Clear()
		group.Wait()
		for _, answer := range answers {
			require.Equal(t, http.StatusOK, answer.Status, answer.Body)
		}
		require.NoError(t, r.Wait())
	})
}

// TestDrainUnderLoad tells a server to end while clients send request after request over connections that they keep. No
// request that was sent goes without an answer.
func TestDrainUnderLoad(t *testing.T) {
	s := kmstest.Start(t, kmstest.Options{})
	x, destination := newSecret(t, s, "kept"), s.NewKey(t)
	for range 3 {
		var wire bytes.Buffer
		require.NoError(t, s.Request(t, "ReEncrypt", x.reEncrypt(t, destination)).Write(&wire))
		var answered atomic.Int64
		ends := make(chan error, connections)
		for range cap(ends) {
			go func() { ends <- sendUntilClosed(s, wire.Bytes(), &answered) }()
		}
		eventually(t, func() bool { return answered.Load() > 500 }, "no load")
		require.NoError(t, s.Stop())
		for range cap(ends) {
			require.NoError(t, <-ends)
		}
		require.NoError(t, s.Run())
		x.requireOpens(t, s)
	}
}

// sendUntilClosed sends the same request again and again, over one connection until the server closes it after an
// answer, and then over another until none can be made.
func sendUntilClosed(s *kmstest.Server, wire []byte, answered *atomic.Int64) error {
	for {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.Endpoint, "http://"))
		if errors.Is(err, syscall.ECONNREFUSED) {
			return nil
		}
		if err != nil {
			return err
		}
		answers := bufio.NewReader(conn)
		for last := false; !last && !closed(conn); {
			if last, err = sendOne(conn, answers, wire); err != nil {
				return err
			}
			answered.Add(1)
		}
		if err := conn.Close(); err != nil {
			return err
		}
	}
}

// closed tells whether the server has closed a connection, as it may when the client has been silent for long, which
// happens on a busy machine. No request is sent then.
func closed(conn net.Conn) bool {
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return true
	}
	n := -1
	err = raw.Read(func(fd uintptr) bool {
		n, _, err = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return true
	})
	return err == nil && n == 0
}

// sendOne sends a request, which must succeed, and tells whether the server said that the connection ends.
func sendOne(conn net.Conn, answers *bufio.Reader, wire []byte) (last bool, err error) {
	if _, err := conn.Write(wire); err != nil {
		return false, fmt.Errorf("sending: %w", err)
	}
	answer, err := http.ReadResponse(answers, nil)
	if err != nil {
		return false, fmt.Errorf("no answer: %w", err)
	}
	text, err := io.ReadAll(answer.Body)
	if err := errors.Join(err, answer.Body.Close()); err != nil {
		return false, fmt.Errorf("half an answer: %w", err)
	}
	if answer.StatusCode != http.StatusOK {
		return false, fmt.Errorf("%s: %s", answer.Status, text)
	}
	return answer.Close, nil
}

// TestEndsThoughACallHangs tells a server to end while a call into the token never comes back. It ends all the same, and
// its status says that something was left.
func TestEndsThoughACallHangs(t *testing.T) {
	r := newRig(t, kmstest.Options{Top: []string{"request_timeout: 1s", "drain_timeout: 2s"}})
	x, destination := newSecret(t, r.Server, "kept"), r.NewKey(t)
	r.fault.Set("C_Decrypt hang=1")
	r.requireFault(t, r.Post(t, "ReEncrypt", x.reEncrypt(t, destination)), dependencyTimeout, "deadline exceeded")
	require.NoError(t, r.Terminate())
	var exit *exec.ExitError
	require.ErrorAs(t, r.Wait(), &exit)
	require.Equal(t, 1, exit.ExitCode())
	require.Contains(t, r.Log(), "a call into the module does not return")
}
