package kms

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/store"
)

// memoryToken is a token without cryptography but for a vault: it knows which keys there are. Material is imported as it
// is, for there is no one to hide it from; material that begins with "spoiled" cannot be decrypted.
type memoryToken struct {
	hsm.Token
	vault cipher.AEAD

	mu   sync.Mutex
	keys map[hsm.KeyID]hsm.KeyRequest
	// made counts the keys that were made, imported ones included.
	made int

	// during, if set, is called while a key is being made or imported, after when the token has it, and listed when the
	// objects are listed: once each.
	during, after, listed func()
	// failures are what methods fail with, by name.
	failures map[string]error
}

func newMemoryToken(t *testing.T) *memoryToken {
	t.Helper()
	block, err := aes.NewCipher(make([]byte, 32))
	require.NoError(t, err)
	vault, err := cipher.NewGCM(block)
	require.NoError(t, err)
	return &memoryToken{vault: vault, keys: map[hsm.KeyID]hsm.KeyRequest{}, failures: map[string]error{}}
}

func (m *memoryToken) add(r hsm.KeyRequest) hsm.KeyRef {
	m.call(&m.during)
	var id [16]byte
	_, _ = rand.Read(id[:]) // it never fails
	ref := hsm.KeyRef{ID: hsm.KeyID(hex.EncodeToString(id[:])), Kind: r.Kind, Public: []byte("public")}
	m.mu.Lock()
	m.keys[ref.ID] = r
	m.made++
	m.mu.Unlock()
	m.call(&m.after)
	return ref
}

// call calls a hook, which is then gone.
func (m *memoryToken) call(hook *func()) {
	m.mu.Lock()
	f := *hook
	*hook = nil
	m.mu.Unlock()
	if f != nil {
		f()
	}
}

func (m *memoryToken) GenerateKey(_ context.Context, r hsm.KeyRequest) (hsm.KeyRef, error) {
	if err := m.failures["GenerateKey"]; err != nil {
		return hsm.KeyRef{}, err
	}
	return m.add(r), nil
}

func (m *memoryToken) ImportRoutes(context.Context, hsm.KeyKind) (map[hsm.ImportWrap]hsm.Route, error) {
	return map[hsm.ImportWrap]hsm.Route{hsm.OAEPSHA1: hsm.OnToken, hsm.OAEPSHA256: hsm.InProcess}, m.failures["ImportRoutes"]
}

func (m *memoryToken) ImportKey(_ context.Context, r hsm.ImportRequest) (hsm.Imported, error) {
	if err := m.failures["ImportKey"]; err != nil {
		return hsm.Imported{}, err
	}
	if !m.has(r.Under.ID) {
		return hsm.Imported{}, &hsm.Error{Class: hsm.KeyMissing}
	}
	if strings.HasPrefix(string(r.Material), "spoiled") {
		return hsm.Imported{}, &hsm.Error{Class: hsm.BadInput}
	}
	if len(r.Material) != 32 {
		return hsm.Imported{}, &hsm.Error{Class: hsm.WrongMaterial}
	}
	ref := m.add(hsm.KeyRequest{Kind: r.Kind, Label: r.Label, WrapUnder: r.WrapUnder})
	return hsm.Imported{Key: ref, Fingerprint: sha256.Sum256(append(r.Nonce, r.Material...))}, nil
}

func (m *memoryToken) DestroyKey(_ context.Context, key hsm.KeyRef) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.failures["DestroyKey"]; err != nil {
		return err
	}
	if key.ID == "" {
		return &hsm.Error{Class: hsm.Failed, Cause: errors.New("told to destroy what has no name")}
	}
	delete(m.keys, key.ID)
	return nil
}

func (m *memoryToken) Encrypt(_ context.Context, s hsm.Sealing, plaintext []byte) (sealed hsm.Sealed, err error) {
	_, _ = rand.Read(sealed.IV[:])
	sealed.Data = m.vault.Seal(nil, sealed.IV[:], plaintext, s.AAD[:])
	return sealed, m.failures["Encrypt"]
}

func (m *memoryToken) Decrypt(_ context.Context, o hsm.Opening) ([]byte, error) {
	if err := m.failures["Decrypt"]; err != nil {
		return nil, err
	}
	plaintext, err := m.vault.Open(nil, o.Sealed.IV[:], o.Sealed.Data, o.AAD[:])
	if err != nil {
		return nil, &hsm.Error{Class: hsm.BadInput, Cause: err}
	}
	return plaintext, nil
}

func (m *memoryToken) Objects(context.Context) (objects []hsm.Object, err error) {
	m.mu.Lock()
	for id, r := range m.keys {
		objects = append(objects, hsm.Object{ID: id, Label: r.Label})
	}
	m.mu.Unlock()
	m.call(&m.listed)
	return objects, nil
}

func (m *memoryToken) has(id hsm.KeyID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, has := m.keys[id]
	return has
}

// labels are those of all keys of the token, in order.
func (m *memoryToken) labels() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var labels []string
	for r := range maps.Values(m.keys) {
		labels = append(labels, r.Label)
	}
	slices.Sort(labels)
	return labels
}

