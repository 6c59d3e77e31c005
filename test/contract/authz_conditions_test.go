package contract

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"
)

// conditioned is a request, and a condition that it meets with one value and not with another.
type conditioned struct {
	operation string
	// pairs are put into the body; "$ALIAS" stands for an alias of the key.
	pairs                     []any
	operator, key, met, unmet string
	// need is which of the needs has the condition.
	need int
}

// onKeys are conditions on what keys and callers are, which go with every operation on a key.
func onKeys(account string) []conditioned {
	var all []conditioned
	for _, operation := range []string{"DescribeKey", "Encrypt", "ScheduleKeyDeletion", "CreateGrant", "RetireGrant", "UpdateAlias", "PutKeyPolicy"} {
		for _, c := range []conditioned{
			{operator: "StringEquals", key: "kms:KeySpec", met: "SYMMETRIC_DEFAULT", unmet: "RSA_2048"},
			{operator: "StringEquals", key: "kms:KeyUsage", met: "ENCRYPT_DECRYPT", unmet: "SIGN_VERIFY"},
			{operator: "StringEquals", key: "kms:KeyOrigin", met: "AWS_KMS", unmet: "EXTERNAL"},
			{operator: "Bool", key: "kms:MultiRegion", met: "false", unmet: "true"},
			{operator: "Null", key: "kms:MultiRegionKeyType", met: "true", unmet: "false"},
			{operator: "StringEquals", key: "kms:CallerAccount", met: account, unmet: "111122223333"},
			{operator: "StringEquals", key: "aws:ResourceAccount", met: account, unmet: "111122223333"},
			{operator: "Null", key: "kms:ViaService", met: "true", unmet: "false"},
			{operator: "StringEquals", key: "aws:ResourceTag/team", met: "red", unmet: "blue"},
			{operator: "StringEquals", key: "aws:PrincipalTag/Team", met: "green", unmet: "red"},
			{operator: "IpAddress", key: "aws:SourceIp", met: "127.0.0.0/8", unmet: "10.0.0.0/8"},
			{operator: "Bool", key: "aws:SecureTransport", met: "false", unmet: "true"},
			{operator: "StringEquals", key: "aws:RequestedRegion", met: "us-east-1", unmet: "eu-west-1"},
			{operator: "StringEquals", key: "aws:username", met: "caller", unmet: "other"},
			{operator: "StringLike", key: "aws:UserAgent", met: "tester/*", unmet: "curl/*"},
			{operator: "StringEquals", key: "aws:Referer", met: "https://tester.example/a", unmet: "https://tester.example/"},
			{operator: "DateLessThan", key: "aws:CurrentTime", met: "2126-01-01T00:00:00Z", unmet: "2020-01-01T00:00:00Z"},
		} {
			c.operation = operation
			all = append(all, c)
		}
	}
	return all
}

