package kms

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/store"
)

const (
	badImportToken     = "The provided import token is invalid or is associated with a different KMS key."
	expiredImportToken = "The specified import token is expired."
)

// TestImportSetExpires uses an import set in the last millisecond of its 24 hours and in the one after.
func TestImportSetExpires(t *testing.T) {
	i := newImporter(t)
	i.now = i.now.Add(123456 * time.Microsecond) // the wire shows milliseconds
	token := i.parameters(firstKey)
	require.Len(t, i.records(importPrefix), 1)
	i.now = i.now.Add(24*time.Hour - time.Millisecond)
	i.attendTo()
	i.requireTidy(setLabel)
	i.requireBrought("a", withToken(token))
	i.now = i.now.Add(time.Millisecond)
	out, err := i.bring("a", withToken(token))
	requireError(t, out, err, ExpiredImportToken, expiredImportToken)
	i.requireTidy(setLabel, materialLabel)
	i.attendTo()
	i.attendTo()
	i.requireTidy(materialLabel)
	for _, prefix := range []string{importPrefix, keyImportPrefix, duePrefix} {
		require.Empty(t, i.records(prefix))
	}
}

// TestImportSetsOfAKey makes sets too many: the oldest end. Their wrapping keys are off the token without the schedule,
// which one request after the other would outrun.
func TestImportSetsOfAKey(t *testing.T) {
	i := newImporter(t)
	put(t, i.Service, newTestKey(secondKey, inState(PendingImport)))
	i.parameters(secondKey)
	var tokens [][]byte
	for range maxImportSets + 2 {
		tokens = append(tokens, i.parameters(firstKey))
		i.now = i.now.Add(time.Millisecond)
	}
	require.Len(t, i.records(importPrefix), maxImportSets+1)
	require.Len(t, i.records(keyImportPrefix), maxImportSets+1)
	require.Len(t, i.records(duePrefix), maxImportSets+1)
	i.requireTidy(append(slices.Repeat([]string{setLabel}, maxImportSets), "import/"+secondKey)...)
	for n, token := range tokens {
		out, err := i.bring("a", withToken(token))
		if n < 2 {
			requireError(t, out, err, ExpiredImportToken, expiredImportToken)
			continue
		}
		require.NoError(t, err)
	}
}

// TestImportSetTooManyWithoutToken makes a set too many while the token destroys nothing: that is the schedule's matter then.
func TestImportSetTooManyWithoutToken(t *testing.T) {
	i := newImporter(t)
	for range maxImportSets {
		i.parameters(firstKey)
	}
	i.token.failures["DestroyKey"] = &hsm.Error{Class: hsm.Busy}
	i.parameters(firstKey)
	require.Len(t, i.records(doomedPrefix), 1)
	require.Len(t, i.token.labels(), maxImportSets+1)
	delete(i.token.failures, "DestroyKey")
	i.attendTo()
	i.requireTidy(slices.Repeat([]string{setLabel}, maxImportSets)...)
}

// TestImportSetsEndWithTheKey deletes a key that has import sets.
func TestImportSetsEndWithTheKey(t *testing.T) {
	i := newImporter(t)
	for range maxImportSets {
		i.parameters(firstKey)
	}
	token := i.parameters(firstKey)
	i.requireBrought("a", withToken(token))
	_, err := i.ScheduleKeyDeletion(t.Context(), newRequest("ScheduleKeyDeletion"), &ScheduleKeyDeletionInput{KeyId: firstKey})
	require.NoError(t, err)
	// The sets must not be gone by their own time: it is the deletion that takes them.
	require.NoError(t, i.update(t.Context(), func(r *recorder) error {
		key, err := r.key(testRegion, firstKey)
		if err != nil {
			return err
		}
		key.Deletion = i.now.Add(time.Hour)
		return r.putKey(key)
	}))
	i.now = i.now.Add(time.Hour)
	i.attendTo()
	i.attendTo()
	i.requireTidy()
	require.Empty(t, i.records(""))
	i.now = i.now.Add(importValidity)
	i.attendTo()
	require.Empty(t, i.records(""))
}

// TestImportSetEntries has the schedule find an entry of another time, of no set, and of a set whose time has not come
// because the clock was set back.
func TestImportSetEntries(t *testing.T) {
	i := newImporter(t)
	i.parameters(firstKey)
	entry := i.records(duePrefix)[0]
	set := entry[len(entry)-32:]
	stray := dueEntry(i.now, testRegion, dueImports, set)
	orphan := dueEntry(i.now, testRegion, dueImports, "0123456789abcdef0123456789abcdef")
	require.NoError(t, i.update(t.Context(), func(r *recorder) error {
		if err := r.mark(stray); err != nil {
			return err
		}
		return r.mark(orphan)
	}))
	i.attendTo()
	require.Equal(t, []string{entry}, i.records(duePrefix))
	require.NoError(t, i.endImportSet(t.Context(), testRegion, set, entry))
	i.requireTidy(setLabel)
}

