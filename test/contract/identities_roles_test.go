package contract

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// trusting is a trust policy for a principal, by its ARN.
func trusting(principal string) string {
	return kmstest.Statement("Allow", principal, "sts:AssumeRole", "")
}

// newRole makes a role with an inline policy, "" for none, and gives its ARN.
func newRole(t testing.TB, s *kmstest.Server, name, trust, policy string) string {
	t.Helper()
	return newRoleOf(t, s.Root(), name, trust, policy)
}

// newRoleOf is newRole for the account of a root user.
func newRoleOf(t testing.TB, root kmstest.Someone, name, trust, policy string) string {
	t.Helper()
	out, err := root.IAM.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: &trust})
	require.NoError(t, err)
	if policy != "" {
		_, err = root.IAM.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: &name, PolicyName: aws.String("own"), PolicyDocument: &policy})
		require.NoError(t, err)
	}
	return *out.Role.Arn
}

// assume begins a session that must be allowed.
func assume(t *testing.T, s *kmstest.Server, who kmstest.Someone, role, session string, edits ...func(*sts.AssumeRoleInput)) (kmstest.Someone, *sts.AssumeRoleOutput) {
	t.Helper()
	in := &sts.AssumeRoleInput{RoleArn: &role, RoleSessionName: &session}
	for _, edit := range edits {
		edit(in)
	}
	out, err := who.STS.AssumeRole(t.Context(), in)
	require.NoError(t, err)
	return s.Session(out.Credentials), out
}

func requireDenied(t *testing.T, err error, who, action, resource, why string) {
	t.Helper()
	kmstest.RequireError(t, err, "AccessDenied", "User: "+who+" is not authorized to perform: "+action+" on resource: "+resource+why)
}

func TestRoles(t *testing.T) {
	client, ctx, name := one().Root().IAM, t.Context(), aws.String("roles-one")
	trust := trusting(kmstest.IAMARN("root"))
	made, err := client.CreateRole(ctx, &iam.CreateRoleInput{
		RoleName: name, Path: aws.String("/roles/"), AssumeRolePolicyDocument: &trust, Description: aws.String("first"),
		MaxSessionDuration: aws.Int32(7200), Tags: []types.Tag{iamTag("a", "b")},
	})
	require.NoError(t, err)
	require.Equal(t, kmstest.IAMARN("role/roles/roles-one"), *made.Role.Arn)
	require.Regexp(t, `^AROA[A-Z2-7]{17}$`, *made.Role.RoleId)

	_, err = client.UpdateRole(ctx, &iam.UpdateRoleInput{RoleName: name, Description: aws.String("second"), MaxSessionDuration: aws.Int32(3600)})
	require.NoError(t, err)
	_, err = client.TagRole(ctx, &iam.TagRoleInput{RoleName: name, Tags: []types.Tag{iamTag("c", "d")}})
	require.NoError(t, err)
	_, err = client.UntagRole(ctx, &iam.UntagRoleInput{RoleName: name, TagKeys: []string{"a"}})
	require.NoError(t, err)
	one().NewUser(t, "roles-somebody", "")
	other := trusting(kmstest.IAMARN("user/roles-somebody"))
	_, err = client.UpdateAssumeRolePolicy(ctx, &iam.UpdateAssumeRolePolicyInput{RoleName: name, PolicyDocument: &other})
	require.NoError(t, err)
	got, err := client.GetRole(ctx, &iam.GetRoleInput{RoleName: name})
	require.NoError(t, err)
	require.Equal(t, "second", *got.Role.Description)
	require.Equal(t, int32(3600), *got.Role.MaxSessionDuration)
	require.Equal(t, []types.Tag{iamTag("c", "d")}, got.Role.Tags)
	require.Equal(t, other, unescaped(t, got.Role.AssumeRolePolicyDocument))
	list, err := client.ListRoles(ctx, &iam.ListRolesInput{PathPrefix: aws.String("/roles/")})
	require.NoError(t, err)
	require.Len(t, list.Roles, 1)
	profiles, err := client.ListInstanceProfilesForRole(ctx, &iam.ListInstanceProfilesForRoleInput{RoleName: name})
	require.NoError(t, err)
	require.Empty(t, profiles.InstanceProfiles)

	for _, bad := range []string{"{", `{"Statement":[]}`, kmstest.Statement("Allow", "", "sts:AssumeRole", ""), kmstest.Statement("Allow", "*", "sts:AssumeRole", "*")} {
		_, err = client.UpdateAssumeRolePolicy(ctx, &iam.UpdateAssumeRolePolicyInput{RoleName: name, PolicyDocument: &bad})
		var malformed *types.MalformedPolicyDocumentException
		require.ErrorAs(t, err, &malformed, bad)
	}
	_, err = client.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: name})
	require.NoError(t, err)
	_, err = client.GetRole(ctx, &iam.GetRoleInput{RoleName: name})
	kmstest.RequireError(t, err, "NoSuchEntity", "The role with name roles-one cannot be found.")
}

