package contract

import (
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// unescaped gives a document of an answer, which is percent-encoded: a plus sign would stay one.
func unescaped(t *testing.T, document *string) string {
	t.Helper()
	text, err := url.PathUnescape(*document)
	require.NoError(t, err)
	return text
}

func TestInlinePolicies(t *testing.T) {
	s, ctx, name := one(), t.Context(), aws.String("inlined")
	client := s.Root().IAM
	s.NewUser(t, *name, "")
	document := "{\"Version\": \"2012-10-17\",\n \"Statement\": {\"Sid\": \"A1\", \"Effect\": \"Allow\", \"Action\": \"kms:*\", \"Resource\": \"arn:aws:kms:*:*:key/a+b & <c>\"}}"
	for _, policy := range []string{"two", "one"} {
		_, err := client.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: name, PolicyName: &policy, PolicyDocument: &document})
		require.NoError(t, err)
	}
	got, err := client.GetUserPolicy(ctx, &iam.GetUserPolicyInput{UserName: name, PolicyName: aws.String("one")})
	require.NoError(t, err)
	require.Equal(t, document, unescaped(t, got.PolicyDocument))
	list, err := client.ListUserPolicies(ctx, &iam.ListUserPoliciesInput{UserName: name, MaxItems: aws.Int32(1)})
	require.NoError(t, err)
	require.Equal(t, []string{"one"}, list.PolicyNames)
	list, err = client.ListUserPolicies(ctx, &iam.ListUserPoliciesInput{UserName: name, Marker: list.Marker})
	require.NoError(t, err)
	require.Equal(t, []string{"two"}, list.PolicyNames)
	require.False(t, list.IsTruncated)

	_, err = client.DeleteUser(ctx, &iam.DeleteUserInput{UserName: aws.String("inlined")})
	var conflict *types.DeleteConflictException
	require.ErrorAs(t, err, &conflict)
	for _, policy := range []string{"two", "one"} {
		_, err = client.DeleteUserPolicy(ctx, &iam.DeleteUserPolicyInput{UserName: name, PolicyName: &policy})
		require.NoError(t, err)
		_, err = client.GetUserPolicy(ctx, &iam.GetUserPolicyInput{UserName: name, PolicyName: &policy})
		kmstest.RequireError(t, err, "NoSuchEntity", "The user policy with name "+policy+" cannot be found.")
	}
	bad := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"}]}`
	_, err = client.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: name, PolicyName: aws.String("bad"), PolicyDocument: &bad})
	var malformed *types.MalformedPolicyDocumentException
	require.ErrorAs(t, err, &malformed)
	large := kmstest.Statement("Allow", "", "kms:*", "arn:aws:kms:::"+strings.Repeat("x", 2048))
	_, err = client.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: name, PolicyName: aws.String("large"), PolicyDocument: &large})
	kmstest.RequireError(t, err, "LimitExceeded", "Maximum policy size of 2048 bytes exceeded for user inlined")
}

