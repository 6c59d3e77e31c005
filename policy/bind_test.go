package policy

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// idOf is the unique id of an actor or its role, or one of nobody else, by the ARN; "" for accounts.
func idOf(arn string) string {
	if !NeedsBinding(arn) || arn == "" {
		return ""
	}
	for _, a := range actors {
		switch arn {
		case a.ARN:
			return a.UserID
		case a.RoleARN:
			return a.RoleID()
		}
	}
	return "AIDA-" + arn
}

// bind binds all principals of a policy by idOf.
func bind(p *Policy) *Policy {
	ids := Bindings{}
	for _, arn := range p.Unbound() {
		ids[arn] = idOf(arn)
	}
	return p.Bind(ids)
}

// bound is a grant with its principals bound by idOf.
func bound(g *Grant) *Grant {
	g.GranteeID, g.RetiringID = idOf(g.GranteePrincipal), idOf(g.RetiringPrincipal)
	return g
}

// again is an actor who was made again: the same by all names, but another.
func again(name string) *Caller {
	p := actors[name]
	if id, session, found := strings.Cut(p.UserID, ":"); found {
		p.UserID = id + "2:" + session
	} else {
		p.UserID += "2"
	}
	return &Caller{Principal: p}
}

// TestMadeAgain decides requests of the principals that documents and grants name, and of others with their names.
func TestMadeAgain(t *testing.T) {
	statement := func(effect, element, arns string) string {
		return `{"Effect":"` + effect + `","` + element + `":{"AWS":[` + arns + `]},"Action":"kms:*","Resource":"*"}`
	}
	everybody := statement("Allow", "Principal", `"*"`)
	for _, name := range []string{"alice", "admin", "fred"} {
		self, listed := `"`+actors[name].ARN+`"`, `"`+actors[name].ARN+`","`+ours+`"`
		tests := map[string]bool{ // key policies, and whether they are for whom they name
			statement("Allow", "Principal", self):                                 true,
			statement("Allow", "NotPrincipal", self):                              false,
			everybody + "," + statement("Deny", "Principal", self):                false,
			everybody + "," + statement("Deny", "NotPrincipal", listed):           true,
			everybody + "," + statement("Deny", "NotPrincipal", listed+","+`"*"`): true,
		}
		if role := actors[name].RoleARN; role != "" {
			delete(tests, everybody+","+statement("Deny", "NotPrincipal", listed))
			tests[statement("Allow", "Principal", `"`+role+`"`)] = true
			tests[everybody+","+statement("Deny", "Principal", `"`+role+`"`)] = false
			tests[everybody+","+statement("Deny", "NotPrincipal", listed+`,"`+role+`"`)] = true
		}
		for text, meant := range tests {
			p := load(t, KeyPolicy, `{"Statement":[`+text+`]}`)
			ask := func(c *Caller) bool {
				return DecideByKeyPolicy(&Request{Caller: c, Action: "kms:Decrypt", Resource: keyARN, Account: ours}, p, nil).Allowed
			}
			require.Equal(t, meant, ask(&Caller{Principal: actors[name]}), "%s: %s", name, text)
			stranger := ask(again(name))
			require.Equal(t, !meant || strings.HasSuffix(text, `"*"]},"Action":"kms:*","Resource":"*"}`), stranger, "%s made again: %s", name, text)
		}
		for _, arn := range []string{actors[name].ARN, actors[name].RoleARN} {
			if arn == "" {
				continue
			}
			g := bound(&Grant{GranteePrincipal: arn, RetiringPrincipal: arn, Operations: []string{"Decrypt"}})
			nobody := load(t, KeyPolicy, `{"Statement":[`+statement("Deny", "Principal", `"arn:aws:iam::`+ours+`:user/x"`)+`]}`)
			for caller, want := range map[*Caller]bool{{Principal: actors[name]}: true, again(name): false} {
				r := &Request{Caller: caller, Action: "kms:Decrypt", Resource: keyARN, Account: ours}
				require.Equal(t, want, DecideByKeyPolicy(r, nobody, []*Grant{g}).Allowed, "%s: %s", name, arn)
				require.Equal(t, want, g.retiredBy(&caller.Principal) > stranger)
			}
		}
	}
}