// onRequests are conditions on what is asked.
func onRequests(caller string) []conditioned {
	enc := []any{"EncryptionContext", members{"Tenant": "blue", "size": "1"}}
	var all []conditioned
	for _, operation := range []string{"Encrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "GenerateDataKeyPair", "GenerateDataKeyPairWithoutPlaintext"} {
		all = append(all,
			conditioned{operation: operation, pairs: enc, operator: "StringEquals", key: "kms:EncryptionContext:tenant", met: "blue", unmet: "Blue"},
			conditioned{operation: operation, pairs: enc, operator: "ForAnyValue:StringEquals", key: "kms:EncryptionContextKeys", met: "Tenant", unmet: "tenant"},
			conditioned{operation: operation, operator: "Null", key: "kms:EncryptionContextKeys", met: "true", unmet: "false"},
			conditioned{operation: operation, operator: "StringEquals", key: "kms:EncryptionAlgorithm", met: "SYMMETRIC_DEFAULT", unmet: "RSAES_OAEP_SHA_256"},
			conditioned{operation: operation, pairs: []any{"KeyId", "$ALIAS"}, operator: "StringEquals", key: "kms:RequestAlias", met: "$ALIAS", unmet: "alias/other"},
			conditioned{operation: operation, pairs: []any{"KeyId", "$ALIAS"}, operator: "ForAnyValue:StringEquals", key: "kms:ResourceAliases", met: "$ALIAS", unmet: "alias/other"},
			conditioned{operation: operation, operator: "Null", key: "kms:RequestAlias", met: "true", unmet: "false"})
	}
	for _, operation := range []string{"GenerateDataKeyPair", "GenerateDataKeyPairWithoutPlaintext"} {
		all = append(all, conditioned{operation: operation, operator: "StringEquals", key: "kms:DataKeyPairSpec", met: "RSA_2048", unmet: "RSA_4096"})
	}
	for _, operation := range []string{"Sign", "Verify"} {
		all = append(all,
			conditioned{operation: operation, operator: "StringEquals", key: "kms:SigningAlgorithm", met: "ECDSA_SHA_256", unmet: "ECDSA_SHA_384"},
			conditioned{operation: operation, operator: "StringEquals", key: "kms:MessageType", met: "RAW", unmet: "DIGEST"})
	}
	for _, operation := range []string{"GenerateMac", "VerifyMac"} {
		all = append(all, conditioned{operation: operation, operator: "StringEquals", key: "kms:MacAlgorithm", met: "HMAC_SHA_256", unmet: "HMAC_SHA_512"})
	}
	for _, operation := range []string{"CreateKey", "PutKeyPolicy"} {
		all = append(all,
			conditioned{operation: operation, pairs: []any{"BypassPolicyLockoutSafetyCheck", true}, operator: "Bool", key: "kms:BypassPolicyLockoutSafetyCheck", met: "true", unmet: "false"},
			conditioned{operation: operation, pairs: []any{"BypassPolicyLockoutSafetyCheck", false}, operator: "Bool", key: "kms:BypassPolicyLockoutSafetyCheck", met: "false", unmet: "true"})
	}
	tags := []any{"Tags", []members{{"TagKey": "Team", "TagValue": "red"}}}
	constraint := []any{"Constraints", members{"EncryptionContextEquals": members{"tenant": "blue"}}}
	return append(all,
		conditioned{operation: "DeriveSharedSecret", operator: "StringEquals", key: "kms:KeyAgreementAlgorithm", met: "ECDH", unmet: "X"},
		conditioned{operation: "DescribeKey", pairs: []any{"KeyId", "$ALIAS"}, operator: "StringEquals", key: "kms:RequestAlias", met: "$ALIAS", unmet: "alias/other"},
		conditioned{operation: "Decrypt", operator: "StringEquals", key: "kms:EncryptionAlgorithm", met: "SYMMETRIC_DEFAULT", unmet: "X"},
		conditioned{operation: "ReEncrypt", operator: "Bool", key: "kms:ReEncryptOnSameKey", met: "false", unmet: "true"},
		conditioned{operation: "ReEncrypt", operator: "Bool", key: "kms:ReEncryptOnSameKey", met: "false", unmet: "true", need: 1},
		conditioned{operation: "ReEncrypt", pairs: []any{"DestinationEncryptionContext", members{"a": "to"}}, operator: "StringEquals", key: "kms:EncryptionContext:a", met: "to", unmet: "from", need: 1},
		conditioned{operation: "ReEncrypt", pairs: []any{"DestinationEncryptionContext", members{"a": "to"}}, operator: "Null", key: "kms:EncryptionContext:a", met: "true", unmet: "false"},
		conditioned{operation: "CreateKey", operator: "StringEquals", key: "kms:KeySpec", met: "SYMMETRIC_DEFAULT", unmet: "RSA_2048"},
		conditioned{operation: "CreateKey", operator: "StringEquals", key: "kms:KeyUsage", met: "ENCRYPT_DECRYPT", unmet: "SIGN_VERIFY"},
		conditioned{operation: "CreateKey", operator: "StringEquals", key: "kms:KeyOrigin", met: "AWS_KMS", unmet: "EXTERNAL"},
		conditioned{operation: "CreateKey", pairs: []any{"MultiRegion", true}, operator: "Bool", key: "kms:MultiRegion", met: "true", unmet: "false"},
		conditioned{operation: "CreateKey", pairs: []any{"MultiRegion", true}, operator: "StringEquals", key: "kms:MultiRegionKeyType", met: "PRIMARY", unmet: "REPLICA"},
		conditioned{operation: "TagResource", pairs: tags, operator: "StringEquals", key: "aws:RequestTag/team", met: "red", unmet: "blue"},
		conditioned{operation: "TagResource", pairs: tags, operator: "ForAllValues:StringEquals", key: "aws:TagKeys", met: "Team", unmet: "a"},
		conditioned{operation: "UntagResource", pairs: []any{"TagKeys", []string{"Team"}}, operator: "ForAllValues:StringEquals", key: "aws:TagKeys", met: "Team", unmet: "a"},
		conditioned{operation: "CreateGrant", operator: "ForAllValues:StringEquals", key: "kms:GrantOperations", met: "Decrypt", unmet: "Encrypt"},
		conditioned{operation: "CreateGrant", operator: "Bool", key: "kms:GrantIsForAWSResource", met: "false", unmet: "true"},
		conditioned{operation: "ListGrants", operator: "Bool", key: "kms:GrantIsForAWSResource", met: "false", unmet: "true"},
		conditioned{operation: "RevokeGrant", operator: "Bool", key: "kms:GrantIsForAWSResource", met: "false", unmet: "true"},
		conditioned{operation: "DescribeKey", operator: "Null", key: "kms:GrantIsForAWSResource", met: "true", unmet: "false"},
		conditioned{operation: "CreateGrant", pairs: constraint, operator: "StringEquals", key: "kms:GrantConstraintType", met: "EncryptionContextEquals", unmet: "EncryptionContextSubset"},
		conditioned{operation: "CreateGrant", pairs: constraint, operator: "StringEquals", key: "kms:EncryptionContext:tenant", met: "blue", unmet: "red"},
		conditioned{operation: "CreateGrant", pairs: []any{"GranteePrincipal", caller}, operator: "StringEquals", key: "kms:GranteePrincipal", met: caller, unmet: "x"},
		conditioned{operation: "CreateGrant", pairs: []any{"RetiringPrincipal", caller}, operator: "StringEquals", key: "kms:RetiringPrincipal", met: caller, unmet: "x"},
		conditioned{operation: "ScheduleKeyDeletion", pairs: []any{"PendingWindowInDays", 7}, operator: "NumericEquals", key: "kms:ScheduleKeyDeletionPendingWindowInDays", met: "7", unmet: "30"},
		conditioned{operation: "ScheduleKeyDeletion", operator: "NumericEquals", key: "kms:ScheduleKeyDeletionPendingWindowInDays", met: "30", unmet: "7"},
		conditioned{operation: "EnableKeyRotation", pairs: []any{"RotationPeriodInDays", 90}, operator: "NumericEquals", key: "kms:RotationPeriodInDays", met: "90", unmet: "365"},
		conditioned{operation: "GetParametersForImport", operator: "StringEquals", key: "kms:WrappingAlgorithm", met: "RSAES_OAEP_SHA_1", unmet: "RSAES_OAEP_SHA_256"},
		conditioned{operation: "GetParametersForImport", operator: "StringEquals", key: "kms:WrappingKeySpec", met: "RSA_2048", unmet: "RSA_4096"},
		conditioned{operation: "ImportKeyMaterial", operator: "StringEquals", key: "kms:ExpirationModel", met: "KEY_MATERIAL_DOES_NOT_EXPIRE", unmet: "KEY_MATERIAL_EXPIRES"},
		conditioned{
			operation: "ImportKeyMaterial", operator: "DateLessThan", key: "kms:ValidTo", met: inDays(200).Format(time.RFC3339), unmet: inDays(50).Format(time.RFC3339),
			pairs: []any{"ExpirationModel", "KEY_MATERIAL_EXPIRES", "ValidTo", inDays(100).Unix()},
		},
		conditioned{operation: "GenerateRandom", operator: "IpAddress", key: "aws:SourceIp", met: "127.0.0.1", unmet: "127.0.0.2"},
		conditioned{operation: "ListKeys", operator: "Null", key: "kms:KeySpec", met: "true", unmet: "false"},
	)
}

