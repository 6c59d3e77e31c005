package kms

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/store"
)

const (
	unlikeMaterial     = "The key material in the request is not the same key material that was previously imported into this KMS key."
	associatedMaterial = "The key material in the request is already associated with this KMS key."
	unnamedMaterial    = "The key material in the request is not the key material that the KeyMaterialId names."
	invalidMaterial    = "The key material in the request is invalid for this KMS key."
)

// TestImportExpiresOnTime uses a key in the last millisecond of its material's life and in the one after, before the
// schedule knows of it.
func TestImportExpiresOnTime(t *testing.T) {
	i := newImporter(t)
	encrypt := func() error {
		_, err := i.Encrypt(t.Context(), newRequest("Encrypt"), &EncryptInput{KeyId: firstKey, Plaintext: []byte("plaintext")})
		return err
	}
	token := i.parameters(firstKey)
	i.requireBrought("a", withToken(token), validFor(time.Hour, i))
	i.now = i.now.Add(time.Hour - time.Millisecond)
	require.NoError(t, encrypt())
	i.attendTo()
	i.requireTidy(setLabel, materialLabel)

	i.now = i.now.Add(time.Millisecond)
	requireError[Empty](t, nil, encrypt(), InvalidState, newTestKey(firstKey).ARN()+" is pending import.")
	described, err := i.DescribeKey(t.Context(), newRequest("DescribeKey"), &DescribeKeyInput{KeyId: firstKey})
	require.NoError(t, err)
	require.Equal(t, PendingImport, described.KeyMetadata.KeyState)
	require.Empty(t, described.KeyMetadata.ExpirationModel)
	require.Nil(t, described.KeyMetadata.ValidTo)
	require.Equal(t, importedID("a"), described.KeyMetadata.CurrentKeyMaterialId)
	i.requireTidy(setLabel, materialLabel)
	i.attendTo()
	i.attendTo()
	i.requireTidy(setLabel)
	require.Equal(t, PendingImport, i.key().State)

	i.requireBrought("a", withToken(token))
	require.NoError(t, encrypt())
	i.now = i.now.Add(2 * importValidity)
	i.attendTo()
	i.attendTo()
	i.requireTidy(materialLabel)
	require.Empty(t, i.records(duePrefix))
}

// TestImportAfterExpiry imports material again that has expired, before the schedule has come to it: what had expired is
// destroyed.
func TestImportAfterExpiry(t *testing.T) {
	i := newImporter(t)
	token := i.parameters(firstKey)
	i.requireBrought("a", withToken(token), validFor(time.Hour, i))
	before := i.key().Materials[0]
	i.now = i.now.Add(time.Hour)
	i.requireBrought("a", withToken(token), validFor(time.Hour, i))
	i.requireTidy(setLabel, materialLabel)
	require.NotEqual(t, before.Ref, i.key().Materials[0].Ref)
	require.Equal(t, before.Created, i.key().Materials[0].Created)
	require.Len(t, i.records(duePrefix), 2)
}

// TestImportRenews imports material that is there: it gets another end, and stays where it is.
func TestImportRenews(t *testing.T) {
	i := newImporter(t)
	token := i.parameters(firstKey)
	describe := func(text string) func(*ImportKeyMaterialInput) {
		return func(in *ImportKeyMaterialInput) { in.KeyMaterialDescription = text }
	}
	i.requireBrought("a", withToken(token), validFor(time.Hour, i), describe("first"))
	ref := i.key().Materials[0].Ref
	for _, test := range []struct {
		until       time.Duration
		description string
		want        string
	}{{2 * time.Hour, "", "first"}, {time.Minute, "second", "second"}, {0, "", "second"}} {
		edits := []func(*ImportKeyMaterialInput){withToken(token), describe(test.description)}
		var end time.Time
		if test.until > 0 {
			edits, end = append(edits, validFor(test.until, i)), i.now.Add(test.until)
		}
		i.requireBrought("a", edits...)
		got := i.key().Materials[0]
		require.Equal(t, ref, got.Ref)
		require.True(t, end.Equal(got.Expires), got.Expires)
		require.Equal(t, test.want, got.Description)
		i.requireTidy(setLabel, materialLabel)
	}
}

