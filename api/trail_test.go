package api

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/audit"
	"hsmkms/auth"
	"hsmkms/iam"
	"hsmkms/kms"
	"hsmkms/policy"
)

// signedFor takes every request for one of an account's, signed for a service.
func signedFor(service string) func(context.Context, *http.Request, []byte, []string) (auth.Identity, error) {
	return func(context.Context, *http.Request, []byte, []string) (auth.Identity, error) {
		caller := &policy.Caller{Principal: policy.Principal{Account: "111122223333", AccessKeyID: "ASIAEXAMPLE"}}
		return auth.Identity{Caller: caller, Region: "us-east-1", Service: service}, nil
	}
}

// describeKey sends a request for DescribeKey to a server without services, in whose place call is if it is not nil.
func describeKey(t *testing.T, trail func(context.Context, *audit.Event) error, call func() any) *httptest.ResponseRecorder {
	t.Helper()
	s, err := NewServer(Config{
		Verify: signedFor("kms"),
		Trail:  trail,
	})
	require.NoError(t, err)
	if call != nil {
		s.kms.endpoints["DescribeKey"] = endpoint{call: func(context.Context, *Config, *exchange, *decoder) (any, error) { return call(), nil }}
	}
	request := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(`{"KeyId":"alias/a"}`))
	request.Header.Set("Content-Type", contentType)
	request.Header.Set("X-Amz-Target", targetPrefix+"DescribeKey")
	answer := httptest.NewRecorder()
	s.ServeHTTP(answer, request)
	return answer
}

// TestPanicIsRecorded has an operation panic, for there is no service: the call is in the trail like any other.
func TestPanicIsRecorded(t *testing.T) {
	var events []*audit.Event
	answer := describeKey(t, func(_ context.Context, e *audit.Event) error { events = append(events, e); return nil }, nil)
	require.Equal(t, http.StatusInternalServerError, answer.Code)
	require.Len(t, events, 1)
	require.Equal(t, []string{"DescribeKey", "KMSInternalException", internalMessage}, []string{events[0].EventName, events[0].ErrorCode, events[0].ErrorMessage})
	require.Equal(t, audit.Parameters{{Name: "keyId", Value: audit.Text("alias/a")}}, events[0].RequestParameters)
}

// TestNothingBeginsUnrecorded has a trail refuse: what changes something, or keeps something of what it gives out, is not begun, and
// the refusal is recorded with what was asked for. What only reads goes on.
func TestNothingBeginsUnrecorded(t *testing.T) {
	refuses := errors.New("the disk is full")
	for operation, refused := range map[string]bool{
		"CreateAlias": true, "ImportKeyMaterial": true, "GetParametersForImport": true, "CreateUser": true, "AssumeRole": true, "GetSessionToken": true,
		"DescribeKey": false, "ReEncrypt": false, "GenerateDataKey": false, "GetUser": false, "GetCallerIdentity": false,
	} {
		err := (&Config{TrailRefuses: func() error { return refuses }}).recordable(operation)
		require.Equal(t, refused, errors.Is(err, refuses), operation)
		require.NoError(t, (&Config{TrailRefuses: func() error { return nil }}).recordable(operation))
		require.NoError(t, (&Config{}).recordable(operation))
	}
	var events []*audit.Event
	var log bytes.Buffer
	s, err := NewServer(Config{
		Verify:       signedFor("iam"),
		Log:          slog.New(slog.NewJSONHandler(&log, nil)),
		Trail:        func(_ context.Context, e *audit.Event) error { events = append(events, e); return nil },
		TrailRefuses: func() error { return refuses },
	})
	require.NoError(t, err)
	request := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("Action=CreateUser&Version=2010-05-08&UserName=alice"))
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer := httptest.NewRecorder()
	s.ServeHTTP(answer, request)
	require.Contains(t, log.String(), "not begun, because the audit trail fails: the disk is full")
	require.Equal(t, http.StatusInternalServerError, answer.Code)
	require.NotContains(t, answer.Body.String(), "disk")
	require.Len(t, events, 1)
	require.Equal(t, audit.Parameters{{Name: "userName", Value: audit.Text("alice")}}, events[0].RequestParameters)
}

// TestUnrecordedIsNotAnswered has a trail that fails, or panics: nothing of the result is given out, and it is wiped.
func TestUnrecordedIsNotAnswered(t *testing.T) {
	for name, trail := range map[string]func(context.Context, *audit.Event) error{
		"an error": func(context.Context, *audit.Event) error { return errors.New("the disk is full") },
		"a panic":  func(context.Context, *audit.Event) error { panic("failed") },
	} {
		t.Run(name, func(t *testing.T) {
			out := &kms.DecryptOutput{Plaintext: []byte("hello")}
			answer := describeKey(t, trail, func() any { return out })
			require.Equal(t, http.StatusInternalServerError, answer.Code)
			require.JSONEq(t, `{"__type":"KMSInternalException","message":"`+internalMessage+`"}`, answer.Body.String())
			require.Equal(t, make([]byte, 5), out.Plaintext)
		})
	}
	out := &kms.DecryptOutput{Plaintext: []byte("hello")}
	answer := describeKey(t, func(context.Context, *audit.Event) error { return nil }, func() any { return out })
	require.JSONEq(t, `{"Plaintext":"aGVsbG8="}`, answer.Body.String())
}

