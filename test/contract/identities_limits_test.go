package contract

import (
	"strconv"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// sized pads a document to a number of characters without white space, of which it gets some beside. It needs a Sid.
func sized(t testing.TB, document string, characters int) *string {
	t.Helper()
	missing := characters - len(document)
	require.GreaterOrEqual(t, missing, 0)
	text := strings.Replace(document, `"Sid":"S`, `"Sid": "S`+strings.Repeat("x", missing), 1) + " \t\r\n"
	require.Len(t, text, characters+len("  \t\r\n"))
	return &text
}

// sizedPolicy is an identity-based policy of a size.
func sizedPolicy(t testing.TB, characters int) *string {
	t.Helper()
	return sized(t, document(t, allow("kms:*", "*").with("Sid", "S")), characters)
}

// TestSizesOfPolicies makes documents as large as they may be, and larger by a character.
func TestSizesOfPolicies(t *testing.T) {
	g, ctx := newRig(t, one()), t.Context()
	client := g.root.IAM
	g.user("user")
	trust := document(t, statement{"Sid": "S", "Effect": "Allow", "Principal": members{"AWS": g.account}, "Action": "sts:AssumeRole"})
	newRoleOf(t, g.root, "role", trust, "")
	managed := g.managed("managed", allow("kms:*", "*"))
	user := func(n int) error {
		_, err := client.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: aws.String("user"), PolicyName: aws.String("p"), PolicyDocument: sizedPolicy(t, n)})
		return err
	}
	role := func(n int) error {
		_, err := client.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: aws.String("role"), PolicyName: aws.String("p"), PolicyDocument: sizedPolicy(t, n)})
		return err
	}
	for name, test := range map[string]struct {
		put     func(int) error
		most    int
		message string
	}{
		"inline, of a user": {user, 2048, "Maximum policy size of 2048 bytes exceeded for user user"},
		"inline, of a role": {role, 10240, "Maximum policy size of 10240 bytes exceeded for role role"},
		"managed": {func(n int) error {
			_, err := client.CreatePolicy(ctx, &iam.CreatePolicyInput{PolicyName: aws.String("m" + strconv.Itoa(n)), PolicyDocument: sizedPolicy(t, n)})
			return err
		}, 6144, "Cannot exceed quota for PolicySize: 6144"},
		"a version": {func(n int) error {
			_, err := client.CreatePolicyVersion(ctx, &iam.CreatePolicyVersionInput{PolicyArn: managed, PolicyDocument: sizedPolicy(t, n)})
			return err
		}, 6144, "Cannot exceed quota for PolicySize: 6144"},
		"trust, of a new role": {func(n int) error {
			_, err := client.CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String("r" + strconv.Itoa(n)), AssumeRolePolicyDocument: sized(t, trust, n)})
			return err
		}, 4096, "Cannot exceed quota for ACLSizePerRole: 4096"},
		"trust": {func(n int) error {
			_, err := client.UpdateAssumeRolePolicy(ctx, &iam.UpdateAssumeRolePolicyInput{RoleName: aws.String("role"), PolicyDocument: sized(t, trust, n)})
			return err
		}, 4096, "Cannot exceed quota for ACLSizePerRole: 4096"},
	} {
		t.Run(name, func(t *testing.T) {
			kmstest.RequireError(t, test.put(test.most+1), "LimitExceeded", test.message)
			require.NoError(t, test.put(test.most))
		})
	}
	// Inline policies count together, and one that is replaced does not count.
	_, err := client.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: aws.String("user"), PolicyName: aws.String("q"), PolicyDocument: sizedPolicy(t, 100)})
	kmstest.RequireError(t, err, "LimitExceeded", "Maximum policy size of 2048 bytes exceeded for user user")
	require.NoError(t, user(1948))
	_, err = client.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: aws.String("user"), PolicyName: aws.String("q"), PolicyDocument: sizedPolicy(t, 100)})
	require.NoError(t, err)
}