// TestImportTerms holds what a request says of time and type against each other.
func TestImportTerms(t *testing.T) {
	i := newImporter(t)
	at := func(d time.Duration) *Timestamp { return &Timestamp{i.now.Add(d)} }
	const year = 365 * 24 * time.Hour
	for _, test := range []struct {
		in   ImportKeyMaterialInput
		text string
	}{
		{ImportKeyMaterialInput{}, "A validTo date must be set if the ExpirationModel is KEY_MATERIAL_EXPIRES"},
		{ImportKeyMaterialInput{ExpirationModel: expires}, "A validTo date must be set if the ExpirationModel is KEY_MATERIAL_EXPIRES"},
		{ImportKeyMaterialInput{ExpirationModel: doesNotExpire, ValidTo: at(1)}, "A validTo date must not be set if the ExpirationModel is KEY_MATERIAL_DOES_NOT_EXPIRE"},
		{ImportKeyMaterialInput{ValidTo: at(0)}, "The validTo date must be in the future"},
		{ImportKeyMaterialInput{ValidTo: at(-year)}, "The validTo date must be in the future"},
		{ImportKeyMaterialInput{ValidTo: at(year + time.Millisecond)}, "The validTo date must be at most 365 days in the future"},
		{ImportKeyMaterialInput{ExpirationModel: doesNotExpire, ImportType: newKeyMaterial, KeyMaterialId: importedID("a")},
			"You cannot specify a KeyMaterialId when the ImportType is NEW_KEY_MATERIAL."},
	} {
		in := test.in
		in.KeyId, in.ImportToken, in.EncryptedKeyMaterial = firstKey, []byte("token"), material("a")
		out, err := i.ImportKeyMaterial(t.Context(), newRequest("ImportKeyMaterial"), &in)
		requireError(t, out, err, Validation, test.text)
	}
	require.Zero(t, i.token.made)
	i.requireBrought("a", func(in *ImportKeyMaterialInput) { in.ExpirationModel, in.ValidTo = "", at(time.Millisecond) })
	i.requireBrought("a", func(in *ImportKeyMaterialInput) { in.ExpirationModel, in.ValidTo = "", at(year) })
}