func inDays(n int) time.Time { return time.Now().UTC().AddDate(0, 0, n) }

func jsonOf(t testing.TB, text string) members {
	t.Helper()
	m := members{}
	if text != "" {
		require.NoError(t, json.Unmarshal([]byte(text), &m))
	}
	return m
}

func mustDecode(t testing.TB, text string) []byte {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(text)
	require.NoError(t, err)
	return raw
}

// TestConditions makes requests that are allowed under a condition alone: first not met, then met.
func TestConditions(t *testing.T) {
	s := one()
	g := newRig(t, s)
	who, arn := g.user("caller")
	_, err := g.root.IAM.TagUser(t.Context(), &iam.TagUserInput{UserName: aws.String("caller"), Tags: []iamtypes.Tag{iamTag("Team", "green")}})
	require.NoError(t, err)
	for _, c := range slices.Concat(onKeys(g.account), onRequests(arn)) {
		calls := makers[c.operation](g)
		call := calls[len(calls)-1]
		if _, takesKey := jsonOf(t, call.body)["KeyId"]; !takesKey {
			call = calls[0]
		}
		if c.operation == "UpdateAlias" {
			c.need = len(call.needs) - 1 // the key that the alias shall point at
		}
		if c.key == "aws:ResourceTag/team" {
			g.do("TagResource", "", "KeyId", call.needs[c.need].resource, "Tags", []members{{"TagKey": "team", "TagValue": "red"}})
		}
		alias := ""
		body := jsonOf(t, call.body)
		for i := 0; i < len(c.pairs); i += 2 {
			if c.pairs[i+1] == "$ALIAS" {
				alias = g.alias(call.needs[0].resource)
				c.pairs[i+1] = alias
			}
			body[c.pairs[i].(string)] = c.pairs[i+1]
		}
		text, err := json.Marshal(body)
		require.NoError(t, err)
		send := func(value string) (code string) {
			if value == "$ALIAS" {
				value = alias
			}
			policy := []statement{}
			for i, n := range call.needs {
				a := allow(n.permission, map[bool]string{true: "*", false: n.resource}[n.resource == ""])
				if i == c.need {
					a = a.with("Condition", members{c.operator: members{c.key: value}})
				}
				policy = append(policy, a)
			}
			g.root.PutUserPolicy(t, "caller", document(t, policy...))
			answer := s.PostAs(t, who, c.operation, string(text), func(r *http.Request) {
				r.Header.Set("User-Agent", "tester/1")
				r.Header.Set("Referer", "https://tester.example/a")
			})
			if answer.Status == http.StatusOK || call.dry && jsonOf(t, answer.Body)["__type"] == "DryRunOperationException" {
				return ""
			}
			return answer.JSON(t)["__type"].(string)
		}
		require.Equal(t, denied, send(c.unmet), "%s: %s", c.operation, c.key)
		require.Empty(t, send(c.met), "%s: %s", c.operation, c.key)
	}
}

