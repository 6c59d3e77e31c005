package contract

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// Policies and grants mean the users and roles that there were when they were made. These tests delete some and make others
// under their names, who must be strangers.

// deleteUser deletes a user of newRig's user, with its access keys.
func (g *rig) deleteUser(name string) {
	g.t.Helper()
	keys, err := g.root.IAM.ListAccessKeys(g.t.Context(), &iam.ListAccessKeysInput{UserName: &name})
	require.NoError(g.t, err)
	for _, key := range keys.AccessKeyMetadata {
		_, err := g.root.IAM.DeleteAccessKey(g.t.Context(), &iam.DeleteAccessKeyInput{UserName: &name, AccessKeyId: key.AccessKeyId})
		require.NoError(g.t, err)
	}
	_, err = g.root.IAM.DeleteUser(g.t.Context(), &iam.DeleteUserInput{UserName: &name})
	require.NoError(g.t, err)
}

// remade deletes a user and gives another of its name.
func (g *rig) remade(name string) kmstest.Someone {
	g.t.Helper()
	g.deleteUser(name)
	who, _ := g.user(name)
	return who
}

func (g *rig) deleteRole(name string) {
	g.t.Helper()
	_, err := g.root.IAM.DeleteRole(g.t.Context(), &iam.DeleteRoleInput{RoleName: &name})
	require.NoError(g.t, err)
}

// userID gives the unique id of a user.
func (g *rig) userID(name string) string {
	g.t.Helper()
	out, err := g.root.IAM.GetUser(g.t.Context(), &iam.GetUserInput{UserName: &name})
	require.NoError(g.t, err)
	return *out.User.UserId
}

// keeping is a key policy that lets the root user do everything but encrypt, with other statements.
func (g *rig) keeping(others ...statement) string {
	keep := statement{"Effect": "Allow", "Principal": members{"AWS": g.account}, "NotAction": "kms:Encrypt", "Resource": "*"}
	return document(g.t, append([]statement{keep}, others...)...)
}

// TestKeyPoliciesMeanWhoThereWas has users of a key policy deleted and made again.
func TestKeyPoliciesMeanWhoThereWas(t *testing.T) {
	g := newRig(t, one())
	alice, aliceARN := g.user("alice")
	bob, _ := g.user("bob")
	bobs := allow("kms:*", "*")
	g.root.PutUserPolicy(t, "bob", document(t, bobs))
	named, denying, listed, left := g.key(), g.key(), g.key(), g.key()
	g.putPolicy(named, g.keeping(allow("kms:Encrypt", "*").with("Principal", members{"AWS": aliceARN})))
	everybody := allow("kms:Encrypt", "*").with("Principal", "*")
	deny := statement{"Effect": "Deny", "Action": "kms:Encrypt", "Resource": "*"}
	g.putPolicy(denying, g.keeping(everybody, deny.with("Principal", members{"AWS": aliceARN})))
	g.putPolicy(listed, g.keeping(everybody, statement{
		"Effect": "Deny", "Action": "kms:Encrypt", "Resource": "*", "NotPrincipal": members{"AWS": []string{aliceARN, g.account}},
	}))
	g.putPolicy(left, g.keeping(statement{"Effect": "Allow", "Action": "kms:Encrypt", "Resource": "*", "NotPrincipal": members{"AWS": aliceARN}}))
	for i, who := range []kmstest.Someone{alice, {}} {
		if i == 1 {
			who = g.remade("alice")
		}
		codes := [][]string{{"", denied}, {denied, ""}, {"", denied}, {denied, ""}}
		for j, key := range []string{named, denying, listed, left} {
			requireCode(t, g.encrypts(who, key), codes[j][i])
		}
	}
	requireCode(t, g.encrypts(bob, listed), denied)
	requireCode(t, g.encrypts(bob, left), "")
}

