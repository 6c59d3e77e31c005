package contract

import (
	"math"
	"net/http"
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
		require.Equal(t, members{"Operation": operation, "KmsRequestId": answer.Header.Get("X-Amzn-Requestid"), "Timestamp": at}, usage)
		require.GreaterOrEqual(t, math.Round(1000*at), start)
		require.LessOrEqual(t, math.Round(1000*at), end)
	}
	return answer.JSON(t)
}

func milliseconds(at time.Time) float64 { return float64(at.UnixMilli()) }

// TestGetKeyLastUsage uses a key in every way.
func TestGetKeyLastUsage(t *testing.T) {
	operations := enum(t, "KeyLastUsageTrackingOperation")
	each(t, func(t *testing.T, s *kmstest.Server) {
		id, other, unused := s.NewKey(t), s.NewKey(t), s.NewKey(t)
		require.Empty(t, lastUsage(t, s, id))
		blob := requireUsed(t, s, "Encrypt", object(t, "KeyId", id, "Plaintext", []byte("x")), id)["CiphertextBlob"]
		requireUsed(t, s, "Decrypt", object(t, "CiphertextBlob", blob), id)
		requireUsed(t, s, "GenerateDataKey", object(t, "KeyId", id, "KeySpec", "AES_256"), id)
		requireUsed(t, s, "GenerateDataKeyWithoutPlaintext", object(t, "KeyId", id, "KeySpec", "AES_128"), id)
		require.Empty(t, lastUsage(t, s, other))
		requireUsed(t, s, "ReEncrypt", object(t, "CiphertextBlob", blob, "DestinationKeyId", other), id, other)
		for _, operation := range []string{"Encrypt", "Decrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "ReEncrypt"} {
			require.Contains(t, operations, operation)
		}
		alias := newAlias(t, s, other)
		requireUsed(t, s, "Encrypt", object(t, "KeyId", alias, "Plaintext", []byte("x")), other)
		accept(t, s, "GetKeyLastUsage", object(t, "KeyId", kmstest.KeyARN(other)))
		require.Empty(t, lastUsage(t, s, unused))
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
			require.Len(t, uses[id], 3)
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
		require.Nil(t, out.KeyLastUsage.CloudTrailEventId)
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
