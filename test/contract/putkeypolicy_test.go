package contract

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

const textLockedOut = "The new key policy will not allow you to update the key policy in the future."

// lockingPolicies are well-formed and would keep the root user from putting another.
var lockingPolicies = []string{
	`{"Statement":{"Effect":"Allow","Principal":"*"}}`, // it has no effect
	`{"Statement":{"Effect":"Allow","Principal":"*","Action":"kms:*"}}`,
	`{"Statement":{"Effect":"Allow","Principal":"*","Action":"kms:Get*","Resource":"*"}}`,
	`{"Statement":{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"arn:aws:s3:::bucket"}}`,
	`{"Statement":{"Effect":"Allow","Principal":{"AWS":"444455556666"},"Action":"kms:*","Resource":"*"}}`,
	`{"Statement":{"Effect":"Allow","Principal":{"Service":"s3.amazonaws.com"},"Action":"kms:*","Resource":"*"}}`,
	`{"Statement":{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*","Condition":{"Bool":{"aws:SecureTransport":"true"}}}}`,
	`{"Statement":[{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"},{"Effect":"Deny","Principal":"*","Action":"kms:PutKeyPolicy","Resource":"*"}]}`,
	// Under these the very request that puts them would be denied: it comes without TLS and without MFA.
	`{"Statement":[{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"},{"Effect":"Deny","Principal":"*","Action":"*","Resource":"*","Condition":{"Bool":{"aws:SecureTransport":"false"}}}]}`,
	`{"Statement":[{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"},{"Effect":"Deny","Principal":"*","Action":"*","Resource":"*","Condition":{"BoolIfExists":{"aws:MultiFactorAuthPresent":"false"}}}]}`,
}

// malformedPolicies are refused whatever else the request says, with these texts.
var malformedPolicies = map[string]string{
	" ":                                "The policy is not valid JSON.",
	"{":                                "The policy is not valid JSON.",
	rootPolicy("") + "x":               "The policy is not valid JSON.",
	"[]":                               "The policy must be an object.",
	"null":                             "The policy must be an object.",
	`{"Version":"2012-10-17"}`:         "The policy has no Statement.",
	`{"Statement":"*"}`:                "A statement must be an object.",
	rootPolicy(`"Version":"1",`):       `The policy has the unknown Version "1".`,
	rootPolicy(`"Name":"x",`):          `The policy has the unknown element "Name".`,
	rootPolicy(`"Id":"<&>","Id":"x",`): `The element "Id" appears twice.`,
	`{"Statement":[{"Effect":"Allow","Action":"kms:*","Resource":"*"}]}`:                                                                   "Policy contains a statement with no principal.",
	`{"Statement":[{"Effect":"Allow","Principal":{"AWS":"` + rootARN + `/x"},"Action":"kms:*","Resource":"*"}]}`:                           "Policy contains a statement with one or more invalid principals.",
	`{"Statement":[{"Effect":"Allow","Principal":"*","Action":"kms:*","NotAction":"kms:*","Resource":"*"}]}`:                               "A statement must not have both Action and NotAction.",
	`{"Statement":[{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*","Condition":{"StringSame":{"kms:ViaService":"é"}}}]}`: `Invalid condition operator: "StringSame".`,
}

// longPolicy is a policy of some number of bytes.
func longPolicy(t testing.TB, bytes int) string {
	t.Helper()
	rest := bytes - len(rootPolicy(`"Id":"",`))
	policy := rootPolicy(`"Id":"` + strings.Repeat("é", rest/2) + strings.Repeat("x", rest%2) + `",`)
	require.Len(t, policy, bytes)
	return policy
}

func TestPutKeyPolicy(t *testing.T) {
	s := anyHome()
	id := s.NewKey(t)
	created := accept(t, s, "DescribeKey", object(t, "KeyId", id))
	for i, policy := range []string{
		rootPolicy(""), rootPolicy(""), " \r\n\t" + rootPolicy(`"Id" : "é\u00e9",`), longPolicy(t, 32768),
		strings.Replace(rootPolicy(`"Version":"2008-10-17",`), `"Resource":"*"`, `"Resource":"`+kmstest.KeyARN(id)+`"`, 1),
		strings.Replace(rootPolicy(""), `{"AWS":"`+rootARN+`"}`, `{"AWS":["444455556666","`+kmstest.Account+`"],"Service":"s3.amazonaws.com"}`, 1),
	} {
		for _, body := range []string{
			object(t, "KeyId", id, "Policy", policy), object(t, "KeyId", kmstest.KeyARN(id), "Policy", policy, "PolicyName", "default"),
			object(t, "KeyId", id, "Policy", policy, "BypassPolicyLockoutSafetyCheck", i%2 == 0), object(t, "KeyId", id, "Policy", policy, "PolicyName", nil),
		} {
			perform(t, s, "PutKeyPolicy", object(t, "KeyId", id, "Policy", rootPolicy(`"Id":"between",`)))
			perform(t, s, "PutKeyPolicy", body)
			require.Equal(t, policy, policyOf(t, s, id))
		}
	}
	require.Equal(t, created, accept(t, s, "DescribeKey", object(t, "KeyId", id)))
}

