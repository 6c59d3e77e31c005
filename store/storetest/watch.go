package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/store"
)

// recorder is a running Watch and what it was told.
type recorder struct {
	calls chan []store.Change
	ended chan error // gets the result of Watch
	stop  context.CancelFunc
}

// watch starts a Watch, which lasts until the end of the test or a call of stop, and waits until it is ready.
func watch(t *testing.T, s store.Store, prefix string) *recorder {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	r := &recorder{calls: make(chan []store.Change, 10_000), ended: make(chan error, 1), stop: stop}
	ready := make(chan struct{})
	go func() {
		r.ended <- s.Watch(ctx, prefix, func() { close(ready) }, func(changes []store.Change) error {
			r.calls <- changes
			return nil
		})
	}()
	select {
	case <-ready:
	case err := <-r.ended:
		require.FailNow(t, "watch ended before it was ready", "%v", err)
	}
	t.Cleanup(stop)
	return r
}

// next returns the changes of the next call.
func (r *recorder) next(t *testing.T) []store.Change {
	t.Helper()
	select {
	case changes := <-r.calls:
		return changes
	case err := <-r.ended:
		require.FailNow(t, "watch ended", "%v", err)
		return nil
	}
}

// texts shows changes as "key=value" and "key deleted".
func texts(changes []store.Change) (shown []string) {
	for _, c := range changes {
		if c.Deleted {
			shown = append(shown, c.Key+" deleted")
		} else {
			shown = append(shown, c.Key+"="+string(c.Value))
		}
	}
	return shown
}

func testWatchOrder(t *testing.T, s store.Store) {
	w := watch(t, s, "")
	put(t, s, "a=1", "c=1", "b=1")
	put(t, s, "b=2")
	del(t, s, "a", "b")
	put(t, s, "b=3", "b=3") // the value it has
	require.Equal(t, []string{"a=1", "b=1", "c=1"}, texts(w.next(t)), "in key order")
	require.Equal(t, []string{"b=2"}, texts(w.next(t)))
	deleted := w.next(t)
	require.Equal(t, []string{"a deleted", "b deleted"}, texts(deleted))
	require.Nil(t, deleted[0].Value)
	require.Equal(t, []string{"b=3"}, texts(w.next(t)))
	put(t, s, "b=3")
	require.Equal(t, []string{"b=3"}, texts(w.next(t)), "writing the same value is a change")
}

func testWatchFinal(t *testing.T, s store.Store) {
	put(t, s, "gone=1", "back=1")
	w := watch(t, s, "")
	update(t, s, func(tx store.Txn) {
		putIn(t, tx, "a=1", "a=2", "a=3", "fleeting=1", "gone=2", "empty=")
		for _, key := range []string{"fleeting", "gone", "back", "never there"} {
			require.NoError(t, tx.Delete(key))
		}
		putIn(t, tx, "back=2")
	})
	changes := w.next(t)
	require.Equal(t, []string{"a=3", "back=2", "empty=", "gone deleted"}, texts(changes))
	del(t, s, "never there")
	put(t, s, "end=1")
	require.Equal(t, []string{"end=1"}, texts(w.next(t)), "a transaction without a change is not told")
}

func testWatchPrefix(t *testing.T, s store.Store) {
	a, ab, none := watch(t, s, "a/"), watch(t, s, "a/b"), watch(t, s, "\xff\xff")
	put(t, s, "a=0", "a/=1", "a/a=1", "a/b=1", "a/bb=1", "a/c=1", "a0=1", "z=1")
	put(t, s, "a=1", "b=1")
	put(t, s, "a/c=2")
	del(t, s, "a/b", "z")
	put(t, s, "\xff\xff=1")
	require.Equal(t, []string{"a/=1", "a/a=1", "a/b=1", "a/bb=1", "a/c=1"}, texts(a.next(t)))
	require.Equal(t, []string{"a/c=2"}, texts(a.next(t)))
	require.Equal(t, []string{"a/b deleted"}, texts(a.next(t)))
	require.Equal(t, []string{"a/b=1", "a/bb=1"}, texts(ab.next(t)))
	require.Equal(t, []string{"a/b deleted"}, texts(ab.next(t)))
	require.Equal(t, []string{"\xff\xff=1"}, texts(none.next(t)))
}

