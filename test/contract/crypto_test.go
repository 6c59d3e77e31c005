package contract

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// What the cryptographic operations have in common is tested here, by functions that take a request which succeeds and
// spoil one thing of it at a time. The files of the operations call them.

// AWS's texts.
const (
	textDryRun       = "The request would have succeeded, but the DryRun option is set."
	textGrantToken   = "The specified grant token is not valid."
	textIncorrectKey = "The key ID in the request does not identify a CMK that can perform this operation."
	textRecipient    = "The Recipient parameter is not supported."
	textUnreachable  = "The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are not allowed to access."
	algorithmEnum    = "[SYMMETRIC_DEFAULT, RSAES_OAEP_SHA_1, RSAES_OAEP_SHA_256, SM2PKE]"
)

// invalid is the text of a failed constraint; subject is its middle, such as "Value at 'keyId'".
func invalid(subject, demand string) string {
	return "1 validation error detected: " + subject + " failed to satisfy constraint: Member must " + demand
}

// lowerCamel is a member's name as error texts write it.
func lowerCamel(member string) string { return strings.ToLower(member[:1]) + member[1:] }

// members are those of a request or an answer.
type members = map[string]any

// request is an operation with the members of a request, which tests change one at a time. A []byte is a blob, a nil a
// JSON null.
type request struct {
	operation string
	body      members
}

// with gives a copy of the request in which a member has another value.
func (q request) with(member string, value any) request {
	q.body = maps.Clone(q.body)
	q.body[member] = value
	return q
}

// without gives a copy of the request that lacks a member.
func (q request) without(member string) request {
	q.body = maps.Clone(q.body)
	delete(q.body, member)
	return q
}

func (q request) send(t *testing.T, s *kmstest.Server) kmstest.Answer {
	t.Helper()
	body, err := json.Marshal(q.body)
	require.NoError(t, err)
	return s.Post(t, q.operation, string(body))
}

// requireSuccess sends the request and checks that it is served.
func (q request) requireSuccess(t *testing.T, s *kmstest.Server) members {
	t.Helper()
	answer := q.send(t, s)
	require.Equal(t, http.StatusOK, answer.Status, "%s of %v: %s", q.operation, q.body, answer.Body)
	require.Equal(t, "application/x-amz-json-1.1", answer.Header.Get("Content-Type"))
	require.NotEmpty(t, answer.Header.Get("X-Amzn-Requestid"))
	return answer.JSON(t)
}

// requireRefusal sends the request and checks that nothing but an error comes back: see kmstest.Answer.RequireRefusal.
func (q request) requireRefusal(t *testing.T, s *kmstest.Server, code, message string) {
	t.Helper()
	q.send(t, s).RequireRefusal(t, code, message)
}

// requireMembers checks that an answer has exactly the members of want and the named blobs, none of which is empty, and
// gives the blobs.
func requireMembers(t *testing.T, got, want members, blobs ...string) map[string][]byte {
	t.Helper()
	want = maps.Clone(want)
	decoded := map[string][]byte{}
	for _, name := range blobs {
		text, _ := got[name].(string)
		blob, err := base64.StdEncoding.Strict().DecodeString(text)
		require.NoError(t, err)
		require.NotEmpty(t, blob, "the answer lacks %s: %v", name, got)
		decoded[name], want[name] = blob, text
	}
	require.Equal(t, want, got)
	return decoded
}

// newAlias gives a key an alias that no other test has.
func newAlias(t *testing.T, s *kmstest.Server, keyID string) string {
	t.Helper()
	alias := "alias/" + uuid.NewString()
	_, err := s.Client().CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: &alias, TargetKeyId: &keyID})
	require.NoError(t, err)
	return alias
}

// newMultiRegionKey makes a multi-Region key and gives its id.
func newMultiRegionKey(t *testing.T, s *kmstest.Server) string {
	t.Helper()
	out, err := s.Client().CreateKey(t.Context(), &kms.CreateKeyInput{MultiRegion: aws.Bool(true)})
	require.NoError(t, err)
	require.Regexp(t, `^mrk-[0-9a-f]{32}$`, *out.KeyMetadata.KeyId)
	return *out.KeyMetadata.KeyId
}

// newDisabledKey makes a key and disables it.
func newDisabledKey(t *testing.T, s *kmstest.Server) string {
	t.Helper()
	id := s.NewKey(t)
	setEnabled(t, s, id, false)
	return id
}

// setEnabled enables or disables a key.
func setEnabled(t *testing.T, s *kmstest.Server, keyID string, enabled bool) {
	t.Helper()
	var err error
	if enabled {
		_, err = s.Client().EnableKey(t.Context(), &kms.EnableKeyInput{KeyId: &keyID})
	} else {
		_, err = s.Client().DisableKey(t.Context(), &kms.DisableKeyInput{KeyId: &keyID})
	}
	require.NoError(t, err)
}

