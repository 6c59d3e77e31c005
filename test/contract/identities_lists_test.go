package contract

import (
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// TestPoliciesOfRoles reads the inline and the managed policies of a role, and takes them away.
func TestPoliciesOfRoles(t *testing.T) {
	g, ctx, name := newRig(t, one()), t.Context(), aws.String("job")
	client := g.root.IAM
	newRoleOf(t, g.root, *name, trusting(g.account), "")
	text := "{\"Version\": \"2012-10-17\",\n \"Statement\": {\"Sid\": \"A1\", \"Effect\": \"Allow\", \"Action\": \"kms:*\", \"Resource\": \"arn:aws:kms:*:*:key/a+b & <c>\"}}"
	for _, policy := range []string{"two", "one"} {
		_, err := client.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: name, PolicyName: &policy, PolicyDocument: &text})
		require.NoError(t, err)
	}
	got, err := client.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: name, PolicyName: aws.String("one")})
	require.NoError(t, err)
	require.Equal(t, []string{"job", "one", text}, []string{*got.RoleName, *got.PolicyName, unescaped(t, got.PolicyDocument)})
	names, err := client.ListRolePolicies(ctx, &iam.ListRolePoliciesInput{RoleName: name})
	require.NoError(t, err)
	require.Equal(t, []string{"one", "two"}, names.PolicyNames)
	require.False(t, names.IsTruncated)
	_, err = client.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: name, PolicyName: aws.String("one")})
	require.NoError(t, err)
	_, err = client.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: name, PolicyName: aws.String("one")})
	kmstest.RequireError(t, err, "NoSuchEntity", "The role policy with name one cannot be found.")
	_, err = client.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: aws.String("none"), PolicyName: aws.String("one")})
	kmstest.RequireError(t, err, "NoSuchEntity", "The role with name none cannot be found.")

	first, second := g.managed("first", allow("kms:*", "*")), g.managed("second", allow("kms:*", "*"))
	for _, arn := range []*string{second, first} {
		_, err = client.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: name, PolicyArn: arn})
		require.NoError(t, err)
	}
	attached := func(prefix *string) []types.AttachedPolicy {
		out, err := client.ListAttachedRolePolicies(ctx, &iam.ListAttachedRolePoliciesInput{RoleName: name, PathPrefix: prefix})
		require.NoError(t, err)
		require.False(t, out.IsTruncated)
		return out.AttachedPolicies
	}
	require.Equal(t, []types.AttachedPolicy{{PolicyArn: first, PolicyName: aws.String("first")}, {PolicyArn: second, PolicyName: aws.String("second")}}, attached(nil))
	require.Empty(t, attached(aws.String("/other/")))
	_, err = client.DetachRolePolicy(ctx, &iam.DetachRolePolicyInput{RoleName: name, PolicyArn: first})
	require.NoError(t, err)
	require.Equal(t, []types.AttachedPolicy{{PolicyArn: second, PolicyName: aws.String("second")}}, attached(aws.String("/")))
}

// listing is an action that lists, and the XML element that has the names of its entries.
type listing struct {
	action, element string
	pairs           []string
}

// page asks for a page, and gives the names on it and the marker of the next, "" for none.
func (l listing) page(g *rig, marker string, maxItems int) (names []string, next string) {
	g.t.Helper()
	pairs := append([]string{"Action", l.action, "Version", iamVersion, "MaxItems", strconv.Itoa(maxItems)}, l.pairs...)
	if marker != "" {
		pairs = append(pairs, "Marker", marker)
	}
	answer := g.s.PostForm(g.t, g.root.Credentials, "iam", pairs...)
	require.Equal(g.t, http.StatusOK, answer.Status, "%s: %s", l.action, answer.Body)
	for _, match := range regexp.MustCompile(`<`+l.element+`>([^<]*)</`).FindAllStringSubmatch(answer.Body, -1) {
		names = append(names, match[1])
	}
	if found := regexp.MustCompile(`<Marker>([^<]+)</Marker>`).FindStringSubmatch(answer.Body); found != nil {
		next = found[1]
	}
	require.Contains(g.t, answer.Body, "<IsTruncated>"+strconv.FormatBool(next != "")+"</IsTruncated>", l.action)
	return names, next
}

// all reads all pages. Each but the last must be full.
func (l listing) all(g *rig, maxItems int) (all []string) {
	g.t.Helper()
	for names, marker := l.page(g, "", maxItems); ; names, marker = l.page(g, marker, maxItems) {
		all = append(all, names...)
		require.LessOrEqual(g.t, len(all), 5, "%s: it never ends", l.action)
		if marker == "" {
			require.LessOrEqual(g.t, len(names), maxItems, l.action)
			return all
		}
		require.Len(g.t, names, maxItems, l.action)
	}
}

