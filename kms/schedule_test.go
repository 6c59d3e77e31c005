package kms

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

// handClock is a clock that is set by hand.
type handClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *handClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *handClock) set(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}

// shelf is a token that keeps the names of its objects.
type shelf struct {
	soundToken
	mu      sync.Mutex
	objects map[hsm.KeyID]string // labels
	fail    error                // of DestroyKey
	tries   int                  // of DestroyKey
	made    int                  // by GenerateKey
	listing []func()             // called at the end of the first listing of the objects, at the beginning of the second
}

func newShelf() *shelf { return &shelf{objects: map[hsm.KeyID]string{}} }

func (s *shelf) GenerateKey(_ context.Context, r hsm.KeyRequest) (hsm.KeyRef, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made++
	id := hsm.KeyID(fmt.Sprintf("%032d", s.made))
	s.objects[id] = r.Label
	return hsm.KeyRef{ID: id, Kind: r.Kind}, nil
}

func (s *shelf) DestroyKey(_ context.Context, ref hsm.KeyRef) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tries++
	if s.fail == nil {
		delete(s.objects, ref.ID)
	}
	return s.fail
}

func (s *shelf) Objects(context.Context) (objects []hsm.Object, _ error) {
	if len(s.listing) == 1 {
		s.listing[0]()
	}
	s.mu.Lock()
	for id, label := range s.objects {
		objects = append(objects, hsm.Object{ID: id, Label: label})
	}
	s.mu.Unlock()
	if len(s.listing) == 2 {
		s.listing[0]()
		s.listing = s.listing[1:]
	}
	return objects, nil
}

func (s *shelf) place(id hsm.KeyID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[id] = "kms/test"
}

func (s *shelf) setFail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail, s.tries = err, 0
}

func (s *shelf) ids() []hsm.KeyID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.objects))
}

// complaints is a log that keeps what it is told at the level of an error.
type complaints struct {
	slog.Handler
	mu   sync.Mutex
	said []string
}

func (c *complaints) Handle(_ context.Context, r slog.Record) error {
	if r.Level < slog.LevelError {
		return nil
	}
	text := r.Message
	r.Attrs(func(a slog.Attr) bool { text += " " + a.Key + "=" + a.Value.String(); return true })
	c.mu.Lock()
	defer c.mu.Unlock()
	c.said = append(c.said, text)
	return nil
}

func (c *complaints) Enabled(context.Context, slog.Level) bool { return true }

func (c *complaints) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.said)
}

// scheduleRig is a service whose time is set by hand, and whose schedule only runs when it is told to.
type scheduleRig struct {
	*Service
	clock *handClock
	token *shelf
	log   *complaints
}

var testStart = time.Date(2026, 3, 1, 12, 0, 0, 999_999, time.UTC) // not a whole millisecond

func newScheduleRig(t *testing.T, edits ...func(*Config)) *scheduleRig {
	t.Helper()
	r := &scheduleRig{clock: &handClock{now: testStart}, token: newShelf(), log: &complaints{Handler: slog.DiscardHandler}}
	r.Service = newService(t, r.token, append([]func(*Config){func(cfg *Config) {
		cfg.Clock, cfg.Log = r.clock.Now, slog.New(r.log)
	}}, edits...)...)
	return r
}

