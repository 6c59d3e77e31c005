package policy

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	ours   = "111122223333"
	theirs = "444455556666"
	keyARN = "arn:aws:kms:us-east-1:" + ours + ":key/11111111-1111-4111-8111-111111111111"
)

// actors are the principals of the cases. theirsroot, eve and visitor are of another account than the key is.
var actors = map[string]Principal{
	"root":  {Type: Root, Account: ours, ARN: rootARN(ours), UserID: ours},
	"alice": {Type: IAMUser, Account: ours, ARN: "arn:aws:iam::" + ours + ":user/team/alice", UserName: "alice", UserID: "AIDAALICE"},
	"bob":   {Type: IAMUser, Account: ours, ARN: "arn:aws:iam::" + ours + ":user/bob", UserName: "bob", UserID: "AIDABOB"},
	"admin": {
		Type: AssumedRole, Account: ours, ARN: "arn:aws:sts::" + ours + ":assumed-role/admin/s1", RoleARN: "arn:aws:iam::" + ours + ":role/ops/admin",
		UserID: "AROAADMIN:s1", Issued: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), SourceIdentity: "alice",
	},
	"fred":       {Type: FederatedUser, Account: ours, ARN: "arn:aws:sts::" + ours + ":federated-user/fred", UserID: ours + ":fred"},
	"theirsroot": {Type: Root, Account: theirs, ARN: rootARN(theirs), UserID: theirs},
	"eve":        {Type: IAMUser, Account: theirs, ARN: "arn:aws:iam::" + theirs + ":user/eve", UserName: "eve", UserID: "AIDAEVE"},
	"visitor": {
		Type: AssumedRole, Account: theirs, ARN: "arn:aws:sts::" + theirs + ":assumed-role/visitor/v1", RoleARN: "arn:aws:iam::" + theirs + ":role/visitor",
		UserID: "AROAVISITOR:v1", Issued: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	},
}

// handles are what the cases write for ARNs and accounts.
var handles = strings.NewReplacer(
	"@admin-role", actors["admin"].RoleARN, "@visitor-role", actors["visitor"].RoleARN, "@theirsroot", rootARN(theirs), "@root", rootARN(ours),
	"@alice", actors["alice"].ARN, "@bob", actors["bob"].ARN, "@admin", actors["admin"].ARN, "@fred", actors["fred"].ARN, "@eve", actors["eve"].ARN,
	"@visitor", actors["visitor"].ARN, "@key", keyARN, "@ours", ours, "@theirs", theirs,
)

// scenario is what some requests have in common: policies and grants, each as the file has them.
type scenario struct {
	title, way, version                    string
	key, trust, identity, boundary, limits []string
	grants                                 []string
	requests                               []string
}

// loadScenarios reads all files of cases; see testdata/README.md for their form. It fails if there is none, and if a
// scenario does not show both what is allowed and what is not.
func loadScenarios(t testing.TB) []*scenario {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	var all []*scenario
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		before := len(all)
		for number, line := range strings.Split(string(text), "\n") {
			word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
			where := fmt.Sprintf("%s:%d", filepath.Base(file), number+1)
			switch {
			case word == "" || strings.HasPrefix(word, "#"):
			case word == "==":
				all = append(all, &scenario{title: where + ": " + rest, way: "key", version: string(Version2012)})
			default:
				require.Greater(t, len(all), before, where)
				require.True(t, all[len(all)-1].add(word, handles.Replace(rest), where), "%s: unknown word %s", where, word)
			}
		}
	}
	require.NotEmpty(t, all, "no cases were loaded")
	for _, s := range all {
		for _, verdict := range []string{"allow", "deny"} {
			require.True(t, slices.ContainsFunc(s.requests, func(r string) bool { return strings.Contains(r, " "+verdict+" ") }), "%s: nothing to %s", s.title, verdict)
		}
	}
	return all
}

func (s *scenario) add(word, rest, where string) bool {
	lists := map[string]*[]string{"key": &s.key, "trust": &s.trust, "identity": &s.identity, "boundary": &s.boundary, "session": &s.limits, "grant": &s.grants}
	switch list := lists[word]; {
	case list != nil:
		*list = append(*list, rest)
	case word == "by":
		s.way = rest
	case word == "version":
		s.version = rest
	case word == "allow" || word == "deny":
		s.requests = append(s.requests, where+" "+word+" "+rest)
	default:
		return false
	}
	return true
}

// compile makes a policy of statements.
func (s *scenario) compile(t testing.TB, kind Kind, statements []string) *Policy {
	t.Helper()
	text := `{"Version":"` + s.version + `","Statement":[` + strings.Join(statements, ",") + `]}`
	p, err := Load(kind, text)
	require.NoError(t, err, "%s: %s", s.title, text)
	return bind(p)
}

// documents makes a policy of each statement.
func (s *scenario) documents(t testing.TB, statements []string) []*Policy {
	t.Helper()
	var all []*Policy
	for _, statement := range statements {
		all = append(all, s.compile(t, IdentityPolicy, []string{statement}))
	}
	return all
}

// reversed is the scenario with everything in the opposite order.
func (s *scenario) reversed() *scenario {
	other := *s
	for _, list := range []*[]string{&other.key, &other.trust, &other.identity, &other.boundary, &other.limits, &other.grants} {
		*list = slices.Clone(*list)
		slices.Reverse(*list)
	}
	return &other
}

// textValues are the Values of a case.
type textValues struct{ values, requestTags, resourceTags map[string]string }

