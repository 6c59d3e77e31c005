package fault

import (
	"bytes"
	"encoding/json"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/store"
	"hsmkms/store/bolt"
	"hsmkms/test/kmstest"
)

// keyRecord is where the store has a key.
func keyRecord(id string) string { return "key/" + kmstest.Region + "/" + id }

// editRecord changes a record while the server is stopped, and gives what was there.
func editRecord(t *testing.T, s *kmstest.Server, key string, edit func(old []byte) []byte) (old []byte) {
	t.Helper()
	require.NoError(t, s.Stop())
	file, err := bolt.Open(bolt.Config{Path: filepath.Join(s.Dir, "hsmkms.db")})
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	require.NoError(t, file.Update(t.Context(), func(tx store.Txn) error {
		value, found, err := tx.Get(key)
		require.NoError(t, err)
		require.True(t, found)
		old = bytes.Clone(value)
		return tx.Put(key, edit(bytes.Clone(value)))
	}))
	return old
}

// editMaterial changes the only material of a key's record.
func editMaterial(t *testing.T, record []byte, edit func(material map[string]any)) []byte {
	t.Helper()
	var key map[string]any
	require.NoError(t, json.Unmarshal(record, &key))
	materials := key["materials"].([]any)
	require.Len(t, materials, 1)
	edit(materials[0].(map[string]any))
	record, err := json.Marshal(key)
	require.NoError(t, err)
	return record
}

// damage is a record that was damaged in the file of the store, and what comes of it.
type damage struct {
	edit  func(t *testing.T, record []byte) []byte
	fault [2]string
	cause string
}

func cutInHalf(_ *testing.T, record []byte) []byte { return record[:len(record)/2] }

func overwritten(_ *testing.T, record []byte) []byte { return make([]byte, len(record)) }

// renameObject has the record name an object that the token does not have.
func renameObject(t *testing.T, record []byte) []byte {
	t.Helper()
	return editMaterial(t, record, func(material map[string]any) {
		material["ref"].(map[string]any)["id"] = "00000000000000000000000000000000"
	})
}

// flipWrapped changes a bit of wrapped key material.
func flipWrapped(t *testing.T, record []byte) []byte {
	t.Helper()
	return editMaterial(t, record, func(material map[string]any) {
		ref := material["ref"].(map[string]any)
		text, err := json.Marshal(ref["wrapped"])
		require.NoError(t, err)
		var wrapped []byte
		require.NoError(t, json.Unmarshal(text, &wrapped))
		wrapped[20] ^= 1
		ref["wrapped"] = wrapped
	})
}

// TestDamagedRecord damages the record of one key, which must not harm the others, and repairs it.
func TestDamagedRecord(t *testing.T) {
	damages := map[string]map[string]damage{
		kmstest.HomeToken: {
			"cut in half":   {cutInHalf, internalError, "reading a record"},
			"overwritten":   {overwritten, internalError, "reading a record"},
			"without token": {renameObject, keyUnavailable, "no object with CKA_ID 00000000000000000000000000000000"},
		},
		kmstest.HomeWrapped: {
			"cut in half":   {cutInHalf, internalError, "reading a record"},
			"wrapped wrong": {flipWrapped, internalError, "C_UnwrapKey returned 0x5"},
		},
	}
	eachHome(t, func(t *testing.T, home string) {
		for name, d := range damages[home] {
			t.Run(name, func(t *testing.T) { d.test(t, home) })
		}
	})
}

func (d damage) test(t *testing.T, home string) {
	r := newRig(t, kmstest.Options{Home: home})
	hurt, well := newSecret(t, r.Server, "hurt"), newSecret(t, r.Server, "well")
	record := editRecord(t, r.Server, keyRecord(hurt.key), func(old []byte) []byte { return d.edit(t, old) })
	require.NoError(t, r.Run())
	r.requireFault(t, r.Post(t, "ReEncrypt", hurt.reEncrypt(t, well.key)), d.fault, d.cause)
	r.requireFault(t, r.Post(t, "ReEncrypt", well.reEncrypt(t, hurt.key)), d.fault, d.cause)
	r.requireReady(t)
	answer := r.Post(t, "ReEncrypt", well.reEncrypt(t, r.NewKey(t)))
	require.Equal(t, http.StatusOK, answer.Status, answer.Body)
	well.requireOpens(t, r.Server)

	editRecord(t, r.Server, keyRecord(hurt.key), func([]byte) []byte { return record })
	require.NoError(t, r.Run())
	hurt.requireOpens(t, r.Server)
	answer = r.Post(t, "ReEncrypt", well.reEncrypt(t, hurt.key))
	require.Equal(t, http.StatusOK, answer.Status, answer.Body)
	require.Zero(t, requireStockTaken(t, r.Server))
}

// TestMissingObjectReported has a key whose object is not on the token, and an object that no key has.
func TestMissingObjectReported(t *testing.T) {
	r := newRig(t, kmstest.Options{})
	x := newSecret(t, r.Server, "kept")
	editRecord(t, r.Server, keyRecord(x.key), func(old []byte) []byte { return renameObject(t, old) })
	require.NoError(t, r.Run())
	for _, name := range []string{"hsmkms_token_missing", "hsmkms_token_orphans"} {
		eventually(t, func() bool {
			value, found := gauge(t, r.Server, name)
			return found && value == 1
		}, name)
	}
	r.requireLogged(t, `"msg":"key without its object on the token","region":"us-east-1","key":"`+x.key+`"`, 1)
	r.requireLogged(t, `"label":"kms/`+x.key+`"`, 1)
}