// TestImportTypes imports material into a key that has had "a" and has "b" waiting, with "c" being new to it; into one
// that has had "a" only; and into one that never had any.
func TestImportTypes(t *testing.T) {
	typed := func(importType, id string) func(*ImportKeyMaterialInput) {
		return func(in *ImportKeyMaterialInput) { in.ImportType, in.KeyMaterialId = importType, id }
	}
	pending := "New key material (id: " + importedID("c") + ") cannot be imported into KMS key " + newTestKey(firstKey).ARN() +
		", because another key material (id: " + importedID("b") + ") is pending rotation."
	const existing = "EXISTING_KEY_MATERIAL"
	for _, test := range []struct {
		has, letter, importType, id string
		code                        ErrorType
		text                        string
	}{
		{has: "", letter: "a"},
		{has: "", letter: "a", importType: newKeyMaterial},
		{has: "", letter: "a", importType: existing, code: IncorrectKeyMaterial, text: unlikeMaterial},
		{has: "", letter: "a", id: importedID("a"), code: IncorrectKeyMaterial, text: unlikeMaterial},
		{has: "a", letter: "a"},
		{has: "a", letter: "a", importType: existing},
		{has: "a", letter: "a", id: importedID("a")},
		{has: "a", letter: "a", importType: existing, id: importedID("a")},
		{has: "a", letter: "a", importType: existing, id: importedID("b"), code: IncorrectKeyMaterial, text: unnamedMaterial},
		{has: "a", letter: "a", importType: newKeyMaterial, code: IncorrectKeyMaterial, text: associatedMaterial},
		{has: "a", letter: "b", importType: newKeyMaterial},
		{has: "a", letter: "b", code: IncorrectKeyMaterial, text: unlikeMaterial},
		{has: "a", letter: "b", importType: existing, code: IncorrectKeyMaterial, text: unlikeMaterial},
		{has: "a", letter: "b", id: importedID("b"), code: IncorrectKeyMaterial, text: unlikeMaterial},
		{has: "a", letter: "b", id: importedID("a"), code: IncorrectKeyMaterial, text: unnamedMaterial},
		{has: "ab", letter: "a"},
		{has: "ab", letter: "b"},
		{has: "ab", letter: "b", importType: existing, id: importedID("b")},
		{has: "ab", letter: "b", importType: newKeyMaterial, code: IncorrectKeyMaterial, text: associatedMaterial},
		{has: "ab", letter: "c", importType: newKeyMaterial, code: InvalidState, text: pending},
		{has: "ab", letter: "c", code: IncorrectKeyMaterial, text: unlikeMaterial},
	} {
		for _, gone := range []bool{false, test.has == "a"} {
			i := newImporter(t)
			token := i.parameters(firstKey)
			want := []string{setLabel}
			for range test.has {
				want = append(want, materialLabel)
			}
			for n := range test.has {
				i.requireBrought(test.has[n:n+1], withToken(token), asNew)
			}
			if gone { // what can be imported does not depend on whether the key has it at the moment
				_, err := i.remove(importedID("a"))
				require.NoError(t, err)
				want = want[:1]
			}
			before := i.key()
			out, err := i.bring(test.letter, withToken(token), typed(test.importType, test.id))
			if test.code != "" {
				requireError(t, out, err, test.code, test.text)
				require.Equal(t, before, i.key())
				i.requireTidy(want...)
				continue
			}
			require.NoError(t, err, "%+v", test)
			require.Equal(t, importedID(test.letter), out.KeyMaterialId)
			if gone || len(i.key().Materials) > len(before.Materials) {
				want = append(want, materialLabel)
			}
			i.requireTidy(want...)
		}
	}
}

// TestImportPending imports new material: the current one stays, until the new one is used or deleted.
func TestImportPending(t *testing.T) {
	i := newImporter(t)
	token := i.parameters(firstKey)
	i.requireBrought("a", withToken(token))
	i.requireBrought("b", withToken(token), asNew, validFor(time.Hour, i))
	require.Equal(t, importedID("a"), i.key().current().ID)
	require.Equal(t, importedID("b"), i.key().pending().ID)
	out, err := i.remove(importedID("b"))
	require.NoError(t, err)
	require.Equal(t, importedID("b"), out.KeyMaterialId)
	require.Nil(t, i.key().pending())
	require.Equal(t, Enabled, i.key().State)
	i.requireTidy(setLabel, materialLabel)
	out, err = i.remove(importedID("b"))
	requireError(t, out, err, NotFound, "Key material '"+importedID("b")+"' of key '"+newTestKey(firstKey).ARN()+"' does not exist")

	i.requireBrought("b", withToken(token), asNew, validFor(time.Hour, i))
	i.now = i.now.Add(time.Hour)
	i.requireBrought("c", withToken(token), asNew)
	require.Equal(t, importedID("c"), i.key().pending().ID)
	i.requireTidy(setLabel, materialLabel, materialLabel)
	_, err = i.remove("")
	require.NoError(t, err)
	require.Equal(t, PendingImport, i.key().State, "the material that waits is no substitute")
	i.requireBrought("a", withToken(token))
	require.Equal(t, Enabled, i.key().State)
}