func TestPutKeyPolicySDK(t *testing.T) {
	s := anyHome()
	id, policy := s.NewKey(t), rootPolicy(`"Id":"by the SDK",`)
	_, err := s.Client().PutKeyPolicy(t.Context(), &kms.PutKeyPolicyInput{KeyId: &id, Policy: &policy, PolicyName: aws.String("default"), BypassPolicyLockoutSafetyCheck: true})
	require.NoError(t, err)
	require.Equal(t, policy, policyOf(t, s, id))
}

func TestPutKeyPolicyStates(t *testing.T) {
	s := anyHome()
	inEveryState(t, s, func(t *testing.T, id, state string) {
		perform(t, s, "PutKeyPolicy", object(t, "KeyId", id, "Policy", rootPolicy(`"Id":"new",`)))
		require.Equal(t, rootPolicy(`"Id":"new",`), policyOf(t, s, id))
		_, after := keyState(t, s, id)
		require.Equal(t, state, after)
	})
}

// TestPutKeyPolicyLockout puts policies that would be the last, without and with the bypass.
func TestPutKeyPolicyLockout(t *testing.T) {
	s := anyHome()
	for _, policy := range lockingPolicies {
		id := s.NewKey(t)
		before := policyOf(t, s, id)
		for _, bypass := range []any{nil, false} {
			s.Post(t, "PutKeyPolicy", object(t, "KeyId", id, "Policy", policy, "BypassPolicyLockoutSafetyCheck", bypass)).
				RequireRefusal(t, "MalformedPolicyDocumentException", textLockedOut)
			require.Equal(t, before, policyOf(t, s, id))
		}
		perform(t, s, "PutKeyPolicy", object(t, "KeyId", id, "Policy", policy, "BypassPolicyLockoutSafetyCheck", true))
		requirePut(t, s, id, policy)
	}
}

// TestPolicyLockoutKnowsTheKey puts policies under conditions on what is the same for all requests about a key.
func TestPolicyLockoutKnowsTheKey(t *testing.T) {
	s := anyHome()
	for condition, locked := range map[string]bool{
		`"StringEquals":{"kms:KeySpec":"SYMMETRIC_DEFAULT"}`: false, `"StringEquals":{"kms:KeySpec":"RSA_2048"}`: true,
		`"StringEquals":{"kms:KeyUsage":"ENCRYPT_DECRYPT"}`: false, `"StringEquals":{"kms:KeyUsage":"SIGN_VERIFY"}`: true,
		`"StringEquals":{"kms:KeyOrigin":"AWS_KMS"}`: false, `"StringEquals":{"kms:KeyOrigin":"EXTERNAL"}`: true,
		`"Bool":{"kms:MultiRegion":"false"}`: false, `"Bool":{"kms:MultiRegion":"true"}`: true,
		`"StringEquals":{"aws:RequestedRegion":"us-east-1"}`: false, `"StringEquals":{"aws:RequestedRegion":"eu-west-1"}`: true,
		`"Bool":{"aws:SecureTransport":"false"}`: true, // which may be otherwise in the next request
	} {
		policy := strings.Replace(rootPolicy(""), `"Resource":"*"`, `"Resource":"*","Condition":{`+condition+`}`, 1)
		require.NotEqual(t, rootPolicy(""), policy)
		for operation, member := range map[string]any{"PutKeyPolicy": s.NewKey(t), "CreateKey": nil} {
			answer := s.Post(t, operation, object(t, "Policy", policy, "KeyId", member))
			if locked {
				answer.RequireRefusal(t, "MalformedPolicyDocumentException", textLockedOut)
				continue
			}
			requireCode(t, answer, "")
		}
	}
}

// requirePut checks that a key has a locking policy: it is given out, or it has locked out the root user as the check had
// warned.
func requirePut(t *testing.T, s *kmstest.Server, id, policy string) {
	t.Helper()
	answer := s.Post(t, "GetKeyPolicy", object(t, "KeyId", id))
	if answer.Status == http.StatusOK {
		require.Equal(t, policy, answer.JSON(t)["Policy"])
		return
	}
	for _, operation := range []string{"GetKeyPolicy", "PutKeyPolicy"} {
		requireCode(t, s.Post(t, operation, object(t, "KeyId", id, "Policy", rootPolicy(""))), denied)
	}
}

