package contract

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// eachFresh runs a test against a server of its own for each home, for tests that count all keys or all requests.
func eachFresh(t *testing.T, test func(t *testing.T, s *kmstest.Server)) {
	t.Helper()
	for home := range servers {
		t.Run(home, func(t *testing.T) { test(t, kmstest.Start(t, kmstest.Options{Home: home, Top: []string{slowKeys}})) })
	}
}

// publishedModel is AWS's description of the service, as far as tests look into it.
type publishedModel struct {
	Operations map[string]json.RawMessage
	Shapes     map[string]struct{ Enum []string }
}

// model gives the published model.
func model(t testing.TB) *publishedModel {
	t.Helper()
	text, err := os.ReadFile("../../api/model/kms-2014-11-01.json")
	require.NoError(t, err)
	m := &publishedModel{}
	require.NoError(t, json.Unmarshal(text, m))
	require.Len(t, m.Operations, 54)
	return m
}

// enum gives the values of an enumeration of the model, in its order.
func enum(t testing.TB, shape string) []string {
	t.Helper()
	values := model(t).Shapes[shape].Enum
	require.NotEmpty(t, values, shape)
	return values
}

// object makes JSON text of member names and values that alternate.
func object(t testing.TB, pairs ...any) string {
	t.Helper()
	m := members{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i].(string)] = pairs[i+1]
	}
	text, err := json.Marshal(m)
	require.NoError(t, err)
	return string(text)
}

// accept sends a request that must succeed with a body, and gives it.
func accept(t testing.TB, s *kmstest.Server, operation, body string) members {
	t.Helper()
	answer := s.Post(t, operation, body)
	require.Equal(t, http.StatusOK, answer.Status, answer.Body)
	return answer.JSON(t)
}

// perform sends a request that must succeed and be answered with an empty body.
func perform(t testing.TB, s *kmstest.Server, operation, body string) {
	t.Helper()
	answer := s.Post(t, operation, body)
	require.Equal(t, http.StatusOK, answer.Status, answer.Body)
	require.Empty(t, answer.Body)
}

// violated is AWS's text for one failed constraint.
func violated(value, member, demand string) string {
	return invalid("Value '"+value+"' at '"+member+"'", demand)
}

// missing is AWS's text for a required member that is not there.
func missing(member string) string { return invalid("Value at '"+member+"'", "not be null") }

// enumText is what an enumeration demands.
func enumText(t testing.TB, shape string) string {
	return "satisfy enum value set: [" + strings.Join(enum(t, shape), ", ") + "]"
}

// list gives the named member of an answer as a list of objects.
func list(t testing.TB, answer members, member string) []members {
	t.Helper()
	values, ok := answer[member].([]any)
	require.True(t, ok, "%v", answer)
	entries := make([]members, len(values))
	for i := range values {
		entries[i], ok = values[i].(members)
		require.True(t, ok, "%v", values[i])
	}
	return entries
}

// column gives one member of each entry of a list.
func column(entries []members, member string) []string {
	values := make([]string, len(entries))
	for i := range entries {
		values[i], _ = entries[i][member].(string)
	}
	return values
}

// requireKeyNames names a key in every wrong way; body makes a request of the JSON text that stands for the name. Most
// operations that manage a key take no aliases.
func requireKeyNames(t *testing.T, s *kmstest.Server, operation, member string, aliases bool, body func(name string) string) {
	t.Helper()
	id := s.NewKey(t)
	alias, long := newAlias(t, s, id), strings.Repeat("k", 2049)
	tests := append(wrongKeyNames(id, operation),
		wrongKeyName{"", "ValidationException", violated("", member, "have length greater than or equal to 1")},
		wrongKeyName{long, "ValidationException", violated(long, member, "have length less than or equal to 2048")})
	if !aliases {
		tests = append(tests, wrongKeyName{name: alias}, wrongKeyName{name: kmstest.AliasARN(alias)})
	}
	for _, test := range tests {
		isAlias := strings.HasPrefix(test.name, "alias/") || strings.HasPrefix(test.name, "arn:aws:kms:"+kmstest.Region+":") && strings.Contains(test.name, ":alias/")
		if isAlias && !aliases {
			test.code, test.message = "NotFoundException", "Invalid keyId '"+test.name+"'"
		}
		s.Post(t, operation, body(`"`+test.name+`"`)).RequireRefusal(t, test.code, test.message)
	}
	s.Post(t, operation, body("7")).RequireRefusal(t, "SerializationException", "NUMBER_VALUE can not be converted to a String")
}

// wire is one connection to the server.
type wire struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
}

// dial opens a connection that ends with the test. Whoever waits for 20 seconds waits in vain: the server itself gives up
// on a client after 30.
func dial(t testing.TB, s *kmstest.Server) *wire {
	t.Helper()
	dialer := net.Dialer{}
	conn, err := dialer.DialContext(t.Context(), "tcp", strings.TrimPrefix(s.Endpoint, "http://"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	return &wire{t: t, conn: conn, in: bufio.NewReader(conn)}
}

// send sends a request and reads its answer.
func (w *wire) send(r *http.Request) kmstest.Answer {
	w.t.Helper()
	require.NoError(w.t, r.Write(w.conn))
	return w.read(r)
}

// write sends bytes as they are.
func (w *wire) write(text string) {
	w.t.Helper()
	_, err := io.WriteString(w.conn, text)
	require.NoError(w.t, err)
}

// read reads the answer to r.
func (w *wire) read(r *http.Request) kmstest.Answer {
	w.t.Helper()
	answer, err := http.ReadResponse(w.in, r)
	require.NoError(w.t, err)
	body, err := io.ReadAll(answer.Body)
	require.NoError(w.t, err)
	require.NoError(w.t, answer.Body.Close())
	return kmstest.Answer{Status: answer.StatusCode, Header: answer.Header, Body: string(body)}
}

// How long to wait for what happens soon, and how often to look. No test passes or fails by these.
const (
	waitLimit = time.Minute
	waitStep  = 10 * time.Millisecond
)
