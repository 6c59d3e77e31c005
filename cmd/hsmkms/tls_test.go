package main

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestCertificateWhileTheTokenHangs has a new certificate whose key the token does not give: nobody but the one connection that
// looks after it waits, and what comes of it is that the old certificate stays.
func TestCertificateWhileTheTokenHangs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "certificate.pem")
	require.NoError(t, os.WriteFile(file, []byte("new"), 0o600))
	loading, give, old := make(chan struct{}), make(chan error), &tls.Certificate{}
	c := &certificates{cfg: &tlsConfig{CertificateFile: file}, log: slog.New(slog.DiscardHandler)}
	c.load = func() (*tls.Certificate, error) { close(loading); return nil, <-give }
	c.current.Store(old)

	waiting := make(chan *tls.Certificate)
	go func() {
		got, _ := c.get(nil)
		waiting <- got
	}()
	<-loading
	others := make(chan *tls.Certificate, 1)
	go func() {
		got, _ := c.get(nil)
		others <- got
	}()
	select {
	case got := <-others:
		require.Same(t, old, got)
	case <-time.After(10 * time.Second):
		require.Fail(t, "a handshake waits for the token that another one waits for")
	}
	give <- errors.New("the token is gone")
	require.Same(t, old, <-waiting)
}
