package contract

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// TestDeleteImportedKeyMaterial deletes the current material, named or not, until there is none, and imports it again.
func TestDeleteImportedKeyMaterial(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id, material := s.NewExternalKey(t), randomBytes(32)
		arn := kmstest.KeyARN(id)
		require.Equal(t, members{"KeyId": arn}, accept(t, s, "DeleteImportedKeyMaterial", object(t, "KeyId", id)), "no effect")
		set := quickSet(t, s, id)
		materialID := s.Import(t, set, material)
		blob := s.Encrypt(t, id, []byte("hello"), nil)
		for _, body := range []string{object(t, "KeyId", arn), object(t, "KeyId", id, "KeyMaterialId", materialID)} {
			destroyed, objects := s.Calls(t)["C_DestroyObject"], tokenObjects(t, s)
			require.Equal(t, members{"KeyId": arn, "KeyMaterialId": materialID}, accept(t, s, "DeleteImportedKeyMaterial", body))
			require.Greater(t, s.Calls(t)["C_DestroyObject"], destroyed, "it is gone from the token when the answer comes")
			if s == servers[kmstest.HomeToken] { // where that may have been the session object alone
				require.NotSubset(t, tokenObjects(t, s), objects)
			}
			require.Equal(t, members{"KeyId": arn, "KeyMaterialId": materialID}, accept(t, s, "DeleteImportedKeyMaterial", body), "no effect")
			metadata := metadataOf(t, s, id)
			require.Equal(t, wantMetadata(metadata, members{
				"Origin": "EXTERNAL", "Enabled": false, "KeyState": "PendingImport", "CurrentKeyMaterialId": materialID,
			}), metadata)
			s.Post(t, "Decrypt", object(t, "CiphertextBlob", blob)).RequireRefusal(t, "KMSInvalidStateException", arn+" is pending import.")
			require.Equal(t, materialID, s.Import(t, set, material))
			require.Equal(t, "hello", string(s.Decrypt(t, blob, nil)))
		}
	})
}

func TestDeleteImportedKeyMaterialSDK(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewExternalKey(t)
		materialID := s.Import(t, quickSet(t, s, id), randomBytes(32))
		out, err := s.Client().DeleteImportedKeyMaterial(t.Context(), &kms.DeleteImportedKeyMaterialInput{KeyId: &id})
		require.NoError(t, err)
		require.Equal(t, kmstest.KeyARN(id), *out.KeyId)
		require.Equal(t, materialID, *out.KeyMaterialId)
	})
}

// TestDeleteOneOfSeveral has a key with two materials and one that waits. It works with all that it uses, or not at all.
func TestDeleteOneOfSeveral(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewExternalKey(t)
		set := quickSet(t, s, id)
		materials := [][]byte{randomBytes(32), randomBytes(32), randomBytes(32)}
		first := s.Import(t, set, materials[0])
		blob := s.Encrypt(t, id, []byte("hello"), nil)
		second := s.Import(t, set, materials[1], asNewMaterial)
		accept(t, s, "RotateKeyOnDemand", object(t, "KeyId", id))
		require.Equal(t, second, currentMaterial(t, s, id))
		waiting := s.Import(t, set, materials[2], asNewMaterial)

		accept(t, s, "DeleteImportedKeyMaterial", object(t, "KeyId", id, "KeyMaterialId", waiting))
		require.Equal(t, "hello", string(s.Decrypt(t, blob, nil)), "what waits is not in use")
		s.Post(t, "DeleteImportedKeyMaterial", object(t, "KeyId", id, "KeyMaterialId", waiting)).
			RequireRefusal(t, "NotFoundException", "Key material '"+waiting+"' of key '"+kmstest.KeyARN(id)+"' does not exist")
		for n, old := range []string{first, second} {
			accept(t, s, "DeleteImportedKeyMaterial", object(t, "KeyId", id, "KeyMaterialId", old))
			for operation, body := range map[string]string{
				"Encrypt": object(t, "KeyId", id, "Plaintext", []byte("x")), "Decrypt": object(t, "CiphertextBlob", blob),
			} {
				s.Post(t, operation, body).RequireRefusal(t, "KMSInvalidStateException", kmstest.KeyARN(id)+" is pending import.")
			}
			require.Equal(t, old, s.Import(t, set, materials[n]))
			require.Equal(t, "hello", string(s.Decrypt(t, blob, nil)))
			require.Equal(t, second, currentMaterial(t, s, id))
		}
	})
}

