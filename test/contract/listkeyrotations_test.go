package contract

import (
	"encoding/base64"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// rotations reads all pages of ListKeyRotations and checks the form of the answers.
func rotations(t testing.TB, s *kmstest.Server, id, include string, limit int) (entries []members) {
	t.Helper()
	request := []any{"KeyId", id, "IncludeKeyMaterial", include, "Limit", limit}
	for {
		answer := accept(t, s, "ListKeyRotations", object(t, request...))
		page := list(t, answer, "Rotations")
		entries = append(entries, page...)
		marker, more := answer["NextMarker"]
		require.Equal(t, more, answer["Truncated"])
		if !more {
			require.Len(t, answer, 2)
			return entries
		}
		require.Len(t, answer, 3)
		require.Len(t, page, limit)
		request = append(request[:6:6], "Marker", marker)
	}
}

// requireRotations checks that a key, which the service has made, has these materials, oldest first, and how they came.
func requireRotations(t testing.TB, s *kmstest.Server, id, how string, materials ...string) {
	t.Helper()
	entries := rotations(t, s, id, "ALL_KEY_MATERIAL", 1000)
	require.Len(t, entries, len(materials))
	last := 0.0
	for i, material := range materials {
		want := members{"KeyId": kmstest.KeyARN(id), "KeyMaterialId": material, "KeyMaterialState": "NON_CURRENT"}
		if i == len(materials)-1 {
			want["KeyMaterialState"] = "CURRENT"
		}
		if i > 0 {
			date, _ := entries[i]["RotationDate"].(float64)
			require.GreaterOrEqual(t, date, last)
			require.LessOrEqual(t, date, float64(time.Now().UnixMilli())/1000)
			last, want["RotationDate"], want["RotationType"] = date, date, how
		}
		require.Equal(t, want, entries[i])
	}
	require.Equal(t, slices.Clone(entries[1:]), append([]members{}, rotations(t, s, id, "ROTATIONS_ONLY", 1000)...))
}

// rotateNow rotates a key on demand and gives the id of its new material.
func rotateNow(t *testing.T, s *kmstest.Server, id string) string {
	t.Helper()
	require.Equal(t, members{"KeyId": kmstest.KeyARN(id)}, accept(t, s, "RotateKeyOnDemand", object(t, "KeyId", id)))
	return currentMaterial(t, s, id)
}

// rotateTimes rotates a key on demand and gives the ids of all its materials.
func rotateTimes(t *testing.T, s *kmstest.Server, id string, times int) []string {
	t.Helper()
	materials := []string{currentMaterial(t, s, id)}
	for range times {
		materials = append(materials, rotateNow(t, s, id))
	}
	return materials
}

func TestListKeyRotations(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id, other := s.NewKey(t), s.NewKey(t)
		for _, member := range []string{"", `,"IncludeKeyMaterial":"ROTATIONS_ONLY"`, `,"Limit":1`, `,"Limit":1000,"Marker":null`} {
			require.Equal(t, members{"Rotations": []any{}, "Truncated": false}, accept(t, s, "ListKeyRotations", `{"KeyId":"`+id+`"`+member+`}`))
		}
		requireRotations(t, s, id, "", currentMaterial(t, s, id))
		materials := rotateTimes(t, s, id, 5)
		requireRotations(t, s, id, "ON_DEMAND", materials...)
		for limit := 1; limit <= 7; limit++ {
			require.Equal(t, materials, column(rotations(t, s, id, "ALL_KEY_MATERIAL", limit), "KeyMaterialId"))
			require.Equal(t, materials[1:], column(rotations(t, s, kmstest.KeyARN(id), "ROTATIONS_ONLY", limit), "KeyMaterialId"))
		}
		perform(t, s, "DisableKey", object(t, "KeyId", id))
		requireRotations(t, s, id, "ON_DEMAND", materials...)
		accept(t, s, "ScheduleKeyDeletion", object(t, "KeyId", id))
		requireRotations(t, s, id, "ON_DEMAND", materials...)
		require.Len(t, rotations(t, s, other, "ALL_KEY_MATERIAL", 10), 1)
		require.Empty(t, rotations(t, s, s.NewExternalKey(t), "ALL_KEY_MATERIAL", 10))
	})
}

