package contract

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// crossing is a user who may use the keys of two other accounts, one each.
type crossing struct {
	t          *testing.T
	s          *kmstest.Server
	user       *stranger
	from, to   *rig
	source     string
	target     string
	ciphertext string // under source
}

func newCrossing(t *testing.T) *crossing {
	t.Helper()
	s := one()
	c := &crossing{t: t, s: s, user: newStranger(t, s), from: newRig(t, s), to: newRig(t, s)}
	c.source, c.target = c.from.key(), c.to.key()
	c.user.may(t, allow("kms:*", "*"))
	c.share(c.from, c.source, "kms:*")
	c.share(c.to, c.target, "kms:*")
	c.ciphertext = c.from.do("Encrypt", "CiphertextBlob", "KeyId", c.source, "Plaintext", b64("a secret across accounts"))
	return c
}

// share gives a key a policy that lets the user's account do an action.
func (c *crossing) share(owner *rig, key, action string) {
	c.t.Helper()
	owner.putPolicy(key, document(c.t,
		statement{"Effect": "Allow", "Principal": members{"AWS": owner.account}, "Action": "kms:*", "Resource": "*"},
		statement{"Effect": "Allow", "Principal": members{"AWS": c.user.account}, "Action": action, "Resource": "*"}))
}

// call sends a request of the user and gives its records, which must be for some accounts, in this order, and be of one event.
func (c *crossing) call(operation, code string, accounts []string, pairs ...any) []map[string]any {
	c.t.Helper()
	answer := c.s.PostAs(c.t, c.user.Someone, operation, object(c.t, pairs...))
	if code == "" {
		require.Equal(c.t, 200, answer.Status, answer.Body)
	} else {
		require.Equal(c.t, code, answer.JSON(c.t)["__type"], answer.Body)
	}
	return c.records(answer, accounts)
}

// records gives the records of an answered request of the user, checked as call says.
func (c *crossing) records(answer kmstest.Answer, accounts []string) []map[string]any {
	c.t.Helper()
	records := recordsOf(c.t, c.s, answer.Header.Get("X-Amzn-Requestid"))
	recipients, ids, shared := []string{}, map[any]bool{}, map[any]bool{}
	for _, record := range records {
		recipients = append(recipients, record["recipientAccountId"].(string))
		ids[record["eventID"]], shared[record["sharedEventID"]] = true, true
		require.Equal(c.t, records[0]["requestParameters"], record["requestParameters"])
		require.Equal(c.t, records[0]["responseElements"], record["responseElements"])
		require.Equal(c.t, records[0]["resources"], record["resources"])
		require.Equal(c.t, records[0]["errorCode"], record["errorCode"])
	}
	require.Equal(c.t, accounts, recipients)
	require.Len(c.t, ids, len(records))
	require.Len(c.t, shared, 1)
	require.Equal(c.t, len(records) == 1, shared[nil], "sharedEventID is for several records")
	c.requireCaller(records)
	return records
}

// requireCaller sees to it that the record for the caller's account says all of the caller, and the others who it was and no more.
func (c *crossing) requireCaller(records []map[string]any) {
	c.t.Helper()
	identity := records[0]["userIdentity"].(map[string]any)
	require.Equal(c.t, []any{"IAMUser", c.user.arn, c.user.account}, []any{identity["type"], identity["arn"], identity["accountId"]})
	for _, record := range records[1:] {
		require.Equal(c.t, map[string]any{"type": "AWSAccount", "principalId": identity["principalId"], "accountId": c.user.account}, record["userIdentity"])
		require.NotContains(c.t, record, "errorMessage", "which is for the caller")
		require.NotContains(c.t, jsonText(c.t, record), c.user.arn)
	}
}

// keyResources are the resources of a record about some keys.
func keyResources(arns ...string) (list []any) {
	for _, arn := range arns {
		list = append(list, map[string]any{"accountId": strings.Split(arn, ":")[4], "type": "AWS::KMS::Key", "ARN": arn})
	}
	return list
}

