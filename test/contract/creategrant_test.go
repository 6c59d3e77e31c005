package contract

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// user makes a user of the rig's account without any policy, and gives its ARN.
func (g *rig) user(name string) (kmstest.Someone, string) {
	g.t.Helper()
	return g.s.NewUserOf(g.t, g.root, name, ""), g.userARN(name)
}

// as sends a request of somebody.
func (g *rig) as(who kmstest.Someone, operation string, pairs ...any) kmstest.Answer {
	g.t.Helper()
	return g.s.PostAs(g.t, who, operation, object(g.t, pairs...))
}

// requireCode checks the type of a refusal; "" is for success.
func requireCode(t testing.TB, a kmstest.Answer, code string) {
	t.Helper()
	if code == "" {
		require.Equal(t, http.StatusOK, a.Status, a.Body)
		return
	}
	require.Equal(t, code, a.JSON(t)["__type"], a.Body)
}

const denied = "AccessDeniedException"

func TestCreateGrant(t *testing.T) {
	g := newRig(t, one())
	who, arn := g.user("grantee")
	key := g.key()
	encrypt := func(context members, tokens ...string) kmstest.Answer {
		pairs := []any{"KeyId", key, "Plaintext", b64("x"), "EncryptionContext", context}
		if len(tokens) > 0 {
			pairs = append(pairs, "GrantTokens", tokens)
		}
		return g.as(who, "Encrypt", pairs...)
	}
	requireCode(t, encrypt(nil), denied)
	made := g.as(g.root, "CreateGrant", "KeyId", key, "GranteePrincipal", arn, "Operations", []string{"Encrypt", "Encrypt"}, "Name", "one",
		"Constraints", members{"EncryptionContextSubset": members{"Tenant": "blue"}})
	requireCode(t, made, "")
	require.Regexp(t, `^[0-9a-f]{64}$`, made.JSON(t)["GrantId"])
	require.Len(t, made.JSON(t), 2)
	requireCode(t, encrypt(members{"tenant": "blue", "other": "x"}), "")
	for _, context := range []members{nil, {"tenant": "Blue"}, {"other": "blue"}} {
		requireCode(t, encrypt(context), denied)
	}
	requireCode(t, g.as(who, "DescribeKey", "KeyId", key), denied)
	token := made.JSON(t)["GrantToken"].(string)
	requireCode(t, encrypt(members{"tenant": "blue"}, token), "")
	flipped := token[:len(token)/2] + string(token[len(token)/2]^1) + token[len(token)/2+1:]
	for _, forged := range []string{"x", token + "A", flipped} {
		encrypt(members{"tenant": "blue"}, token, forged).RequireRefusal(t, "InvalidGrantTokenException", "The specified grant token is not valid.")
	}

	// The same name and parameters are the same grant, with a token of its own.
	again := func(pairs ...any) string {
		pairs = append([]any{"KeyId", key, "GranteePrincipal", arn, "Operations", []string{"Encrypt"}, "Name", "one", "Constraints", members{"EncryptionContextSubset": members{"Tenant": "blue"}}}, pairs...)
		answer := g.as(g.root, "CreateGrant", pairs...)
		requireCode(t, answer, "")
		return answer.JSON(t)["GrantId"].(string)
	}
	id := made.JSON(t)["GrantId"].(string)
	require.Equal(t, id, again())
	ids := map[string]bool{id: true}
	for _, other := range [][]any{
		{"Name", "two"}, {"Operations", []string{"Encrypt", "Decrypt"}}, {"RetiringPrincipal", arn}, {"GranteePrincipal", g.somebody()},
		{"Constraints", members{"EncryptionContextEquals": members{"Tenant": "blue"}}}, {"Constraints", members{"EncryptionContextSubset": members{"Tenant": "red"}}},
	} {
		ids[again(other...)] = true
	}
	require.Len(t, ids, 7)
	second := g.key()
	require.NotEqual(t, id, again("KeyId", second), "of another key")
	g.do("RevokeGrant", "", "KeyId", key, "GrantId", id)
	require.NotEqual(t, id, again(), "of a grant that is gone")

	g.as(g.root, "CreateGrant", "KeyId", key, "GranteePrincipal", arn, "Operations", []string{"Encrypt"}, "DryRun", true).
		RequireRefusal(t, "DryRunOperationException", "The request would have succeeded, but the DryRun option is set.")
	requireCode(t, g.as(who, "CreateGrant", "KeyId", key, "GranteePrincipal", arn, "Operations", []string{"Encrypt"}, "DryRun", true), denied)
	g.as(g.root, "CreateGrant", "KeyId", key, "GranteePrincipal", "arn:aws:iam::1:user/x", "Operations", []string{"Encrypt"}).
		RequireRefusal(t, "InvalidArnException", "ARN does not refer to a valid principal: arn:aws:iam::1:user/x")
	g.as(g.root, "CreateGrant", "KeyId", key, "GranteePrincipal", arn, "Operations", []string{"Sign"}).
		RequireRefusal(t, "ValidationException", "The operation Sign is not valid for a grant for a KMS key of KeySpec SYMMETRIC_DEFAULT and KeyUsage ENCRYPT_DECRYPT.")
	requireCode(t, g.as(g.root, "CreateGrant", "KeyId", key, "GranteePrincipal", arn, "Operations", []string{}), "ValidationException")
	nine := members{"1": "", "2": "", "3": "", "4": "", "5": "", "6": "", "7": "", "8": "", "9": ""}
	requireCode(t, g.as(g.root, "CreateGrant", "KeyId", key, "GranteePrincipal", arn, "Operations", []string{"Encrypt"}, "Constraints", members{"EncryptionContextEquals": nine}), "ValidationException")
	mac := g.key(of("HMAC_256", "GENERATE_VERIFY_MAC"))
	requireCode(t, g.as(g.root, "CreateGrant", "KeyId", mac, "GranteePrincipal", arn, "Operations", []string{"GenerateMac"}), "")
	requireCode(t, g.as(g.root, "CreateGrant", "KeyId", mac, "GranteePrincipal", arn, "Operations", []string{"GenerateMac"}, "Constraints", members{"EncryptionContextEquals": members{"a": "b"}}), "ValidationException")
}

