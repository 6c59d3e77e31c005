package contract

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// createKey makes a key and gives its metadata.
func createKey(t testing.TB, s *kmstest.Server, body string) members {
	t.Helper()
	answer := accept(t, s, "CreateKey", body)
	require.Len(t, answer, 1)
	metadata, ok := answer["KeyMetadata"].(members)
	require.True(t, ok, "%v", answer)
	return metadata
}

// wantMetadata is all that the metadata of a symmetric key must hold, with the given members instead of the usual ones.
// What the server chose is taken over from got.
func wantMetadata(got members, other members) members {
	id, _ := got["KeyId"].(string)
	want := members{
		"AWSAccountId":          kmstest.Account,
		"Arn":                   kmstest.KeyARN(id),
		"CreationDate":          got["CreationDate"],
		"CurrentKeyMaterialId":  got["CurrentKeyMaterialId"],
		"CustomerMasterKeySpec": "SYMMETRIC_DEFAULT",
		"Description":           "",
		"Enabled":               true,
		"EncryptionAlgorithms":  []any{"SYMMETRIC_DEFAULT"},
		"KeyId":                 id,
		"KeyManager":            "CUSTOMER",
		"KeySpec":               "SYMMETRIC_DEFAULT",
		"KeyState":              "Enabled",
		"KeyUsage":              "ENCRYPT_DECRYPT",
		"MultiRegion":           false,
		"Origin":                "AWS_KMS",
	}
	maps.Copy(want, other)
	return want
}

var (
	keyIDForm      = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	mrkForm        = regexp.MustCompile(`^mrk-[0-9a-f]{32}$`)
	materialIDForm = regexp.MustCompile(`^[0-9a-f]{64}$`)
	dateForm       = regexp.MustCompile(`"CreationDate":[0-9]{10}(\.[0-9]{1,3})?,`)
)

func TestCreateKey(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		before := time.Now().UnixMilli()
		answer := s.Post(t, "CreateKey", "{}")
		after := time.Now().UnixMilli()
		require.Equal(t, http.StatusOK, answer.Status)
		require.Regexp(t, dateForm, answer.Body)
		metadata := answer.JSON(t)["KeyMetadata"].(members)
		require.Equal(t, members{"KeyMetadata": wantMetadata(metadata, nil)}, answer.JSON(t))
		require.Regexp(t, keyIDForm, metadata["KeyId"])
		require.Regexp(t, materialIDForm, metadata["CurrentKeyMaterialId"])
		created := int64(metadata["CreationDate"].(float64)*1000 + 0.5)
		require.GreaterOrEqual(t, created, before)
		require.LessOrEqual(t, created, after)

		other := createKey(t, s, "")
		require.NotEqual(t, metadata["KeyId"], other["KeyId"])
		require.NotEqual(t, metadata["CurrentKeyMaterialId"], other["CurrentKeyMaterialId"])
	})
}

// TestCreateKeySDK reads the answer as AWS's client does, and uses the key at once.
func TestCreateKeySDK(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		out, err := s.Client().CreateKey(t.Context(), &kms.CreateKeyInput{
			Description: aws.String("by the SDK"), KeySpec: types.KeySpecSymmetricDefault, KeyUsage: types.KeyUsageTypeEncryptDecrypt,
			Origin: types.OriginTypeAwsKms, MultiRegion: aws.Bool(false), Tags: []types.Tag{{TagKey: aws.String("a"), TagValue: aws.String("b")}},
		})
		require.NoError(t, err)
		require.Equal(t, types.KeyStateEnabled, out.KeyMetadata.KeyState)
		require.Equal(t, "by the SDK", *out.KeyMetadata.Description)
		require.Equal(t, []types.EncryptionAlgorithmSpec{types.EncryptionAlgorithmSpecSymmetricDefault}, out.KeyMetadata.EncryptionAlgorithms)
		blob := s.Encrypt(t, *out.KeyMetadata.KeyId, []byte("hello"), nil)
		require.Equal(t, "hello", string(s.Decrypt(t, blob, nil)))
	})
}

