package contract

import (
	"encoding/hex"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// TestRotateKeyOnDemand checks from the very next request on that new ciphertext is under new material and old ciphertext
// opens.
func TestRotateKeyOnDemand(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for _, id := range []string{s.NewKey(t), newMultiRegionKey(t, s)} {
			first := currentMaterial(t, s, id)
			old := s.Encrypt(t, id, []byte("old"), nil)
			before := time.Now().Truncate(time.Millisecond)
			require.Equal(t, members{"KeyId": kmstest.KeyARN(id)}, accept(t, s, "RotateKeyOnDemand", object(t, "KeyId", kmstest.KeyARN(id))))
			second := currentMaterial(t, s, id)
			require.NotEqual(t, first, second)
			require.Regexp(t, materialIDForm, second)
			requireHeader(t, s.Encrypt(t, id, []byte("new"), nil), id, second)
			requireMaterial(t, s, old, "old", first)
			answer := accept(t, s, "GenerateDataKey", object(t, "KeyId", id, "KeySpec", "AES_256"))
			require.Equal(t, second, answer["KeyMaterialId"])
			requireRotationOff(t, s, id)
			date := rotations(t, s, id, "ROTATIONS_ONLY", 10)[0]["RotationDate"].(float64)
			require.GreaterOrEqual(t, date, float64(before.UnixMilli())/1000)
			requireRotations(t, s, id, "ON_DEMAND", first, second)
		}
	})
}

// requireMaterial opens a ciphertext and checks which material did it.
func requireMaterial(t *testing.T, s *kmstest.Server, blob []byte, plaintext, material string) {
	t.Helper()
	out, err := s.Client().Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob})
	require.NoError(t, err)
	require.Equal(t, plaintext, string(out.Plaintext))
	require.Equal(t, material, *out.KeyMaterialId)
}

// TestReEncryptAfterRotations moves ciphertext of each material of a key to its current one, and from there to another
// key, before and after a restart. All of it opens, and the answers name the materials.
func TestReEncryptAfterRotations(t *testing.T) {
	const turns = 4
	eachFresh(t, func(t *testing.T, s *kmstest.Server) {
		id, other := s.NewKey(t), s.NewKey(t)
		rotateNow(t, s, other)
		materials, blobs := []string{currentMaterial(t, s, id)}, [][]byte{s.Encrypt(t, id, []byte("text 0"), nil)}
		for i := 1; i <= turns; i++ {
			materials = append(materials, rotateNow(t, s, id))
			blobs = append(blobs, s.Encrypt(t, id, fmt.Appendf(nil, "text %d", i), nil))
		}
		for range 2 {
			for i, blob := range blobs {
				text := fmt.Sprintf("text %d", i)
				requireMaterial(t, s, blob, text, materials[i])
				moved := requireMoved(t, s, blob, id, materials[i], materials[turns])
				requireMaterial(t, s, moved, text, materials[turns])
				moved = requireMoved(t, s, moved, other, materials[turns], currentMaterial(t, s, other))
				requireMaterial(t, s, moved, text, currentMaterial(t, s, other))
				moved = requireMoved(t, s, moved, id, currentMaterial(t, s, other), materials[turns])
				requireMaterial(t, s, moved, text, materials[turns])
			}
			requireRotations(t, s, id, "ON_DEMAND", materials...)
			require.NoError(t, s.Stop())
			require.NoError(t, s.Run())
		}
	})
}

// requireMoved re-encrypts a ciphertext and checks which materials did it.
func requireMoved(t *testing.T, s *kmstest.Server, blob []byte, to, source, destination string) []byte {
	t.Helper()
	out, err := s.Client().ReEncrypt(t.Context(), &kms.ReEncryptInput{CiphertextBlob: blob, DestinationKeyId: &to})
	require.NoError(t, err)
	require.Equal(t, source, *out.SourceKeyMaterialId)
	require.Equal(t, destination, *out.DestinationKeyMaterialId)
	requireHeader(t, out.CiphertextBlob, to, destination)
	return out.CiphertextBlob
}