// TestUnbound decides nothing by policies that name principals who are not bound, or by grants to them.
func TestUnbound(t *testing.T) {
	alice, bob := actors["alice"], actors["bob"]
	const open = `{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"}`
	text := `{"Statement":[` + open + `,{"Effect":"Deny","Principal":{"AWS":["` + alice.ARN + `","` + ours + `","` + bob.ARN + `","*"]}},
		{"Effect":"Deny","NotPrincipal":{"AWS":"` + alice.ARN + `"}}]}`
	p, err := Load(KeyPolicy, text)
	require.NoError(t, err)
	require.Equal(t, []string{alice.ARN, bob.ARN}, p.Unbound())
	r := &Request{Caller: &Caller{Principal: actors["root"]}, Action: "kms:Decrypt", Resource: keyARN, Account: ours}
	half, whole := p.Bind(Bindings{alice.ARN: alice.UserID}), p.Bind(Bindings{alice.ARN: alice.UserID, bob.ARN: bob.UserID})
	require.Equal(t, []string{bob.ARN}, half.Unbound())
	require.Empty(t, whole.Unbound())
	require.Equal(t, []string{alice.ARN, bob.ARN}, p.Unbound(), "the first one stays as it is")
	for _, unbound := range []*Policy{p, half} {
		require.Equal(t, Decision{Reason: ResourceDenies}, DecideByKeyPolicy(r, unbound, nil))
		require.False(t, unbound.KeepsControl(r))
	}
	require.True(t, DecideByKeyPolicy(r, whole, nil).Allowed)
	require.True(t, whole.KeepsControl(r))

	trust, err := Load(TrustPolicy, `{"Statement":{"Effect":"Allow","Principal":{"AWS":["`+alice.ARN+`","*"]},"Action":"sts:*"}}`)
	require.NoError(t, err)
	assume := &Request{Caller: &Caller{Principal: alice}, Action: "sts:AssumeRole", Resource: actors["admin"].RoleARN, Account: ours}
	require.Equal(t, Decision{Reason: ResourceDenies}, DecideByTrust(assume, trust))
	require.True(t, DecideByTrust(assume, bind(trust)).Allowed)

	g := &Grant{GranteePrincipal: alice.ARN, RetiringPrincipal: alice.ARN, Operations: []string{"Decrypt"}}
	r.Caller = &Caller{Principal: alice}
	require.Zero(t, g.covers(r))
	require.Zero(t, g.retiredBy(&alice))
	require.Equal(t, himself, bound(g).covers(r))
}

func TestNeedsBinding(t *testing.T) {
	for _, a := range actors {
		require.Equal(t, a.Type != Root, NeedsBinding(a.ARN), a.ARN)
	}
	require.False(t, NeedsBinding(Everybody))
}

func TestRewrite(t *testing.T) {
	names := map[string]string{"arn:a": "AIDA1", "arn:b/c": `x"<`, "*": "never", "111122223333": "never"}
	delete(names, "*")
	delete(names, "111122223333")
	for text, want := range map[string]string{
		`{"Statement":{"Principal":{"AWS":"arn:a"}}}`:                                           `{"Statement":{"Principal":{"AWS":"AIDA1"}}}`,
		`{"Statement":{"Condition":{"x":{"y":[1e999,-0]}},"Principal":{"AWS":"arn:a"}}}`:        `{"Statement":{"Condition":{"x":{"y":[1e999,-0]}},"Principal":{"AWS":"AIDA1"}}}`,
		` { "Statement" : [ {"NotPrincipal" :{ "AWS" :[ "arn:x" ,` + "\n\t" + `"arn:a"]}} ] } `: ` { "Statement" : [ {"NotPrincipal" :{ "AWS" :[ "arn:x" ,` + "\n\t" + `"AIDA1"]}} ] } `,
		`{"Statement":[{"Principal":{"AWS":["arn\u003aa","arn:b\/c","arn:a"]}}]}`:               `{"Statement":[{"Principal":{"AWS":["AIDA1","x\"\u003c","AIDA1"]}}]}`,
	} {
		got, err := rewrite(text, names)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, text := range []string{
		`{"Id":"arn:a","Version":"arn:a","Statement":[{"Sid":"arn:a","Principal":"arn:a","Resource":["arn:a"],"Action":"arn:a","Condition":{"ArnLike":{"aws:PrincipalArn":["arn:a",1.50,true,null]}}}]}`,
		`{"Statement":{"Principal":{"Service":"arn:a","Federated":["arn:a"],"arn:a":{"AWS":"arn:a"}}}}`,
		`{"AWS":"arn:a","Principal":{"AWS":"arn:a"}}`,
	} {
		got, err := rewrite(text, names)
		require.NoError(t, err)
		require.Equal(t, text, got)
	}
	for _, text := range []string{"", "{", `{"Statement":{"Principal":{"AWS":["arn:a"`} {
		_, err := rewrite(text, names)
		require.Error(t, err, text)
	}
}

// rewritten holds rewrite to what it promises, for a text that is a policy: nothing to rename leaves it as it is, and each
// principal gets its new name while all else says the same.
func rewritten(t testing.TB, text string, d *Document) {
	t.Helper()
	same, err := rewrite(text, nil)
	require.NoError(t, err)
	require.Equal(t, text, same)
	const other = "arn:aws:iam::" + theirs + ":user/other"
	names := map[string]string{}
	for i := range d.Statements {
		for _, arn := range d.Statements[i].Principals.AWS {
			names[arn] = other
		}
	}
	delete(names, Everybody)
	delete(names, rootARN(ours)) // may be written as an account
	changed, err := rewrite(text, names)
	require.NoError(t, err)
	require.True(t, json.Valid([]byte(changed)))
	read, err := loaded(d.Kind, changed)
	require.NoError(t, err, changed)
	for i := range d.Statements {
		for j, arn := range read.Statements[i].Principals.AWS {
			if was := d.Statements[i].Principals.AWS[j]; arn != was {
				require.Equal(t, other, arn)
				read.Statements[i].Principals.AWS[j] = was
			}
		}
	}
	sortAll(read)
	sorted := *d
	sortAll(&sorted)
	require.Equal(t, &sorted, read)
}

// sortAll puts conditions in one order.
func sortAll(d *Document) {
	for i := range d.Statements {
		sortConditions(d.Statements[i].Conditions)
	}
}
