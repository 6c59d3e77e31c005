package contract

import (
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
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

// TestNewKeysMeanWhoThereWas has the user of a policy that a key was made with deleted and made again.
func TestNewKeysMeanWhoThereWas(t *testing.T) {
	g := newRig(t, one())
	alice, arn := g.user("alice")
	text := g.keeping(allow("kms:Encrypt", "*").with("Principal", members{"AWS": arn}))
	key := g.key(func(in *kms.CreateKeyInput) { in.Policy = &text })
	requireCode(t, g.encrypts(alice, key), "")
	requireCode(t, g.encrypts(g.remade("alice"), key), denied)
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
		name := "again"
		_, err := who.STS.AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: &role, RoleSessionName: &name})
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

// TestGoneAreShownById reads policies and grants whose principals are deleted, made again, or have another name.
func TestGoneAreShownById(t *testing.T) {
	g := newRig(t, one())
	_, alice := g.user("alice")
	_, bob := g.user("bob")
	ids := []string{g.userID("alice"), g.userID("bob")}
	newRoleOf(t, g.root, "trusting", trusting(alice), "")
	text := func(first, second string) string {
		return ` { "Version":"2012-10-17", "Id": "` + alice + `", "Statement" : [ {"Sid":"` + alice + `", "Effect":"Allow", "Principal":{"AWS":[ "` +
			first + `" ,` + "\n\t" + `"` + g.account + `"]}, "Action":["kms:*"],"Resource":"*",
			"Condition":{"ArnNotLike":{"aws:PrincipalArn":["` + alice + `"]}}},
			{"Effect":"Deny","NotPrincipal":{"AWS":["` + first + `","` + second + `","` + g.account + `"]},"Action":"kms:GetKeyRotationStatus", "Resource" :"*"} ] }`
	}
	key := g.key()
	g.putPolicy(key, text(alice, bob))
	id := g.do("CreateGrant", "GrantId", "KeyId", key, "GranteePrincipal", alice, "RetiringPrincipal", bob, "Operations", []string{"Encrypt"})
	shown := func(policy string, grantee, retiring, trust string) {
		t.Helper()
		require.Equal(t, policy, g.do("GetKeyPolicy", "Policy", "KeyId", key))
		for _, pairs := range [][]any{{"KeyId", key}, {"KeyId", key, "GrantId", id}} {
			grants := list(t, g.as(g.root, "ListGrants", pairs...).JSON(t), "Grants")
			require.Len(t, grants, 1)
			require.Equal(t, []any{grantee, retiring}, []any{grants[0]["GranteePrincipal"], grants[0]["RetiringPrincipal"]})
		}
		name := "trusting"
		got, err := g.root.IAM.GetRole(t.Context(), &iam.GetRoleInput{RoleName: &name})
		require.NoError(t, err)
		require.Equal(t, trusting(trust), unescaped(t, got.Role.AssumeRolePolicyDocument))
	}
	shown(text(alice, bob), alice, bob, alice)
	name, other := "bob", "robert"
	_, err := g.root.IAM.UpdateUser(t.Context(), &iam.UpdateUserInput{UserName: &name, NewUserName: &other})
	require.NoError(t, err)
	shown(text(alice, g.userARN(other)), alice, g.userARN(other), alice)
	g.deleteUser("alice")
	g.deleteUser(other)
	shown(text(ids[0], ids[1]), ids[0], ids[1], ids[0])
	g.user("alice")
	g.user("bob")
	shown(text(ids[0], ids[1]), ids[0], ids[1], ids[0])
	require.Len(t, list(t, g.as(g.root, "ListGrants", "KeyId", key, "GranteePrincipal", ids[0]).JSON(t), "Grants"), 1)
	require.Empty(t, list(t, g.as(g.root, "ListGrants", "KeyId", key, "GranteePrincipal", alice).JSON(t), "Grants"))

	// What is shown cannot be put again.
	requireCode(t, g.as(g.root, "PutKeyPolicy", "KeyId", key, "Policy", g.do("GetKeyPolicy", "Policy", "KeyId", key), "BypassPolicyLockoutSafetyCheck", true),
		"MalformedPolicyDocumentException")
	trust := trusting(ids[0])
	trusted := "trusting"
	_, err = g.root.IAM.UpdateAssumeRolePolicy(t.Context(), &iam.UpdateAssumeRolePolicyInput{RoleName: &trusted, PolicyDocument: &trust})
	kmstest.RequireError(t, err, "MalformedPolicyDocument", `Invalid principal in policy: "AWS":"`+ids[0]+`"`)
	g.putPolicy(key, text(alice, bob))
	shown(text(alice, bob), ids[0], ids[1], ids[0])
}