// importer is a service with a clock and one EXTERNAL key, firstKey, on a memoryToken.
type importer struct {
	*Service
	t     *testing.T
	token *memoryToken
	now   time.Time
}

func newImporter(t *testing.T, edits ...func(*Config)) *importer {
	t.Helper()
	i := &importer{t: t, token: newMemoryToken(t), now: time.Unix(1_800_000_000, 0).UTC()}
	edits = append([]func(*Config){func(cfg *Config) {
		cfg.Clock = func() time.Time { return i.now }
		cfg.Vault = hsm.Vault{Token: i.token}
	}}, edits...)
	i.Service = newService(t, i.token, edits...)
	put(t, i.Service, newTestKey(firstKey, inState(PendingImport)))
	return i
}

// parameters makes an import set of a key and gives its import token.
func (i *importer) parameters(key string) []byte {
	i.t.Helper()
	out, err := i.GetParametersForImport(i.t.Context(), newRequest("GetParametersForImport"),
		&GetParametersForImportInput{KeyId: key, WrappingAlgorithm: "RSAES_OAEP_SHA_256", WrappingKeySpec: "RSA_4096"})
	require.NoError(i.t, err)
	require.Equal(i.t, "public", string(out.PublicKey))
	require.LessOrEqual(i.t, len(out.ImportToken), 6144)
	return out.ImportToken
}

// material is key material that repeats a letter.
func material(letter string) []byte { return []byte(strings.Repeat(letter, 32)) }

// importedID is the id that material has in firstKey.
func importedID(letter string) string {
	sum := sha256.Sum256(append([]byte(testAccount+"/"+firstKey), material(letter)...))
	return hex.EncodeToString(sum[:])
}

// bring imports material that does not expire into firstKey, with a fresh import set unless an edit says otherwise.
func (i *importer) bring(letter string, edits ...func(*ImportKeyMaterialInput)) (*ImportKeyMaterialOutput, error) {
	i.t.Helper()
	in := &ImportKeyMaterialInput{KeyId: firstKey, EncryptedKeyMaterial: material(letter), ExpirationModel: doesNotExpire}
	for _, edit := range edits {
		edit(in)
	}
	if in.ImportToken == nil {
		in.ImportToken = i.parameters(in.KeyId)
	}
	return i.ImportKeyMaterial(i.t.Context(), newRequest("ImportKeyMaterial"), in)
}

// requireBrought is bring that must succeed.
func (i *importer) requireBrought(letter string, edits ...func(*ImportKeyMaterialInput)) {
	i.t.Helper()
	out, err := i.bring(letter, edits...)
	require.NoError(i.t, err)
	require.Equal(i.t, &ImportKeyMaterialOutput{KeyId: newTestKey(firstKey).ARN(), KeyMaterialId: importedID(letter)}, out)
}

func asNew(in *ImportKeyMaterialInput) { in.ImportType = newKeyMaterial }

func validFor(d time.Duration, i *importer) func(*ImportKeyMaterialInput) {
	return func(in *ImportKeyMaterialInput) {
		in.ExpirationModel, in.ValidTo = expires, &Timestamp{i.now.Add(d)}
	}
}

func withToken(token []byte) func(*ImportKeyMaterialInput) {
	return func(in *ImportKeyMaterialInput) { in.ImportToken = token }
}

// remove deletes material of firstKey.
func (i *importer) remove(id string) (*DeleteImportedKeyMaterialOutput, error) {
	return i.DeleteImportedKeyMaterial(i.t.Context(), newRequest("DeleteImportedKeyMaterial"),
		&DeleteImportedKeyMaterialInput{KeyId: firstKey, KeyMaterialId: id})
}

// key reads the record of firstKey, as it was written.
func (i *importer) key() *Key {
	i.t.Helper()
	key, found, err := i.keys.Get(i.t.Context(), keyRecord(testRegion, firstKey))
	require.NoError(i.t, err)
	require.True(i.t, found)
	return key
}

// records lists the store's records with a prefix.
func (i *importer) records(prefix string) (names []string) {
	i.t.Helper()
	require.NoError(i.t, i.cfg.Store.View(i.t.Context(), func(r store.Reader) error {
		return r.Scan(prefix, "", func(key string, _ []byte) bool { names = append(names, key); return true })
	}))
	return names
}

// attendTo lets a Service do what time and dooms demand.
func (i *importer) attendTo() { i.attendAll(i.t.Context()) }

// requireTidy checks that the token has just the keys with these labels, each of them known to the store, and that nothing
// is left to be destroyed.
func (i *importer) requireTidy(labels ...string) {
	i.t.Helper()
	require.Empty(i.t, i.records(doomedPrefix))
	require.Equal(i.t, append([]string(nil), labels...), i.token.labels())
	stock, err := i.Stocktake(i.t.Context(), testRegion)
	require.NoError(i.t, err)
	require.Equal(i.t, Stocktaking{}, stock)
}

// The labels of the objects of firstKey.
const (
	materialLabel = "kms/" + firstKey
	setLabel      = "import/" + firstKey
)

var errDisk = errors.New("disk full")