// TestImportOfSeveral deletes materials of a key that has several: it is usable only when it has all of them.
func TestImportOfSeveral(t *testing.T) {
	i := newImporter(t)
	token := i.parameters(firstKey)
	i.requireBrought("a", withToken(token))
	i.requireBrought("b", withToken(token), asNew)
	require.NoError(t, i.update(t.Context(), func(r *recorder) error {
		key, err := r.key(testRegion, firstKey)
		if err != nil {
			return err
		}
		key.pending().Pending = false // as a rotation does
		return r.putKey(key)
	}))
	for _, order := range [][2]string{{"a", "b"}, {"b", "a"}} {
		for _, letter := range order {
			_, err := i.remove(importedID(letter))
			require.NoError(t, err)
			require.Equal(t, PendingImport, i.key().State)
		}
		i.requireTidy(setLabel)
		i.requireBrought(order[0], withToken(token))
		require.Equal(t, PendingImport, i.key().State)
		i.requireBrought(order[1], withToken(token))
		require.Equal(t, Enabled, i.key().State)
		require.Equal(t, importedID("b"), i.key().current().ID)
		i.requireTidy(setLabel, materialLabel, materialLabel)
	}
}

// TestImportRaces changes the key while its material is on the way to the token.
func TestImportRaces(t *testing.T) {
	arn := newTestKey(firstKey).ARN()
	for name, test := range map[string]struct {
		during func(i *importer, token []byte)
		code   ErrorType
		text   string
		left   []string
	}{
		"it is to be deleted": {func(i *importer, _ []byte) {
			_, err := i.ScheduleKeyDeletion(t.Context(), newRequest("ScheduleKeyDeletion"), &ScheduleKeyDeletionInput{KeyId: firstKey})
			require.NoError(t, err)
		}, InvalidState, arn + " is pending deletion.", nil},
		"it is gone": {func(i *importer, _ []byte) {
			require.NoError(t, i.update(t.Context(), func(r *recorder) error { return r.remove(keyRecord(testRegion, firstKey)) }))
		}, NotFound, "Key '" + arn + "' does not exist", nil},
		"it has got the same material": {func(i *importer, token []byte) {
			i.requireBrought("a", withToken(token))
		}, "", "", []string{materialLabel}},
		"it has got other material": {func(i *importer, token []byte) {
			i.requireBrought("b", withToken(token))
		}, IncorrectKeyMaterial, unlikeMaterial, []string{materialLabel}},
		"its import set has ended": {func(i *importer, _ []byte) { i.now = i.now.Add(importValidity); i.attendTo(); i.attendTo() },
			"", "", []string{materialLabel}},
	} {
		t.Run(name, func(t *testing.T) {
			i := newImporter(t)
			token := i.parameters(firstKey)
			i.token.during = func() { test.during(i, token) }
			out, err := i.bring("a", withToken(token))
			if test.code != "" {
				requireError(t, out, err, test.code, test.text)
			} else {
				require.NoError(t, err)
			}
			i.now = i.now.Add(importValidity)
			i.attendTo()
			i.attendTo()
			require.Equal(t, test.left, i.token.labels())
			require.Empty(t, i.records(doomedPrefix))
		})
	}
}

