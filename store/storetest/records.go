package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/store"
)

// number reads the decimal number under key; an absent one is 0.
func number(r store.Reader, key string) (int, error) {
	value, found, err := r.Get(key)
	if err != nil || !found {
		return 0, err
	}
	return strconv.Atoi(string(value))
}

func putNumber(tx store.Txn, key string, n int) error {
	return tx.Put(key, strconv.AppendInt(nil, int64(n), 10))
}

func testGetPutDelete(t *testing.T, s store.Store) {
	require.Empty(t, dump(t, s))
	update(t, s, func(tx store.Txn) {
		require.Equal(t, "absent", get(t, tx, "a"))
		putIn(t, tx, "a=1", "empty=", "gone=1", "back=1")
		require.Equal(t, "1", get(t, tx, "a"))
		require.Empty(t, get(t, tx, "empty"), "an empty value is a value")
		require.NoError(t, tx.Delete("gone"))
		require.Equal(t, "absent", get(t, tx, "gone"))
		require.NoError(t, tx.Delete("back"))
		putIn(t, tx, "back=2")
		require.Equal(t, "2", get(t, tx, "back"))
		require.NoError(t, tx.Delete("never there"))
	})
	require.Equal(t, []string{"a=1", "back=2", "empty="}, dump(t, s))

	update(t, s, func(tx store.Txn) {
		require.Empty(t, get(t, tx, "empty"))
		putIn(t, tx, "a=2")
		require.NoError(t, tx.Put("nil", nil))
		require.NoError(t, tx.Delete("back"))
		require.Equal(t, "absent", get(t, tx, "back"))
	})
	require.Equal(t, []string{"a=2", "empty=", "nil="}, dump(t, s))
	view(t, s, func(r store.Reader) {
		require.Equal(t, "2", get(t, r, "a"))
		require.Empty(t, get(t, r, "nil"))
		for _, absent := range []string{"", "back", "aa", "zzz", strings.Repeat("a", store.MaxKey+1)} {
			require.Equal(t, "absent", get(t, r, absent))
		}
	})
}

func testKeyBytes(t *testing.T, s store.Store) {
	keys := []string{"\x00", "\x00\x00", "a", "a\x00", "a\x00b", "a\xff", "a\xff\xff", "b", "\xc3\x28", "\xff", "\xff\xff", "\xff\xff\xff"}
	update(t, s, func(tx store.Txn) {
		for _, key := range keys {
			require.NoError(t, tx.Put(key, []byte(key)))
		}
	})
	view(t, s, func(r store.Reader) {
		for _, key := range keys {
			require.Equal(t, key, get(t, r, key))
		}
		slices.Sort(keys)
		want := func(prefix string) (records []string) {
			for _, key := range keys {
				if strings.HasPrefix(key, prefix) {
					records = append(records, key+"="+key)
				}
			}
			return records
		}
		for _, prefix := range []string{"", "\x00", "a", "a\x00", "a\xff", "\xff", "\xff\xff"} {
			require.Equal(t, want(prefix), scan(t, r, prefix, "", all), "prefix %q", prefix)
		}
	})
}

func testSizes(t *testing.T, s store.Store) {
	longest, largest := strings.Repeat("k", store.MaxKey), bytes.Repeat([]byte{'v'}, store.MaxValue)
	update(t, s, func(tx store.Txn) {
		require.NoError(t, tx.Put(longest, largest))
		require.ErrorIs(t, tx.Put("", nil), store.ErrKeySize)
		require.ErrorIs(t, tx.Put(longest+"k", nil), store.ErrKeySize)
		require.ErrorIs(t, tx.Put("k", append(largest, 'v')), store.ErrValueSize)
		require.NoError(t, tx.Delete(""))
		require.NoError(t, tx.Delete(longest+"k"))
		require.Equal(t, "absent", get(t, tx, "k"), "a refused Put writes nothing")
	})
	view(t, s, func(r store.Reader) {
		require.Len(t, scan(t, r, "", "", all), 1)
		require.Equal(t, string(largest), get(t, r, longest))
	})
}

