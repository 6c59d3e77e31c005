package policy

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzParse takes any text for a policy of each kind. What is accepted is JSON that encoding/json reads too, says the same
// when it is written out again, has its principals renamed and nothing else, and decides requests without panic.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"", "{}", `{"Statement":[]}`, withStatement(""), withStatement(`,"Action":"kms:*","Resource":"*"`),
		withStatement(`,"NotAction":["kms:a","*"],"NotResource":["arn:aws:kms:*:*:key/?"],"Condition":{"ForAnyValue:StringLikeIfExists":{"aws:a":["b",1,true]}}`),
		`{"Version":"2012-10-17","Id":"\u00e9","Statement":{"Sid":"\ud83d\ude00","Effect":"Deny","NotPrincipal":{"AWS":["111122223333"],"Service":"s3.amazonaws.com"}}}`,
		defaultKeyPolicy, userPolicy, demandingPolicy,
		`{"Statement":{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole","Condition":{"DateLessThan":{"aws:CurrentTime":"2026-01"}}}}`,
		`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"kms:*","Resource":"arn:aws:kms:*:*:${aws:username, 'x'}${*}*?","Condition":{
			"BinaryEquals":{"aws:Referer":"YQ=="},"Null":{"aws:TagKeys":"true"},"ArnLike":{"aws:PrincipalArn":"*"}}}}`,
	} {
		for kind := range kinds {
			f.Add(text, uint8(kind))
		}
	}
	f.Fuzz(func(t *testing.T, text string, kind uint8) {
		attached := Kind(kind) % kinds
		d, err := loaded(attached, text)
		if err != nil {
			require.Nil(t, d)
			var malformed MalformedError
			require.ErrorAs(t, err, &malformed)
			return
		}
		var object map[string]any
		require.NoError(t, json.Unmarshal([]byte(text), &object))
		rewritten(t, text, d)
		again, err := loaded(attached, encode(d))
		require.NoError(t, err)
		require.Equal(t, outcomes(t, d), outcomes(t, again))
		for _, read := range []*Document{d, again} {
			sortAll(read)
		}
		require.Equal(t, d, again)
	})
}

// kinds is how many kinds of policies there are.
const kinds = ManagedPolicy + 1

// outcomes are the decisions by a document for every actor and some requests.
func outcomes(t testing.TB, d *Document) []Decision {
	t.Helper()
	p, err := Compile(d)
	require.NoError(t, err)
	p = bind(p)
	var all []Decision
	for _, name := range []string{"root", "alice", "admin", "fred", "eve"} {
		for _, values := range []Values{nil, &textValues{values: map[string]string{"aws:CurrentTime": "2026-01-01T00:00:00Z", "aws:TagKeys": "[a|b]", "aws:SourceIp": "::1"}}} {
			caller := &Caller{Principal: actors[name]}
			r := &Request{Caller: caller, Action: "kms:Decrypt", Resource: keyARN, Account: ours, EncryptionContext: map[string]string{"a": "b"}, Values: values}
			switch d.Kind {
			case KeyPolicy:
				all = append(all, DecideByKeyPolicy(r, p, nil), Decision{Allowed: p.KeepsControl(r)})
			case IdentityPolicy:
				caller.Identity = []*Policy{p}
				all = append(all, DecideByIdentity(r))
			case TrustPolicy:
				r.Action, r.Resource = "sts:AssumeRole", actors["admin"].RoleARN
				all = append(all, DecideByTrust(r, p))
			}
		}
	}
	return all
}
