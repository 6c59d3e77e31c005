package kms

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/store"
)

// makers make each kind of object that a request puts on the token.
var makers = map[string]func(ctx context.Context, i *importer, token []byte) error{
	"CreateKey": func(ctx context.Context, i *importer, _ []byte) error {
		_, err := i.CreateKey(ctx, newRequest("CreateKey"), &CreateKeyInput{})
		return err
	},
	"RotateKeyOnDemand": func(ctx context.Context, i *importer, _ []byte) error {
		_, err := i.RotateKeyOnDemand(ctx, newRequest("RotateKeyOnDemand"), &RotateKeyOnDemandInput{KeyId: secondKey})
		return err
	},
	"GetParametersForImport": func(ctx context.Context, i *importer, _ []byte) error {
		_, err := i.GetParametersForImport(ctx, newRequest("GetParametersForImport"),
			&GetParametersForImportInput{KeyId: firstKey, WrappingAlgorithm: "RSAES_OAEP_SHA_256", WrappingKeySpec: "RSA_4096"})
		return err
	},
	"ImportKeyMaterial": func(ctx context.Context, i *importer, token []byte) error {
		_, err := i.ImportKeyMaterial(ctx, newRequest("ImportKeyMaterial"),
			&ImportKeyMaterialInput{KeyId: firstKey, ImportToken: token, EncryptedKeyMaterial: material("a"), ExpirationModel: doesNotExpire})
		return err
	},
}

// newStock makes an importer with one key more, whose material is on the token, and an orphan.
func newStock(t *testing.T) (i *importer, orphan hsm.Object) {
	t.Helper()
	i = newImporter(t)
	put(t, i.Service, newTestKey(secondKey, func(key *Key) { key.Materials[0].Ref = i.token.add(hsm.KeyRequest{Label: "kms/" + secondKey}) }))
	orphan = hsm.Object{ID: i.token.add(hsm.KeyRequest{Label: "orphan"}).ID, Label: "orphan"}
	return i, orphan
}

// TestStocktakeAmidMaking compares token and store while the token has an object whose record is still to be written. It is
// no orphan, however long its maker takes.
func TestStocktakeAmidMaking(t *testing.T) {
	for name, maker := range makers {
		t.Run(name, func(t *testing.T) {
			i, orphan := newStock(t)
			token := i.parameters(firstKey)
			made, release := make(chan struct{}), make(chan struct{})
			i.token.after = func() { close(made); <-release }
			i.token.listed = func() { time.AfterFunc(50*time.Millisecond, func() { close(release) }) } // so long that it could be counted in vain
			outcome := make(chan error, 1)
			go func() { outcome <- maker(t.Context(), i, token) }()
			<-made
			found, err := i.Stocktake(t.Context(), testRegion)
			require.NoError(t, err)
			require.Equal(t, Stocktaking{Orphans: []hsm.Object{orphan}}, found)
			require.NoError(t, <-outcome)
		})
	}
}

// TestStocktakeEnds gives up waiting for a maker when its own time is over.
func TestStocktakeEnds(t *testing.T) {
	i, _ := newStock(t)
	made, release := make(chan struct{}), make(chan struct{})
	i.token.after = func() { close(made); <-release }
	outcome := make(chan error, 1)
	go func() { outcome <- makers["CreateKey"](t.Context(), i, nil) }()
	<-made
	ctx, cancel := context.WithCancel(t.Context())
	i.token.listed = cancel
	_, err := i.Stocktake(ctx, testRegion)
	require.ErrorIs(t, err, context.Canceled)
	close(release)
	require.NoError(t, <-outcome)
}

// TestStocktakeOfPassingObject has an object made and stored after the first look at the token, and taken out of the records
// and destroyed before the second. It is not missing.
func TestStocktakeOfPassingObject(t *testing.T) {
	i, orphan := newStock(t)
	token := i.parameters(firstKey)
	i.token.listed = func() {
		require.NoError(t, makers["ImportKeyMaterial"](t.Context(), i, token))
		sound := i.cfg.Store
		i.cfg.Store = viewedStore{sound, func() { // when the records are read
			i.cfg.Store = sound
			_, err := i.remove("")
			require.NoError(t, err)
		}}
	}
	found, err := i.Stocktake(t.Context(), testRegion)
	require.NoError(t, err)
	require.Equal(t, Stocktaking{Orphans: []hsm.Object{orphan}}, found)
	require.Equal(t, PendingImport, i.key().State)
}

// TestStocktakeOfLateObject has an object made and stored after the second look at the token. It is not missing.
func TestStocktakeOfLateObject(t *testing.T) {
	i, orphan := newStock(t)
	i.token.listed = func() {
		i.token.listed = func() { require.NoError(t, makers["CreateKey"](t.Context(), i, nil)) }
	}
	found, err := i.Stocktake(t.Context(), testRegion)
	require.NoError(t, err)
	require.Equal(t, Stocktaking{Orphans: []hsm.Object{orphan}}, found)
}

// TestStocktakeBesideAnotherServer has another server make an object, which this one cannot wait for: it is no orphan if it
// is there at one look only, or in the store at the second.
func TestStocktakeBesideAnotherServer(t *testing.T) {
	i, orphan := newStock(t)
	service, err := New(i.cfg)
	require.NoError(t, err)
	t.Cleanup(service.Close)
	outcome := make(chan error, 1)
	begin := func() (end func()) {
		made, release := make(chan struct{}), make(chan struct{})
		i.token.after = func() { close(made); <-release }
		go func() { outcome <- makers["CreateKey"](t.Context(), &importer{Service: service}, nil) }()
		<-made
		return func() { close(release); require.NoError(t, <-outcome) }
	}
	requireOrphan := func() {
		found, err := i.Stocktake(t.Context(), testRegion)
		require.NoError(t, err)
		require.Equal(t, Stocktaking{Orphans: []hsm.Object{orphan}}, found)
	}
	end := begin()
	i.token.listed = func() { i.token.listed = end }
	requireOrphan()

	i.token.listed = func() { end = begin() }
	requireOrphan()
	end()
}

// viewedStore is a store that calls viewed after each View.
type viewedStore struct {
	store.Store
	viewed func()
}

func (v viewedStore) View(ctx context.Context, fn func(store.Reader) error) error {
	defer v.viewed()
	return v.Store.View(ctx, fn)
}