// TestForgedMaterial puts the id of another material of the same key into a ciphertext.
func TestForgedMaterial(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		old := s.Encrypt(t, id, []byte("old"), nil)
		first := currentMaterial(t, s, id)
		second := rotateNow(t, s, id)
		q := request{"Decrypt", members{"CiphertextBlob": replaceMaterial(t, old, first, second)}}
		q.requireRefusal(t, s, "InvalidCiphertextException", "")
		requireMaterial(t, s, old, "old", first)
	})
}

// replaceMaterial puts one material's id in the place of another's.
func replaceMaterial(t *testing.T, blob []byte, from, to string) []byte {
	t.Helper()
	text := hex.EncodeToString(blob)
	require.Equal(t, 1, strings.Count(text, from))
	forged, err := hex.DecodeString(strings.Replace(text, from, to, 1))
	require.NoError(t, err)
	return forged
}

// TestRotateKeyOnDemandLimit rotates as often as a key can be, and once more.
func TestRotateKeyOnDemandLimit(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		first := s.Encrypt(t, id, []byte("first"), nil)
		materials := rotateTimes(t, s, id, 25)
		for range 2 {
			s.Post(t, "RotateKeyOnDemand", object(t, "KeyId", id)).RequireRefusal(t, "LimitExceededException",
				"The on-demand rotations limit has been reached for the given keyId. No more on-demand rotations can be performed for this key: "+kmstest.KeyARN(id))
		}
		requireRotations(t, s, id, "ON_DEMAND", materials...)
		requireMaterial(t, s, first, "first", materials[0])
		perform(t, s, "EnableKeyRotation", object(t, "KeyId", id)) // automatic ones are another matter
	})
}

// TestRotateKeyOnDemandSchedule rotates on demand a key that is rotated automatically: its date stays.
func TestRotateKeyOnDemandSchedule(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		perform(t, s, "EnableKeyRotation", object(t, "KeyId", id, "RotationPeriodInDays", 90))
		next := rotationOn(t, s, id, 90)
		_, err := s.Client().RotateKeyOnDemand(t.Context(), &kms.RotateKeyOnDemandInput{KeyId: &id})
		require.NoError(t, err)
		require.Equal(t, next, rotationOn(t, s, id, 90))
	})
}

// TestAutomaticRotation runs a server whose days last 5 ms, so that all automatic rotations are less than 20 minutes away.
func TestAutomaticRotation(t *testing.T) {
	for home := range servers {
		t.Run(home, func(t *testing.T) {
			s := kmstest.Start(t, kmstest.Options{Home: home, Day: "5ms"})
			id, still := s.NewKey(t), s.NewKey(t)
			blob := s.Encrypt(t, id, []byte("text"), nil)
			first := currentMaterial(t, s, id)
			perform(t, s, "EnableKeyRotation", object(t, "KeyId", id, "RotationPeriodInDays", 90))
			require.Eventually(t, func() bool { return len(rotations(t, s, id, "ROTATIONS_ONLY", 1000)) >= 3 }, waitLimit, waitStep)
			perform(t, s, "DisableKeyRotation", object(t, "KeyId", id))
			materials := column(rotations(t, s, id, "ALL_KEY_MATERIAL", 1000), "KeyMaterialId")
			requireRotations(t, s, id, "AUTOMATIC", materials...)
			require.Equal(t, first, materials[0])
			latest := materials[len(materials)-1]
			requireMoved(t, s, blob, id, first, latest)
			requireMaterial(t, s, blob, "text", first)
			requireRotations(t, s, still, "", currentMaterial(t, s, still))
			require.Contains(t, s.Log(), `"msg":"key rotated","key":"`+kmstest.KeyARN(id)+`"`)

			perform(t, s, "EnableKeyRotation", object(t, "KeyId", still, "RotationPeriodInDays", 2560))
			s.Post(t, "RotateKeyOnDemand", object(t, "KeyId", still)).RequireRefusal(t, "ConflictException",
				"The request was rejected because an automatic rotation of this key is currently in progress or scheduled to begin within the next 20 minutes.")
		})
	}
}

