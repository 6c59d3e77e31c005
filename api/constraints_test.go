package api

import (
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/kms"
)

// TestValidation pins the sentences for failed constraints.
func TestValidation(t *testing.T) {
	const (
		one  = "1 validation error detected: "
		null = " failed to satisfy constraint: Member must not be null"
		enum = " failed to satisfy constraint: Member must satisfy enum value set: "
		algs = "[SYMMETRIC_DEFAULT, RSAES_OAEP_SHA_1, RSAES_OAEP_SHA_256, SM2PKE]"
	)
	long := strings.Repeat("k", 129)
	for _, test := range []struct {
		name      string
		operation string
		body      string
		text      string
	}{
		{"one member missing", "ReEncrypt", ``, one + "Value at 'destinationKeyId'" + null},
		{"a member null", "ReEncrypt", `{"DestinationKeyId":null}`, one + "Value at 'destinationKeyId'" + null},
		{
			"members missing, in the model's order", "CreateGrant", `{}`,
			"3 validation errors detected: Value at 'keyId'" + null + "; Value at 'granteePrincipal'" + null + "; Value at 'operations'" + null,
		},
		{
			"required members first", "Encrypt", `{"EncryptionAlgorithm":"ROT13","Plaintext":""}`,
			"3 validation errors detected: Value at 'keyId'" + null +
				"; Value at 'plaintext' failed to satisfy constraint: Member must have length greater than or equal to 1" +
				"; Value 'ROT13' at 'encryptionAlgorithm'" + enum + algs,
		},
		{"an empty string", "ReEncrypt", `{"DestinationKeyId":""}`, one + "Value '' at 'destinationKeyId' failed to satisfy constraint: Member must have length greater than or equal to 1"},
		{"a number too small", "GenerateRandom", `{"NumberOfBytes":0}`, one + "Value '0' at 'numberOfBytes' failed to satisfy constraint: Member must have value greater than or equal to 1"},
		{"a number too big", "GenerateRandom", `{"NumberOfBytes":1025}`, one + "Value '1025' at 'numberOfBytes' failed to satisfy constraint: Member must have value less than or equal to 1024"},
		{"a negative number", "ListKeys", `{"Limit":-1}`, one + "Value '-1' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1"},
		{"an unknown value", "CreateKey", `{"KeyUsage":"RANDOM"}`, one + "Value 'RANDOM' at 'keyUsage'" + enum + "[SIGN_VERIFY, ENCRYPT_DECRYPT, GENERATE_VERIFY_MAC, KEY_AGREEMENT]"},
		{"an empty enum", "CreateKey", `{"KeyUsage":""}`, one + "Value '' at 'keyUsage'" + enum + "[SIGN_VERIFY, ENCRYPT_DECRYPT, GENERATE_VERIFY_MAC, KEY_AGREEMENT]"},
		{"another case", "CreateKey", `{"Origin":"aws_kms"}`, one + "Value 'aws_kms' at 'origin'" + enum + "[AWS_KMS, EXTERNAL, AWS_CLOUDHSM, EXTERNAL_KEY_STORE]"},
		{
			"a pattern", "CreateKey", `{"XksKeyId":"a b"}`,
			one + "Value 'a b' at 'xksKeyId' failed to satisfy constraint: Member must satisfy regular expression pattern: ^[a-zA-Z0-9-_.]+$",
		},
		{
			"a pattern as the model has it", "ListKeys", `{"Marker":"\u0100"}`,
			one + "Value '\u0100' at 'marker' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\u0020-\\u00FF]*",
		},
		{
			"two constraints on one value", "CreateKey", `{"Policy":""}`,
			"2 validation errors detected: Value '' at 'policy' failed to satisfy constraint: Member must have length greater than or equal to 1" +
				"; Value '' at 'policy' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\u0009\\u000A\\u000D\\u0020-\\u00FF]+",
		},
		{
			"a tag key", "CreateKey", `{"Tags":[{"TagKey":"` + long + `","TagValue":"v"}]}`,
			one + "Value '" + long + "' at 'tags.1.member.tagKey' failed to satisfy constraint: Member must have length less than or equal to 128",
		},
		{
			"a tag value", "CreateKey", `{"Tags":[{"TagKey":"k","TagValue":"v"},{"TagKey":"k","TagValue":"` + long + long + `"}]}`,
			one + "Value '" + long + long + "' at 'tags.2.member.tagValue' failed to satisfy constraint: Member must have length less than or equal to 256",
		},
		{
			"a tag without value and no tag", "CreateKey", `{"Tags":[{"TagKey":"k"},null]}`,
			"2 validation errors detected: Value at 'tags.1.member.tagValue'" + null + "; Value at 'tags.2.member'" + null,
		},
		{
			"a blob too long", "Encrypt", `{"KeyId":"k","Plaintext":"` + strings.Repeat("AAAA", 1366) + `"}`,
			one + "Value at 'plaintext' failed to satisfy constraint: Member must have length less than or equal to 4096",
		},
		{
			"a nested enum", "GenerateRandom", `{"Recipient":{"KeyEncryptionAlgorithm":"x","AttestationDocument":""}}`,
			"2 validation errors detected: Value at 'recipient.attestationDocument' failed to satisfy constraint: Member must have length greater than or equal to 1" +
				"; Value 'x' at 'recipient.keyEncryptionAlgorithm'" + enum + "[RSAES_OAEP_SHA_256]",
		},
		{
			"an unknown list value", "ReEncrypt", `{"DestinationKeyId":"d","DryRunModifiers":["FOO"]}`,
			one + "Value '[FOO]' at 'dryRunModifiers' failed to satisfy constraint: Member must satisfy constraint: [Member must satisfy enum value set: [IGNORE_CIPHERTEXT]]",
		},
		{
			"several list values", "UntagResource", `{"KeyId":"k","TagKeys":["a","","\u0062"]}`,
			one + "Value '[a, , b]' at 'tagKeys' failed to satisfy constraint: Member must satisfy constraint: " +
				"[Member must have length less than or equal to 128, Member must have length greater than or equal to 1]",
		},
		{
			"a null in a list", "UntagResource", `{"KeyId":"k","TagKeys":["a",null]}`,
			one + "Value '[a, null]' at 'tagKeys' failed to satisfy constraint: Member must satisfy constraint: [Member must not be null]",
		},
		{
			"a list too long, of tokens, which are not shown", "Encrypt", `{"KeyId":"k","Plaintext":"AA==","GrantTokens":["1","2","3","4","5","6","7","8","9","0",""]}`,
			"2 validation errors detected: Value at 'grantTokens' failed to satisfy constraint: Member must have length less than or equal to 10" +
				"; Value at 'grantTokens' failed to satisfy constraint: Member must satisfy constraint: " +
				"[Member must have length less than or equal to 8192, Member must have length greater than or equal to 1]",
		},
		{
			"a null in a map", "CreateGrant", `{"KeyId":"k","GranteePrincipal":"p","Operations":[],"Constraints":{"EncryptionContextEquals":{"a":"b","\u0063":null}}}`,
			one + "Value at 'constraints.encryptionContextEquals.c.member'" + null,
		},
		{"the last of two members", "ListKeys", `{"Limit":1,"Limit":0}`, one + "Value '0' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1"},
		{"percent signs", "CreateKey", `{"KeySpec":"%s%d"}`, one + "Value '%s%d' at 'keySpec'" + enum + "[RSA_2048, RSA_3072, RSA_4096, ECC_NIST_P256, ECC_NIST_P384, ECC_NIST_P521, ECC_SECG_P256K1, SYMMETRIC_DEFAULT, HMAC_224, HMAC_256, HMAC_384, HMAC_512, SM2, ML_DSA_44, ML_DSA_65, ML_DSA_87, ECC_NIST_EDWARDS25519]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := decodeAs(t, test.operation, test.body)
			requireError(t, err, kms.Validation, test.text)
			require.Zero(t, got)
		})
	}
}