func (v *textValues) Value(key ConditionKey, name string) Value {
	switch key {
	case KeyRequestTag:
		return Member(v.requestTags, name)
	case KeyResourceTag:
		return Member(v.resourceTags, name)
	}
	value, ok := v.values[key.String()]
	if !ok {
		return Value{}
	}
	if list, ok := strings.CutPrefix(value, "["); ok {
		return Texts(strings.FieldsFunc(strings.TrimSuffix(list, "]"), func(r rune) bool { return r == '|' }))
	}
	if key == KeyCurrentTime || key == KeyValidTo {
		moment, err := time.Parse(time.RFC3339, value)
		if err != nil {
			return Value{}
		}
		return Moment(moment)
	}
	return Text(value)
}

// put enters a value into a map, which it makes.
func put(m *map[string]string, key, value string) {
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[key] = value
}

// grantOf makes a grant of words such as operations=Encrypt,Decrypt.
func grantOf(t testing.TB, words []string) *Grant {
	t.Helper()
	g := &Grant{}
	for _, word := range words {
		name, value, _ := strings.Cut(word, "=")
		family, member, _ := strings.Cut(name, "/")
		switch family {
		case "id":
			g.ID = value
		case "grantee":
			g.GranteePrincipal = value
		case "retiring":
			g.RetiringPrincipal = value
		case "operations":
			g.Operations = strings.Split(value, ",")
		case "equals":
			put(&g.EncryptionContextEquals, member, value)
		case "subset":
			put(&g.EncryptionContextSubset, member, value)
		default:
			require.Fail(t, "unknown word", word)
		}
	}
	return bound(g)
}

// request makes a request of a caller, an action and words such as aws:SourceIp=10.0.0.1.
func (s *scenario) request(t testing.TB, words []string) *Request {
	t.Helper()
	require.GreaterOrEqual(t, len(words), 2, s.title)
	principal, known := actors[words[0]]
	require.True(t, known, "%s: unknown caller %s", s.title, words[0])
	caller := &Caller{Principal: principal}
	values := &textValues{values: map[string]string{}}
	r := &Request{Caller: caller, Action: words[1], Resource: keyARN, Account: ours, Values: values}
	var grant []string
	for _, word := range words[2:] {
		name, value, found := strings.Cut(word, "=")
		require.True(t, found, "%s: %s", s.title, word)
		family, member, _ := strings.Cut(name, "/")
		switch family {
		case "resource":
			r.Resource = value
			if r.Account = ""; strings.HasPrefix(value, "arn:") {
				r.Account = strings.Split(value, ":")[4]
			}
		case "context":
			put(&r.EncryptionContext, member, value)
		case "tag":
			put(&caller.Tags, member, value)
		case "mfa":
			caller.MFA = value == "true"
		case "new":
			grant = append(grant, member+"="+value)
		case "aws:RequestTag":
			put(&values.requestTags, member, value)
		case "aws:ResourceTag":
			put(&values.resourceTags, member, value)
		default:
			key, rest := conditionKeyOf(name)
			require.True(t, rest == "" && (key >= keyOfValues || key == unknownKey), "%s: %s is not a value of the request", s.title, name)
			values.values[key.String()] = value
		}
	}
	if grant != nil {
		r.NewGrant = grantOf(t, grant)
	}
	return r
}

// decide decides a request in the scenario's way.
func (s *scenario) decide(t testing.TB, r *Request) Decision {
	t.Helper()
	r.Caller.Identity, r.Caller.Session = s.documents(t, s.identity), s.documents(t, s.limits)
	if s.boundary != nil {
		r.Caller.Boundary = s.compile(t, IdentityPolicy, s.boundary)
	}
	var grants []*Grant
	for _, line := range s.grants {
		grants = append(grants, grantOf(t, strings.Fields(line)))
	}
	switch s.way {
	case "key":
		return DecideByKeyPolicy(r, s.compile(t, KeyPolicy, s.key), grants)
	case "trust":
		return DecideByTrust(r, s.compile(t, TrustPolicy, s.trust))
	case "identity":
		return DecideByIdentity(r)
	case "retire":
		require.Len(t, grants, 1, s.title)
		return DecideRetire(r, grants[0])
	case "lock-out":
		return Decision{Allowed: s.compile(t, KeyPolicy, s.key).KeepsControl(r)}
	}
	require.Fail(t, "unknown way", s.way)
	return Decision{}
}

// TestCases decides the cases of testdata, and each a second time with all statements, policies and grants in the opposite
// order.
func TestCases(t *testing.T) {
	count := 0
	for _, s := range loadScenarios(t) {
		for _, line := range s.requests {
			count++
			request, why, _ := strings.Cut(line, " -- ")
			words := strings.Fields(request)
			for _, in := range []*scenario{s, s.reversed()} {
				r := in.request(t, words[2:])
				d := in.decide(t, r)
				require.Equal(t, words[1] == "allow", d.Allowed, "%s\n%s\n%s", s.title, line, d.Sentence(r))
				if d.Allowed {
					require.Equal(t, why, grantID(d), "%s\n%s", s.title, line)
					require.True(t, s.way == "lock-out" || d.Reason == Allowance, line)
					continue
				}
				require.Nil(t, d.Grant, line)
				require.Equal(t, sentence(r, why), d.Sentence(r), "%s\n%s", s.title, line)
			}
		}
	}
	require.Greater(t, count, 150, "too few cases: were all files loaded?")
}

func grantID(d Decision) string {
	if d.Grant == nil {
		return ""
	}
	return "grant " + d.Grant.ID
}

// sentence is what AWS says of a request that was denied for a reason, which the cases write without the action.
func sentence(r *Request, why string) string {
	text := "User: " + r.Caller.ARN + " is not authorized to perform: " + r.Action
	if r.Resource != "" {
		text += " on resource: " + r.Resource
	}
	switch {
	case why == "":
		return text
	case strings.HasPrefix(why, "no "):
		return text + " because " + why + " allows the " + r.Action + " action"
	}
	return text + " with an explicit deny in " + why
}
