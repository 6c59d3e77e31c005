package bolt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"hsmkms/store"
)

var errWanted = errors.New("wanted")

// hold starts an Update that writes "held" and stays in fn until release is called; wait then gives its error.
func hold(t *testing.T, s *Store) (release func(), wait func() error) {
	t.Helper()
	started, released, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- s.Update(context.Background(), func(tx store.Txn) error {
			close(started)
			<-released
			return tx.Put("held", []byte("1"))
		})
	}()
	<-started
	release = sync.OnceFunc(func() { close(released) })
	t.Cleanup(release)
	return release, func() error { return <-ended }
}

// waitForWaiting returns when n Updates wait for their turn.
func waitForWaiting(s *Store, n int) {
	for {
		s.turns.mu.Lock()
		waiting := len(s.turns.waiting)
		s.turns.mu.Unlock()
		if waiting == n {
			return
		}
		runtime.Gosched()
	}
}

// countCommits returns a counter of the commits of s that begin from now on.
func countCommits(s *Store) *atomic.Int32 {
	var n atomic.Int32
	commit := s.commitTx
	s.commitTx = func(tx *bbolt.Tx) error {
		n.Add(1)
		return commit(tx)
	}
	return &n
}

func write(key string) func(store.Txn) error {
	return func(tx store.Txn) error { return tx.Put(key, []byte("1")) }
}

// member is a transaction in a group, and what its Update must give.
type member struct {
	fn    func(store.Txn) error
	check func(t *testing.T, err error)
}

// runGroup has members wait behind one that is held, in this order, lets them run and checks what each got.
func runGroup(t *testing.T, s *Store, heldErr func(t *testing.T, err error), members []member) {
	t.Helper()
	release, wait := hold(t, s)
	errs := make([]error, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() {
			errs[i] = errors.New("Update did not return")
			defer func() {
				if r := recover(); r != nil {
					errs[i] = fmt.Errorf("panic: %v", r)
				}
			}()
			errs[i] = s.Update(context.Background(), m.fn)
		})
		waitForWaiting(s, i+1)
	}
	release()
	heldErr(t, wait())
	wg.Wait()
	for i, m := range members {
		m.check(t, errs[i])
	}
}

func ok(t *testing.T, err error)       { t.Helper(); require.NoError(t, err) }
func failed(t *testing.T, err error)   { t.Helper(); require.Same(t, errWanted, err) }
func panicked(t *testing.T, err error) { t.Helper(); require.EqualError(t, err, "panic: wanted") }
func exited(t *testing.T, err error)   { t.Helper(); require.EqualError(t, err, "Update did not return") }

// TestGroupSharesOneCommit also has the last member fail, each way: it must still commit for the others.
func TestGroupSharesOneCommit(t *testing.T) {
	fails := []member{
		{func(tx store.Txn) error { return errors.Join(write("bad")(tx), errWanted) }, func(t *testing.T, err error) {
			require.ErrorIs(t, err, errWanted)
		}},
		{func(tx store.Txn) error { _ = write("bad")(tx); return errWanted }, failed},
		{func(tx store.Txn) error { _ = write("bad")(tx); panic("wanted") }, panicked},
		{func(tx store.Txn) error { _ = write("bad")(tx); runtime.Goexit(); return nil }, exited},
		{func(tx store.Txn) error { // sees what those before it wrote, also when that is an empty value
			_, held, _ := tx.Get("held")
			_, empty, _ := tx.Get("empty")
			_, bad, _ := tx.Get("bad")
			if !held || !empty || bad {
				return fmt.Errorf("held %t, empty %t, bad %t", held, empty, bad)
			}
			return nil
		}, ok},
	}
	for last := range fails {
		s := openTest(t, Config{})
		commits := countCommits(s)
		members := []member{
			{write("a"), ok},
			{func(tx store.Txn) error { return tx.Put("empty", nil) }, ok},
		}
		members = append(members, fails...)
		members = append(members, member{write("b"), ok}, fails[last])
		runGroup(t, s, ok, members)
		require.EqualValues(t, 1, commits.Load())
		require.Equal(t, "11", get(t, s, "a")+get(t, s, "b"))
		require.Empty(t, get(t, s, "bad"))
		put(t, s, "after", "1")
	}
}

func TestGroupIsBounded(t *testing.T) {
	s := openTest(t, Config{})
	commits := countCommits(s)
	members := make([]member, maxGroup+10)
	for i := range members {
		members[i] = member{write(fmt.Sprint("k", i)), ok}
	}
	runGroup(t, s, ok, members)
	require.EqualValues(t, 2, commits.Load())
}

func TestNothingToCommit(t *testing.T) {
	s := openTest(t, Config{})
	commits := countCommits(s)
	require.NoError(t, s.Update(t.Context(), func(store.Txn) error { return nil }))
	require.NoError(t, s.Update(t.Context(), func(tx store.Txn) error { return tx.Delete("absent") }))
	require.Same(t, errWanted, s.Update(t.Context(), func(store.Txn) error { return errWanted }))
	require.Zero(t, commits.Load())
}