// TestSensitiveValuesStayHidden: what the model calls sensitive is in no text, alone or in a list.
func TestSensitiveValuesStayHidden(t *testing.T) {
	m := published(t)
	d, err := newDecoder(m, "CreateCustomKeyStore", goType(m, m.Operations["CreateCustomKeyStore"].Input))
	require.NoError(t, err)
	err = d.decode([]byte(`{"CustomKeyStoreName":"n","KeyStorePassword":"hunter","XksProxyAuthenticationCredential":{"AccessKeyId":"a","RawSecretAccessKey":"`+strings.Repeat("!", 43)+`"}}`), reflect.New(d.input).Interface())
	requireError(t, err, kms.Validation, "4 validation errors detected: "+
		"Value at 'keyStorePassword' failed to satisfy constraint: Member must have length greater than or equal to 7; "+
		"Value at 'xksProxyAuthenticationCredential.accessKeyId' failed to satisfy constraint: Member must have length greater than or equal to 20; "+
		"Value at 'xksProxyAuthenticationCredential.accessKeyId' failed to satisfy constraint: Member must satisfy regular expression pattern: ^[A-Z2-7]+$; "+
		`Value at 'xksProxyAuthenticationCredential.rawSecretAccessKey' failed to satisfy constraint: Member must satisfy regular expression pattern: ^[a-zA-Z0-9\/+=]+$`)

	m = modelWith(t, `{"type": "list", "member": {"shape": "Short"}}`)
	m.Shapes["Short"].Sensitive = true
	d, err = newDecoder(m, "Op", reflect.TypeFor[struct{ M []string }]())
	require.NoError(t, err)
	err = d.decode([]byte(`{"M":["hunter"]}`), reflect.New(d.input).Interface())
	requireError(t, err, kms.Validation, "1 validation error detected: Value at 'm' failed to satisfy constraint: "+
		"Member must satisfy constraint: [Member must have length less than or equal to 1]")
}

