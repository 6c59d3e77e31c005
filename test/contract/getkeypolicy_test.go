package contract

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// anyHome is a server for tests of what has nothing to do with key material.
func anyHome() *kmstest.Server { return servers[kmstest.HomeToken] }

const rootARN = "arn:aws:iam::" + kmstest.Account + ":root"

// rootPolicy is a policy that lets the account do everything, with more members of the document before its statement.
func rootPolicy(more string) string {
	return `{` + more + `"Statement":[{"Effect":"Allow","Principal":{"AWS":"` + rootARN + `"},"Action":"kms:*","Resource":"*"}]}`
}

// policyOf gives a key's policy and checks the form of the answer.
func policyOf(t testing.TB, s *kmstest.Server, id string) string {
	t.Helper()
	answer := accept(t, s, "GetKeyPolicy", object(t, "KeyId", id))
	text, ok := answer["Policy"].(string)
	require.True(t, ok, "%v", answer)
	require.Equal(t, members{"Policy": text, "PolicyName": "default"}, answer)
	return text
}

// inEveryState runs a test on a key in every state that a key can be brought into.
func inEveryState(t *testing.T, s *kmstest.Server, test func(t *testing.T, id, state string)) {
	t.Helper()
	for state, bring := range map[string]func(t *testing.T) string{
		"Enabled": func(t *testing.T) string { return s.NewKey(t) },
		"Disabled": func(t *testing.T) string {
			id := s.NewKey(t)
			perform(t, s, "DisableKey", object(t, "KeyId", id))
			return id
		},
		"PendingDeletion": func(t *testing.T) string {
			id := s.NewKey(t)
			accept(t, s, "ScheduleKeyDeletion", object(t, "KeyId", id))
			return id
		},
		"PendingImport": func(t *testing.T) string { return createKey(t, s, `{"Origin":"EXTERNAL"}`)["KeyId"].(string) },
	} {
		t.Run(state, func(t *testing.T) {
			id := bring(t)
			_, got := keyState(t, s, id)
			require.Equal(t, state, got)
			test(t, id, state)
		})
	}
}

// requirePolicyNames names policies in every wrong way; body makes a request of a name.
func requirePolicyNames(t *testing.T, s *kmstest.Server, operation string, body func(name any) string) {
	t.Helper()
	const letters = `satisfy regular expression pattern: [\w]+`
	long := strings.Repeat("p", 129)
	for _, name := range []string{"Default", "other", "default_", strings.Repeat("p", 128)} {
		s.Post(t, operation, body(name)).RequireRefusal(t, "NotFoundException", "No such policy exists")
	}
	for name, demand := range map[string]string{"default.": letters, "a b": letters, "a-b": letters, "é": letters, long: "have length less than or equal to 128"} {
		s.Post(t, operation, body(name)).RequireRefusal(t, "ValidationException", violated(name, "policyName", demand))
	}
	s.Post(t, operation, body("")).RequireRefusal(t, "ValidationException", "2 validation errors detected: Value '' at 'policyName' failed to satisfy constraint: "+
		"Member must have length greater than or equal to 1; Value '' at 'policyName' failed to satisfy constraint: Member must "+letters)
	s.Post(t, operation, body(7)).RequireRefusal(t, "SerializationException", "NUMBER_VALUE can not be converted to a String")
}

// TestGetKeyPolicyDefault reads the policy of a key that was made without one.
func TestGetKeyPolicyDefault(t *testing.T) {
	s := anyHome()
	var policy any
	require.NoError(t, json.Unmarshal([]byte(policyOf(t, s, s.NewKey(t))), &policy))
	require.Equal(t, members{
		"Version": "2012-10-17", "Id": "key-default-1",
		"Statement": []any{members{
			"Sid": "Enable IAM User Permissions", "Effect": "Allow", "Principal": members{"AWS": rootARN}, "Action": "kms:*", "Resource": "*",
		}},
	}, policy)
}

// TestGetKeyPolicy reads policies character for character as they were given at the making of a key.
func TestGetKeyPolicy(t *testing.T) {
	s := anyHome()
	for _, policy := range []string{rootPolicy(""), "\t" + rootPolicy("\"Version\" :\r\n \"2012-10-17\",\n") + "\r\n", rootPolicy(`"Id":"é ÿ \u00e9 \ud83d\ude00",`)} {
		id := createKey(t, s, object(t, "Policy", policy))["KeyId"].(string)
		want := members{"Policy": policy, "PolicyName": "default"}
		for _, body := range []string{
			object(t, "KeyId", id), object(t, "KeyId", kmstest.KeyARN(id)), object(t, "KeyId", id, "PolicyName", "default"), object(t, "KeyId", id, "PolicyName", nil),
		} {
			require.Equal(t, want, accept(t, s, "GetKeyPolicy", body))
		}
		out, err := s.Client().GetKeyPolicy(t.Context(), &kms.GetKeyPolicyInput{KeyId: &id, PolicyName: aws.String("default")})
		require.NoError(t, err)
		require.Equal(t, policy, *out.Policy)
		require.Equal(t, "default", *out.PolicyName)
	}
}

func TestGetKeyPolicyStates(t *testing.T) {
	s := anyHome()
	inEveryState(t, s, func(t *testing.T, id, _ string) { require.Contains(t, policyOf(t, s, id), "key-default-1") })
}

func TestGetKeyPolicyRefusals(t *testing.T) {
	s := anyHome()
	requireKeyNames(t, s, "GetKeyPolicy", "keyId", false, func(name string) string { return `{"KeyId":` + name + `}` })
	s.Post(t, "GetKeyPolicy", "{}").RequireRefusal(t, "ValidationException", missing("keyId"))
	id := s.NewKey(t)
	requirePolicyNames(t, s, "GetKeyPolicy", func(name any) string { return object(t, "KeyId", id, "PolicyName", name) })
	s.Post(t, "GetKeyPolicy", object(t, "KeyId", absentKey, "PolicyName", "other")).
		RequireRefusal(t, "NotFoundException", "Key '"+kmstest.KeyARN(absentKey)+"' does not exist")
}