func testWatchOwnership(t *testing.T, s store.Store) {
	first, second := watch(t, s, ""), watch(t, s, "")
	put(t, s, "k=value")
	for _, w := range []*recorder{first, second} {
		changes := w.next(t)
		require.Equal(t, []string{"k=value"}, texts(changes))
		clear(changes[0].Value)
		changes[0].Key = "spoilt"
	}
	require.Equal(t, []string{"k=value"}, dump(t, s))
}

// testWatchReady starts watches amid a stream of commits: each must see all that a View after ready does not show.
func testWatchReady(t *testing.T, s store.Store) {
	const last, watches = 150, 6
	together(t, watches+1, func(i int) error {
		if i < watches {
			return countAlong(t.Context(), s, last)
		}
		for range last {
			if _, err := add(t.Context(), s, "n", 1); err != nil {
				return err
			}
		}
		return nil
	})
}

// countAlong watches the number under "n" grow to last, and fails if a change is missing after ready.
func countAlong(ctx context.Context, s store.Store, last int) error {
	ctx, done := context.WithCancel(ctx)
	defer done()
	var viewErr error
	expected := 0 // the first change may be of an earlier number than this, the others may not
	ready := func() {
		viewErr = s.View(ctx, func(r store.Reader) error {
			seen, err := number(r, "n")
			expected = seen + 1
			return err
		})
		if viewErr != nil || expected > last {
			done()
		}
	}
	first := true
	err := s.Watch(ctx, "n", ready, func(changes []store.Change) error {
		n, err := strconv.Atoi(string(changes[0].Value))
		if err != nil {
			return err
		}
		if n > expected || !first && n != expected {
			return fmt.Errorf("told of %d, expected %d", n, expected)
		}
		if first, expected = false, n+1; n == last {
			done()
		}
		return nil
	})
	if viewErr != nil || expected > last && errors.Is(err, context.Canceled) {
		return viewErr
	}
	return err
}

func testWatchNothingElse(t *testing.T, s store.Store) {
	put(t, s, "before=1")
	w := watch(t, s, "")
	errWanted := errors.New("wanted")
	require.ErrorIs(t, s.Update(t.Context(), func(tx store.Txn) error {
		putIn(t, tx, "failed=1")
		return errWanted
	}), errWanted)
	require.Panics(t, func() {
		_ = s.Update(t.Context(), func(tx store.Txn) error {
			putIn(t, tx, "panicked=1")
			panic("wanted")
		})
	})
	update(t, s, func(store.Txn) {})
	put(t, s, "after=1")
	require.Equal(t, []string{"after=1"}, texts(w.next(t)))
}

func testWatchCallsStore(t *testing.T, s store.Store) {
	errDone := errors.New("done")
	ready := func() { _ = s.Update(t.Context(), func(tx store.Txn) error { return putNumber(tx, "n", 1) }) }
	err := s.Watch(t.Context(), "n", ready, func(changes []store.Change) error {
		told, err := strconv.Atoi(string(changes[0].Value))
		if err != nil {
			return err
		}
		var seen int
		if err := s.View(t.Context(), func(r store.Reader) (err error) { seen, err = number(r, "n"); return err }); err != nil {
			return err
		}
		switch {
		case seen < told:
			return fmt.Errorf("told of %d, but a View shows %d", told, seen)
		case told == 50:
			return errDone
		}
		_, err = add(t.Context(), s, "n", 1)
		return err
	})
	require.ErrorIs(t, err, errDone)
}

func testWatchContext(t *testing.T, s store.Store) {
	w := watch(t, s, "")
	w.stop()
	require.ErrorIs(t, <-w.ended, context.Canceled)
	put(t, s, "a=1")
	require.Empty(t, w.calls)

	// A fn that ends the context is not called again, though more has happened.
	ctx, cancel := context.WithCancel(t.Context())
	ready := func() { put(t, s, "b=1"); put(t, s, "b=2") }
	var told []string
	err := s.Watch(ctx, "", ready, func(changes []store.Change) error {
		told = append(told, texts(changes)...)
		cancel()
		return nil
	})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, []string{"b=1"}, told)
}

