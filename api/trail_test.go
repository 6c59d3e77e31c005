package api

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/audit"
	"hsmkms/auth"
	"hsmkms/iam"
	"hsmkms/kms"
	"hsmkms/policy"
)

// describeKey sends a request for DescribeKey to a server without services, in whose place call is if it is not nil.
func describeKey(t *testing.T, trail func(context.Context, *audit.Event) error, call func() any) *httptest.ResponseRecorder {
	t.Helper()
	s, err := NewServer(Config{
		Verify: func(context.Context, *http.Request, []byte, []string) (auth.Identity, error) {
			caller := &policy.Caller{Principal: policy.Principal{Account: "111122223333", AccessKeyID: "ASIAEXAMPLE"}}
			return auth.Identity{Caller: caller, Region: "us-east-1", Service: "kms"}, nil
		},
		Trail: trail,
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
	}))
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
