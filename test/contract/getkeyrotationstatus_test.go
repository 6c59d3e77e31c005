package contract

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// TestGetKeyRotationStatus follows the status of a key through its states.
func TestGetKeyRotationStatus(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		requireRotationOff(t, s, id)
		perform(t, s, "EnableKeyRotation", object(t, "KeyId", id, "RotationPeriodInDays", 90))
		next := rotationOn(t, s, id, 90)
		perform(t, s, "DisableKey", object(t, "KeyId", id))
		require.Equal(t, next, rotationOn(t, s, id, 90))
		accept(t, s, "ScheduleKeyDeletion", object(t, "KeyId", id))
		requireRotationOff(t, s, id)
		accept(t, s, "CancelKeyDeletion", object(t, "KeyId", id))
		require.Equal(t, next, rotationOn(t, s, id, 90))
		perform(t, s, "EnableKey", object(t, "KeyId", id))
		require.Equal(t, next, rotationOn(t, s, id, 90))
	})
}

func TestGetKeyRotationStatusSDK(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		out, err := s.Client().GetKeyRotationStatus(t.Context(), &kms.GetKeyRotationStatusInput{KeyId: &id})
		require.NoError(t, err)
		require.Equal(t, kmstest.KeyARN(id), *out.KeyId)
		require.False(t, out.KeyRotationEnabled)
		require.Nil(t, out.NextRotationDate)
		require.Nil(t, out.RotationPeriodInDays)
	})
}

func TestGetKeyRotationStatusRefusals(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		s.Post(t, "GetKeyRotationStatus", "{}").RequireRefusal(t, "ValidationException", missing("keyId"))
		requireKeyNames(t, s, "GetKeyRotationStatus", "keyId", false, func(name string) string { return `{"KeyId":` + name + `}` })
		external := s.NewExternalKey(t)
		s.Post(t, "GetKeyRotationStatus", object(t, "KeyId", external)).RequireRefusal(t, "UnsupportedOperationException", originText(external))
		accept(t, s, "ScheduleKeyDeletion", object(t, "KeyId", external))
		s.Post(t, "GetKeyRotationStatus", object(t, "KeyId", external)).RequireRefusal(t, "UnsupportedOperationException", originText(external))
	})
}
