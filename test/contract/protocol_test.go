package contract

import (
	"compress/gzip"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

const mediaType = "application/x-amz-json-1.1"

// badRequest is a request that is refused before any operation sees it, although its signature is good.
type badRequest struct {
	name, operation, body string
	edit                  func(*http.Request)
	code, message         string
}

// set makes an edit that sets a header.
func set(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// noOperation are requests that name no operation of the service.
var noOperation = []badRequest{
	{name: "no target", edit: func(r *http.Request) { r.Header.Del("X-Amz-Target") }},
	{name: "an empty target", edit: set("X-Amz-Target", "")},
	{name: "an unknown operation", operation: "NoSuchOperation"},
	{name: "an operation in lower case", operation: "listkeys"},
	{name: "an operation and more", operation: "ListKeys.x"},
	{name: "no operation", operation: ""},
	{name: "no prefix", edit: set("X-Amz-Target", "ListKeys")},
	{name: "a prefix in lower case", edit: set("X-Amz-Target", "trentservice.ListKeys")},
	{name: "the prefix of another service", edit: set("X-Amz-Target", "DynamoDB_20120810.ListTables")},
	{name: "a prefix twice", edit: set("X-Amz-Target", "TrentService.TrentService.ListKeys")},
	{name: "no content type", operation: "ListKeys", edit: func(r *http.Request) { r.Header.Del("Content-Type") }},
	{name: "plain JSON", operation: "ListKeys", edit: set("Content-Type", "application/json")},
	{name: "a bad content type", operation: "ListKeys", edit: set("Content-Type", "application/x-amz-json-1.1; ;")},
	{name: "a newer protocol", operation: "ListKeys", edit: set("Content-Type", "application/x-amz-json-1.2")},
	{name: "another path", operation: "ListKeys", edit: func(r *http.Request) { r.URL.Path = "/keys" }},
	{name: "two slashes", operation: "ListKeys", edit: func(r *http.Request) { r.URL.Path = "//" }},
	{name: "a path that leads back", operation: "ListKeys", edit: func(r *http.Request) { r.URL.Path = "/x/.." }},
	{name: "an administrative path", operation: "ListKeys", edit: func(r *http.Request) { r.URL.Path = "/metrics" }},
	{name: "GET", operation: "ListKeys", edit: func(r *http.Request) { r.Method = http.MethodGet }},
	{name: "PUT", operation: "ListKeys", edit: func(r *http.Request) { r.Method = http.MethodPut }},
	{name: "DELETE", operation: "ListKeys", edit: func(r *http.Request) { r.Method = http.MethodDelete }},
	{name: "PATCH", operation: "ListKeys", edit: func(r *http.Request) { r.Method = http.MethodPatch }},
	{name: "OPTIONS", operation: "ListKeys", edit: func(r *http.Request) { r.Method = http.MethodOptions }},
	{name: "TRACE", operation: "ListKeys", edit: func(r *http.Request) { r.Method = http.MethodTrace }},
	{name: "a method that there is not", operation: "ListKeys", edit: func(r *http.Request) { r.Method = "post" }},
	{name: "a compressed body", operation: "ListKeys", body: compressed("{}"), edit: set("Content-Encoding", "gzip")},
	{name: "a body said to be compressed", operation: "ListKeys", edit: set("Content-Encoding", "gzip")},
}

func compressed(text string) string {
	var out strings.Builder
	w := gzip.NewWriter(&out)
	_, _ = w.Write([]byte(text)) // a strings.Builder takes everything
	_ = w.Close()
	return out.String()
}

// notJSON are bodies that cannot be read, for which AWS has no text.
var notJSON = []string{
	"{", "}", "x", "{x}", `{"Limit":}`, `{"Limit"}`, `{'Limit':1}`, `{"Limit":1,}`, `{"Limit":01}`, `{"Limit":+1}`, `{"Limit":.5}`, `{"Limit":1}x`,
	`{}{}`, `{"Limit":NaN}`, `{"Limit":1}/**/`, "\ufeff{}", "\x00", "{}\x00", "\"\\x\"", `{"Marker":"\u12"}`, "{\"Marker\":\"a\nb\"}",
	"{\"Marker\":\"\xff\"}", "{\"Marker\":\"\xc0\xaf\"}", "{\"Marker\":\"\xed\xa0\x80\"}", "{\"\xff\":1}",
	`{"Marker":"\ud800"}`, `{"Marker":"\udc00\ud800"}`, `{"\ud800":1}`,
	compressed("{}"), "Limit=1", "<xml/>",
	strings.Repeat("[", 1<<20), `{"x":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + "}", strings.Repeat(`{"x":`, 100_000),
}

// wrongForm are requests that are JSON of the wrong form; one for each type of the model that the operations take.
var wrongForm = []badRequest{
	{name: "null", operation: "ListKeys", body: "null", message: "Unexpected field type"},
	{name: "an array", operation: "ListKeys", body: "[]", message: "Start of list found where not expected"},
	{name: "text", operation: "ListKeys", body: `"{}"`, message: "Unexpected field type"},
	{name: "a number", operation: "ListKeys", body: "1", message: "Unexpected field type"},
	{name: "a truth", operation: "ListKeys", body: " true ", message: "Unexpected field type"},
	{name: "a number for text", operation: "DescribeKey", body: `{"KeyId":1}`, message: "NUMBER_VALUE can not be converted to a String"},
	{name: "a truth for text", operation: "DescribeKey", body: `{"KeyId":true}`, message: "TRUE_VALUE can not be converted to a String"},
	{name: "a falsehood for text", operation: "DescribeKey", body: `{"KeyId":false}`, message: "FALSE_VALUE can not be converted to a String"},
	{name: "an array for text", operation: "DescribeKey", body: `{"KeyId":["x"]}`, message: "Start of list found where not expected"},
	{name: "an object for text", operation: "DescribeKey", body: `{"KeyId":{}}`, message: "Start of structure or map found where not expected."},
	{name: "text for an enum", operation: "CreateKey", body: `{"KeySpec":1}`, message: "NUMBER_VALUE can not be converted to a String"},
	{name: "text for an integer", operation: "ListKeys", body: `{"Limit":"1"}`, message: "STRING_VALUE can not be converted to an Integer"},
	{name: "a fraction for an integer", operation: "ListKeys", body: `{"Limit":1.0}`, message: "NUMBER_VALUE can not be converted to an Integer"},
	{name: "too much for an integer", operation: "ListKeys", body: `{"Limit":99999999999999999999}`, message: "NUMBER_VALUE can not be converted to an Integer"},
	{name: "an array for an integer", operation: "ListKeys", body: `{"Limit":[1]}`, message: "Start of list found where not expected"},
	{name: "text for a truth", operation: "CreateKey", body: `{"MultiRegion":"true"}`, message: "STRING_VALUE can not be converted to a Boolean"},
	{name: "a number for a truth", operation: "CreateKey", body: `{"MultiRegion":1}`, message: "NUMBER_VALUE can not be converted to a Boolean"},
	{name: "a number for a blob", operation: "Encrypt", body: `{"KeyId":"x","Plaintext":1}`, message: "NUMBER_VALUE can not be converted to a ByteBuffer"},
	{name: "an array for a blob", operation: "Encrypt", body: `{"KeyId":"x","Plaintext":[1,2]}`, message: "Start of list found where not expected"},
	{name: "text for a list", operation: "CreateKey", body: `{"Tags":"x"}`, message: "Unexpected field type"},
	{name: "an object for a list", operation: "CreateKey", body: `{"Tags":{}}`, message: "Start of structure or map found where not expected."},
	{name: "text for a structure", operation: "CreateKey", body: `{"Tags":["x"]}`, message: "Unexpected field type"},
	{name: "a number in a list", operation: "DescribeKey", body: `{"KeyId":"x","GrantTokens":[1]}`, message: "NUMBER_VALUE can not be converted to a String"},
	{name: "text for a map", operation: "Encrypt", body: `{"KeyId":"x","Plaintext":"eA==","EncryptionContext":"x"}`, message: "Unexpected field type"},
	{name: "an array for a map", operation: "Encrypt", body: `{"KeyId":"x","Plaintext":"eA==","EncryptionContext":[]}`, message: "Start of list found where not expected"},
	{name: "a number in a map", operation: "Encrypt", body: `{"KeyId":"x","Plaintext":"eA==","EncryptionContext":{"k":1}}`, message: "NUMBER_VALUE can not be converted to a String"},
	{name: "an object in a map", operation: "Encrypt", body: `{"KeyId":"x","Plaintext":"eA==","EncryptionContext":{"k":{}}}`, message: "Start of structure or map found where not expected."},
	{name: "form before constraints", operation: "CreateKey", body: `{"KeySpec":"x","MultiRegion":1}`, message: "NUMBER_VALUE can not be converted to a Boolean"},
	{name: "base64 without padding", operation: "Encrypt", body: `{"KeyId":"x","Plaintext":"eA"}`},
	{name: "base64 with stray bits", operation: "Encrypt", body: `{"KeyId":"x","Plaintext":"eB=="}`},
	{name: "base64 with a line end", operation: "Encrypt", body: `{"KeyId":"x","Plaintext":"eHh4\neHh4"}`},
	{name: "base64 with a space", operation: "Encrypt", body: `{"KeyId":"x","Plaintext":" eA=="}`},
	{name: "base64 for URLs", operation: "Encrypt", body: `{"KeyId":"x","Plaintext":"_-8="}`},
	{name: "no base64", operation: "Encrypt", body: `{"KeyId":"x","Plaintext":"ä"}`},
}

// wireRefusals are all requests of the tables above, with their answers.
func wireRefusals() []badRequest {
	var all []badRequest
	for _, q := range noOperation {
		q.code = "UnknownOperationException"
		all = append(all, q)
	}
	for _, body := range notJSON {
		all = append(all, badRequest{name: body[:min(len(body), 20)], operation: "ListKeys", body: body, code: "SerializationException"})
	}
	for _, q := range wrongForm {
		q.code = "SerializationException"
		all = append(all, q)
	}
	return all
}

func (q badRequest) request(t testing.TB, s *kmstest.Server) *http.Request {
	t.Helper()
	if q.edit == nil {
		return s.Request(t, q.operation, q.body)
	}
	return s.Request(t, q.operation, q.body, q.edit)
}

// TestWireRefusals sends every bad request on one connection: each gets its answer, and the connection goes on working.
func TestWireRefusals(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		w := dial(t, s)
		ids := map[string]bool{}
		for _, q := range wireRefusals() {
			answer := w.send(q.request(t, s))
			t.Run(q.name, func(t *testing.T) {
				answer.RequireRefusal(t, q.code, q.message)
				require.Equal(t, mediaType, answer.Header.Get("Content-Type"))
			})
			good := w.send(s.Request(t, "ListKeys", `{"Limit":1}`))
			require.Equal(t, http.StatusOK, good.Status, "after %s", q.name)
			for _, id := range []string{answer.Header.Get("X-Amzn-Requestid"), good.Header.Get("X-Amzn-Requestid")} {
				require.NoError(t, uuid.Validate(id))
				require.False(t, ids[id], "a request id twice")
				ids[id] = true
			}
		}
		require.Len(t, ids, 2*len(wireRefusals()))
	})
}

// TestErrorBodies pins the very bytes of answers.
func TestErrorBodies(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for _, test := range []struct{ operation, body, want string }{
			{"DescribeKey", `{"KeyId":"<&>\u00e4\u2028\""}`, `{"__type":"NotFoundException","message":"Invalid keyId '<&>ä\u2028\"'"}`},
			{"Decrypt", `{"CiphertextBlob":"AAAA"}`, `{"__type":"InvalidCiphertextException"}`},
			{"NoSuchOperation", "{}", `{"__type":"UnknownOperationException"}`},
			{"ListKeys", "{", `{"__type":"SerializationException"}`},
		} {
			answer := s.Post(t, test.operation, test.body)
			require.Equal(t, http.StatusBadRequest, answer.Status)
			require.Equal(t, test.want, answer.Body)
			require.Equal(t, mediaType, answer.Header.Get("Content-Type"))
		}
	})
}

// TestEmptyAnswers checks that operations without output answer with no body at all.
func TestEmptyAnswers(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id, alias := s.NewKey(t), freeAlias()
		w := dial(t, s)
		for _, q := range []struct{ operation, body string }{
			{"DisableKey", object(t, "KeyId", id)},
			{"EnableKey", object(t, "KeyId", id)},
			{"UpdateKeyDescription", object(t, "KeyId", id, "Description", "x")},
			{"CreateAlias", object(t, "AliasName", alias, "TargetKeyId", id)},
			{"UpdateAlias", object(t, "AliasName", alias, "TargetKeyId", id)},
			{"DeleteAlias", object(t, "AliasName", alias)},
		} {
			answer := w.send(s.Request(t, q.operation, q.body))
			require.Equal(t, http.StatusOK, answer.Status, answer.Body)
			require.Empty(t, answer.Body)
			require.Equal(t, "0", answer.Header.Get("Content-Length"))
			require.Equal(t, mediaType, answer.Header.Get("Content-Type"))
			require.NoError(t, uuid.Validate(answer.Header.Get("X-Amzn-Requestid")))
		}
	})
}

// TestBadRequestsWithoutSignature checks that what is no POST to the root needs no signature to be refused.
func TestBadRequestsWithoutSignature(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		w := dial(t, s)
		for _, line := range []string{"GET /", "GET /livez", "PUT /", "POST /x", "OPTIONS *", "OPTIONS /", "CONNECT kms:443", "BREW /pot"} {
			method, _, _ := strings.Cut(line, " ")
			w.write(line + " HTTP/1.1\r\nHost: kms\r\nContent-Length: 2\r\n\r\n{}")
			answer := w.read(&http.Request{Method: method})
			answer.RequireRefusal(t, "UnknownOperationException", "")
			require.Equal(t, mediaType, answer.Header.Get("Content-Type"))
		}
		w.write("HEAD / HTTP/1.1\r\nHost: kms\r\n\r\n")
		answer := w.read(&http.Request{Method: http.MethodHead})
		require.Equal(t, http.StatusBadRequest, answer.Status)
		require.Empty(t, answer.Body)
		require.NoError(t, uuid.Validate(answer.Header.Get("X-Amzn-Requestid")))
		require.Equal(t, http.StatusOK, w.send(s.Request(t, "ListKeys", "{}")).Status)
	})
}

// TestAcceptedForms are requests in unusual forms that mean what they should.
func TestAcceptedForms(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := createKey(t, s, `{"MultiRegion":true}`)["KeyId"].(string)
		require.NotEmpty(t, id) // one key is there
		want := accept(t, s, "ListKeys", `{"Limit":1}`)
		chunked := func(r *http.Request) { r.ContentLength = -1 }
		query := func(r *http.Request) { r.URL.RawQuery = "a=b&Action=CreateKey" }
		for _, test := range []struct {
			name, body string
			edit       func(*http.Request)
		}{
			{"a charset", `{"Limit":1}`, set("Content-Type", "application/x-amz-json-1.1; charset=utf-8")},
			{"an older protocol", `{"Limit":1}`, set("Content-Type", "application/x-amz-json-1.0")},
			{"a content type in capitals", `{"Limit":1}`, set("Content-Type", "Application/X-AMZ-JSON-1.1")},
			{"chunks", `{"Limit":1}`, chunked},
			{"a query", `{"Limit":1}`, query},
			{"an unknown header", `{"Limit":1}`, set("X-Amz-Nonsense", "x")},
			{"white space", "\r\n\t {\t\"Limit\" :\n1 } \r\n", chunked},
			{"unknown members", `{"Foo":{"Limit":[7,{}]},"":null,"Limit":1,"KeyId":7}`, chunked},
			{"members in another case", `{"limit":0,"LIMIT":"x","marker":7,"Limit":1}`, chunked},
			{"a member twice", `{"Limit":0,"Limit":"x","Limit":1}`, chunked},
			{"a member with escapes", `{"\u004cimit":1}`, chunked},
			{"nulls", `{"Limit":1,"Marker":null}`, chunked},
			{"a deep member", `{"Limit":1,"x":` + strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000) + "}", chunked},
			{"the largest body", `{"Limit":1,"x":"` + strings.Repeat("x", 1<<20-18) + `"}`, set("Accept", "*/*")},
			{"the largest body in chunks", `{"Limit":1,"x":"` + strings.Repeat("x", 1<<20-18) + `"}`, chunked},
		} {
			t.Run(test.name, func(t *testing.T) {
				answer := s.Post(t, "ListKeys", test.body, test.edit)
				require.Equal(t, http.StatusOK, answer.Status, answer.Body)
				require.Equal(t, want, answer.JSON(t))
			})
		}
	})
}

// TestLargeBodies sends more than a mebibyte, said beforehand or not.
func TestLargeBodies(t *testing.T) {
	const text = "The request body is larger than 1048576 bytes."
	each(t, func(t *testing.T, s *kmstest.Server) {
		body := `{"Limit":1,"x":"` + strings.Repeat("x", 1<<20-17) + `"}`
		require.Len(t, body, 1<<20+1)
		s.Post(t, "ListKeys", body).RequireRefusal(t, "RequestEntityTooLargeException", text)
		s.Post(t, "ListKeys", body, func(r *http.Request) { r.ContentLength = -1 }).RequireRefusal(t, "RequestEntityTooLargeException", text)
		for _, length := range []string{"1048577", "9223372036854775807"} {
			w := dial(t, s) // without sending any of it, and without a signature
			w.write("POST / HTTP/1.1\r\nHost: kms\r\nContent-Length: " + length + "\r\n\r\n")
			w.read(nil).RequireRefusal(t, "RequestEntityTooLargeException", text)
		}
		w := dial(t, s) // a chunk that never ends
		w.write("POST / HTTP/1.1\r\nHost: kms\r\nTransfer-Encoding: chunked\r\n\r\n7fffffff\r\n" + strings.Repeat("x", 1<<20+1))
		w.read(nil).RequireRefusal(t, "RequestEntityTooLargeException", text)
	})
}

// TestSeveralViolations checks that all failed constraints are told, in the model's order.
func TestSeveralViolations(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		s.Post(t, "CreateKey", `{"XksKeyId":"","Tags":[{"TagKey":""},null],"KeyUsage":"x","CustomKeyStoreId":""}`).RequireRefusal(t, "ValidationException",
			"7 validation errors detected: Value '' at 'customKeyStoreId' failed to satisfy constraint: Member must have length greater than or equal to 1; "+
				"Value 'x' at 'keyUsage' failed to satisfy constraint: Member must "+enumText(t, "KeyUsageType")+"; "+
				"Value '' at 'tags.1.member.tagKey' failed to satisfy constraint: Member must have length greater than or equal to 1; "+
				"Value at 'tags.1.member.tagValue' failed to satisfy constraint: Member must not be null; "+
				"Value at 'tags.2.member' failed to satisfy constraint: Member must not be null; "+
				"Value '' at 'xksKeyId' failed to satisfy constraint: Member must have length greater than or equal to 1; "+
				"Value '' at 'xksKeyId' failed to satisfy constraint: Member must satisfy regular expression pattern: ^[a-zA-Z0-9-_.]+$")
	})
}

// TestRubbish sends what is no HTTP, alone and after a good request, and clients that go away in the middle. None of it
// hurts the server.
func TestRubbish(t *testing.T) {
	rubbish := []string{
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "\x00\x00\x00\x00\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "x\r\n\r\n",
		"POST / HTTP/9.9\r\nHost: kms\r\n\r\n", "POST / HTTP/1.1\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: kms\r\nContent-Length: -1\r\n\r\n", "POST / HTTP/1.1\r\nHost: kms\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
		"POST / HTTP/1.1\r\nHost: kms\r\nTransfer-Encoding: gzip\r\n\r\n{}", "POST / HTTP/1.1\r\nHost: kms\r\nX Amz: 1\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: kms\r\nX-Amz\x00: 1\r\n\r\n", "POST /%zz HTTP/1.1\r\nHost: kms\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: kms\r\nX-Long: " + strings.Repeat("x", 80<<10) + "\r\n\r\n",
	}
	each(t, func(t *testing.T, s *kmstest.Server) {
		for _, text := range rubbish {
			w := dial(t, s)
			w.write(text)
			answer := w.read(nil)
			require.GreaterOrEqual(t, answer.Status, 400, "%q", text[:min(len(text), 60)])
			require.Less(t, answer.Status, 506, "%q", text[:min(len(text), 60)])

			w = dial(t, s) // pipelined: the good request before it has its answer
			r := s.Request(t, "ListKeys", `{"Limit":1}`)
			require.NoError(t, r.Write(w.conn))
			w.write(text)
			require.Equal(t, http.StatusOK, w.read(r).Status)
			require.GreaterOrEqual(t, w.read(nil).Status, 400)
		}
		for _, text := range []string{
			"", "P", "POST / HTTP/1.1\r\nHost:", "POST / HTTP/1.1\r\nHost: kms\r\nContent-Length: 100\r\n\r\n{",
			"POST / HTTP/1.1\r\nHost: kms\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
		} {
			w := dial(t, s)
			w.write(text)
			require.NoError(t, w.conn.Close())
		}
		require.Equal(t, http.StatusOK, s.Post(t, "ListKeys", "{}").Status)
	})
}

// TestBrokenChunks sends a body whose end does not come as it should: it is no JSON, whatever has arrived of it.
func TestBrokenChunks(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		w := dial(t, s)
		w.write("POST / HTTP/1.1\r\nHost: kms\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n")
		w.read(nil).RequireRefusal(t, "SerializationException", "")
	})
}

// TestPipelining sends many requests before reading an answer: they are answered in order.
func TestPipelining(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		w := dial(t, s)
		id := s.NewKey(t)
		var sent []*http.Request
		for i := range 20 {
			r := s.Request(t, "DescribeKey", object(t, "KeyId", []string{id, absentKey}[i%2]))
			require.NoError(t, r.Write(w.conn))
			sent = append(sent, r)
		}
		for i, r := range sent {
			require.Equal(t, []int{http.StatusOK, http.StatusBadRequest}[i%2], w.read(r).Status)
		}
	})
}