// TestListKeyRotationsWhileRotating reads page by page while the key is rotated: what was there at the start is listed
// once.
func TestListKeyRotationsWhileRotating(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		materials := rotateTimes(t, s, id, 4)
		var listed []string
		request := []any{"KeyId", id, "Limit", 2, "IncludeKeyMaterial", "ALL_KEY_MATERIAL"}
		for pages := 0; ; pages++ {
			answer := accept(t, s, "ListKeyRotations", object(t, request...))
			listed = append(listed, column(list(t, answer, "Rotations"), "KeyMaterialId")...)
			if answer["Truncated"] == false {
				break
			}
			if pages < 3 {
				materials = append(materials, rotateNow(t, s, id))
			}
			request = append(request[:6:6], "Marker", answer["NextMarker"])
		}
		require.Equal(t, materials, listed)
	})
}

func TestListKeyRotationsSDK(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		materials := rotateTimes(t, s, id, 3)
		var listed []string
		pages := kms.NewListKeyRotationsPaginator(s.Client(), &kms.ListKeyRotationsInput{KeyId: &id, Limit: aws.Int32(2)})
		for pages.HasMorePages() {
			page, err := pages.NextPage(t.Context())
			require.NoError(t, err)
			for _, entry := range page.Rotations {
				require.Equal(t, types.RotationTypeOnDemand, entry.RotationType)
				require.WithinRange(t, *entry.RotationDate, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
				require.Empty(t, entry.ImportState)
				require.Empty(t, entry.ExpirationModel)
				listed = append(listed, *entry.KeyMaterialId)
			}
		}
		require.Equal(t, materials[1:], listed)
	})
}

func TestListKeyRotationsMarkers(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id, other := s.NewKey(t), s.NewKey(t)
		rotateTimes(t, s, id, 3)
		rotateTimes(t, s, other, 3)
		marker := accept(t, s, "ListKeyRotations", object(t, "KeyId", id, "Limit", 1))["NextMarker"].(string)
		ofOther := accept(t, s, "ListKeyRotations", object(t, "KeyId", other, "Limit", 1))["NextMarker"].(string)
		ofKeys := accept(t, s, "ListKeys", `{"Limit":1}`)["NextMarker"].(string)
		raw, err := base64.RawURLEncoding.DecodeString(marker)
		require.NoError(t, err)
		raw[len(raw)-1] ^= 1
		for _, bad := range []string{"x", "=", marker + "=", marker[:len(marker)-4], ofOther, ofKeys, base64.RawURLEncoding.EncodeToString(raw)} {
			s.Post(t, "ListKeyRotations", object(t, "KeyId", id, "Marker", bad)).RequireRefusal(t, "InvalidMarkerException", "The marker is not valid.")
		}
		for range 2 { // a marker is good more than once, and for pages of another size
			require.Len(t, list(t, accept(t, s, "ListKeyRotations", object(t, "KeyId", id, "Marker", marker)), "Rotations"), 2)
		}
	})
}

func TestListKeyRotationsRefusals(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		s.Post(t, "ListKeyRotations", "{}").RequireRefusal(t, "ValidationException", missing("keyId"))
		requireKeyNames(t, s, "ListKeyRotations", "keyId", false, func(name string) string { return `{"KeyId":` + name + `}` })
		for _, test := range []struct {
			member, value, shown, demand string
		}{
			{"IncludeKeyMaterial", `"ALL"`, "ALL", enumText(t, "IncludeKeyMaterial")},
			{"Limit", "0", "0", "have value greater than or equal to 1"},
			{"Limit", "1001", "1001", "have value less than or equal to 1000"},
			{"Marker", `""`, "", "have length greater than or equal to 1"},
		} {
			lower := string(test.member[0]|0x20) + test.member[1:]
			s.Post(t, "ListKeyRotations", `{"KeyId":"`+id+`","`+test.member+`":`+test.value+`}`).
				RequireRefusal(t, "ValidationException", violated(test.shown, lower, test.demand))
		}
		s.Post(t, "ListKeyRotations", `{"KeyId":"`+id+`","Limit":"1"}`).RequireRefusal(t, "SerializationException", "STRING_VALUE can not be converted to an Integer")
	})
}
