package test

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/stretchr/testify/require"

	"hsmkms/audit"
	"hsmkms/hsm/hsmtest"
	"hsmkms/test/kmstest"
)

var exportLines = regexp.MustCompile(`^export AWS_ACCESS_KEY_ID=(AKIA[A-Z2-7]{16})\nexport AWS_SECRET_ACCESS_KEY=([A-Za-z0-9+/]{40})\n$`)

// rootOf gives the root user whose access key a command printed.
func rootOf(t *testing.T, s *kmstest.Server, out string) kmstest.Someone {
	t.Helper()
	parts := exportLines.FindStringSubmatch(out)
	require.NotNil(t, parts)
	return s.As(aws.Credentials{AccessKeyID: parts[1], SecretAccessKey: parts[2]})
}

// whoami gives the ARN of an identity, or "" if it is refused.
func whoami(t *testing.T, who kmstest.Someone) string {
	t.Helper()
	out, err := who.STS.GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	if err != nil {
		kmstest.RequireError(t, err, "InvalidClientTokenId", "The security token included in the request is invalid.")
		return ""
	}
	return *out.Arn
}

// TestAccountCommands makes accounts of a running server, and finds identities again after a restart and a crash.
func TestAccountCommands(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "admin.sock")
	s, err := kmstest.Make(dir, hsmtest.ModulePath(t), kmstest.Options{Top: []string{"admin_socket: " + socket}})
	require.NoError(t, err)
	require.NoError(t, s.Run())
	t.Cleanup(func() { _ = s.Stop() })
	admin := "--admin-socket=" + socket
	info, err := os.Stat(socket)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	out, _, err := run(t, "account", "create", "444455556666", admin)
	require.NoError(t, err)
	root := rootOf(t, s, out)
	require.Equal(t, "arn:aws:iam::444455556666:root", whoami(t, root))
	out, _, err = run(t, "account", "list", admin)
	require.NoError(t, err)
	require.Equal(t, kmstest.Account+"\n444455556666\n", out)

	// The accounts see nothing of each other's identities.
	_, err = root.IAM.CreateUser(t.Context(), &iam.CreateUserInput{UserName: aws.String("survivor")})
	require.NoError(t, err)
	_, err = s.Root().IAM.GetUser(t.Context(), &iam.GetUserInput{UserName: aws.String("survivor")})
	require.ErrorContains(t, err, "NoSuchEntity")
	key, err := root.IAM.CreateAccessKey(t.Context(), &iam.CreateAccessKeyInput{UserName: aws.String("survivor")})
	require.NoError(t, err)
	credentials := aws.Credentials{AccessKeyID: *key.AccessKey.AccessKeyId, SecretAccessKey: *key.AccessKey.SecretAccessKey}

	out, _, err = run(t, "account", "rotate-root", "444455556666", admin)
	require.NoError(t, err)
	rotated := rootOf(t, s, out)
	require.Empty(t, whoami(t, root), "the key before")
	require.Equal(t, "arn:aws:iam::444455556666:root", whoami(t, rotated))
	// That of the development account is in its files.
	before := s.Root()
	_, _, err = run(t, "account", "rotate-root", kmstest.Account, admin)
	require.NoError(t, err)
	require.Empty(t, whoami(t, before))

	require.NoError(t, s.Kill()) // leaves its socket behind
	require.NoError(t, s.Run())
	require.Equal(t, "arn:aws:iam::444455556666:user/survivor", whoami(t, s.As(credentials)))
	require.Equal(t, "arn:aws:iam::444455556666:root", whoami(t, s.As(rotated.Credentials)))
	require.Equal(t, kmstest.IAMARN("root"), whoami(t, s.Root()))
	require.NotContains(t, s.Log(), credentials.SecretAccessKey)

	for problem, arguments := range map[string][]string{
		"the account exists":                  {"account", "create", "444455556666", admin},
		"an account id has 12 digits":         {"account", "create", "12", admin},
		"there is no such account":            {"account", "rotate-root", "777788889999", admin},
		"no such file or directory":           {"account", "list", admin + "x"},
		`required flag(s) "admin-socket" not`: {"account", "list"},
		"accepts 1 arg(s), received 0":        {"account", "create", admin},
	} {
		out, said, err := run(t, arguments...)
		require.Error(t, err, arguments)
		require.Contains(t, said, problem)
		require.NotContains(t, out, "export")
	}
	require.NoError(t, s.Stop())
	require.NoFileExists(t, socket)
	require.Equal(t, []string{"CreateAccount 444455556666", "RotateRootAccessKey 444455556666", "RotateRootAccessKey " + kmstest.Account}, operatorRecords(t, s))
}

// operatorRecords gives what the audit trail has of the commands.
func operatorRecords(t *testing.T, s *kmstest.Server) (found []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.Dir, "audit", "audit-*.jsonl"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	text, err := os.ReadFile(files[0])
	require.NoError(t, err)
	for line := range bytes.Lines(text) {
		var record struct {
			EventSource, EventName, RecipientAccountId string
		}
		require.NoError(t, json.Unmarshal(line, &record))
		if record.EventSource == audit.OwnSource && record.RecipientAccountId != "" {
			found = append(found, record.EventName+" "+record.RecipientAccountId)
		}
	}
	return found
}

// TestAdminSocketFolder has a server refuse to put its socket where others could replace it, or where something else is.
func TestAdminSocketFolder(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	require.NoError(t, os.Mkdir(open, 0o700))
	require.NoError(t, os.Chmod(open, 0o777))
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, []byte("x"), 0o600))
	taken, err := net.Listen("unix", filepath.Join(dir, "taken"))
	require.NoError(t, err)
	defer taken.Close()
	s, err := kmstest.Make(t.TempDir(), hsmtest.ModulePath(t), kmstest.Options{})
	require.NoError(t, err)
	config, err := os.ReadFile(s.Config())
	require.NoError(t, err)
	for path, problem := range map[string]string{
		filepath.Join(open, "s"):        "others may write to " + open,
		file:                            file + " is there, and no socket",
		filepath.Join(dir, "taken"):     "another server listens on " + filepath.Join(dir, "taken"),
		filepath.Join(dir, "none", "s"): "no such file or directory",
	} {
		text := string(config) + "admin_socket: " + path + "\n"
		require.NoError(t, os.WriteFile(s.Config(), []byte(text), 0o600))
		_, said, err := run(t, "serve", "--config", s.Config())
		require.Error(t, err)
		require.Contains(t, said, problem)
		require.NotContains(t, said, "panic")
	}
	require.FileExists(t, file)
}
