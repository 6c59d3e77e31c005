package contract

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/store"
	"hsmkms/store/bolt"
	"hsmkms/test/kmstest"
)

// What becomes of keys when their waiting period is over, on servers whose days are short.

// tokenObjects gives the files of the token's objects, which SoftHSM keeps one by one. It is an independent look: nothing
// of the server is asked.
func tokenObjects(t testing.TB, s *kmstest.Server) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.Dir, "tokens", "*", "*.object"))
	require.NoError(t, err)
	return files
}

// eachShortDay runs a test against a server of its own for each home, with days of a length.
func eachShortDay(t *testing.T, day string, test func(t *testing.T, s *kmstest.Server)) {
	t.Helper()
	for home := range servers {
		t.Run(home, func(t *testing.T) {
			test(t, kmstest.Start(t, kmstest.Options{Home: home, Day: day, Top: []string{slowKeys}}))
		})
	}
}

// awaitDeletion waits until a key, and everything that was its, is gone.
func awaitDeletion(t testing.TB, s *kmstest.Server, id string) {
	t.Helper()
	line := `"msg":"deleted key, nothing of it is left","region":"` + kmstest.Region + `","key":"` + id + `"`
	require.Eventually(t, func() bool { return strings.Contains(s.Log(), line) }, waitLimit, waitStep)
}

// storedRecords gives all records of a server's store, which it stops.
func storedRecords(t *testing.T, s *kmstest.Server) map[string]string {
	t.Helper()
	require.NoError(t, s.Stop())
	file, err := bolt.Open(bolt.Config{Path: filepath.Join(s.Dir, "hsmkms.db")})
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	records := map[string]string{}
	require.NoError(t, file.View(t.Context(), func(r store.Reader) error {
		return r.Scan("", "", func(key string, value []byte) bool { records[key] = string(value); return true })
	}))
	return records
}

// materialOf gives the id of a key's only material on the token, and the material itself if the store keeps it, as text.
func materialOf(t *testing.T, record string) (id, wrapped string) {
	t.Helper()
	var key struct {
		Materials []struct {
			Ref struct{ ID, Wrapped string }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(record), &key))
	require.Len(t, key.Materials, 1)
	return key.Materials[0].Ref.ID, key.Materials[0].Ref.Wrapped
}

// TestDeletion deletes a key with as many aliases as it may have. Nothing is left of it: not on the token, not among its
// session objects, not in the store; and other keys go on.
func TestDeletion(t *testing.T) {
	eachShortDay(t, "250ms", func(t *testing.T, s *kmstest.Server) {
		kept, id := s.NewKey(t), s.NewKey(t)
		records := storedRecords(t, s)
		material, wrapped := materialOf(t, records["key/"+kmstest.Region+"/"+id])
		require.NoError(t, s.Run())
		awaitCalm(t, s)
		aliases := make([]string, 50)
		for i := range aliases {
			aliases[i] = newAlias(t, s, id)
		}
		keptBlob, blob := s.Encrypt(t, kept, []byte("kept"), nil), s.Encrypt(t, id, []byte("lost"), nil)
		objects, calls := len(tokenObjects(t, s)), s.Calls(t)
		scheduleDeletion(t, s, id)
		awaitDeletion(t, s, id)

		requireDeleted(t, s, id, kept, aliases, blob)
		require.Equal(t, "kept", string(s.Decrypt(t, keptBlob, nil)))
		destroyed := 1 // the session object
		if wrapped == "" {
			destroyed++
			require.Len(t, tokenObjects(t, s), objects-1)
		}
		require.Equal(t, destroyed, s.Calls(t)["C_DestroyObject"]-calls["C_DestroyObject"])

		for key, value := range storedRecords(t, s) {
			require.NotContains(t, key+value, id)
			require.NotContains(t, key+value, material)
			require.True(t, wrapped == "" || !strings.Contains(value, wrapped))
		}
		require.NoError(t, s.Run())
		awaitCalm(t, s)
		requireDeleted(t, s, id, kept, aliases, blob)
		require.Zero(t, metrics(t, s)[gauge("hsmkms_token_orphans")])
		require.Zero(t, metrics(t, s)[gauge("hsmkms_token_missing")])
	})
}