// listings makes what there is to list, five of each but access keys, and gives every action that lists with what it gives.
func (g *rig) listings() map[*listing][]string {
	g.t.Helper()
	ctx, client, text := g.t.Context(), g.root.IAM, document(g.t, allow("kms:*", "*"))
	var names, arns []string
	var tags []types.Tag
	for i := range 5 {
		name := "n" + strconv.Itoa(i)
		tags = append(tags, iamTag(name, ""))
		_, err := client.CreateUser(ctx, &iam.CreateUserInput{UserName: &name})
		require.NoError(g.t, err)
		newRoleOf(g.t, g.root, name, trusting(g.account), "")
		names, arns = append(names, name), append(arns, *g.managed(name, allow("kms:*", "*")))
	}
	for i, name := range names {
		_, err1 := client.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: aws.String("n0"), PolicyName: &name, PolicyDocument: &text})
		_, err2 := client.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: aws.String("n0"), PolicyName: &name, PolicyDocument: &text})
		_, err3 := client.AttachUserPolicy(ctx, &iam.AttachUserPolicyInput{UserName: aws.String("n0"), PolicyArn: &arns[i]})
		_, err4 := client.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: aws.String("n0"), PolicyArn: &arns[i]})
		require.Equal(g.t, []error{nil, nil, nil, nil}, []error{err1, err2, err3, err4})
		if i > 0 {
			_, err := client.CreatePolicyVersion(ctx, &iam.CreatePolicyVersionInput{PolicyArn: &arns[0], PolicyDocument: &text})
			require.NoError(g.t, err)
		}
	}
	_, err1 := client.TagUser(ctx, &iam.TagUserInput{UserName: aws.String("n0"), Tags: tags})
	_, err2 := client.TagRole(ctx, &iam.TagRoleInput{RoleName: aws.String("n0"), Tags: tags})
	_, err3 := client.TagPolicy(ctx, &iam.TagPolicyInput{PolicyArn: &arns[0], Tags: tags})
	require.Equal(g.t, []error{nil, nil, nil}, []error{err1, err2, err3})
	user, role, policy := []string{"UserName", "n0"}, []string{"RoleName", "n0"}, []string{"PolicyArn", arns[0]}
	return map[*listing][]string{
		{"ListUsers", "UserName", nil}: names, {"ListRoles", "RoleName", nil}: names, {"ListPolicies", "PolicyName", nil}: names,
		{"ListUserPolicies", "member", user}: names, {"ListRolePolicies", "member", role}: names,
		{"ListAttachedUserPolicies", "PolicyArn", user}: arns, {"ListAttachedRolePolicies", "PolicyArn", role}: arns,
		{"ListUserTags", "Key", user}: names, {"ListRoleTags", "Key", role}: names, {"ListPolicyTags", "Key", policy}: names,
		{"ListPolicyVersions", "VersionId", policy}: {"v5", "v4", "v3", "v2", "v1"},
		{"ListAccessKeys", "AccessKeyId", user}:     g.accessKeys("n0", 2),
	}
}

// accessKeys makes access keys of a user, and gives their ids in order.
func (g *rig) accessKeys(user string, n int) (ids []string) {
	g.t.Helper()
	for range n {
		out, err := g.root.IAM.CreateAccessKey(g.t.Context(), &iam.CreateAccessKeyInput{UserName: &user})
		require.NoError(g.t, err)
		ids = append(ids, *out.AccessKey.AccessKeyId)
	}
	return slices.Sorted(slices.Values(ids))
}

// TestPagesOfLists reads every list in pages of all sizes. A marker is for its own list alone.
func TestPagesOfLists(t *testing.T) {
	g := newRig(t, one())
	all := g.listings()
	markers := map[string]string{}
	for l, want := range all {
		for _, size := range []int{1, 2, 3, 5, 1000} {
			require.Equal(t, want, l.all(g, size), "%s, %d a page", l.action, size)
		}
		_, markers[l.action] = l.page(g, "", 1)
	}
	for l := range all {
		for action, marker := range markers {
			if action == l.action {
				continue
			}
			pairs := append([]string{"Action", l.action, "Version", iamVersion, "Marker", marker}, l.pairs...)
			requireXMLError(t, g.s.PostForm(t, g.root.Credentials, "iam", pairs...), 400, "ValidationError", "Invalid Marker")
		}
	}
}

// TestMarkersAreForWhoMayList asks for lists with a marker of nobody's: who may not list does not hear of it.
func TestMarkersAreForWhoMayList(t *testing.T) {
	g := newRig(t, one())
	who, _ := g.user("u0")
	newRoleOf(t, g.root, "u0", trusting(g.account), "")
	arn := g.managed("u0", allow("kms:*", "*"))
	named := map[string][]string{
		"UserName": {
			"ListUserPolicies", "ListAttachedUserPolicies", "ListUserTags", "ListAccessKeys", "ListGroupsForUser", "ListMFADevices", "ListSSHPublicKeys",
			"ListSigningCertificates", "ListServiceSpecificCredentials",
		},
		"RoleName":  {"ListRolePolicies", "ListAttachedRolePolicies", "ListRoleTags", "ListInstanceProfilesForRole"},
		"PolicyArn": {"ListPolicyTags", "ListPolicyVersions", "ListEntitiesForPolicy"},
		"":          {"ListUsers", "ListRoles", "ListPolicies", "ListVirtualMFADevices"},
	}
	for member, actions := range named {
		for _, action := range actions {
			pairs := []string{"Action", action, "Version", iamVersion, "Marker", "x"}
			switch member {
			case "PolicyArn":
				pairs = append(pairs, member, *arn)
			case "UserName", "RoleName":
				pairs = append(pairs, member, "u0")
			}
			refused := g.s.PostForm(t, who.Credentials, "iam", pairs...)
			require.Equal(t, http.StatusForbidden, refused.Status, "%s: %s", action, refused.Body)
			require.Contains(t, refused.Body, "<Code>AccessDenied</Code>", action)
			requireXMLError(t, g.s.PostForm(t, g.root.Credentials, "iam", pairs...), 400, "ValidationError", "Invalid Marker")
		}
	}
}
