package contract

import (
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// absences are what clients ask of a user before they delete it. Each gives how many things were listed.
var absences = map[string]func(client *iam.Client, t *testing.T, user *string) (int, error){
	"ListGroupsForUser": func(c *iam.Client, t *testing.T, user *string) (int, error) {
		out, err := c.ListGroupsForUser(t.Context(), &iam.ListGroupsForUserInput{UserName: user})
		return listed(err, func() (int, bool) { return len(out.Groups), out.IsTruncated })
	},
	"ListMFADevices": func(c *iam.Client, t *testing.T, user *string) (int, error) {
		out, err := c.ListMFADevices(t.Context(), &iam.ListMFADevicesInput{UserName: user})
		return listed(err, func() (int, bool) { return len(out.MFADevices), out.IsTruncated })
	},
	"ListSSHPublicKeys": func(c *iam.Client, t *testing.T, user *string) (int, error) {
		out, err := c.ListSSHPublicKeys(t.Context(), &iam.ListSSHPublicKeysInput{UserName: user})
		return listed(err, func() (int, bool) { return len(out.SSHPublicKeys), out.IsTruncated })
	},
	"ListSigningCertificates": func(c *iam.Client, t *testing.T, user *string) (int, error) {
		out, err := c.ListSigningCertificates(t.Context(), &iam.ListSigningCertificatesInput{UserName: user})
		return listed(err, func() (int, bool) { return len(out.Certificates), out.IsTruncated })
	},
	"ListServiceSpecificCredentials": func(c *iam.Client, t *testing.T, user *string) (int, error) {
		out, err := c.ListServiceSpecificCredentials(t.Context(), &iam.ListServiceSpecificCredentialsInput{UserName: user, ServiceName: aws.String("codecommit.amazonaws.com")})
		return listed(err, func() (int, bool) { return len(out.ServiceSpecificCredentials), out.IsTruncated })
	},
}

// listed counts what an answer lists, and what it says is still to come.
func listed(err error, count func() (int, bool)) (int, error) {
	if err != nil {
		return 0, err
	}
	n, truncated := count()
	if truncated {
		n++
	}
	return n, nil
}

// markedList are the parameters of a listing with a marker of nobody's; of the caller if the name is empty.
func markedList(operation, name string) []string {
	pairs := []string{"Action", operation, "Version", iamVersion, "Marker", "x"}
	if name != "" {
		pairs = append(pairs, "UserName", name)
	}
	return pairs
}

// absentByName need the name of a user.
var absentByName = []string{"ListGroupsForUser"}

// TestListsOfWhatThereIsNot asks what a user has that there is not here, as Terraform does before it deletes one.
func TestListsOfWhatThereIsNot(t *testing.T) {
	s, name := one(), aws.String("without")
	s.NewUser(t, *name, "")
	powerless := s.NewUser(t, "without-power", "")
	for operation, list := range absences {
		may := s.NewUser(t, "without-"+operation, kmstest.Statement("Allow", "", "iam:"+operation, kmstest.IAMARN("user/without*")))
		asked := []*string{name, nil}
		if slices.Contains(absentByName, operation) {
			asked = asked[:1]
		}
		for _, user := range asked {
			for _, who := range []kmstest.Someone{may, s.Root()} {
				n, err := list(who.IAM, t, user)
				require.NoError(t, err, operation)
				require.Zero(t, n, operation)
			}
			arn := kmstest.IAMARN("user/without-power")
			if user != nil {
				arn = kmstest.IAMARN("user/" + *user)
			}
			_, err := list(powerless.IAM, t, user)
			requireDenied(t, err, kmstest.IAMARN("user/without-power"), "iam:"+operation, arn, " because no identity-based policy allows the iam:"+operation+" action")
		}
		for _, who := range []kmstest.Someone{may, s.Root()} { // the root user is no user, and not looked up
			requireXMLError(t, s.PostForm(t, who.Credentials, "iam", markedList(operation, *name)...), 400, "ValidationError", "Invalid Marker")
			if !slices.Contains(absentByName, operation) {
				requireXMLError(t, s.PostForm(t, who.Credentials, "iam", markedList(operation, "")...), 400, "ValidationError", "Invalid Marker")
			}
		}
		_, err := list(may.IAM, t, aws.String("without-anything"))
		requireNoSuchUser(t, err, "without-anything")
	}
}

func TestLoginProfilesAreAbsent(t *testing.T) {
	s, ctx, name := one(), t.Context(), aws.String("passwordless")
	who := s.NewUser(t, *name, "")
	root := s.Root().IAM
	for operation, call := range map[string]func(*iam.Client, *string) error{
		"DeleteLoginProfile": func(c *iam.Client, user *string) error {
			_, err := c.DeleteLoginProfile(ctx, &iam.DeleteLoginProfileInput{UserName: user})
			return err
		},
		"GetLoginProfile": func(c *iam.Client, user *string) error {
			_, err := c.GetLoginProfile(ctx, &iam.GetLoginProfileInput{UserName: user})
			return err
		},
	} {
		var missing *types.NoSuchEntityException
		require.ErrorAs(t, call(root, name), &missing)
		kmstest.RequireError(t, call(root, name), "NoSuchEntity", "Login Profile for User passwordless cannot be found.")
		requireNoSuchUser(t, call(root, aws.String("nobody-here")), "nobody-here")
		kmstest.RequireError(t, call(root, nil), "ValidationError", "Must specify userName when calling with non-User credentials")
		requireDenied(t, call(who.IAM, nil), kmstest.IAMARN("user/passwordless"), "iam:"+operation, kmstest.IAMARN("user/passwordless"), " because no identity-based policy allows the iam:"+operation+" action")
	}
}

// TestListsOfTheAccount lists what there is not for the whole account.
func TestListsOfTheAccount(t *testing.T) {
	s, ctx := one(), t.Context()
	powerless := s.NewUser(t, "account-lists", "")
	devices := func(who kmstest.Someone) error {
		out, err := who.IAM.ListVirtualMFADevices(ctx, &iam.ListVirtualMFADevicesInput{AssignmentStatus: types.AssignmentStatusTypeAssigned})
		n, err := listed(err, func() (int, bool) { return len(out.VirtualMFADevices), out.IsTruncated })
		require.Zero(t, n)
		return err
	}
	credentials := func(who kmstest.Someone, user *string) error {
		out, err := who.IAM.ListServiceSpecificCredentials(ctx, &iam.ListServiceSpecificCredentialsInput{AllUsers: aws.Bool(true), UserName: user})
		n, err := listed(err, func() (int, bool) { return len(out.ServiceSpecificCredentials), out.IsTruncated })
		require.Zero(t, n)
		return err
	}
	require.NoError(t, devices(s.Root()))
	require.NoError(t, credentials(s.Root(), nil))
	kmstest.RequireError(t, credentials(s.Root(), aws.String("account-lists")), "ValidationError", "AllUsers cannot be specified together with UserName.")
	self := kmstest.IAMARN("user/account-lists")
	requireDenied(t, devices(powerless), self, "iam:ListVirtualMFADevices", kmstest.IAMARN("mfa/"), " because no identity-based policy allows the iam:ListVirtualMFADevices action")
	requireDenied(t, credentials(powerless, nil), self, "iam:ListServiceSpecificCredentials", kmstest.IAMARN("user/"), " because no identity-based policy allows the iam:ListServiceSpecificCredentials action")
}

// entities lists who has a policy, in pages of a size.
func entities(t *testing.T, client *iam.Client, in iam.ListEntitiesForPolicyInput, size int32) (users, roles []string) {
	t.Helper()
	in.MaxItems = aws.Int32(size)
	for {
		out, err := client.ListEntitiesForPolicy(t.Context(), &in)
		require.NoError(t, err)
		require.Empty(t, out.PolicyGroups)
		require.LessOrEqual(t, len(out.PolicyUsers)+len(out.PolicyRoles), int(size))
		for _, u := range out.PolicyUsers {
			require.Regexp(t, "^AIDA", *u.UserId)
			users = append(users, *u.UserName)
		}
		for _, r := range out.PolicyRoles {
			require.Regexp(t, "^AROA", *r.RoleId)
			roles = append(roles, *r.RoleName)
		}
		require.Equal(t, out.IsTruncated, out.Marker != nil)
		if !out.IsTruncated {
			slices.Sort(users)
			slices.Sort(roles)
			return users, roles
		}
		require.Len(t, append(make([]int, len(out.PolicyUsers)), make([]int, len(out.PolicyRoles))...), int(size))
		in.Marker = out.Marker
	}
}

// TestListEntitiesForPolicy lists the users and roles that have a policy, among their policies or for their boundary.
func TestListEntitiesForPolicy(t *testing.T) {
	g, ctx := newRig(t, one()), t.Context()
	client := g.root.IAM
	arn, other := g.managed("had", allow("kms:*", "*")), g.managed("not-had", allow("kms:*", "*"))
	for _, name := range []string{"u1", "u2", "u3"} {
		path := map[string]*string{"u3": aws.String("/deep/")}[name]
		_, err1 := client.CreateUser(ctx, &iam.CreateUserInput{UserName: &name, Path: path})
		_, err2 := client.AttachUserPolicy(ctx, &iam.AttachUserPolicyInput{UserName: &name, PolicyArn: arn})
		require.Equal(t, []error{nil, nil}, []error{err1, err2})
	}
	newRoleOf(t, g.root, "r1", trusting(g.account), "")
	newRoleOf(t, g.root, "r2", trusting(g.account), "")
	_, err1 := client.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: aws.String("r1"), PolicyArn: arn})
	_, err2 := client.PutRolePermissionsBoundary(ctx, &iam.PutRolePermissionsBoundaryInput{RoleName: aws.String("r2"), PermissionsBoundary: arn})
	_, err3 := client.PutUserPermissionsBoundary(ctx, &iam.PutUserPermissionsBoundaryInput{UserName: aws.String("u1"), PermissionsBoundary: arn})
	require.Equal(t, []error{nil, nil, nil}, []error{err1, err2, err3})
	for _, test := range []struct {
		in           iam.ListEntitiesForPolicyInput
		users, roles []string
	}{
		{iam.ListEntitiesForPolicyInput{PolicyArn: arn}, []string{"u1", "u2", "u3"}, []string{"r1", "r2"}},
		{iam.ListEntitiesForPolicyInput{PolicyArn: other}, nil, nil},
		{iam.ListEntitiesForPolicyInput{PolicyArn: arn, EntityFilter: types.EntityTypeUser}, []string{"u1", "u2", "u3"}, nil},
		{iam.ListEntitiesForPolicyInput{PolicyArn: arn, EntityFilter: types.EntityTypeRole}, nil, []string{"r1", "r2"}},
		{iam.ListEntitiesForPolicyInput{PolicyArn: arn, EntityFilter: types.EntityTypeGroup}, nil, nil},
		{iam.ListEntitiesForPolicyInput{PolicyArn: arn, PathPrefix: aws.String("/deep/")}, []string{"u3"}, nil},
		{iam.ListEntitiesForPolicyInput{PolicyArn: arn, PathPrefix: aws.String("/")}, []string{"u1", "u2", "u3"}, []string{"r1", "r2"}},
		{iam.ListEntitiesForPolicyInput{PolicyArn: arn, PolicyUsageFilter: types.PolicyUsageTypePermissionsPolicy}, []string{"u1", "u2", "u3"}, []string{"r1"}},
		{iam.ListEntitiesForPolicyInput{PolicyArn: arn, PolicyUsageFilter: types.PolicyUsageTypePermissionsBoundary}, []string{"u1"}, []string{"r2"}},
	} {
		for _, size := range []int32{1, 2, 5, 1000} {
			users, roles := entities(t, client, test.in, size)
			require.Equal(t, [][]string{test.users, test.roles}, [][]string{users, roles}, "%+v", test.in)
		}
	}
	first, err := client.ListEntitiesForPolicy(ctx, &iam.ListEntitiesForPolicyInput{PolicyArn: arn, MaxItems: aws.Int32(1)})
	require.NoError(t, err)
	_, err = client.ListEntitiesForPolicy(ctx, &iam.ListEntitiesForPolicyInput{PolicyArn: arn, Marker: first.Marker, EntityFilter: types.EntityTypeUser})
	kmstest.RequireError(t, err, "ValidationError", "Invalid Marker")
	missing := "arn:aws:iam::" + g.account + ":policy/missing"
	_, err = client.ListEntitiesForPolicy(ctx, &iam.ListEntitiesForPolicyInput{PolicyArn: &missing})
	kmstest.RequireError(t, err, "NoSuchEntity", "Policy "+missing+" was not found.")
	who, whoARN := g.user("blind")
	_, err = who.IAM.ListEntitiesForPolicy(ctx, &iam.ListEntitiesForPolicyInput{PolicyArn: arn})
	requireDenied(t, err, whoARN, "iam:ListEntitiesForPolicy", *arn, " because no identity-based policy allows the iam:ListEntitiesForPolicy action")
}