// TestTokensAreSecret has the codes and assertions of STS, which the model does not call sensitive: they are neither in a record
// nor in an error text.
func TestTokensAreSecret(t *testing.T) {
	m, err := parseModel(stsModel)
	require.NoError(t, err)
	d, err := newDecoder(m, "AssumeRole", reflect.TypeFor[iam.AssumeRoleInput]())
	require.NoError(t, err)
	recorded := d.root.parameters(reflect.ValueOf(iam.AssumeRoleInput{
		TokenCode: "123456", SerialNumber: "device", ProvidedContexts: []iam.ProvidedContext{{ContextAssertion: "signed", ProviderArn: "arn"}},
	}), unsaid)
	require.Equal(t, audit.Parameters{
		{Name: "providedContexts", Value: audit.Objects([]audit.Parameters{{{Name: "providerArn", Value: audit.Text("arn")}}})},
		{Name: "serialNumber", Value: audit.Text("device")},
	}, recorded)
	f, err := parseForm([]byte("RoleArn=arn:aws:iam::111122223333:role/a&RoleSessionName=ab&TokenCode=secret1"))
	require.NoError(t, err)
	err = d.decodeForm(f, &iam.AssumeRoleInput{})
	require.ErrorContains(t, err, "tokenCode")
	require.NotContains(t, err.Error(), "secret1")
}

// TestResponseElements has of answers what CloudTrail has: of calls that change something and of those that give credentials, and
// no secret or token.
func TestResponseElements(t *testing.T) {
	s, err := NewServer(Config{})
	require.NoError(t, err)
	made := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	credentials := &iam.Credentials{AccessKeyId: "ASIA", Expiration: made, SecretAccessKey: []byte("secret"), SessionToken: []byte("secret")}
	shownCredentials := audit.Object(audit.Parameters{{Name: "accessKeyId", Value: audit.Text("ASIA")}, {Name: "expiration", Value: audit.Time(made)}})
	for name, test := range map[string]struct {
		service *service
		output  any
		want    audit.Parameters
	}{
		"CreateKey": {s.kms, &kms.CreateKeyOutput{KeyMetadata: &kms.KeyMetadata{AWSAccountId: "1", KeyId: "k", CreationDate: kms.Timestamp{Time: made}}},
			audit.Parameters{{Name: "keyMetadata", Value: audit.Object(audit.Parameters{
				{Name: "keyId", Value: audit.Text("k")}, {Name: "AWSAccountId", Value: audit.Text("1")}, {Name: "creationDate", Value: audit.Time(made)},
				{Name: "enabled", Value: audit.Bool(false)}, {Name: "multiRegion", Value: audit.Bool(false)},
			})}}},
		"CreateGrant":       {s.kms, &kms.CreateGrantOutput{GrantId: "g", GrantToken: "secret"}, audit.Parameters{{Name: "grantId", Value: audit.Text("g")}}},
		"DisableKey":        {s.kms, &kms.Empty{}, nil},
		"ReEncrypt":         {s.kms, &kms.ReEncryptOutput{KeyId: "k"}, nil},
		"DeleteUser":        {s.iam, &iam.Empty{}, nil},
		"GetCallerIdentity": {s.sts, &iam.GetCallerIdentityOutput{Account: "1"}, nil},
		"CreateAccessKey": {s.iam, &iam.CreateAccessKeyOutput{AccessKey: &iam.AccessKey{AccessKeyId: "AKIA", SecretAccessKey: []byte("secret"), UserName: "u"}},
			audit.Parameters{{Name: "accessKey", Value: audit.Object(audit.Parameters{{Name: "userName", Value: audit.Text("u")}, {Name: "accessKeyId", Value: audit.Text("AKIA")}})}}},
		"AssumeRole":      {s.sts, &iam.AssumeRoleOutput{Credentials: credentials}, audit.Parameters{{Name: "credentials", Value: shownCredentials}}},
		"GetSessionToken": {s.sts, &iam.GetSessionTokenOutput{Credentials: credentials}, audit.Parameters{{Name: "credentials", Value: shownCredentials}}},
	} {
		x := &exchange{service: test.service, output: test.output, request: kms.Request{Operation: name}}
		require.Equal(t, test.want, x.responseElements(test.service.endpoints[name]), name)
	}
	x := &exchange{request: kms.Request{Operation: "CreateKey"}} // which failed
	require.Nil(t, x.responseElements(s.kms.endpoints["CreateKey"]))
}

// TestResponseElementsOfReadsCostNothing has the answers of calls that change nothing.
func TestResponseElementsOfReadsCostNothing(t *testing.T) {
	s, err := NewServer(Config{})
	require.NoError(t, err)
	x := &exchange{service: s.kms, output: &kms.ReEncryptOutput{KeyId: "k"}, request: kms.Request{Operation: "ReEncrypt"}}
	e := s.kms.endpoints["ReEncrypt"]
	require.Zero(t, testing.AllocsPerRun(100, func() { x.responseElements(e) }))
}
