package audit

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// standard is how encoding/json writes a value without HTML escaping.
func standard(t testing.TB, v any) string {
	t.Helper()
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	require.NoError(t, encoder.Encode(v))
	return strings.TrimSuffix(out.String(), "\n")
}

func FuzzAppendString(f *testing.F) {
	for _, s := range []string{
		"", "plain", `quote " and \ backslash`, "\x00\x01\b\f\n\r\t\x1f\x7f", "<html>&", "äöü 日本 \U0001f511", "\u2028\u2029\ufffd",
		"\xff\xc3", "ä\xc3", "\xed\xa0\x80", "a\"", "\"a",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		require.Equal(t, standard(t, s), string(appendString(nil, s)))
	})
}

func TestParameters(t *testing.T) {
	e := encoder{}
	e.object(Parameters{
		{"text", Text("a\n\"b\"")}, {"number", Int(-7)}, {"yes", Bool(true)}, {"no", Bool(false)}, {"null", Value{}},
		{"time", Time(time.Date(2026, 1, 2, 4, 5, 6, 7, time.FixedZone("", 3600)))}, {"list", Texts([]string{"b", "a"})}, {"none", Texts(nil)},
		{"pairs", Pairs(map[string]string{"b\t": "2", "a": "1"})}, {"nothing", Pairs(nil)},
		{"object", Object(Parameters{{"in", Int(1)}, {"ner", Object(nil)}})},
	})
	want := `{"text":"a\n\"b\"","number":-7,"yes":true,"no":false,"null":null,"time":"2026-01-02T03:05:06Z",` +
		`"list":["b","a"],"none":[],"pairs":{"a":"1","b\t":"2"},"nothing":{},"object":{"in":1,"ner":{}}}`
	require.Equal(t, want, string(e.buf), "byte by byte")
	require.True(t, json.Valid(e.buf))
}

// encoded gives the records of an event as text and parsed.
func encoded(t *testing.T, v *Event) (texts []string, parsed []map[string]any) {
	t.Helper()
	p := getPending()
	require.NoError(t, p.encode(v, bytes.NewReader(make([]byte, 16))))
	start := 0
	for _, end := range p.ends {
		text := string(p.buf[start:end]) + "}"
		var fields map[string]any
		require.NoError(t, json.Unmarshal([]byte(text), &fields), text)
		texts, parsed = append(texts, text), append(parsed, fields)
		start = end
	}
	return texts, parsed
}

func TestEventAsCloudTrailWritesIt(t *testing.T) {
	v := reEncrypt(1)
	v.ErrorCode, v.ErrorMessage = "AccessDenied", "User: x is not authorized"
	v.AdditionalEventData = Parameters{{"keyMaterialId", Text("96083e4f")}}
	v.TLS = &TLSDetails{TLSVersion: "TLSv1.3", CipherSuite: "TLS_AES_128_GCM_SHA256", ClientProvidedHostHeader: "kms.example"}
	v.Recipients = []Recipient{{AccountID: accountA, EventID: "11111111-2222-4333-8444-555555555555"}}
	texts, _ := encoded(t, v)
	require.Equal(t, []string{`{"eventVersion":"1.11","userIdentity":{"type":"IAMUser","principalId":"AIDACKCEVSQ6C2EXAMPLE",` +
		`"arn":"arn:aws:iam::111122223333:user/Alice","accountId":"111122223333","accessKeyId":"AKIAIOSFODNN7EXAMPLE","userName":"Alice"},` +
		`"eventTime":"2026-11-25T21:25:21Z","eventSource":"kms.amazonaws.com","eventName":"ReEncrypt","awsRegion":"us-east-1",` +
		`"sourceIPAddress":"192.0.2.17","userAgent":"aws-cli/2.31.0","errorCode":"AccessDenied","errorMessage":"User: x is not authorized",` +
		`"requestParameters":{"sourceEncryptionAlgorithm":"SYMMETRIC_DEFAULT","sourceEncryptionContext":{"tenant":"blue"},` +
		`"destinationKeyId":"arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-000000000002",` +
		`"destinationEncryptionAlgorithm":"SYMMETRIC_DEFAULT"},"responseElements":null,"additionalEventData":{"keyMaterialId":"96083e4f"},` +
		`"requestID":"request-1","eventID":"11111111-2222-4333-8444-555555555555","readOnly":true,"resources":[` +
		`{"accountId":"111122223333","type":"AWS::KMS::Key","ARN":"arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-000000000001"},` +
		`{"accountId":"111122223333","type":"AWS::KMS::Key","ARN":"arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-000000000002"}],` +
		`"eventType":"AwsApiCall","managementEvent":true,"recipientAccountId":"111122223333","eventCategory":"Management",` +
		`"tlsDetails":{"tlsVersion":"TLSv1.3","cipherSuite":"TLS_AES_128_GCM_SHA256","clientProvidedHostHeader":"kms.example"}}`}, texts)
}

