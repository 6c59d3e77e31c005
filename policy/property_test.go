package policy

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// world is a random request with random policies and grants. They are drawn from few words, so that they meet often.
type world struct {
	key       Document
	identity  []Document
	boundary  []Document // none or one
	session   []Document
	grants    []*Grant
	principal Principal
	request   Request
}

// source draws random things.
type source struct{ *rand.Rand }

func pick[T any](s source, from ...T) T { return from[s.IntN(len(from))] }

// some draws one to three things.
func some[T any](s source, from ...T) []T {
	list := make([]T, 1+s.IntN(3))
	for i := range list {
		list[i] = pick(s, from...)
	}
	return list
}

func (s source) oneIn(n int) bool { return s.IntN(n) == 0 }

func (s source) condition() Condition {
	c := Condition{Quantifier: pick(s, "", "", ForAllValues, ForAnyValue), IfExists: s.oneIn(4)}
	switch s.IntN(5) {
	case 0:
		c.Operator, c.Values = pick(s, "Bool", "Null"), some(s, "true", "false")
		c.Key, c.IfExists = pick(s, "aws:SecureTransport", "kms:ViaService"), false
	case 1:
		c.Operator, c.Values = pick(s, "IpAddress", "NotIpAddress"), some(s, "10.0.0.0/8", "10.1.0.0/16", "192.0.2.1")
		c.Key = "aws:SourceIp"
	case 2:
		c.Operator, c.Values = pick(s, "ArnLike", "ArnNotEquals"), some(s, actors["alice"].ARN, "arn:aws:iam::*:role/*", "*")
		c.Key = "aws:PrincipalArn"
	case 3:
		c.Operator, c.Values = pick(s, "NumericLessThan", "NumericGreaterThanEquals", "NumericNotEquals"), some(s, "1", "30", "90")
		c.Key = "kms:RotationPeriodInDays"
	default:
		c.Operator = pick(s, "StringEquals", "StringNotEquals", "StringLike", "StringNotLike", "StringEqualsIgnoreCase")
		c.Key = pick(s, "kms:ViaService", "aws:TagKeys", "kms:EncryptionContext:a", "kms:EncryptionContextKeys", "aws:PrincipalTag/team")
		c.Values = some(s, "a", "A", "b*", "${aws:username}", "${aws:PrincipalTag/team, 'a'}")
	}
	return c
}

func (s source) statement(effect Effect, kind Kind) Statement {
	st := Statement{
		Effect:    effect,
		Actions:   Patterns{Except: s.oneIn(6), List: some(s, "kms:Decrypt", "kms:*", "KMS:de*", "kms:Encrypt")},
		Resources: Patterns{Except: s.oneIn(8), List: some(s, "*", "*", keyARN, "arn:aws:kms:*:*:key/2*")},
	}
	if kind != IdentityPolicy {
		st.Principals = Principals{Except: s.oneIn(6), AWS: some(s, Everybody, rootARN(ours), rootARN(theirs), actors["alice"].ARN, actors["admin"].ARN,
			actors["admin"].RoleARN, actors["bob"].ARN)}
	}
	for !s.oneIn(2) {
		st.Conditions = append(st.Conditions, s.condition())
	}
	return st
}

// document draws a document of zero to three statements, of which about one in six denies.
func (s source) document(kind Kind) Document {
	d := Document{Kind: kind, Version: pick(s, Version2008, Version2012)}
	for range s.IntN(4) {
		effect := Allow
		if s.oneIn(6) {
			effect = Deny
		}
		d.Statements = append(d.Statements, s.statement(effect, kind))
	}
	return d
}

func (s source) documents(atMost int) []Document {
	var all []Document
	for range s.IntN(atMost + 1) {
		all = append(all, s.document(IdentityPolicy))
	}
	return all
}

func (s source) grant() *Grant {
	g := &Grant{
		GranteePrincipal: pick(s, actors["alice"].ARN, actors["admin"].ARN, actors["admin"].RoleARN, rootARN(ours), rootARN(theirs)),
		Operations:       some(s, "Decrypt", "Encrypt", "DescribeKey"),
	}
	if s.oneIn(2) {
		g.EncryptionContextSubset = map[string]string{"a": pick(s, "a", "b")}
	}
	return bound(g)
}