func testTxnSize(t *testing.T, s store.Store) {
	update(t, s, func(tx store.Txn) {
		for i := range store.MaxTxnKeys {
			require.NoError(t, tx.Put(fmt.Sprintf("key/%03d", i), nil))
		}
		require.ErrorIs(t, tx.Put("more", nil), store.ErrTxnSize)
		require.ErrorIs(t, tx.Delete("more"), store.ErrTxnSize)
		putIn(t, tx, "key/000=again")
		require.NoError(t, tx.Delete("key/001"))
	})
	require.Len(t, dump(t, s), store.MaxTxnKeys-1)

	half := make([]byte, store.MaxTxnBytes/2-1)
	update(t, s, func(tx store.Txn) {
		require.NoError(t, tx.Put("a", half))
		require.NoError(t, tx.Put("b", half))
		require.ErrorIs(t, tx.Put("c", nil), store.ErrTxnSize)
		require.ErrorIs(t, tx.Delete("c"), store.ErrTxnSize)
		require.ErrorIs(t, tx.Put("a", make([]byte, len(half)+1)), store.ErrTxnSize)
		require.NoError(t, tx.Delete("b"), "frees the bytes of its value")
		require.NoError(t, tx.Put("c", half[1:]))
	})
	view(t, s, func(r store.Reader) {
		require.Len(t, get(t, r, "a"), len(half))
		require.Equal(t, "absent", get(t, r, "b"))
		require.Len(t, get(t, r, "c"), len(half)-1)
	})
}

func testPutCopies(t *testing.T, s store.Store) {
	value := []byte("first")
	update(t, s, func(tx store.Txn) {
		copy(value, "first")
		require.NoError(t, tx.Put("k", value))
		copy(value, "XXXXX")
		require.Equal(t, "first", get(t, tx, "k"))
	})
	copy(value, "YYYYY")
	require.Equal(t, []string{"k=first"}, dump(t, s))
}

// scans are the cases for a store with these records.
var (
	scanRecords = []string{"a=0", "k=1", "k/=2", "k/a=3", "k/a/x=4", "k/b=", "k0=5", "z=6"}
	scans       = []struct {
		prefix, after string
		limit         int
		want          string
	}{
		{"", "", all, "a=0 k=1 k/=2 k/a=3 k/a/x=4 k/b= k0=5 z=6"},
		{"k", "", all, "k=1 k/=2 k/a=3 k/a/x=4 k/b= k0=5"},
		{"k/", "", all, "k/=2 k/a=3 k/a/x=4 k/b="},
		{"k/a", "", all, "k/a=3 k/a/x=4"},
		{"k/a/x/", "", all, ""},
		{"x", "", all, ""},
		{"zz", "", all, ""},
		{"k/", "k", all, "k/=2 k/a=3 k/a/x=4 k/b="},
		{"k/", "k/", all, "k/a=3 k/a/x=4 k/b="},
		{"k/", "k/a", all, "k/a/x=4 k/b="},
		{"k/", "k/a/absent", all, "k/a/x=4 k/b="},
		{"k/", "k/b", all, ""},
		{"k/", "k0", all, ""},
		{"k/", "z", all, ""},
		{"k/", "a", all, "k/=2 k/a=3 k/a/x=4 k/b="},
		{"", "k0", all, "z=6"},
		{"", "z", all, ""},
		{"", "", 1, "a=0"},
		{"k/", "", 2, "k/=2 k/a=3"},
		{"k/", "k/a", 1, "k/a/x=4"},
	}
)

func checkScans(t *testing.T, r store.Reader) {
	t.Helper()
	for _, c := range scans {
		got := scan(t, r, c.prefix, c.after, c.limit)
		require.Equal(t, strings.Fields(c.want), got, "prefix %q, after %q, limit %d", c.prefix, c.after, c.limit)
	}
}

func testScan(t *testing.T, s store.Store) {
	put(t, s, scanRecords...)
	view(t, s, func(r store.Reader) {
		checkScans(t, r)
		require.NoError(t, r.Scan("k", "", func(key string, value []byte) bool {
			require.Equal(t, string(value), get(t, r, key), "Get inside Scan")
			return true
		}))
	})
}

