package contract

import (
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// one gives one of the servers, for tests that have nothing to do with the home of keys.
func one() *kmstest.Server { return servers[kmstest.HomeToken] }

func iamTag(key, value string) types.Tag { return types.Tag{Key: &key, Value: &value} }

func requireNoSuchUser(t *testing.T, err error, name string) {
	t.Helper()
	kmstest.RequireError(t, err, "NoSuchEntity", "The user with name "+name+" cannot be found.")
}

func TestUsers(t *testing.T) {
	client, ctx := one().Root().IAM, t.Context()
	made, err := client.CreateUser(ctx, &iam.CreateUserInput{
		UserName: aws.String("Ursula"), Path: aws.String("/tests/users/"), Tags: []types.Tag{iamTag("team", "red"), iamTag("Level", "")},
	})
	require.NoError(t, err)
	require.Equal(t, kmstest.IAMARN("user/tests/users/Ursula"), *made.User.Arn)
	require.Regexp(t, `^AIDA[A-Z2-7]{17}$`, *made.User.UserId)
	require.WithinDuration(t, time.Now(), *made.User.CreateDate, time.Minute)
	require.Equal(t, []types.Tag{iamTag("Level", ""), iamTag("team", "red")}, made.User.Tags)

	got, err := client.GetUser(ctx, &iam.GetUserInput{UserName: aws.String("Ursula")})
	require.NoError(t, err)
	require.Equal(t, made.User, got.User)

	_, err = client.CreateUser(ctx, &iam.CreateUserInput{UserName: aws.String("URSULA")})
	kmstest.RequireError(t, err, "EntityAlreadyExists", "User with name URSULA already exists.")
	_, err = client.GetUser(ctx, &iam.GetUserInput{UserName: aws.String("ursula")})
	requireNoSuchUser(t, err, "ursula")

	// A user keeps id and access keys under a new name.
	key, err := client.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: aws.String("Ursula")})
	require.NoError(t, err)
	_, err = client.UpdateUser(ctx, &iam.UpdateUserInput{UserName: aws.String("Ursula"), NewUserName: aws.String("ulla"), NewPath: aws.String("/tests/")})
	require.NoError(t, err)
	_, err = client.GetUser(ctx, &iam.GetUserInput{UserName: aws.String("Ursula")})
	requireNoSuchUser(t, err, "Ursula")
	got, err = client.GetUser(ctx, &iam.GetUserInput{UserName: aws.String("ulla")})
	require.NoError(t, err)
	require.Equal(t, *made.User.UserId, *got.User.UserId)
	ulla := one().As(aws.Credentials{AccessKeyID: *key.AccessKey.AccessKeyId, SecretAccessKey: *key.AccessKey.SecretAccessKey})
	self, err := ulla.STS.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	require.NoError(t, err)
	require.Equal(t, []string{kmstest.IAMARN("user/tests/ulla"), *made.User.UserId, kmstest.Account}, []string{*self.Arn, *self.UserId, *self.Account})

	_, err = client.DeleteUser(ctx, &iam.DeleteUserInput{UserName: aws.String("ulla")})
	kmstest.RequireError(t, err, "DeleteConflict", "Cannot delete entity, must delete access keys first.")
	_, err = client.DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{UserName: aws.String("ulla"), AccessKeyId: key.AccessKey.AccessKeyId})
	require.NoError(t, err)
	_, err = client.DeleteUser(ctx, &iam.DeleteUserInput{UserName: aws.String("ulla")})
	require.NoError(t, err)
	_, err = client.DeleteUser(ctx, &iam.DeleteUserInput{UserName: aws.String("ulla")})
	requireNoSuchUser(t, err, "ulla")
}

func TestGetUserOfCaller(t *testing.T) {
	s, ctx := one(), t.Context()
	root, err := s.Root().IAM.GetUser(ctx, &iam.GetUserInput{})
	require.NoError(t, err)
	require.Equal(t, kmstest.IAMARN("root"), *root.User.Arn)
	require.Equal(t, kmstest.Account, *root.User.UserId)
	own := s.NewUser(t, "getuser-self", kmstest.Statement("Allow", "", "iam:GetUser", kmstest.IAMARN("user/${aws:username}")))
	got, err := own.IAM.GetUser(ctx, &iam.GetUserInput{})
	require.NoError(t, err)
	require.Equal(t, "getuser-self", *got.User.UserName)
}

func TestListUsersInPages(t *testing.T) {
	client, ctx := one().Root().IAM, t.Context()
	var want []string
	for i := range 7 {
		name := "page-" + strconv.Itoa(i)
		_, err := client.CreateUser(ctx, &iam.CreateUserInput{UserName: &name, Path: aws.String("/pages/")})
		require.NoError(t, err)
		want = append(want, name)
	}
	var got []string
	pages := iam.NewListUsersPaginator(client, &iam.ListUsersInput{PathPrefix: aws.String("/pages/"), MaxItems: aws.Int32(3)})
	count := 0
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		require.NoError(t, err)
		for _, user := range page.Users {
			got = append(got, *user.UserName)
		}
		count++
	}
	require.Equal(t, want, got)
	require.Equal(t, 3, count)

	_, err := client.ListUsers(ctx, &iam.ListUsersInput{Marker: aws.String("nonsense")})
	kmstest.RequireError(t, err, "ValidationError", "Invalid Marker")
	first, err := client.ListUsers(ctx, &iam.ListUsersInput{PathPrefix: aws.String("/pages/"), MaxItems: aws.Int32(1)})
	require.NoError(t, err)
	require.True(t, first.IsTruncated)
	_, err = client.ListUsers(ctx, &iam.ListUsersInput{Marker: first.Marker}) // that of another listing
	kmstest.RequireError(t, err, "ValidationError", "Invalid Marker")
}

