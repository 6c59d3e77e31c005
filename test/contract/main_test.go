// Package contract holds the server to the AWS KMS API, one file an operation. The client is the AWS SDK for Go, or, for
// what it would not send, bytes on the wire. What has to do with key material is tested in both of its homes.
package contract

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm/hsmtest"
	"hsmkms/test/kmstest"
)

// servers are shared by all tests, by home.
var servers = map[string]*kmstest.Server{}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	defer kmstest.Cleanup()
	module, err := hsmtest.FindModule()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for _, home := range []string{kmstest.HomeToken, kmstest.HomeWrapped} {
		dir, err := os.MkdirTemp("", "hsmkms-contract-")
		if err == nil {
			defer os.RemoveAll(dir)
			servers[home], err = kmstest.Make(dir, module, kmstest.Options{Home: home, AdminSocket: true, Top: []string{slowKeys}})
		}
		if err == nil {
			err = servers[home].Run()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "starting server:", err)
			return 1
		}
		defer func() {
			if err := end(servers[home]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = 1
			}
		}()
	}
	return m.Run()
}

// slowKeys lets RSA keys take as long to make as they do on a machine under load.
const slowKeys = "request_timeout: 120s"

// end stops a server. It fails when the server died of a data race or the like, and when it logged an error: no test
// sends anything that may make the server itself fail.
func end(s *kmstest.Server) error {
	if err := s.Stop(); err != nil {
		return fmt.Errorf("stopping server: %w: %s", err, s.Log())
	}
	for line := range strings.Lines(s.Log()) {
		if strings.Contains(line, `"level":"ERROR"`) {
			return errors.New("the server failed: " + line)
		}
	}
	return nil
}

// each runs a test against both homes.
func each(t *testing.T, test func(t *testing.T, s *kmstest.Server)) {
	t.Helper()
	for home, server := range servers {
		t.Run(home, func(t *testing.T) { test(t, server) })
	}
}

// absentKey is a well-formed key id of no key.
const absentKey = "00000000-0000-4000-8000-000000000000"

// TestBothHomesAreTested guards against a suite that runs nothing.
func TestBothHomesAreTested(t *testing.T) {
	require.Len(t, servers, 2)
}