func testWatchError(t *testing.T, s store.Store) {
	errWanted := errors.New("wanted")
	calls := 0
	err := s.Watch(t.Context(), "", func() { put(t, s, "a=1"); put(t, s, "a=2") }, func([]store.Change) error {
		calls++
		return errWanted
	})
	require.Same(t, errWanted, err)
	require.Equal(t, 1, calls)
	require.Panics(t, func() {
		_ = s.Watch(t.Context(), "", func() { put(t, s, "a=3") }, func([]store.Change) error { panic("wanted") })
	})
	put(t, s, "a=4")
}

// testWatchSlow holds a watch in its first call until many transactions have been committed.
func testWatchSlow(t *testing.T, s store.Store) {
	const writers, each = 16, 100
	errDone := errors.New("done")
	told := 0
	err := s.Watch(t.Context(), "n", func() { put(t, s, "n=1") }, func(changes []store.Change) error {
		n, err := strconv.Atoi(string(changes[0].Value))
		if err != nil {
			return err
		}
		if told++; n != told {
			return fmt.Errorf("told of %d, expected %d", n, told)
		}
		if n == 1 {
			together(t, writers, func(int) error {
				for range each {
					if _, err := add(t.Context(), s, "n", 1); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if n == 1+writers*each {
			return errDone
		}
		return nil
	})
	require.Equal(t, []string{fmt.Sprint("n=", 1+writers*each)}, dump(t, s))
	if !errors.Is(err, store.ErrLagged) {
		require.ErrorIs(t, err, errDone, "all changes without a gap, or ErrLagged")
	}
	w := watch(t, s, "n")
	put(t, s, "n=0")
	require.Equal(t, []string{"n=0"}, texts(w.next(t)), "a new watch works")
}

// testWatchReplay has writers, readers and watches at work together. Who applies the changes in order must end with
// the records, and must have been told of each transaction in one call.
func testWatchReplay(t *testing.T, s store.Store) {
	const writers, each = 4, 60
	watches := []*recorder{watch(t, s, ""), watch(t, s, "k"), watch(t, s, "")}
	together(t, 2*writers, func(i int) error {
		rnd := rand.New(rand.NewPCG(uint64(i), 1))
		for n := range each {
			err := s.View(t.Context(), twinsAgree)
			if i < writers {
				key, value := fmt.Sprint("k", rnd.IntN(20)), fmt.Append(nil, i, "/", n)
				remove := rnd.IntN(3) == 0
				err = s.Update(t.Context(), func(tx store.Txn) error { return writeTwins(tx, key, value, remove) })
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	put(t, s, "k/end=")
	records := dump(t, s)
	for _, w := range watches {
		require.Equal(t, records, replay(t, w).scan("", "", all))
	}
}

// writeTwins writes or removes two records that are always equal.
func writeTwins(tx store.Txn, key string, value []byte, remove bool) error {
	if remove {
		return errors.Join(tx.Delete(key), tx.Delete(key+"/twin"))
	}
	return errors.Join(tx.Put(key, value), tx.Put(key+"/twin", value))
}

func twinsAgree(r store.Reader) error {
	for i := range 20 {
		key := fmt.Sprint("k", i)
		a, _, errA := r.Get(key)
		b, _, errB := r.Get(key + "/twin")
		if err := errors.Join(errA, errB); err != nil {
			return err
		}
		if string(a) != string(b) {
			return fmt.Errorf("%s is %q and %q", key, a, b)
		}
	}
	return nil
}

// replay applies what w was told, up to the change of "k/end".
func replay(t *testing.T, w *recorder) model {
	m := model{}
	for {
		changes := w.next(t)
		for _, c := range changes {
			if delete(m, c.Key); !c.Deleted {
				m[c.Key] = string(c.Value)
			}
		}
		if changes[0].Key == "k/end" {
			return m
		}
		require.Len(t, changes, 2)
		require.Equal(t, changes[0].Key+"/twin", changes[1].Key)
		require.Equal(t, changes[0].Value, changes[1].Value)
	}
}
