package kms

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/policy"
	"hsmkms/store"
)

// people are the users and roles that exist, their unique ids by their ARNs.
type people struct {
	ids policy.Bindings
	// asked counts the questions for ids, and failing fails them.
	asked   int
	failing error
}

func (p *people) principals() Principals {
	return Principals{
		IDs: func(_ context.Context, arns []string) (policy.Bindings, error) {
			p.asked++
			found := policy.Bindings{}
			for _, arn := range arns {
				if id, ok := p.ids[arn]; ok {
					found[arn] = id
				}
			}
			return found, p.failing
		},
		ARNs: func(_ context.Context, ids []string) (map[string]string, error) {
			arns := map[string]string{}
			for arn, id := range p.ids {
				for _, wanted := range ids {
					if id == wanted {
						arns[id] = arn
					}
				}
			}
			return arns, p.failing
		},
	}
}

const (
	alice = "arn:aws:iam::" + testAccount + ":user/alice"
	bob   = "arn:aws:iam::" + testAccount + ":user/bob"
	gone  = "arn:aws:iam::" + testAccount + ":user/gone"
)

// newPeople are alice and bob, and a service that knows them, with firstKey.
func newPeople(t *testing.T) (*people, *Service) {
	t.Helper()
	p := &people{ids: policy.Bindings{alice: "AIDAALICE", bob: "AIDABOB"}}
	s := newGrantService(t, func(c *Config) { c.Principals = p.principals() })
	put(t, s, newTestKey(firstKey))
	return p, s
}

// by is a request of a user with a unique id, whose own policies allow nothing.
func by(operation, arn, id string) *Request {
	r := newRequest(operation)
	r.Caller = &policy.Caller{Principal: policy.Principal{Type: policy.IAMUser, ARN: arn, UserID: id, Account: testAccount}}
	return r
}

// named is a key policy that leaves the key to the account and lets some describe it.
func named(arns string) string {
	return `{"Statement":[{"Effect":"Allow","Principal":{"AWS":"` + testAccount + `"},"Action":"kms:*","Resource":"*"},
		{"Effect":"Allow","Principal":{"AWS":[` + arns + `]},"Action":"kms:DescribeKey","Resource":"*"}]}`
}

func (s *Service) describedBy(t *testing.T, arn, id string) error {
	t.Helper()
	_, err := s.DescribeKey(t.Context(), by("DescribeKey", arn, id), &DescribeKeyInput{KeyId: firstKey})
	return err
}

// shownPolicyOf is the policy of firstKey as GetKeyPolicy gives it.
func shownPolicyOf(t *testing.T, s *Service) string {
	t.Helper()
	out, err := s.GetKeyPolicy(t.Context(), newRequest("GetKeyPolicy"), &GetKeyPolicyInput{KeyId: firstKey})
	require.NoError(t, err)
	return out.Policy
}

// TestKeyPoliciesAreBound has the principal of a policy renamed, deleted and made again.
func TestKeyPoliciesAreBound(t *testing.T) {
	p, s := newPeople(t)
	text := named(`"` + alice + `"`)
	_, err := s.PutKeyPolicy(t.Context(), newRequest("PutKeyPolicy"), &PutKeyPolicyInput{KeyId: firstKey, Policy: text})
	require.NoError(t, err)
	require.NoError(t, s.describedBy(t, alice, "AIDAALICE"))
	require.Equal(t, AccessDenied, TypeOf(s.describedBy(t, alice, "AIDAOTHER")))
	require.Equal(t, text, shownPolicyOf(t, s))

	p.ids = policy.Bindings{gone: "AIDAALICE"} // which is another name
	require.Equal(t, named(`"`+gone+`"`), shownPolicyOf(t, s))
	require.NoError(t, s.describedBy(t, gone, "AIDAALICE"))
	p.ids = policy.Bindings{alice: "AIDAOTHER"}
	require.Equal(t, named(`"AIDAALICE"`), shownPolicyOf(t, s))
	out, err := s.PutKeyPolicy(t.Context(), newRequest("PutKeyPolicy"), &PutKeyPolicyInput{KeyId: firstKey, Policy: shownPolicyOf(t, s)})
	requireError(t, out, err, MalformedPolicyDocument, "Policy contains a statement with one or more invalid principals.")

	_, err = s.PutKeyPolicy(t.Context(), newRequest("PutKeyPolicy"), &PutKeyPolicyInput{KeyId: firstKey, Policy: text})
	require.NoError(t, err)
	require.NoError(t, s.describedBy(t, alice, "AIDAOTHER"), "the same text, bound anew")
	require.Equal(t, AccessDenied, TypeOf(s.describedBy(t, alice, "AIDAALICE")))
	require.Equal(t, text, shownPolicyOf(t, s))
}

