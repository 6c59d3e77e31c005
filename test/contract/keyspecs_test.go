package contract

import (
	"maps"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// keySpec is what keys of a spec are in one usage, as AWS shows it.
type keySpec struct {
	spec, usage string
	algorithms  []any
}

// algorithmMember names the member that lists the algorithms of keys, by their usage.
var algorithmMember = map[string]string{
	"ENCRYPT_DECRYPT": "EncryptionAlgorithms", "SIGN_VERIFY": "SigningAlgorithms", "GENERATE_VERIFY_MAC": "MacAlgorithms", "KEY_AGREEMENT": "KeyAgreementAlgorithms",
}

var (
	oaepAlgorithms = []any{"RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256"}
	rsaAlgorithms  = []any{
		"RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PKCS1_V1_5_SHA_384", "RSASSA_PKCS1_V1_5_SHA_512", "RSASSA_PSS_SHA_256", "RSASSA_PSS_SHA_384", "RSASSA_PSS_SHA_512",
	}
	// pairSpecs are the specs and usages of key pairs that SoftHSM 2.6.1 can carry.
	pairSpecs = []keySpec{
		{"RSA_2048", "ENCRYPT_DECRYPT", oaepAlgorithms}, {"RSA_2048", "SIGN_VERIFY", rsaAlgorithms},
		{"RSA_3072", "ENCRYPT_DECRYPT", oaepAlgorithms}, {"RSA_3072", "SIGN_VERIFY", rsaAlgorithms},
		{"RSA_4096", "ENCRYPT_DECRYPT", oaepAlgorithms}, {"RSA_4096", "SIGN_VERIFY", rsaAlgorithms},
		{"ECC_NIST_P256", "SIGN_VERIFY", []any{"ECDSA_SHA_256"}}, {"ECC_NIST_P256", "KEY_AGREEMENT", []any{"ECDH"}},
		{"ECC_NIST_P384", "SIGN_VERIFY", []any{"ECDSA_SHA_384"}}, {"ECC_NIST_P384", "KEY_AGREEMENT", []any{"ECDH"}},
		{"ECC_NIST_P521", "SIGN_VERIFY", []any{"ECDSA_SHA_512"}}, {"ECC_NIST_P521", "KEY_AGREEMENT", []any{"ECDH"}},
		{"ECC_SECG_P256K1", "SIGN_VERIFY", []any{"ECDSA_SHA_256"}},
		{"ECC_NIST_EDWARDS25519", "SIGN_VERIFY", []any{"ED25519_SHA_512", "ED25519_PH_SHA_512"}},
	}
	hmacSpecs = []keySpec{
		{"HMAC_224", "GENERATE_VERIFY_MAC", []any{"HMAC_SHA_224"}}, {"HMAC_256", "GENERATE_VERIFY_MAC", []any{"HMAC_SHA_256"}},
		{"HMAC_384", "GENERATE_VERIFY_MAC", []any{"HMAC_SHA_384"}}, {"HMAC_512", "GENERATE_VERIFY_MAC", []any{"HMAC_SHA_512"}},
	}
	// softHSMSpecs are those of all keys beside symmetric ones.
	softHSMSpecs = append(append([]keySpec{}, pairSpecs...), hmacSpecs...)
)

// carried tells whether SoftHSM carries keys of a spec in a usage.
func carried(spec, usage string) bool {
	for _, k := range softHSMSpecs {
		if k.spec == spec && k.usage == usage {
			return true
		}
	}
	return spec == "SYMMETRIC_DEFAULT"
}

// TestKeySpecMetadata compares the metadata of keys of every spec, in CreateKey's answer and in DescribeKey's.
func TestKeySpecMetadata(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for _, spec := range softHSMSpecs {
			spec.requireMetadata(t, s, sharedMetadata(t, s, spec.spec, spec.usage), nil)
		}
	})
}

