package test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// specRow is a row of the table of key specs in docs/api.md.
type specRow struct {
	spec, usage                string
	onToken, inProcess, absent []string
}

func specRows(t *testing.T) (rows []specRow) {
	t.Helper()
	_, page, _ := apiPage(t)
	for line := range strings.Lines(string(page)) {
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "| KeySpec ") || strings.HasPrefix(line, "| --- ") {
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		require.Len(t, cells, 5, line)
		rows = append(rows, specRow{
			strings.TrimSpace(cells[0]), strings.TrimSpace(cells[1]), strings.Fields(cells[2]), strings.Fields(cells[3]), strings.Fields(cells[4]),
		})
	}
	return rows
}

// TestDocumentedKeySpecs holds the table to what servers with SoftHSM do, one of which keeps all plaintext on the token.
func TestDocumentedKeySpecs(t *testing.T) {
	rows := specRows(t)
	const slowKeys = "request_timeout: 120s" // RSA keys take long to make on a machine under load
	for strict, s := range map[bool]*kmstest.Server{
		false: kmstest.Start(t, kmstest.Options{Top: []string{slowKeys}}),
		true:  kmstest.Start(t, kmstest.Options{Settings: []string{"strict_on_token: true"}, Top: []string{slowKeys}}),
	} {
		for _, row := range rows {
			if row.spec == "RSA_3072" || row.spec == "RSA_4096" { // they take long to make, and test/contract does so
				row.requireLike(t, rows, "RSA_2048")
				continue
			}
			id := row.create(t, s)
			for _, algorithm := range row.onToken {
				require.Equal(t, "DryRunOperationException", row.try(t, s, id, algorithm), "%v", row)
			}
			for _, algorithm := range row.inProcess {
				want := map[bool]string{false: "DryRunOperationException", true: "UnsupportedOperationException"}[strict]
				require.Equal(t, want, row.try(t, s, id, algorithm), "%v", row)
			}
			for _, algorithm := range row.absent {
				if id != "" {
					require.Equal(t, "UnsupportedOperationException", row.try(t, s, id, algorithm), "%v", row)
				}
			}
		}
	}
}

// requireLike checks that the table says the same of another spec.
func (row specRow) requireLike(t *testing.T, rows []specRow, spec string) {
	t.Helper()
	row.spec = spec
	require.Contains(t, rows, row)
}

// create makes a key of the row; "" if the row says that there is none.
func (row specRow) create(t *testing.T, s *kmstest.Server) string {
	t.Helper()
	answer := s.Post(t, "CreateKey", `{"KeySpec":"`+row.spec+`","KeyUsage":"`+row.usage+`"}`)
	if len(row.onToken)+len(row.inProcess) == 0 {
		require.Equal(t, "UnsupportedOperationException", answer.JSON(t)["__type"])
		return ""
	}
	require.Equal(t, http.StatusOK, answer.Status, answer.Body)
	return answer.JSON(t)["KeyMetadata"].(map[string]any)["KeyId"].(string)
}

// try asks for a dry run with an algorithm, and gives the type of the answer.
func (row specRow) try(t *testing.T, s *kmstest.Server, id, algorithm string) any {
	t.Helper()
	operation, body := row.request(t, s, id, algorithm)
	body["KeyId"], body["DryRun"] = id, true
	text, err := json.Marshal(body)
	require.NoError(t, err)
	return s.Post(t, operation, string(text)).JSON(t)["__type"]
}

func (row specRow) request(t *testing.T, s *kmstest.Server, id, algorithm string) (string, map[string]any) {
	t.Helper()
	text := []byte("text")
	switch row.usage {
	case "ENCRYPT_DECRYPT":
		return "Encrypt", map[string]any{"Plaintext": text, "EncryptionAlgorithm": algorithm}
	case "SIGN_VERIFY":
		return "Sign", map[string]any{"Message": text, "SigningAlgorithm": algorithm}
	case "GENERATE_VERIFY_MAC":
		return "GenerateMac", map[string]any{"Message": text, "MacAlgorithm": algorithm}
	default:
		public := s.Post(t, "GetPublicKey", `{"KeyId":"`+id+`"}`).JSON(t)["PublicKey"]
		return "DeriveSharedSecret", map[string]any{"KeyAgreementAlgorithm": algorithm, "PublicKey": public}
	}
}