// TestUnknownPrincipals names somebody who does not exist. Who may not make the request is not told so.
func TestUnknownPrincipals(t *testing.T) {
	p, s := newPeople(t)
	const invalid = "Policy contains a statement with one or more invalid principals."
	unknown := named(`"` + alice + `","` + gone + `"`)
	user := by("", bob, "AIDABOB")
	user.Caller.Identity = []*policy.Policy{everything(t)}
	for _, in := range []CreateGrantInput{
		{KeyId: firstKey, GranteePrincipal: gone, Operations: []string{"Encrypt"}},
		{KeyId: firstKey, GranteePrincipal: alice, RetiringPrincipal: gone, Operations: []string{"Encrypt"}},
		{KeyId: firstKey, GranteePrincipal: rootARN(otherAccount), RetiringPrincipal: gone, Operations: []string{"Encrypt"}, DryRun: true},
	} {
		p.asked = 0
		_, err := s.CreateGrant(t.Context(), by("CreateGrant", alice, "AIDAALICE"), &in)
		require.Equal(t, AccessDenied, TypeOf(err))
		require.Zero(t, p.asked)
		out, err := s.CreateGrant(t.Context(), newRequest("CreateGrant"), &in)
		requireError(t, out, err, InvalidArn, "ARN does not refer to a valid principal: "+gone)
	}
	p.asked = 0
	for _, bypass := range []bool{false, true} {
		put := &PutKeyPolicyInput{KeyId: firstKey, Policy: unknown, BypassPolicyLockoutSafetyCheck: bypass}
		_, err := s.PutKeyPolicy(t.Context(), by("PutKeyPolicy", alice, "AIDAALICE"), put)
		require.Equal(t, AccessDenied, TypeOf(err))
		create := &CreateKeyInput{Policy: unknown, BypassPolicyLockoutSafetyCheck: bypass}
		_, err = s.CreateKey(t.Context(), by("CreateKey", alice, "AIDAALICE"), create)
		require.Equal(t, AccessDenied, TypeOf(err))
		require.Zero(t, p.asked)
		out, err := s.PutKeyPolicy(t.Context(), newRequest("PutKeyPolicy"), put)
		requireError(t, out, err, MalformedPolicyDocument, invalid)
		made, err := s.CreateKey(t.Context(), user, create)
		requireError(t, made, err, MalformedPolicyDocument, invalid)
		p.asked = 0
	}
	require.Equal(t, defaultPolicy(testAccount), policyOf(t, s))
	requireNoGrantRecords(t, s)
}

