package policy

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// load is Load for policies that must be well-formed, with their principals bound.
func load(t testing.TB, kind Kind, text string) *Policy {
	t.Helper()
	p, err := Load(kind, text)
	require.NoError(t, err, text)
	return bind(p)
}

const (
	defaultKeyPolicy = `{"Version":"2012-10-17","Id":"key-default-1","Statement":[{"Sid":"Enable IAM User Permissions","Effect":"Allow",
		"Principal":{"AWS":"arn:aws:iam::` + ours + `:root"},"Action":"kms:*","Resource":"*"}]}`
	userPolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["kms:Describe*","kms:Encrypt","kms:Decrypt","kms:ReEncrypt*"],
		"Resource":"arn:aws:kms:*:` + ours + `:key/*"}]}`
	// demandingPolicy has conditions of every kind that is met often.
	demandingPolicy = `{"Version":"2012-10-17","Statement":[
		{"Effect":"Deny","Action":"kms:*","Resource":"*","Condition":{"NotIpAddress":{"aws:SourceIp":["10.0.0.0/8","192.0.2.0/24"]}}},
		{"Effect":"Deny","Action":"kms:*","Resource":"*","Condition":{"Bool":{"aws:SecureTransport":"false"}}},
		{"Effect":"Deny","Action":"kms:*","Resource":"*","Condition":{"DateGreaterThan":{"aws:CurrentTime":"2030-01-01T00:00:00Z"}}},
		{"Effect":"Allow","Action":"kms:Decrypt","Resource":"arn:aws:kms:*:${aws:PrincipalAccount}:key/*","Condition":{
			"StringEquals":{"kms:EncryptionContext:tenant":"${aws:PrincipalTag/tenant}"},"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::*:user/*"},
			"ForAllValues:StringLike":{"kms:EncryptionContextKeys":["ten*","purpose"]},"NumericLessThan":{"kms:RotationPeriodInDays":400}}}]}`
)

// decisions are requests that are allowed, by what they are like.
func decisions(t testing.TB) map[string]func() Decision {
	key := load(t, KeyPolicy, defaultKeyPolicy)
	silent := load(t, KeyPolicy, `{"Statement":{"Effect":"Allow","Principal":{"AWS":"`+theirs+`"},"Action":"kms:*","Resource":"*"}}`)
	root, user, demanding := &Caller{Principal: actors["root"]}, &Caller{Principal: actors["alice"]}, &Caller{Principal: actors["alice"]}
	user.Identity = []*Policy{load(t, IdentityPolicy, userPolicy)}
	demanding.Identity = []*Policy{load(t, IdentityPolicy, demandingPolicy)}
	demanding.Tags = map[string]string{"Tenant": "blue"}
	context := map[string]string{"tenant": "blue", "purpose": "backup"}
	grants := []*Grant{
		bound(&Grant{GranteePrincipal: actors["bob"].ARN, Operations: []string{"Decrypt"}}),
		bound(&Grant{GranteePrincipal: actors["alice"].ARN, Operations: []string{"Encrypt", "Decrypt"}, EncryptionContextSubset: map[string]string{"tenant": "blue"}}),
	}
	values := &textValues{values: map[string]string{
		"aws:SourceIp": "10.1.2.3", "aws:SecureTransport": "true", "aws:CurrentTime": "2026-01-01T00:00:00Z", "kms:RotationPeriodInDays": "365",
	}}
	return map[string]func() Decision{
		"root": func() Decision {
			return DecideByKeyPolicy(&Request{Caller: root, Action: "kms:Decrypt", Resource: keyARN, Account: ours, Values: values}, key, nil)
		},
		"user": func() Decision {
			return DecideByKeyPolicy(&Request{Caller: user, Action: "kms:ReEncryptFrom", Resource: keyARN, Account: ours, Values: values}, key, nil)
		},
		"grant": func() Decision {
			return DecideByKeyPolicy(&Request{Caller: user, Action: "kms:Decrypt", Resource: keyARN, Account: ours, EncryptionContext: context}, silent, grants)
		},
		"conditions": func() Decision {
			r := &Request{Caller: demanding, Action: "kms:Decrypt", Resource: keyARN, Account: ours, EncryptionContext: context, Values: values}
			return DecideByKeyPolicy(r, key, grants)
		},
		"without key": func() Decision {
			return DecideByIdentity(&Request{Caller: root, Action: "kms:ListKeys", Values: values})
		},
	}
}

// TestNoAllocations holds requests that are allowed to none, be they decided by plain policies, conditions, variables or
// grants.
func TestNoAllocations(t *testing.T) {
	for name, decide := range decisions(t) {
		require.True(t, decide().Allowed, name)
		require.Zero(t, testing.AllocsPerRun(100, func() { _ = decide() }), name)
	}
}

func BenchmarkDecide(b *testing.B) {
	for name, decide := range decisions(b) {
		b.Run(strings.ReplaceAll(name, " ", "-"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !decide().Allowed {
					b.Fatal("denied")
				}
			}
		})
	}
}