// TestEncryptionContextOfDecrypt has each end of ReEncrypt, and Decrypt, judged by its own encryption context.
func TestEncryptionContextOfDecrypt(t *testing.T) {
	s := one()
	g := newRig(t, s)
	who, _ := g.user("caller")
	from, to := g.key(), g.key()
	blob := g.do("Encrypt", "CiphertextBlob", "KeyId", from, "Plaintext", b64("x"), "EncryptionContext", members{"a": "from"})
	under := func(permission, resource, value string) statement {
		return allow(permission, resource).with("Condition", members{"StringEquals": members{"kms:EncryptionContext:a": value}})
	}
	for fromValue, toValues := range map[string]map[string]string{"from": {"to": "", "from": denied}, "to": {"to": denied, "from": denied}} {
		for toValue, code := range toValues {
			g.root.PutUserPolicy(t, "caller", document(t, under("kms:ReEncryptFrom", from, fromValue), under("kms:ReEncryptTo", to, toValue)))
			requireCode(t, g.as(who, "ReEncrypt", "CiphertextBlob", blob, "SourceEncryptionContext", members{"a": "from"},
				"DestinationKeyId", to, "DestinationEncryptionContext", members{"a": "to"}), code)
		}
	}
	for value, code := range map[string]string{"from": "", "to": denied} {
		g.root.PutUserPolicy(t, "caller", document(t, under("kms:Decrypt", from, value)))
		requireCode(t, g.as(who, "Decrypt", "CiphertextBlob", blob, "EncryptionContext", members{"a": "from"}), code)
	}
	alias := g.alias(from)
	for value, code := range map[string]string{"true": "", "false": denied} {
		g.root.PutUserPolicy(t, "caller", document(t, allow([]string{"kms:ReEncryptFrom", "kms:ReEncryptTo"}, "*").with("Condition", members{"Bool": members{"kms:ReEncryptOnSameKey": value}})))
		for _, pairs := range [][]any{{}, {"SourceKeyId", alias}, {"SourceKeyId", from}} {
			requireCode(t, g.as(who, "ReEncrypt", append(pairs, "CiphertextBlob", blob, "SourceEncryptionContext", members{"a": "from"}, "DestinationKeyId", alias)...), code)
		}
	}
}