// TestPrincipalsCannotBeLookedUp has the room that knows them fail: nothing is put, and nothing shown.
func TestPrincipalsCannotBeLookedUp(t *testing.T) {
	p, s := newPeople(t)
	put := &PutKeyPolicyInput{KeyId: firstKey, Policy: named(`"` + alice + `"`)}
	grant := &CreateGrantInput{KeyId: firstKey, GranteePrincipal: alice, RetiringPrincipal: alice, Operations: []string{"Encrypt"}}
	_, err := s.PutKeyPolicy(t.Context(), newRequest("PutKeyPolicy"), put)
	require.NoError(t, err)
	createGrant(t, s, grant)
	p.failing = errors.New("out of order")
	for name, call := range map[string]func() error{
		"PutKeyPolicy": func() error { _, err := s.PutKeyPolicy(t.Context(), newRequest("PutKeyPolicy"), put); return err },
		"CreateGrant":  func() error { _, err := s.CreateGrant(t.Context(), newRequest("CreateGrant"), grant); return err },
		"GetKeyPolicy": func() error {
			_, err := s.GetKeyPolicy(t.Context(), newRequest("GetKeyPolicy"), &GetKeyPolicyInput{KeyId: firstKey})
			return err
		},
		"ListGrants": func() error {
			_, err := s.ListGrants(t.Context(), newRequest("ListGrants"), &ListGrantsInput{KeyId: firstKey})
			return err
		},
		"ListGrants to somebody": func() error {
			_, err := s.ListGrants(t.Context(), newRequest("ListGrants"), &ListGrantsInput{KeyId: firstKey, GranteePrincipal: alice})
			return err
		},
		"ListRetirableGrants": func() error {
			_, err := s.ListRetirableGrants(t.Context(), newRequest("ListRetirableGrants"), &ListRetirableGrantsInput{RetiringPrincipal: alice})
			return err
		},
	} {
		err := call()
		require.ErrorIs(t, err, p.failing, name)
		require.Equal(t, InternalError, TypeOf(err), name)
	}
	require.NoError(t, s.describedBy(t, alice, "AIDAALICE"), "decisions do not ask")
}

// TestUnboundPolicies decides nothing by a policy of which it is unknown whom it means.
func TestUnboundPolicies(t *testing.T) {
	_, s := newPeople(t)
	put(t, s, newTestKey(secondKey, func(k *Key) { k.Policy = named(`"` + alice + `"`) }))
	_, err := s.DescribeKey(t.Context(), newRequest("DescribeKey"), &DescribeKeyInput{KeyId: secondKey})
	require.EqualError(t, err, "the policy of key "+secondKey+" is not bound to "+alice)
}

// TestRulingsAreNotMixedUp judges records that were not read, of one text and several bindings.
func TestRulingsAreNotMixedUp(t *testing.T) {
	_, s := newPeople(t)
	for _, id := range []string{"AIDA1", "AIDA2", "AIDA1"} {
		key := newTestKey(firstKey, func(k *Key) { k.Policy, k.Principals = named(`"`+alice+`"`), policy.Bindings{alice: id} })
		for _, caller := range []string{"AIDA1", "AIDA2"} {
			err := s.judge(t.Context(), by("DescribeKey", alice, caller), actionDescribeKey, key, judgement{asked: &asked{}})
			require.Equal(t, id != caller, TypeOf(err) == AccessDenied)
		}
	}
}

// grantsOfPeople are the ids that ListGrants gives, with whom it shows as grantees.
func grantsOfPeople(t *testing.T, s *Service, grantee string) map[string]string {
	t.Helper()
	out, err := s.ListGrants(t.Context(), newRequest("ListGrants"), &ListGrantsInput{KeyId: firstKey, GranteePrincipal: grantee})
	require.NoError(t, err)
	shown := map[string]string{}
	for _, g := range out.Grants {
		one, err := s.ListGrants(t.Context(), newRequest("ListGrants"), &ListGrantsInput{KeyId: firstKey, GranteePrincipal: grantee, GrantId: g.GrantId})
		require.NoError(t, err)
		require.Equal(t, []GrantListEntry{g}, one.Grants)
		shown[g.GrantId] = g.GranteePrincipal + " " + g.RetiringPrincipal
	}
	return shown
}