// requireDeleted asks for a deleted key in every way. Another key is all that there is.
func requireDeleted(t *testing.T, s *kmstest.Server, id, kept string, aliases []string, blob []byte) {
	t.Helper()
	for _, name := range []string{id, kmstest.KeyARN(id)} {
		for _, operation := range []string{"DescribeKey", "EnableKey", "CancelKeyDeletion", "ScheduleKeyDeletion", "ListAliases", "GetKeyPolicy"} {
			s.Post(t, operation, object(t, "KeyId", name)).RequireRefusal(t, "NotFoundException", "Key '"+kmstest.KeyARN(id)+"' does not exist")
		}
		s.Post(t, "Decrypt", object(t, "KeyId", name, "CiphertextBlob", blob)).
			RequireRefusal(t, "NotFoundException", "Key '"+kmstest.KeyARN(id)+"' does not exist")
	}
	s.Post(t, "Decrypt", object(t, "CiphertextBlob", blob)).RequireRefusal(t, "AccessDeniedException",
		"The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are not allowed to access.")
	for _, alias := range aliases {
		s.Post(t, "Encrypt", object(t, "KeyId", alias, "Plaintext", []byte("x"))).
			RequireRefusal(t, "NotFoundException", "Alias "+kmstest.AliasARN(alias)+" is not found.")
	}
	require.Equal(t, []string{kept}, allKeys(t, s, 100))
	perform(t, s, "CreateAlias", object(t, "AliasName", aliases[0], "TargetKeyId", kept)) // the names are free
	perform(t, s, "DeleteAlias", object(t, "AliasName", aliases[0]))
}

// TestDeletionUnderUse has clients use keys without a pause while these are deleted: what is answered at any moment is one
// of the things that may be answered then, in their order.
func TestDeletionUnderUse(t *testing.T) {
	order := map[string]int{"": 0, "KMSInvalidStateException": 1, "NotFoundException": 2, "AccessDeniedException": 2}
	eachShortDay(t, "20ms", func(t *testing.T, s *kmstest.Server) {
		require.NoError(t, together(8, func(int) error { return useToTheEnd(t.Context(), s, order) }))
	})
}

// useToTheEnd encrypts and decrypts with a key until it is gone.
func useToTheEnd(ctx context.Context, s *kmstest.Server, order map[string]int) error {
	client := s.Client()
	made, err := client.CreateKey(ctx, &kms.CreateKeyInput{})
	if err != nil {
		return err
	}
	id := made.KeyMetadata.KeyId
	sealed, err := client.Encrypt(ctx, &kms.EncryptInput{KeyId: id, Plaintext: []byte("x")})
	if err != nil {
		return err
	}
	scheduled := make(chan error, 1)
	for at, turn := 0, 0; at < 2; turn++ {
		if turn == 10 {
			go func() {
				_, err := s.Client().ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: id, PendingWindowInDays: aws.Int32(7)})
				scheduled <- err
			}()
		}
		_, err1 := client.Encrypt(ctx, &kms.EncryptInput{KeyId: id, Plaintext: []byte("x")})
		_, err2 := client.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob})
		for _, err := range []error{err1, err2} {
			next, known := order[codeOf(err)]
			if !known || next < at {
				return fmt.Errorf("after step %d: %w", at, err)
			}
			at = next
		}
	}
	return <-scheduled
}

// TestDeletionOfOtherKeys deletes keys that are not symmetric, after their use: nothing of them stays on the token.
func TestDeletionOfOtherKeys(t *testing.T) {
	eachShortDay(t, "50ms", func(t *testing.T, s *kmstest.Server) {
		s.NewKey(t)
		objects := len(tokenObjects(t, s))
		var ids []string
		for _, k := range softHSMSpecs {
			if k.spec == "RSA_3072" || k.spec == "RSA_4096" {
				continue // they take long to make
			}
			id := newKeyOf(t, s, k.spec, k.usage)
			ids = append(ids, id)
			switch k.usage {
			case "ENCRYPT_DECRYPT":
				requireOpens(t, s, id, "RSAES_OAEP_SHA_1", encryptOutside(t, s, id, "RSAES_OAEP_SHA_1", []byte("x")), []byte("x"))
			case "SIGN_VERIFY":
				accept(t, s, "Sign", object(t, "KeyId", id, "Message", []byte("x"), "SigningAlgorithm", k.algorithms[0]))
			case "GENERATE_VERIFY_MAC":
				accept(t, s, "GenerateMac", object(t, "KeyId", id, "Message", []byte("x"), "MacAlgorithm", k.algorithms[0]))
			case "KEY_AGREEMENT":
				accept(t, s, "DeriveSharedSecret", object(t, "KeyId", id, "KeyAgreementAlgorithm", "ECDH", "PublicKey", publicDER(t, s, id)))
			}
		}
		for _, id := range ids {
			scheduleDeletion(t, s, id)
		}
		for _, id := range ids {
			awaitDeletion(t, s, id)
			s.Post(t, "DescribeKey", object(t, "KeyId", id)).RequireRefusal(t, "NotFoundException", "Key '"+kmstest.KeyARN(id)+"' does not exist")
		}
		require.Len(t, tokenObjects(t, s), objects)
	})
}
