package contract

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/stretchr/testify/require"

	"hsmkms/audit"
	"hsmkms/test/kmstest"
)

func jsonText(t *testing.T, in map[string]any) string {
	t.Helper()
	text, err := json.Marshal(in)
	require.NoError(t, err)
	return string(text)
}

// trailFiles are the files of a server's audit trail.
func trailFiles(t *testing.T, s *kmstest.Server) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.Dir, "audit", "audit-*.jsonl"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	return files
}

// recordsOf gives the records of a request in a server's audit trail.
func recordsOf(t *testing.T, s *kmstest.Server, requestID string) []map[string]any {
	t.Helper()
	var found []map[string]any
	for _, file := range trailFiles(t, s) {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for line := range bytes.Lines(text) {
			if !bytes.Contains(line, []byte(requestID)) {
				continue
			}
			var record map[string]any
			require.NoError(t, json.Unmarshal(line, &record))
			if record["requestID"] == requestID {
				found = append(found, record)
			}
		}
	}
	return found
}

// recordOf gives the one record of a request.
func recordOf(t *testing.T, s *kmstest.Server, requestID string) map[string]any {
	t.Helper()
	found := recordsOf(t, s, requestID)
	require.Len(t, found, 1)
	return found[0]
}

// requireTrail verifies a server's audit trail with its public key, and gives the report.
func requireTrail(t *testing.T, s *kmstest.Server) *audit.Report {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.Dir, "audit", "public-key.pem"))
	require.NoError(t, err)
	block, _ := pem.Decode(text)
	require.NotNil(t, block)
	report, err := audit.Verify(t.Context(), trailFiles(t, s), audit.VerifyOptions{PublicKeys: [][]byte{block.Bytes}})
	require.NoError(t, err)
	require.Empty(t, report.Problems)
	return report
}

// TestTrailOfAlgorithms has what a request does not say of the algorithm in its record, and what it does say, whatever comes of it.
func TestTrailOfAlgorithms(t *testing.T) {
	s := anyHome()
	id := s.NewKey(t)
	made, err := s.Client().CreateKey(t.Context(), &kms.CreateKeyInput{KeySpec: "RSA_2048", KeyUsage: "ENCRYPT_DECRYPT"})
	require.NoError(t, err)
	pair := *made.KeyMetadata.KeyId
	asked := func(operation string, pairs ...any) (code, algorithm any) {
		answer := s.Post(t, operation, object(t, pairs...))
		record := recordOf(t, s, answer.Header.Get("X-Amzn-Requestid"))
		return record["errorCode"], record["requestParameters"].(map[string]any)["encryptionAlgorithm"]
	}
	blob := s.Encrypt(t, id, []byte("x"), nil)
	for _, test := range []struct {
		operation       string
		pairs           []any
		code, algorithm any
	}{
		{"Encrypt", []any{"KeyId", id, "Plaintext", b64("x")}, nil, "SYMMETRIC_DEFAULT"},
		{"Encrypt", []any{"KeyId", pair, "Plaintext", b64("x")}, "InvalidKeyUsageException", "SYMMETRIC_DEFAULT"},
		{"Encrypt", []any{"KeyId", pair, "Plaintext", b64("x"), "EncryptionAlgorithm", "RSAES_OAEP_SHA_1"}, nil, "RSAES_OAEP_SHA_1"},
		{"Decrypt", []any{"CiphertextBlob", blob}, nil, "SYMMETRIC_DEFAULT"},
		{"Decrypt", []any{"CiphertextBlob", b64("x")}, "InvalidCiphertextException", "SYMMETRIC_DEFAULT"},
		{"GenerateDataKey", []any{"KeyId", id, "KeySpec", "AES_256"}, nil, nil},
	} {
		code, algorithm := asked(test.operation, test.pairs...)
		require.Equal(t, []any{test.code, test.algorithm}, []any{code, algorithm}, "%s %v", test.operation, test.pairs)
	}
}

