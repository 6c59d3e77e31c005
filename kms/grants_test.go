package kms

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/policy"
	"hsmkms/store"
)

// vaultToken seals grant tokens without a token.
type vaultToken struct{ fakeToken }

func (vaultToken) Encrypt(_ context.Context, _ hsm.Sealing, plaintext []byte) (hsm.Sealed, error) {
	return hsm.Sealed{Data: append([]byte("0123456789abcdef"), plaintext...)}, nil
}

func (vaultToken) Decrypt(_ context.Context, o hsm.Opening) ([]byte, error) {
	if !strings.HasPrefix(string(o.Sealed.Data), "0123456789abcdef") {
		return nil, &hsm.Error{Class: hsm.BadInput}
	}
	return o.Sealed.Data[16:], nil
}

func (vaultToken) DestroyKey(context.Context, hsm.KeyRef) error { return nil }

func newGrantService(t *testing.T, edits ...func(*Config)) *Service {
	t.Helper()
	return newService(t, vaultToken{}, append(edits, func(c *Config) { c.Vault = hsm.Vault{Token: vaultToken{}} })...)
}

// userRequest is a request of a user of testAccount without policies.
func userRequest(operation, name string) *Request {
	r := newRequest(operation)
	arn := "arn:aws:iam::" + testAccount + ":user/" + name
	r.Caller = &policy.Caller{Principal: policy.Principal{Type: policy.IAMUser, ARN: arn, UserID: idOf(arn), Account: testAccount}}
	return r
}

func createGrant(t *testing.T, s *Service, in *CreateGrantInput) *CreateGrantOutput {
	t.Helper()
	out, err := s.CreateGrant(t.Context(), newRequest("CreateGrant"), in)
	require.NoError(t, err)
	return out
}

// describe asks for firstKey as a user whom only a grant can allow it.
func describe(t *testing.T, s *Service, name string, tokens ...string) error {
	t.Helper()
	_, err := s.DescribeKey(t.Context(), userRequest("DescribeKey", name), &DescribeKeyInput{KeyId: firstKey, GrantTokens: tokens})
	return err
}

// anyContext is one of a small world of contexts, in which many meet.
func anyContext(random *rand.Rand, most int) map[string]string {
	context := map[string]string{}
	for range random.IntN(most + 1) {
		context[[]string{"a", "A", "b", "k", "\u212A", "s", "\u017F"}[random.IntN(7)]] = []string{"1", "2"}[random.IntN(2)]
	}
	return context
}

func anyGrant(random *rand.Rand, n int) *Grant {
	g := &Grant{Region: testRegion, Key: firstKey, Account: testAccount, Terms: policy.Grant{
		ID: fmt.Sprintf("%064x", n), IssuingAccount: testAccount, GranteePrincipal: "arn:aws:iam::" + testAccount + ":user/u",
		GranteeID: idOf("arn:aws:iam::" + testAccount + ":user/u"),
	}}
	for _, operation := range []string{"Encrypt", "Decrypt", "DescribeKey", "CreateGrant"} {
		if random.IntN(2) == 0 {
			g.Terms.Operations = append(g.Terms.Operations, operation)
		}
	}
	if random.IntN(2) == 0 {
		g.Terms.EncryptionContextEquals = anyContext(random, 3)
	}
	if random.IntN(2) == 0 {
		g.Terms.EncryptionContextSubset = anyContext(random, 2)
	}
	return g
}

