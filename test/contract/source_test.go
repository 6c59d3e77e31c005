package contract

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/kms/ciphertext"
	"hsmkms/test/kmstest"
)

// What Decrypt and ReEncrypt have in common: they open a ciphertext.

// Where the parts of a blob are: see kms/ciphertext.
const (
	keyIDOffset    = 2
	materialOffset = 18
	ivOffset       = 50
)

// source is where a request that opens a ciphertext has what is needed for it.
type source struct {
	request
	keyMember, contextMember string
	// keyID is the key of the ciphertext.
	keyID string
}

func (q source) blob() []byte { return q.body["CiphertextBlob"].([]byte) }

// with is request.with for a source.
func (q source) with(member string, value any) source {
	q.request = q.request.with(member, value)
	return q
}

// newPlainKey makes a key whose id begins with none of the bytes that a blob begins with, so that what is left of a blob
// without its first byte is a blob by no accident.
func newPlainKey(t *testing.T, s *kmstest.Server) string {
	t.Helper()
	for {
		if id := s.NewKey(t); id[0] != '0' {
			return id
		}
	}
}

// forgery is something in the place of a ciphertext, and the answer to it.
type forgery struct {
	name          string
	blob          []byte
	code, message string
}

// forgeries are made of a blob whose key's id is that of newPlainKey, and of one under another key.
func forgeries(t *testing.T, blob, other []byte) []forgery {
	t.Helper()
	var all []forgery
	bad := func(name string, blob []byte) {
		all = append(all, forgery{name, blob, "InvalidCiphertextException", ""})
	}
	unreachable := func(name string, blob []byte) {
		all = append(all, forgery{name, blob, "AccessDeniedException", textUnreachable})
	}
	for i := range blob {
		changed := bytes.Clone(blob)
		changed[i] ^= 1 << (i % 8)
		if i >= keyIDOffset && i < materialOffset { // another key, which was never made
			unreachable("byte "+strconv.Itoa(i)+" changed", changed)
		} else {
			bad("byte "+strconv.Itoa(i)+" changed", changed)
		}
	}
	for size := 1; size < len(blob); size++ {
		bad("cut off after "+strconv.Itoa(size), blob[:size])
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	noise := sha512.Sum512([]byte("not a ciphertext"))
	bad("a byte appended", join(blob, []byte{0}))
	bad("a byte in front", join([]byte{0}, blob))
	bad("the first byte cut off", blob[1:])
	bad("the header cut off", blob[ivOffset:])
	bad("twice", join(blob, blob))
	bad("zeros", make([]byte, len(blob)))
	bad("random bytes", join(noise[:], noise[:]))
	bad("an RSA ciphertext", join(noise[:], noise[:], noise[:], noise[:]))
	bad("the largest blob", join(blob, make([]byte, ciphertext.MaxSize-len(blob))))
	bad("a material of no key", join(blob[:materialOffset], noise[:32], blob[ivOffset:]))
	bad("another key's material", join(blob[:materialOffset], other[materialOffset:ivOffset], blob[ivOffset:]))
	bad("another key's ciphertext", join(blob[:ivOffset], other[ivOffset:]))
	bad("another key's header", join(other[:ivOffset], blob[ivOffset:]))
	multiRegion := bytes.Clone(blob)
	multiRegion[1] = 2
	unreachable("the same digits as a multi-Region key", multiRegion)
	unreachable("a key never made", absentKeyBlob(t, absentKey))
	unreachable("a multi-Region key never made", absentKeyBlob(t, "mrk-"+strings.ReplaceAll(absentKey, "-", "")))
	return all
}

// absentKeyBlob is a well-formed blob of a key that was never made.
func absentKeyBlob(t *testing.T, keyID string) []byte {
	t.Helper()
	blob, err := ciphertext.Marshal(ciphertext.Blob{Header: ciphertext.Header{KeyID: keyID}, Data: make([]byte, 40)})
	require.NoError(t, err)
	return blob
}

// testForgeries puts forgeries in the place of the ciphertext, with and without the name of its key.
func testForgeries(t *testing.T, s *kmstest.Server, q source) {
	other := s.Encrypt(t, s.NewKey(t), []byte("other"), nil)
	require.NotEqual(t, byte('0'), q.keyID[0], "the key is not of newPlainKey")
	for _, f := range forgeries(t, q.blob(), other) {
		t.Run(f.name, func(t *testing.T) {
			forged := q.with("CiphertextBlob", f.blob)
			forged.without(q.keyMember).requireRefusal(t, s, f.code, f.message)
			named := forged.with(q.keyMember, q.keyID)
			switch {
			case f.code == "AccessDeniedException", f.name == "another key's header":
				named.requireRefusal(t, s, "IncorrectKeyException", textIncorrectKey)
			default:
				named.requireRefusal(t, s, f.code, f.message)
				named.with("DryRun", true).requireRefusal(t, s, f.code, f.message)
			}
		})
	}
	q.requireSuccess(t, s)
}

// testBlobSizes puts in the place of the ciphertext what the API does not take for one.
func testBlobSizes(t *testing.T, s *kmstest.Server, q source) {
	const at = "Value at 'ciphertextBlob'"
	q.without("CiphertextBlob").requireRefusal(t, s, "ValidationException", invalid(at, "not be null"))
	q.with("CiphertextBlob", nil).requireRefusal(t, s, "ValidationException", invalid(at, "not be null"))
	q.with("CiphertextBlob", []byte{}).requireRefusal(t, s, "ValidationException", invalid(at, "have length greater than or equal to 1"))
	q.with("CiphertextBlob", make([]byte, ciphertext.MaxSize+1)).requireRefusal(t, s, "ValidationException", invalid(at, "have length less than or equal to 6144"))
	q.with("CiphertextBlob", "not base64!").requireRefusal(t, s, "SerializationException", "")
	q.with("CiphertextBlob", 1).requireRefusal(t, s, "SerializationException", "NUMBER_VALUE can not be converted to a ByteBuffer")
}

// testIncorrectKey names another key than the ciphertext's, which comes before state and algorithm of both.
func testIncorrectKey(t *testing.T, s *kmstest.Server, q source) {
	other := s.NewKey(t)
	refuse := func(q source, name string) {
		t.Helper()
		q = q.with(q.keyMember, name)
		q.requireRefusal(t, s, "IncorrectKeyException", textIncorrectKey)
		q.with("DryRun", true).requireRefusal(t, s, "IncorrectKeyException", textIncorrectKey)
	}
	alias := newAlias(t, s, other)
	for _, name := range []string{other, kmstest.KeyARN(other), alias, kmstest.AliasARN(alias), newMultiRegionKey(t, s)} {
		refuse(q, name)
	}
	refuse(q, newDisabledKey(t, s))
	setEnabled(t, s, q.keyID, false)
	refuse(q, other)
	refuse(q, newDisabledKey(t, s))
	setEnabled(t, s, q.keyID, true)
	refuse(q.with("CiphertextBlob", absentKeyBlob(t, absentKey)), other)
	refuse(q.with(q.contextMember, members{"other": "context"}), other)
	for _, member := range []string{"EncryptionAlgorithm", "SourceEncryptionAlgorithm"} { // one is not a member, and ignored
		refuse(q.with(member, "RSAES_OAEP_SHA_256"), other)
	}
}

// testContexts encrypts under one context and opens under others. Contexts are JSON text, for their order and escapes.
func testContexts(t *testing.T, s *kmstest.Server, q source) {
	for _, test := range []struct {
		sealed      string
		opens, shut []string
	}{
		{`{"ab":"c"}`, []string{`{"ab":"c"}`, `{"\u0061b":"c"}`}, []string{`{"a":"bc"}`, `{"abc":""}`, `{"":"abc"}`, `{"ab":"c","":""}`}},
		{`{"a":"1","b":"2","c":"3"}`, []string{`{"a":"1","b":"2","c":"3"}`, `{"c":"3","a":"1","b":"2"}`}, []string{
			`{"a":"1","b":"2"}`, `{"a":"1","b":"2","c":"3","d":"4"}`, `{"A":"1","b":"2","c":"3"}`, `{"a":"2","b":"1","c":"3"}`,
			`{"a":"1b2c3"}`, `{"a":"1","b":"2","c":"3 "}`, `{}`, `null`, ``,
		}},
		{`{"key":"Value"}`, []string{`{"key":"Value"}`}, []string{`{"key":"value"}`, `{"key":"VALUE"}`, `{"Key":"Value"}`, `{"Value":"key"}`}},
		{``, []string{``, `{}`, `null`}, []string{`{"":""}`, `{"a":""}`}},
		{`{}`, []string{``, `{}`, `null`}, []string{`{"":""}`, `{"a":"b"}`}},
		{`{"":""}`, []string{`{"":""}`}, []string{``, `{}`, `{"a":""}`, `{"":"a"}`}},
		{`{"a":""}`, []string{`{"a":""}`}, []string{`{"":"a"}`, `{}`, `{"a":"","b":""}`}},
		{`{"ключ":"値 😀"}`, []string{`{"ключ":"値 😀"}`, `{"\u043a\u043b\u044e\u0447":"\u5024 \ud83d\ude00"}`}, []string{`{"ключ":"値 😁"}`, `{"КЛЮЧ":"値 😀"}`, `{"?":"? ?"}`}},
		{`{"é":"é"}`, []string{`{"\u00e9":"\u00e9"}`}, []string{`{"e\u0301":"e\u0301"}`, `{"é":"e"}`}},
		{`{"a\u0000b":"\u0000"}`, []string{`{"a\u0000b":"\u0000"}`}, []string{`{"a":"b"}`, `{"a\u0000b":""}`, `{"a":"\u0000b\u0000"}`}},
	} {
		t.Run(test.sealed, func(t *testing.T) {
			sealing := request{"Encrypt", members{"KeyId": q.keyID, "Plaintext": []byte("text")}}
			q := q.with("CiphertextBlob", withContext(sealing, "EncryptionContext", test.sealed).requireSuccess(t, s)["CiphertextBlob"])
			for _, context := range test.opens {
				withContext(q.request, q.contextMember, context).requireSuccess(t, s)
			}
			for _, context := range test.shut {
				opening := withContext(q.request, q.contextMember, context)
				opening.requireRefusal(t, s, "InvalidCiphertextException", "")
				opening.with("DryRun", true).requireRefusal(t, s, "InvalidCiphertextException", "")
			}
		})
	}
}

// withContext gives the request an encryption context of JSON text; the empty text means none.
func withContext(q request, member, context string) request {
	if context == "" {
		return q.without(member)
	}
	return q.with(member, json.RawMessage(context))
}

// testSourceContextLimit opens under the largest contexts that there may be, and beyond.
func testSourceContextLimit(t *testing.T, s *kmstest.Server, q source) {
	sealing := request{"Encrypt", members{"KeyId": q.keyID, "Plaintext": []byte("text")}}
	testContextLimit(t, s, q.request, q.contextMember, func(t *testing.T, opening request) {
		opening.requireRefusal(t, s, "InvalidCiphertextException", "")
		context := opening.body[q.contextMember]
		opening.with("CiphertextBlob", sealing.with("EncryptionContext", context).requireSuccess(t, s)["CiphertextBlob"]).requireSuccess(t, s)
	})
}

// testDryRunModifiers asks for dry runs that do not look at the ciphertext.
func testDryRunModifiers(t *testing.T, s *kmstest.Server, q source) {
	ignore := []string{"IGNORE_CIPHERTEXT"}
	dry := q.with("DryRun", true).with("DryRunModifiers", ignore).with(q.keyMember, q.keyID)
	otherBlob := s.Encrypt(t, s.NewKey(t), []byte("other"), nil)
	for _, blob := range [][]byte{q.blob(), []byte("rubbish"), otherBlob, absentKeyBlob(t, absentKey)} {
		dry.with("CiphertextBlob", blob).requireRefusal(t, s, "DryRunOperationException", textDryRun)
	}
	for _, blind := range []request{dry.without("CiphertextBlob"), dry.with("CiphertextBlob", nil).request} {
		blind.requireRefusal(t, s, "DryRunOperationException", textDryRun)
		blind.with(q.contextMember, members{"any": "context"}).requireRefusal(t, s, "DryRunOperationException", textDryRun)
		blind.with("DryRunModifiers", []string{"IGNORE_CIPHERTEXT", "IGNORE_CIPHERTEXT"}).requireRefusal(t, s, "DryRunOperationException", textDryRun)
		blind.with("GrantTokens", []string{"token"}).requireRefusal(t, s, "InvalidGrantTokenException", textGrantToken)
		absent := "Key '" + kmstest.KeyARN(absentKey) + "' does not exist"
		blind.with(q.keyMember, absentKey).requireRefusal(t, s, "NotFoundException", absent)
	}
	// Without the key there is nothing to judge by.
	noKey := invalid("Value at '"+lowerCamel(q.keyMember)+"'", "not be null")
	dry.without(q.keyMember).requireRefusal(t, s, "ValidationException", noKey)
	dry.without("CiphertextBlob").with(q.keyMember, nil).requireRefusal(t, s, "ValidationException", noKey)
	disabled := newDisabledKey(t, s)
	dry.with(q.keyMember, disabled).requireRefusal(t, s, "DisabledException", kmstest.KeyARN(disabled)+" is disabled.")
	// Still constraints are constraints.
	dry.with("CiphertextBlob", []byte{}).requireRefusal(t, s, "ValidationException", invalid("Value at 'ciphertextBlob'", "have length greater than or equal to 1"))
	dry.with("DryRunModifiers", []string{"IGNORE_STATE"}).requireRefusal(t, s, "ValidationException",
		invalid("Value '[IGNORE_STATE]' at 'dryRunModifiers'", "satisfy constraint: [Member must satisfy enum value set: [IGNORE_CIPHERTEXT]]"))
}

// testIdleModifiers gives the modifier where it means nothing: without a dry run.
func testIdleModifiers(t *testing.T, s *kmstest.Server, q source) {
	for _, dry := range []any{false, nil} {
		idle := q.with("DryRun", dry).with("DryRunModifiers", []string{"IGNORE_CIPHERTEXT"})
		idle.requireSuccess(t, s)
		idle.without(q.keyMember).requireSuccess(t, s)
		idle.with("CiphertextBlob", []byte("rubbish")).requireRefusal(t, s, "InvalidCiphertextException", "")
		idle.without("CiphertextBlob").requireRefusal(t, s, "ValidationException", invalid("Value at 'ciphertextBlob'", "not be null"))
	}
	q.with("DryRunModifiers", []string{"IGNORE_CIPHERTEXT"}).without("DryRun").requireSuccess(t, s)
	for _, none := range []any{[]string{}, nil} {
		plain := q.with("DryRun", true).with("DryRunModifiers", none)
		plain.requireRefusal(t, s, "DryRunOperationException", textDryRun)
		plain.with("CiphertextBlob", []byte("rubbish")).requireRefusal(t, s, "InvalidCiphertextException", "")
	}
}

// requireHeader checks which key and material a blob says that it was made with.
func requireHeader(t *testing.T, blob []byte, keyID, material string) {
	t.Helper()
	parsed, err := ciphertext.Parse(blob)
	require.NoError(t, err)
	require.Equal(t, keyID, parsed.KeyID)
	require.Equal(t, material, hex.EncodeToString(parsed.Material[:]))
}