// TestTrailOfCalls finds each call in the trail by the request id of its answer.
func TestTrailOfCalls(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		from, to := s.NewKey(t), s.NewKey(t)
		blob := s.Encrypt(t, from, []byte("a secret to find nowhere"), map[string]string{"a": "b"})
		answer := s.Post(t, "ReEncrypt", jsonText(t, map[string]any{
			"CiphertextBlob": blob, "SourceEncryptionContext": map[string]string{"a": "b"}, "DestinationKeyId": to,
			"DestinationEncryptionContext": map[string]string{"c": "d"},
		}))
		require.Equal(t, 200, answer.Status, answer.Body)
		record := recordOf(t, s, answer.Header.Get("X-Amzn-Requestid"))
		for name, want := range map[string]any{
			"eventVersion": "1.11", "eventSource": "kms.amazonaws.com", "eventName": "ReEncrypt", "awsRegion": kmstest.Region,
			"sourceIPAddress": "127.0.0.1", "readOnly": true, "eventType": "AwsApiCall", "managementEvent": true,
			"recipientAccountId": kmstest.Account, "eventCategory": "Management",
			"requestParameters": map[string]any{
				"sourceEncryptionContext": map[string]any{"a": "b"}, "destinationKeyId": to, "destinationEncryptionContext": map[string]any{"c": "d"},
				"sourceEncryptionAlgorithm": "SYMMETRIC_DEFAULT", "destinationEncryptionAlgorithm": "SYMMETRIC_DEFAULT",
			},
			"resources": []any{
				map[string]any{"accountId": kmstest.Account, "type": "AWS::KMS::Key", "ARN": kmstest.KeyARN(from)},
				map[string]any{"accountId": kmstest.Account, "type": "AWS::KMS::Key", "ARN": kmstest.KeyARN(to)},
			},
		} {
			require.Equal(t, want, record[name], name)
		}
		identity := record["userIdentity"].(map[string]any)
		require.Equal(t, []any{"Root", kmstest.IAMARN("root"), kmstest.Account, s.AccessKeyID},
			[]any{identity["type"], identity["arn"], identity["accountId"], identity["accessKeyId"]})
		require.NotContains(t, record, "errorCode")

		// The key's last use names the record.
		last := s.Post(t, "GetKeyLastUsage", jsonText(t, map[string]any{"KeyId": to})).JSON(t)["KeyLastUsage"].(map[string]any)
		require.Equal(t, record["eventID"], last["CloudTrailEventId"])

		answer = s.Post(t, "DisableKey", jsonText(t, map[string]any{"KeyId": absentKey}))
		record = recordOf(t, s, answer.Header.Get("X-Amzn-Requestid"))
		require.Equal(t, []any{"NotFoundException", false}, []any{record["errorCode"], record["readOnly"]})
		requireTrail(t, s)
		requireNotInTrail(t, s, "a secret to find nowhere", base64.StdEncoding.EncodeToString([]byte("a secret to find nowhere")),
			base64.StdEncoding.EncodeToString(blob))
	})
}

func requireNotInTrail(t *testing.T, s *kmstest.Server, secrets ...string) {
	t.Helper()
	for _, file := range trailFiles(t, s) {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, secret := range secrets {
			require.False(t, bytes.Contains(text, []byte(secret)), "a secret is in the audit trail")
		}
	}
}

// TestTrailOfDeniedCalls has a user without a permission, and a request that cannot be read.
func TestTrailOfDeniedCalls(t *testing.T) {
	s := one()
	key := s.NewKey(t)
	user := s.NewUser(t, "trail-denied", "")
	_, err := user.KMS.Encrypt(t.Context(), &kms.EncryptInput{KeyId: &key, Plaintext: []byte("text")})
	require.Error(t, err)
	answer := s.Post(t, "Encrypt", `{"KeyId":5}`)
	record := recordOf(t, s, answer.Header.Get("X-Amzn-Requestid"))
	require.Equal(t, []any{"SerializationException", nil}, []any{record["errorCode"], record["requestParameters"]})

	denied := findRecords(t, s, func(record map[string]any) bool {
		identity, _ := record["userIdentity"].(map[string]any)
		return identity["userName"] == "trail-denied" && record["eventName"] == "Encrypt"
	})
	require.Len(t, denied, 1)
	require.Equal(t, "AccessDenied", denied[0]["errorCode"])
	require.Contains(t, denied[0]["errorMessage"], "is not authorized to perform: kms:Encrypt on resource: "+kmstest.KeyARN(key))
	require.Equal(t, "IAMUser", denied[0]["userIdentity"].(map[string]any)["type"])
}