// TestRotateKeyOnDemandImported rotates a key to imported material that is pending, and lists its materials meanwhile.
func TestRotateKeyOnDemandImported(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewExternalKey(t)
		set, until := quickSet(t, s, id), time.Now().Add(time.Hour).Truncate(time.Second)
		first := s.Import(t, set, randomBytes(32))
		entry := func(material, state string, others members) members {
			want := members{"KeyId": kmstest.KeyARN(id), "KeyMaterialId": material, "KeyMaterialState": state, "ImportState": "IMPORTED", "ExpirationModel": doesNotExpire}
			maps.Copy(want, others)
			return want
		}
		require.Equal(t, []members{entry(first, "CURRENT", nil)}, rotations(t, s, id, "ALL_KEY_MATERIAL", 10))
		old := s.Encrypt(t, id, []byte("old"), nil)
		requireNonePending(t, s, id)

		second := s.Import(t, set, randomBytes(32), asNewMaterial, func(in *kms.ImportKeyMaterialInput) {
			in.ExpirationModel, in.ValidTo, in.KeyMaterialDescription = types.ExpirationModelTypeKeyMaterialExpires, &until, aws.String("the second")
		})
		expiring := members{"ExpirationModel": "KEY_MATERIAL_EXPIRES", "ValidTo": float64(until.Unix()), "KeyMaterialDescription": "the second"}
		require.Equal(t, []members{entry(first, "CURRENT", nil), entry(second, "PENDING_ROTATION", expiring)}, rotations(t, s, id, "ALL_KEY_MATERIAL", 1))
		require.Empty(t, rotations(t, s, id, "ROTATIONS_ONLY", 10))

		require.Equal(t, second, rotateNow(t, s, id))
		expiring["RotationType"], expiring["RotationDate"] = "ON_DEMAND", rotations(t, s, id, "ROTATIONS_ONLY", 10)[0]["RotationDate"]
		require.Equal(t, []members{entry(first, "NON_CURRENT", nil), entry(second, "CURRENT", expiring)}, rotations(t, s, id, "ALL_KEY_MATERIAL", 1))
		require.Equal(t, []members{entry(second, "CURRENT", expiring)}, rotations(t, s, id, "ROTATIONS_ONLY", 10))
		requireMaterial(t, s, old, "old", first)
		requireMaterial(t, s, requireMoved(t, s, old, id, first, second), "old", second)
		requireNonePending(t, s, id)

		accept(t, s, "DeleteImportedKeyMaterial", object(t, "KeyId", id, "KeyMaterialId", first))
		absent := entry(first, "NON_CURRENT", members{"ImportState": "PENDING_IMPORT"})
		delete(absent, "ExpirationModel")
		require.Equal(t, []members{absent, entry(second, "CURRENT", expiring)}, rotations(t, s, id, "ALL_KEY_MATERIAL", 10))
		s.Post(t, "RotateKeyOnDemand", object(t, "KeyId", id)).RequireRefusal(t, "KMSInvalidStateException", kmstest.KeyARN(id)+" is pending import.")
	})
}

func requireNonePending(t *testing.T, s *kmstest.Server, id string) {
	t.Helper()
	s.Post(t, "RotateKeyOnDemand", object(t, "KeyId", id)).RequireRefusal(t, "KMSInvalidStateException",
		"No available key material pending rotation for the key: "+kmstest.KeyARN(id)+".")
}

func TestRotateKeyOnDemandRefusals(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		s.Post(t, "RotateKeyOnDemand", "{}").RequireRefusal(t, "ValidationException", missing("keyId"))
		requireKeyNames(t, s, "RotateKeyOnDemand", "keyId", false, func(name string) string { return `{"KeyId":` + name + `}` })
		disabled, dying, external := s.NewKey(t), s.NewKey(t), s.NewExternalKey(t)
		perform(t, s, "DisableKey", object(t, "KeyId", disabled))
		accept(t, s, "ScheduleKeyDeletion", object(t, "KeyId", dying))
		for id, want := range map[string][2]string{
			disabled: {"DisabledException", " is disabled."},
			dying:    {"KMSInvalidStateException", " is pending deletion."},
			external: {"KMSInvalidStateException", " is pending import."},
		} {
			s.Post(t, "RotateKeyOnDemand", object(t, "KeyId", id)).RequireRefusal(t, want[0], kmstest.KeyARN(id)+want[1])
		}
	})
}
