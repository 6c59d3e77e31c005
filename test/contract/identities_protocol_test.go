package contract

import (
	"encoding/xml"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

const (
	iamVersion = "2010-05-08"
	stsVersion = "2011-06-15"
	formMedia  = "application/x-www-form-urlencoded"
)

// xmlError is an error of the query protocol.
type xmlError struct {
	XMLName   xml.Name `xml:"ErrorResponse"`
	Type      string   `xml:"Error>Type"`
	Code      string   `xml:"Error>Code"`
	Message   string   `xml:"Error>Message"`
	RequestID string   `xml:"RequestId"`
}

func requireXMLError(t *testing.T, a kmstest.Answer, status int, code, message string) {
	t.Helper()
	require.Equal(t, status, a.Status, a.Body)
	require.Equal(t, "text/xml", a.Header.Get("Content-Type"))
	var e xmlError
	require.NoError(t, xml.Unmarshal([]byte(a.Body), &e), a.Body)
	require.Equal(t, []string{"Sender", code, message}, []string{e.Type, e.Code, e.Message})
	require.Equal(t, a.Header.Get("X-Amzn-Requestid"), e.RequestID)
	require.NotEmpty(t, e.RequestID)
}

// TestQueryAnswer looks at an answer as it comes over the wire.
func TestQueryAnswer(t *testing.T) {
	s := one()
	a := s.PostForm(t, s.Credentials(), "sts", "Action", "GetCallerIdentity", "Version", stsVersion)
	require.Equal(t, http.StatusOK, a.Status)
	require.Equal(t, "text/xml", a.Header.Get("Content-Type"))
	id := a.Header.Get("X-Amzn-Requestid")
	require.Equal(t, `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>`+
		`<Account>111122223333</Account><Arn>arn:aws:iam::111122223333:root</Arn><UserId>111122223333</UserId></GetCallerIdentityResult>`+
		`<ResponseMetadata><RequestId>`+id+`</RequestId></ResponseMetadata></GetCallerIdentityResponse>`+"\n", a.Body)

	a = s.PostForm(t, s.Credentials(), "iam", "Action", "ListUsers", "Version", iamVersion, "PathPrefix", "/none/")
	require.Contains(t, a.Body, `<ListUsersResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><ListUsersResult><Users></Users><IsTruncated>false</IsTruncated></ListUsersResult>`)
}

func TestQueryRefusals(t *testing.T) {
	s := one()
	root, other := s.Credentials(), s.Credentials()
	other.SecretAccessKey += "x"
	const notFound = "Could not find operation "
	for name, test := range map[string]struct {
		answer        kmstest.Answer
		status        int
		code, message string
	}{
		"no action": {s.PostForm(t, root, "iam", "Version", iamVersion), 400, "MissingAction", "The request must contain the parameter Action."},
		"an unknown action": {s.PostForm(t, root, "iam", "Action", "CreateGroup", "Version", iamVersion), 400, "InvalidAction",
			notFound + "CreateGroup for version " + iamVersion},
		"another version": {s.PostForm(t, root, "iam", "Action", "ListUsers", "Version", "2009-05-08"), 400, "InvalidAction",
			notFound + "ListUsers for version 2009-05-08"},
		"an action of another service": {s.PostForm(t, root, "sts", "Action", "ListUsers", "Version", iamVersion), 400, "InvalidAction",
			notFound + "ListUsers for version " + iamVersion},
		"the scope of KMS": {s.PostForm(t, root, "kms", "Action", "ListUsers", "Version", iamVersion), 403, "SignatureDoesNotMatch",
			"Credential should be scoped to correct service: 'iam' or 'sts'. "},
		"a wrong secret": {s.PostForm(t, other, "iam", "Action", "ListUsers", "Version", iamVersion), 403, "SignatureDoesNotMatch", textMismatch},
		"no user name": {s.PostForm(t, root, "iam", "Action", "CreateUser", "Version", iamVersion), 400, "ValidationError",
			"1 validation error detected: Value at 'userName' failed to satisfy constraint: Member must not be null"},
		"a name of other characters": {s.PostForm(t, root, "iam", "Action", "CreateUser", "Version", iamVersion, "UserName", "a b"), 400, "ValidationError",
			"1 validation error detected: Value 'a b' at 'userName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]+"},
		"a tag without a value": {s.PostForm(t, root, "iam", "Action", "CreateUser", "Version", iamVersion, "UserName", "a", "Tags.member.1.Key", "k"), 400,
			"ValidationError", "1 validation error detected: Value at 'tags.1.member.value' failed to satisfy constraint: Member must not be null"},
		"a page too long": {s.PostForm(t, root, "iam", "Action", "ListUsers", "Version", iamVersion, "MaxItems", "1001"), 400, "ValidationError",
			"1 validation error detected: Value '1001' at 'maxItems' failed to satisfy constraint: Member must have value less than or equal to 1000"},
		"no number": {s.PostForm(t, root, "iam", "Action", "ListUsers", "Version", iamVersion, "MaxItems", "x"), 400, "MalformedInput",
			"The request has a value that is not of its type, or a list with gaps."},
		"a list with a gap": {s.PostForm(t, root, "iam", "Action", "UntagUser", "Version", iamVersion, "UserName", "a", "TagKeys.member.2", "k"), 400,
			"MalformedInput", "The request has a value that is not of its type, or a list with gaps."},
		"a parameter twice": {s.PostForm(t, root, "iam", "Action", "ListUsers", "Action", "ListRoles", "Version", iamVersion), 400, "MalformedQueryString",
			"A parameter is repeated, or its name has too many parts."},
		"a deep name": {s.PostForm(t, root, "iam", "Action", "ListUsers", "Version", iamVersion, strings.Repeat("a.", 100), "x"), 400, "MalformedQueryString",
			"A parameter is repeated, or its name has too many parts."},
		"no form": {s.PostBody(t, root, "iam", formMedia, "%zz"), 400, "MalformedQueryString", "The query string is malformed."},
	} {
		t.Run(name, func(t *testing.T) { requireXMLError(t, test.answer, test.status, test.code, test.message) })
	}
}

// TestScopesOfServices signs KMS requests for the other services, and requests that are not signed at all.
func TestScopesOfServices(t *testing.T) {
	s := one()
	target := func(r *http.Request) { r.Header.Set("X-Amz-Target", "TrentService.ListKeys") }
	for _, service := range []string{"iam", "sts"} {
		s.PostBody(t, s.Credentials(), service, "application/x-amz-json-1.1", "{}", target).
			RequireRefusal(t, "InvalidSignatureException", "Credential should be scoped to correct service: 'kms'. ")
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.Endpoint+"/", strings.NewReader("Action=ListUsers"))
	require.NoError(t, err)
	r.Header.Set("Content-Type", formMedia+"; charset=utf-8")
	requireXMLError(t, s.Send(t, r), 403, "MissingAuthenticationToken", "Missing Authentication Token")
}

// TestSecretsOfIdentitiesStayOutOfTheLog makes access keys and a session, and searches the log for their secrets.
func TestSecretsOfIdentitiesStayOutOfTheLog(t *testing.T) {
	s := kmstest.Start(t, kmstest.Options{})
	who := s.NewUser(t, "secretive", "")
	arn := newRole(t, s, "secret-role", trusting(kmstest.IAMARN("user/secretive")), "")
	session, _ := assume(t, s, who, arn, "session")
	require.NoError(t, s.Stop())
	log := s.Log()
	require.Contains(t, log, `"operation":"AssumeRole"`)
	for _, secret := range []string{who.SecretAccessKey, session.SecretAccessKey, session.SessionToken} {
		require.NotContains(t, log, secret)
		require.NotContains(t, log, secret[:20])
	}
}
