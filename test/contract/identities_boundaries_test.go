package contract

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// managed makes a managed policy of the rig's account and gives its ARN.
func (g *rig) managed(name string, statements ...statement) *string {
	g.t.Helper()
	text := document(g.t, statements...)
	out, err := g.root.IAM.CreatePolicy(g.t.Context(), &iam.CreatePolicyInput{PolicyName: &name, PolicyDocument: &text})
	require.NoError(g.t, err)
	return out.Policy.Arn
}

// deletePolicy tries to delete a managed policy.
func (g *rig) deletePolicy(arn *string) error {
	_, err := g.root.IAM.DeletePolicy(g.t.Context(), &iam.DeletePolicyInput{PolicyArn: arn})
	return err
}

// lists tells whether somebody may list users, and roles.
func lists(t testing.TB, who kmstest.Someone) []bool {
	t.Helper()
	_, users := who.IAM.ListUsers(t.Context(), &iam.ListUsersInput{})
	_, roles := who.IAM.ListRoles(t.Context(), &iam.ListRolesInput{})
	return []bool{users == nil, roles == nil}
}

// TestPermissionsBoundariesOfRoles bounds a role, which bounds its sessions at the next request, by one policy and another.
func TestPermissionsBoundariesOfRoles(t *testing.T) {
	g, ctx, name := newRig(t, one()), t.Context(), aws.String("bounded")
	client := g.root.IAM
	who, arn := g.user("user")
	role := newRoleOf(t, g.root, *name, trusting(arn), document(t, allow("iam:*", "*")))
	session, out := assume(t, g.s, who, role, "one")
	put := func(who kmstest.Someone, boundary *string) error {
		_, err := who.IAM.PutRolePermissionsBoundary(ctx, &iam.PutRolePermissionsBoundaryInput{RoleName: name, PermissionsBoundary: boundary})
		return err
	}
	remove := func(who kmstest.Someone) error {
		_, err := who.IAM.DeleteRolePermissionsBoundary(ctx, &iam.DeleteRolePermissionsBoundaryInput{RoleName: name})
		return err
	}
	require.Equal(t, []bool{true, true}, lists(t, session))
	first, second := g.managed("first", allow("iam:ListUsers", "*")), g.managed("second", allow("iam:ListRoles", "*"))
	require.NoError(t, put(g.root, first))
	require.Equal(t, []bool{true, false}, lists(t, session))
	_, err := session.IAM.ListRoles(ctx, &iam.ListRolesInput{})
	requireDenied(t, err, *out.AssumedRoleUser.Arn, "iam:ListRoles", "arn:aws:iam::"+g.account+":role/", " because no permissions boundary allows the iam:ListRoles action")
	requireDenied(t, remove(session), *out.AssumedRoleUser.Arn, "iam:DeleteRolePermissionsBoundary", role, " because no permissions boundary allows the iam:DeleteRolePermissionsBoundary action")
	requireDenied(t, put(session, second), *out.AssumedRoleUser.Arn, "iam:PutRolePermissionsBoundary", role, " because no permissions boundary allows the iam:PutRolePermissionsBoundary action")
	got, err := client.GetRole(ctx, &iam.GetRoleInput{RoleName: name})
	require.NoError(t, err)
	require.Equal(t, &types.AttachedPermissionsBoundary{PermissionsBoundaryArn: first, PermissionsBoundaryType: "Policy"}, got.Role.PermissionsBoundary)

	require.NoError(t, put(g.root, second))
	require.Equal(t, []bool{false, true}, lists(t, session))
	require.NoError(t, g.deletePolicy(first), "in use no longer")
	kmstest.RequireError(t, g.deletePolicy(second), "DeleteConflict", "Cannot delete a policy attached to entities.")
	kmstest.RequireError(t, put(g.root, first), "NoSuchEntity", "Policy "+*first+" does not exist or is not attachable.")
	require.Equal(t, []bool{false, true}, lists(t, session))

	require.NoError(t, remove(g.root))
	require.Equal(t, []bool{true, true}, lists(t, session))
	kmstest.RequireError(t, remove(g.root), "NoSuchEntity", "The role with name bounded has no permissions boundary.")
	require.NoError(t, g.deletePolicy(second))
}

// TestRolesBornWithBoundaries makes a role with a boundary, which narrows what a key policy and a grant allow to the role, and goes
// with it.
func TestRolesBornWithBoundaries(t *testing.T) {
	g, ctx, name := newRig(t, one()), t.Context(), aws.String("born")
	who, arn := g.user("user")
	boundary := g.managed("boundary", allow([]string{"kms:Decrypt", "kms:DescribeKey"}, "*"))
	made, err := g.root.IAM.CreateRole(ctx, &iam.CreateRoleInput{RoleName: name, AssumeRolePolicyDocument: aws.String(trusting(arn)), PermissionsBoundary: boundary})
	require.NoError(t, err)
	session, _ := assume(t, g.s, who, *made.Role.Arn, "one")
	key := g.key()
	g.grantEncrypt(key, *made.Role.Arn)
	g.putPolicy(key, document(t, allow("kms:*", "*").with("Principal", members{"AWS": *made.Role.Arn})))
	requireCode(t, g.as(session, "DescribeKey", "KeyId", key), "")
	requireCode(t, g.encrypts(session, key), denied)
	_, err = g.root.IAM.DeleteRolePermissionsBoundary(ctx, &iam.DeleteRolePermissionsBoundaryInput{RoleName: name})
	require.NoError(t, err)
	requireCode(t, g.encrypts(session, key), "")
	_, err = g.root.IAM.PutRolePermissionsBoundary(ctx, &iam.PutRolePermissionsBoundaryInput{RoleName: name, PermissionsBoundary: boundary})
	require.NoError(t, err)
	kmstest.RequireError(t, g.deletePolicy(boundary), "DeleteConflict", "Cannot delete a policy attached to entities.")
	_, err = g.root.IAM.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: name})
	require.NoError(t, err)
	require.NoError(t, g.deletePolicy(boundary))
}