// TestImportFails fails at the token and at the store: no object is left, unless the record may have been written.
func TestImportFails(t *testing.T) {
	const later = "The request was rejected because the key is not available. Try again later."
	for name, test := range map[string]struct {
		prepare func(*importer)
		code    ErrorType
		text    string
		left    []string
	}{
		"the vault is out of reach": {func(i *importer) { i.token.failures["Decrypt"] = &hsm.Error{Class: hsm.TokenGone} }, KeyUnavailable, later, nil},
		"the token is out of reach": {func(i *importer) { i.token.failures["ImportKey"] = &hsm.Error{Class: hsm.TokenGone} }, KeyUnavailable, later, nil},
		"the token does not answer": {func(i *importer) { i.token.failures["ImportKey"] = &hsm.Error{Class: hsm.Busy} },
			DependencyTimeout, "The system timed out while trying to fulfill the request.", nil},
		"the token is full": {func(i *importer) { i.token.failures["ImportKey"] = &hsm.Error{Class: hsm.TokenFull} },
			LimitExceeded, "The HSM token has no room for another key.", nil},
		"the token has got stricter": {func(i *importer) { i.token.failures["ImportKey"] = &hsm.Error{Class: hsm.Unsupported} },
			UnsupportedOperation, "The wrapping algorithm is not supported by the HSM token of this Region.", nil},
		"the token says nothing": {func(i *importer) { i.token.failures["ImportKey"] = &hsm.Error{Class: hsm.Failed} }, InternalError, "", nil},
		"the store is full":      {func(i *importer) { i.cfg.Store = failingStore{i.cfg.Store, errDisk, false} }, InternalError, "", nil},
		"nobody knows": {func(i *importer) { i.cfg.Store = failingStore{i.cfg.Store, store.ErrUncertain, true} },
			InternalError, "", []string{materialLabel}},
	} {
		t.Run(name, func(t *testing.T) {
			i := newImporter(t)
			token := i.parameters(firstKey)
			test.prepare(i)
			out, err := i.bring("a", withToken(token))
			require.Nil(t, out)
			require.Equal(t, test.code, TypeOf(err))
			if test.text != "" {
				requireError(t, out, err, test.code, test.text)
			}
			require.Equal(t, append([]string{setLabel}, test.left...), i.token.labels())
			require.Len(t, i.key().Materials, len(test.left))
		})
	}
}

// TestRefusedMaterialIsDestroyedLater refuses material while the token is too busy to destroy it: the schedule does.
func TestRefusedMaterialIsDestroyedLater(t *testing.T) {
	i := newImporter(t)
	token := i.parameters(firstKey)
	i.requireBrought("a", withToken(token))
	i.token.failures["DestroyKey"] = &hsm.Error{Class: hsm.Busy}
	out, err := i.bring("b", withToken(token))
	requireError(t, out, err, IncorrectKeyMaterial, unlikeMaterial)
	require.Equal(t, []string{setLabel, materialLabel, materialLabel}, i.token.labels())
	i.attendTo()
	require.Len(t, i.records(doomedPrefix), 1)
	delete(i.token.failures, "DestroyKey")
	i.attendTo()
	i.requireTidy(setLabel, materialLabel)
	require.Equal(t, importedID("a"), i.key().current().ID)
}

// TestImportOfNonsense imports what cannot be decrypted, or is no AES-256 key.
func TestImportOfNonsense(t *testing.T) {
	i := newImporter(t)
	token := i.parameters(firstKey)
	for text, want := range map[string]*Error{
		"spoiled": {Type: InvalidCiphertext}, "short": {Type: IncorrectKeyMaterial, Message: invalidMaterial},
	} {
		out, err := i.bring("a", withToken(token), func(in *ImportKeyMaterialInput) { in.EncryptedKeyMaterial = []byte(text) })
		requireError(t, out, err, want.Type, want.Message)
	}
	require.Empty(t, i.key().Materials)
	i.requireTidy(setLabel)
}