func (s source) world() *world {
	values := &textValues{values: map[string]string{"aws:SourceIp": pick(s, "10.1.2.3", "192.0.2.1"), "aws:SecureTransport": pick(s, "true", "false")}}
	for name, list := range map[string][]string{"kms:ViaService": {"a", "bc"}, "aws:TagKeys": {"[a|A]", "[bx]", "[]"}, "kms:RotationPeriodInDays": {"1", "100"}} {
		if s.oneIn(2) {
			values.values[name] = pick(s, list...)
		}
	}
	w := &world{
		key: s.document(KeyPolicy), identity: s.documents(2), boundary: s.documents(1), session: s.documents(1),
		principal: actors[pick(s, "root", "alice", "admin", "bob", "eve", "visitor", "theirsroot")],
		request:   Request{Action: pick(s, "kms:Decrypt", "kms:Encrypt"), Resource: keyARN, Account: ours, Values: values},
	}
	if s.oneIn(2) {
		w.principal.Tags = map[string]string{"team": pick(s, "a", "b")}
	}
	if s.oneIn(2) {
		w.request.EncryptionContext = map[string]string{pick(s, "a", "A", "b"): pick(s, "a", "b"), "c": "d"}
	}
	for range s.IntN(3) {
		w.grants = append(w.grants, s.grant())
	}
	return w
}

func compileAll(t testing.TB, documents []Document) []*Policy {
	t.Helper()
	var all []*Policy
	for i := range documents {
		p, err := Compile(&documents[i])
		require.NoError(t, err)
		all = append(all, bind(p))
	}
	return all
}

func (w *world) decide(t testing.TB) Decision {
	t.Helper()
	caller := &Caller{Principal: w.principal, Identity: compileAll(t, w.identity), Session: compileAll(t, w.session)}
	if w.boundary != nil {
		caller.Boundary = compileAll(t, w.boundary)[0]
	}
	r := w.request
	r.Caller = caller
	return DecideByKeyPolicy(&r, compileAll(t, []Document{w.key})[0], w.grants)
}

// extend puts a statement into one of the documents, or in place of a missing identity-based policy.
func (w *world) extend(s source, effect Effect) *world {
	other := *w
	lists := map[string]*[]Document{"identity": &other.identity, "boundary": &other.boundary, "session": &other.session}
	where := pick(s, "key", "identity", "boundary", "session")
	at := func(d *Document) { // anywhere among its statements
		d.Statements = slices.Insert(slices.Clone(d.Statements), s.IntN(len(d.Statements)+1), s.statement(effect, d.Kind))
	}
	if list := lists[where]; list != nil && len(*list) > 0 {
		*list = slices.Clone(*list)
		at(&(*list)[s.IntN(len(*list))])
		return &other
	}
	if where == "identity" {
		other.identity = []Document{{Kind: IdentityPolicy, Version: Version2012, Statements: []Statement{s.statement(effect, IdentityPolicy)}}}
		return &other
	}
	at(&other.key)
	return &other
}

func (w *world) shuffled(s source) *world {
	other := *w
	statements := func(d *Document) {
		d.Statements = slices.Clone(d.Statements)
		s.Shuffle(len(d.Statements), func(i, j int) { d.Statements[i], d.Statements[j] = d.Statements[j], d.Statements[i] })
	}
	statements(&other.key)
	for _, list := range []*[]Document{&other.identity, &other.boundary, &other.session} {
		*list = slices.Clone(*list)
		s.Shuffle(len(*list), func(i, j int) { (*list)[i], (*list)[j] = (*list)[j], (*list)[i] })
		for i := range *list {
			statements(&(*list)[i])
		}
	}
	other.grants = slices.Clone(w.grants)
	s.Shuffle(len(other.grants), func(i, j int) { other.grants[i], other.grants[j] = other.grants[j], other.grants[i] })
	return &other
}

// TestProperties holds thousands of random worlds to what must be true of all: a Deny more never allows more, an Allow or a
// grant more never allows less, and no order matters.
func TestProperties(t *testing.T) {
	const worlds = 5_000
	outcomes := map[[2]bool]int{} // of worlds before and after a change
	for seed := range uint64(worlds) {
		s := source{rand.New(rand.NewPCG(seed, 1))}
		w := s.world()
		before := w.decide(t)

		denying := w.extend(s, Deny).decide(t)
		require.False(t, denying.Allowed && !before.Allowed, "seed %d: a Deny allows", seed)
		outcomes[[2]bool{before.Allowed, denying.Allowed}]++

		allowing := w.extend(s, Allow).decide(t)
		require.False(t, before.Allowed && !allowing.Allowed, "seed %d: an Allow denies", seed)
		outcomes[[2]bool{before.Allowed, allowing.Allowed}]++

		granted := *w
		granted.grants = append(slices.Clone(w.grants), s.grant())
		require.False(t, before.Allowed && !granted.decide(t).Allowed, "seed %d: a grant denies", seed)

		shuffled := w.shuffled(s).decide(t)
		require.Equal(t, before.Allowed, shuffled.Allowed, "seed %d", seed)
		require.Equal(t, before.Reason, shuffled.Reason, "seed %d", seed)
		require.Equal(t, before.Grant != nil, shuffled.Grant != nil, "seed %d", seed)
	}
	for _, outcome := range [][2]bool{{true, true}, {true, false}, {false, true}, {false, false}} {
		require.Greater(t, outcomes[outcome], worlds/100, "%v hardly ever happened", outcome)
	}
}