// TestGranteesCannotWiden has a grantee make grants out of what it was granted.
func TestGranteesCannotWiden(t *testing.T) {
	g := newRig(t, one())
	who, arn := g.user("grantee")
	_, other := g.user("other")
	key := g.key()
	requireCode(t, g.as(g.root, "CreateGrant", "KeyId", key, "GranteePrincipal", arn, "Operations", []string{"CreateGrant", "Decrypt", "Encrypt"},
		"Constraints", members{"EncryptionContextSubset": members{"tenant": "blue"}}), "")
	for code, grants := range map[string][][]any{
		"": {
			{"Operations", []string{"Decrypt"}, "Constraints", members{"EncryptionContextSubset": members{"tenant": "blue"}}},
			{"Operations", []string{"Decrypt"}, "Constraints", members{"EncryptionContextSubset": members{"tenant": "blue", "more": "x"}}},
			{"Operations", []string{"Encrypt", "CreateGrant"}, "Constraints", members{"EncryptionContextEquals": members{"tenant": "blue"}}},
		},
		denied: {
			{"Operations", []string{"Decrypt"}},
			{"Operations", []string{"Decrypt"}, "Constraints", members{"EncryptionContextSubset": members{"tenant": "red"}}},
			{"Operations", []string{"Decrypt"}, "Constraints", members{"EncryptionContextEquals": members{"other": "blue"}}},
			{"Operations", []string{"Decrypt", "DescribeKey"}, "Constraints", members{"EncryptionContextSubset": members{"tenant": "blue"}}},
		},
	} {
		for _, grant := range grants {
			requireCode(t, g.as(who, "CreateGrant", append(grant, "KeyId", key, "GranteePrincipal", other)...), code)
		}
	}
}

// TestGrantTokens gives a forged token, a good one and one of a grant that is gone to every operation that takes them.
func TestGrantTokens(t *testing.T) {
	g := newRig(t, one())
	who, arn := g.user("grantee")
	takers := 0
	for operation, maker := range makers {
		calls := maker(g)
		forged := strings.Replace(calls[0].body, "{", `{"GrantTokens":["forged"],`, 1)
		if !strings.Contains(g.s.PostAs(t, g.root, operation, forged).Body, "InvalidGrantTokenException") {
			continue
		}
		takers++
		for _, c := range calls {
			tokens, ids := []string{}, map[string]string{}
			for _, n := range c.needs {
				operations := []string{strings.TrimPrefix(n.permission, "kms:")}
				if operation == "CreateGrant" {
					operations = append(operations, "Decrypt")
				}
				made := g.as(g.root, "CreateGrant", "KeyId", n.resource, "GranteePrincipal", arn, "Operations", operations)
				requireCode(t, made, "")
				tokens, ids[made.JSON(t)["GrantId"].(string)] = append(tokens, made.JSON(t)["GrantToken"].(string)), n.resource
			}
			body := strings.Replace(c.body, "{", `{"GrantTokens":["`+strings.Join(tokens, `","`)+`"],`, 1)
			c.requireSuccess(t, g.s.PostAs(t, who, operation, body))
			for id, key := range ids {
				g.do("RevokeGrant", "", "KeyId", key, "GrantId", id)
			}
			requireCode(t, g.s.PostAs(t, who, operation, body), denied)
		}
	}
	require.Equal(t, 15, takers) // as many as there are in the published model
}
