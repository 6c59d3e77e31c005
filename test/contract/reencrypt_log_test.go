package contract

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm/hsmtest"
	"hsmkms/test/kmstest"
)

// The marks of TestReEncryptLeavesNoTrace: nothing of them may be in the log.
const (
	markPlaintext  = "the-plaintext-of-the-secret-4a1c"
	markContext    = "the-value-of-the-context-9e2d"
	markContextKey = "the-key-of-the-context-77b0"
	markNewContext = "the-value-of-the-new-context-51fe"
	markGrantToken = "the-grant-token-c3d8"
)

// TestReEncryptLeavesNoTrace re-encrypts a secret, and fails to in every way, with the log at its most talkative. Neither
// the log nor an error may hold anything of what was given or of the server's own secrets.
func TestReEncryptLeavesNoTrace(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		settings, err := os.ReadFile(s.Config())
		require.NoError(t, err)
		require.Contains(t, string(settings), "log_level: debug")
		q, to := newReEncrypt(t, s)
		context := members{markContextKey: markContext}
		encrypt := request{"Encrypt", members{"KeyId": q.keyID, "Plaintext": []byte(markPlaintext), "EncryptionContext": context}}
		encrypted := encrypt.send(t, s)
		blob, err := base64.StdEncoding.DecodeString(encrypted.JSON(t)["CiphertextBlob"].(string))
		require.NoError(t, err)
		q = q.with("CiphertextBlob", blob).with("SourceEncryptionContext", context).with("DestinationEncryptionContext", members{markContextKey: markNewContext})
		moved := q.send(t, s)
		require.Equal(t, http.StatusOK, moved.Status, moved.Body)
		movedText := moved.JSON(t)["CiphertextBlob"].(string)
		decrypted := request{"Decrypt", members{"CiphertextBlob": movedText, "EncryptionContext": members{markContextKey: markNewContext}}}.send(t, s)
		require.Contains(t, decrypted.Body, base64.StdEncoding.EncodeToString([]byte(markPlaintext)))
		answers := append(failReEncrypt(t, s, q, to), encrypted, moved, decrypted)
		log, secrets := logOf(t, s, answers), marks(t, s, blob, movedText)
		for name, mark := range secrets {
			require.NotContains(t, log, mark, name)
		}
		delete(secrets, "the grant token") // AWS's text for too many tokens repeats them
		for name, mark := range secrets {
			for _, answer := range answers {
				require.False(t, answer.Status != http.StatusOK && strings.Contains(answer.Body, mark), "%s in %s", name, answer.Body)
			}
		}
	})
}

// failReEncrypt makes the request fail in every way and gives the answers.
func failReEncrypt(t *testing.T, s *kmstest.Server, q source, to string) []kmstest.Answer {
	t.Helper()
	spoiled := append([]byte{}, q.blob()...)
	spoiled[len(spoiled)-1] ^= 1
	requests := []request{
		q.with("DryRun", true).request,
		q.with("CiphertextBlob", spoiled).request,
		q.with("CiphertextBlob", []byte(markPlaintext)).request,
		q.with("CiphertextBlob", string(markPlaintext)+"!").request,
		q.with("SourceEncryptionContext", members{markContextKey: markNewContext}).request,
		q.with("SourceEncryptionContext", members{markContextKey: strings.Repeat(markContext, 300)}).request,
		q.with("SourceEncryptionContext", []string{markContext}).request,
		q.without("SourceEncryptionContext"),
		q.with("SourceKeyId", to).request,
		q.with("DestinationKeyId", newDisabledKey(t, s)).request,
		q.with("DestinationKeyId", absentKey).request,
		q.with("SourceEncryptionAlgorithm", "RSAES_OAEP_SHA_256").request,
		q.with("DestinationEncryptionAlgorithm", "RSAES_OAEP_SHA_256").request,
		q.with("GrantTokens", []string{markGrantToken}).request,
		q.with("GrantTokens", slices.Repeat([]string{markGrantToken}, 11)).request,
		q.without("DestinationKeyId"),
	}
	var answers []kmstest.Answer
	for _, q := range requests {
		answers = append(answers, q.send(t, s))
	}
	text := `{"CiphertextBlob":"` + base64.StdEncoding.EncodeToString(q.blob()) + `","SourceEncryptionContext":{"` + markContextKey + `":"` + markContext + `"`
	answers = append(answers,
		s.Post(t, "ReEncrypt", text),
		s.Post(t, "ReEncryptToo", text+"}}"),
		s.Send(t, badlySigned(t, s, text+"}}")),
	)
	for _, answer := range answers {
		require.NotEqual(t, http.StatusOK, answer.Status, answer.Body)
	}
	return answers
}

// badlySigned is a request whose signature is wrong.
func badlySigned(t *testing.T, s *kmstest.Server, body string) *http.Request {
	t.Helper()
	r := s.Request(t, "ReEncrypt", body)
	signature := r.Header.Get("Authorization")
	r.Header.Set("Authorization", signature[:len(signature)-64]+strings.Repeat("0", 64))
	return r
}

// logOf waits until the log has a line for each of the answers, and gives it. Without these lines there would be nothing
// to look into.
func logOf(t *testing.T, s *kmstest.Server, answers []kmstest.Answer) string {
	t.Helper()
	for _, answer := range answers {
		id := `"requestId":"` + answer.Header.Get("X-Amzn-Requestid") + `"`
		require.Eventually(t, func() bool { return strings.Contains(s.Log(), id) }, time.Minute, 10*time.Millisecond, "no line for %s", answer.Body)
	}
	return s.Log()
}

// marks are the things that must not be logged, by what they are.
func marks(t *testing.T, s *kmstest.Server, blob []byte, moved string) map[string]string {
	t.Helper()
	pin, err := os.ReadFile(filepath.Join(s.Dir, "pin"))
	require.NoError(t, err)
	require.Equal(t, hsmtest.PIN, strings.TrimSpace(string(pin)))
	text := func(b []byte) string { return strings.Trim(fmt.Sprint(b), "[]") } //nolint:staticcheck // the numbers are what a careless log would show
	return map[string]string{
		"the plaintext":                   markPlaintext,
		"the plaintext in base64":         base64.RawStdEncoding.EncodeToString([]byte(markPlaintext)),
		"the plaintext in hexadecimal":    hex.EncodeToString([]byte(markPlaintext)),
		"the plaintext as numbers":        text([]byte(markPlaintext)),
		"the encryption context":          markContext,
		"the encryption context's key":    markContextKey,
		"the destination's context":       markNewContext,
		"the grant token":                 markGrantToken,
		"the source ciphertext":           base64.RawStdEncoding.EncodeToString(blob),
		"the source's ciphertext as text": text(blob),
		"the source's data":               hex.EncodeToString(blob[ivOffset:]),
		"the destination ciphertext":      strings.TrimRight(moved, "="),
		"the secret access key":           s.Secret,
		"the PIN":                         hsmtest.PIN,
		"the security officer's PIN":      hsmtest.SOPIN,
	}
}