// TestImportTokenForgeries changes every byte of an import token, and passes other sealed things for one.
func TestImportTokenForgeries(t *testing.T) {
	i := newImporter(t)
	token := i.parameters(firstKey)
	put(t, i.Service, newTestKey(secondKey, inState(PendingImport)))
	good := i.readToken(token)
	forgeries := [][]byte{
		[]byte("t"), token[:len(token)-1], append(slices.Clone(token), 0), token[1:], i.parameters(secondKey),
		i.seal("another name", good), i.seal(importTokenName, append(slices.Clone(good), '1')), i.seal(importTokenName, []byte("{}")),
		i.seal(importTokenName, []byte("token")), i.seal(importTokenName, changed(t, good, "version", 2)),
		i.seal(importTokenName, changed(t, good, "region", "eu-west-1")), i.seal(importTokenName, changed(t, good, "wrap", hsm.OAEPSHA1)),
		i.seal(importTokenName, changed(t, good, "kind", hsm.RSA2048Import)), i.seal(importTokenName, changed(t, good, "more", 1)),
		i.seal(importTokenName, changed(t, good, "validTo", i.now.Add(48*time.Hour).UnixMilli())),
	}
	for n := range token {
		forged := slices.Clone(token)
		forged[n] ^= 1 << (n % 8)
		forgeries = append(forgeries, forged)
	}
	made := i.token.made
	for _, forged := range forgeries {
		out, err := i.bring("a", withToken(forged))
		requireError(t, out, err, InvalidImportToken, badImportToken)
	}
	out, err := i.bring("a", withToken(i.seal(importTokenName, changed(t, good, "set", "0123456789abcdef0123456789abcdef"))))
	requireError(t, out, err, ExpiredImportToken, expiredImportToken)
	require.Equal(t, made, i.token.made)
	i.requireBrought("a", withToken(i.seal(importTokenName, good)))
}

func (i *importer) seal(name string, text []byte) []byte {
	i.t.Helper()
	sealed, err := i.cfg.Vault.Seal(i.t.Context(), name, text)
	require.NoError(i.t, err)
	return sealed
}

func (i *importer) readToken(token []byte) []byte {
	i.t.Helper()
	text, err := i.cfg.Vault.Open(i.t.Context(), importTokenName, token)
	require.NoError(i.t, err)
	return text
}

// changed gives a JSON object with another value of a member.
func changed(t *testing.T, text []byte, member string, value any) []byte {
	t.Helper()
	var members map[string]any
	require.NoError(t, json.Unmarshal(text, &members))
	members[member] = value
	other, err := json.Marshal(members)
	require.NoError(t, err)
	return other
}

// TestImportTokenOfAnotherRegion takes an import token to the replica of its key.
func TestImportTokenOfAnotherRegion(t *testing.T) {
	const other = "eu-west-1"
	i := newImporter(t, func(cfg *Config) { cfg.Regions[other] = cfg.Regions[testRegion] })
	token := i.parameters(firstKey)
	put(t, i.Service, newTestKey(firstKey, inState(PendingImport), func(key *Key) { key.Region = other }))
	r := newRequest("ImportKeyMaterial")
	r.Region = other
	in := &ImportKeyMaterialInput{KeyId: firstKey, EncryptedKeyMaterial: material("a"), ExpirationModel: doesNotExpire, ImportToken: token}
	out, err := i.ImportKeyMaterial(t.Context(), r, in)
	requireError(t, out, err, InvalidImportToken, badImportToken)

	parameters := newRequest("GetParametersForImport")
	parameters.Region = other
	set, err := i.GetParametersForImport(t.Context(), parameters,
		&GetParametersForImportInput{KeyId: firstKey, WrappingAlgorithm: "RSAES_OAEP_SHA_1", WrappingKeySpec: "RSA_2048"})
	require.NoError(t, err)
	in.ImportToken = set.ImportToken
	out, err = i.ImportKeyMaterial(t.Context(), r, in)
	require.NoError(t, err)
	require.Equal(t, importedID("a"), out.KeyMaterialId, "the same in every Region")
}