// TestGrantsAreListedByWhoTheyAreFor makes grants to somebody and to another of the same name.
func TestGrantsAreListedByWhoTheyAreFor(t *testing.T) {
	p, s := newPeople(t)
	in := &CreateGrantInput{KeyId: firstKey, Name: "n", GranteePrincipal: alice, RetiringPrincipal: bob, Operations: []string{"DescribeKey"}}
	old := createGrant(t, s, in).GrantId
	require.Equal(t, old, createGrant(t, s, in).GrantId)
	p.ids = policy.Bindings{alice: "AIDAYOUNG", bob: "AIDABOB"}
	young := createGrant(t, s, in).GrantId
	require.NotEqual(t, old, young)
	require.NoError(t, s.describedBy(t, alice, "AIDAYOUNG"))
	require.NoError(t, s.describedBy(t, alice, "AIDAALICE"))
	p.ids = policy.Bindings{alice: "AIDAYOUNG", gone: "AIDABOB"}
	require.Equal(t, map[string]string{old: "AIDAALICE " + gone, young: alice + " " + gone}, grantsOfPeople(t, s, ""))
	require.Equal(t, map[string]string{young: alice + " " + gone}, grantsOfPeople(t, s, alice))
	require.Equal(t, map[string]string{old: "AIDAALICE " + gone}, grantsOfPeople(t, s, "AIDAALICE"))
	require.Empty(t, grantsOfPeople(t, s, bob), "nobody has this name")
	retirable := func(principal string) int {
		out, err := s.ListRetirableGrants(t.Context(), newRequest("ListRetirableGrants"), &ListRetirableGrantsInput{RetiringPrincipal: principal})
		require.NoError(t, err)
		return len(out.Grants)
	}
	require.Equal(t, 2, retirable(gone))
	require.Zero(t, retirable(bob))
	p.ids = policy.Bindings{bob: "AIDAOTHER"}
	require.Zero(t, retirable(bob))
	require.Equal(t, map[string]string{old: "AIDAALICE AIDABOB", young: "AIDAYOUNG AIDABOB"}, grantsOfPeople(t, s, ""))

	// The index of decisions, too: revoking the one leaves the other in force.
	_, err := s.RevokeGrant(t.Context(), newRequest("RevokeGrant"), &RevokeGrantInput{KeyId: firstKey, GrantId: old})
	require.NoError(t, err)
	require.NoError(t, s.describedBy(t, alice, "AIDAYOUNG"))
	require.Equal(t, AccessDenied, TypeOf(s.describedBy(t, alice, "AIDAALICE")))
	_, err = s.RetireGrant(t.Context(), by("RetireGrant", bob, "AIDAOTHER"), &RetireGrantInput{KeyId: s.arnOf(firstKey), GrantId: young})
	require.Equal(t, AccessDenied, TypeOf(err))
	_, err = s.RetireGrant(t.Context(), by("RetireGrant", gone, "AIDABOB"), &RetireGrantInput{KeyId: s.arnOf(firstKey), GrantId: young})
	require.NoError(t, err)
	requireNoGrantRecords(t, s)
}

// arnOf is the ARN of a key of testAccount.
func (*Service) arnOf(id string) string { return newTestKey(id).ARN() }

// oldGrant is a grant as versions without bindings wrote it.
func oldGrant(n int, grantee, retiring string) *Grant {
	return &Grant{Region: testRegion, Key: firstKey, Account: testAccount, Terms: policy.Grant{
		ID: fmt.Sprintf("%064x", n), Name: "n", IssuingAccount: testAccount, GranteePrincipal: grantee, RetiringPrincipal: retiring,
		Operations: []string{"Encrypt", "DescribeKey"}, EncryptionContextEquals: map[string]string{"a": "b"},
	}}
}