// enter stores keys as the operations do, with all their entries, and their material on the token.
func (r *scheduleRig) enter(t *testing.T, keys ...*Key) {
	t.Helper()
	for some := range slices.Chunk(keys, store.MaxTxnKeys/4) {
		require.NoError(t, r.update(t.Context(), func(tx *recorder) error {
			for _, key := range some {
				if err := errors.Join(tx.putKey(key), tx.mark(accountKeys(key.Account, key.Region)+key.ID)); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	for _, key := range keys {
		for _, m := range key.Materials {
			if len(m.Ref.Wrapped) == 0 {
				r.token.place(m.Ref.ID)
			}
		}
	}
}

// endingAt makes a key end at a time.
func endingAt(at time.Time) func(*Key) {
	return func(key *Key) { key.State, key.Deletion = PendingDeletion, at }
}

// records gives the names of all records below a prefix.
func records(t *testing.T, s *Service, prefix string) []string {
	t.Helper()
	all, err := s.some(t.Context(), prefix, "", "", 1_000_000)
	require.NoError(t, err)
	return all
}

// requireIndexed checks that the index of what is due is exact: each record that time will change has its own entry, and
// there is no other.
func requireIndexed(t *testing.T, s *Service) {
	t.Helper()
	want := map[string]bool{}
	require.NoError(t, s.cfg.Store.View(t.Context(), func(r store.Reader) error {
		return r.Scan(keyPrefix, "", func(name string, value []byte) bool {
			key, err := decodeKey(value)
			require.NoError(t, err, name)
			require.Equal(t, dueEntry(key.nextTask(), key.Region, dueKeys, key.ID), key.indexed)
			if key.indexed != "" {
				want[key.indexed] = true
			}
			return true
		})
	}))
	sets := map[string]bool{}
	for _, name := range records(t, s, "import/") {
		sets[strings.TrimPrefix(name, "import/")] = true
	}
	for _, entry := range records(t, s, duePrefix) {
		due, err := parseTask(entry)
		require.NoError(t, err, entry)
		if due.kind == dueImports {
			require.True(t, sets[due.region+"/"+due.id], "%s: no such import set, or two entries for it", entry)
			delete(sets, due.region+"/"+due.id)
			continue
		}
		require.True(t, want[entry], "%s is not the entry of a key", entry)
		delete(want, entry)
	}
	require.Empty(t, want, "keys that the schedule will not find")
	require.Empty(t, sets, "import sets that the schedule will not find")
}

// requireGone checks that nothing is left of keys but what other tests put there.
func requireGone(t *testing.T, s *Service, ids ...string) {
	t.Helper()
	for _, name := range records(t, s, "") {
		for _, id := range ids {
			require.NotContains(t, name, id)
		}
	}
	requireIndexed(t, s)
}

// keyIDs makes ids of keys.
func keyIDs(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("%s%012d", firstKey[:24], i)
	}
	return ids
}

// TestBadEntries has entries in the index that cannot be attended. They stop no other, are told of, and do not make the
// schedule turn in circles.
func TestBadEntries(t *testing.T) {
	r := newScheduleRig(t)
	r.enter(t, newTestKey(firstKey, endingAt(testStart)))
	bad := []string{
		"due/", "due/0", "due/000000000000001/us-east-1/key", "due/000000000000001/us-east-1/what/x", "due/000000000000x01/us-east-1/key/x",
		"due/000000000000001/us-east-1/key/" + secondKey, "due/zzz",
	}
	require.NoError(t, r.update(t.Context(), func(tx *recorder) error {
		for _, entry := range bad {
			require.NoError(t, tx.mark(entry))
		}
		return tx.write(keyRecord(testRegion, secondKey), []byte("{"))
	}))
	r.clock.set(testStart.Add(time.Hour))
	require.Equal(t, retryWait, r.attendAll(t.Context()))
	require.Empty(t, r.token.ids())
	require.Empty(t, records(t, r.Service, keyRecord(testRegion, firstKey)))
	require.Len(t, records(t, r.Service, duePrefix), len(bad), "what is not understood is left alone")
	require.Len(t, r.log.all(), len(bad)-1, "due/zzz is never due")
}

// TestOtherRegions has keys and dooms of a Region that this server does not serve: they are left alone, and it waits.
func TestOtherRegions(t *testing.T) {
	r := newScheduleRig(t)
	r.enter(t, newTestKey(firstKey, endingAt(testStart), func(key *Key) { key.Region = "eu-west-1" }))
	require.NoError(t, r.update(t.Context(), func(tx *recorder) error {
		return tx.doom("eu-west-1", secondKey, doom{Refs: []hsm.KeyRef{{ID: "x"}}})
	}))
	before := records(t, r.Service, "")
	r.clock.set(testStart.Add(time.Hour))
	require.Equal(t, longestWait, r.attendAll(t.Context()))
	require.Equal(t, before, records(t, r.Service, ""))
	require.Len(t, r.token.ids(), 1)
	require.Empty(t, r.log.all())
}

// TestManyDue has more due keys than the schedule reads at once, some of which fail.
func TestManyDue(t *testing.T) {
	const n = 3*tasksAtOnce + 7
	r := newScheduleRig(t)
	keys := make([]*Key, n)
	for i, id := range keyIDs(n) {
		keys[i] = newTestKey(id, endingAt(testStart.Add(time.Duration(i)*time.Second)))
	}
	r.enter(t, keys...)
	requireIndexed(t, r.Service)
	r.clock.set(testStart.Add((n - 2) * time.Second)) // the last but one is due now, and its entry in a nanosecond
	r.token.setFail(&hsm.Error{Class: hsm.Failed})
	require.Equal(t, time.Millisecond, r.attendAll(t.Context()))
	require.Len(t, records(t, r.Service, keyPrefix), 2)
	require.Len(t, r.token.ids(), n)
	require.Len(t, r.log.all(), mostComplaints+1, "not one line for each")
	r.token.setFail(nil)
	r.clock.set(testStart.Add(n * time.Second))
	require.Equal(t, longestWait, r.attendAll(t.Context()))
	require.Empty(t, records(t, r.Service, ""))
	require.Empty(t, r.token.ids())
}

// TestWaits pins how long the schedule sleeps.
func TestWaits(t *testing.T) {
	for at, want := range map[time.Duration]time.Duration{
		24 * time.Hour: longestWait, 30 * time.Second: 30 * time.Second, 2 * time.Millisecond: 2 * time.Millisecond,
	} {
		r := newScheduleRig(t)
		r.clock.set(testStart.Truncate(time.Millisecond))
		r.enter(t, newTestKey(firstKey, endingAt(testStart.Truncate(time.Millisecond).Add(at))))
		require.Equal(t, want, r.attendAll(t.Context()))
	}
}

// lossyStore is a store whose watch of the index falls behind: it delivers nothing and ends when told so.
type lossyStore struct {
	store.Store
	lag chan error
}

func (s lossyStore) Watch(ctx context.Context, prefix string, ready func(), fn func([]store.Change) error) error {
	if prefix != duePrefix && prefix != doomedPrefix {
		return s.Store.Watch(ctx, prefix, ready, fn)
	}
	if ready != nil {
		ready()
	}
	select {
	case err := <-s.lag:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestLostWatch runs the schedule on a store whose watch loses what happens, and says so later.
func TestLostWatch(t *testing.T) {
	lag := make(chan error)
	token := newShelf()
	s := newService(t, token, func(cfg *Config) { cfg.Store, cfg.Day = lossyStore{cfg.Store, lag}, time.Millisecond })
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	defer running.Wait()
	defer stop()
	out, err := s.CreateKey(t.Context(), newRequest("CreateKey"), &CreateKeyInput{})
	require.NoError(t, err)
	_, err = s.ScheduleKeyDeletion(t.Context(), newRequest("ScheduleKeyDeletion"), &ScheduleKeyDeletionInput{KeyId: out.KeyMetadata.KeyId})
	require.NoError(t, err)
	lag <- store.ErrLagged
	require.Eventually(t, func() bool { return len(token.ids()) == 0 }, time.Minute/2, time.Millisecond, "it only looks once a minute")
	require.Eventually(t, func() bool { return len(records(t, s, doomedPrefix)) == 0 }, time.Minute/2, time.Millisecond)
	requireGone(t, s, out.KeyMetadata.KeyId)
}

// stuckToken is a token that destroys nothing, for as long as it is waited for.
type stuckToken struct {
	*shelf
	begun chan struct{}
}

func (s stuckToken) DestroyKey(ctx context.Context, _ hsm.KeyRef) error {
	close(s.begun)
	<-ctx.Done()
	return &hsm.Error{Class: hsm.Busy, Cause: ctx.Err()}
}

// TestRunEnds ends the schedule before it begins, while it sleeps and while it works.
func TestRunEnds(t *testing.T) {
	r := newScheduleRig(t)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	r.Run(ctx)

	r.enter(t, newTestKey(firstKey, endingAt(testStart)))
	r.clock.set(testStart.Add(time.Hour))
	end := run(t, r.Service)
	soon(t, func() bool { return len(records(t, r.Service, "")) == 0 }, "it does nothing")
	end()

	stuck := stuckToken{r.token, make(chan struct{})}
	r.cfg.Regions[testRegion] = Region{Token: stuck}
	r.enter(t, newTestKey(secondKey, endingAt(testStart)))
	end = run(t, r.Service)
	<-stuck.begun
	end()
	require.Len(t, records(t, r.Service, doomedPrefix), 1)
	require.Empty(t, r.log.all())
}
