package contract

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// trusts is a trust policy that allows actions to a principal, with a condition; nil for none.
func trusts(t testing.TB, principal string, condition members, actions ...string) string {
	t.Helper()
	s := statement{"Effect": "Allow", "Principal": members{"AWS": principal}, "Action": actions}
	if condition != nil {
		s = s.with("Condition", condition)
	}
	return document(t, s)
}

// begin tries to begin a session with a source identity, "" for none, and gives it.
func (g *rig) begin(who kmstest.Someone, role, source string) (kmstest.Someone, *string, error) {
	in := &sts.AssumeRoleInput{RoleArn: &role, RoleSessionName: aws.String("session")}
	if source != "" {
		in.SourceIdentity = &source
	}
	out, err := who.STS.AssumeRole(g.t.Context(), in)
	if err != nil {
		return kmstest.Someone{}, nil, err
	}
	return g.s.Session(out.Credentials), out.SourceIdentity, nil
}

// TestWhoMaySetSourceIdentities needs sts:SetSourceIdentity of the trust policy, or of the user where that leaves it to the account.
func TestWhoMaySetSourceIdentities(t *testing.T) {
	g := newRig(t, one())
	who, arn := g.user("user")
	requireBegun := func(role, source string) {
		t.Helper()
		_, given, err := g.begin(who, role, source)
		require.NoError(t, err)
		require.Equal(t, source, aws.ToString(given))
	}
	requireRefused := func(role, source string) {
		t.Helper()
		_, _, err := g.begin(who, role, source)
		requireDenied(t, err, arn, "sts:SetSourceIdentity", role, "")
	}
	plain := newRoleOf(t, g.root, "plain", trusts(t, arn, nil, "sts:AssumeRole", "sts:TagSession"), "")
	requireBegun(plain, "")
	requireRefused(plain, "me")
	full := newRoleOf(t, g.root, "full", trusts(t, arn, nil, "sts:AssumeRole", "sts:SetSourceIdentity"), "")
	requireBegun(full, "me")

	byAccount := newRoleOf(t, g.root, "by-account", trusts(t, g.account, nil, "sts:AssumeRole", "sts:SetSourceIdentity"), "")
	g.root.PutUserPolicy(t, "user", document(t, allow("sts:AssumeRole", byAccount)))
	requireBegun(byAccount, "")
	requireRefused(byAccount, "me")
	g.root.PutUserPolicy(t, "user", document(t, allow([]string{"sts:AssumeRole", "sts:SetSourceIdentity"}, byAccount)))
	requireBegun(byAccount, "me")

	named := newRoleOf(t, g.root, "named", trusts(t, arn, members{"StringEquals": members{"sts:SourceIdentity": "me"}}, "sts:AssumeRole", "sts:SetSourceIdentity"), "")
	requireBegun(named, "me")
	for _, other := range []string{"", "you"} {
		_, _, err := g.begin(who, named, other)
		requireDenied(t, err, arn, "sts:AssumeRole", named, "")
	}
}

// TestChainsKeepSourceIdentities has sessions begin others, which have the source identity of the first and no other.
func TestChainsKeepSourceIdentities(t *testing.T) {
	g := newRig(t, one())
	who, arn := g.user("user")
	both := []string{"sts:AssumeRole", "sts:SetSourceIdentity"}
	first := newRoleOf(t, g.root, "first", trusts(t, arn, nil, both...), "")
	second := newRoleOf(t, g.root, "second", trusts(t, first, nil, both...), "")
	third := newRoleOf(t, g.root, "third", trusts(t, second, nil, both...), "")
	closed := newRoleOf(t, g.root, "closed", trusts(t, first, nil, "sts:AssumeRole"), "")
	named, _, err := g.begin(who, first, "me")
	require.NoError(t, err)
	unnamed, _, err := g.begin(who, first, "")
	require.NoError(t, err)

	const text = "The source identity of the calling session cannot be changed."
	_, _, err = g.begin(named, second, "you")
	kmstest.RequireError(t, err, "AccessDenied", text)
	next, given, err := g.begin(named, second, "")
	require.NoError(t, err)
	require.Equal(t, "me", *given)
	_, given, err = g.begin(named, second, "me")
	require.NoError(t, err)
	require.Equal(t, "me", *given)
	_, _, err = g.begin(next, third, "you")
	kmstest.RequireError(t, err, "AccessDenied", text)
	_, given, err = g.begin(next, third, "")
	require.NoError(t, err)
	require.Equal(t, "me", *given)

	// What goes on needs the permission, too.
	session := "arn:aws:sts::" + g.account + ":assumed-role/first/session"
	_, _, err = g.begin(named, closed, "")
	requireDenied(t, err, session, "sts:SetSourceIdentity", closed, "")
	_, given, err = g.begin(unnamed, closed, "")
	require.NoError(t, err)
	require.Nil(t, given)
	_, given, err = g.begin(unnamed, second, "you")
	require.NoError(t, err)
	require.Equal(t, "you", *given)
}
