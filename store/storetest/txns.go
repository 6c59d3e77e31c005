package storetest

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/store"
)

func testRollback(t *testing.T, s store.Store) {
	put(t, s, "kept=1", "other=1")
	errWanted := errors.New("wanted")
	err := s.Update(t.Context(), func(tx store.Txn) error {
		putIn(t, tx, "kept=2", "new=2")
		require.NoError(t, tx.Delete("other"))
		return errWanted
	})
	require.ErrorIs(t, err, errWanted)
	require.Equal(t, []string{"kept=1", "other=1"}, dump(t, s))
	put(t, s, "next=1")
	require.Equal(t, []string{"kept=1", "next=1", "other=1"}, dump(t, s))
}

func testPanic(t *testing.T, s store.Store) {
	put(t, s, "kept=1")
	require.PanicsWithValue(t, "in Update", func() {
		_ = s.Update(t.Context(), func(tx store.Txn) error {
			putIn(t, tx, "kept=2", "new=2")
			panic("in Update")
		})
	})
	require.PanicsWithValue(t, "in View", func() {
		_ = s.View(t.Context(), func(store.Reader) error { panic("in View") })
	})
	require.Equal(t, []string{"kept=1"}, dump(t, s))
	put(t, s, "kept=3")
	require.Equal(t, []string{"kept=3"}, dump(t, s))
}

func testErrorsUnchanged(t *testing.T, s store.Store) {
	errWanted := errors.New("wanted")
	require.Same(t, errWanted, s.View(t.Context(), func(store.Reader) error { return errWanted }))
	require.Same(t, errWanted, s.Update(t.Context(), func(store.Txn) error { return errWanted }))
}

func testSnapshot(t *testing.T, s store.Store) {
	put(t, s, "a=1", "b=1", "c=1")
	view(t, s, func(r store.Reader) {
		old, _, err := r.Get("a")
		require.NoError(t, err)
		together(t, 1, func(int) error {
			for i := range 20 { // more than once, so that space is reused where it can be
				if err := s.Update(t.Context(), func(tx store.Txn) error {
					return errors.Join(tx.Put("a", fmt.Append(nil, i)), tx.Put("aa", fmt.Append(nil, i)), tx.Delete("b"))
				}); err != nil {
					return err
				}
			}
			return nil
		})
		require.Equal(t, "1", string(old), "a value is valid until the end")
		require.Equal(t, "1", get(t, r, "a"))
		require.Equal(t, []string{"a=1", "b=1", "c=1"}, scan(t, r, "", "", all))
	})
	require.Equal(t, []string{"a=19", "aa=19", "c=1"}, dump(t, s), "a later View sees what was committed")
}

func testNoDirtyRead(t *testing.T, s store.Store) {
	put(t, s, "a=1")
	var once sync.Once
	update(t, s, func(tx store.Txn) {
		putIn(t, tx, "a=2", "b=2")
		once.Do(func() {
			seen := make(chan []string)
			go func() {
				var records []string
				_ = s.View(t.Context(), func(r store.Reader) error {
					return r.Scan("", "", func(key string, value []byte) bool {
						records = append(records, key+"="+string(value))
						return true
					})
				})
				seen <- records
			}()
			require.Equal(t, []string{"a=1"}, <-seen)
		})
	})
	require.Equal(t, []string{"a=2", "b=2"}, dump(t, s))
}