// TestViolationsAreBounded: a small request cannot ask for a huge answer.
func TestViolationsAreBounded(t *testing.T) {
	_, err := decodeAs(t, "CreateKey", `{"Tags":[{}`+strings.Repeat(",{}", 50_000)+`]}`)
	var e *kms.Error
	require.ErrorAs(t, err, &e)
	require.True(t, strings.HasPrefix(e.Message, "100 validation errors detected: Value at 'tags.1.member.tagKey'"))
	require.Equal(t, 100, strings.Count(e.Message, "must not be null"))
}

func TestUTF16Length(t *testing.T) {
	for s, want := range map[string]int64{"": 0, "a": 1, "é": 1, "€": 1, "\uFFFF": 1, "😀": 2, "a😀é": 4, "\U0010FFFF": 2} {
		require.Equal(t, want, utf16Length(s), s)
	}
	description := strings.Repeat("😀", 4096)
	_, err := decodeAs(t, "CreateKey", `{"Description":"`+description+`"}`)
	require.NoError(t, err)
	_, err = decodeAs(t, "CreateKey", `{"Description":"`+description+`a"}`)
	requireError(t, err, kms.Validation, "1 validation error detected: Value '"+description+"a' at 'description' failed to satisfy constraint: Member must have length less than or equal to 8192")
}

func TestLowerCamel(t *testing.T) {
	for name, want := range map[string]string{"KeyId": "keyId", "XksKeyId": "xksKeyId", "CloudHsmClusterId": "cloudHsmClusterId", "AWSAccountId": "AWSAccountId", "M": "m"} {
		require.Equal(t, want, lowerCamel(name))
	}
}
