package iam

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/policy"
	"hsmkms/store"
)

// trusting is a trust policy for some principals.
func trusting(arns ...string) string {
	return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["` + strings.Join(arns, `","`) + `"]},"Action":"sts:AssumeRole"}]}`
}

func arnOf(service, resource string) string {
	return "arn:aws:" + service + "::" + testAccount + ":" + resource
}

// trustOf gives the trust policy of a role as GetRole and ListRoles show it.
func (r *rig) trustOf(name string) string {
	r.t.Helper()
	out, err := r.GetRole(r.t.Context(), r.request(r.root, "GetRole"), &GetRoleInput{RoleName: name})
	require.NoError(r.t, err)
	listed, err := r.ListRoles(r.t.Context(), r.request(r.root, "ListRoles"), &ListRolesInput{})
	require.NoError(r.t, err)
	text := out.Role.AssumeRolePolicyDocument
	found := false
	for _, one := range listed.Roles {
		found = found || one.RoleName == name && one.AssumeRolePolicyDocument == text
	}
	require.True(r.t, found, "ListRoles shows the same")
	text, err = url.PathUnescape(text)
	require.NoError(r.t, err)
	return text
}

func (r *rig) userID(name string) string {
	r.t.Helper()
	out, err := r.GetUser(r.t.Context(), r.request(r.root, "GetUser"), &GetUserInput{UserName: name})
	require.NoError(r.t, err)
	return out.User.UserId
}

// identified is Identify of one ARN.
func (r *rig) identified(arn string) string {
	r.t.Helper()
	ids, err := r.Identify(r.t.Context(), []string{arn})
	require.NoError(r.t, err)
	return ids[arn]
}

func TestIdentify(t *testing.T) {
	r := newRig(t)
	_, err := r.CreateUser(t.Context(), r.request(r.root, "CreateUser"), &CreateUserInput{UserName: "Alice", Path: "/team/"})
	require.NoError(t, err)
	r.newRole("job", testAccount)
	role, err := r.GetRole(t.Context(), r.request(r.root, "GetRole"), &GetRoleInput{RoleName: "job"})
	require.NoError(t, err)
	alice := r.userID("Alice")
	for arn, want := range map[string]string{
		arnOf("iam", "user/team/Alice"):                 alice,
		arnOf("iam", "role/job"):                        role.Role.RoleId,
		arnOf("sts", "assumed-role/job/s"):              role.Role.RoleId + ":s",
		arnOf("sts", "federated-user/fred"):             testAccount + ":fred",
		arnOf("iam", "user/Alice"):                      "",
		arnOf("iam", "user/team/alice"):                 "",
		arnOf("iam", "user/job"):                        "",
		arnOf("iam", "role/Alice"):                      "",
		arnOf("iam", "root"):                            "",
		arnOf("sts", "assumed-role/Alice/s"):            "",
		arnOf("sts", "assumed-role/job"):                "",
		alice:                                           "",
		"arn:aws:iam::444455556666:user/Alice":          "",
		"arn:aws:sts::444455556666:federated-user/fred": "",
	} {
		require.Equal(t, want, r.identified(arn), arn)
		if want == "" {
			continue
		}
		arns, err := r.ARNs(t.Context(), []string{want, "AIDAOFNOBODY", "AROAOFNOBODY:s"})
		require.NoError(t, err)
		require.Equal(t, map[string]string{want: arn}, arns)
	}
}

// TestTrustPoliciesAreBound has principals of a trust policy renamed, deleted and made again.
func TestTrustPoliciesAreBound(t *testing.T) {
	r := newRig(t)
	alice, bob := arnOf("iam", "user/alice"), arnOf("iam", "user/bob")
	for name, trust := range map[string]string{"unknown": trusting(testAccount, alice), "itself": trusting(arnOf("iam", "role/itself"))} {
		_, err := r.CreateRole(t.Context(), r.request(r.root, "CreateRole"), &CreateRoleInput{RoleName: name, AssumeRolePolicyDocument: trust})
		requireInvalidPrincipal(t, err, map[string]string{"unknown": alice, "itself": arnOf("iam", "role/itself")}[name])
		_, err = r.GetRole(t.Context(), r.request(r.root, "GetRole"), &GetRoleInput{RoleName: name})
		require.Error(t, err)
	}
	key := r.newUser("alice")
	role := r.newRole("job", testAccount)
	trust := trusting("444455556666", alice)
	update := func(document string) error {
		_, err := r.UpdateAssumeRolePolicy(t.Context(), r.request(r.root, "UpdateAssumeRolePolicy"), &UpdateAssumeRolePolicyInput{RoleName: "job", PolicyDocument: document})
		return err
	}
	require.NoError(t, update(trust))
	requireInvalidPrincipal(t, update(trusting(alice, bob)), bob)
	requireInvalidPrincipal(t, update(trusting(r.userID("alice"))), r.userID("alice"))
	require.Equal(t, trust, r.trustOf("job"))
	r.assume(key, &AssumeRoleInput{RoleArn: role, RoleSessionName: "one"})

	_, err := r.UpdateUser(t.Context(), r.request(r.root, "UpdateUser"), &UpdateUserInput{UserName: "alice", NewUserName: "bob"})
	require.NoError(t, err)
	require.Equal(t, trusting("444455556666", bob), r.trustOf("job"), "a principal with another name is the same")
	r.assume(key, &AssumeRoleInput{RoleArn: role, RoleSessionName: "one"})

	id := r.userID("bob")
	_, err = r.DeleteAccessKey(t.Context(), r.request(r.root, "DeleteAccessKey"), &DeleteAccessKeyInput{UserName: "bob", AccessKeyId: key})
	require.NoError(t, err)
	_, err = r.DeleteUser(t.Context(), r.request(r.root, "DeleteUser"), &DeleteUserInput{UserName: "bob"})
	require.NoError(t, err)
	key = r.newUser("alice")
	require.Equal(t, trusting("444455556666", id), r.trustOf("job"))
	requireInvalidPrincipal(t, update(r.trustOf("job")), id)
	_, err = r.AssumeRole(t.Context(), r.request(r.caller(key), "AssumeRole"), &AssumeRoleInput{RoleArn: role, RoleSessionName: "one"})
	require.ErrorContains(t, err, "is not authorized to perform: sts:AssumeRole")

	described, err := r.UpdateRoleDescription(t.Context(), r.request(r.root, "UpdateRoleDescription"), &UpdateRoleDescriptionInput{RoleName: "job", Description: "d"})
	require.NoError(t, err)
	require.Equal(t, encodeDocument(trusting("444455556666", id)), described.Role.AssumeRolePolicyDocument)
	require.Equal(t, trust, r.entityOf("job").Trust, "what is shown is not written")
}

func requireInvalidPrincipal(t *testing.T, err error, name string) {
	t.Helper()
	var shown *Error
	require.ErrorAs(t, err, &shown)
	require.Equal(t, MalformedPolicyDocument, shown.Type)
	require.Equal(t, `Invalid principal in policy: "AWS":"`+name+`"`, shown.Message)
}

// entityOf reads the record of a role.
func (r *rig) entityOf(name string) (e *entity) {
	r.t.Helper()
	require.NoError(r.t, r.store.View(r.t.Context(), func(reader store.Reader) (err error) {
		e, err = byName(reader, role, testAccount, name)
		return err
	}))
	return e
}

// TestUpgrade opens a store in which trust policies are not bound, as earlier versions left them.
func TestUpgrade(t *testing.T) {
	r := newRig(t)
	key := r.newUser("alice")
	gone := arnOf("iam", "user/gone")
	names := []string{"open", "named", "stale"}
	for i, trust := range []string{trusting(testAccount), trusting(arnOf("iam", "user/alice")), trusting(arnOf("iam", "user/alice"), gone)} {
		r.newRole(names[i], testAccount)
		e := r.entityOf(names[i])
		e.Trust, e.Trusted = trust, nil
		require.NoError(t, r.store.Update(t.Context(), func(txn store.Txn) error { return put(txn, entityPrefix+e.ID, e) }))
	}
	begin := func(name string) error {
		_, err := r.AssumeRole(t.Context(), r.request(r.caller(key), "AssumeRole"), &AssumeRoleInput{RoleArn: arnOf("iam", "role/"+name), RoleSessionName: "one"})
		return err
	}
	require.Error(t, begin("named"), "nobody is trusted before it is known who is meant")
	require.NoError(t, r.Upgrade(t.Context()))
	require.NoError(t, begin("named"))
	require.NoError(t, begin("stale"))
	require.Nil(t, r.entityOf("open").Trusted)
	require.Equal(t, policy.Bindings{arnOf("iam", "user/alice"): r.userID("alice")}, r.entityOf("named").Trusted)
	require.Equal(t, trusting(arnOf("iam", "user/alice"), policy.Nobody), r.trustOf("stale"))

	key = r.newUser("gone")
	require.ErrorContains(t, begin("stale"), "is not authorized", "who gets the name later is not meant")
	e := r.entityOf("named")
	e.Trusted = nil
	require.NoError(t, r.store.Update(t.Context(), func(txn store.Txn) error { return put(txn, entityPrefix+e.ID, e) }))
	r.open()
	require.NoError(t, r.Upgrade(t.Context()))
	require.Nil(t, r.entityOf("named").Trusted, "it is done once")
}

// TestUpgradeFails has a record that can't be read.
func TestUpgradeFails(t *testing.T) {
	r := newRig(t)
	r.newRole("job", testAccount)
	e := r.entityOf("job")
	e.Trust = "{"
	require.NoError(t, r.store.Update(t.Context(), func(txn store.Txn) error { return put(txn, entityPrefix+e.ID, e) }))
	require.ErrorContains(t, r.Upgrade(t.Context()), "binding the trust policies of roles: reading the trust policy of "+arnOf("iam", "role/job"))
}

// TestAcceptedPolicies has a user whose policy was accepted by a version that checked less. It holds as it is.
func TestAcceptedPolicies(t *testing.T) {
	r := newRig(t)
	key := r.newUser("alice")
	require.NoError(t, r.store.Update(t.Context(), func(txn store.Txn) error {
		e, err := byName(txn, user, testAccount, "alice")
		require.NoError(t, err)
		e.Inline = map[string]string{"old": `{"Statement":{"Effect":"Allow","Action":"iam:GetUser","Resource":"arn:aws:*:*:*:*"}}`}
		return put(txn, entityPrefix+e.ID, e)
	}))
	_, err := r.GetUser(t.Context(), r.request(r.caller(key), "GetUser"), &GetUserInput{UserName: "alice"})
	require.NoError(t, err)
}