// TestReEncryptAmongThreeAccounts moves a ciphertext from a key of one account to a key of another, for a user of a third.
func TestReEncryptAmongThreeAccounts(t *testing.T) {
	s := one()
	from, to, w := newRig(t, s), newRig(t, s), newStranger(t, s)
	source, destination := from.key(), to.key()
	blob := from.do("Encrypt", "CiphertextBlob", "KeyId", source, "Plaintext", b64("secret"), "EncryptionContext", members{"tenant": "blue"})
	principals := func(g *rig, key, permission, tenant string) func(bool) {
		return func(open bool) {
			statements := []statement{{"Effect": "Allow", "Principal": members{"AWS": g.account}, "Action": "kms:*", "Resource": "*"}}
			if open {
				statements = append(statements, statement{"Effect": "Allow", "Principal": members{"AWS": w.account}, "Action": permission, "Resource": "*",
					"Condition": members{"StringEquals": members{"kms:EncryptionContext:tenant": tenant, "kms:CallerAccount": w.account, "kms:EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}, "Bool": members{"kms:ReEncryptOnSameKey": "false"}}})
			}
			g.putPolicy(key, document(t, statements...))
		}
	}
	openSource, openDestination := principals(from, source, "kms:ReEncryptFrom", "blue"), principals(to, destination, "kms:ReEncryptTo", "green")
	user := func(permissions ...string) { w.may(t, allow(append(permissions, "kms:ListKeys"), "*")) }
	move := func() *kms.ReEncryptOutput {
		out, err := w.KMS.ReEncrypt(t.Context(), &kms.ReEncryptInput{
			CiphertextBlob: mustDecode(t, blob), SourceEncryptionContext: map[string]string{"tenant": "blue"},
			DestinationKeyId: &destination, DestinationEncryptionContext: map[string]string{"tenant": "green"},
		})
		if err != nil {
			require.Equal(t, denied, codeOf(err))
			return nil
		}
		return out
	}
	for _, test := range []struct {
		source, destination bool
		permissions         []string
	}{
		{false, true, []string{"kms:ReEncryptFrom", "kms:ReEncryptTo"}},
		{true, false, []string{"kms:ReEncryptFrom", "kms:ReEncryptTo"}},
		{true, true, []string{"kms:ReEncryptFrom"}},
		{true, true, []string{"kms:ReEncryptTo"}},
	} {
		openSource(test.source)
		openDestination(test.destination)
		user(test.permissions...)
		require.Nil(t, move(), "%v", test)
	}
	user("kms:ReEncryptFrom", "kms:ReEncryptTo")
	out := move()
	require.NotNil(t, out)
	require.Equal(t, source, *out.SourceKeyId)
	require.Equal(t, destination, *out.KeyId)
	opened, err := to.root.KMS.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: out.CiphertextBlob, EncryptionContext: map[string]string{"tenant": "green"}})
	require.NoError(t, err)
	require.Equal(t, "secret", string(opened.Plaintext))
	_, err = w.KMS.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: out.CiphertextBlob, EncryptionContext: map[string]string{"tenant": "green"}})
	require.Equal(t, denied, codeOf(err))

	// With grants it works as well.
	openSource(false)
	openDestination(false)
	require.Nil(t, move())
	for key, g := range map[string]*rig{source: from, destination: to} {
		requireCode(t, g.as(g.root, "CreateGrant", "KeyId", key, "GranteePrincipal", w.arn, "Operations", []string{"ReEncryptFrom", "ReEncryptTo"}), "")
	}
	require.NotNil(t, move())
	user()
	require.Nil(t, move(), "across accounts, a policy of the caller's own is needed as well")
}
