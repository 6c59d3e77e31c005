package iam

import (
	"context"
	"crypto/sha256"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/policy"
	"hsmkms/store"
	"hsmkms/store/bolt"
)

// rig is a service with an account, a clock that is set by hand, and a store that counts snapshots.
type rig struct {
	*Service
	t     *testing.T
	store *counting
	now   time.Time
	root  *policy.Caller
}

type counting struct {
	store.Store
	views int
}

func (c *counting) View(ctx context.Context, fn func(store.Reader) error) error {
	c.views++
	return c.Store.View(ctx, fn)
}

const testAccount = "111122223333"

func newRig(t *testing.T) *rig {
	t.Helper()
	st, err := bolt.Open(bolt.Config{Path: t.TempDir() + "/db"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	r := &rig{t: t, store: &counting{Store: st}, now: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)}
	r.open()
	var id string
	require.NoError(t, r.CreateAccount(t.Context(), testAccount, func(key RootKey) error { id = key.ID; return nil }))
	r.root = r.caller(id)
	return r
}

// open makes a service on the store, as at a start.
func (r *rig) open() {
	r.t.Helper()
	s, err := New(Config{Store: r.store, Vault: fakeVault{}, Clock: func() time.Time { return r.now }})
	require.NoError(r.t, err)
	r.Service = s
}

// caller gives who is behind an access key; nil if nobody is.
func (r *rig) caller(accessKeyID string) *policy.Caller {
	r.t.Helper()
	identity, found, err := r.Identity(r.t.Context(), accessKeyID)
	require.NoError(r.t, err)
	if !found {
		return nil
	}
	return identity.Caller
}

func (r *rig) request(who *policy.Caller, operation string) *Request {
	return &Request{Operation: operation, Caller: who}
}

// newUser makes a user and gives an access key of it.
func (r *rig) newUser(name string) string {
	r.t.Helper()
	_, err := r.CreateUser(r.t.Context(), r.request(r.root, "CreateUser"), &CreateUserInput{UserName: name})
	require.NoError(r.t, err)
	out, err := r.CreateAccessKey(r.t.Context(), r.request(r.root, "CreateAccessKey"), &CreateAccessKeyInput{UserName: name})
	require.NoError(r.t, err)
	return out.AccessKey.AccessKeyId
}

func allow(action string) string {
	return `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"` + action + `","Resource":"*"}}`
}

// TestIdentityIsOneLookup has identities kept in memory, and made anew when something of them changes.
func TestIdentityIsOneLookup(t *testing.T) {
	r := newRig(t)
	id := r.newUser("alice")
	require.Empty(t, r.caller(id).Identity)
	views := r.store.views
	first := r.caller(id)
	require.Same(t, first, r.caller(id))
	require.Equal(t, views, r.store.views)
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _, _ = r.Identity(t.Context(), id) }))

	document := allow("kms:*")
	_, err := r.PutUserPolicy(t.Context(), r.request(r.root, "PutUserPolicy"), &PutUserPolicyInput{UserName: "alice", PolicyName: "p", PolicyDocument: document})
	require.NoError(t, err)
	require.Len(t, r.caller(id).Identity, 1)
	require.Empty(t, first.Identity, "what was given out does not change")

	made, err := r.CreatePolicy(t.Context(), r.request(r.root, "CreatePolicy"), &CreatePolicyInput{PolicyName: "m", PolicyDocument: document})
	require.NoError(t, err)
	_, err = r.AttachUserPolicy(t.Context(), r.request(r.root, "AttachUserPolicy"), &AttachUserPolicyInput{UserName: "alice", PolicyArn: made.Policy.Arn})
	require.NoError(t, err)
	_, err = r.PutUserPermissionsBoundary(t.Context(), r.request(r.root, "PutUserPermissionsBoundary"),
		&PutUserPermissionsBoundaryInput{UserName: "alice", PermissionsBoundary: made.Policy.Arn})
	require.NoError(t, err)
	require.Len(t, r.caller(id).Identity, 2)
	require.NotNil(t, r.caller(id).Boundary)

	r.open() // as after a restart
	again := r.caller(id)
	require.Len(t, again.Identity, 2)
	require.NotNil(t, again.Boundary)
	require.Equal(t, "alice", again.UserName)
}

// assume begins a session of a role that alice may assume.
func (r *rig) assume(user string, in *AssumeRoleInput) *AssumeRoleOutput {
	r.t.Helper()
	out, err := r.AssumeRole(r.t.Context(), r.request(r.caller(user), "AssumeRole"), in)
	require.NoError(r.t, err)
	return out
}

func (r *rig) newRole(name, trusted string) string {
	r.t.Helper()
	out, err := r.CreateRole(r.t.Context(), r.request(r.root, "CreateRole"), &CreateRoleInput{
		RoleName:                 name,
		AssumeRolePolicyDocument: `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"` + trusted + `"},"Action":"sts:AssumeRole"}}`,
		Tags:                     []Tag{{"role", "yes"}},
	})
	require.NoError(r.t, err)
	return out.Role.Arn
}

