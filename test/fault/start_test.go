package fault

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm/hsmtest"
	"hsmkms/test/kmstest"
)

// wrongPIN is long enough to be a PIN.
const wrongPIN = "another-user-pin"

// writeFile replaces the content of a file of the server. It keeps the mode.
func writeFile(t *testing.T, s *kmstest.Server, name, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(s.Dir, name), []byte(text), 0o600))
}

// configure replaces a part of the server's configuration.
func configure(t *testing.T, s *kmstest.Server, old, replacement string) {
	t.Helper()
	text, err := os.ReadFile(s.Config())
	require.NoError(t, err)
	require.Contains(t, string(text), old)
	require.NoError(t, os.WriteFile(s.Config(), []byte(strings.Replace(string(text), old, replacement, 1)), 0o600))
}

// requireRefusesToStart runs the server and gives what it says before it ends with status 1.
func requireRefusesToStart(t *testing.T, s *kmstest.Server) (said string) {
	t.Helper()
	err := s.Run()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 1, exit.ExitCode())
	_, err = os.Stat(filepath.Join(s.Dir, "aws.env"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.Regexp(t, "(?m)^hsmkms: ", s.Log())
	return s.Log()
}

// TestRefusesToStart sets servers up wrongly. Each must say what is wrong, as its last words.
func TestRefusesToStart(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, s *kmstest.Server)
		want  string
	}{
		"unknown setting": {
			func(t *testing.T, s *kmstest.Server) { configure(t, s, "home: token", "hmoe: token") },
			"hsmkms: reading configuration DIR/hsmkms.yaml: yaml: unmarshal errors:\n  line 14: field hmoe not found in type main.regionConfig\n",
		},
		"unknown value": {
			func(t *testing.T, s *kmstest.Server) { configure(t, s, "home: token", "home: elsewhere") },
			"hsmkms: reading configuration DIR/hsmkms.yaml: regions.us-east-1: home is \"elsewhere\", not token or wrapped\n",
		},
		"missing configuration": {
			func(t *testing.T, s *kmstest.Server) { require.NoError(t, os.Remove(s.Config())) },
			"hsmkms: reading configuration: open DIR/hsmkms.yaml: no such file or directory\n",
		},
		"missing folder": {
			func(t *testing.T, s *kmstest.Server) { configure(t, s, "/hsmkms.db", "/nowhere/hsmkms.db") },
			"hsmkms: opening store DIR/nowhere/hsmkms.db: creating file: open DIR/nowhere/.hsmkms.db.new-",
		},
		"store not initialised": {
			func(t *testing.T, s *kmstest.Server) {
				require.NoError(t, os.Remove(filepath.Join(s.Dir, "hsmkms.db")))
			},
			"hsmkms: opening vault: not initialised: run `hsmkms init` first\n",
		},
		"not a store": {
			func(t *testing.T, s *kmstest.Server) { writeFile(t, s, "hsmkms.db", strings.Repeat("text", 5000)) },
			"hsmkms: opening store DIR/hsmkms.db: file is not a store of this version\n",
		},
		"missing token": {
			func(t *testing.T, s *kmstest.Server) { configure(t, s, "token_label: kmstest", "token_label: another") },
			"no token with label \"another\"",
		},
		"missing module": {
			func(t *testing.T, s *kmstest.Server) { configure(t, s, hsmtest.ModulePath(t), "/nowhere/lib.so") },
			"hsmkms: loading PKCS#11 module /nowhere/lib.so: no such library, or not a PKCS#11 module\n",
		},
		"PIN file that others may read": {
			func(t *testing.T, s *kmstest.Server) {
				require.NoError(t, os.Chmod(filepath.Join(s.Dir, "pin"), 0o640))
			},
			"logging in: reading PIN: DIR/pin can be read by others: run `chmod 600 DIR/pin`\n",
		},
		"missing PIN file": {
			func(t *testing.T, s *kmstest.Server) { require.NoError(t, os.Remove(filepath.Join(s.Dir, "pin"))) },
			"logging in: reading PIN: stat DIR/pin: no such file or directory\n",
		},
		"address in use": {
			func(t *testing.T, s *kmstest.Server) {
				other := kmstest.Start(t, kmstest.Options{})
				configure(t, s, "listen: 127.0.0.1:0\nadmin", "listen: "+strings.TrimPrefix(other.Endpoint, "http://")+"\nadmin")
			},
			"bind: address already in use\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := kmstest.Make(t.TempDir(), hsmtest.ModulePath(t), kmstest.Options{})
			require.NoError(t, err)
			c.spoil(t, s)
			require.Contains(t, requireRefusesToStart(t, s), strings.ReplaceAll(c.want, "DIR", s.Dir))
		})
	}
}

// TestWrongPIN has a PIN that the token refuses: it is tried once, for tokens lock after some tries, and never shown.
func TestWrongPIN(t *testing.T) {
	for name, pin := range map[string]string{"wrong": wrongPIN, "empty": ""} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, kmstest.Options{})
			require.NoError(t, r.Stop())
			writeFile(t, r.Server, "pin", pin+"\n")
			logins := r.fault.Calls("C_Login")
			said := requireRefusesToStart(t, r.Server)
			require.Contains(t, said, "logging in")
			require.Contains(t, said, "token: login_failed: ")
			require.NotContains(t, said, wrongPIN)
			require.Equal(t, logins+min(1, len(pin)), r.fault.Calls("C_Login"))
		})
	}
}

// TestSecondServer starts another server on the store of one that runs, which must not notice.
func TestSecondServer(t *testing.T) {
	first := kmstest.Start(t, kmstest.Options{})
	x := newSecret(t, first, "kept")
	env, err := os.ReadFile(filepath.Join(first.Dir, "aws.env"))
	require.NoError(t, err)
	binary, err := kmstest.Binary()
	require.NoError(t, err)
	for _, arguments := range [][]string{
		{"serve", "--config", first.Config()},
		{"init", "--config", first.Config(), "--new-token", "--account", kmstest.Account, "--credentials-file", filepath.Join(first.Dir, "credentials")},
	} {
		out, err := exec.CommandContext(t.Context(), binary, arguments...).CombinedOutput()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit, "%s", out)
		require.Equal(t, 1, exit.ExitCode())
		require.Equal(t, "hsmkms: opening store "+filepath.Join(first.Dir, "hsmkms.db")+": file is in use by another process\n", string(out))
	}
	still, err := os.ReadFile(filepath.Join(first.Dir, "aws.env"))
	require.NoError(t, err, "the second server took the first one's file")
	require.Equal(t, env, still)
	x.requireOpens(t, first)
	newSecret(t, first, "more").requireOpens(t, first)
}
