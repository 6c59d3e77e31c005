package contract

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// trailService is an API with all operations of its model, told apart by what CloudTrail calls read-only.
type trailService struct {
	name, model, version string
	changing, reading    string
}

var trailServices = []trailService{
	{name: "kms", model: "kms-2014-11-01", changing: `
		CancelKeyDeletion ConnectCustomKeyStore CreateAlias CreateCustomKeyStore CreateGrant CreateKey DeleteAlias
		DeleteCustomKeyStore DeleteImportedKeyMaterial DisableKey DisableKeyRotation DisconnectCustomKeyStore EnableKey
		EnableKeyRotation ImportKeyMaterial PutKeyPolicy ReplicateKey RetireGrant RevokeGrant RotateKeyOnDemand
		ScheduleKeyDeletion TagResource UntagResource UpdateAlias UpdateCustomKeyStore UpdateKeyDescription
		UpdatePrimaryRegion`, reading: `
		Decrypt DeriveSharedSecret DescribeCustomKeyStores DescribeKey Encrypt GenerateDataKey GenerateDataKeyPair
		GenerateDataKeyPairWithoutPlaintext GenerateDataKeyWithoutPlaintext GenerateMac GenerateRandom GetKeyLastUsage
		GetKeyPolicy GetKeyRotationStatus GetParametersForImport GetPublicKey ListAliases ListGrants ListKeyPolicies
		ListKeyRotations ListKeys ListResourceTags ListRetirableGrants ReEncrypt Sign Verify VerifyMac`},
	{name: "iam", model: "iam-2010-05-08", version: iamVersion, changing: `
		AttachRolePolicy AttachUserPolicy CreateAccessKey CreatePolicy CreatePolicyVersion CreateRole CreateUser
		DeleteAccessKey DeleteLoginProfile DeletePolicy DeletePolicyVersion DeleteRole DeleteRolePermissionsBoundary
		DeleteRolePolicy DeleteUser DeleteUserPermissionsBoundary DeleteUserPolicy DetachRolePolicy DetachUserPolicy
		PutRolePermissionsBoundary PutRolePolicy PutUserPermissionsBoundary PutUserPolicy SetDefaultPolicyVersion TagPolicy
		TagRole TagUser UntagPolicy UntagRole UntagUser UpdateAccessKey UpdateAssumeRolePolicy UpdateRole
		UpdateRoleDescription UpdateUser`, reading: `
		GetAccessKeyLastUsed GetLoginProfile GetPolicy GetPolicyVersion GetRole GetRolePolicy GetUser GetUserPolicy
		ListAccessKeys ListAttachedRolePolicies ListAttachedUserPolicies ListEntitiesForPolicy ListGroupsForUser
		ListInstanceProfilesForRole ListMFADevices ListPolicies ListPolicyTags ListPolicyVersions ListRolePolicies
		ListRoleTags ListRoles ListSSHPublicKeys ListServiceSpecificCredentials ListSigningCertificates ListUserPolicies
		ListUserTags ListUsers ListVirtualMFADevices`},
	{name: "sts", model: "sts-2011-06-15", version: stsVersion, reading: "AssumeRole GetCallerIdentity GetSessionToken"},
}

// trailTexts are strings for shapes that do not take every text.
var trailTexts = map[string]string{
	"arnType": kmstest.IAMARN("policy/trail-absent"), "accessKeyIdType": "AKIATRAILABSENT0", "pathType": "/trail/", "policyPathType": "/trail/",
	"pathPrefixType": "/trail/", "policyVersionIdType": "v1", "BackingKeyIdType": strings.Repeat("ab", 32), "tokenCodeType": "731846", "PolicyNameType": "trail",
}

// trailTokens are members that are secret though neither blobs nor sensitive in the model.
var trailTokens = strings.Fields("GrantToken GrantTokens ImportToken TokenCode ContextAssertion SecretAccessKey SessionToken")

