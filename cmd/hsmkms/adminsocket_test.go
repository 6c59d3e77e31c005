package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestAdminSocketIsForOwnUser connects to sockets whose mode lets everybody in: who is another user than the server is hung up on
// without an answer. Where nobody may become another user, it is the server that takes itself for one.
func TestAdminSocketIsForOwnUser(t *testing.T) {
	self := os.Geteuid()
	path, answered := serveTo(t, self)
	require.Contains(t, askAs(t, self, path), "hello")
	require.Len(t, answered, 1)
	if self == 0 {
		require.Empty(t, askAs(t, 65534, path))
		require.Len(t, answered, 1)
		require.Contains(t, askAs(t, self, path), "hello", "and goes on")
	}

	path, answered = serveTo(t, self+1)
	require.Empty(t, askAs(t, self, path))
	require.Empty(t, answered)
	connection := connectAs(t, self, path)
	defer connection.Close()
	require.NoError(t, checkPeer(connection, self))
	require.EqualError(t, checkPeer(connection, self+1), fmt.Sprintf("the other end belongs to user %d, not to %d", self, self+1))
}

// serveTo serves a user on a socket. What it answers is counted.
func serveTo(t *testing.T, user int) (path string, answered chan struct{}) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
	path = filepath.Join(dir, "s")
	listener, err := listenAdminSocket(t.Context(), path)
	require.NoError(t, err)
	require.NoError(t, os.Chmod(path, 0o666))
	own, ok := listener.(userOnly)
	require.True(t, ok)
	require.Equal(t, os.Geteuid(), own.user)
	own.user = user
	answered = make(chan struct{}, 10)
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			answered <- struct{}{}
			_, _ = io.WriteString(w, "hello")
		}),
		ReadHeaderTimeout: time.Minute,
	}
	go func() { _ = server.Serve(own) }() // ends with Close
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	return path, answered
}

// askAs sends a request through a socket as a user, and gives all that comes back.
func askAs(t *testing.T, user int, path string) string {
	t.Helper()
	connection := connectAs(t, user, path)
	defer connection.Close()
	require.NoError(t, connection.SetDeadline(time.Now().Add(time.Minute)))
	_, _ = io.WriteString(connection, "GET /accounts HTTP/1.0\r\n\r\n") // it may have been closed already
	answer, err := io.ReadAll(connection)
	if err != nil {
		require.ErrorIs(t, err, syscall.ECONNRESET)
	}
	return string(answer)
}

// connectAs connects to a socket as a user. The kernel has users by thread: it is one thread that becomes another user, and only
// to connect.
func connectAs(t *testing.T, user int, path string) net.Conn {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	file := os.NewFile(uintptr(fd), path)
	defer file.Close()
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), uintptr(user), ^uintptr(0)); errno != 0 {
			failed <- errno
			return
		}
		failed <- syscall.Connect(fd, &syscall.SockaddrUnix{Name: path})
	}()
	require.NoError(t, <-failed)
	connection, err := net.FileConn(file)
	require.NoError(t, err)
	return connection
}