// TestIndexFindsWhatAllows compares decisions with the grants that the index finds with those with all grants there are.
func TestIndexFindsWhatAllows(t *testing.T) {
	s := newGrantService(t)
	random := rand.New(rand.NewPCG(1, 2))
	put(t, s, newTestKey(firstKey))
	key, err := s.live(t.Context(), testRegion, firstKey)
	require.NoError(t, err)
	silent, err := policy.Compile(&policy.Document{Kind: policy.KeyPolicy})
	require.NoError(t, err)
	allowed, denied := 0, 0
	for round := range 150 {
		var all []*policy.Grant
		var records []string
		require.NoError(t, s.update(t.Context(), func(tx *recorder) error {
			all, records = nil, nil
			for n := range random.IntN(5) {
				g := anyGrant(random, round*10+n)
				all, records = append(all, &g.Terms), append(records, g.record())
				if err := tx.putGrant(g); err != nil {
					return err
				}
			}
			return nil
		}))
		for range 40 {
			request := &policy.Request{Caller: userRequest("", "u").Caller, Resource: key.ARN(), Account: testAccount}
			switch request.Action = []string{"kms:Encrypt", "kms:Decrypt", "kms:DescribeKey", "kms:CreateGrant"}[random.IntN(4)]; request.Action {
			case "kms:CreateGrant":
				request.NewGrant = &anyGrant(random, 0).Terms
				_, _, possible := (&Grant{Terms: *request.NewGrant}).shape()
				if !possible { // it could never be used
					continue
				}
			case "kms:Encrypt", "kms:Decrypt":
				request.EncryptionContext = anyContext(random, 3)
			}
			found, err := s.grantsTo(t.Context(), request, key, nil)
			require.NoError(t, err)
			want, got := policy.DecideByKeyPolicy(request, silent, all), policy.DecideByKeyPolicy(request, silent, found)
			require.Equal(t, want.Allowed, got.Allowed, "%v %v", request, all)
			if want.Allowed {
				allowed++
			} else {
				denied++
			}
		}
		require.NoError(t, s.update(t.Context(), func(tx *recorder) error {
			for _, record := range records {
				if err := tx.removeGrant(record); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	require.Greater(t, allowed, 500)
	require.Greater(t, denied, 500)
	requireNoGrantRecords(t, s)
}

// requireNoGrantRecords checks that grants have left nothing behind.
func requireNoGrantRecords(t *testing.T, s *Service) {
	t.Helper()
	for _, prefix := range []string{grantPrefix, granteePrefix, grantedPrefix, retiringPrefix, grantNamePrefix, grantCountPrefix} {
		left, err := s.some(t.Context(), prefix, "", "", 10)
		require.NoError(t, err)
		require.Empty(t, left)
	}
}

func TestShapesAreBounded(t *testing.T) {
	s := newGrantService(t)
	put(t, s, newTestKey(firstKey))
	in := func(n int) *CreateGrantInput {
		return &CreateGrantInput{
			KeyId: firstKey, GranteePrincipal: rootARN(otherAccount), Operations: []string{"Encrypt"},
			Constraints: &GrantConstraints{EncryptionContextSubset: map[string]string{fmt.Sprint("key", n): "x"}},
		}
	}
	for n := range maxShapes {
		createGrant(t, s, in(n))
	}
	createGrant(t, s, in(1)) // a shape that there is
	out, err := s.CreateGrant(t.Context(), newRequest("CreateGrant"), in(maxShapes))
	requireError(t, out, err, LimitExceeded, "The grants of a key to a principal may have constraints on 100 different sets of keys of the encryption context.")
}

func TestGrantsOfAKeyAreBounded(t *testing.T) {
	s := newGrantService(t)
	put(t, s, newTestKey(firstKey))
	require.NoError(t, s.update(t.Context(), func(tx *recorder) error {
		return tx.put(grantCounter(testRegion, firstKey), &grantCount{maxGrants - 1})
	}))
	in := &CreateGrantInput{KeyId: firstKey, GranteePrincipal: rootARN(otherAccount), Operations: []string{"Encrypt"}}
	made := createGrant(t, s, in)
	out, err := s.CreateGrant(t.Context(), newRequest("CreateGrant"), in)
	requireError(t, out, err, LimitExceeded, "The key has the maximum number of grants, 50000.")
	_, err = s.RevokeGrant(t.Context(), newRequest("RevokeGrant"), &RevokeGrantInput{KeyId: firstKey, GrantId: made.GrantId})
	require.NoError(t, err)
	createGrant(t, s, in)
}

// TestGrantsGoWithTheirKey ends a key with more grants than one transaction removes.
func TestGrantsGoWithTheirKey(t *testing.T) {
	s := newGrantService(t)
	put(t, s, newTestKey(firstKey), newTestKey(secondKey))
	for n := range 40 {
		in := &CreateGrantInput{
			KeyId: firstKey, GranteePrincipal: fmt.Sprintf("arn:aws:iam::%s:user/u%d", testAccount, n%3), Name: fmt.Sprint("n", n), RetiringPrincipal: rootARN(otherAccount),
			Operations: []string{"Encrypt", "DescribeKey"}, Constraints: &GrantConstraints{EncryptionContextEquals: map[string]string{"n": fmt.Sprint(n)}},
		}
		createGrant(t, s, in)
	}
	require.NoError(t, describe(t, s, "u1"))
	kept := createGrant(t, s, &CreateGrantInput{KeyId: secondKey, GranteePrincipal: rootARN(otherAccount), Operations: []string{"Encrypt"}})
	require.NoError(t, s.update(t.Context(), func(tx *recorder) error {
		if err := tx.remove(keyRecord(testRegion, firstKey)); err != nil {
			return err
		}
		return tx.doom(testRegion, firstKey, doom{Key: firstKey, Account: testAccount})
	}))
	require.NoError(t, s.complete(t.Context(), doomName{testRegion, firstKey}))
	out, err := s.ListGrants(t.Context(), newRequest("ListGrants"), &ListGrantsInput{KeyId: secondKey})
	require.NoError(t, err)
	require.Len(t, out.Grants, 1)
	require.Equal(t, kept.GrantId, out.Grants[0].GrantId)
	// Even a key of the same id, which there never is, would not have them.
	put(t, s, newTestKey(firstKey))
	s.keys.Forget(keyRecord(testRegion, firstKey))
	require.Equal(t, AccessDenied, TypeOf(describe(t, s, "u1")))
	_, err = s.RevokeGrant(t.Context(), newRequest("RevokeGrant"), &RevokeGrantInput{KeyId: secondKey, GrantId: kept.GrantId})
	require.NoError(t, err)
	requireNoGrantRecords(t, s)
}

// deafStore never tells of the changes of others.
type deafStore struct{ store.Store }

func (deafStore) Watch(ctx context.Context, _ string, _ func(), _ func([]store.Change) error) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestGrantTokensOnAnotherServer makes a grant on one server, and uses it on another that has not heard of it.
func TestGrantTokensOnAnotherServer(t *testing.T) {
	one := newGrantService(t)
	put(t, one, newTestKey(firstKey))
	another, err := New(Config{Store: deafStore{one.cfg.Store}, Regions: one.cfg.Regions, Vault: one.cfg.Vault})
	require.NoError(t, err)
	defer another.Close()
	require.Equal(t, AccessDenied, TypeOf(describe(t, another, "u")))
	made := createGrant(t, one, &CreateGrantInput{KeyId: firstKey, GranteePrincipal: "arn:aws:iam::" + testAccount + ":user/u", Operations: []string{"DescribeKey"}})
	require.NoError(t, describe(t, one, "u"), "without the token")
	require.Equal(t, AccessDenied, TypeOf(describe(t, another, "u")), "the cache of the other does not know")
	require.NoError(t, describe(t, another, "u", made.GrantToken))
	require.Equal(t, AccessDenied, TypeOf(describe(t, another, "v", made.GrantToken)), "the token is for the grantee")
	_, err = one.RevokeGrant(t.Context(), newRequest("RevokeGrant"), &RevokeGrantInput{KeyId: firstKey, GrantId: made.GrantId})
	require.NoError(t, err)
	require.Equal(t, AccessDenied, TypeOf(describe(t, another, "u", made.GrantToken)))
	require.Equal(t, AccessDenied, TypeOf(describe(t, one, "u")))
	for _, forged := range []string{"x", "!", made.GrantToken + "\n", ""} {
		require.Equal(t, InvalidGrantToken, TypeOf(describe(t, one, "u", forged)), "%q", forged)
	}
}

// TestSealedByOthersIsNoGrantToken takes no other secret of the vault for a grant token.
func TestSealedByOthersIsNoGrantToken(t *testing.T) {
	s := newGrantService(t)
	put(t, s, newTestKey(firstKey))
	sealed, err := s.cfg.Vault.Seal(t.Context(), grantTokenName, []byte(keyRecord(testRegion, firstKey)))
	require.NoError(t, err)
	_, err = s.openGrantToken(t.Context(), base64.RawURLEncoding.EncodeToString(sealed))
	require.Equal(t, InvalidGrantToken, TypeOf(err))
}

// blindStore fails to read what has a prefix.
type blindStore struct {
	store.Store
	prefix *string
}

var errUnreadable = errors.New("unreadable")

type blindReader struct {
	store.Reader
	prefix string
}

func (s blindStore) View(ctx context.Context, fn func(store.Reader) error) error {
	return s.Store.View(ctx, func(r store.Reader) error { return fn(blindReader{r, *s.prefix}) })
}

func (r blindReader) Get(key string) ([]byte, bool, error) {
	if r.prefix != "" && strings.HasPrefix(key, r.prefix) {
		return nil, false, errUnreadable
	}
	return r.Reader.Get(key)
}

func (r blindReader) Scan(prefix, after string, fn func(string, []byte) bool) error {
	if r.prefix != "" && strings.HasPrefix(prefix, r.prefix) {
		return errUnreadable
	}
	return r.Reader.Scan(prefix, after, fn)
}

// TestUnreadableDenies makes each record unreadable that a decision depends on. Nothing is allowed, and nothing said of why.
func TestUnreadableDenies(t *testing.T) {
	prefix := ""
	s := newGrantService(t, func(c *Config) { c.Store = blindStore{c.Store, &prefix} })
	conditioned := func(effect string) string {
		return `{"Statement":[{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"` + effect + `}]}`
	}
	condition := `,"Condition":{"ForAllValues:StringEquals":{"kms:ResourceAliases":"alias/x"}}`
	for name, test := range map[string]struct{ policy, prefix string }{
		"the key":                        {conditioned(""), keyPrefix},
		"aliases, for an Allow":          {conditioned(condition), keyAliasPrefix},
		"aliases, for a Deny":            {conditioned(condition + `},{"Effect":"Deny","Principal":"*","Action":"kms:*","Resource":"*","Condition":{"StringLike":{"kms:ResourceAliases":"alias/y"}}`), keyAliasPrefix},
		"grants":                         {defaultPolicy(otherAccount), grantedPrefix},
		"a policy that cannot be parsed": {`{"Statement":[{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*","Condition":{"StringNever":{"a":"b"}}}]}`, ""},
		"a policy that is not JSON":      {"{", ""},
		"no policy":                      {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			prefix = ""
			put(t, s, newTestKey(firstKey, func(k *Key) { k.Policy = test.policy }))
			s.keys.Forget(keyRecord(testRegion, firstKey))
			if test.prefix == "" {
				require.Equal(t, InternalError, TypeOf(describe(t, s, "u")))
				return
			}
			want := ErrorType("")
			if test.prefix == grantedPrefix {
				want = AccessDenied
			}
			require.Equal(t, want, TypeOf(describe(t, s, "u")), "while all can be read")
			s.keys.Forget(keyRecord(testRegion, firstKey))
			s.shapes.Forget(grantedTo(testRegion, firstKey, userRequest("", "u").Caller.UserID) + "a/b/c/d")
			prefix = test.prefix
			require.ErrorIs(t, describe(t, s, "u"), errUnreadable)
			require.Equal(t, InternalError, TypeOf(describe(t, s, "u")))
		})
	}
}

// TestEntryWithoutGrantDenies finds an entry of the index whose grant is not there.
func TestEntryWithoutGrantDenies(t *testing.T) {
	s := newGrantService(t)
	put(t, s, newTestKey(firstKey))
	g := anyGrant(rand.New(rand.NewPCG(3, 4)), 1)
	g.Terms.Operations = []string{"DescribeKey"}
	require.NoError(t, s.update(t.Context(), func(tx *recorder) error { return tx.putGrant(g) }))
	require.NoError(t, describe(t, s, "u"))
	require.NoError(t, s.update(t.Context(), func(tx *recorder) error { return tx.remove(g.record()) }))
	s.shapes.Forget(g.indexEntries()...)
	require.Equal(t, InternalError, TypeOf(describe(t, s, "u")))
}
