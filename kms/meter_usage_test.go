package kms

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// hours is a clock that stands still, at a number of hours.
type hours struct{ now atomic.Int64 }

func (h *hours) clock() time.Time { return time.Unix(3600*h.now.Load(), 0) }

func (h *hours) at(n int64) time.Time { return time.Unix(3600*n, 0).UTC() }

// use uses a key with an operation and an id of the request.
func use(s *Service, key *Key, operation, id string) {
	r := newRequest(operation)
	r.ID = id
	s.meter.used(r, key)
}

// lastUse is what GetKeyLastUsage answers.
func lastUse(t *testing.T, s *Service, keyID string) *KeyLastUsageData {
	t.Helper()
	out, err := s.GetKeyLastUsage(t.Context(), newRequest("GetKeyLastUsage"), &GetKeyLastUsageInput{KeyId: keyID})
	require.NoError(t, err)
	return out.KeyLastUsage
}

func (h *hours) requireUse(t *testing.T, s *Service, keyID, operation, id string, hour int64) {
	t.Helper()
	require.Equal(t, &KeyLastUsageData{Operation: operation, KmsRequestId: id, Timestamp: &Timestamp{h.at(hour)}}, lastUse(t, s, keyID))
}

// TestUsageIsNeverBehind asks before, while and after the uses are written, by the server itself and by another.
func TestUsageIsNeverBehind(t *testing.T) {
	var h hours
	r := newMeterRig(t)
	s, other := r.start(t, func(s *Service) { s.cfg.Clock = h.clock }), r.start(t, func(s *Service) { s.cfg.Clock = h.clock })
	key := newTestKey(firstKey)
	put(t, s, key)
	require.Equal(t, &KeyLastUsageData{}, lastUse(t, s, firstKey))
	h.now.Store(5)
	use(s, key, "Encrypt", "a")
	h.requireUse(t, s, firstKey, "Encrypt", "a", 5)
	require.Equal(t, &KeyLastUsageData{}, lastUse(t, other, firstKey))
	asked := false
	r.store.trouble = func(update bool) error {
		if update && !asked {
			asked = true
			h.requireUse(t, s, firstKey, "Encrypt", "a", 5) // it is on its way
		}
		return nil
	}
	require.NoError(t, s.meter.flush(t.Context()))
	require.True(t, asked)
	for _, s := range []*Service{s, other, r.start(t)} {
		h.requireUse(t, s, firstKey, "Encrypt", "a", 5)
	}
	h.now.Store(6)
	use(s, key, "Decrypt", "b")
	h.requireUse(t, s, firstKey, "Decrypt", "b", 6)
	h.requireUse(t, other, firstKey, "Encrypt", "a", 5)
}

// TestUsageNeverGoesBack has two servers write the uses of one key in the wrong order.
func TestUsageNeverGoesBack(t *testing.T) {
	var h hours
	r := newMeterRig(t)
	slow, fast := r.start(t, func(s *Service) { s.cfg.Clock = h.clock }), r.start(t, func(s *Service) { s.cfg.Clock = h.clock })
	key := newTestKey(firstKey)
	put(t, slow, key)
	h.now.Store(7)
	use(slow, key, "Encrypt", "old")
	h.now.Store(8)
	use(fast, key, "Decrypt", "new")
	require.NoError(t, fast.meter.flush(t.Context()))
	h.requireUse(t, slow, firstKey, "Decrypt", "new", 8)
	require.NoError(t, slow.meter.flush(t.Context()))
	for _, s := range []*Service{slow, fast} {
		h.requireUse(t, s, firstKey, "Decrypt", "new", 8)
	}
}

// TestUsageFailures lets the store fail in the middle of writing the uses of many keys. Nothing is lost, and what was used
// meanwhile is not overwritten by what was to be written before.
func TestUsageFailures(t *testing.T) {
	for _, failure := range []error{errBefore, errAfter} {
		var h hours
		r := newMeterRig(t)
		s := r.start(t, func(s *Service) { s.cfg.Clock = h.clock })
		keys := manyKeys(t, s, 250)
		h.now.Store(3)
		for _, key := range keys {
			use(s, key, "Encrypt", "first")
		}
		batches := 0
		r.store.trouble = func(update bool) error {
			if update {
				if batches++; batches == 2 {
					return failure
				}
			}
			return nil
		}
		require.ErrorIs(t, s.meter.flush(t.Context()), failure)
		h.now.Store(4)
		for i, key := range keys {
			if i%2 == 0 {
				use(s, key, "Decrypt", "second")
			}
		}
		for range 2 { // from memory, and then from the store
			for i, key := range keys {
				if i%2 == 0 {
					h.requireUse(t, s, key.ID, "Decrypt", "second", 4)
				} else {
					h.requireUse(t, s, key.ID, "Encrypt", "first", 3)
				}
			}
			require.NoError(t, s.meter.flush(t.Context()))
			require.Empty(t, s.meter.flushing)
			require.Empty(t, s.meter.fresh)
		}
	}
}

