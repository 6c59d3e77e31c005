package kms

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/store"
	"hsmkms/store/bolt"
)

// meteredToken counts the encryptions under each of its keys, the proof of a key that it makes included.
type meteredToken struct {
	hsm.Token
	mu      sync.Mutex
	made    int
	counts  map[hsm.KeyID]int
	failure error // of GenerateKey
}

func newMeteredToken() *meteredToken { return &meteredToken{counts: map[hsm.KeyID]int{}} }

func (m *meteredToken) GenerateKey(context.Context, hsm.KeyRequest) (hsm.KeyRef, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failure != nil {
		return hsm.KeyRef{}, m.failure
	}
	m.made++
	id := hsm.KeyID(fmt.Sprintf("%032d", m.made))
	m.counts[id] = 1
	return hsm.KeyRef{ID: id, Kind: hsm.AES256}, nil
}

func (m *meteredToken) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failure = err
}

func (m *meteredToken) DestroyKey(context.Context, hsm.KeyRef) error { return nil }

func (m *meteredToken) Encrypt(_ context.Context, s hsm.Sealing, plaintext []byte) (hsm.Sealed, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts[s.Key.ID]++
	return hsm.Sealed{Data: make([]byte, len(plaintext)+hsm.TagSize)}, nil
}

func (m *meteredToken) Decrypt(_ context.Context, o hsm.Opening) ([]byte, error) {
	return make([]byte, len(o.Sealed.Data)-hsm.TagSize), nil
}

func (m *meteredToken) Random(context.Context, []byte) error { return nil }

func (m *meteredToken) ReEncrypt(ctx context.Context, o hsm.Opening, s hsm.Sealing) (hsm.Sealed, error) {
	if bytes.Contains(o.Sealed.Data, []byte("forged")) {
		return hsm.Sealed{}, &hsm.Error{Class: hsm.BadInput, Source: true}
	}
	return m.Encrypt(ctx, s, make([]byte, len(o.Sealed.Data)-hsm.TagSize))
}

func (m *meteredToken) count(id hsm.KeyID) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.counts[id]
}

// trickyStore counts what is done with a store, and fails as it is told.
type trickyStore struct {
	store.Store
	views, updates atomic.Int64
	// trouble, if set, decides about each call: errBefore fails it, errAfter fails it after it was done.
	trouble func(update bool) error
}

var (
	errBefore = fmt.Errorf("nothing was done")
	errAfter  = fmt.Errorf("done all the same: %w", store.ErrUncertain)
)

func (s *trickyStore) View(ctx context.Context, fn func(store.Reader) error) error {
	s.views.Add(1)
	if s.trouble != nil {
		if err := s.trouble(false); err != nil {
			return err
		}
	}
	return s.Store.View(ctx, fn)
}

func (s *trickyStore) Update(ctx context.Context, fn func(store.Txn) error) error {
	s.updates.Add(1)
	var trouble error
	if s.trouble != nil {
		trouble = s.trouble(true)
	}
	if trouble == errBefore { //nolint:errorlint // it is this very value
		return trouble
	}
	if err := s.Store.Update(ctx, fn); err != nil {
		return err
	}
	return trouble
}

// meterRig is a store and a token that outlive the servers on them.
type meterRig struct {
	store *trickyStore
	token *meteredToken
	log   *lockedLog
}

type lockedLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func newMeterRig(t testing.TB) *meterRig {
	t.Helper()
	st, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "store.db")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	return &meterRig{store: &trickyStore{Store: retryingStore{st}}, token: newMeteredToken(), log: &lockedLog{}}
}

// start starts a server. Whatever it has in memory alone is lost when it ends, as with kill -9, unless it runs (see run).
func (r *meterRig) start(t testing.TB, edits ...func(*Service)) *Service {
	t.Helper()
	s, err := New(Config{
		Store: r.store, Regions: map[string]Region{testRegion: {Token: r.token}}, Log: slog.New(slog.NewTextHandler(r.log, nil)),
	})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	for _, edit := range edits {
		edit(s)
	}
	return s
}

// parts sets the budget and its parts.
func parts(limit, free, batch uint64) func(*Service) {
	return func(s *Service) { s.meter.limit, s.meter.free, s.meter.batch = limit, free, batch }
}

// run runs what runs beside the requests of a server until the end of the test, or of the given function.
func run(t testing.TB, s *Service) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	stop = func() { cancel(); running.Wait() }
	t.Cleanup(stop)
	return stop
}

// newKey makes a key by a server.
func (r *meterRig) newKey(t testing.TB, s *Service) *Key {
	t.Helper()
	out, err := s.CreateKey(t.Context(), newRequest("CreateKey"), &CreateKeyInput{})
	require.NoError(t, err)
	return r.key(t, s, out.KeyMetadata.KeyId)
}

func (r *meterRig) key(t testing.TB, s *Service, id string) *Key {
	t.Helper()
	key, found, err := s.keys.Get(t.Context(), keyRecord(testRegion, id))
	require.NoError(t, err)
	require.True(t, found)
	return key
}

// counted gives the count of a material in the store.
func (r *meterRig) counted(t testing.TB, m *Material) (total uint64) {
	t.Helper()
	require.NoError(t, r.store.Store.View(t.Context(), func(tx store.Reader) (err error) {
		total, _, err = counted(tx, materialName{testRegion, m.ID}, m.Base)
		return err
	}))
	return total
}

func encryptUnder(ctx context.Context, s *Service, keyID string) error {
	_, err := s.Encrypt(ctx, newRequest("Encrypt"), &EncryptInput{KeyId: keyID, Plaintext: []byte("x")})
	return err
}

// soon waits for what happens without a signal. Its limit is for a hopeless case only.
func soon(t testing.TB, is func() bool, what string) {
	t.Helper()
	require.Eventually(t, is, time.Minute, time.Millisecond, what)
}