// trailShape is a shape of a model.
type trailShape struct {
	Type      string
	Members   map[string]trailReference
	Member    *trailReference
	Min       *int
	Enum      []string
	Sensitive bool
}

type trailReference struct{ Shape string }

type trailModel struct {
	Operations map[string]struct{ Input, Output trailReference }
	Shapes     map[string]trailShape
}

func (a *trailService) load(t *testing.T) *trailModel {
	t.Helper()
	text, err := os.ReadFile("../../api/model/" + a.model + ".json")
	require.NoError(t, err)
	m := &trailModel{}
	require.NoError(t, json.Unmarshal(text, m))
	return m
}

// secret tells whether a member has no place in a record.
func (m *trailModel) secret(member, shape string) bool {
	s := m.Shapes[shape]
	return s.Type == "blob" || s.Sensitive || slices.Contains(trailTokens, member)
}

// filling makes a request with all members that its shape has.
type filling struct {
	*trailModel
	operation string
	secrets   []string
}

// value gives a value that the shape of a member takes. Those of secrets are found again by their text.
func (f *filling) value(member, shape string, secret bool) any {
	s := f.Shapes[shape]
	secret = secret || f.secret(member, shape)
	switch s.Type {
	case "structure":
		filled := members{}
		for name, r := range s.Members {
			filled[name] = f.value(name, r.Shape, secret)
		}
		return filled
	case "list":
		return []any{f.value(member, s.Member.Shape, secret)}
	case "map":
		return members{"trail": "context"}
	case "boolean":
		return true
	case "integer":
		if s.Min != nil {
			return *s.Min
		}
		return 1
	case "timestamp":
		return 1893456000
	case "blob":
		return base64.StdEncoding.EncodeToString([]byte(f.hide("secret blob of " + f.operation + "." + member)))
	}
	text := "trail-absent"
	if fixed := trailTexts[shape]; fixed != "" {
		text = fixed
	} else if len(s.Enum) > 0 {
		text = s.Enum[0]
	} else if secret {
		text = "secret-text-of-" + f.operation + "." + member
	}
	if secret {
		f.hide(text)
	}
	return text
}

// hide notes a secret in the forms in which it could be in a trail.
func (f *filling) hide(secret string) string {
	f.secrets = append(f.secrets, secret, base64.StdEncoding.EncodeToString([]byte(secret)), hex.EncodeToString([]byte(secret)))
	return secret
}

// form gives a request as names and values of the query protocol.
func form(prefix string, value any) (pairs []string) {
	switch v := value.(type) {
	case members:
		for name, member := range v {
			pairs = append(pairs, form(strings.TrimPrefix(prefix+"."+name, "."), member)...)
		}
	case []any:
		return form(prefix+".member.1", v[0])
	default:
		text, _ := json.Marshal(v) // a string or a number
		pairs = []string{prefix, strings.Trim(string(text), `"`)}
	}
	return pairs
}

// send sends a request of the root user.
func (a *trailService) send(t *testing.T, s *kmstest.Server, operation string, in members) kmstest.Answer {
	t.Helper()
	if a.name == "kms" {
		return s.Post(t, operation, jsonText(t, in))
	}
	return s.PostForm(t, s.Credentials(), a.name, append(form("", in), "Action", operation, "Version", a.version)...)
}

