package kms

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/policy"
)

const lockedOut = "The new key policy will not allow you to update the key policy in the future."

// requestBy is a request of somebody who is not the root user of testAccount, and whose own policies allow everything.
func requestBy(t *testing.T, kind policy.PrincipalType, arn string) *Request {
	t.Helper()
	r := newRequest("PutKeyPolicy")
	r.Caller = &policy.Caller{Principal: policy.Principal{Type: kind, ARN: arn, UserID: idOf(arn), Account: testAccount}, Identity: []*policy.Policy{everything(t)}}
	if session, ok := strings.CutPrefix(arn, "arn:aws:sts::"+testAccount+":assumed-role/"); ok {
		role, _, _ := strings.Cut(session, "/")
		r.Caller.RoleARN = "arn:aws:iam::" + testAccount + ":role/" + role
	}
	return r
}

// everything is an identity-based policy that allows all.
func everything(t *testing.T) *policy.Policy {
	t.Helper()
	all, err := policy.Load(policy.IdentityPolicy, `{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`)
	require.NoError(t, err)
	return all
}

// allowing is a policy that allows everything to one principal, with a resource.
func allowing(principal, resource string) string {
	return `{"Statement":{"Effect":"Allow","Principal":{"AWS":"` + principal + `"},"Action":"kms:*","Resource":"` + resource + `"}}`
}

// TestPolicyLockout judges policies of all kinds for root users, users and sessions, and has them put.
func TestPolicyLockout(t *testing.T) {
	const (
		alice   = "arn:aws:iam::" + testAccount + ":user/alice"
		bob     = "arn:aws:iam::" + testAccount + ":user/bob"
		admin   = "arn:aws:iam::" + testAccount + ":role/admin"
		session = "arn:aws:sts::" + testAccount + ":assumed-role/admin/s1"
	)
	key := newTestKey(firstKey)
	for _, test := range []struct {
		caller *Request
		policy string
		locked bool
	}{
		{newRequest("PutKeyPolicy"), allowing(testAccount, "*"), false},
		{newRequest("PutKeyPolicy"), allowing(alice, "*"), true},
		{newRequest("PutKeyPolicy"), allowing(otherAccount, "*"), true},
		{requestBy(t, policy.IAMUser, alice), allowing(alice, "*"), false},
		{requestBy(t, policy.IAMUser, alice), allowing(bob, "*"), true},
		{requestBy(t, policy.IAMUser, alice), allowing(testAccount, "*"), false},
		{requestBy(t, policy.AssumedRole, session), allowing(admin, "*"), false},
		{requestBy(t, policy.AssumedRole, session), allowing(session, "*"), false},
		{requestBy(t, policy.AssumedRole, session), allowing(alice, "*"), true},
		{requestBy(t, policy.IAMUser, alice), allowing(alice, key.ARN()), false},
		{requestBy(t, policy.IAMUser, alice), allowing(alice, newTestKey(secondKey).ARN()), true},
	} {
		for bypass, locked := range map[bool]bool{false: test.locked, true: false} {
			_, err := newService(t, fakeToken{}).checkPolicy(t.Context(), test.caller, key, test.policy, bypass)
			if locked {
				requireError[Empty](t, nil, err, MalformedPolicyDocument, lockedOut)
				continue
			}
			require.NoError(t, err)
		}
		s := newService(t, fakeToken{})
		put(t, s, newTestKey(firstKey))
		in := &PutKeyPolicyInput{KeyId: firstKey, Policy: test.policy}
		out, err := s.PutKeyPolicy(t.Context(), test.caller, in)
		if test.locked {
			requireError(t, out, err, MalformedPolicyDocument, lockedOut)
			require.Equal(t, defaultPolicy(testAccount), policyOf(t, s))
			in.BypassPolicyLockoutSafetyCheck = true
			out, err = s.PutKeyPolicy(t.Context(), test.caller, in)
		}
		require.NoError(t, err)
		require.NotNil(t, out)
		require.Equal(t, test.policy, policyOf(t, s))
	}
}

// policyOf gives the policy of firstKey.
func policyOf(t *testing.T, s *Service) string {
	t.Helper()
	key, err := s.live(t.Context(), testRegion, firstKey)
	require.NoError(t, err)
	return key.Policy
}

// TestPolicyOfNewKey makes keys with policies that name keys by their ids: that of the new key is known when its policy is
// judged, and nothing is made on the token under a policy that is refused.
func TestPolicyOfNewKey(t *testing.T) {
	arn := (&Key{Account: testAccount, Region: testRegion}).ARN()
	// With random bytes of zero, the first key has the id 00000000-0000-4000-8000-000000000000.
	zeros := func(cfg *Config) { cfg.Rand = strings.NewReader(strings.Repeat("\x00", 100)) }
	for resource, locked := range map[string]bool{
		arn + "00000000-0000-4000-8000-000000000000": false,
		arn + "*":          false,
		arn + firstKey:     true,
		"arn:aws:s3:::all": true,
	} {
		m := &maker{}
		s := newService(t, m.token(), zeros)
		in := &CreateKeyInput{Policy: allowing(testAccount, resource)}
		out, err := s.CreateKey(t.Context(), newRequest("CreateKey"), in)
		if !locked {
			require.NoError(t, err)
			continue
		}
		requireError(t, out, err, MalformedPolicyDocument, lockedOut)
		requireNoKeys(t, s)
		require.Equal(t, []hsm.KeyRef(nil), m.made)
	}
}

// TestDefaultPolicy holds the policy that keys get to the check that others must pass, for every kind of caller.
func TestDefaultPolicy(t *testing.T) {
	s := newService(t, fakeToken{})
	for _, r := range []*Request{
		newRequest("CreateKey"), requestBy(t, policy.IAMUser, "arn:aws:iam::"+testAccount+":user/a"),
		requestBy(t, policy.AssumedRole, "arn:aws:sts::"+testAccount+":assumed-role/r/s1"),
	} {
		ids, err := s.checkPolicy(t.Context(), r, newTestKey(firstKey), defaultPolicy(testAccount), false)
		require.NoError(t, err)
		require.Nil(t, ids)
	}
	_, err := s.checkPolicy(t.Context(), newRequest(""), newTestKey(firstKey), defaultPolicy(otherAccount), false)
	requireError[Empty](t, nil, err, MalformedPolicyDocument, lockedOut)
}
