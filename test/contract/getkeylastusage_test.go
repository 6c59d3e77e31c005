package contract

import (
	"maps"
	"math"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// lastUsage gives the KeyLastUsage of a key, and checks all that is beside it.
func lastUsage(t testing.TB, s *kmstest.Server, id string) members {
	t.Helper()
	answer := accept(t, s, "GetKeyLastUsage", object(t, "KeyId", id))
	created := accept(t, s, "DescribeKey", object(t, "KeyId", id))["KeyMetadata"].(members)["CreationDate"]
	usage, ok := answer["KeyLastUsage"].(members)
	require.True(t, ok, "%v", answer)
	require.Equal(t, members{"KeyId": id, "KeyCreationDate": created, "TrackingStartDate": created, "KeyLastUsage": usage}, answer)
	return usage
}

// requireUsed sends a request, which must succeed, and checks that it is the last use of keys.
func requireUsed(t *testing.T, s *kmstest.Server, operation, body string, ids ...string) members {
	t.Helper()
	start := milliseconds(time.Now())
	answer := s.Post(t, operation, body)
	end := milliseconds(time.Now())
	require.Equal(t, http.StatusOK, answer.Status, answer.Body)
	for _, id := range ids {
		usage := lastUsage(t, s, id)
		at, ok := usage["Timestamp"].(float64)
		require.True(t, ok, "%v", usage)
		request := answer.Header.Get("X-Amzn-Requestid")
		require.Equal(t, members{
			"Operation": operation, "KmsRequestId": request, "CloudTrailEventId": recordOf(t, s, request)["eventID"], "Timestamp": at,
		}, usage)
		require.GreaterOrEqual(t, math.Round(1000*at), start)
		require.LessOrEqual(t, math.Round(1000*at), end)
	}
	return answer.JSON(t)
}

func milliseconds(at time.Time) float64 { return float64(at.UnixMilli()) }

// TestGetKeyLastUsage uses a key in every way.
func TestGetKeyLastUsage(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id, other, unused := s.NewKey(t), s.NewKey(t), s.NewKey(t)
		require.Empty(t, lastUsage(t, s, id))
		blob := requireUsed(t, s, "Encrypt", object(t, "KeyId", id, "Plaintext", []byte("x")), id)["CiphertextBlob"]
		requireUsed(t, s, "Decrypt", object(t, "CiphertextBlob", blob), id)
		requireUsed(t, s, "GenerateDataKey", object(t, "KeyId", id, "KeySpec", "AES_256"), id)
		requireUsed(t, s, "GenerateDataKeyWithoutPlaintext", object(t, "KeyId", id, "KeySpec", "AES_128"), id)
		require.Empty(t, lastUsage(t, s, other))
		requireUsed(t, s, "ReEncrypt", object(t, "CiphertextBlob", blob, "DestinationKeyId", other), id, other)
		alias := newAlias(t, s, other)
		requireUsed(t, s, "Encrypt", object(t, "KeyId", alias, "Plaintext", []byte("x")), other)
		accept(t, s, "GetKeyLastUsage", object(t, "KeyId", kmstest.KeyARN(other)))
		require.Empty(t, lastUsage(t, s, unused))
	})
}

// TestGetKeyLastUsageOfKeys uses keys of every sort in every way that is counted.
func TestGetKeyLastUsageOfKeys(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		symmetric, signs, macs := s.NewKey(t), newKeyOf(t, s, "ECC_NIST_P256", "SIGN_VERIFY"), newKeyOf(t, s, "HMAC_256", "GENERATE_VERIFY_MAC")
		agrees, encrypts := newKeyOf(t, s, "ECC_NIST_P256", "KEY_AGREEMENT"), newKeyOf(t, s, "RSA_2048", "ENCRYPT_DECRYPT")
		used := map[string]bool{}
		use := func(operation string, body members, ids ...string) members {
			t.Helper()
			used[operation] = true
			dry := maps.Clone(body)
			dry["DryRun"] = true
			before := lastUsage(t, s, ids[0])
			s.Post(t, operation, object(t, pairs(dry)...)).RequireRefusal(t, "DryRunOperationException", textDryRun)
			require.Equal(t, before, lastUsage(t, s, ids[0]))
			return requireUsed(t, s, operation, object(t, pairs(body)...), ids...)
		}
		sign := members{"KeyId": signs, "Message": []byte("x"), "SigningAlgorithm": "ECDSA_SHA_256"}
		verify := maps.Clone(sign)
		verify["Signature"] = use("Sign", sign, signs)["Signature"]
		use("Verify", verify, signs)
		mac := members{"KeyId": macs, "Message": []byte("x"), "MacAlgorithm": "HMAC_SHA_256"}
		verifyMac := maps.Clone(mac)
		verifyMac["Mac"] = use("GenerateMac", mac, macs)["Mac"]
		use("VerifyMac", verifyMac, macs)
		use("DeriveSharedSecret", members{"KeyId": agrees, "KeyAgreementAlgorithm": "ECDH", "PublicKey": publicDER(t, s, agrees)}, agrees)
		for _, operation := range []string{"GenerateDataKeyPair", blindDataKeyPair} {
			use(operation, members{"KeyId": symmetric, "KeyPairSpec": "ECC_NIST_P256"}, symmetric)
		}
		for _, operation := range []string{"GenerateDataKey", blindDataKey} {
			use(operation, members{"KeyId": symmetric, "KeySpec": "AES_256"}, symmetric)
		}
		const oaep = "RSAES_OAEP_SHA_256"
		blob := use("Encrypt", members{"KeyId": encrypts, "Plaintext": []byte("x"), "EncryptionAlgorithm": oaep}, encrypts)["CiphertextBlob"]
		use("Decrypt", members{"KeyId": encrypts, "CiphertextBlob": blob, "EncryptionAlgorithm": oaep}, encrypts)
		use("ReEncrypt", members{
			"CiphertextBlob": blob, "SourceKeyId": encrypts, "SourceEncryptionAlgorithm": oaep, "DestinationKeyId": symmetric,
		}, encrypts, symmetric)
		require.ElementsMatch(t, enum(t, "KeyLastUsageTrackingOperation"), slices.Collect(maps.Keys(used)))

		last := lastUsage(t, s, signs)
		publicDER(t, s, signs) // is not counted
		verify["Signature"] = []byte("x")
		s.Post(t, "Verify", object(t, pairs(verify)...)).RequireRefusal(t, "KMSInvalidSignatureException", "")
		require.Equal(t, last, lastUsage(t, s, signs))
	})
}

