package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// documentedKeys are the condition keys of KMS's developer guide, and the global keys that have a meaning here.
const documentedKeys = `
kms:BypassPolicyLockoutSafetyCheck kms:CallerAccount kms:DataKeyPairSpec kms:EncryptionAlgorithm kms:EncryptionContext:x kms:EncryptionContextKeys
kms:ExpirationModel kms:GrantConstraintType kms:GrantIsForAWSResource kms:GrantOperations kms:GranteePrincipal kms:KeyOrigin kms:KeySpec kms:KeyUsage
kms:MacAlgorithm kms:MessageType kms:MultiRegion kms:MultiRegionKeyType kms:PrimaryRegion kms:ReEncryptOnSameKey kms:RequestAlias kms:ResourceAliases
kms:ReplicaRegion kms:RetiringPrincipal kms:SigningAlgorithm kms:ValidTo kms:ViaService kms:WrappingAlgorithm kms:WrappingKeySpec
kms:KeyAgreementAlgorithm kms:RotationPeriodInDays kms:ScheduleKeyDeletionPendingWindowInDays
aws:PrincipalArn aws:PrincipalAccount aws:PrincipalType aws:PrincipalTag/x aws:userid aws:username aws:SourceIp aws:SecureTransport aws:CurrentTime
aws:EpochTime aws:RequestTag/x aws:TagKeys aws:ResourceTag/x aws:ResourceAccount aws:RequestedRegion aws:UserAgent aws:Referer
aws:MultiFactorAuthPresent aws:TokenIssueTime aws:SourceIdentity aws:PrincipalIsAWSService aws:ViaAWSService
iam:PermissionsBoundary iam:PolicyARN iam:ResourceTag/x sts:ExternalId sts:RoleSessionName sts:SourceIdentity sts:TransitiveTagKeys`

func TestConditionKeys(t *testing.T) {
	seen := map[ConditionKey]bool{}
	for _, name := range strings.Fields(documentedKeys) {
		key, rest := conditionKeyOf(name)
		require.NotEqual(t, unknownKey, key, name)
		require.False(t, seen[key], name)
		seen[key] = true
		require.Equal(t, name, key.String()+rest, "as AWS writes it")
		for _, other := range []string{strings.ToLower(name), strings.ToUpper(name)} {
			same, rest := conditionKeyOf(other)
			require.Equal(t, key, same, other)
			require.True(t, rest == "" || strings.EqualFold(rest, "x"), other)
		}
	}
	require.Len(t, keyNames, len(seen), "keys that the test does not know")
	for _, name := range []string{"", "aws", "aws:", "kms:EncryptionContext", "kms:EncryptionContext:", "aws:PrincipalTag/", "aws:ResourceTag", "kms:KeySpecs", "s3:prefix"} {
		key, rest := conditionKeyOf(name)
		require.Equal(t, unknownKey, key, name)
		require.Empty(t, rest, name)
	}
	key, rest := conditionKeyOf("kms:EncryptionContext:aws:s3:arn/X y")
	require.Equal(t, KeyEncryptionContext, key)
	require.Equal(t, "aws:s3:arn/X y", rest)
}

// recorder is Values that remembers what it was asked for.
type recorder struct{ asked map[ConditionKey]string }

func (v *recorder) Value(key ConditionKey, name string) Value {
	v.asked[key] = name
	return Value{}
}

// TestValuesAreAsked shows which keys a Request answers by itself.
func TestValuesAreAsked(t *testing.T) {
	values := &recorder{asked: map[ConditionKey]string{}}
	r := &Request{Caller: &Caller{Principal: actors["admin"]}, Action: "kms:CreateKey", Values: values}
	for key := range keyNames {
		r.value(key, "name")
	}
	for key := range keyNames {
		_, asked := values.asked[key]
		require.Equal(t, key >= keyOfValues, asked, key.String())
	}
	require.Equal(t, "name", values.asked[KeyResourceTag])
	r.Values = nil
	for key := range keyNames {
		require.NotPanics(t, func() { r.value(key, "name") }, key.String())
	}
}

func TestValues(t *testing.T) {
	moment := time.Date(2026, 3, 1, 1, 0, 0, 0, time.FixedZone("", 3600))
	for want, v := range map[string]Value{
		"a": Text("a"), "b": Optional("b"), "": Text(""), "true": Flag(true), "false": Flag(false), "-7": Number(-7), "2026-03-01T00:00:00Z": Moment(moment),
	} {
		text, ok := v.single()
		require.True(t, ok, want)
		require.Equal(t, want, text)
	}
	for _, v := range []Value{{}, Optional(""), Texts(nil), Texts([]string{}), KeysOf(nil), KeysOf(map[string]string{}), Moment(time.Time{}), Member(nil, "a")} {
		require.True(t, v.missing())
	}
	family := map[string]string{"Team": "1", "TEAM": "2", "team": "3", "other": "4"}
	for name, want := range map[string]string{"team": "3", "Team": "1", "TEAM": "2", "tEAM": "2", "OTHER": "4"} {
		require.Equal(t, Text(want), Member(family, name), name)
	}
	require.Equal(t, Value{}, Member(family, "tea"))
}

func TestIsPrincipal(t *testing.T) {
	for name, p := range actors {
		require.True(t, IsPrincipal(p.ARN), name)
	}
	require.True(t, IsPrincipal(actors["admin"].RoleARN))
	for _, arn := range []string{"", "*", ours, keyARN, "arn:aws:iam::" + ours + ":user/*", "arn:aws:iam::" + ours + ":group/x", rootARN("1")} {
		require.False(t, IsPrincipal(arn), arn)
	}
}

// TestFoldContext compares what is folded alike with what strings.EqualFold takes for the same.
func TestFoldContext(t *testing.T) {
	require.Equal(t, map[string]string{"A": "1", "K": "2"}, FoldContext(map[string]string{"a": "1", "\u212A": "2"}))
	require.Equal(t, map[string]string{"A": "1"}, FoldContext(map[string]string{"a": "1", "A": "1", "b": "1", "B": "2"}))
	require.Empty(t, FoldContext(nil))
	keys := []string{"k", "K", "\u212A", "s", "\u017F", "ß", "ẞ", "σ", "ς", "x"}
	for _, a := range keys {
		for _, b := range keys {
			require.Equal(t, strings.EqualFold(a, b), strings.Map(foldRune, a) == strings.Map(foldRune, b), "%q %q", a, b)
		}
	}
}
