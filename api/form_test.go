package api

import (
	"bytes"
	"net/url"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/iam"
	"hsmkms/kms"
)

func iamService(t *testing.T) *service {
	t.Helper()
	a, err := newService("iam", iamModel, servedIAM)
	require.NoError(t, err)
	return a
}

// readForm reads a form as the input of an operation of IAM.
func readForm[In any](t *testing.T, operation string, values url.Values) (*In, error) {
	t.Helper()
	f, err := parseForm([]byte(values.Encode()))
	if err != nil {
		return nil, err
	}
	in := new(In)
	return in, iamService(t).endpoints[operation].decoder.decodeForm(f, in)
}

func TestDecodeForm(t *testing.T) {
	in, err := readForm[iam.CreateRoleInput](t, "CreateRole", url.Values{
		"RoleName": {"r"}, "AssumeRolePolicyDocument": {"{}"}, "MaxSessionDuration": {"3600"}, "Unknown.member.1": {"x"},
		"Tags.member.2.Key": {"b"}, "Tags.member.2.Value": {""}, "Tags.member.1.Key": {"a"}, "Tags.member.1.Value": {"ä"},
	})
	require.NoError(t, err)
	seconds := int32(3600)
	require.Equal(t, &iam.CreateRoleInput{
		RoleName: "r", AssumeRolePolicyDocument: "{}", MaxSessionDuration: &seconds, Tags: []iam.Tag{{Key: "a", Value: "ä"}, {Key: "b"}},
	}, in)
	lists, err := readForm[iam.ListPoliciesInput](t, "ListPolicies", url.Values{"OnlyAttached": {"true"}})
	require.NoError(t, err)
	require.True(t, lists.OnlyAttached)
	untag, err := readForm[iam.UntagUserInput](t, "UntagUser", url.Values{"UserName": {"u"}, "TagKeys": {""}})
	require.NoError(t, err)
	require.NotNil(t, untag.TagKeys)
	require.Empty(t, untag.TagKeys)
}

func TestDecodeFormRefuses(t *testing.T) {
	for name, values := range map[string]url.Values{
		"a value for a structure":  {"UserName": {"u"}, "Tags.member.1": {"x"}},
		"parts of a string":        {"UserName.x": {"u"}},
		"a value for a list":       {"UserName": {"u"}, "Tags": {"x"}},
		"a list without numbers":   {"UserName": {"u"}, "Tags.member.a.Key": {"x"}},
		"a list that begins at 0":  {"UserName": {"u"}, "Tags.member.0.Key": {"x"}},
		"a list without members":   {"UserName": {"u"}, "Tags.1.Key": {"x"}},
		"a list numbered as 01":    {"UserName": {"u"}, "Tags.member.01.Key": {"x"}},
		"a list with other things": {"UserName": {"u"}, "Tags.member.1.Key": {"x"}, "Tags.member.1.Value": {"y"}, "Tags.member.3.Key": {"x"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readForm[iam.CreateUserInput](t, "CreateUser", values)
			var refused *iam.Error
			require.ErrorAs(t, err, &refused)
			require.Equal(t, malformedInputType, refused.Type)
		})
	}
	_, err := readForm[iam.ListPoliciesInput](t, "ListPolicies", url.Values{"OnlyAttached": {"yes"}})
	require.Error(t, err)
	_, err = readForm[iam.UntagUserInput](t, "UntagUser", url.Values{"UserName": {""}, "TagKeys.member.1": {"ok"}, "TagKeys.member.2": {"\x01"}})
	var invalid *kms.Error
	require.ErrorAs(t, err, &invalid)
	require.Equal(t, kms.Validation, invalid.Type)
	require.Contains(t, invalid.Message, "3 validation errors detected: Value '' at 'userName' failed to satisfy constraint: Member must have length greater than or equal to 1; ")
	require.Contains(t, invalid.Message, "at 'tagKeys.2.member' failed to satisfy constraint: Member must satisfy regular expression pattern: ")
	require.Error(t, iamService(t).endpoints["UntagUser"].decoder.decodeForm(&form{}, &iam.TagUserInput{}))
}