// TestUpgrade opens a store as versions without bindings left it. The first attempt is cut off.
func TestUpgrade(t *testing.T) {
	p, s := newPeople(t)
	text := named(`"` + alice + `","` + gone + `"`)
	put(t, s, newTestKey(firstKey, func(k *Key) { k.Policy = text }), newTestKey(secondKey))
	s.keys.Forget(keyRecord(testRegion, firstKey))
	grants := []*Grant{
		oldGrant(1, bob, ""), oldGrant(2, rootARN(otherAccount), bob), oldGrant(3, gone, gone), oldGrant(4, rootARN(otherAccount), rootARN(otherAccount)),
	}
	for _, g := range grants {
		require.NoError(t, s.update(t.Context(), func(tx *recorder) error { return tx.putGrant(g) }))
	}
	require.Error(t, s.describedBy(t, alice, "AIDAALICE"), "before it is known who is meant")
	left := 1
	whole := s.cfg.Principals.IDs
	s.cfg.Principals.IDs = func(ctx context.Context, arns []string) (policy.Bindings, error) {
		if left--; left < 0 {
			return nil, errors.New("cut off")
		}
		return whole(ctx, arns)
	}
	require.ErrorContains(t, s.Upgrade(t.Context()), "binding key policies and grants to principals: "+grants[0].record()+": cut off")
	left = 100
	require.NoError(t, s.Upgrade(t.Context()))
	require.Equal(t, 97, left, "what is bound is left alone")

	require.NoError(t, s.describedBy(t, alice, "AIDAALICE"))
	require.Equal(t, named(`"`+alice+`","`+policy.Nobody+`"`), shownPolicyOf(t, s))
	require.NoError(t, s.describedBy(t, bob, "AIDABOB"))
	p.ids[gone] = "AIDALATE"
	require.Equal(t, AccessDenied, TypeOf(s.describedBy(t, gone, "AIDALATE")), "who gets the name later is not meant")
	other := rootARN(otherAccount)
	require.Equal(t, map[string]string{
		grants[0].Terms.ID: bob + " ", grants[1].Terms.ID: other + " " + bob, grants[2].Terms.ID: policy.Nobody + " " + policy.Nobody, grants[3].Terms.ID: other + " " + other,
	}, grantsOfPeople(t, s, ""))
	require.Len(t, grantsOfPeople(t, s, bob), 1)
	require.Len(t, grantsOfPeople(t, s, other), 2)
	again := createGrant(t, s, &CreateGrantInput{
		KeyId: firstKey, Name: "n", GranteePrincipal: bob, Operations: []string{"Encrypt", "DescribeKey"},
		Constraints: &GrantConstraints{EncryptionContextEquals: map[string]string{"a": "b"}},
	})
	require.Equal(t, grants[0].Terms.ID, again.GrantId, "a grant is found by its name")
	for _, g := range grants { // which finds all entries, or leaves some
		_, err := s.RevokeGrant(t.Context(), newRequest("RevokeGrant"), &RevokeGrantInput{KeyId: firstKey, GrantId: g.Terms.ID})
		require.NoError(t, err)
	}
	requireNoGrantRecords(t, s)
	s.cfg.Principals.IDs = nil // it is done once
	require.NoError(t, s.Upgrade(t.Context()))
}

// TestUpgradeOfManyKeys has more records than are read at a time, and stops at one that can't be read.
func TestUpgradeOfManyKeys(t *testing.T) {
	_, s := newPeople(t)
	id := func(n int) string { return fmt.Sprintf("33333333-3333-4333-8333-%012d", n) }
	for n := range tasksAtOnce + 5 {
		put(t, s, newTestKey(id(n), func(k *Key) { k.Policy = named(`"` + alice + `"`) }))
	}
	last := id(tasksAtOnce + 5)
	put(t, s, newTestKey(last, func(k *Key) { k.Policy = "{" }))
	require.ErrorContains(t, s.Upgrade(t.Context()), keyRecord(testRegion, last)+": ")
	put(t, s, newTestKey(last))
	require.NoError(t, s.Upgrade(t.Context()))
	for n := range tasksAtOnce + 5 {
		key, err := s.live(t.Context(), testRegion, id(n))
		require.NoError(t, err)
		require.Equal(t, policy.Bindings{alice: "AIDAALICE"}, key.Principals)
	}
	s.cfg.Store = failingStore{Store: s.cfg.Store, err: store.ErrClosed}
	require.NoError(t, s.Upgrade(t.Context()), "nothing is written once it is done")
}

// TestNoPrincipals is a service that knows nobody, as it is without the setting.
func TestNoPrincipals(t *testing.T) {
	s := newService(t, vaultToken{}, func(c *Config) { c.Principals = Principals{}; c.Vault = hsm.Vault{Token: vaultToken{}} })
	put(t, s, newTestKey(firstKey))
	out, err := s.CreateGrant(t.Context(), newRequest("CreateGrant"), &CreateGrantInput{KeyId: firstKey, GranteePrincipal: alice, Operations: []string{"Encrypt"}})
	requireError(t, out, err, InvalidArn, "ARN does not refer to a valid principal: "+alice)
	createGrant(t, s, &CreateGrantInput{KeyId: firstKey, GranteePrincipal: rootARN(otherAccount), Operations: []string{"Encrypt"}})
}