func TestAssumeRole(t *testing.T) {
	s, ctx := one(), t.Context()
	who := s.NewUser(t, "assumer", "")
	arn := newRole(t, s, "assumed", trusting(kmstest.IAMARN("user/assumer")), kmstest.Statement("Allow", "", "iam:GetRole", "*"))
	session, out := assume(t, s, who, arn, "work", func(in *sts.AssumeRoleInput) { in.DurationSeconds = aws.Int32(900) })
	require.Equal(t, "arn:aws:sts::"+kmstest.Account+":assumed-role/assumed/work", *out.AssumedRoleUser.Arn)
	require.Regexp(t, `^AROA[A-Z2-7]{17}:work$`, *out.AssumedRoleUser.AssumedRoleId)
	require.Regexp(t, `^ASIA[A-Z2-7]{16}$`, session.AccessKeyID)
	require.WithinDuration(t, time.Now().Add(15*time.Minute), *out.Credentials.Expiration, time.Minute)

	self, err := session.STS.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	require.NoError(t, err)
	require.Equal(t, []string{*out.AssumedRoleUser.Arn, *out.AssumedRoleUser.AssumedRoleId}, []string{*self.Arn, *self.UserId})
	_, err = session.IAM.GetRole(ctx, &iam.GetRoleInput{RoleName: aws.String("assumed")})
	require.NoError(t, err)
	_, err = session.IAM.ListUsers(ctx, &iam.ListUsersInput{})
	requireDenied(t, err, *self.Arn, "iam:ListUsers", kmstest.IAMARN("user/"), " because no identity-based policy allows the iam:ListUsers action")

	// Without the token, or with that of another session, the credentials are nobody's.
	other, _ := assume(t, s, who, arn, "other")
	for _, token := range []string{"", "x", other.SessionToken} {
		c := session.Credentials
		c.SessionToken = token
		_, err = s.As(c).STS.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
		kmstest.RequireError(t, err, "InvalidClientTokenId", textBadToken)
		_, err = s.As(c).KMS.ListKeys(ctx, &kms.ListKeysInput{})
		kmstest.RequireError(t, err, "UnrecognizedClientException", textBadToken)
	}

	// What changes of the role is in force for its sessions at once, and they end with it.
	_, err = s.Root().IAM.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: aws.String("assumed"), PolicyName: aws.String("own")})
	require.NoError(t, err)
	_, err = session.IAM.GetRole(ctx, &iam.GetRoleInput{RoleName: aws.String("assumed")})
	requireDenied(t, err, *self.Arn, "iam:GetRole", arn, " because no identity-based policy allows the iam:GetRole action")
	_, err = s.Root().IAM.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: aws.String("assumed")})
	require.NoError(t, err)
	newRole(t, s, "assumed", trusting(kmstest.IAMARN("user/assumer")), "")
	_, err = session.STS.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	kmstest.RequireError(t, err, "InvalidClientTokenId", textBadToken)
}

