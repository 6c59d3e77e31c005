package contract

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

const secondsOfDay = 24 * 60 * 60

// now is the time as answers show it.
func now() float64 { return float64(time.Now().UnixMilli()) / 1000 }

// scheduleDeletion has a key deleted after the shortest time.
func scheduleDeletion(t testing.TB, s *kmstest.Server, id string) members {
	t.Helper()
	return accept(t, s, "ScheduleKeyDeletion", object(t, "KeyId", id, "PendingWindowInDays", 7))
}

func describe(t testing.TB, s *kmstest.Server, id string) members {
	t.Helper()
	return accept(t, s, "DescribeKey", object(t, "KeyId", id))["KeyMetadata"].(members)
}

// TestScheduleKeyDeletion schedules deletions with every kind of window, of enabled and of disabled keys, by both names.
func TestScheduleKeyDeletion(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for body, days := range map[string]float64{
			``: 30, `,"PendingWindowInDays":null`: 30, `,"PendingWindowInDays":7`: 7, `,"PendingWindowInDays":8`: 8, `,"PendingWindowInDays":30`: 30,
		} {
			for _, id := range []string{s.NewKey(t), newDisabledKey(t, s), newMultiRegionKey(t, s), s.NewExternalKey(t)} {
				was := describe(t, s, id)
				before := now()
				answer := accept(t, s, "ScheduleKeyDeletion", `{"KeyId":"`+kmstest.KeyARN(id)+`"`+body+`}`)
				after := now()
				date := answer["DeletionDate"]
				require.Equal(t, members{
					"DeletionDate": date, "KeyId": kmstest.KeyARN(id), "KeyState": "PendingDeletion", "PendingWindowInDays": days,
				}, answer)
				require.GreaterOrEqual(t, date, before+days*secondsOfDay)
				require.LessOrEqual(t, date, after+days*secondsOfDay)
				was["Enabled"], was["KeyState"], was["DeletionDate"] = false, "PendingDeletion", date
				require.Equal(t, was, describe(t, s, id), "the very next request")
			}
		}
	})
}

// TestScheduleKeyDeletionTwice schedules a deletion again, with another window: the first stands.
func TestScheduleKeyDeletionTwice(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		date := scheduleDeletion(t, s, id)["DeletionDate"]
		for _, window := range []int{7, 30} {
			s.Post(t, "ScheduleKeyDeletion", object(t, "KeyId", id, "PendingWindowInDays", window)).
				RequireRefusal(t, "KMSInvalidStateException", kmstest.KeyARN(id)+" is pending deletion.")
		}
		require.Equal(t, date, describe(t, s, id)["DeletionDate"])
	})
}

func TestScheduleKeyDeletionSDK(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		out, err := s.Client().ScheduleKeyDeletion(t.Context(), &kms.ScheduleKeyDeletionInput{KeyId: &id, PendingWindowInDays: aws.Int32(9)})
		require.NoError(t, err)
		require.Equal(t, types.KeyStatePendingDeletion, out.KeyState)
		require.EqualValues(t, 9, *out.PendingWindowInDays)
		described, err := s.Client().DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &id})
		require.NoError(t, err)
		require.Equal(t, out.DeletionDate, described.KeyMetadata.DeletionDate)
	})
}

// TestScheduleKeyDeletionKeepsEverything checks that nothing of a key is destroyed while it waits: it is listed with its
// aliases, which keep their names, and the token has its object.
func TestScheduleKeyDeletionKeepsEverything(t *testing.T) {
	eachFresh(t, func(t *testing.T, s *kmstest.Server) {
		id, other := s.NewKey(t), s.NewKey(t)
		alias := newAlias(t, s, id)
		awaitCalm(t, s)
		objects, before := tokenObjects(t, s), s.Calls(t)["C_DestroyObject"]
		scheduleDeletion(t, s, id)
		require.ElementsMatch(t, []string{id, other}, allKeys(t, s, 100))
		require.Equal(t, []string{alias}, aliasesOf(t, s, id))
		require.Equal(t, id, describe(t, s, alias)["KeyId"])
		s.Post(t, "CreateAlias", object(t, "AliasName", alias, "TargetKeyId", other)).
			RequireRefusal(t, "AlreadyExistsException", "An alias with the name "+kmstest.AliasARN(alias)+" already exists")
		require.Equal(t, before, s.Calls(t)["C_DestroyObject"])
		require.Equal(t, objects, tokenObjects(t, s))
	})
}

func TestScheduleKeyDeletionRefusals(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		for window, text := range map[int]string{
			-1: violated("-1", "pendingWindowInDays", "have value greater than or equal to 1"),
			0:  violated("0", "pendingWindowInDays", "have value greater than or equal to 1"),
			1:  "PendingWindowInDays must be between 7 and 30.", 6: "PendingWindowInDays must be between 7 and 30.",
			31: "PendingWindowInDays must be between 7 and 30.", 365: "PendingWindowInDays must be between 7 and 30.",
			366: violated("366", "pendingWindowInDays", "have value less than or equal to 365"),
		} {
			s.Post(t, "ScheduleKeyDeletion", object(t, "KeyId", id, "PendingWindowInDays", window)).RequireRefusal(t, "ValidationException", text)
		}
		for _, value := range []string{`"7"`, `7.5`, `true`, `[7]`, strconv.FormatInt(1<<40, 10)} {
			answer := s.Post(t, "ScheduleKeyDeletion", fmt.Sprintf(`{"KeyId":"%s","PendingWindowInDays":%s}`, id, value))
			require.Equal(t, "SerializationException", answer.JSON(t)["__type"], value)
		}
		require.Equal(t, "Enabled", describe(t, s, id)["KeyState"])
		s.Post(t, "ScheduleKeyDeletion", "{}").RequireRefusal(t, "ValidationException", missing("keyId"))
		requireKeyNames(t, s, "ScheduleKeyDeletion", "keyId", false, func(name string) string { return `{"KeyId":` + name + `}` })
	})
}