func TestSessionContext(t *testing.T) {
	v := &Event{
		UserIdentity: UserIdentity{Type: "AssumedRole", AccountID: accountA, SessionContext: &SessionContext{
			Issuer:       &UserIdentity{Type: "Role", PrincipalID: "AROA", ARN: "arn:aws:iam::111122223333:role/Admin", AccountID: accountA, UserName: "Admin"},
			CreationDate: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), MFAAuthenticated: true, SourceIdentity: "alice",
		}},
		EventType: "AwsServiceEvent", ServiceEventDetails: Parameters{{"keyId", Text("k")}}, Recipients: []Recipient{{AccountID: accountA}},
	}
	_, parsed := encoded(t, v)
	require.Equal(t, map[string]any{
		"sessionIssuer": map[string]any{
			"type": "Role", "principalId": "AROA", "arn": "arn:aws:iam::111122223333:role/Admin", "accountId": accountA, "userName": "Admin",
		},
		"attributes":     map[string]any{"creationDate": "2026-01-02T03:04:05Z", "mfaAuthenticated": "true"},
		"sourceIdentity": "alice",
	}, parsed[0]["userIdentity"].(map[string]any)["sessionContext"])
	require.Equal(t, "AwsServiceEvent", parsed[0]["eventType"])
	require.Equal(t, map[string]any{"keyId": "k"}, parsed[0]["serviceEventDetails"])
	for _, absent := range []string{"errorCode", "errorMessage", "additionalEventData", "resources", "tlsDetails", "sharedEventID", "userAgent"} {
		require.NotContains(t, parsed[0], absent)
	}
	require.Contains(t, parsed[0], "requestParameters")
	require.Nil(t, parsed[0]["requestParameters"])
}

func TestCallsAcrossAccounts(t *testing.T) {
	v := reEncrypt(1)
	v.ErrorCode, v.ErrorMessage = "AccessDenied", "User: arn:aws:iam::111122223333:user/Alice is not authorized"
	v.Recipients = []Recipient{{AccountID: accountA, EventID: "id-a"}, {AccountID: accountB, EventID: "id-b"}}
	_, parsed := encoded(t, v)
	require.Len(t, parsed, 2)
	shared := parsed[0]["sharedEventID"]
	require.Equal(t, "00000000-0000-4000-8000-000000000000", shared)
	require.Equal(t, shared, parsed[1]["sharedEventID"])
	for i, want := range v.Recipients {
		require.Equal(t, want.EventID, parsed[i]["eventID"])
		require.Equal(t, want.AccountID, parsed[i]["recipientAccountId"])
	}
	require.Equal(t, "arn:aws:iam::111122223333:user/Alice", parsed[0]["userIdentity"].(map[string]any)["arn"])
	require.Equal(t, map[string]any{"type": "AWSAccount", "principalId": "AIDACKCEVSQ6C2EXAMPLE", "accountId": accountA}, parsed[1]["userIdentity"])
	require.Equal(t, v.ErrorMessage, parsed[0]["errorMessage"])
	require.NotContains(t, parsed[1], "errorMessage")
	for _, same := range []string{"requestParameters", "resources", "errorCode"} {
		require.Equal(t, parsed[0][same], parsed[1][same], same)
	}
}

func TestLongFieldsAreCut(t *testing.T) {
	v := reEncrypt(1)
	v.UserAgent = strings.Repeat("ä", 600)
	v.ErrorMessage = strings.Repeat("x", 1025)
	v.RequestParameters = Parameters{{"policy", Text(strings.Repeat("p", maxParameters))}}
	v.AdditionalEventData = Parameters{{"x", Text(strings.Repeat("p", maxAdditional-len(`{"x":""}`)))}}
	v.Recipients = []Recipient{{AccountID: accountA}}
	_, parsed := encoded(t, v)
	require.Equal(t, strings.Repeat("ä", 512), parsed[0]["userAgent"])
	require.Len(t, parsed[0]["errorMessage"], 1024)
	require.Equal(t, map[string]any{
		"omitted": true, "originalSize": float64(maxParameters + len(`{"policy":""}`)), "reason": "requestParameters too large",
	}, parsed[0]["requestParameters"])
	require.Len(t, parsed[0]["additionalEventData"].(map[string]any)["x"], maxAdditional-len(`{"x":""}`))
	require.Equal(t, "ä", cut("äö", 3))

	for len(v.Resources) < 10_000 {
		v.Resources = append(v.Resources, v.Resources[0])
	}
	require.ErrorIs(t, getPending().encode(v, nil), ErrTooLong)
}

func TestNewID(t *testing.T) {
	id, err := NewID(bytes.NewReader(bytes.Repeat([]byte{0xff}, 16)))
	require.NoError(t, err)
	require.Equal(t, "ffffffff-ffff-4fff-bfff-ffffffffffff", id)
	_, err = NewID(bytes.NewReader(nil))
	require.Error(t, err)
}