func TestSessions(t *testing.T) {
	r := newRig(t)
	id := r.newUser("alice")
	arn := r.newRole("job", "arn:aws:iam::"+testAccount+":user/alice")
	out := r.assume(id, &AssumeRoleInput{RoleArn: arn, RoleSessionName: "one", Policy: allow("kms:*")})
	identity, found, err := r.Identity(t.Context(), out.Credentials.AccessKeyId)
	require.NoError(t, err)
	require.True(t, found)
	require.True(t, identity.Session)
	require.Equal(t, sha256.Sum256(out.Credentials.SessionToken), identity.Token)
	require.Equal(t, r.now.Truncate(time.Second).Add(time.Hour), identity.Expires)
	require.Len(t, identity.Caller.Session, 1)
	require.Equal(t, int32(5), *out.PackedPolicySize) // in percent
	require.Equal(t, policy.Principal{
		Type: policy.AssumedRole, Account: testAccount, ARN: "arn:aws:sts::" + testAccount + ":assumed-role/job/one", AccessKeyID: out.Credentials.AccessKeyId,
		UserID: out.AssumedRoleUser.AssumedRoleId, RoleARN: arn, Tags: map[string]string{"role": "yes"}, Issued: r.now.Truncate(time.Second),
	}, identity.Caller.Principal)

	secret, err := r.Secret(t.Context(), out.Credentials.AccessKeyId)
	require.NoError(t, err)
	require.Equal(t, out.Credentials.SecretAccessKey, secret)
	given := [][]byte{out.Credentials.SecretAccessKey, out.Credentials.SessionToken}
	require.NoError(t, r.store.Store.View(t.Context(), func(reader store.Reader) error {
		return reader.Scan("", "", func(key string, value []byte) bool {
			for _, secret := range given {
				require.NotContains(t, key+string(value), string(secret))
			}
			return true
		})
	}))
	out.Wipe()
	require.Equal(t, make([]byte, 40), given[0])
	require.Equal(t, make([]byte, 64), given[1])
}

// TestSweep clears away sessions a day after they have ended, and nothing else.
func TestSweep(t *testing.T) {
	r := newRig(t)
	id := r.newUser("alice")
	arn := r.newRole("work", "arn:aws:iam::"+testAccount+":user/alice")
	hours := func(n int32) *int32 { n *= 3600; return &n }
	var short []string
	for i := range 2*batch + 1 {
		out := r.assume(id, &AssumeRoleInput{RoleArn: arn, RoleSessionName: "short-" + strconv.Itoa(i), DurationSeconds: hours(1)})
		short = append(short, out.Credentials.AccessKeyId)
	}
	long, err := r.GetSessionToken(t.Context(), r.request(r.caller(id), "GetSessionToken"), &GetSessionTokenInput{DurationSeconds: hours(36)})
	require.NoError(t, err)
	before := r.count(keyPrefix)

	r.now = r.now.Add(24 * time.Hour)
	r.tidy(t.Context())
	require.Equal(t, before, r.count(keyPrefix))
	r.now = r.now.Add(time.Hour + time.Second)
	r.tidy(t.Context())
	require.Equal(t, before-len(short), r.count(keyPrefix))
	require.Equal(t, 1, r.count(expiryPrefix))
	r.open()
	require.Nil(t, r.caller(short[0]))
	require.NotNil(t, r.caller(long.Credentials.AccessKeyId))
}

func (r *rig) count(prefix string) int {
	r.t.Helper()
	n := 0
	require.NoError(r.t, r.store.Store.View(r.t.Context(), func(reader store.Reader) error {
		all, err := names(reader, prefix)
		n = len(all)
		return err
	}))
	return n
}

// TestUses keeps when access keys were last used over a restart.
func TestUses(t *testing.T) {
	r := newRig(t)
	var ids []string
	for i := range batch + 2 {
		ids = append(ids, r.newUser("user-"+strconv.Itoa(i)))
	}
	for _, id := range ids {
		r.Used(id, "kms", "eu-west-1")
	}
	r.Used(temporary+"AAAAAAAAAAAAAAAA", "kms", "eu-west-1")
	r.Used(lasting+"AAAAAAAAAAAAAAAA", "kms", "eu-west-1") // of no user
	_, err := r.DeleteAccessKey(t.Context(), r.request(r.root, "DeleteAccessKey"), &DeleteAccessKeyInput{UserName: "user-0", AccessKeyId: ids[0]})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	require.ErrorIs(t, r.Run(ctx), context.Canceled) // the last thing it does is to save
	require.Equal(t, len(ids)-1, r.count(usedPrefix))

	at := r.now
	r.now = r.now.Add(time.Hour)
	r.open()
	last, err := r.GetAccessKeyLastUsed(t.Context(), r.request(r.root, "GetAccessKeyLastUsed"), &GetAccessKeyLastUsedInput{AccessKeyId: ids[1]})
	require.NoError(t, err)
	require.Equal(t, AccessKeyLastUsed{LastUsedDate: at.Truncate(time.Minute), Region: "eu-west-1", ServiceName: "kms"}, *last.AccessKeyLastUsed)
	r.Used(ids[1], "sts", "us-east-1")
	last, err = r.GetAccessKeyLastUsed(t.Context(), r.request(r.root, "GetAccessKeyLastUsed"), &GetAccessKeyLastUsedInput{AccessKeyId: ids[1]})
	require.NoError(t, err)
	require.Equal(t, "sts", last.AccessKeyLastUsed.ServiceName)
	require.Zero(t, testing.AllocsPerRun(100, func() { r.Used(ids[1], "sts", "us-east-1") }))
}