// TestSessionsOfGoneRolesAreShownById is TestGoneAreShownById for a session.
func TestSessionsOfGoneRolesAreShownById(t *testing.T) {
	g := newRig(t, one())
	newRoleOf(t, g.root, "worker", trusting(g.account), "")
	name := "worker"
	role, err := g.root.IAM.GetRole(t.Context(), &iam.GetRoleInput{RoleName: &name})
	require.NoError(t, err)
	session := "arn:aws:sts::" + g.account + ":assumed-role/worker/never-begun"
	key := g.key()
	text := g.keeping(allow("kms:Encrypt", "*").with("Principal", members{"AWS": session}))
	g.putPolicy(key, text)
	require.Equal(t, text, g.do("GetKeyPolicy", "Policy", "KeyId", key))
	g.deleteRole("worker")
	newRoleOf(t, g.root, "worker", trusting(g.account), "")
	require.Equal(t, strings.Replace(text, session, *role.Role.RoleId+":never-begun", 1), g.do("GetKeyPolicy", "Policy", "KeyId", key))
}

// TestPrincipalsMustExist names users, roles and sessions that there are not, with every operation that takes principals.
func TestPrincipalsMustExist(t *testing.T) {
	g, w := newRig(t, one()), newStranger(t, one())
	g.newUser("alice")
	newRoleOf(t, g.root, "worker", trusting(g.account), "")
	key := g.key()
	const iamARN, stsARN = "arn:aws:iam::", "arn:aws:sts::"
	exist := []string{
		g.userARN("alice"), iamARN + g.account + ":role/worker", stsARN + g.account + ":assumed-role/worker/s1", w.arn, iamARN + "999999999999:root",
	}
	missing := []string{
		g.userARN("bob"), g.userARN("Alice"), g.userARN("path/alice"), g.userARN("worker"), iamARN + g.account + ":role/alice",
		stsARN + g.account + ":assumed-role/alice/s1", iamARN + w.account + ":user/alice", iamARN + "999999999999:user/alice",
		iamARN + "999999999999:role/worker", g.userID("alice"),
	}
	try := func(principal string, exists bool) {
		t.Helper()
		text := g.keeping(allow("kms:Encrypt", "*").with("Principal", members{"AWS": []string{g.account, principal}}))
		trust := trusting(principal)
		role := "new"
		_, created := g.root.IAM.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: &role, AssumeRolePolicyDocument: &trust})
		worker := "worker"
		_, updated := g.root.IAM.UpdateAssumeRolePolicy(t.Context(), &iam.UpdateAssumeRolePolicyInput{RoleName: &worker, PolicyDocument: &trust})
		answers := map[string]kmstest.Answer{
			"PutKeyPolicy": g.as(g.root, "PutKeyPolicy", "KeyId", key, "Policy", text), "CreateKey": g.as(g.root, "CreateKey", "Policy", text),
			"grantee":  g.as(g.root, "CreateGrant", "KeyId", key, "GranteePrincipal", principal, "Operations", []string{"Encrypt"}),
			"retiring": g.as(g.root, "CreateGrant", "KeyId", key, "GranteePrincipal", g.userARN("alice"), "RetiringPrincipal", principal, "Operations", []string{"Encrypt"}),
		}
		if exists {
			require.NoError(t, errors.Join(created, updated), principal)
			g.deleteRole(role)
			for _, answer := range answers {
				requireCode(t, answer, "")
			}
			return
		}
		for _, err := range []error{created, updated} {
			kmstest.RequireError(t, err, "MalformedPolicyDocument", `Invalid principal in policy: "AWS":"`+principal+`"`)
		}
		for operation, answer := range answers {
			if operation == "PutKeyPolicy" || operation == "CreateKey" {
				answer.RequireRefusal(t, "MalformedPolicyDocumentException", "Policy contains a statement with one or more invalid principals.")
			} else {
				answer.RequireRefusal(t, "InvalidArnException", "ARN does not refer to a valid principal: "+principal)
			}
		}
	}
	for _, principal := range exist {
		try(principal, true)
	}
	for _, principal := range missing {
		try(principal, false)
	}

	// Who may not make the request is not told who exists.
	who, _ := g.user("eve")
	for _, principal := range []string{exist[0], missing[0]} {
		text := g.keeping(allow("kms:Encrypt", "*").with("Principal", members{"AWS": principal}))
		trust, role := trusting(principal), "worker"
		requireCode(t, g.as(who, "PutKeyPolicy", "KeyId", key, "Policy", text), denied)
		requireCode(t, g.as(who, "CreateKey", "Policy", text), denied)
		requireCode(t, g.as(who, "CreateGrant", "KeyId", key, "GranteePrincipal", principal, "Operations", []string{"Encrypt"}), denied)
		_, err := who.IAM.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: &role, AssumeRolePolicyDocument: &trust})
		require.ErrorContains(t, err, "AccessDenied")
		_, err = who.IAM.UpdateAssumeRolePolicy(t.Context(), &iam.UpdateAssumeRolePolicyInput{RoleName: &role, PolicyDocument: &trust})
		require.ErrorContains(t, err, "AccessDenied")
	}
}
