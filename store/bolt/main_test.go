package bolt

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// roles are what the test binary does instead of testing when childRole is in its environment.
var roles = map[string]func(path string) error{
	"open":   openOnce,
	"commit": commitForEver,
}

const (
	childRole = "HSMKMS_BOLT_TEST_ROLE"
	childPath = "HSMKMS_BOLT_TEST_PATH"
)

// exitInUse is the exit code of a child whose error is ErrInUse.
const exitInUse = 42

func TestMain(m *testing.M) {
	role, ok := roles[os.Getenv(childRole)]
	if !ok {
		os.Exit(m.Run())
	}
	err := role(os.Getenv(childPath))
	switch {
	case errors.Is(err, ErrInUse):
		fmt.Println(err)
		os.Exit(exitInUse)
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func openOnce(path string) error {
	s, err := Open(Config{Path: path})
	if err != nil {
		return err
	}
	return s.Close()
}

// child starts the test binary in a role and returns its standard output.
func child(t *testing.T, role, path string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childRole+"="+role, childPath+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	return cmd, bufio.NewReader(out)
}

// finish reads the rest of the output of a child and returns it with the exit code.
func finish(t *testing.T, cmd *exec.Cmd, out *bufio.Reader) (rest string, code int) {
	t.Helper()
	all, err := io.ReadAll(out)
	require.NoError(t, err)
	if err := cmd.Wait(); err != nil {
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
	}
	return string(all), cmd.ProcessState.ExitCode()
}