func TestWriteXML(t *testing.T) {
	a := iamService(t)
	write := func(operation string, out any) string {
		var b bytes.Buffer
		x := &exchange{service: a, request: kms.Request{ID: "id", Operation: operation}}
		a.writeResult(&b, x, a.endpoints[operation], out)
		return b.String()
	}
	const space = ` xmlns="https://iam.amazonaws.com/doc/2010-05-08/"`
	const end = `<ResponseMetadata><RequestId>id</RequestId></ResponseMetadata></`
	at := time.Date(2026, 1, 2, 3, 4, 5, 600, time.FixedZone("", 3600))
	require.Equal(t, "<GetUserResponse"+space+"><GetUserResult><User><Path>/</Path><UserName>a&lt;b&amp;c</UserName><UserId></UserId><Arn></Arn>"+
		"<CreateDate>2026-01-02T02:04:05Z</CreateDate><Tags><member><Key>k</Key><Value></Value></member></Tags></User></GetUserResult>"+end+"GetUserResponse>\n",
		write("GetUser", &iam.GetUserOutput{User: &iam.User{Path: "/", UserName: "a<b&c", CreateDate: at, Tags: []iam.Tag{{Key: "k"}}}}))
	require.Equal(t, "<DeleteUserResponse"+space+">"+end+"DeleteUserResponse>\n", write("DeleteUser", &iam.Empty{}))
	require.Equal(t, "<UpdateRoleResponse"+space+"><UpdateRoleResult></UpdateRoleResult>"+end+"UpdateRoleResponse>\n", write("UpdateRole", &iam.UpdateRoleOutput{}))

	key := &iam.CreateAccessKeyOutput{AccessKey: &iam.AccessKey{AccessKeyId: "AKIA", SecretAccessKey: []byte("s+/"), Status: "Active"}}
	require.Contains(t, write("CreateAccessKey", key), "<SecretAccessKey>s+/</SecretAccessKey>")
	require.Equal(t, make([]byte, 3), key.AccessKey.SecretAccessKey, "wiped")
}

// TestModelsOfTheQueryProtocol holds all operations of the two models to their methods.
func TestModelsOfTheQueryProtocol(t *testing.T) {
	sts, err := newService("sts", stsModel, servedSTS)
	require.NoError(t, err)
	for served, a := range map[*map[string]endpoint]*service{&servedIAM: iamService(t), &servedSTS: sts} {
		require.True(t, a.model.query())
		require.Len(t, a.endpoints, len(*served))
		for name, e := range a.endpoints {
			require.NotNil(t, e.decoder, name)
			require.NotNil(t, e.output, name)
		}
		require.Equal(t, 404, iamService(t).status(iam.NoSuchEntity))
	}
	// Bytes may hold the strings of answers, for secrets, and not those of requests.
	m := iamService(t).model
	_, err = newDecoder(m, "GetUser", reflect.TypeFor[struct{ UserName []byte }]())
	require.ErrorContains(t, err, "cannot be read from a form")
}

// TestQueryErrors gives each error of the other layers its code in the query protocol.
func TestQueryErrors(t *testing.T) {
	a := iamService(t)
	for code, test := range map[string]struct {
		err    error
		status int
	}{
		"NoSuchEntity":    {&iam.Error{Type: iam.NoSuchEntity, Message: "m"}, 404},
		"AccessDenied":    {&iam.Error{Type: iam.AccessDenied, Message: "m"}, 403},
		"ValidationError": {kms.Errorf(kms.Validation, "m"), 400},
		"ExpiredToken":    {kms.Errorf(kms.ExpiredToken, "m"), 403},
		"Throttling":      {kms.Errorf(kms.Throttling, "m"), 400},
	} {
		f := a.describe(test.err)
		require.Equal(t, failure{code: code, message: "m", status: test.status}, f)
	}
	require.Equal(t, failure{code: "InternalFailure", message: internalMessage, status: 500}, a.describe(bytes.ErrTooLarge))
	require.Equal(t, failure{code: "InternalFailure", message: internalMessage, status: 500}, a.describe(kms.Errorf(kms.Disabled, "of another service")))
	var out bytes.Buffer
	a.writeError(&out, failure{code: "InternalFailure", message: "a<b", status: 500}, "id")
	require.Contains(t, out.String(), "<Type>Receiver</Type><Code>InternalFailure</Code><Message>a&lt;b</Message></Error><RequestId>id</RequestId></ErrorResponse>")
}