// TestNumbersOfPolicies attaches ten policies and no more, and has five versions of one.
func TestNumbersOfPolicies(t *testing.T) {
	g, ctx := newRig(t, one()), t.Context()
	client, text := g.root.IAM, document(t, allow("kms:*", "*"))
	g.user("user")
	newRoleOf(t, g.root, "role", trusting(g.account), "")
	var arns []*string
	for i := range 11 {
		arns = append(arns, g.managed("p"+strconv.Itoa(i), allow("kms:*", "*")))
	}
	for kind, attach := range map[string]func(*string) error{
		"User": func(arn *string) error {
			_, err := client.AttachUserPolicy(ctx, &iam.AttachUserPolicyInput{UserName: aws.String("user"), PolicyArn: arn})
			return err
		},
		"Role": func(arn *string) error {
			_, err := client.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: aws.String("role"), PolicyArn: arn})
			return err
		},
	} {
		for _, arn := range arns[:10] {
			require.NoError(t, attach(arn))
		}
		kmstest.RequireError(t, attach(arns[10]), "LimitExceeded", "Cannot exceed quota for PoliciesPer"+kind+": 10")
		require.NoError(t, attach(arns[0]), "it has that one")
	}
	require.NoError(t, g.deletePolicy(arns[10]), "nobody has it")

	version := func() error {
		_, err := client.CreatePolicyVersion(ctx, &iam.CreatePolicyVersionInput{PolicyArn: arns[0], PolicyDocument: &text})
		return err
	}
	for range 4 {
		require.NoError(t, version())
	}
	kmstest.RequireError(t, version(), "LimitExceeded", "A managed policy can have up to 5 versions. Before you create a new version, you must delete an existing version.")
	_, err := client.DeletePolicyVersion(ctx, &iam.DeletePolicyVersionInput{PolicyArn: arns[0], VersionId: aws.String("v3")})
	require.NoError(t, err)
	require.NoError(t, version())
}

// TestLimitsOfSessionPolicies narrows sessions by as much as there may be, and by more.
func TestLimitsOfSessionPolicies(t *testing.T) {
	g := newRig(t, one())
	who, arn := g.user("user")
	role := newRoleOf(t, g.root, "role", trusting(arn), "")
	managed := g.managed("p", allow("kms:*", "*"))
	try := func(policy *string, arns int) error {
		in := &sts.AssumeRoleInput{RoleArn: &role, RoleSessionName: aws.String("session"), Policy: policy}
		for range arns {
			in.PolicyArns = append(in.PolicyArns, ststypes.PolicyDescriptorType{Arn: managed})
		}
		_, err := who.STS.AssumeRole(t.Context(), in)
		return err
	}
	// White space counts, other than in IAM.
	inline := func(characters int) *string { return sizedPolicy(t, characters-len("  \t\r\n")) }
	tooLong := func(err error) {
		t.Helper()
		kmstest.RequireError(t, err, "ValidationError", "1 validation error detected: Value at 'policy' failed to satisfy constraint: Member must have length less than or equal to 2048")
	}
	require.NoError(t, try(inline(2048), 0))
	tooLong(try(inline(2049), 0))
	require.NoError(t, try(inline(2048-len(*managed)), 1))
	tooLong(try(inline(2049-len(*managed)), 1))
	require.NoError(t, try(nil, 10))
	kmstest.RequireError(t, try(nil, 11), "ValidationError", "1 validation error detected: Value at 'policyArns' failed to satisfy constraint: Member must have length less than or equal to 10")
}

// TestDeleteConflictsOfPolicies deletes a user, a role and a policy only when nothing is attached any longer.
func TestDeleteConflictsOfPolicies(t *testing.T) {
	g, ctx, name := newRig(t, one()), t.Context(), aws.String("same")
	client := g.root.IAM
	_, err := client.CreateUser(ctx, &iam.CreateUserInput{UserName: name})
	require.NoError(t, err)
	newRoleOf(t, g.root, *name, trusting(g.account), "")
	arn := g.managed("managed", allow("kms:*", "*"))
	_, err1 := client.AttachUserPolicy(ctx, &iam.AttachUserPolicyInput{UserName: name, PolicyArn: arn})
	_, err2 := client.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: name, PolicyArn: arn})
	require.Equal(t, []error{nil, nil}, []error{err1, err2})
	deleteUser := func() error { _, err := client.DeleteUser(ctx, &iam.DeleteUserInput{UserName: name}); return err }
	deleteRole := func() error { _, err := client.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: name}); return err }
	const attached, inline, inUse = "Cannot delete entity, must detach all policies first.", "Cannot delete entity, must delete policies first.", "Cannot delete a policy attached to entities."

	kmstest.RequireError(t, deleteUser(), "DeleteConflict", attached)
	kmstest.RequireError(t, deleteRole(), "DeleteConflict", attached)
	kmstest.RequireError(t, g.deletePolicy(arn), "DeleteConflict", inUse)
	_, err = client.DetachUserPolicy(ctx, &iam.DetachUserPolicyInput{UserName: name, PolicyArn: arn})
	require.NoError(t, err)
	require.NoError(t, deleteUser())
	kmstest.RequireError(t, g.deletePolicy(arn), "DeleteConflict", inUse)

	text := document(t, allow("kms:*", "*"))
	_, err = client.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: name, PolicyName: name, PolicyDocument: &text})
	require.NoError(t, err)
	_, err = client.DetachRolePolicy(ctx, &iam.DetachRolePolicyInput{RoleName: name, PolicyArn: arn})
	require.NoError(t, err)
	require.NoError(t, g.deletePolicy(arn))
	kmstest.RequireError(t, deleteRole(), "DeleteConflict", inline)
	_, err = client.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: name, PolicyName: name})
	require.NoError(t, err)
	require.NoError(t, deleteRole())
}