func TestCreateKeyAccepts(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		policy := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"kms:*","Resource":"*"}]}`
		tags := func(n int) (list []map[string]string) {
			for i := range n {
				list = append(list, map[string]string{"TagKey": fmt.Sprint("k", i), "TagValue": "v"})
			}
			return list
		}
		for _, test := range []struct {
			name  string
			body  string
			other members
		}{
			{"all defaults by name", `{"KeySpec":"SYMMETRIC_DEFAULT","KeyUsage":"ENCRYPT_DECRYPT","Origin":"AWS_KMS","MultiRegion":false}`, nil},
			{"the deprecated spec", `{"CustomerMasterKeySpec":"SYMMETRIC_DEFAULT"}`, nil},
			{"nulls", `{"KeySpec":null,"KeyUsage":null,"Tags":null,"Policy":null,"Description":null}`, nil},
			{"a usage alone", `{"KeyUsage":"ENCRYPT_DECRYPT"}`, nil},
			{"an empty description", `{"Description":""}`, nil},
			{"a description", `{"Description":"<&> \"é😀\" \n\u2028"}`, members{"Description": "<&> \"é😀\" \n\u2028"}},
			{"the longest description", object(t, "Description", strings.Repeat("d", 8192)), members{"Description": strings.Repeat("d", 8192)}},
			{"the longest in pairs", object(t, "Description", strings.Repeat("😀", 4096)), members{"Description": strings.Repeat("😀", 4096)}},
			{"a policy", object(t, "Policy", policy), nil},
			{"a policy of one statement", object(t, "Policy", `{"Statement":{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}}`), nil},
			{"the longest policy", object(t, "Policy", longPolicy(t, 32768)), nil},
			{"a policy with white space", object(t, "Policy", "\t\r\n "+policy+"\n"), nil},
			{"a bypass", object(t, "Policy", policy, "BypassPolicyLockoutSafetyCheck", true), nil},
			{"a bypass of nothing", `{"BypassPolicyLockoutSafetyCheck":true}`, nil},
			{"no tags", `{"Tags":[]}`, nil},
			{"50 tags", object(t, "Tags", tags(50)), nil},
			{"a tag without value", `{"Tags":[{"TagKey":"k","TagValue":""}]}`, nil},
			{"the longest tag", object(t, "Tags", []map[string]string{{"TagKey": strings.Repeat("k", 128), "TagValue": strings.Repeat("v", 256)}}), nil},
			{"tags that differ in case", `{"Tags":[{"TagKey":"k","TagValue":""},{"TagKey":"K","TagValue":""}]}`, nil},
			{"almost a reserved tag", `{"Tags":[{"TagKey":"aws","TagValue":"aws:"},{"TagKey":"awsx:","TagValue":""},{"TagKey":"xaws:","TagValue":""}]}`, nil},
		} {
			t.Run(test.name, func(t *testing.T) {
				metadata := createKey(t, s, test.body)
				require.Equal(t, wantMetadata(metadata, test.other), metadata)
				require.Equal(t, members{"KeyMetadata": metadata}, accept(t, s, "DescribeKey", object(t, "KeyId", metadata["KeyId"])))
			})
		}
	})
}

// TestCreateExternalKey makes keys that wait for their material. Nothing is made on the token.
func TestCreateExternalKey(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		awaitCalm(t, s)
		generated := s.Calls(t)["C_GenerateKey"]
		for _, body := range []string{`{"Origin":"EXTERNAL"}`, `{"Origin":"EXTERNAL","Tags":[{"TagKey":"k","TagValue":"v"}]}`} {
			metadata := createKey(t, s, body)
			want := wantMetadata(metadata, members{"Origin": "EXTERNAL", "Enabled": false, "KeyState": "PendingImport"})
			delete(want, "CurrentKeyMaterialId")
			require.Equal(t, want, metadata)
			require.Equal(t, metadata, accept(t, s, "DescribeKey", object(t, "KeyId", metadata["KeyId"]))["KeyMetadata"])
		}
		require.Equal(t, generated, s.Calls(t)["C_GenerateKey"])
	})
}

func TestCreateKeyMultiRegion(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		metadata := createKey(t, s, `{"MultiRegion":true}`)
		id := metadata["KeyId"].(string)
		require.Regexp(t, mrkForm, id)
		require.Equal(t, wantMetadata(metadata, members{
			"MultiRegion": true,
			"MultiRegionConfiguration": members{
				"MultiRegionKeyType": "PRIMARY",
				"PrimaryKey":         members{"Arn": kmstest.KeyARN(id), "Region": kmstest.Region},
				"ReplicaKeys":        []any{},
			},
		}), metadata)
		require.Equal(t, members{"KeyMetadata": metadata}, accept(t, s, "DescribeKey", object(t, "KeyId", id)))
		require.Equal(t, "x", string(s.Decrypt(t, s.Encrypt(t, id, []byte("x"), nil), nil)))
	})
}

// usages says what keys of each spec are for, as AWS's developer guide has it.
var usages = map[string][]string{
	"SYMMETRIC_DEFAULT":     {"ENCRYPT_DECRYPT"},
	"RSA_2048":              {"ENCRYPT_DECRYPT", "SIGN_VERIFY"},
	"RSA_3072":              {"ENCRYPT_DECRYPT", "SIGN_VERIFY"},
	"RSA_4096":              {"ENCRYPT_DECRYPT", "SIGN_VERIFY"},
	"ECC_NIST_P256":         {"SIGN_VERIFY", "KEY_AGREEMENT"},
	"ECC_NIST_P384":         {"SIGN_VERIFY", "KEY_AGREEMENT"},
	"ECC_NIST_P521":         {"SIGN_VERIFY", "KEY_AGREEMENT"},
	"ECC_SECG_P256K1":       {"SIGN_VERIFY"},
	"ECC_NIST_EDWARDS25519": {"SIGN_VERIFY"},
	"HMAC_224":              {"GENERATE_VERIFY_MAC"},
	"HMAC_256":              {"GENERATE_VERIFY_MAC"},
	"HMAC_384":              {"GENERATE_VERIFY_MAC"},
	"HMAC_512":              {"GENERATE_VERIFY_MAC"},
	"ML_DSA_44":             {"SIGN_VERIFY"},
	"ML_DSA_65":             {"SIGN_VERIFY"},
	"ML_DSA_87":             {"SIGN_VERIFY"},
	"SM2":                   {"ENCRYPT_DECRYPT", "SIGN_VERIFY", "KEY_AGREEMENT"},
}

// TestCreateKeySpecs tries every spec of the model, under both names, with every usage and none.
func TestCreateKeySpecs(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		specs := enum(t, "KeySpec")
		require.ElementsMatch(t, slices.Collect(maps.Keys(usages)), specs)
		for _, member := range []string{"KeySpec", "CustomerMasterKeySpec"} {
			for _, spec := range enum(t, member) {
				for _, usage := range enum(t, "KeyUsageType") {
					if strings.HasPrefix(spec, "RSA_") && carried(spec, usage) {
						continue // they take long to make: see TestKeySpecMetadata
					}
					answer := s.Post(t, "CreateKey", object(t, member, spec, "KeyUsage", usage))
					switch {
					case !slices.Contains(usages[spec], usage):
						answer.RequireRefusal(t, "ValidationException", "KeyUsage "+usage+" is not compatible with KeySpec "+spec)
					case spec == "SM2":
						answer.RequireRefusal(t, "UnsupportedOperationException", "KeySpec SM2 is not supported.")
					case carried(spec, usage):
						require.Equal(t, http.StatusOK, answer.Status)
					default:
						answer.RequireRefusal(t, "UnsupportedOperationException",
							"KeySpec "+spec+" with KeyUsage "+usage+" is not supported by the HSM token of this Region.")
					}
				}
				if spec != "SYMMETRIC_DEFAULT" {
					s.Post(t, "CreateKey", object(t, member, spec)).RequireRefusal(t, "ValidationException",
						"You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.")
				}
			}
		}
	})
}

func TestCreateKeyRefusals(t *testing.T) {
	const (
		bothSpecs = "You cannot specify KeySpec and CustomerMasterKeySpec in the same request. CustomerMasterKeySpec is deprecated."
		xksOnly   = "XksKeyId is only valid for keys with an Origin of EXTERNAL_KEY_STORE."
		storeOnly = "CustomKeyStoreId is only valid for keys with an Origin of AWS_CLOUDHSM or EXTERNAL_KEY_STORE."
	)
	each(t, func(t *testing.T, s *kmstest.Server) {
		for _, test := range []struct{ name, body, code, message string }{
			{"both specs", `{"KeySpec":"SYMMETRIC_DEFAULT","CustomerMasterKeySpec":"SYMMETRIC_DEFAULT"}`, "ValidationException", bothSpecs},
			{"an unknown spec, before the usage", `{"KeySpec":"HMAC_random"}`, "ValidationException", violated("HMAC_random", "keySpec", enumText(t, "KeySpec"))},
			{"an empty spec", `{"KeySpec":""}`, "ValidationException", violated("", "keySpec", enumText(t, "KeySpec"))},
			{"a spec in lower case", `{"KeySpec":"symmetric_default"}`, "ValidationException", violated("symmetric_default", "keySpec", enumText(t, "KeySpec"))},
			{"an unknown deprecated spec", `{"CustomerMasterKeySpec":"ML_DSA_44"}`, "ValidationException", violated("ML_DSA_44", "customerMasterKeySpec", enumText(t, "CustomerMasterKeySpec"))},
			{"an unknown usage", `{"KeyUsage":"RANDOM"}`, "ValidationException", violated("RANDOM", "keyUsage", enumText(t, "KeyUsageType"))},
			{"a usage without spec", `{"KeyUsage":"SIGN_VERIFY"}`, "ValidationException", "KeyUsage SIGN_VERIFY is not compatible with KeySpec SYMMETRIC_DEFAULT"},
			{"an unknown origin", `{"Origin":"HSM"}`, "ValidationException", violated("HSM", "origin", enumText(t, "OriginType"))},
			{"import of an ML-DSA key", `{"Origin":"EXTERNAL","KeySpec":"ML_DSA_44","KeyUsage":"SIGN_VERIFY"}`, "UnsupportedOperationException",
				"KeySpec ML_DSA_44 is not supported for imported key material."},
			{"import of an SM2 key", `{"Origin":"EXTERNAL","KeySpec":"SM2","KeyUsage":"SIGN_VERIFY"}`, "UnsupportedOperationException", "KeySpec SM2 is not supported."},
			{"a store for import", `{"Origin":"EXTERNAL","CustomKeyStoreId":"cks-1"}`, "ValidationException", storeOnly},
			{"CloudHSM without store", `{"Origin":"AWS_CLOUDHSM"}`, "ValidationException", "CustomKeyStoreId is required for keys with an Origin of AWS_CLOUDHSM."},
			{"CloudHSM", `{"Origin":"AWS_CLOUDHSM","CustomKeyStoreId":"cks-1"}`, "CustomKeyStoreNotFoundException", "The custom key store cks-1 does not exist."},
			{"an external store without id", `{"Origin":"EXTERNAL_KEY_STORE","XksKeyId":"x"}`, "ValidationException", "CustomKeyStoreId is required for keys with an Origin of EXTERNAL_KEY_STORE."},
			{"an external store", `{"Origin":"EXTERNAL_KEY_STORE","CustomKeyStoreId":"cks-1","XksKeyId":"x"}`, "CustomKeyStoreNotFoundException", "The custom key store cks-1 does not exist."},
			{"a store without origin", `{"CustomKeyStoreId":"cks-1"}`, "ValidationException", storeOnly},
			{"a store of KMS itself", `{"Origin":"AWS_KMS","CustomKeyStoreId":"cks-1"}`, "ValidationException", storeOnly},
			{"an empty store", `{"CustomKeyStoreId":""}`, "ValidationException", violated("", "customKeyStoreId", "have length greater than or equal to 1")},
			{"a long store", object(t, "CustomKeyStoreId", strings.Repeat("s", 65)), "ValidationException", violated(strings.Repeat("s", 65), "customKeyStoreId", "have length less than or equal to 64")},
			{"an external key without origin", `{"XksKeyId":"x"}`, "ValidationException", xksOnly},
			{"an external key of CloudHSM", `{"Origin":"AWS_CLOUDHSM","CustomKeyStoreId":"c","XksKeyId":"x"}`, "ValidationException", xksOnly},
			{"a bad external key", `{"XksKeyId":"x y"}`, "ValidationException", violated("x y", "xksKeyId", "satisfy regular expression pattern: ^[a-zA-Z0-9-_.]+$")},
			{"a long description", object(t, "Description", strings.Repeat("d", 8193)), "ValidationException", violated(strings.Repeat("d", 8193), "description", "have length less than or equal to 8192")},
			{"a long description of pairs", object(t, "Description", strings.Repeat("😀", 4097)), "ValidationException", violated(strings.Repeat("😀", 4097), "description", "have length less than or equal to 8192")},
			{"text for a truth", `{"MultiRegion":"true"}`, "SerializationException", "STRING_VALUE can not be converted to a Boolean"},
			{"a number for a truth", `{"BypassPolicyLockoutSafetyCheck":1}`, "SerializationException", "NUMBER_VALUE can not be converted to a Boolean"},
		} {
			t.Run(test.name, func(t *testing.T) { s.Post(t, "CreateKey", test.body).RequireRefusal(t, test.code, test.message) })
		}
	})
}

func TestCreateKeyPolicies(t *testing.T) {
	const charset = `satisfy regular expression pattern: [\u0009\u000A\u000D\u0020-\u00FF]+`
	each(t, func(t *testing.T, s *kmstest.Server) {
		for policy, message := range malformedPolicies {
			for _, bypass := range []bool{false, true} {
				s.Post(t, "CreateKey", object(t, "Policy", policy, "BypassPolicyLockoutSafetyCheck", bypass)).
					RequireRefusal(t, "MalformedPolicyDocumentException", message)
			}
		}
		for _, policy := range lockingPolicies {
			s.Post(t, "CreateKey", object(t, "Policy", policy)).RequireRefusal(t, "MalformedPolicyDocumentException", textLockedOut)
			id := createKey(t, s, object(t, "Policy", policy, "BypassPolicyLockoutSafetyCheck", true))["KeyId"].(string)
			requirePut(t, s, id, policy)
		}
		s.Post(t, "CreateKey", object(t, "Policy", longPolicy(t, 32769))).
			RequireRefusal(t, "LimitExceededException", "The key policy has 32769 bytes; the maximum is 32768.")
		long := `{"Statement":[` + strings.Repeat(" ", 131072) + `]}`
		for _, test := range []struct{ policy, constraint string }{
			{long, "have length less than or equal to 131072"},
			{`{"Statement":["Ā"]}`, charset},
			{"{\"Statement\":[\x00]}", charset},
			{"{\"Statement\":[\x0b]}", charset},
		} {
			s.Post(t, "CreateKey", object(t, "Policy", test.policy)).RequireRefusal(t, "ValidationException", violated(test.policy, "policy", test.constraint))
		}
		s.Post(t, "CreateKey", `{"Policy":""}`).RequireRefusal(t, "ValidationException",
			"2 validation errors detected: Value '' at 'policy' failed to satisfy constraint: Member must have length greater than or equal to 1; "+
				"Value '' at 'policy' failed to satisfy constraint: Member must "+charset)
	})
}

func TestCreateKeyTags(t *testing.T) {
	const reserved, duplicate = "Tags beginning with aws: are reserved", "Duplicate tag keys"
	each(t, func(t *testing.T, s *kmstest.Server) {
		many := make([]map[string]string, 51)
		for i := range many {
			many[i] = map[string]string{"TagKey": fmt.Sprint("k", i), "TagValue": "v"}
		}
		key, value := strings.Repeat("k", 129), strings.Repeat("v", 257)
		for _, test := range []struct{ name, body, code, message string }{
			{"51 tags", object(t, "Tags", many), "TagException", "Too many tags"},
			{"a reserved tag", `{"Tags":[{"TagKey":"k","TagValue":"v"},{"TagKey":"aws:k","TagValue":"v"}]}`, "TagException", reserved},
			{"a reserved tag in capitals", `{"Tags":[{"TagKey":"AWS:key1","TagValue":"v"}]}`, "TagException", reserved},
			{"a reserved tag in both", `{"Tags":[{"TagKey":"aWs:","TagValue":"v"}]}`, "TagException", reserved},
			{"a tag twice", `{"Tags":[{"TagKey":"k","TagValue":"v"},{"TagKey":"k","TagValue":"w"}]}`, "TagException", duplicate},
			{"a long key", object(t, "Tags", []map[string]string{{"TagKey": key, "TagValue": ""}}), "ValidationException", violated(key, "tags.1.member.tagKey", "have length less than or equal to 128")},
			{"a long value", `{"Tags":[{"TagKey":"a","TagValue":""},{"TagKey":"b","TagValue":"` + value + `"}]}`, "ValidationException", violated(value, "tags.2.member.tagValue", "have length less than or equal to 256")},
			{"an empty key", `{"Tags":[{"TagKey":"","TagValue":"v"}]}`, "ValidationException", violated("", "tags.1.member.tagKey", "have length greater than or equal to 1")},
			{"no value", `{"Tags":[{"TagKey":"k"}]}`, "ValidationException", missing("tags.1.member.tagValue")},
			{"no key", `{"Tags":[{"TagValue":"v"}]}`, "ValidationException", missing("tags.1.member.tagKey")},
			{"a null", `{"Tags":[null]}`, "ValidationException", missing("tags.1.member")},
			{"an object", `{"Tags":{"k":"v"}}`, "SerializationException", "Start of structure or map found where not expected."},
			{"text", `{"Tags":["k"]}`, "SerializationException", "Unexpected field type"},
		} {
			t.Run(test.name, func(t *testing.T) { s.Post(t, "CreateKey", test.body).RequireRefusal(t, test.code, test.message) })
		}
	})
}

// TestCreateKeyRefusedLeavesNothing checks that a refused request makes neither a key nor material on the token.
func TestCreateKeyRefusedLeavesNothing(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		awaitCalm(t, s)
		keys, generated := allKeys(t, s, 1000), s.Calls(t)["C_GenerateKey"]
		for _, body := range []string{
			`{"Origin":"HSM"}`, `{"KeySpec":"SM2","KeyUsage":"SIGN_VERIFY"}`, `{"Policy":"x"}`,
			`{"Tags":[{"TagKey":"aws:","TagValue":""}]}`, `{"KeySpec":"x"}`, `{`,
		} {
			require.Equal(t, http.StatusBadRequest, s.Post(t, "CreateKey", body).Status)
		}
		require.Equal(t, keys, allKeys(t, s, 1000))
		require.Equal(t, generated, s.Calls(t)["C_GenerateKey"])
		id := s.NewKey(t)
		require.Equal(t, generated+1, s.Calls(t)["C_GenerateKey"])
		require.ElementsMatch(t, append(keys, id), allKeys(t, s, 1000))
	})
}
