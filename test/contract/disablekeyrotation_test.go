package contract

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

func TestDisableKeyRotation(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		perform(t, s, "DisableKeyRotation", object(t, "KeyId", id)) // it never was enabled
		perform(t, s, "EnableKeyRotation", object(t, "KeyId", id))
		first := rotationOn(t, s, id, 365)
		for range 2 {
			perform(t, s, "DisableKeyRotation", object(t, "KeyId", kmstest.KeyARN(id)))
			requireRotationOff(t, s, id)
		}
		perform(t, s, "EnableKeyRotation", object(t, "KeyId", id))
		require.Less(t, first, rotationOn(t, s, id, 365), "the period begins anew")
	})
}

func TestDisableKeyRotationSDK(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		perform(t, s, "EnableKeyRotation", object(t, "KeyId", id))
		_, err := s.Client().DisableKeyRotation(t.Context(), &kms.DisableKeyRotationInput{KeyId: &id})
		require.NoError(t, err)
		requireRotationOff(t, s, id)
	})
}

func TestDisableKeyRotationRefusals(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) { requireRotationRefusals(t, s, "DisableKeyRotation") })
}
