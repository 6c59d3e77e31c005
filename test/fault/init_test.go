package fault

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm/hsmtest"
	"hsmkms/test/kmstest"
)

// unprepared gives the folder of a server that has its configuration and PINs and nothing else.
func unprepared(t *testing.T, home string) *kmstest.Server {
	t.Helper()
	s, err := kmstest.Make(t.TempDir(), hsmtest.ModulePath(t), kmstest.Options{Home: home})
	require.NoError(t, err)
	for _, name := range []string{"hsmkms.db", "credentials", "tokens"} {
		require.NoError(t, os.RemoveAll(filepath.Join(s.Dir, name)))
	}
	require.NoError(t, os.Mkdir(filepath.Join(s.Dir, "tokens"), 0o700))
	return s
}

func initCommand(t *testing.T, s *kmstest.Server) *exec.Cmd {
	t.Helper()
	binary, err := kmstest.Binary()
	require.NoError(t, err)
	return exec.CommandContext(t.Context(), binary, "init", "--config", s.Config(), "--new-token",
		"--account", kmstest.Account, "--credentials-file", filepath.Join(s.Dir, "credentials"))
}

// requireServes starts the server and uses it.
func requireServes(t *testing.T, s *kmstest.Server) {
	t.Helper()
	require.NoError(t, s.Run())
	defer func() {
		require.NoError(t, s.Stop())
		if t.Failed() {
			t.Log(s.Log())
		}
	}()
	key := s.NewKey(t)
	require.Equal(t, []byte("x"), s.Decrypt(t, s.Encrypt(t, key, []byte("x"), nil), nil))
}

// TestInitKilled kills init at any moment. The next one finishes what it began.
func TestInitKilled(t *testing.T) {
	eachHome(t, func(t *testing.T, home string) {
		served := 0
		for range 6 {
			s := unprepared(t, home)
			for range 5 {
				cmd := initCommand(t, s)
				require.NoError(t, cmd.Start())
				time.Sleep(time.Duration(rand.IntN(400)) * time.Millisecond)
				_ = cmd.Process.Kill() // it may have ended
				_ = cmd.Wait()
			}
			out, err := initCommand(t, s).CombinedOutput()
			if err != nil && tokenLost(t, s) {
				require.Contains(t, string(out), "which the module does not show")
				continue
			}
			require.NoError(t, err, "%s", out)
			requireServes(t, s)
			served++
		}
		require.NotZero(t, served)
	})
}

// tokenLost tells whether the kill hit SoftHSM in C_Login, where it empties and rewrites the file of the token's flags.
func tokenLost(t *testing.T, s *kmstest.Server) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.Dir, "tokens", "*", "token.object"))
	require.NoError(t, err)
	for _, file := range files {
		info, err := os.Stat(file)
		require.NoError(t, err)
		if info.Size() == 0 {
			return true
		}
	}
	return false
}

// TestInitTwiceAtOnce starts several in one folder. Those that do not find the store free give up; none does harm.
func TestInitTwiceAtOnce(t *testing.T) {
	s := unprepared(t, kmstest.HomeWrapped)
	var group sync.WaitGroup
	var done sync.Map
	for i := range 4 {
		cmd := initCommand(t, s)
		group.Go(func() {
			out, err := cmd.CombinedOutput()
			if err == nil {
				done.Store(i, true)
			} else if !cmd.ProcessState.Exited() {
				t.Errorf("init did not exit: %v: %s", err, out)
			}
		})
	}
	group.Wait()
	one := false
	done.Range(func(any, any) bool { one = true; return false })
	require.True(t, one, "none was served")
	requireServes(t, s)
}

// TestAccountWithoutCredentials must be said, not passed over.
func TestAccountWithoutCredentials(t *testing.T) {
	s := unprepared(t, kmstest.HomeToken)
	out, err := initCommand(t, s).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NoError(t, os.Remove(filepath.Join(s.Dir, "credentials")))
	out, err = initCommand(t, s).CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "does not hold its access key")
}

// TestInitOverwritesNoAccessKey has one credentials file named for two accounts, and a run of another account's that died.
func TestInitOverwritesNoAccessKey(t *testing.T) {
	s := unprepared(t, kmstest.HomeToken)
	out, err := initCommand(t, s).CombinedOutput()
	require.NoError(t, err, "%s", out)
	credentials := filepath.Join(s.Dir, "credentials")
	first, err := os.ReadFile(credentials)
	require.NoError(t, err)
	for _, file := range []string{credentials, credentials + ".new"} {
		other := initCommand(t, s)
		for i, argument := range other.Args {
			if argument == kmstest.Account {
				other.Args[i] = "444455556666"
			}
		}
		out, err := other.CombinedOutput()
		require.Error(t, err)
		require.Contains(t, string(out), "holds the access key of account "+kmstest.Account)
		kept, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, first, kept)
		if file == credentials {
			require.NoError(t, os.Rename(credentials, credentials+".new"))
		}
	}
	out, err = initCommand(t, s).CombinedOutput()
	require.NoError(t, err, "%s", out)
	requireServes(t, s)
}