// TestRotateRoot drops the keys before, in memory too, and none if the new one cannot be kept.
func TestRotateRoot(t *testing.T) {
	r := newRig(t)
	old := r.root.AccessKeyID
	require.NotNil(t, r.caller(old))
	require.ErrorIs(t, r.RotateRoot(t.Context(), testAccount, func(RootKey) error { return context.Canceled }), context.Canceled)
	require.NotNil(t, r.caller(old))
	var id string
	require.NoError(t, r.RotateRoot(t.Context(), testAccount, func(key RootKey) error { id = key.ID; return nil }))
	require.Nil(t, r.caller(old))
	require.NotNil(t, r.caller(id))
	require.Equal(t, 1, r.count(keysOf(testAccount)))
	require.ErrorIs(t, r.RotateRoot(t.Context(), "999999999999", func(RootKey) error { return nil }), ErrNoAccount)
	ids, err := r.Accounts(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{testAccount}, ids)
}

// TestNamesOfTheDead gives the name of a deleted user to another, who has nothing of the first.
func TestNamesOfTheDead(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	id := r.newUser("alice")
	token, err := r.GetSessionToken(ctx, r.request(r.caller(id), "GetSessionToken"), &GetSessionTokenInput{})
	require.NoError(t, err)
	require.NotNil(t, r.caller(token.Credentials.AccessKeyId))
	_, err = r.DeleteAccessKey(ctx, r.request(r.root, "DeleteAccessKey"), &DeleteAccessKeyInput{UserName: "alice", AccessKeyId: id})
	require.NoError(t, err)
	_, err = r.DeleteUser(ctx, r.request(r.root, "DeleteUser"), &DeleteUserInput{UserName: "alice"})
	require.NoError(t, err)
	r.newUser("alice")
	require.Nil(t, r.caller(token.Credentials.AccessKeyId))
	require.Nil(t, r.caller(id))
}

// TestDelegation lets an administrator make users only within a boundary, as AWS's guide to boundaries does.
func TestDelegation(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	made, err := r.CreatePolicy(ctx, r.request(r.root, "CreatePolicy"), &CreatePolicyInput{PolicyName: "fence", PolicyDocument: allow("kms:*")})
	require.NoError(t, err)
	fence := made.Policy.Arn
	id := r.newUser("delegate")
	document := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iam:CreateUser","iam:AttachUserPolicy"],"Resource":"*",
		"Condition":{"StringEquals":{"iam:PermissionsBoundary":"` + fence + `"}}},
		{"Effect":"Allow","Action":"iam:TagUser","Resource":"*","Condition":{"ForAllValues:StringEquals":{"aws:TagKeys":["team"]},"StringEquals":{"aws:RequestTag/team":"red"}}}]}`
	_, err = r.PutUserPolicy(ctx, r.request(r.root, "PutUserPolicy"), &PutUserPolicyInput{UserName: "delegate", PolicyName: "p", PolicyDocument: document})
	require.NoError(t, err)
	create := func(in *CreateUserInput) error {
		_, err := r.CreateUser(ctx, r.request(r.caller(id), "CreateUser"), in)
		return err
	}
	attach := func(name string) error {
		_, err := r.AttachUserPolicy(ctx, r.request(r.caller(id), "AttachUserPolicy"), &AttachUserPolicyInput{UserName: name, PolicyArn: fence})
		return err
	}
	requireDenied := func(err error) {
		t.Helper()
		var refused *Error
		require.ErrorAs(t, err, &refused)
		require.Equal(t, AccessDenied, refused.Type)
	}
	requireDenied(create(&CreateUserInput{UserName: "free"}))
	require.NoError(t, create(&CreateUserInput{UserName: "fenced", PermissionsBoundary: fence}))
	require.NoError(t, create(&CreateUserInput{UserName: "red", PermissionsBoundary: fence, Tags: []Tag{{"team", "red"}}}))
	requireDenied(create(&CreateUserInput{UserName: "blue", PermissionsBoundary: fence, Tags: []Tag{{"team", "blue"}}}))
	require.NoError(t, attach("fenced"))
	requireDenied(attach("delegate"))
}