// currentMaterial gives the CurrentKeyMaterialId that DescribeKey shows.
func currentMaterial(t *testing.T, s *kmstest.Server, keyID string) string {
	t.Helper()
	out, err := s.Client().DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &keyID})
	require.NoError(t, err)
	require.Regexp(t, `^[0-9a-f]{64}$`, *out.KeyMetadata.CurrentKeyMaterialId)
	return *out.KeyMetadata.CurrentKeyMaterialId
}

// testKeyNames names the key in every way there is, right and wrong. The member holds the id of a key.
func testKeyNames(t *testing.T, s *kmstest.Server, q request, member, permission string) {
	id := q.body[member].(string)
	alias := newAlias(t, s, id)
	for _, name := range []string{id, kmstest.KeyARN(id), alias, kmstest.AliasARN(alias)} {
		t.Run(name, func(t *testing.T) { q.with(member, name).requireSuccess(t, s) })
	}
	for _, test := range wrongKeyNames(id, permission) {
		t.Run(test.name, func(t *testing.T) {
			q.with(member, test.name).requireRefusal(t, s, test.code, test.message)
			q.with(member, test.name).with("DryRun", true).requireRefusal(t, s, test.code, test.message)
		})
	}
	at := "at '" + lowerCamel(member) + "'"
	long := strings.Repeat("k", 2049)
	q.with(member, "").requireRefusal(t, s, "ValidationException", invalid("Value '' "+at, "have length greater than or equal to 1"))
	q.with(member, long).requireRefusal(t, s, "ValidationException", invalid("Value '"+long+"' "+at, "have length less than or equal to 2048"))
	q.with(member, 1).requireRefusal(t, s, "SerializationException", "NUMBER_VALUE can not be converted to a String")
}

// hiddenReason is why a key of another account cannot be used, whether or not it exists.
const hiddenReason = " because the resource does not exist in this Region, no resource-based policies allow access, or a resource-based policy " +
	"explicitly denies access"

type wrongKeyName struct{ name, code, message string }

// wrongKeyNames are the names that reach no key; id is that of a key there is.
func wrongKeyNames(id, permission string) []wrongKeyName {
	const absentMultiRegion = "mrk-00000000000040008000000000000000"
	const here = "arn:aws:kms:" + kmstest.Region + ":" + kmstest.Account + ":"
	foreign := func(resource string) wrongKeyName {
		arn := "arn:aws:kms:" + kmstest.Region + ":444455556666:" + resource
		return wrongKeyName{arn, "AccessDeniedException", "User: arn:aws:iam::" + kmstest.Account + ":root is not authorized to perform: kms:" +
			permission + " on resource: " + arn + hiddenReason}
	}
	malformed := func(arn string) wrongKeyName { return wrongKeyName{arn, "InvalidArnException", "Invalid arn " + arn} }
	notID := func(name string) wrongKeyName {
		return wrongKeyName{name, "NotFoundException", "Invalid keyId '" + strings.TrimPrefix(name, here+"key/") + "'"}
	}
	absent := func(name string) wrongKeyName {
		return wrongKeyName{name, "NotFoundException", "Key '" + here + "key/" + strings.TrimPrefix(name, here+"key/") + "' does not exist"}
	}
	noAlias := func(name string) wrongKeyName {
		return wrongKeyName{name, "NotFoundException", "Alias " + here + strings.TrimPrefix(name, here) + " is not found."}
	}
	elsewhere := func(resource string) wrongKeyName {
		return wrongKeyName{"arn:aws:kms:ap-southeast-1:" + kmstest.Account + ":" + resource, "NotFoundException", "Invalid arn ap-southeast-1"}
	}
	return []wrongKeyName{
		absent(absentKey), absent(here + "key/" + absentKey), absent(absentMultiRegion), absent(here + "key/" + absentMultiRegion),
		notID("no-key-id"), notID("key/" + id), notID(strings.ReplaceAll(id, "-", "")), notID(id + "0"), notID(" " + id), notID(strings.ToUpper("abcd" + id[4:])),
		notID("mrk-no-key-id"), notID("mrk-" + id), notID(here + "key/no-key-id"), notID(here + "key/"), notID(here + "key/" + id + "/"),
		noAlias("alias/missing"), noAlias(here + "alias/missing"), noAlias("alias/" + id),
		elsewhere("key/" + id), elsewhere("key/" + absentKey), elsewhere("alias/missing"),
		foreign("key/" + id), foreign("key/" + absentKey), foreign("alias/missing"),
		malformed("arn:"), malformed("arn:aws:kms"), malformed(here), malformed(here + id), malformed(here + "grant/" + id),
		malformed("arn:aws:s3:" + kmstest.Region + ":" + kmstest.Account + ":key/" + id), malformed("arn:aws:kms:" + kmstest.Region + ":11112222333:key/" + id),
		malformed("arn:aws:kms:" + kmstest.Region + "::key/" + id), malformed("arn::kms:" + kmstest.Region + ":" + kmstest.Account + ":key/" + id),
		malformed("arn:nowhere:kms:" + kmstest.Region + ":" + kmstest.Account + ":key/" + id),
	}
}