func TestManagedPolicies(t *testing.T) {
	s, ctx := one(), t.Context()
	client := s.Root().IAM
	v1, v2 := kmstest.Statement("Allow", "", "iam:ListUsers", "*"), kmstest.Statement("Allow", "", "iam:ListRoles", "*")
	made, err := client.CreatePolicy(ctx, &iam.CreatePolicyInput{
		PolicyName: aws.String("managed"), Path: aws.String("/managed/"), PolicyDocument: &v1, Description: aws.String("d"), Tags: []types.Tag{iamTag("a", "b")},
	})
	require.NoError(t, err)
	arn := made.Policy.Arn
	require.Equal(t, kmstest.IAMARN("policy/managed/managed"), *arn)
	_, err = client.CreatePolicy(ctx, &iam.CreatePolicyInput{PolicyName: aws.String("Managed"), PolicyDocument: &v1})
	kmstest.RequireError(t, err, "EntityAlreadyExists", "A policy called Managed already exists. Duplicate names are not allowed.")

	// It is in force for who has it, in the version that is the default, at the next request.
	who := s.NewUser(t, "manager", "")
	lists := func() []bool {
		_, users := who.IAM.ListUsers(ctx, &iam.ListUsersInput{})
		_, roles := who.IAM.ListRoles(ctx, &iam.ListRolesInput{})
		return []bool{users == nil, roles == nil}
	}
	require.Equal(t, []bool{false, false}, lists())
	_, err = client.AttachUserPolicy(ctx, &iam.AttachUserPolicyInput{UserName: aws.String("manager"), PolicyArn: arn})
	require.NoError(t, err)
	require.Equal(t, []bool{true, false}, lists())
	_, err = client.CreatePolicyVersion(ctx, &iam.CreatePolicyVersionInput{PolicyArn: arn, PolicyDocument: &v2})
	require.NoError(t, err)
	require.Equal(t, []bool{true, false}, lists())
	_, err = client.SetDefaultPolicyVersion(ctx, &iam.SetDefaultPolicyVersionInput{PolicyArn: arn, VersionId: aws.String("v2")})
	require.NoError(t, err)
	require.Equal(t, []bool{false, true}, lists())

	versions, err := client.ListPolicyVersions(ctx, &iam.ListPolicyVersionsInput{PolicyArn: arn})
	require.NoError(t, err)
	require.Len(t, versions.Versions, 2)
	require.Equal(t, []any{"v2", true}, []any{*versions.Versions[0].VersionId, versions.Versions[0].IsDefaultVersion})
	got, err := client.GetPolicyVersion(ctx, &iam.GetPolicyVersionInput{PolicyArn: arn, VersionId: aws.String("v1")})
	require.NoError(t, err)
	require.Equal(t, v1, unescaped(t, got.PolicyVersion.Document))
	described, err := client.GetPolicy(ctx, &iam.GetPolicyInput{PolicyArn: arn})
	require.NoError(t, err)
	require.Equal(t, []any{"v2", int32(1), "d"}, []any{*described.Policy.DefaultVersionId, *described.Policy.AttachmentCount, *described.Policy.Description})
	require.Equal(t, []types.Tag{iamTag("a", "b")}, described.Policy.Tags)

	attached, err := client.ListAttachedUserPolicies(ctx, &iam.ListAttachedUserPoliciesInput{UserName: aws.String("manager"), PathPrefix: aws.String("/managed/")})
	require.NoError(t, err)
	require.Equal(t, []types.AttachedPolicy{{PolicyArn: arn, PolicyName: aws.String("managed")}}, attached.AttachedPolicies)
	_, err = client.DeletePolicy(ctx, &iam.DeletePolicyInput{PolicyArn: arn})
	kmstest.RequireError(t, err, "DeleteConflict", "Cannot delete a policy attached to entities.")
	_, err = client.DetachUserPolicy(ctx, &iam.DetachUserPolicyInput{UserName: aws.String("manager"), PolicyArn: arn})
	require.NoError(t, err)
	require.Equal(t, []bool{false, false}, lists())
	_, err = client.DetachUserPolicy(ctx, &iam.DetachUserPolicyInput{UserName: aws.String("manager"), PolicyArn: arn})
	kmstest.RequireError(t, err, "NoSuchEntity", "Policy "+*arn+" was not found.")
	_, err = client.DeletePolicy(ctx, &iam.DeletePolicyInput{PolicyArn: arn})
	require.ErrorContains(t, err, "This policy has more than one version.")
	_, err = client.DeletePolicyVersion(ctx, &iam.DeletePolicyVersionInput{PolicyArn: arn, VersionId: aws.String("v2")})
	kmstest.RequireError(t, err, "DeleteConflict", "Cannot delete the default version of a policy.")
	_, err = client.DeletePolicyVersion(ctx, &iam.DeletePolicyVersionInput{PolicyArn: arn, VersionId: aws.String("v1")})
	require.NoError(t, err)
	_, err = client.DeletePolicy(ctx, &iam.DeletePolicyInput{PolicyArn: arn})
	require.NoError(t, err)
	_, err = client.AttachUserPolicy(ctx, &iam.AttachUserPolicyInput{UserName: aws.String("manager"), PolicyArn: arn})
	kmstest.RequireError(t, err, "NoSuchEntity", "Policy "+*arn+" does not exist or is not attachable.")
}

func TestListPolicies(t *testing.T) {
	client, ctx := one().Root().IAM, t.Context()
	document, path := kmstest.Statement("Allow", "", "kms:*", "*"), aws.String("/listed/")
	for _, name := range []string{"listed-a", "listed-b", "listed-c"} {
		_, err := client.CreatePolicy(ctx, &iam.CreatePolicyInput{PolicyName: &name, Path: path, PolicyDocument: &document})
		require.NoError(t, err)
	}
	_, err := client.CreateUser(ctx, &iam.CreateUserInput{UserName: aws.String("bounded"), PermissionsBoundary: aws.String(kmstest.IAMARN("policy/listed/listed-b"))})
	require.NoError(t, err)
	list := func(edit func(*iam.ListPoliciesInput)) (names []string) {
		in := &iam.ListPoliciesInput{PathPrefix: path}
		edit(in)
		out, err := client.ListPolicies(ctx, in)
		require.NoError(t, err)
		for _, p := range out.Policies {
			names = append(names, *p.PolicyName)
		}
		return names
	}
	require.Equal(t, []string{"listed-a", "listed-b", "listed-c"}, list(func(*iam.ListPoliciesInput) {}))
	require.Equal(t, []string{"listed-a"}, list(func(in *iam.ListPoliciesInput) { in.MaxItems = aws.Int32(1) }))
	require.Equal(t, []string{"listed-b"}, list(func(in *iam.ListPoliciesInput) { in.OnlyAttached = true }))
	require.Equal(t, []string{"listed-b"}, list(func(in *iam.ListPoliciesInput) { in.PolicyUsageFilter = types.PolicyUsageTypePermissionsBoundary }))
	require.Empty(t, list(func(in *iam.ListPoliciesInput) { in.PolicyUsageFilter = types.PolicyUsageTypePermissionsPolicy }))
	require.Empty(t, list(func(in *iam.ListPoliciesInput) { in.Scope = types.PolicyScopeTypeAws }))
}