// TestTrailAcrossAccounts has calls about keys of other accounts: the caller's account and the owners' have one record each.
func TestTrailAcrossAccounts(t *testing.T) {
	c := newCrossing(t)
	caller, from, to := c.user.account, c.from.account, c.to.account
	records := c.call("ReEncrypt", "", []string{caller, from, to}, "CiphertextBlob", c.ciphertext, "DestinationKeyId", c.target)
	require.Equal(t, keyResources(c.source, c.target), records[0]["resources"])
	for i, owner := range map[int]*rig{1: c.from, 2: c.to} { // whose last use names the record that they have
		key := map[int]string{1: c.source, 2: c.target}[i]
		last := c.s.PostAs(t, owner.root, "GetKeyLastUsage", object(t, "KeyId", key)).JSON(t)["KeyLastUsage"].(map[string]any)
		require.Equal(t, records[i]["eventID"], last["CloudTrailEventId"])
	}

	records = c.call("Encrypt", "", []string{caller, to}, "KeyId", c.target, "Plaintext", b64("a secret across accounts"))
	require.Equal(t, keyResources(c.target), records[0]["resources"])
	second := c.from.key()
	c.share(c.from, second, "kms:*")
	records = c.call("ReEncrypt", "", []string{caller, from}, "CiphertextBlob", c.ciphertext, "DestinationKeyId", second)
	require.Equal(t, keyResources(c.source, second), records[0]["resources"])
	records = c.call("CreateGrant", "", []string{caller, to}, "KeyId", c.target, "GranteePrincipal", "arn:aws:iam::"+to+":root", "Operations", []string{"Decrypt"})
	require.Contains(t, records[1]["responseElements"], "grantId")

	// Who may use a key has its owner know, also if it fails then; but why is told the caller alone.
	c.to.do("DisableKey", "", "KeyId", c.target)
	records = c.call("ReEncrypt", "DisabledException", []string{caller, from, to}, "CiphertextBlob", c.ciphertext, "DestinationKeyId", c.target)
	require.Contains(t, records[0]["errorMessage"], c.target)
	requireNotInTrail(t, c.s, "a secret across accounts", b64("a secret across accounts"), c.ciphertext)
}

// TestTrailOfDenialsAcrossAccounts has keys of other accounts that are closed to the caller: they are as if they did not exist. There
// is a record for the caller's account alone, and it says of them what the request said.
func TestTrailOfDenialsAcrossAccounts(t *testing.T) {
	c := newCrossing(t)
	c.share(c.to, c.target, "kms:DescribeKey")
	hidden := c.to.do("Encrypt", "CiphertextBlob", "KeyId", c.target, "Plaintext", b64("x"))
	alone := []string{c.user.account}
	records := c.call("Encrypt", "AccessDeniedException", alone, "KeyId", c.target, "Plaintext", b64("x"))
	require.Equal(t, []any{"AccessDenied", nil}, []any{records[0]["errorCode"], records[0]["resources"]})
	require.Contains(t, records[0]["errorMessage"], hiddenReason)

	// A ciphertext does not name its key.
	records = c.call("Decrypt", "AccessDeniedException", alone, "CiphertextBlob", hidden)
	require.NotContains(t, jsonText(t, records[0]), c.target[strings.LastIndexByte(c.target, '/')+1:])
	require.NotContains(t, jsonText(t, records[0]), c.to.account)

	// Nor does an alias: of the two owners, the one who let the caller in has a record.
	alias := c.to.arn(c.to.alias(c.target))
	records = c.call("ReEncrypt", "AccessDeniedException", []string{c.user.account, c.from.account}, "CiphertextBlob", c.ciphertext, "DestinationKeyId", alias)
	require.Equal(t, keyResources(c.source), records[0]["resources"])
	for _, record := range records {
		require.NotContains(t, jsonText(t, record), c.target)
	}
	// The source is judged first.
	c.share(c.from, c.source, "kms:DescribeKey")
	c.share(c.to, c.target, "kms:*")
	records = c.call("ReEncrypt", "AccessDeniedException", alone, "CiphertextBlob", c.ciphertext, "SourceKeyId", c.source, "DestinationKeyId", c.target)
	require.Nil(t, records[0]["resources"])
}

// TestTrailOfRolesAcrossAccounts assumes a role of another account, of which that has a record, and one that does not let it.
func TestTrailOfRolesAcrossAccounts(t *testing.T) {
	c := newCrossing(t)
	c.user.may(t, allow("sts:AssumeRole", "*"))
	assumeRole := func(trust string) (string, kmstest.Answer) {
		name := freeAlias()[len("alias/"):]
		out, err := c.from.root.IAM.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: &trust})
		require.NoError(t, err)
		return *out.Role.Arn, c.s.PostForm(t, c.user.Credentials, "sts", "Action", "AssumeRole", "Version", stsVersion, "RoleArn", *out.Role.Arn, "RoleSessionName", "trail")
	}
	role, answer := assumeRole(trusting(c.user.account))
	require.Equal(t, 200, answer.Status, answer.Body)
	records := c.records(answer, []string{c.user.account, c.from.account})
	require.Equal(t, []any{map[string]any{"accountId": c.from.account, "type": "AWS::IAM::Role", "ARN": role}}, records[0]["resources"])

	_, answer = assumeRole(trusting(c.from.account))
	require.Equal(t, 403, answer.Status, answer.Body)
	require.Nil(t, c.records(answer, []string{c.user.account})[0]["resources"])
}
