package contract

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sts"

	"hsmkms/test/kmstest"
)

// encrypts asks for Encrypt under a key as somebody, with grant tokens.
func (g *rig) encrypts(who kmstest.Someone, key string, tokens ...string) kmstest.Answer {
	g.t.Helper()
	return g.as(who, "Encrypt", "KeyId", key, "Plaintext", b64("x"), "GrantTokens", append([]string{}, tokens...))
}

// grantEncrypt lets a principal encrypt under a key, and gives the grant token.
func (g *rig) grantEncrypt(key, principal string) string {
	g.t.Helper()
	return g.do("CreateGrant", "GrantToken", "KeyId", key, "GranteePrincipal", principal, "Operations", []string{"Encrypt"})
}

// TestGrantTokensOfOtherKeys uses the grant token of one key for another.
func TestGrantTokensOfOtherKeys(t *testing.T) {
	g := newRig(t, one())
	who, arn := g.user("grantee")
	mine, other := g.key(), g.key()
	token := g.grantEncrypt(mine, arn)
	requireCode(t, g.encrypts(who, mine, token), "")
	requireCode(t, g.encrypts(who, other, token), denied)
	blob := g.do("Encrypt", "CiphertextBlob", "KeyId", other, "Plaintext", b64("x"))
	all := g.do("CreateGrant", "GrantToken", "KeyId", mine, "GranteePrincipal", arn, "Operations", []string{"Decrypt"})
	requireCode(t, g.as(who, "Decrypt", "CiphertextBlob", blob, "GrantTokens", []string{token, all}), denied)
	requireCode(t, g.encrypts(who, other, token, g.grantEncrypt(other, arn)), "")
}

// TestGrantsToRoles makes a grant to a role, which is for all of its sessions and for nobody else.
func TestGrantsToRoles(t *testing.T) {
	s := one()
	g := newRig(t, s)
	who, arn := g.user("user")
	granted, other := newRoleOf(t, g.root, "granted", trusting(arn), ""), newRoleOf(t, g.root, "other", trusting(arn), "")
	mine, out := assume(t, s, who, granted, "one")
	another, _ := assume(t, s, who, granted, "another")
	theirs, _ := assume(t, s, who, other, "one")
	only := kmstest.Statement("Allow", "", "kms:DescribeKey", "*")
	narrow, _ := assume(t, s, who, granted, "narrow", func(in *sts.AssumeRoleInput) { in.Policy = &only })

	byRole, bySession := g.key(), g.key()
	g.grantEncrypt(byRole, granted)
	g.grantEncrypt(bySession, *out.AssumedRoleUser.Arn)
	for name, test := range map[string]struct {
		who                kmstest.Someone
		byRole, ofSessions string
	}{
		"a session":               {mine, "", ""},
		"another session":         {another, "", denied},
		"a session of less":       {narrow, denied, denied},
		"a session of other role": {theirs, denied, denied},
		"who assumes the role":    {who, denied, denied},
	} {
		t.Run(name, func(t *testing.T) {
			requireCode(t, g.encrypts(test.who, byRole), test.byRole)
			requireCode(t, g.encrypts(test.who, bySession), test.ofSessions)
		})
	}
}

// TestGrantsToAccounts makes grants to account roots: of the key's own account, which the key policy leaves out, and of another.
// They are for the root user, and for the users that an IAM policy allows it.
func TestGrantsToAccounts(t *testing.T) {
	s := one()
	g, w, third := newRig(t, s), newStranger(t, s), newStranger(t, s)
	user, _ := g.user("user")
	own, foreign := g.key(), g.key()
	g.grantEncrypt(own, "arn:aws:iam::"+g.account+":root")
	g.putPolicy(own, document(t, allow("kms:*", "*").with("Principal", members{"AWS": third.account})))
	requireCode(t, g.encrypts(w.root, foreign), denied)
	g.grantEncrypt(foreign, "arn:aws:iam::"+w.account+":root")
	for key, account := range map[string]struct {
		root, user kmstest.Someone
		name       string
	}{own: {g.root, user, "user"}, foreign: {w.root, w.Someone, "stranger"}} {
		requireCode(t, g.encrypts(account.root, key), "")
		requireCode(t, g.as(account.root, "DescribeKey", "KeyId", key), denied)
		requireCode(t, g.encrypts(account.user, key), denied)
		account.root.PutUserPolicy(t, account.name, document(t, allow("kms:Encrypt", key)))
		requireCode(t, g.encrypts(account.user, key), "")
	}
	third.may(t, allow("kms:*", "*"))
	requireCode(t, g.encrypts(third.Someone, foreign), denied)
}