func TestWhoMayAssumeRoles(t *testing.T) {
	s, ctx := one(), t.Context()
	byAccount := newRole(t, s, "by-account", trusting(kmstest.IAMARN("root")), "")
	plain := s.NewUser(t, "assume-plain", "")
	allowed := s.NewUser(t, "assume-allowed", kmstest.Statement("Allow", "", "sts:AssumeRole", byAccount))
	try := func(who kmstest.Someone, role string, edits ...func(*sts.AssumeRoleInput)) error {
		in := &sts.AssumeRoleInput{RoleArn: &role, RoleSessionName: aws.String("try")}
		for _, edit := range edits {
			edit(in)
		}
		_, err := who.STS.AssumeRole(ctx, in)
		return err
	}
	require.NoError(t, try(allowed, byAccount))
	requireDenied(t, try(plain, byAccount), kmstest.IAMARN("user/assume-plain"), "sts:AssumeRole", byAccount, "")
	// A role that is not there looks the same.
	requireDenied(t, try(allowed, byAccount+"x"), kmstest.IAMARN("user/assume-allowed"), "sts:AssumeRole", byAccount+"x", "")
	kmstest.RequireError(t, try(s.Root(), byAccount), "AccessDenied", "Roles may not be assumed by root accounts.")
	kmstest.RequireError(t, try(allowed, "arn:aws:iam::1:role/x"), "ValidationError", "arn:aws:iam::1:role/x is invalid")

	long := func(in *sts.AssumeRoleInput) { in.DurationSeconds = aws.Int32(7200) }
	kmstest.RequireError(t, try(allowed, byAccount, long), "ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	mfa := func(in *sts.AssumeRoleInput) {
		in.SerialNumber, in.TokenCode = aws.String("GAHT12345678"), aws.String("123456")
	}
	kmstest.RequireError(t, try(allowed, byAccount, mfa), "AccessDenied", "MultiFactorAuthentication failed with invalid MFA one time pass code. ")
	tags := func(in *sts.AssumeRoleInput) {
		in.Tags = []ststypes.Tag{{Key: aws.String("k"), Value: aws.String("v")}}
	}
	requireDenied(t, try(allowed, byAccount, tags), kmstest.IAMARN("user/assume-allowed"), "sts:TagSession", byAccount, "")

	external := newRole(t, s, "external", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"`+kmstest.IAMARN("user/assume-plain")+
		`"},"Action":"sts:AssumeRole","Condition":{"StringEquals":{"sts:ExternalId":"77"}}}]}`, "")
	requireDenied(t, try(plain, external), kmstest.IAMARN("user/assume-plain"), "sts:AssumeRole", external, "")
	require.NoError(t, try(plain, external, func(in *sts.AssumeRoleInput) { in.ExternalId = aws.String("77") }))
}

// TestSessionPolicies narrows sessions by an inline and a managed policy.
func TestSessionPolicies(t *testing.T) {
	s, ctx := one(), t.Context()
	who := s.NewUser(t, "narrower", "")
	arn := newRole(t, s, "narrowed", trusting(kmstest.IAMARN("user/narrower")), kmstest.Statement("Allow", "", "iam:*", "*"))
	only := kmstest.Statement("Allow", "", "iam:ListUsers", "*")
	session, out := assume(t, s, who, arn, "inline", func(in *sts.AssumeRoleInput) { in.Policy = &only })
	_, err := session.IAM.ListUsers(ctx, &iam.ListUsersInput{})
	require.NoError(t, err)
	_, err = session.IAM.ListRoles(ctx, &iam.ListRolesInput{})
	requireDenied(t, err, *out.AssumedRoleUser.Arn, "iam:ListRoles", kmstest.IAMARN("role/"), " because no session policy allows the iam:ListRoles action")

	managed, err := s.Root().IAM.CreatePolicy(ctx, &iam.CreatePolicyInput{PolicyName: aws.String("session-managed"), PolicyDocument: &only})
	require.NoError(t, err)
	session, out = assume(t, s, who, arn, "managed", func(in *sts.AssumeRoleInput) {
		in.PolicyArns = []ststypes.PolicyDescriptorType{{Arn: managed.Policy.Arn}}
	})
	_, err = session.IAM.ListUsers(ctx, &iam.ListUsersInput{})
	require.NoError(t, err)
	_, err = session.IAM.ListRoles(ctx, &iam.ListRolesInput{})
	requireDenied(t, err, *out.AssumedRoleUser.Arn, "iam:ListRoles", kmstest.IAMARN("role/"), " because no session policy allows the iam:ListRoles action")
	// The session ends with the policy that narrowed it.
	_, err = s.Root().IAM.DeletePolicy(ctx, &iam.DeletePolicyInput{PolicyArn: managed.Policy.Arn})
	require.NoError(t, err)
	_, err = session.IAM.ListUsers(ctx, &iam.ListUsersInput{})
	kmstest.RequireError(t, err, "InvalidClientTokenId", textBadToken)
}

