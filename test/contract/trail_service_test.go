package contract

import (
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
		until := time.Now().Add(2 * time.Second)
		material := s.Import(t, s.ImportSet(t, external, "RSAES_OAEP_SHA_256", "RSA_2048"), make([]byte, 32), func(in *kms.ImportKeyMaterialInput) {
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