// testAtomicity has writers move an amount between accounts while readers check that the sum stays.
func testAtomicity(t *testing.T, s store.Store) {
	const accounts, moves = 5, 40
	update(t, s, func(tx store.Txn) {
		for i := range accounts {
			require.NoError(t, putNumber(tx, fmt.Sprint("account/", i), 100))
		}
	})
	sum := func(r store.Reader) (total int, err error) {
		for i := range accounts {
			n, err := number(r, fmt.Sprint("account/", i))
			if err != nil {
				return 0, err
			}
			total += n
		}
		return total, nil
	}
	check := func(r store.Reader) error {
		total, err := sum(r)
		if err == nil && total != 100*accounts {
			err = fmt.Errorf("sum is %d", total)
		}
		return err
	}
	move := func(tx store.Txn, from, to string, amount int) error {
		a, errA := number(tx, from)
		b, errB := number(tx, to)
		return errors.Join(errA, errB, putNumber(tx, from, a-amount), putNumber(tx, to, b+amount), check(tx))
	}
	together(t, 8, func(i int) error {
		for n := range moves {
			from, to := fmt.Sprint("account/", (i+n)%accounts), fmt.Sprint("account/", (i+2*n+1)%accounts)
			var err error
			if i%2 == 0 || from == to {
				err = s.View(t.Context(), check)
			} else {
				err = s.Update(t.Context(), func(tx store.Txn) error { return move(tx, from, to, n) })
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	view(t, s, func(r store.Reader) { require.NoError(t, check(r)) })
}

func testLostUpdate(t *testing.T, s store.Store) {
	const writers, each = 8, 25
	var mu sync.Mutex
	sums := map[int]bool{}
	together(t, writers, func(int) error {
		for range each {
			sum, err := add(t.Context(), s, "counter", 1)
			if err != nil {
				return err
			}
			mu.Lock()
			sums[sum] = true
			mu.Unlock()
		}
		return nil
	})
	require.Equal(t, []string{fmt.Sprint("counter=", writers*each)}, dump(t, s))
	require.Len(t, sums, writers*each, "no two transactions read the same number")
}

// testWriteSkew runs pairs of transactions of which only one may find its condition true, because each makes the
// condition of the other false. Neither writes what the other writes.
func testWriteSkew(t *testing.T, s store.Store) {
	mine := func(i int) string { return fmt.Sprint("duty/", i) }
	count := func(tx store.Txn) (n int, err error) {
		err = tx.Scan("duty/", "", func(string, []byte) bool { n++; return true })
		return n, err
	}
	cases := []struct {
		name  string
		setUp []string
		test  func(tx store.Txn, i int) (bool, error) // the condition of transaction i
		write func(tx store.Txn, i int) error         // what it does if that is true
	}{
		{"get", []string{"duty/0=1", "duty/1=1"},
			func(tx store.Txn, i int) (bool, error) { n, err := number(tx, mine(1-i)); return n > 0, err },
			func(tx store.Txn, i int) error { return putNumber(tx, mine(i), 0) }},
		{"get of an absent key", nil,
			func(tx store.Txn, i int) (bool, error) { _, found, err := tx.Get(mine(1 - i)); return !found, err },
			func(tx store.Txn, i int) error { return putNumber(tx, mine(i), 1) }},
		{"scan and insert", nil,
			func(tx store.Txn, _ int) (bool, error) { n, err := count(tx); return n == 0, err },
			func(tx store.Txn, i int) error { return putNumber(tx, mine(i), 1) }},
		{"scan and delete", []string{"duty/0=1", "duty/1=1"},
			func(tx store.Txn, _ int) (bool, error) { n, err := count(tx); return n == 2, err },
			func(tx store.Txn, i int) error { return tx.Delete(mine(i)) }},
	}
	for _, c := range cases {
		for range 25 {
			del(t, s, mine(0), mine(1))
			put(t, s, c.setUp...)
			var wrote [2]bool
			var tested atomic.Int32
			together(t, 2, func(i int) error {
				return s.Update(t.Context(), func(tx store.Txn) (err error) {
					if wrote[i], err = c.test(tx, i); err != nil || !wrote[i] {
						return err
					}
					meet(&tested)
					return c.write(tx, i)
				})
			})
			require.NotEqual(t, wrote[0], wrote[1], c.name)
		}
	}
}

// meet gives two goroutines a chance to be here at the same time. It does not insist, since in a store that runs one
// transaction at a time they cannot.
func meet(here *atomic.Int32) {
	here.Add(1)
	for range 1000 {
		if here.Load() > 1 {
			return
		}
		runtime.Gosched()
	}
}
