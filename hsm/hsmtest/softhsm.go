// Package hsmtest has what tests of a token need: SoftHSM tokens in a temporary folder, and the suite that every
// implementation of hsm.Token must pass.
package hsmtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The PINs of tokens made for tests.
const (
	PIN   = "test-user-pin"
	SOPIN = "test-so-pin"
)

// modulePaths are where Debian, Ubuntu and Fedora put SoftHSM.
var modulePaths = []string{
	"/usr/lib/softhsm/libsofthsm2.so",
	"/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib64/pkcs11/libsofthsm2.so",
}

// SoftHSM is a folder of SoftHSM tokens.
type SoftHSM struct {
	// Module is the path of the PKCS#11 library.
	Module string
	// Config is the path of softhsm2.conf, for SOFTHSM2_CONF.
	Config string
}

// New makes an empty SoftHSM in a temporary folder and points this process at it with SOFTHSM2_CONF. It fails the test,
// with the command that helps, if SoftHSM is not installed.
func New(t testing.TB) SoftHSM {
	t.Helper()
	dir := t.TempDir()
	tokens := filepath.Join(dir, "tokens")
	require.NoError(t, os.Mkdir(tokens, 0o700))
	s := SoftHSM{Module: ModulePath(t), Config: filepath.Join(dir, "softhsm2.conf")}
	conf := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n", tokens)
	require.NoError(t, os.WriteFile(s.Config, []byte(conf), 0o600))
	t.Setenv("SOFTHSM2_CONF", s.Config)
	return s
}

// ModulePath gives the path of the SoftHSM library.
func ModulePath(t testing.TB) string {
	t.Helper()
	path, err := FindModule()
	require.NoError(t, err)
	return path
}

// FindModule gives the path of the SoftHSM library, or an error with the command that installs it.
func FindModule() (string, error) {
	for _, path := range modulePaths {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errors.New("SoftHSM is not installed: run `apt-get install softhsm2`")
}

// Token makes a token. It is an own program that does it, so that the module need not be loaded yet; a module that is
// loaded already sees the token after C_Initialize.
func (s SoftHSM) Token(t testing.TB, label string) {
	t.Helper()
	cmd := exec.Command("softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", SOPIN)
	cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+s.Config)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "softhsm2-util: %s", out)
}