func TestKeySpecMultiRegion(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for _, spec := range []keySpec{pairSpecs[0], pairSpecs[6], pairSpecs[7], hmacSpecs[1]} {
			metadata := createKey(t, s, object(t, "KeySpec", spec.spec, "KeyUsage", spec.usage, "MultiRegion", true))
			id := metadata["KeyId"].(string)
			require.Regexp(t, mrkForm, id)
			spec.requireMetadata(t, s, metadata, members{"MultiRegion": true, "MultiRegionConfiguration": members{
				"MultiRegionKeyType": "PRIMARY", "PrimaryKey": members{"Arn": kmstest.KeyARN(id), "Region": kmstest.Region}, "ReplicaKeys": []any{},
			}})
		}
	})
}

func (k keySpec) requireMetadata(t *testing.T, s *kmstest.Server, metadata, other members) {
	t.Helper()
	want := wantMetadata(metadata, members{"KeySpec": k.spec, "CustomerMasterKeySpec": k.spec, "KeyUsage": k.usage})
	delete(want, "CurrentKeyMaterialId")
	delete(want, "EncryptionAlgorithms")
	want[algorithmMember[k.usage]] = k.algorithms
	maps.Copy(want, other)
	require.Equal(t, want, metadata)
	require.Equal(t, members{"KeyMetadata": metadata}, accept(t, s, "DescribeKey", object(t, "KeyId", metadata["KeyId"])))
}

// TestKeySpecLife leads keys of every sort through what can happen to any key.
func TestKeySpecLife(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for _, spec := range []keySpec{pairSpecs[0], pairSpecs[6], pairSpecs[7], hmacSpecs[1]} {
			id := createKey(t, s, object(t, "KeySpec", spec.spec, "KeyUsage", spec.usage, "Tags", []members{{"TagKey": "a", "TagValue": "b"}}))["KeyId"].(string)
			name := newAlias(t, s, id)
			require.Equal(t, []string{name}, aliasesOf(t, s, id))
			require.Equal(t, []string{"a"}, column(list(t, accept(t, s, "ListResourceTags", object(t, "KeyId", id)), "Tags"), "TagKey"))
			perform(t, s, "UntagResource", object(t, "KeyId", id, "TagKeys", []string{"a"}))
			perform(t, s, "UpdateKeyDescription", object(t, "KeyId", id, "Description", "new"))
			policy := accept(t, s, "GetKeyPolicy", object(t, "KeyId", id))["Policy"]
			perform(t, s, "PutKeyPolicy", object(t, "KeyId", id, "Policy", policy))
			require.Empty(t, lastUsage(t, s, id))

			const unsupported = "UnsupportedOperationException"
			for _, operation := range []string{"EnableKeyRotation", "DisableKeyRotation", "GetKeyRotationStatus", "RotateKeyOnDemand", "ListKeyRotations"} {
				s.Post(t, operation, object(t, "KeyId", id)).RequireRefusal(t, unsupported, "")
			}
			s.Post(t, "GetParametersForImport", object(t, "KeyId", id, "WrappingAlgorithm", "RSAES_OAEP_SHA_1", "WrappingKeySpec", "RSA_2048")).
				RequireRefusal(t, unsupported, kmstest.KeyARN(id)+" origin is AWS_KMS which is not valid for this operation.")
			setEnabled(t, s, id, false)
			for _, operation := range []string{"EnableKeyRotation", "DisableKeyRotation", "RotateKeyOnDemand"} {
				s.Post(t, operation, object(t, "KeyId", id)).RequireRefusal(t, "DisabledException", kmstest.KeyARN(id)+" is disabled.")
			}
			scheduleDeletion(t, s, id)
			require.Equal(t, "PendingDeletion", describe(t, s, id)["KeyState"])
			accept(t, s, "CancelKeyDeletion", object(t, "KeyId", id))
			setEnabled(t, s, id, true)
			require.Equal(t, "new", describe(t, s, id)["Description"])
		}
	})
}
