package kms

import (
	"encoding/json"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
)

// rotationsOf reads one page of a key's rotations.
func rotationsOf(t *testing.T, s *Service, include string, limit int32, marker string) (*ListKeyRotationsOutput, error) {
	t.Helper()
	return s.ListKeyRotations(t.Context(), newRequest("ListKeyRotations"),
		&ListKeyRotationsInput{KeyId: firstKey, IncludeKeyMaterial: include, Limit: &limit, Marker: marker})
}

// TestListKeyRotationsImported compares the entries of imported material, as they go over the wire, with what the model
// says that each has: deleted material, the current one, and one that is pending.
func TestListKeyRotationsImported(t *testing.T) {
	s := newService(t, fakeToken{})
	key := newImportedKey()
	put(t, s, key)
	validTo := strconv.FormatFloat(float64(key.Materials[1].Expires.UnixMilli())/1000, 'f', -1, 64)
	rotated := strconv.FormatInt(rotorStart.Unix(), 10)
	arn := key.ARN()
	current := func(state string) string {
		return `{"ExpirationModel":"KEY_MATERIAL_EXPIRES","ImportState":"IMPORTED","KeyId":"` + arn + `","KeyMaterialDescription":"current","KeyMaterialId":"` +
			key.Materials[1].ID + `","KeyMaterialState":"` + state + `","RotationDate":` + rotated + `,"RotationType":"ON_DEMAND","ValidTo":` + validTo + `}`
	}
	first := `{"ImportState":"PENDING_IMPORT","KeyId":"` + arn + `","KeyMaterialId":"` + key.Materials[0].ID + `","KeyMaterialState":"NON_CURRENT"}`
	pending := `{"ExpirationModel":"KEY_MATERIAL_DOES_NOT_EXPIRE","ImportState":"IMPORTED","KeyId":"` + arn + `","KeyMaterialId":"` + key.Materials[2].ID + `","KeyMaterialState":"PENDING_ROTATION"}`
	require.JSONEq(t, `{"Rotations":[`+current("CURRENT")+`],"Truncated":false}`, listedJSON(t, s, "ROTATIONS_ONLY"))
	require.JSONEq(t, `{"Rotations":[`+current("CURRENT")+`],"Truncated":false}`, listedJSON(t, s, ""))

	key.Materials[0].Ref = hsm.KeyRef{}
	key.State = PendingImport
	put(t, s, key)
	require.JSONEq(t, `{"Rotations":[`+first+`,`+current("CURRENT")+`,`+pending+`],"Truncated":false}`, listedJSON(t, s, allKeyMaterial))

	key.Materials[0].Ref.ID, key.State = "first", Enabled
	put(t, s, key)
	_, err := s.RotateKeyOnDemand(t.Context(), newRequest("RotateKeyOnDemand"), &RotateKeyOnDemandInput{KeyId: firstKey})
	require.NoError(t, err)
	out, err := rotationsOf(t, s, "", 1000, "")
	require.NoError(t, err)
	require.Len(t, out.Rotations, 2)
	require.Equal(t, materialNonCurrent, out.Rotations[0].KeyMaterialState)
	require.Equal(t, materialCurrent, out.Rotations[1].KeyMaterialState)
	require.Equal(t, OnDemand, out.Rotations[1].RotationType)
	require.NotNil(t, out.Rotations[1].RotationDate)
}

func listedJSON(t *testing.T, s *Service, include string) string {
	t.Helper()
	out, err := rotationsOf(t, s, include, 1000, "")
	require.NoError(t, err)
	text, err := json.Marshal(out)
	require.NoError(t, err)
	return string(text)
}

// TestListKeyRotationsStable reads pages of each size while the key is rotated between them, and while the material that
// is pending is replaced by another: what was there at the beginning is listed once and in its order.
func TestListKeyRotationsStable(t *testing.T) {
	for limit := int32(1); limit <= 7; limit++ {
		s := newService(t, fakeToken{})
		key := newTestKey(firstKey, func(key *Key) { key.Origin = OriginExternal })
		for i := range 5 {
			m := Material{ID: rotatedID(i), Ref: hsm.KeyRef{ID: hsm.KeyID(rotatedID(i))}, How: OnDemand, Rotated: rotorStart}
			key.Materials = append(key.Materials, m)
		}
		key.Materials[5].Pending, key.Materials[5].How = true, ""
		put(t, s, key)
		var ids []string
		for marker, page := "", 0; page == 0 || marker != ""; page++ {
			out, err := rotationsOf(t, s, allKeyMaterial, limit, marker)
			require.NoError(t, err)
			require.Equal(t, out.NextMarker != "", out.Truncated)
			require.LessOrEqual(t, len(out.Rotations), int(limit))
			for _, entry := range out.Rotations {
				ids = append(ids, entry.KeyMaterialId)
			}
			marker = out.NextMarker
			if page < 2 { // the pending one goes, and two others come, of which the second is pending
				n := len(key.Materials)
				key.Materials[n-1] = Material{ID: rotatedID(100 + 2*page), Ref: hsm.KeyRef{ID: "a"}, How: OnDemand, Rotated: rotorStart}
				key.Materials = append(key.Materials, Material{ID: rotatedID(101 + 2*page), Ref: hsm.KeyRef{ID: "b"}, Pending: true})
				put(t, s, key)
			}
		}
		permanent := []string{key.Materials[0].ID, rotatedID(0), rotatedID(1), rotatedID(2), rotatedID(3)}
		require.Equal(t, permanent, ids[:5], "limit %d", limit)
		requireDistinct(t, ids)
	}
}

func requireDistinct(t *testing.T, ids []string) {
	t.Helper()
	seen := map[string]bool{}
	for _, id := range ids {
		require.False(t, seen[id], "%s is listed twice", id)
		seen[id] = true
	}
}

// TestListKeyRotationsMarkers refuses markers of other lists, and of materials that the key does not have.
func TestListKeyRotationsMarkers(t *testing.T) {
	s := newService(t, fakeToken{})
	key := newImportedKey()
	put(t, s, key, newTestKey(secondKey))
	own := rotationList(key)
	for _, marker := range []string{
		"!", "AAAA", listMarker(own, "x"), listMarker(own, rotatedID(77)), listMarker(own, key.Materials[0].ID+"0"),
		listMarker(rotationList(newTestKey(secondKey)), key.Materials[0].ID), listMarker("rotations/eu-west-1/"+firstKey+"/", key.Materials[0].ID),
		listMarker(accountKeys(testAccount, testRegion), firstKey),
	} {
		out, err := rotationsOf(t, s, "", 10, marker)
		requireError(t, out, err, InvalidMarker, "The marker is not valid.")
	}
	out, err := rotationsOf(t, s, allKeyMaterial, 10, listMarker(own, key.Materials[0].ID))
	require.NoError(t, err)
	require.Len(t, out.Rotations, 2)
}