// testDisabled disables a key that the request needs and enables it again.
func testDisabled(t *testing.T, s *kmstest.Server, q request, keyID string) {
	text := kmstest.KeyARN(keyID) + " is disabled."
	setEnabled(t, s, keyID, false)
	q.requireRefusal(t, s, "DisabledException", text)
	q.with("DryRun", true).requireRefusal(t, s, "DisabledException", text)
	setEnabled(t, s, keyID, true)
	q.requireSuccess(t, s)
}

// testDryRun asks for dry runs of a request that succeeds. Those of requests that fail are tested with the failures.
func testDryRun(t *testing.T, s *kmstest.Server, q request) {
	q.with("DryRun", true).requireRefusal(t, s, "DryRunOperationException", textDryRun)
	q.with("DryRun", false).requireSuccess(t, s)
	q.with("DryRun", nil).requireSuccess(t, s)
	q.with("DryRun", "true").requireRefusal(t, s, "SerializationException", "STRING_VALUE can not be converted to a Boolean")
}

// testGrantTokens gives grant tokens that are none.
func testGrantTokens(t *testing.T, s *kmstest.Server, q request) {
	q.with("GrantTokens", []string{}).requireSuccess(t, s)
	q.with("GrantTokens", nil).requireSuccess(t, s)
	for _, dry := range []bool{false, true} {
		q := q.with("DryRun", dry)
		q.with("GrantTokens", []string{"token"}).requireRefusal(t, s, "InvalidGrantTokenException", textGrantToken)
		q.with("GrantTokens", []string{"token", strings.Repeat("t", 8192)}).requireRefusal(t, s, "InvalidGrantTokenException", textGrantToken)
	}
	many := strings.Split(strings.Repeat("t", 11), "")
	q.with("GrantTokens", many).requireRefusal(t, s, "ValidationException",
		invalid("Value at 'grantTokens'", "have length less than or equal to 10"))
	long := strings.Repeat("t", 8193)
	for _, token := range []string{"", long} {
		q.with("GrantTokens", []string{token}).requireRefusal(t, s, "ValidationException", invalid("Value at 'grantTokens'",
			"satisfy constraint: [Member must have length less than or equal to 8192, Member must have length greater than or equal to 1]"))
	}
}

// testAlgorithm gives encryption algorithms to a request for a symmetric key.
func testAlgorithm(t *testing.T, s *kmstest.Server, q request, member string) {
	q.with(member, "SYMMETRIC_DEFAULT").requireSuccess(t, s)
	q.with(member, nil).requireSuccess(t, s)
	for _, algorithm := range []string{"RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256", "SM2PKE"} {
		text := "Algorithm " + algorithm + " is incompatible with key spec SYMMETRIC_DEFAULT."
		q.with(member, algorithm).requireRefusal(t, s, "InvalidKeyUsageException", text)
		q.with(member, algorithm).with("DryRun", true).requireRefusal(t, s, "InvalidKeyUsageException", text)
	}
	for _, algorithm := range []string{"AES_256", "symmetric_default", ""} {
		q.with(member, algorithm).requireRefusal(t, s, "ValidationException",
			invalid("Value '"+algorithm+"' at '"+lowerCamel(member)+"'", "satisfy enum value set: "+algorithmEnum))
	}
}

// fullContexts are encryption contexts of exactly 8192 bytes, the most there may be: bytes, not characters.
func fullContexts() map[string]map[string]string {
	many := map[string]string{}
	for i := range 512 {
		many[strconv.Itoa(1000+i)] = "twelve bytes"
	}
	return map[string]map[string]string{
		"one value":   {"k": strings.Repeat("v", 8191)},
		"one key":     {strings.Repeat("k", 8192): ""},
		"many pairs":  many,
		"wide values": {"four": strings.Repeat("😀", 2047)},
	}
}

// testContextLimit gives encryption contexts at the limit, which the request takes to tell by fits, and beyond it.
func testContextLimit(t *testing.T, s *kmstest.Server, q request, member string, fits func(*testing.T, request)) {
	for name, context := range fullContexts() {
		t.Run(name, func(t *testing.T) {
			fits(t, q.with(member, context))
			for key := range context {
				context[key] += "+"
				break
			}
			const text = "The encryption context is too long: its keys and values take 8193 bytes, and at most 8192 are allowed."
			q.with(member, context).requireRefusal(t, s, "ValidationException", text)
			q.with(member, context).with("DryRun", true).requireRefusal(t, s, "ValidationException", text)
		})
	}
	q.with(member, members{"k": 1}).requireRefusal(t, s, "SerializationException", "NUMBER_VALUE can not be converted to a String")
	q.with(member, "context").requireRefusal(t, s, "SerializationException", "Unexpected field type")
}