// TestGrantsMeanWhoThereWas has the grantee and the retiring principal of grants deleted and made again.
func TestGrantsMeanWhoThereWas(t *testing.T) {
	g := newRig(t, one())
	grantee, granteeARN := g.user("grantee")
	retiring, retiringARN := g.user("retiring")
	key := g.key()
	grant := func() members {
		made := g.as(g.root, "CreateGrant", "KeyId", key, "Name", "one", "GranteePrincipal", granteeARN, "RetiringPrincipal", retiringARN, "Operations", []string{"Encrypt"})
		requireCode(t, made, "")
		return made.JSON(t)
	}
	old := grant()
	require.Equal(t, old["GrantId"], grant()["GrantId"])
	token, id := old["GrantToken"].(string), old["GrantId"]
	requireCode(t, g.encrypts(grantee, key), "")
	requireCode(t, g.as(retiring, "RetireGrant", "KeyId", key, "GrantId", id, "DryRun", true), "DryRunOperationException")

	grantee, retiring = g.remade("grantee"), g.remade("retiring")
	requireCode(t, g.encrypts(grantee, key), denied)
	requireCode(t, g.encrypts(grantee, key, token), denied)
	requireCode(t, g.as(retiring, "RetireGrant", "KeyId", key, "GrantId", id), denied)
	requireCode(t, g.as(retiring, "RetireGrant", "GrantToken", token), denied)
	require.Empty(t, list(t, g.as(g.root, "ListRetirableGrants", "RetiringPrincipal", retiringARN).JSON(t), "Grants"))

	young := grant()
	require.NotEqual(t, id, young["GrantId"], "another grant, since its principals are others")
	requireCode(t, g.encrypts(grantee, key), "")
	requireCode(t, g.as(retiring, "RetireGrant", "GrantToken", young["GrantToken"]), "")
	requireCode(t, g.encrypts(grantee, key), denied)
}

// TestRolesMadeAgain has a role deleted and made again: its sessions are not those of the old one.
func TestRolesMadeAgain(t *testing.T) {
	s := one()
	g := newRig(t, s)
	who, arn := g.user("user")
	role := newRoleOf(t, g.root, "worker", trusting(arn), "")
	session, out := assume(t, s, who, role, "one")
	byRole, bySession, granted := g.key(), g.key(), g.key()
	g.putPolicy(byRole, g.keeping(allow("kms:Encrypt", "*").with("Principal", members{"AWS": role})))
	g.putPolicy(bySession, g.keeping(allow("kms:Encrypt", "*").with("Principal", members{"AWS": *out.AssumedRoleUser.Arn})))
	g.grantEncrypt(granted, role)
	g.grantEncrypt(granted, *out.AssumedRoleUser.Arn)
	for _, key := range []string{byRole, bySession, granted} {
		requireCode(t, g.encrypts(session, key), "")
	}
	g.deleteRole("worker")
	require.Equal(t, role, newRoleOf(t, g.root, "worker", trusting(arn), ""))
	session, out = assume(t, s, who, role, "one")
	for _, key := range []string{byRole, bySession, granted} {
		requireCode(t, g.encrypts(session, key), denied)
	}
	g.grantEncrypt(granted, *out.AssumedRoleUser.Arn)
	requireCode(t, g.encrypts(session, granted), "")
}

// TestTrustPoliciesMeanWhoThereWas has a user and a role that may assume a role deleted and made again.
func TestTrustPoliciesMeanWhoThereWas(t *testing.T) {
	s := one()
	g := newRig(t, s)
	alice, aliceARN := g.user("alice")
	byUser := newRoleOf(t, g.root, "by-user", trusting(aliceARN), "")
	first := newRoleOf(t, g.root, "first", trusting(g.account), "")
	byRole := newRoleOf(t, g.root, "by-role", trusting(first), "")
	may := document(t, allow("sts:AssumeRole", first))
	g.root.PutUserPolicy(t, "alice", may)
	session, _ := assume(t, s, alice, first, "one")
	refused := func(who kmstest.Someone, role string) {
		t.Helper()
		_, err := who.STS.AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: &role, RoleSessionName: &role})
		require.Error(t, err)
		name := "again"
		_, err = who.STS.AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: &role, RoleSessionName: &name})
		require.ErrorContains(t, err, "is not authorized to perform: sts:AssumeRole")
	}
	assume(t, s, alice, byUser, "one")
	assume(t, s, session, byRole, "one")

	g.deleteRole("first")
	newRoleOf(t, g.root, "first", trusting(g.account), "")
	session, _ = assume(t, s, alice, first, "one")
	refused(session, byRole)
	name, policy := "alice", "own"
	_, err := g.root.IAM.DeleteUserPolicy(t.Context(), &iam.DeleteUserPolicyInput{UserName: &name, PolicyName: &policy})
	require.NoError(t, err)
	alice = g.remade("alice")
	refused(alice, byUser)
	trust := trusting(aliceARN)
	role := "by-user"
	_, err = g.root.IAM.UpdateAssumeRolePolicy(t.Context(), &iam.UpdateAssumeRolePolicyInput{RoleName: &role, PolicyDocument: &trust})
	require.NoError(t, err)
	assume(t, s, alice, byUser, "one")
}
