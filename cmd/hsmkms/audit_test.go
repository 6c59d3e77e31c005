package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/audit"
)

// auditTrail makes a trail with some calls, and a file with the public key.
func auditTrail(t *testing.T) (file, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	require.NoError(t, err)
	dir := t.TempDir()
	keyFile = filepath.Join(dir, "audit.pem")
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o600))
	trail, err := audit.New(t.Context(), audit.Config{Dir: filepath.Join(dir, "audit"), Signer: audit.Signer{
		PublicKey: public,
		Sign: func(_ context.Context, digest []byte) ([]byte, error) {
			return ecdsa.SignASN1(rand.Reader, key, digest)
		},
	}})
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, trail.Record(t.Context(), &audit.Event{EventName: "Encrypt", SourceIPAddress: "192.0.2.17"}))
	}
	require.NoError(t, trail.Close(t.Context()))
	files, err := filepath.Glob(filepath.Join(dir, "audit", "*.jsonl"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	return files[0], keyFile
}

// runCommand runs hsmkms and gives what it prints and its exit status.
func runCommand(t *testing.T, args ...string) (out string, status int) {
	t.Helper()
	cmd := root()
	var stdout, stderr bytes.Buffer
	cmd.SetOut(&stdout)
	cmd.SetErr(&stderr)
	cmd.SetArgs(args)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		return stdout.String() + err.Error(), exitStatus(err)
	}
	return stdout.String(), 0
}

func TestAuditVerify(t *testing.T) {
	file, key := auditTrail(t)
	out, status := runCommand(t, "audit", "verify", file, "--public-key", key)
	require.Zero(t, status, out)
	require.Contains(t, out, "3 of them calls")
	require.True(t, strings.HasSuffix(out, "\nOK\n"), out)
	_, position, found := strings.Cut(strings.ReplaceAll(out, "\nOK\n", ""), "to keep elsewhere: ")
	require.True(t, found)

	out, status = runCommand(t, "audit", "verify", filepath.Dir(file), "--public-key", key, "--json", "--checkpoint", position)
	require.Zero(t, status, out)
	var report audit.Report
	require.NoError(t, json.Unmarshal([]byte(out), &report))
	require.Equal(t, position, report.Signed)
	require.Contains(t, out, `"problems": []`)

	text, err := os.ReadFile(file)
	require.NoError(t, err)
	tampered := bytes.Replace(text, []byte("192.0.2.17"), []byte("192.0.2.18"), 2)
	require.NoError(t, os.WriteFile(file, tampered, 0o600))
	out, status = runCommand(t, "audit", "verify", file, "--public-key", key)
	require.Equal(t, exitTampered, status)
	require.True(t, strings.HasPrefix(out, "TAMPERED or damaged; the first problem: "+file+":"), out)
	require.Equal(t, 2, strings.Count(out, "problem: "+file)-1)
	require.NotContains(t, out, "\nOK\n")
	out, status = runCommand(t, "audit", "verify", file, "--public-key", key, "--json")
	require.Equal(t, exitTampered, status)
	require.NoError(t, json.NewDecoder(strings.NewReader(out)).Decode(&report))
	require.Len(t, report.Problems, 2)

	// The stop and the checkpoint over it are cut off, or a file before was archived.
	before, _, found := bytes.Cut(text, []byte(`"StopAuditTrail"`))
	require.True(t, found)
	require.NoError(t, os.WriteFile(file, before, 0o600))
	_, status = runCommand(t, "audit", "verify", file, "--public-key", key)
	require.Equal(t, exitTampered, status)
	require.NoError(t, os.WriteFile(file, text, 0o600))
	for _, args := range [][]string{
		{"--checkpoint", "1:" + strings.Repeat("0", 64)}, {"--expect-sequence", strconv.FormatUint(report.Last+1, 10)}, {"--from-sequence", "2"},
	} {
		out, status = runCommand(t, append([]string{"audit", "verify", file, "--public-key", key}, args...)...)
		require.Equal(t, exitTampered, status, out)
	}
}

// TestAuditVerifyWithTheKeyBeside takes the key that the server has put beside the trail when none is given, of a file as of a folder.
func TestAuditVerifyWithTheKeyBeside(t *testing.T) {
	file, key := auditTrail(t)
	text, err := os.ReadFile(key)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(file), publicKeyFile), text, 0o600))
	for _, path := range []string{file, filepath.Dir(file)} {
		out, status := runCommand(t, "audit", "verify", path)
		require.Zero(t, status, out)
		require.Contains(t, out, "last signed record")
	}
	_, other := auditTrail(t)
	out, status := runCommand(t, "audit", "verify", file, "--public-key", other)
	require.Equal(t, exitTampered, status)
	require.Contains(t, out, "signed by another key")
}

func TestAuditVerifyThatCannotTell(t *testing.T) {
	file, key := auditTrail(t)
	none := filepath.Join(t.TempDir(), "none")
	for _, args := range [][]string{
		{"audit", "verify"}, {"audit", "verify", "--public-key", key}, {"audit", "verify", file}, {"audit", "verify", none, "--public-key", key},
		{"audit", "verify", file, "--public-key", none}, {"audit", "verify", file, "--public-key", file},
		{"audit", "verify", file, "--public-key", key, "--checkpoint", "1"}, {"audit", "verify", file, "--public-key", key, "--expect", "x"},
		{"audit", "verify", t.TempDir(), "--public-key", key}, {"audit", "verfy", file},
	} {
		out, status := runCommand(t, args...)
		require.Equal(t, exitUnreadable, status, "%v %s", args, out)
		require.NotContains(t, out, "OK")
	}
	require.Equal(t, 1, exitStatus(os.ErrNotExist))
	out, status := runCommand(t, "audit")
	require.Zero(t, status)
	require.Contains(t, out, "verify")
}
