package contract

import (
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// rotationOn checks that a key is rotated automatically with a period of so many days, and gives the next date.
func rotationOn(t testing.TB, s *kmstest.Server, id string, days float64) (next time.Time) {
	t.Helper()
	answer := accept(t, s, "GetKeyRotationStatus", object(t, "KeyId", id))
	date, _ := answer["NextRotationDate"].(float64)
	require.Equal(t, members{
		"KeyId": kmstest.KeyARN(id), "KeyRotationEnabled": true, "RotationPeriodInDays": days, "NextRotationDate": date,
	}, answer)
	return time.UnixMilli(int64(date*1000 + 0.5))
}

// requireRotationOff checks that a key is not rotated automatically.
func requireRotationOff(t testing.TB, s *kmstest.Server, id string) {
	t.Helper()
	require.Equal(t, members{"KeyId": kmstest.KeyARN(id), "KeyRotationEnabled": false}, accept(t, s, "GetKeyRotationStatus", object(t, "KeyId", id)))
}

// originText is AWS's text for a key with imported material where it must not be.
func originText(id string) string {
	return kmstest.KeyARN(id) + " origin is EXTERNAL which is not valid for this operation."
}

func TestEnableKeyRotation(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for _, test := range []struct {
			member string
			days   float64
		}{{"", 365}, {`,"RotationPeriodInDays":null`, 365}, {`,"RotationPeriodInDays":90`, 90}, {`,"RotationPeriodInDays":2560`, 2560}} {
			id := s.NewKey(t)
			period := time.Duration(test.days) * 24 * time.Hour
			before := time.Now().Truncate(time.Millisecond)
			perform(t, s, "EnableKeyRotation", fmt.Sprintf(`{"KeyId":%q%s}`, kmstest.KeyARN(id), test.member))
			next := rotationOn(t, s, id, test.days)
			require.False(t, next.Before(before.Add(period)), "%v", next)
			require.False(t, next.After(time.Now().Add(period)), "%v", next)
		}
	})
}

// TestEnableKeyRotationAgain enables rotation when it is enabled: only another period moves the date.
func TestEnableKeyRotationAgain(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		enable := func(days int) {
			perform(t, s, "EnableKeyRotation", object(t, "KeyId", id, "RotationPeriodInDays", days))
		}
		enable(180)
		first := rotationOn(t, s, id, 180)
		enable(180)
		require.Equal(t, first, rotationOn(t, s, id, 180))
		enable(181)
		require.Less(t, 24*time.Hour-time.Millisecond, rotationOn(t, s, id, 181).Sub(first))
		perform(t, s, "EnableKeyRotation", object(t, "KeyId", id)) // the default, not what it was
		rotationOn(t, s, id, 365)
		require.Empty(t, rotations(t, s, id, "ROTATIONS_ONLY", 10), "nothing of this is a rotation")
	})
}

func TestEnableKeyRotationSDK(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		_, err := s.Client().EnableKeyRotation(t.Context(), &kms.EnableKeyRotationInput{KeyId: &id, RotationPeriodInDays: aws.Int32(90)})
		require.NoError(t, err)
		out, err := s.Client().GetKeyRotationStatus(t.Context(), &kms.GetKeyRotationStatusInput{KeyId: &id})
		require.NoError(t, err)
		require.True(t, out.KeyRotationEnabled)
		require.EqualValues(t, 90, *out.RotationPeriodInDays)
		require.WithinRange(t, *out.NextRotationDate, time.Now().Add(89*24*time.Hour), time.Now().Add(91*24*time.Hour))
		require.Nil(t, out.OnDemandRotationStartDate)
	})
}

func TestEnableKeyRotationRefusals(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		for days, demand := range map[string]string{
			"89": "greater than or equal to 90", "0": "greater than or equal to 90", "-365": "greater than or equal to 90", "2561": "less than or equal to 2560",
		} {
			s.Post(t, "EnableKeyRotation", `{"KeyId":"`+id+`","RotationPeriodInDays":`+days+`}`).
				RequireRefusal(t, "ValidationException", violated(days, "rotationPeriodInDays", "have value "+demand))
		}
		for _, days := range []string{"90.5", "2147483648"} {
			s.Post(t, "EnableKeyRotation", `{"KeyId":"`+id+`","RotationPeriodInDays":`+days+`}`).
				RequireRefusal(t, "SerializationException", "NUMBER_VALUE can not be converted to an Integer")
		}
		requireRotationOff(t, s, id)
		requireRotationRefusals(t, s, "EnableKeyRotation")
	})
}

// requireRotationRefusals asks for a change of the automatic rotation of keys that must not have it.
func requireRotationRefusals(t *testing.T, s *kmstest.Server, operation string) {
	t.Helper()
	s.Post(t, operation, "{}").RequireRefusal(t, "ValidationException", missing("keyId"))
	requireKeyNames(t, s, operation, "keyId", false, func(name string) string { return `{"KeyId":` + name + `}` })
	disabled, dying, external := s.NewKey(t), s.NewKey(t), s.NewExternalKey(t)
	perform(t, s, "DisableKey", object(t, "KeyId", disabled))
	accept(t, s, "ScheduleKeyDeletion", object(t, "KeyId", dying))
	s.Post(t, operation, object(t, "KeyId", disabled)).RequireRefusal(t, "DisabledException", kmstest.KeyARN(disabled)+" is disabled.")
	s.Post(t, operation, object(t, "KeyId", dying)).RequireRefusal(t, "KMSInvalidStateException", kmstest.KeyARN(dying)+" is pending deletion.")
	s.Post(t, operation, object(t, "KeyId", external)).RequireRefusal(t, "UnsupportedOperationException", originText(external))
}
