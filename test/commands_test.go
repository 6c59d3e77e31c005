package test

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm/hsmtest"
	"hsmkms/hsm/pkcs11"
	"hsmkms/test/kmstest"
)

// run runs a command of hsmkms and gives what it prints.
func run(t *testing.T, arguments ...string) (out, problem string, err error) {
	t.Helper()
	binary, err := kmstest.Binary()
	require.NoError(t, err)
	var stdout, stderr strings.Builder
	cmd := exec.CommandContext(t.Context(), binary, arguments...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	return stdout.String(), stderr.String(), err
}

func TestTokenCommands(t *testing.T) {
	s, err := kmstest.Make(t.TempDir(), hsmtest.ModulePath(t), kmstest.Options{})
	require.NoError(t, err)
	config := "--config=" + s.Config()

	out, _, err := run(t, "token", "list", config, "-o", "json")
	require.NoError(t, err)
	var tokens []pkcs11.TokenInfo
	require.NoError(t, json.Unmarshal([]byte(out), &tokens))
	require.Len(t, tokens, 2, "the token, and SoftHSM's free slot")
	require.Equal(t, "kmstest", tokens[0].Label)

	out, _, err = run(t, "token", "show", config, "-o", "json")
	require.NoError(t, err)
	var shown pkcs11.Capabilities
	require.NoError(t, json.Unmarshal([]byte(out), &shown))
	require.Equal(t, pkcs11.IVCaller, shown.GCM.IV)
	require.NotEmpty(t, shown.Wraps)
	require.NotEmpty(t, shown.KeySpecs)
	require.Positive(t, shown.Limits.MaxPIN)

	out, _, err = run(t, "token", "show", config)
	require.NoError(t, err)
	require.Contains(t, out, "SYMMETRIC_DEFAULT")

	out, _, err = run(t, "token", "bench", config, "--duration", "50ms", "-o", "json")
	require.NoError(t, err)
	var measured []pkcs11.Measurement
	require.NoError(t, json.Unmarshal([]byte(out), &measured))
	require.Len(t, measured, 4)
	for _, m := range measured {
		require.Positive(t, m.Operations, m.Operation)
	}

	for _, arguments := range [][]string{
		{"token", "show"}, {"token", "show", config, "--region", "eu-west-9"}, {"token", "list", config, "-o", "xml"},
		{"token", "bench", config, "--duration", "0s"}, {"token", "list", config, "more"}, {"serve"}, {"init", config, "--account", "1"},
	} {
		_, problem, err := run(t, arguments...)
		require.Error(t, err, arguments)
		require.NotEmpty(t, problem)
	}
}

func TestVersion(t *testing.T) {
	out, _, err := run(t, "version")
	require.NoError(t, err)
	require.Regexp(t, `^hsmkms \S+\n$`, out)
}
