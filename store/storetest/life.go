package storetest

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/store"
)

// calls runs each method of s that takes a context, with functions that must not be called, and returns the errors.
func calls(ctx context.Context, t *testing.T, s store.Store) map[string]error {
	unwanted := func(what string) func() {
		return func() { require.FailNow(t, "called", "the function of %s", what) }
	}
	return map[string]error{
		"View":   s.View(ctx, func(store.Reader) error { unwanted("View")(); return nil }),
		"Update": s.Update(ctx, func(store.Txn) error { unwanted("Update")(); return nil }),
		"Watch":  s.Watch(ctx, "", unwanted("Watch"), func([]store.Change) error { return nil }),
	}
}

func testContextEnded(t *testing.T, s store.Store) {
	put(t, s, "a=1")
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for method, err := range calls(canceled, t, s) {
		require.ErrorIs(t, err, context.Canceled, method)
	}
	late, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	for method, err := range calls(late, t, s) {
		require.ErrorIs(t, err, context.DeadlineExceeded, method)
	}
	require.Equal(t, []string{"a=1"}, dump(t, s))
}

func testClosed(t *testing.T, s store.Store) {
	put(t, s, "a=1")
	require.NoError(t, s.Close())
	for method, err := range calls(t.Context(), t, s) {
		require.ErrorIs(t, err, store.ErrClosed, method)
	}
	require.ErrorIs(t, s.Close(), store.ErrClosed)
}

// testCloseWaits closes the store while a View is in the middle. The end of the watch tells that Close has begun.
func testCloseWaits(t *testing.T, s store.Store) {
	put(t, s, "a=1", "b=2")
	w := watch(t, s, "")
	started := make(chan struct{})
	var viewed []string
	viewEnded := make(chan error, 1)
	go func() {
		viewEnded <- s.View(t.Context(), func(r store.Reader) error {
			close(started)
			if err := <-w.ended; err != nil {
				w.ended <- err
			}
			return r.Scan("", "", func(key string, value []byte) bool {
				viewed = append(viewed, key+"="+string(value))
				return true
			})
		})
	}()
	<-started
	require.NoError(t, s.Close())
	// No synchronisation but Close: the race detector objects if it does not wait.
	require.Equal(t, []string{"a=1", "b=2"}, viewed)
	require.NoError(t, <-viewEnded)
	require.ErrorIs(t, <-w.ended, store.ErrClosed)
}

func testReopen(t *testing.T, s store.Store, reopen func(*testing.T, store.Store) store.Store) {
	t.Cleanup(func() { closeStore(t, s) })
	want := []string{}
	for i := range 300 {
		put(t, s, fmt.Sprintf("k/%03d=%d", i, i), fmt.Sprintf("gone/%03d=%d", i, i))
		want = append(want, fmt.Sprintf("k/%03d=%d", i, i))
	}
	for i := range 300 {
		del(t, s, fmt.Sprintf("gone/%03d", i))
	}
	put(t, s, "last=1")
	want = append(want, "last=1")
	for range 3 {
		s = reopen(t, s)
		require.Equal(t, want, dump(t, s))
		put(t, s, "last=2")
		want[len(want)-1] = "last=2"
	}
	w := watch(t, s, "")
	put(t, s, "new=1")
	require.Equal(t, []string{"new=1"}, texts(w.next(t)), "nothing from before")
}