func findRecords(t *testing.T, s *kmstest.Server, wanted func(map[string]any) bool) []map[string]any {
	t.Helper()
	var found []map[string]any
	for _, file := range trailFiles(t, s) {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for line := range bytes.Lines(text) {
			var record map[string]any
			require.NoError(t, json.Unmarshal(line, &record))
			if wanted(record) {
				found = append(found, record)
			}
		}
	}
	return found
}

// TestTrailOfIdentities has the calls of IAM and STS in the trail, with what was made and without secrets.
func TestTrailOfIdentities(t *testing.T) {
	s, ctx := one(), t.Context()
	name, root := "trail-identity", s.Root().IAM
	_, err := root.CreateUser(ctx, &iam.CreateUserInput{UserName: &name})
	require.NoError(t, err)
	key, err := root.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: &name})
	require.NoError(t, err)
	_, err = root.DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{UserName: &name, AccessKeyId: key.AccessKey.AccessKeyId})
	require.NoError(t, err)
	_, err = root.CreateUser(ctx, &iam.CreateUserInput{UserName: &name})
	require.Error(t, err)
	_, err = root.GetUser(ctx, &iam.GetUserInput{UserName: &name})
	require.NoError(t, err)
	records := findRecords(t, s, func(record map[string]any) bool {
		parameters, _ := record["requestParameters"].(map[string]any)
		return record["eventSource"] == "iam.amazonaws.com" && parameters["userName"] == name
	})
	var got [][]any
	for _, record := range records {
		elements, _ := record["responseElements"].(map[string]any)
		got = append(got, []any{record["eventName"], slices.Sorted(maps.Keys(elements))})
	}
	require.Equal(t, [][]any{
		{"CreateUser", []string{"user"}}, {"CreateAccessKey", []string{"accessKey"}}, {"DeleteAccessKey", []string(nil)},
		{"CreateUser", []string(nil)}, {"GetUser", []string(nil)},
	}, got)
	require.Equal(t, map[string]any{"accessKey": map[string]any{
		"userName": name, "accessKeyId": *key.AccessKey.AccessKeyId, "status": "Active", "createDate": key.AccessKey.CreateDate.Format(time.RFC3339),
	}}, records[1]["responseElements"])
	requireNotInTrail(t, s, *key.AccessKey.SecretAccessKey)
}

// TestTrailOfSessions names the temporary credentials that were given, without secrets.
func TestTrailOfSessions(t *testing.T) {
	s := one()
	user := s.NewUser(t, "trail-sessions", "")
	role := newRole(t, s, "trail-sessions", trusting(kmstest.IAMARN("user/trail-sessions")), "")
	_, assumed := assume(t, s, user, role, "trail")
	token, err := user.STS.GetSessionToken(t.Context(), nil)
	require.NoError(t, err)
	shown := func(c *ststypes.Credentials) map[string]any {
		requireNotInTrail(t, s, *c.SecretAccessKey, *c.SessionToken)
		return map[string]any{"accessKeyId": *c.AccessKeyId, "expiration": c.Expiration.Format(time.RFC3339)}
	}
	records := findRecords(t, s, func(record map[string]any) bool {
		identity, _ := record["userIdentity"].(map[string]any)
		return record["eventSource"] == "sts.amazonaws.com" && identity["userName"] == "trail-sessions"
	})
	require.Len(t, records, 2)
	require.Equal(t, map[string]any{
		"credentials":     shown(assumed.Credentials),
		"assumedRoleUser": map[string]any{"arn": *assumed.AssumedRoleUser.Arn, "assumedRoleId": *assumed.AssumedRoleUser.AssumedRoleId},
	}, records[0]["responseElements"])
	require.Equal(t, map[string]any{"credentials": shown(token.Credentials)}, records[1]["responseElements"])
}

