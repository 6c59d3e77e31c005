package contract

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// What the operations with key pairs and HMAC keys have in common. Whatever such a key does is checked outside, with Go's
// own cryptography and with the openssl command.

// sharedKeys are keys that the tests use and never change, as CreateKey described them, by server, spec and usage: RSA key
// pairs take seconds to make.
var sharedKeys = map[*kmstest.Server]map[string]members{}

// sharedKey gives the id of a key that other tests use too.
func sharedKey(t testing.TB, s *kmstest.Server, spec, usage string) string {
	t.Helper()
	return sharedMetadata(t, s, spec, usage)["KeyId"].(string)
}

// sharedMetadata gives what CreateKey answered for it.
func sharedMetadata(t testing.TB, s *kmstest.Server, spec, usage string) members {
	t.Helper()
	if sharedKeys[s] == nil {
		sharedKeys[s] = map[string]members{}
	}
	name := spec + " " + usage
	if sharedKeys[s][name] == nil {
		sharedKeys[s][name] = createKey(t, s, object(t, "KeySpec", spec, "KeyUsage", usage))
	}
	return sharedKeys[s][name]
}

// newKeyOf makes a key of a spec and gives its id.
func newKeyOf(t testing.TB, s *kmstest.Server, spec, usage string) string {
	t.Helper()
	return createKey(t, s, object(t, "KeySpec", spec, "KeyUsage", usage))["KeyId"].(string)
}

// blobOf gives a blob of an answer.
func blobOf(t testing.TB, answer members, member string) []byte {
	t.Helper()
	text, _ := answer[member].(string)
	blob, err := base64.StdEncoding.Strict().DecodeString(text)
	require.NoError(t, err)
	require.NotEmpty(t, blob, "the answer lacks %s: %v", member, answer)
	return blob
}

// publicDER gives the SubjectPublicKeyInfo of a key.
func publicDER(t testing.TB, s *kmstest.Server, id string) []byte {
	t.Helper()
	return blobOf(t, accept(t, s, "GetPublicKey", object(t, "KeyId", id)), "PublicKey")
}

// publicKey gives the public key of a key, as Go reads it.
func publicKey[Public any](t testing.TB, s *kmstest.Server, id string) Public {
	t.Helper()
	public, err := x509.ParsePKIXPublicKey(publicDER(t, s, id))
	require.NoError(t, err)
	require.IsType(t, *new(Public), public)
	return public.(Public)
}

func ecdhKey(t testing.TB, s *kmstest.Server, id string) *ecdh.PublicKey {
	t.Helper()
	public, err := publicKey[*ecdsa.PublicKey](t, s, id).ECDH()
	require.NoError(t, err)
	return public
}

// openssl runs the openssl command in a folder with files, and gives what it writes to its output.
func openssl(t testing.TB, files map[string][]byte, args ...string) ([]byte, error) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	var out, complaint bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "openssl", args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &complaint
	err := cmd.Run()
	require.NotErrorIs(t, err, exec.ErrNotFound, "install it: softhsm-config/install-deps.sh openssl")
	if err != nil {
		err = fmt.Errorf("openssl %v: %w: %s%s", args, err, complaint.String(), out.String())
	}
	return out.Bytes(), err
}

// testWrongUsage sends a request about keys that are for something else. That beats whatever else is wrong with it: q is
// about another key, of the usage that is right.
func testWrongUsage(t *testing.T, s *kmstest.Server, q request, usage string) {
	others := map[string]string{
		"ENCRYPT_DECRYPT": s.NewKey(t), "SIGN_VERIFY": sharedKey(t, s, "ECC_NIST_P384", "SIGN_VERIFY"),
		"GENERATE_VERIFY_MAC": sharedKey(t, s, "HMAC_384", "GENERATE_VERIFY_MAC"), "KEY_AGREEMENT": sharedKey(t, s, "ECC_NIST_P384", "KEY_AGREEMENT"),
	}
	require.Contains(t, others, usage)
	delete(others, usage)
	for other, id := range others {
		text := kmstest.KeyARN(id) + " key usage is " + other + " which is not valid for " + q.operation + "."
		q.with("KeyId", id).requireRefusal(t, s, "InvalidKeyUsageException", text)
		q.with("KeyId", id).with("DryRun", true).requireRefusal(t, s, "InvalidKeyUsageException", text)
	}
}

// testMessage gives messages of every length to a request, which must take those of 1 to 4096 bytes to tell by fits.
func testMessage(t *testing.T, s *kmstest.Server, q request, fits func(t *testing.T, q request, message []byte)) {
	for _, size := range []int{1, 2, 63, 64, 65, 4095, 4096} {
		message := bytes.Repeat([]byte{0, 0xFF, 'x'}, size)[:size]
		fits(t, q.with("Message", message), message)
	}
	const at = "Value at 'message'"
	q.with("Message", []byte{}).requireRefusal(t, s, "ValidationException", invalid(at, "have length greater than or equal to 1"))
	q.with("Message", make([]byte, 4097)).requireRefusal(t, s, "ValidationException", invalid(at, "have length less than or equal to 4096"))
	q.without("Message").requireRefusal(t, s, "ValidationException", invalid(at, "not be null"))
}

// testEnum gives values to a required member of an enumeration that it does not have.
func testEnum(t *testing.T, s *kmstest.Server, q request, member, shape string) {
	for _, value := range []string{"INVALID", ""} {
		q.with(member, value).requireRefusal(t, s, "ValidationException", violated(value, lowerCamel(member), enumText(t, shape)))
	}
	q.without(member).requireRefusal(t, s, "ValidationException", missing(lowerCamel(member)))
}

// testIncompatible gives a request all algorithms of an enumeration that the key does not have.
func testIncompatible(t *testing.T, s *kmstest.Server, q request, member, shape, spec string, own ...string) {
	for _, algorithm := range enum(t, shape) {
		if slices.Contains(own, algorithm) {
			continue
		}
		text := "Algorithm " + algorithm + " is incompatible with key spec " + spec + "."
		q.with(member, algorithm).requireRefusal(t, s, "InvalidKeyUsageException", text)
		q.with(member, algorithm).with("DryRun", true).requireRefusal(t, s, "InvalidKeyUsageException", text)
	}
}
