package store_test

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/store"
	"hsmkms/store/bolt"
)

var errNotANumber = errors.New("not a number")

func number(value []byte) (int, error) {
	n, err := strconv.Atoi(string(value))
	if err != nil {
		return 0, errNotANumber
	}
	return n, nil
}

func open(t *testing.T) *bolt.Store {
	t.Helper()
	s, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "db")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func put(t *testing.T, s store.Store, key, value string) {
	t.Helper()
	require.NoError(t, s.Update(t.Context(), func(tx store.Txn) error { return tx.Put(key, []byte(value)) }))
}

// counting is a store that counts reads.
type counting struct {
	store.Store
	mu    sync.Mutex
	views int
	// during, if set, runs after a snapshot was read and before the reader has it.
	during func()
}

func (c *counting) View(ctx context.Context, fn func(store.Reader) error) error {
	c.mu.Lock()
	c.views++
	during := c.during
	c.mu.Unlock()
	err := c.Store.View(ctx, fn)
	if during != nil {
		during()
	}
	return err
}

func newCache(t *testing.T, s store.Store, size int) *store.Cache[int] {
	t.Helper()
	c, err := store.NewCache(s, "n/", size, number)
	require.NoError(t, err)
	return c
}

func requireRecord(t *testing.T, c *store.Cache[int], key string, want int) {
	t.Helper()
	got, found, err := c.Get(t.Context(), key)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, want, got)
}

func TestCacheReadsTheStoreOnce(t *testing.T) {
	s := &counting{Store: open(t)}
	put(t, s, "n/1", "1")
	c := newCache(t, s, 10)
	for range 3 {
		requireRecord(t, c, "n/1", 1)
	}
	require.Equal(t, 1, s.views)
	put(t, s, "n/1", "2")
	c.Forget("other/1")
	requireRecord(t, c, "n/1", 1)
	c.Forget("n/1")
	requireRecord(t, c, "n/1", 2)
	require.Equal(t, 2, s.views)
}

func TestCacheIsBounded(t *testing.T) {
	s := &counting{Store: open(t)}
	c := newCache(t, s, 2)
	for range 2 {
		for _, n := range []string{"1", "2", "3"} {
			put(t, s, "n/"+n, n)
			want, _ := strconv.Atoi(n)
			requireRecord(t, c, "n/"+n, want)
		}
	}
	require.Equal(t, 6, s.views)
	_, err := store.NewCache(s, "n/", 0, number)
	require.Error(t, err)
}

func TestCacheTellsAbsenceAndErrors(t *testing.T) {
	s := &counting{Store: open(t)}
	c := newCache(t, s, 10)
	for range 2 {
		_, found, err := c.Get(t.Context(), "n/none")
		require.NoError(t, err)
		require.False(t, found)
	}
	require.Equal(t, 2, s.views, "absence is not kept: anybody could fill the memory with it")
	put(t, s, "n/bad", "x")
	_, found, err := c.Get(t.Context(), "n/bad")
	require.ErrorIs(t, err, errNotANumber)
	require.False(t, found)
}

// TestCacheKeepsNothingOlderThanAChange has a change committed between the read of a record and its keeping.
func TestCacheKeepsNothingOlderThanAChange(t *testing.T) {
	s := &counting{Store: open(t)}
	put(t, s, "n/1", "1")
	c := newCache(t, s, 10)
	s.during = func() {
		s.during = nil
		put(t, s, "n/1", "2")
		c.Forget("n/1")
	}
	requireRecord(t, c, "n/1", 1)
	requireRecord(t, c, "n/1", 2)
}

// TestCacheFollowsOthers changes a record behind the cache's back, as another process would.
func TestCacheFollowsOthers(t *testing.T) {
	s := open(t)
	put(t, s, "n/1", "1")
	c := newCache(t, s, 10)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- c.Run(ctx) }()
	requireRecord(t, c, "n/1", 1)
	put(t, s, "n/1", "2")
	require.Eventually(t, func() bool {
		got, found, err := c.Get(t.Context(), "n/1")
		return err == nil && found && got == 2
	}, 10*time.Second, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

// TestJoin keeps what was made of several records until one of them changes: for one key, or for all.
func TestJoin(t *testing.T) {
	s := &counting{Store: open(t)}
	put(t, s, "n/all", "100")
	put(t, s, "n/1", "1")
	put(t, s, "n/2", "2")
	sum := func(r store.Reader, key string) (int, bool, error) {
		value, found, err := r.Get("n/" + key)
		if err != nil || !found {
			return 0, false, err
		}
		all, _, err := r.Get("n/all")
		if err != nil {
			return 0, false, err
		}
		a, err := number(all)
		if err != nil {
			return 0, false, err
		}
		b, err := number(value)
		return a + b, true, err
	}
	stale := func(changed string) (string, bool) {
		switch changed {
		case "n/all":
			return "", true
		case "n/3":
			return "", false
		}
		return changed[len("n/"):], false
	}
	c, err := store.NewJoin(s, "n/", 10, sum, stale)
	require.NoError(t, err)
	requireRecord(t, c, "1", 101)
	requireRecord(t, c, "2", 102)
	require.Equal(t, 2, s.views)
	requireRecord(t, c, "1", 101)
	require.Equal(t, 2, s.views)
	require.Zero(t, testing.AllocsPerRun(10, func() { _, _, _ = c.Get(t.Context(), "1") }))

	put(t, s, "n/1", "5")
	c.Forget("n/1", "n/3", "other")
	requireRecord(t, c, "1", 105)
	requireRecord(t, c, "2", 102)
	require.Equal(t, 3, s.views, "the other was kept")
	put(t, s, "n/all", "200")
	c.Forget("n/all")
	requireRecord(t, c, "1", 205)
	requireRecord(t, c, "2", 202)
	_, found, err := c.Get(t.Context(), "9")
	require.NoError(t, err)
	require.False(t, found)
}