// TestDeleteImported deletes material that is there, that is deleted already, and that never was.
func TestDeleteImported(t *testing.T) {
	i := newImporter(t)
	arn := newTestKey(firstKey).ARN()
	out, err := i.remove("")
	require.NoError(t, err)
	require.Equal(t, &DeleteImportedKeyMaterialOutput{KeyId: arn}, out)
	out, err = i.remove(importedID("a"))
	requireError(t, out, err, NotFound, "Key material '"+importedID("a")+"' of key '"+arn+"' does not exist")

	i.requireBrought("a", validFor(time.Hour, i))
	const base = 77 // as if it had been imported when the counter stood there
	require.NoError(t, i.update(t.Context(), func(r *recorder) error {
		key, err := r.key(testRegion, firstKey)
		if err != nil {
			return err
		}
		key.Materials[0].Base = base
		return r.putKey(key)
	}))
	for _, id := range []string{"", importedID("a"), ""} {
		out, err = i.remove(id)
		require.NoError(t, err)
		require.Equal(t, &DeleteImportedKeyMaterialOutput{KeyId: arn, KeyMaterialId: importedID("a")}, out)
		require.Equal(t, PendingImport, i.key().State)
		i.requireTidy(setLabel) // at once, without the schedule
		require.Len(t, i.records(duePrefix), 1, "of the import set")
	}
	i.requireBrought("a")
	require.EqualValues(t, base, i.key().Materials[0].Base, "what was encrypted before still counts")
	require.Equal(t, Enabled, i.key().State)

	require.NoError(t, i.update(t.Context(), func(r *recorder) error {
		key, err := r.key(testRegion, firstKey)
		if err != nil {
			return err
		}
		key.State, key.Deletion = PendingDeletion, i.now.Add(time.Hour)
		return r.putKey(key)
	}))
	_, err = i.remove("")
	require.NoError(t, err)
	require.Equal(t, PendingDeletion, i.key().State)
	require.Equal(t, []string{setLabel, setLabel}, i.token.labels())
	_, err = i.CancelKeyDeletion(t.Context(), newRequest("CancelKeyDeletion"), &CancelKeyDeletionInput{KeyId: firstKey})
	require.NoError(t, err)
	require.Equal(t, PendingImport, i.key().State)
}

// TestDeleteImportedWithoutToken deletes material while the token is out of reach: the key is without it at once, and the
// token when it is back.
func TestDeleteImportedWithoutToken(t *testing.T) {
	i := newImporter(t)
	i.requireBrought("a")
	i.token.failures["DestroyKey"] = &hsm.Error{Class: hsm.TokenGone}
	_, err := i.remove("")
	require.NoError(t, err)
	require.Equal(t, PendingImport, i.key().State)
	require.Len(t, i.records(doomedPrefix), 1)
	require.Equal(t, retryWait, i.attendAll(t.Context()))
	stock, err := i.Stocktake(t.Context(), testRegion)
	require.NoError(t, err)
	require.Equal(t, Stocktaking{}, stock, "what is doomed is no orphan")
	delete(i.token.failures, "DestroyKey")
	i.attendTo()
	i.requireTidy(setLabel)

	i.requireBrought("a")
	i.cfg.Store = failingStore{i.cfg.Store, errDisk, false}
	out, err := i.remove("")
	require.Nil(t, out)
	require.ErrorIs(t, err, errDisk)
	require.Equal(t, Enabled, i.key().State)
	i.requireTidy(setLabel, setLabel, materialLabel)
}

// TestImportIsForExternalKeys names a key whose material was made here, in any state.
func TestImportIsForExternalKeys(t *testing.T) {
	i := newImporter(t)
	for _, state := range []KeyState{Enabled, DisabledState, PendingDeletion} {
		put(t, i.Service, newTestKey(secondKey, inState(state)))
		text := newTestKey(secondKey).ARN() + " origin is AWS_KMS which is not valid for this operation."
		set, err := i.GetParametersForImport(t.Context(), newRequest("GetParametersForImport"),
			&GetParametersForImportInput{KeyId: secondKey, WrappingAlgorithm: "RSAES_PKCS1_V1_5", WrappingKeySpec: "SM2"})
		requireError(t, set, err, UnsupportedOperation, text)
		imported, err := i.ImportKeyMaterial(t.Context(), newRequest("ImportKeyMaterial"), &ImportKeyMaterialInput{KeyId: secondKey})
		requireError(t, imported, err, UnsupportedOperation, text)
		deleted, err := i.DeleteImportedKeyMaterial(t.Context(), newRequest("DeleteImportedKeyMaterial"), &DeleteImportedKeyMaterialInput{KeyId: secondKey})
		requireError(t, deleted, err, UnsupportedOperation, text)
	}
}