func TestPermissionsBoundaries(t *testing.T) {
	s, ctx, name := one(), t.Context(), aws.String("narrow")
	client := s.Root().IAM
	document := kmstest.Statement("Allow", "", "iam:ListUsers", "*")
	boundary, err := client.CreatePolicy(ctx, &iam.CreatePolicyInput{PolicyName: aws.String("boundary"), PolicyDocument: &document})
	require.NoError(t, err)
	who := s.NewUser(t, *name, kmstest.Statement("Allow", "", "iam:*", "*"))
	_, err = who.IAM.ListRoles(ctx, &iam.ListRolesInput{})
	require.NoError(t, err)
	_, err = client.PutUserPermissionsBoundary(ctx, &iam.PutUserPermissionsBoundaryInput{UserName: name, PermissionsBoundary: boundary.Policy.Arn})
	require.NoError(t, err)
	_, err = who.IAM.ListRoles(ctx, &iam.ListRolesInput{})
	requireDenied(t, err, kmstest.IAMARN("user/narrow"), "iam:ListRoles", kmstest.IAMARN("role/"), " because no permissions boundary allows the iam:ListRoles action")
	_, err = who.IAM.ListUsers(ctx, &iam.ListUsersInput{})
	require.NoError(t, err)
	// Who is bounded cannot take the boundary away.
	_, err = who.IAM.DeleteUserPermissionsBoundary(ctx, &iam.DeleteUserPermissionsBoundaryInput{UserName: name})
	require.Error(t, err)
	got, err := client.GetUser(ctx, &iam.GetUserInput{UserName: name})
	require.NoError(t, err)
	require.Equal(t, boundary.Policy.Arn, got.User.PermissionsBoundary.PermissionsBoundaryArn)
	_, err = client.DeletePolicy(ctx, &iam.DeletePolicyInput{PolicyArn: boundary.Policy.Arn})
	kmstest.RequireError(t, err, "DeleteConflict", "Cannot delete a policy attached to entities.")
	_, err = client.DeleteUserPermissionsBoundary(ctx, &iam.DeleteUserPermissionsBoundaryInput{UserName: name})
	require.NoError(t, err)
	_, err = who.IAM.ListRoles(ctx, &iam.ListRolesInput{})
	require.NoError(t, err)
	_, err = client.DeletePolicy(ctx, &iam.DeletePolicyInput{PolicyArn: boundary.Policy.Arn})
	require.NoError(t, err)
	_, err = client.PutUserPermissionsBoundary(ctx, &iam.PutUserPermissionsBoundaryInput{UserName: name, PermissionsBoundary: boundary.Policy.Arn})
	var missing *types.NoSuchEntityException
	require.ErrorAs(t, err, &missing)
}

// TestNobodyButRoot tries what users without any permission may not, in the IAM and in the KMS API.
func TestNobodyButRoot(t *testing.T) {
	s, ctx := one(), t.Context()
	id := s.NewKey(t)
	blob := s.Encrypt(t, id, []byte("x"), nil)
	who := s.NewUser(t, "powerless", "")
	self := kmstest.IAMARN("user/powerless")
	_, err := who.IAM.CreateUser(ctx, &iam.CreateUserInput{UserName: aws.String("by-powerless")})
	requireDenied(t, err, self, "iam:CreateUser", kmstest.IAMARN("user/by-powerless"), " because no identity-based policy allows the iam:CreateUser action")
	_, err = who.IAM.GetUser(ctx, &iam.GetUserInput{UserName: aws.String("no-such-user")}) // whether it exists is not told
	requireDenied(t, err, self, "iam:GetUser", kmstest.IAMARN("user/no-such-user"), " because no identity-based policy allows the iam:GetUser action")
	_, err = who.IAM.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{})
	requireDenied(t, err, self, "iam:CreateAccessKey", self, " because no identity-based policy allows the iam:CreateAccessKey action")

	for name, call := range map[string]func() error{
		"CreateKey":   func() error { _, err := who.KMS.CreateKey(ctx, &kms.CreateKeyInput{}); return err },
		"ListKeys":    func() error { _, err := who.KMS.ListKeys(ctx, &kms.ListKeysInput{}); return err },
		"ListAliases": func() error { _, err := who.KMS.ListAliases(ctx, &kms.ListAliasesInput{}); return err },
		"DeleteAlias": func() error {
			_, err := who.KMS.DeleteAlias(ctx, &kms.DeleteAliasInput{AliasName: aws.String("alias/x")})
			return err
		},
		"DescribeKey": func() error { _, err := who.KMS.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &id}); return err },
		"Decrypt":     func() error { _, err := who.KMS.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: blob}); return err },
		"GenerateRandom": func() error {
			_, err := who.KMS.GenerateRandom(ctx, &kms.GenerateRandomInput{NumberOfBytes: aws.Int32(1)})
			return err
		},
	} {
		require.ErrorContains(t, call(), "AccessDeniedException", name)
	}
}