// TestTrailOfParameters has requests of all forms, most of which fail: their records have all that was asked for, value by value, but
// for secrets and what is empty.
func TestTrailOfParameters(t *testing.T) {
	s := one()
	for _, operation := range []string{"CreateKey", "TagResource", "CreateGrant", "PutKeyPolicy", "Sign", "ImportKeyMaterial", "RetireGrant"} {
		answer := s.Post(t, operation, trailBodies[operation])
		records := recordsOf(t, s, answer.Header.Get("X-Amzn-Requestid"))
		require.Len(t, records, 1, operation)
		require.Equal(t, operation, records[0]["eventName"])
		text, err := json.Marshal(records[0]["requestParameters"])
		require.NoError(t, err)
		require.JSONEq(t, trailParameters[operation], string(text), operation)
	}
}

// trailBodies are requests, most of which fail, and trailParameters what the trail has of them.
var (
	trailBodies = map[string]string{
		"CreateKey":         `{"Description":"d","Tags":[{"TagKey":"a","TagValue":"b"}],"MultiRegion":false}`,
		"TagResource":       `{"KeyId":"` + absentKey + `","Tags":[{"TagKey":"a","TagValue":""}]}`,
		"CreateGrant":       `{"KeyId":"` + absentKey + `","GranteePrincipal":"arn:aws:iam::111122223333:user/a","Operations":["Decrypt"],"Constraints":{"EncryptionContextSubset":{"x":"y"}},"GrantTokens":["dG9rZW4"]}`,
		"PutKeyPolicy":      `{"KeyId":"` + absentKey + `","Policy":"{}"}`,
		"Sign":              `{"KeyId":"` + absentKey + `","Message":"c2VjcmV0","MessageType":"RAW","SigningAlgorithm":"ECDSA_SHA_256","DryRun":true}`,
		"ImportKeyMaterial": `{"KeyId":"` + absentKey + `","ImportToken":"c2VjcmV0","EncryptedKeyMaterial":"c2VjcmV0","ValidTo":1893456000}`,
		"RetireGrant":       `{"GrantToken":"secret"}`,
	}
	trailParameters = map[string]string{
		"CreateKey":         `{"description":"d","tags":[{"tagKey":"a","tagValue":"b"}]}`,
		"TagResource":       `{"keyId":"` + absentKey + `","tags":[{"tagKey":"a"}]}`,
		"CreateGrant":       `{"keyId":"` + absentKey + `","granteePrincipal":"arn:aws:iam::111122223333:user/a","operations":["Decrypt"],"constraints":{"encryptionContextSubset":{"x":"y"}}}`,
		"PutKeyPolicy":      `{"keyId":"` + absentKey + `","policy":"{}"}`,
		"Sign":              `{"keyId":"` + absentKey + `","messageType":"RAW","signingAlgorithm":"ECDSA_SHA_256","dryRun":true}`,
		"ImportKeyMaterial": `{"keyId":"` + absentKey + `","validTo":"2030-01-01T00:00:00Z"}`,
		"RetireGrant":       `{}`,
	}
)

// TestTrailIsSignedAtTheEnd stops a server: the last checkpoint vouches for all that it did.
func TestTrailIsSignedAtTheEnd(t *testing.T) {
	s := kmstest.Start(t, kmstest.Options{})
	key := s.NewKey(t)
	require.NoError(t, s.Stop())
	report := requireTrail(t, s)
	require.NotZero(t, report.Checkpoints)
	require.NoError(t, s.Run())
	s.Encrypt(t, key, []byte("text"), nil)
	require.NoError(t, s.Kill())
	require.NoError(t, s.Run())
	after := requireTrail(t, s)
	require.Equal(t, report.Starts+2, after.Starts)
	require.Len(t, findRecords(t, s, func(record map[string]any) bool { return record["eventName"] == "Encrypt" }), 1)

	files := trailFiles(t, s)
	text, err := os.ReadFile(files[0])
	require.NoError(t, err)
	require.NoError(t, s.Stop())
	altered := bytes.Replace(text, []byte(`"eventName":"Encrypt"`), []byte(`"eventName":"Decrypt"`), 1)
	require.NoError(t, os.WriteFile(files[0], altered, 0o600))
	bad, err := audit.Verify(t.Context(), files, audit.VerifyOptions{})
	require.NoError(t, err)
	require.True(t, slices.ContainsFunc(bad.Problems, func(f audit.Finding) bool { return strings.Contains(f.String(), "hash") }), "%v", bad.Problems)
}