func TestPutKeyPolicyRefusals(t *testing.T) {
	s := anyHome()
	quoted := object(t, "x", rootPolicy(""))[len(`{"x":`):]
	requireKeyNames(t, s, "PutKeyPolicy", "keyId", false, func(name string) string { return `{"KeyId":` + name + `,"Policy":` + quoted })
	id := s.NewKey(t)
	before := policyOf(t, s, id)
	requirePolicyNames(t, s, "PutKeyPolicy", func(name any) string { return object(t, "KeyId", id, "Policy", rootPolicy(""), "PolicyName", name) })
	for policy, message := range malformedPolicies {
		for _, bypass := range []bool{false, true} {
			s.Post(t, "PutKeyPolicy", object(t, "KeyId", id, "Policy", policy, "BypassPolicyLockoutSafetyCheck", bypass)).
				RequireRefusal(t, "MalformedPolicyDocumentException", message)
		}
	}
	const charset = `satisfy regular expression pattern: [\u0009\u000A\u000D\u0020-\u00FF]+`
	long := strings.Repeat(" ", 131073)
	for _, test := range []struct{ body, code, message string }{
		{object(t, "KeyId", id, "Policy", longPolicy(t, 32769)), "LimitExceededException", "The key policy has 32769 bytes; the maximum is 32768."},
		{object(t, "KeyId", id, "Policy", long[1:]), "LimitExceededException", "The key policy has 131072 bytes; the maximum is 32768."},
		{object(t, "KeyId", id, "Policy", long), "ValidationException", violated(long, "policy", "have length less than or equal to 131072")},
		{object(t, "KeyId", id, "Policy", `{"Id":"Ā"}`), "ValidationException", violated(`{"Id":"Ā"}`, "policy", charset)},
		{object(t, "KeyId", id, "Policy", "{}\x00"), "ValidationException", violated("{}\x00", "policy", charset)},
		{object(t, "KeyId", id), "ValidationException", missing("policy")},
		{object(t, "KeyId", id, "Policy", nil), "ValidationException", missing("policy")},
		{object(t, "Policy", rootPolicy("")), "ValidationException", missing("keyId")},
		{object(t, "KeyId", id, "Policy", members{}), "SerializationException", "Start of structure or map found where not expected."},
		{object(t, "KeyId", id, "Policy", rootPolicy(""), "BypassPolicyLockoutSafetyCheck", "true"), "SerializationException", "STRING_VALUE can not be converted to a Boolean"},
		{object(t, "KeyId", absentKey, "Policy", "x"), "NotFoundException", "Key '" + kmstest.KeyARN(absentKey) + "' does not exist"},
		{object(t, "KeyId", id, "Policy", "x", "PolicyName", "other"), "NotFoundException", "No such policy exists"},
	} {
		s.Post(t, "PutKeyPolicy", test.body).RequireRefusal(t, test.code, test.message)
	}
	require.Equal(t, before, policyOf(t, s, id))
}

// TestConcurrentPolicies has 16 clients put policies, and tags besides, on one key. None of the changes undoes one of
// another kind, and the policy is always one that was put.
func TestConcurrentPolicies(t *testing.T) {
	const clients, turns = 16, 10
	s := anyHome()
	id, client := s.NewKey(t), s.Client()
	policy := func(i int) string { return rootPolicy(fmt.Sprintf(`"Id":"client %d",`, i)) }
	var all []string
	for i := range clients {
		all = append(all, policy(i))
	}
	perform(t, s, "PutKeyPolicy", object(t, "KeyId", id, "Policy", all[0]))
	require.NoError(t, together(clients, func(i int) error {
		for turn := range turns {
			if _, err := client.PutKeyPolicy(t.Context(), &kms.PutKeyPolicyInput{KeyId: &id, Policy: &all[i]}); err != nil {
				return err
			}
			out, err := client.GetKeyPolicy(t.Context(), &kms.GetKeyPolicyInput{KeyId: &id})
			if err != nil {
				return err
			}
			if !slices.Contains(all, *out.Policy) {
				return fmt.Errorf("the policy %q was never put", *out.Policy)
			}
			if err := setTag(t.Context(), client, id, fmt.Sprint("client ", i), fmt.Sprint(turn)); err != nil {
				return err
			}
		}
		return nil
	}))
	require.Contains(t, all, policyOf(t, s, id))
	require.Len(t, allTags(t, s, id, 50), clients)
	for _, tag := range allTags(t, s, id, 50) {
		require.Equal(t, fmt.Sprint(turns-1), tag[1])
	}
}