// TestDeleteImportedStates deletes material of keys that are not enabled.
func TestDeleteImportedStates(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id, material := s.NewExternalKey(t), randomBytes(32)
		set := quickSet(t, s, id)
		s.Import(t, set, material)
		setEnabled(t, s, id, false)
		accept(t, s, "DeleteImportedKeyMaterial", object(t, "KeyId", id))
		_, state := keyState(t, s, id)
		require.Equal(t, "PendingImport", state)
		s.Import(t, set, material)
		accept(t, s, "ScheduleKeyDeletion", object(t, "KeyId", id))
		accept(t, s, "DeleteImportedKeyMaterial", object(t, "KeyId", id))
		_, state = keyState(t, s, id)
		require.Equal(t, "PendingDeletion", state)
		accept(t, s, "CancelKeyDeletion", object(t, "KeyId", id))
		_, state = keyState(t, s, id)
		require.Equal(t, "PendingImport", state)
	})
}

func TestDeleteImportedKeyMaterialRefusals(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id, none := s.NewExternalKey(t), strings.Repeat("0", 64)
		q := request{"DeleteImportedKeyMaterial", members{"KeyId": id}}
		requireKeyNames(t, s, "DeleteImportedKeyMaterial", "keyId", false, func(name string) string { return `{"KeyId":` + name + `}` })
		q.without("KeyId").requireRefusal(t, s, "ValidationException", missing("keyId"))
		q.with("KeyMaterialId", none).requireRefusal(t, s, "NotFoundException", "Key material '"+none+"' of key '"+kmstest.KeyARN(id)+"' does not exist")
		q.with("KeyMaterialId", none[1:]).requireRefusal(t, s, "ValidationException", violated(none[1:], "keyMaterialId", "have length greater than or equal to 64"))
		q.with("KeyMaterialId", none+"0").requireRefusal(t, s, "ValidationException", violated(none+"0", "keyMaterialId", "have length less than or equal to 64"))
		q.with("KeyMaterialId", none[1:]+"F").requireRefusal(t, s, "ValidationException", violated(none[1:]+"F", "keyMaterialId", "satisfy regular expression pattern: ^[a-f0-9]+$"))
		ours := s.NewKey(t)
		q.with("KeyId", ours).requireRefusal(t, s, "UnsupportedOperationException", kmstest.KeyARN(ours)+" origin is AWS_KMS which is not valid for this operation.")
	})
}

// TestDeleteImportedInUse deletes and imports material again while clients use the key: each request finds the material
// or hears that it is not there.
func TestDeleteImportedInUse(t *testing.T) {
	const clients, turns = 8, 8
	each(t, func(t *testing.T, s *kmstest.Server) {
		id, material := s.NewExternalKey(t), randomBytes(32)
		set := quickSet(t, s, id)
		s.Import(t, set, material)
		blob, input := s.Encrypt(t, id, []byte("hello"), nil), set.Input(t, material)
		stop := make(chan struct{})
		require.NoError(t, together(clients+1, func(i int) error {
			if i == clients {
				defer close(stop)
				for range turns {
					if _, err := s.Client().DeleteImportedKeyMaterial(t.Context(), &kms.DeleteImportedKeyMaterialInput{KeyId: &id}); err != nil {
						return err
					}
					if _, err := s.Client().ImportKeyMaterial(t.Context(), input); err != nil {
						return err
					}
				}
				return nil
			}
			for client := s.Client(); ; {
				select {
				case <-stop:
					return nil
				default:
				}
				_, err := client.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob})
				if code := codeOf(err); code != "" && code != "KMSInvalidStateException" {
					return err
				}
			}
		}))
		require.Equal(t, "hello", string(s.Decrypt(t, blob, nil)))
	})
}