// TestTrailOfEveryOperation sends a request of every operation of the models, with all members. Most fail, for what they name does
// not exist, but none because of its form. Each has one record, with what was asked for and without any secret.
func TestTrailOfEveryOperation(t *testing.T) {
	s := one()
	for _, a := range trailServices {
		m := a.load(t)
		listed := slices.Sorted(slices.Values(strings.Fields(a.changing + a.reading)))
		require.Equal(t, slices.Sorted(maps.Keys(m.Operations)), listed, "the operations of the model")
		for operation, shapes := range m.Operations {
			f := &filling{trailModel: m, operation: operation}
			in := members{}
			if shapes.Input.Shape != "" {
				in = f.value("", shapes.Input.Shape, false).(members)
			}
			answer := a.send(t, s, operation, in)
			record := recordOf(t, s, answer.Header.Get("X-Amzn-Requestid"))
			require.Equal(t, []any{operation, a.name + ".amazonaws.com", !slices.Contains(strings.Fields(a.changing), operation)},
				[]any{record["eventName"], record["eventSource"], record["readOnly"]})
			if _, made := makers[operation]; made || a.name != "kms" { // the others are not served
				requireAsked(t, m, operation, in, record, answer)
			}
			text := jsonText(t, record)
			for _, secret := range f.secrets {
				require.NotContains(t, text, secret, operation)
			}
		}
	}
	var hidden []string
	for _, text := range []string{"secret blob of ", "secret-text-of-"} {
		// Base64 of the first twelve bytes does not depend on the rest.
		hidden = append(hidden, text, base64.StdEncoding.EncodeToString([]byte(text[:12])), hex.EncodeToString([]byte(text)))
	}
	requireNotInTrail(t, s, hidden...)
}

// requireAsked finds in a record all members of a request but the secret ones, by name.
func requireAsked(t *testing.T, m *trailModel, operation string, in, record members, answer kmstest.Answer) {
	t.Helper()
	require.NotNil(t, record["requestParameters"], "%s was not read: %s", operation, answer.Body)
	want := []string{}
	for name := range in {
		if shape := m.Shapes[m.Operations[operation].Input.Shape].Members[name].Shape; !m.secret(name, shape) {
			want = append(want, lowerFirst(name))
		}
	}
	require.ElementsMatch(t, want, slices.Collect(maps.Keys(record["requestParameters"].(map[string]any))), operation)
}

func lowerFirst(name string) string {
	if name == "AWSAccountId" {
		return name
	}
	return strings.ToLower(name[:1]) + name[1:]
}

// recorded gives a value of an answer as records have it, and notes what they must not have.
func (f *filling) recorded(member, shape string, value any) any {
	s := f.Shapes[shape]
	if f.secret(member, shape) {
		if text := value.(string); len(text) > 8 { // or a checkpoint has it by chance
			f.secrets = append(f.secrets, text)
		}
		return nil
	}
	switch v := value.(type) {
	case map[string]any:
		shown := map[string]any{}
		for name, part := range v {
			if part = f.recorded(name, s.Members[name].Shape, part); part != nil && part != "" {
				shown[lowerFirst(name)] = part
			}
		}
		return shown
	case float64:
		if s.Type == "timestamp" {
			return time.Unix(int64(v), 0).UTC().Format(time.RFC3339)
		}
	}
	return value
}

// TestTrailOfAnswers has calls of KMS succeed: the record of one that changes something has the answer, without its secrets, and no
// other record has any of it.
func TestTrailOfAnswers(t *testing.T) {
	s := one()
	a, g := trailServices[0], newRig(t, s)
	m := a.load(t)
	answered := []string{}
	for operation, calls := range makers {
		for _, c := range calls(g) {
			answer := s.PostAs(t, g.root, operation, c.body)
			c.requireSuccess(t, answer)
			f := &filling{trailModel: m}
			var want any
			if answer.Status == http.StatusOK && answer.Body != "" {
				want = f.recorded("", m.Operations[operation].Output.Shape, answer.JSON(t))
			}
			if slices.Contains(strings.Fields(a.reading), operation) {
				want = nil
			}
			if want != nil {
				answered = append(answered, operation)
			}
			require.Equal(t, want, recordOf(t, s, answer.Header.Get("X-Amzn-Requestid"))["responseElements"], operation)
			requireNotInTrail(t, s, f.secrets...)
		}
	}
	slices.Sort(answered)
	require.Equal(t, strings.Fields("CancelKeyDeletion CreateGrant CreateKey DeleteImportedKeyMaterial ImportKeyMaterial RotateKeyOnDemand ScheduleKeyDeletion"),
		slices.Compact(answered))
}
