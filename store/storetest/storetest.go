// Package storetest holds the rules of store.Store as tests. Run them against each implementation.
//
// The rules are those of the contract and no more: an implementation may call the fn of an Update once or many times,
// and may cut off a slow watch soon, late or never. No rule depends on time; one that waits in vain ends with the time
// limit of the test binary.
package storetest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/store"
)

// Run tests an implementation. open returns a new, empty store, with a buffer for at least 1000 transactions behind
// each watch; the suite closes it. reopen closes s and opens the same records again, as after a restart of the
// process; the suite closes that too.
func Run(t *testing.T, open func(t *testing.T) store.Store, reopen func(t *testing.T, s store.Store) store.Store) {
	rules := []struct {
		name string
		test func(t *testing.T, s store.Store)
	}{
		{"get, put and delete", testGetPutDelete},
		{"any byte in a key", testKeyBytes},
		{"sizes of keys and values", testSizes},
		{"size of a transaction", testTxnSize},
		{"put keeps no slice", testPutCopies},
		{"scan", testScan},
		{"scan in a transaction sees its writes", testScanOwnWrites},
		{"random transactions equal a model", testModel},

		{"a failed update writes nothing", testRollback},
		{"a panic writes nothing and goes on", testPanic},
		{"errors come back unchanged", testErrorsUnchanged},
		{"a view is a snapshot", testSnapshot},
		{"a view sees nothing of a running update", testNoDirtyRead},
		{"transactions are atomic to views", testAtomicity},
		{"no update is lost", testLostUpdate},
		{"no write skew", testWriteSkew},

		{"watch: order, one call a transaction", testWatchOrder},
		{"watch: final values only", testWatchFinal},
		{"watch: prefix", testWatchPrefix},
		{"watch: changes belong to the receiver", testWatchOwnership},
		{"watch: nothing missed after ready", testWatchReady},
		{"watch: nothing from before, nothing uncommitted", testWatchNothingElse},
		{"watch: fn may call the store", testWatchCallsStore},
		{"watch: ends with its context", testWatchContext},
		{"watch: ends with the error of fn", testWatchError},
		{"watch: a slow one holds nobody up", testWatchSlow},
		{"watch: replay gives the records", testWatchReplay},

		{"an ended context", testContextEnded},
		{"a closed store", testClosed},
		{"close ends watches and waits for transactions", testCloseWaits},
	}
	for _, rule := range rules {
		t.Run(rule.name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(func() { closeStore(t, s) })
			rule.test(t, s)
		})
	}
	t.Run("records outlive the process", func(t *testing.T) { testReopen(t, open(t), reopen) })
}

func closeStore(t *testing.T, s store.Store) {
	if err := s.Close(); !errors.Is(err, store.ErrClosed) {
		require.NoError(t, err)
	}
}

// update runs an Update that must succeed.
func update(t *testing.T, s store.Store, fn func(tx store.Txn)) {
	t.Helper()
	require.NoError(t, s.Update(t.Context(), func(tx store.Txn) error {
		fn(tx)
		return nil
	}))
}

// view runs a View that must succeed.
func view(t *testing.T, s store.Store, fn func(r store.Reader)) {
	t.Helper()
	require.NoError(t, s.View(t.Context(), func(r store.Reader) error {
		fn(r)
		return nil
	}))
}

// put writes records, given as "key=value", in one transaction.
func put(t *testing.T, s store.Store, records ...string) {
	t.Helper()
	update(t, s, func(tx store.Txn) { putIn(t, tx, records...) })
}

func putIn(t *testing.T, tx store.Txn, records ...string) {
	t.Helper()
	for _, record := range records {
		key, value, _ := strings.Cut(record, "=")
		require.NoError(t, tx.Put(key, []byte(value)))
	}
}

// del removes keys in one transaction.
func del(t *testing.T, s store.Store, keys ...string) {
	t.Helper()
	update(t, s, func(tx store.Txn) {
		for _, key := range keys {
			require.NoError(t, tx.Delete(key))
		}
	})
}

// get returns the value under key, or "absent".
func get(t *testing.T, r store.Reader, key string) string {
	t.Helper()
	value, found, err := r.Get(key)
	require.NoError(t, err)
	if !found {
		return "absent"
	}
	return string(value)
}

// scan returns up to limit records as "key=value".
func scan(t *testing.T, r store.Reader, prefix, after string, limit int) []string {
	t.Helper()
	got := []string{}
	require.NoError(t, r.Scan(prefix, after, func(key string, value []byte) bool {
		got = append(got, key+"="+string(value))
		return len(got) < limit
	}))
	return got
}

const all = 1 << 30 // no limit

// dump returns all records of a store.
func dump(t *testing.T, s store.Store) (records []string) {
	t.Helper()
	view(t, s, func(r store.Reader) { records = scan(t, r, "", "", all) })
	return records
}

// together runs fn for 0 to n-1 in a goroutine each, waits for all and demands that none fails.
func together(t *testing.T, n int, fn func(i int) error) {
	t.Helper()
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() { errs[i] = fn(i) })
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
}

// add adds n to the decimal number under key, in a transaction of its own, and returns the sum.
func add(ctx context.Context, s store.Store, key string, n int) (sum int, err error) {
	err = s.Update(ctx, func(tx store.Txn) error {
		old, err := number(tx, key)
		if err != nil {
			return err
		}
		sum = old + n
		return putNumber(tx, key, sum)
	})
	return sum, err
}