// TestParametersForImportRefusals asks for what cannot be: nothing is made on the token.
func TestParametersForImportRefusals(t *testing.T) {
	const open = "RSAES_OAEP_SHA_256"
	i := newImporter(t)
	for _, test := range []struct{ wrap, spec, text string }{
		{"RSAES_PKCS1_V1_5", "RSA_2048", "WrappingAlgorithm RSAES_PKCS1_V1_5 is not supported for KeySpec SYMMETRIC_DEFAULT."},
		{"SM2PKE", "RSA_2048", "WrappingAlgorithm SM2PKE is not supported for KeySpec SYMMETRIC_DEFAULT."},
		{open, "SM2", "WrappingKeySpec SM2 is not supported."},
		{"RSA_AES_KEY_WRAP_SHA_1", "RSA_2048", "WrappingAlgorithm RSA_AES_KEY_WRAP_SHA_1 is not supported by the HSM token of this Region."},
	} {
		out, err := i.GetParametersForImport(t.Context(), newRequest("GetParametersForImport"),
			&GetParametersForImportInput{KeyId: firstKey, WrappingAlgorithm: test.wrap, WrappingKeySpec: test.spec})
		requireError(t, out, err, UnsupportedOperation, test.text)
	}
	for method, failure := range map[string]ErrorType{"ImportRoutes": KeyUnavailable, "GenerateKey": KeyUnavailable} {
		i.token.failures = map[string]error{method: &hsm.Error{Class: hsm.TokenGone}}
		out, err := i.GetParametersForImport(t.Context(), newRequest("GetParametersForImport"),
			&GetParametersForImportInput{KeyId: firstKey, WrappingAlgorithm: open, WrappingKeySpec: "RSA_2048"})
		require.Nil(t, out)
		require.Equal(t, failure, TypeOf(err))
	}
	i.token.failures = map[string]error{"GenerateKey": &hsm.Error{Class: hsm.TokenFull}}
	out, err := i.GetParametersForImport(t.Context(), newRequest("GetParametersForImport"),
		&GetParametersForImportInput{KeyId: firstKey, WrappingAlgorithm: open, WrappingKeySpec: "RSA_2048"})
	requireError(t, out, err, LimitExceeded, "The HSM token has no room for another key.")
	require.Zero(t, i.token.made)
}

// TestParametersForImportDiscards fails, in every way, to keep a wrapping key that was made.
func TestParametersForImportDiscards(t *testing.T) {
	in := &GetParametersForImportInput{KeyId: firstKey, WrappingAlgorithm: "RSAES_OAEP_SHA_1", WrappingKeySpec: "RSA_3072"}
	dying := " is pending deletion."
	for name, test := range map[string]struct {
		prepare func(*importer, context.CancelFunc)
		code    ErrorType
		left    []string
	}{
		"the vault is out of reach": {func(i *importer, _ context.CancelFunc) {
			i.token.failures["Encrypt"] = &hsm.Error{Class: hsm.TokenGone}
		}, KeyUnavailable, nil},
		"the store is full": {func(i *importer, _ context.CancelFunc) { i.cfg.Store = failingStore{i.cfg.Store, errDisk, false} }, InternalError, nil},
		"nobody knows": {func(i *importer, _ context.CancelFunc) {
			i.cfg.Store = failingStore{i.cfg.Store, store.ErrUncertain, false}
		},
			InternalError, []string{setLabel}},
		"the caller has gone": {func(i *importer, stop context.CancelFunc) { i.token.during = stop }, InternalError, nil},
		"the key is deleted meanwhile": {func(i *importer, _ context.CancelFunc) {
			i.token.during = func() { put(t, i.Service, newTestKey(firstKey, inState(PendingDeletion), ofOrigin(OriginExternal))) }
		}, InvalidState, nil},
		"the key is gone meanwhile": {func(i *importer, _ context.CancelFunc) {
			i.token.during = func() {
				require.NoError(t, i.update(t.Context(), func(r *recorder) error { return r.remove(keyRecord(testRegion, firstKey)) }))
			}
		}, NotFound, nil},
	} {
		t.Run(name, func(t *testing.T) {
			i := newImporter(t)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			test.prepare(i, stop)
			out, err := i.GetParametersForImport(ctx, newRequest("GetParametersForImport"), in)
			require.Nil(t, out)
			require.Equal(t, test.code, TypeOf(err), "%v", err)
			if test.code == InvalidState {
				requireError(t, out, err, InvalidState, newTestKey(firstKey).ARN()+dying)
			}
			require.Equal(t, 1, i.token.made)
			require.Equal(t, test.left, i.token.labels())
			require.Empty(t, i.records(importPrefix))
		})
	}
}

func ofOrigin(origin Origin) func(*Key) { return func(key *Key) { key.Origin = origin } }