func TestUserTags(t *testing.T) {
	client, ctx, name := one().Root().IAM, t.Context(), aws.String("tagged")
	_, err := client.CreateUser(ctx, &iam.CreateUserInput{UserName: name})
	require.NoError(t, err)
	_, err = client.TagUser(ctx, &iam.TagUserInput{UserName: name, Tags: []types.Tag{iamTag("b", "1"), iamTag("a", "2"), iamTag("c", "3")}})
	require.NoError(t, err)
	_, err = client.TagUser(ctx, &iam.TagUserInput{UserName: name, Tags: []types.Tag{iamTag("B", "4")}})
	require.NoError(t, err)
	_, err = client.UntagUser(ctx, &iam.UntagUserInput{UserName: name, TagKeys: []string{"C", "none"}})
	require.NoError(t, err)
	out, err := client.ListUserTags(ctx, &iam.ListUserTagsInput{UserName: name})
	require.NoError(t, err)
	require.Equal(t, []types.Tag{iamTag("B", "4"), iamTag("a", "2")}, out.Tags)

	_, err = client.TagUser(ctx, &iam.TagUserInput{UserName: name, Tags: []types.Tag{iamTag("x", "1"), iamTag("X", "2")}})
	kmstest.RequireError(t, err, "InvalidInput", "Duplicate tag keys found. Please note that Tag keys are case insensitive.")
	var many []types.Tag
	for i := range 49 {
		many = append(many, iamTag("many-"+strconv.Itoa(i), ""))
	}
	_, err = client.TagUser(ctx, &iam.TagUserInput{UserName: name, Tags: many})
	kmstest.RequireError(t, err, "LimitExceeded", "The number of tags has reached the maximum limit.")
}

func TestAccessKeys(t *testing.T) {
	s, ctx, name := one(), t.Context(), aws.String("keyholder")
	client := s.Root().IAM
	first := s.NewUser(t, *name, "")
	second, err := client.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: name})
	require.NoError(t, err)
	require.Regexp(t, `^AKIA[A-Z2-7]{16}$`, *second.AccessKey.AccessKeyId)
	require.Regexp(t, `^[A-Za-z0-9+/]{40}$`, *second.AccessKey.SecretAccessKey)
	_, err = client.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: name})
	kmstest.RequireError(t, err, "LimitExceeded", "Cannot exceed quota for AccessKeysPerUser: 2")

	use := func() error {
		_, err := first.STS.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
		return err
	}
	set := func(status types.StatusType) {
		_, err := client.UpdateAccessKey(ctx, &iam.UpdateAccessKeyInput{UserName: name, AccessKeyId: &first.AccessKeyID, Status: status})
		require.NoError(t, err)
		out, err := client.ListAccessKeys(ctx, &iam.ListAccessKeysInput{UserName: name})
		require.NoError(t, err)
		statuses := map[string]types.StatusType{}
		for _, key := range out.AccessKeyMetadata {
			statuses[*key.AccessKeyId] = key.Status
		}
		require.Equal(t, map[string]types.StatusType{first.AccessKeyID: status, *second.AccessKey.AccessKeyId: "Active"}, statuses)
	}
	require.NoError(t, use())
	set("Inactive")
	kmstest.RequireError(t, use(), "InvalidClientTokenId", textBadToken)
	_, err = first.KMS.ListKeys(ctx, &kms.ListKeysInput{})
	kmstest.RequireError(t, err, "UnrecognizedClientException", textBadToken)
	set("Active")
	require.NoError(t, use())

	used, err := client.GetAccessKeyLastUsed(ctx, &iam.GetAccessKeyLastUsedInput{AccessKeyId: &first.AccessKeyID})
	require.NoError(t, err)
	require.Equal(t, []string{*name, "sts", kmstest.Region}, []string{*used.UserName, *used.AccessKeyLastUsed.ServiceName, *used.AccessKeyLastUsed.Region})
	require.WithinDuration(t, time.Now(), *used.AccessKeyLastUsed.LastUsedDate, 2*time.Minute)
	unused, err := client.GetAccessKeyLastUsed(ctx, &iam.GetAccessKeyLastUsedInput{AccessKeyId: second.AccessKey.AccessKeyId})
	require.NoError(t, err)
	require.Equal(t, "N/A", *unused.AccessKeyLastUsed.ServiceName)
	require.Nil(t, unused.AccessKeyLastUsed.LastUsedDate)

	_, err = client.DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{UserName: name, AccessKeyId: &first.AccessKeyID})
	require.NoError(t, err)
	kmstest.RequireError(t, use(), "InvalidClientTokenId", textBadToken)
	_, err = client.DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{UserName: name, AccessKeyId: &first.AccessKeyID})
	kmstest.RequireError(t, err, "NoSuchEntity", "The Access Key with id "+first.AccessKeyID+" cannot be found.")
	// Keys of others are not this user's.
	_, err = client.DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{UserName: name, AccessKeyId: &s.AccessKeyID})
	kmstest.RequireError(t, err, "NoSuchEntity", "The Access Key with id "+s.AccessKeyID+" cannot be found.")
}

func TestListGroupsIsEmpty(t *testing.T) {
	s := one()
	s.NewUser(t, "loner", "")
	out, err := s.Root().IAM.ListGroupsForUser(t.Context(), &iam.ListGroupsForUserInput{UserName: aws.String("loner")})
	require.NoError(t, err)
	require.Empty(t, out.Groups)
	_, err = s.Root().IAM.ListGroupsForUser(t.Context(), &iam.ListGroupsForUserInput{UserName: aws.String("nobody-here")})
	requireNoSuchUser(t, err, "nobody-here")
}