// TestFailedCommit has a commit fail in a way that leaves the file as it was.
func TestFailedCommit(t *testing.T) {
	s := openTest(t, Config{})
	put(t, s, "k", "old")
	w := s.hub.add("")
	s.commitTx = func(tx *bbolt.Tx) error { return errors.Join(errWanted, tx.Rollback()) }
	lost := func(t *testing.T, err error) {
		t.Helper()
		require.ErrorIs(t, err, errWanted)
		require.NotErrorIs(t, err, store.ErrUncertain)
	}
	runGroup(t, s, lost, []member{
		{func(tx store.Txn) error { return tx.Put("k", []byte("new")) }, lost},
		{func(tx store.Txn) error { // fails because of something that never came to be
			if _, held, _ := tx.Get("held"); held {
				return errors.New("exists already")
			}
			return nil
		}, func(t *testing.T, err error) { lost(t, err); require.NotContains(t, err.Error(), "exists") }},
		{func(store.Txn) error { panic("wanted") }, panicked},
	})
	require.Equal(t, "old", get(t, s, "k"))
	require.Empty(t, get(t, s, "held"))

	s.commitTx = (*bbolt.Tx).Commit
	put(t, s, "k", "newer")
	require.Equal(t, "newer", get(t, s, "k"))
	require.Len(t, w.feed, 1, "only the last commit is told")
}

// TestUnconfirmedCommit has commits end so that nobody knows what the disk holds.
func TestUnconfirmedCommit(t *testing.T) {
	uncertain := func(t *testing.T, err error) { t.Helper(); require.ErrorIs(t, err, store.ErrUncertain) }
	cases := []struct {
		name   string
		commit func(tx *bbolt.Tx) error
		last   func(t *testing.T, err error) // of the member that commits
	}{
		{"error", func(tx *bbolt.Tx) error { return errors.Join(tx.Commit(), errWanted) }, uncertain},
		{"panic", func(*bbolt.Tx) error { panic("wanted") }, panicked},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := openTest(t, Config{})
			path := s.db.Path()
			put(t, s, "k", "1")
			watched := make(chan error)
			ready := make(chan struct{})
			go func() {
				watched <- s.Watch(context.Background(), "", func() { close(ready) }, func([]store.Change) error { return nil })
			}()
			<-ready
			s.commitTx = c.commit
			runGroup(t, s, uncertain, []member{{write("a"), uncertain}, {write("b"), c.last}})

			require.ErrorIs(t, <-watched, store.ErrClosed)
			require.ErrorIs(t, s.Update(t.Context(), write("c")), store.ErrClosed)
			require.ErrorIs(t, s.View(t.Context(), nil), store.ErrClosed)
			require.ErrorIs(t, s.Watch(t.Context(), "", nil, nil), store.ErrClosed)
			require.NoError(t, s.Close())
			require.ErrorIs(t, s.Close(), store.ErrClosed)

			again := openTest(t, Config{Path: path})
			require.Equal(t, "1", get(t, again, "k"))
			require.Equal(t, get(t, again, "a"), get(t, again, "b"), "all or nothing")
		})
	}
}

// TestFullDisk has the kernel refuse to let the file grow.
func TestFullDisk(t *testing.T) {
	s := openTest(t, Config{})
	put(t, s, "k", "old")
	info, err := os.Stat(s.db.Path())
	require.NoError(t, err)
	var unlimited syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &unlimited))
	limited := syscall.Rlimit{Cur: uint64(info.Size()), Max: unlimited.Max}
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limited))
	lift := sync.OnceValue(func() error { return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &unlimited) })
	defer func() { _ = lift() }()

	grow := func(tx store.Txn) error {
		return errors.Join(tx.Put("k", []byte("new")), tx.Put("large", make([]byte, store.MaxValue)))
	}
	var full error
	for i := 0; full == nil; i++ { // until the space in the file is used up
		full = s.Update(t.Context(), func(tx store.Txn) error { return tx.Put(fmt.Sprint("fill", i), make([]byte, store.MaxValue)) })
	}
	require.NotErrorIs(t, full, store.ErrUncertain)
	require.Error(t, s.Update(t.Context(), grow))
	require.Equal(t, "old", get(t, s, "k"))

	require.NoError(t, lift())
	require.NoError(t, s.Update(t.Context(), grow))
	require.Equal(t, "new", get(t, s, "k"))
	require.NoError(t, s.db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			return err
		}
		return nil
	}))
}

func TestContextEndsWhileWaiting(t *testing.T) {
	s := openTest(t, Config{})
	release, wait := hold(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	errs := make([]error, 3)
	for i := range errs {
		wg.Go(func() { errs[i] = s.Update(ctx, write("never")) })
	}
	waitForWaiting(s, len(errs))
	cancel()
	wg.Wait()
	for _, err := range errs {
		require.ErrorIs(t, err, context.Canceled)
	}
	release()
	require.NoError(t, wait())
	require.Empty(t, get(t, s, "never"))
	put(t, s, "after", "1")
}

func TestCloseWhileWaiting(t *testing.T) {
	s := openTest(t, Config{})
	path := s.db.Path()
	release, wait := hold(t, s)
	waited, closed := make(chan error), make(chan error)
	go func() { waited <- s.Update(context.Background(), write("never")) }()
	waitForWaiting(s, 1)
	go func() { closed <- s.Close() }()
	require.ErrorIs(t, <-waited, store.ErrClosed)
	release()
	require.NoError(t, wait(), "an Update that runs is waited for")
	require.NoError(t, <-closed)
	again := openTest(t, Config{Path: path})
	require.Equal(t, "1", get(t, again, "held"))
	require.Empty(t, get(t, again, "never"))
}