// testScanOwnWrites reaches the same records by writing different parts of them in the transaction that scans.
func testScanOwnWrites(t *testing.T, s store.Store) {
	errUndo := errors.New("undo")
	for part := range 1 << len(scanRecords) {
		if part%5 != 0 && part != 1<<len(scanRecords)-1 {
			continue
		}
		// Records outside the part are there before, together with others that the transaction removes or replaces.
		update(t, s, func(tx store.Txn) {
			for i, record := range scanRecords {
				if part&(1<<i) == 0 {
					putIn(t, tx, record)
				} else {
					key, _, _ := strings.Cut(record, "=")
					putIn(t, tx, key+"=old")
				}
			}
			putIn(t, tx, "+=extra", "k/a/=extra", "k/b/=extra", "zz=extra")
		})
		err := s.Update(t.Context(), func(tx store.Txn) error {
			for _, key := range []string{"+", "k/a/", "k/b/", "zz"} {
				require.NoError(t, tx.Delete(key))
			}
			for i, record := range scanRecords {
				if part&(1<<i) != 0 {
					putIn(t, tx, record)
				}
			}
			checkScans(t, tx)
			return errUndo
		})
		require.ErrorIs(t, err, errUndo)
	}
}

// model is what a store should hold.
type model map[string]string

func (m model) scan(prefix, after string, limit int) []string {
	got := []string{}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if strings.HasPrefix(key, prefix) && key > after && len(got) < limit {
			got = append(got, key+"="+m[key])
		}
	}
	return got
}

// randomTxn makes the same random reads and writes in tx and in m, and checks that they agree. It returns the
// changes, and whether to commit them.
func randomTxn(t *testing.T, rnd *rand.Rand, tx store.Txn, m model) (changes []store.Change, commit bool) {
	before, touched := maps.Clone(m), map[string]bool{}
	key := func(shortest int) string {
		letters := make([]byte, shortest+rnd.IntN(4))
		for i := range letters {
			letters[i] = "\x00ab\xff"[rnd.IntN(4)]
		}
		return string(letters)
	}
	for range 1 + rnd.IntN(12) {
		k := key(1)
		switch rnd.IntN(3) {
		case 0:
			delete(m, k)
			require.NoError(t, tx.Delete(k))
		default:
			m[k] = strings.Repeat("v", rnd.IntN(3)) + strconv.Itoa(rnd.IntN(100))
			require.NoError(t, tx.Put(k, []byte(m[k])))
		}
		touched[k] = true
		prefix, after, limit := key(0), key(0), 1+rnd.IntN(30)
		require.Equal(t, m.scan(prefix, after, limit), scan(t, tx, prefix, after, limit), "%q %q %d", prefix, after, limit)
	}
	for _, k := range slices.Sorted(maps.Keys(touched)) {
		_, was := before[k]
		if value, is := m[k]; is {
			changes = append(changes, store.Change{Key: k, Value: []byte(value)})
		} else if was {
			changes = append(changes, store.Change{Key: k, Deleted: true})
		}
	}
	return changes, rnd.IntN(5) > 0
}

func testModel(t *testing.T, s store.Store) {
	errUndo := errors.New("undo")
	w := watch(t, s, "")
	m := model{}
	for seed := range uint64(150) {
		var after model
		var changes []store.Change
		err := s.Update(t.Context(), func(tx store.Txn) error {
			after = maps.Clone(m)
			var commit bool
			changes, commit = randomTxn(t, rand.New(rand.NewPCG(seed, 0)), tx, after)
			if !commit {
				return errUndo
			}
			return nil
		})
		if err == nil {
			m = after
			if len(changes) > 0 {
				require.Equal(t, changes, w.next(t), "seed %d", seed)
			}
		} else {
			require.ErrorIs(t, err, errUndo)
		}
		require.Equal(t, m.scan("", "", all), dump(t, s), "seed %d", seed)
	}
	require.NotEmpty(t, m)
}