// TestPackedPolicySize has the share that session policies and tags take of what there may be of them.
func TestPackedPolicySize(t *testing.T) {
	s := one()
	trust := `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"` + kmstest.IAMARN("user/packer") + `"},"Action":["sts:AssumeRole","sts:TagSession"]}}`
	who := s.NewUser(t, "packer", "")
	arn := newRole(t, s, "packed", trust, "")
	policy := kmstest.Statement("Allow", "", "kms:*", "*")
	tag := func(size int) ststypes.Tag {
		return ststypes.Tag{Key: aws.String("k"), Value: aws.String(strings.Repeat("v", size-1))}
	}
	for _, test := range []struct {
		edit func(*sts.AssumeRoleInput)
		want *int32
	}{
		{func(*sts.AssumeRoleInput) {}, nil},
		{func(in *sts.AssumeRoleInput) { in.Tags = []ststypes.Tag{tag(1)} }, aws.Int32(1)},
		{func(in *sts.AssumeRoleInput) { in.Tags = []ststypes.Tag{tag(205)} }, aws.Int32(11)},
		{func(in *sts.AssumeRoleInput) { in.Policy = &policy }, aws.Int32(int32(len(policy)*100/2048 + 1))},
		{func(in *sts.AssumeRoleInput) { in.Policy, in.Tags = &policy, []ststypes.Tag{tag(205)} }, aws.Int32(int32((len(policy)+205)*100/2048 + 1))},
	} {
		_, out := assume(t, s, who, arn, "packed", test.edit)
		require.Equal(t, test.want, out.PackedPolicySize) //nolint:staticcheck // SDKs that are newer than the model advise another
	}
}

// TestRoleChain passes a transitive tag and a source identity on from one session to the next.
func TestRoleChain(t *testing.T) {
	s := one()
	trust := func(principal string) string {
		return `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"` + principal + `"},"Action":["sts:AssumeRole","sts:TagSession","sts:SetSourceIdentity"]}}`
	}
	who := s.NewUser(t, "chainer", "")
	first := newRole(t, s, "chain-first", trust(kmstest.IAMARN("user/chainer")), "")
	second := newRole(t, s, "chain-second", trust(first), `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iam:ListUsers","Resource":"*",
		"Condition":{"StringEquals":{"aws:PrincipalTag/keep":"yes","aws:SourceIdentity":"me"},"Null":{"aws:PrincipalTag/drop":"true"}}}}`)
	session, _ := assume(t, s, who, first, "one", func(in *sts.AssumeRoleInput) {
		in.Tags = []ststypes.Tag{{Key: aws.String("keep"), Value: aws.String("yes")}, {Key: aws.String("drop"), Value: aws.String("yes")}}
		in.TransitiveTagKeys, in.SourceIdentity = []string{"keep"}, aws.String("me")
	})
	next, out := assume(t, s, session, second, "two")
	require.Nil(t, out.PackedPolicySize, "tags that go on are not of the request") //nolint:staticcheck // as above
	require.Equal(t, "me", *out.SourceIdentity)
	_, err := next.IAM.ListUsers(t.Context(), &iam.ListUsersInput{})
	require.NoError(t, err)
	_, err = session.STS.AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: &second, RoleSessionName: aws.String("long"), DurationSeconds: aws.Int32(3601)})
	kmstest.RequireError(t, err, "ValidationError", "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining")
	_, err = session.STS.AssumeRole(t.Context(), &sts.AssumeRoleInput{
		RoleArn: &second, RoleSessionName: aws.String("tagged"), Tags: []ststypes.Tag{{Key: aws.String("KEEP"), Value: aws.String("no")}},
	})
	kmstest.RequireError(t, err, "ValidationError", "The session tag keep cannot be set, because it is a transitive tag of the calling session.")
}

func TestGetSessionToken(t *testing.T) {
	s, ctx := one(), t.Context()
	out, err := s.Root().STS.GetSessionToken(ctx, &sts.GetSessionTokenInput{DurationSeconds: aws.Int32(129600)})
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(time.Hour), *out.Credentials.Expiration, time.Minute)
	root := s.Session(out.Credentials)
	_, err = root.KMS.CreateKey(ctx, &kms.CreateKeyInput{})
	require.NoError(t, err)
	_, err = root.IAM.ListUsers(ctx, &iam.ListUsersInput{})
	kmstest.RequireError(t, err, "InvalidClientTokenId", textBadToken[:len(textBadToken)-1])
	_, err = root.STS.GetSessionToken(ctx, &sts.GetSessionTokenInput{})
	kmstest.RequireError(t, err, "AccessDenied", "Cannot call GetSessionToken with session credentials")

	who := s.NewUser(t, "tokened", "")
	out, err = who.STS.GetSessionToken(ctx, &sts.GetSessionTokenInput{})
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(12*time.Hour), *out.Credentials.Expiration, time.Minute)
	self, err := s.Session(out.Credentials).STS.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	require.NoError(t, err)
	require.Equal(t, kmstest.IAMARN("user/tokened"), *self.Arn)
}