// TestGetKeyLastUsageNoUse does with a key what is no successful cryptographic operation.
func TestGetKeyLastUsageNoUse(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id, destination := s.NewKey(t), s.NewKey(t)
		blob := accept(t, s, "Encrypt", object(t, "KeyId", id, "Plaintext", []byte("x")))["CiphertextBlob"]
		first := lastUsage(t, s, id)
		for operation, body := range map[string]members{
			"Encrypt":                         {"KeyId": id, "Plaintext": []byte("x")},
			"Decrypt":                         {"CiphertextBlob": blob},
			"GenerateDataKey":                 {"KeyId": id, "KeySpec": "AES_256"},
			"GenerateDataKeyWithoutPlaintext": {"KeyId": id, "KeySpec": "AES_256"},
			"ReEncrypt":                       {"CiphertextBlob": blob, "DestinationKeyId": destination},
		} {
			body["DryRun"] = true
			answer := s.Post(t, operation, object(t, pairs(body)...))
			require.Contains(t, answer.Body, "DryRunOperationException", operation)
		}
		wrong := members{"wrong": "context"}
		s.Post(t, "Decrypt", object(t, "CiphertextBlob", blob, "EncryptionContext", wrong)).RequireRefusal(t, "InvalidCiphertextException", "")
		s.Post(t, "ReEncrypt", object(t, "CiphertextBlob", blob, "DestinationKeyId", destination, "SourceEncryptionContext", wrong)).
			RequireRefusal(t, "InvalidCiphertextException", "")
		accept(t, s, "DescribeKey", object(t, "KeyId", id))
		perform(t, s, "DisableKey", object(t, "KeyId", id))
		s.Post(t, "Encrypt", object(t, "KeyId", id, "Plaintext", []byte("x"))).
			RequireRefusal(t, "DisabledException", kmstest.KeyARN(id)+" is disabled.")
		require.Equal(t, first, lastUsage(t, s, id), "also while it is disabled")
		require.Empty(t, lastUsage(t, s, destination))
	})
}

func pairs(m members) (all []any) {
	for name, value := range m {
		all = append(all, name, value)
	}
	return all
}

// TestGetKeyLastUsageIsKept uses more keys than one transaction takes, and restarts the server.
func TestGetKeyLastUsageIsKept(t *testing.T) {
	eachFresh(t, func(t *testing.T, s *kmstest.Server) {
		uses := map[string]members{s.NewKey(t): {}}
		for range 130 {
			id := s.NewKey(t)
			accept(t, s, "Encrypt", object(t, "KeyId", id, "Plaintext", []byte("x")))
			uses[id] = lastUsage(t, s, id)
			require.Len(t, uses[id], 4)
		}
		for range 2 {
			require.NoError(t, s.Stop())
			require.NoError(t, s.Run())
			for id, use := range uses {
				require.Equal(t, use, lastUsage(t, s, id))
			}
		}
	})
}

func TestGetKeyLastUsageSDK(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		out, err := s.Client().GetKeyLastUsage(t.Context(), &kms.GetKeyLastUsageInput{KeyId: &id})
		require.NoError(t, err)
		require.NotNil(t, out.KeyLastUsage)
		require.Nil(t, out.KeyLastUsage.Timestamp)
		s.Encrypt(t, id, []byte("x"), nil)
		out, err = s.Client().GetKeyLastUsage(t.Context(), &kms.GetKeyLastUsageInput{KeyId: &id})
		require.NoError(t, err)
		require.Equal(t, id, *out.KeyId)
		require.Equal(t, "Encrypt", string(out.KeyLastUsage.Operation))
		require.NotEmpty(t, *out.KeyLastUsage.KmsRequestId)
		require.NotEmpty(t, *out.KeyLastUsage.CloudTrailEventId)
		require.False(t, out.KeyLastUsage.Timestamp.Before(*out.KeyCreationDate))
		require.Equal(t, out.KeyCreationDate, out.TrackingStartDate)
	})
}

func TestGetKeyLastUsageRefusals(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		s.Post(t, "GetKeyLastUsage", "{}").RequireRefusal(t, "ValidationException", missing("keyId"))
		requireKeyNames(t, s, "GetKeyLastUsage", "keyId", false, func(name string) string { return `{"KeyId":` + name + `}` })
	})
}
