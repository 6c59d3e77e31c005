package contract

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// TestTrailOfTheService has in the trail what the service does by itself: rotations and deletions that are due, and the end of
// material that has expired.
func TestTrailOfTheService(t *testing.T) {
	eachShortDay(t, "20ms", func(t *testing.T, s *kmstest.Server) {
		rotating, ending, external := s.NewKey(t), s.NewKey(t), s.NewExternalKey(t)
		set := s.ImportSet(t, external, "RSAES_OAEP_SHA_256", "RSA_2048")
		until := time.Now().Add(5 * time.Second)
		material := s.Import(t, set, make([]byte, 32), func(in *kms.ImportKeyMaterialInput) {
			in.ExpirationModel, in.ValidTo = types.ExpirationModelTypeKeyMaterialExpires, &until
		})
		_, err := s.Client().EnableKeyRotation(t.Context(), &kms.EnableKeyRotationInput{KeyId: &rotating, RotationPeriodInDays: aws.Int32(90)})
		require.NoError(t, err)
		_, err = s.Client().ScheduleKeyDeletion(t.Context(), &kms.ScheduleKeyDeletionInput{KeyId: &ending, PendingWindowInDays: aws.Int32(7)})
		require.NoError(t, err)
		for name, details := range map[string]map[string]any{
			"RotateKey":                {"keyId": rotating, "rotationType": "AUTOMATIC"},
			"DeleteKey":                {"keyId": ending},
			"DeleteExpiredKeyMaterial": {"keyId": external, "keyMaterialId": material},
		} {
			var found []map[string]any
			require.Eventually(t, func() bool {
				found = findRecords(t, s, func(record map[string]any) bool { return record["eventName"] == name })
				return len(found) > 0
			}, waitLimit, waitStep, name)
			got := found[0]
			require.Subset(t, got["serviceEventDetails"], details)
			require.Equal(t, "AwsServiceEvent", got["eventType"])
			require.Equal(t, "kms.amazonaws.com", got["eventSource"])
			require.Equal(t, map[string]any{"accountId": kmstest.Account, "invokedBy": "AWS Internal"}, got["userIdentity"])
			require.Equal(t, []any{map[string]any{"accountId": kmstest.Account, "type": "AWS::KMS::Key", "ARN": kmstest.KeyARN(details["keyId"].(string))}}, got["resources"])
		}
		requireTrail(t, s)
	})
}

// TestTrailOfMaterials has in the trail which key materials encrypted and decrypted: after a rotation, ReEncrypt moves a ciphertext
// from the old to the new one. Key pairs have no material to show.
func TestTrailOfMaterials(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id, pair := s.NewKey(t), sharedKey(t, s, "RSA_2048", "ENCRYPT_DECRYPT")
		old := materialsOf(t, s, id)[0]
		blob := blobOf(t, request{"Encrypt", members{"KeyId": id, "Plaintext": []byte("x")}}.requireRecorded(t, s, members{"keyMaterialId": old}), "CiphertextBlob")
		_, err := s.Client().RotateKeyOnDemand(t.Context(), &kms.RotateKeyOnDemandInput{KeyId: &id})
		require.NoError(t, err)
		fresh := materialsOf(t, s, id)[1]
		request{"Decrypt", members{"CiphertextBlob": blob}}.requireRecorded(t, s, members{"keyMaterialId": old})
		request{"GenerateDataKey", members{"KeyId": id, "KeySpec": "AES_256"}}.requireRecorded(t, s, members{"keyMaterialId": fresh})
		move := request{"ReEncrypt", members{"CiphertextBlob": blob, "DestinationKeyId": id}}
		move.requireRecorded(t, s, members{"sourceKeyMaterialId": old, "destinationKeyMaterialId": fresh})
		move.with("DestinationKeyId", pair).with("DestinationEncryptionAlgorithm", "RSAES_OAEP_SHA_1").
			requireRecorded(t, s, members{"sourceKeyMaterialId": old})
		request{"DescribeKey", members{"KeyId": id}}.requireRecorded(t, s, nil)
	})
}

// materialsOf gives the ids of a key's materials, oldest first.
func materialsOf(t *testing.T, s *kmstest.Server, id string) (ids []string) {
	t.Helper()
	out, err := s.Client().ListKeyRotations(t.Context(), &kms.ListKeyRotationsInput{KeyId: &id, IncludeKeyMaterial: types.IncludeKeyMaterialAllKeyMaterial})
	require.NoError(t, err)
	for _, entry := range out.Rotations {
		ids = append(ids, *entry.KeyMaterialId)
	}
	return ids
}

// requireRecorded makes a request that must succeed, and checks the additionalEventData of its record.
func (q request) requireRecorded(t *testing.T, s *kmstest.Server, additional members) members {
	t.Helper()
	answer := s.Post(t, q.operation, jsonText(t, q.body))
	require.Equal(t, http.StatusOK, answer.Status, answer.Body)
	records := recordsOf(t, s, answer.Header.Get("X-Amzn-Requestid"))
	require.Len(t, records, 1)
	if additional == nil {
		require.NotContains(t, records[0], "additionalEventData")
	} else {
		require.Equal(t, additional, records[0]["additionalEventData"])
	}
	var out members
	require.NoError(t, json.Unmarshal([]byte(answer.Body), &out))
	return out
}