// manyKeys stores the records of many keys.
func manyKeys(t *testing.T, s *Service, n int) []*Key {
	t.Helper()
	keys := make([]*Key, n)
	for i := range keys {
		keys[i] = newTestKey(fmt.Sprintf("%08x-1111-4111-8111-111111111111", i))
		put(t, s, keys[i])
	}
	return keys
}

// TestUsageBatches writes the uses of 250 keys in three transactions, and then nothing.
func TestUsageBatches(t *testing.T) {
	r := newMeterRig(t)
	s := r.start(t)
	for _, key := range manyKeys(t, s, 250) {
		use(s, key, "Encrypt", "a")
	}
	for _, writes := range []int64{3, 0} {
		before := r.store.updates.Load()
		require.NoError(t, s.meter.flush(t.Context()))
		require.Equal(t, before+writes, r.store.updates.Load())
	}
	require.Len(t, recordsBelow(t, s, usagePrefix), 250)
}

// TestUsageOfDeletedKey writes the use of a key that is gone meanwhile: no record may stay behind.
func TestUsageOfDeletedKey(t *testing.T) {
	s := newMeterRig(t).start(t)
	key := newTestKey(firstKey)
	put(t, s, key, newTestKey(secondKey))
	use(s, key, "Encrypt", "a")
	use(s, newTestKey(secondKey), "Encrypt", "b")
	require.NoError(t, s.update(t.Context(), func(t *recorder) error { return t.remove(keyRecord(testRegion, firstKey)) }))
	require.NoError(t, s.meter.flush(t.Context()))
	require.Equal(t, []string{usagePrefix + testRegion + "/" + secondKey}, recordsBelow(t, s, usagePrefix))
	require.Empty(t, s.meter.flushing)
}

// TestUsageIsKept runs a server: it writes uses from time to time, tries again when that fails, and writes once more at
// its end.
func TestUsageIsKept(t *testing.T) {
	r := newMeterRig(t)
	s := r.start(t, func(s *Service) { s.meter.every = time.Millisecond })
	keys := manyKeys(t, s, 2)
	var ill atomic.Bool
	ill.Store(true)
	r.store.trouble = func(update bool) error {
		if update && ill.Load() {
			return errBefore
		}
		return nil
	}
	stop := run(t, s)
	use(s, keys[0], "Encrypt", "a")
	soon(t, func() bool { return strings.Count(r.log.String(), "writing the last uses of keys") >= 2 }, "it does not try again")
	ill.Store(false)
	next := r.start(t)
	soon(t, func() bool { return lastUse(t, next, keys[0].ID).KmsRequestId == "a" }, "it does not write")
	stop()

	s = r.start(t)
	stop = run(t, s)
	use(s, keys[1], "Decrypt", "b")
	require.Equal(t, &KeyLastUsageData{}, lastUse(t, next, keys[1].ID))
	stop()
	require.Equal(t, "b", lastUse(t, next, keys[1].ID).KmsRequestId)
}

// TestUsageWithinAMinute uses a key in each second, and looks all the time what a server knows that has only the store: each
// use of a minute ago. What a kill loses is what came after.
func TestUsageWithinAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newMeterRig(t)
		s := r.start(t)
		next := r.start(t)
		keys := manyKeys(t, s, 150)
		stop := run(t, s)
		for i, key := range keys {
			use(s, key, "Encrypt", "a")
			if i >= 60 {
				require.Equal(t, "a", lastUse(t, next, keys[i-60].ID).KmsRequestId, i)
			}
			time.Sleep(time.Second)
		}
		stop()
	})
}

// TestUsageConcurrent uses keys while their uses are written.
func TestUsageConcurrent(t *testing.T) {
	r := newMeterRig(t)
	s := r.start(t)
	keys := manyKeys(t, s, 20)
	var group sync.WaitGroup
	done := make(chan struct{})
	group.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				if err := s.meter.flush(context.Background()); err != nil {
					t.Error(err)
				}
			}
		}
	})
	var using sync.WaitGroup
	for worker := range 4 {
		using.Go(func() {
			for i := range 2000 {
				key := keys[(5*worker+i)%len(keys)]
				use(s, key, "Encrypt", "x")
				if lastUse(t, s, key.ID).KmsRequestId != "x" {
					t.Error("forgotten")
				}
			}
		})
	}
	using.Wait()
	close(done)
	group.Wait()
	for _, key := range keys {
		use(s, key, "Decrypt", "last")
	}
	require.NoError(t, s.meter.flush(t.Context()))
	next := r.start(t)
	for _, key := range keys {
		require.Equal(t, "last", lastUse(t, next, key.ID).KmsRequestId)
	}
}

// TestUsageFailsClosed lets the store fail: the answer is an error, not a guess.
func TestUsageFailsClosed(t *testing.T) {
	r := newMeterRig(t)
	s := r.start(t)
	put(t, s, newTestKey(firstKey))
	require.Equal(t, &KeyLastUsageData{}, lastUse(t, s, firstKey))
	r.store.trouble = func(bool) error { return errBefore }
	out, err := s.GetKeyLastUsage(t.Context(), newRequest("GetKeyLastUsage"), &GetKeyLastUsageInput{KeyId: firstKey})
	require.Nil(t, out)
	require.ErrorIs(t, err, errBefore)
}
