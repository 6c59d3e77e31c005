package bolt

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"hsmkms/store"
)

func put(t testing.TB, s *Store, key, value string) {
	t.Helper()
	require.NoError(t, s.Update(t.Context(), func(tx store.Txn) error { return tx.Put(key, []byte(value)) }))
}

func get(t testing.TB, s *Store, key string) (value string) {
	t.Helper()
	require.NoError(t, s.View(t.Context(), func(r store.Reader) error {
		v, _, err := r.Get(key)
		value = string(v)
		return err
	}))
	return value
}

func TestOpenMakesOnlyTheFile(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, Config{Path: filepath.Join(dir, "store.db")})
	put(t, s, "k", "v")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	info, err := entries[0].Info()
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	require.False(t, s.db.NoSync, "each commit is flushed")
}

func TestOpenInEmptyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	s := openTest(t, Config{Path: path})
	put(t, s, "k", "v")
	require.Equal(t, "v", get(t, s, "k"))
}

func TestOpenRefuses(t *testing.T) {
	bboltFile := func(bucket string) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			db, err := bbolt.Open(path, 0o600, nil)
			require.NoError(t, err)
			require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
				_, err := tx.CreateBucket([]byte(bucket))
				return err
			}))
			require.NoError(t, db.Close())
		}
	}
	text := func(length int) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path, make([]byte, length), 0o600))
		}
	}
	cases := []struct {
		name string
		make func(t *testing.T, path string)
		want error
	}{
		{"another program's bbolt file", bboltFile("users"), ErrForeign},
		{"a later version's file", bboltFile("hsmkms.records.2"), ErrForeign},
		{"a long file of something else", text(100_000), ErrForeign},
		{"a short file of something else", text(100), ErrForeign},
		{"a directory", func(t *testing.T, path string) { require.NoError(t, os.Mkdir(path, 0o700)) }, nil},
		{"a dangling link", func(t *testing.T, path string) { require.NoError(t, os.Symlink("nowhere/x", path)) }, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			c.make(t, path)
			before, _ := os.ReadFile(path)
			_, err := Open(Config{Path: path})
			require.ErrorContains(t, err, path)
			if c.want != nil {
				require.ErrorIs(t, err, c.want)
			}
			after, _ := os.ReadFile(path)
			require.Equal(t, before, after, "a refused file stays as it was")
		})
	}
	_, err := Open(Config{Path: filepath.Join(t.TempDir(), "missing", "store.db")})
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = Open(Config{})
	require.Error(t, err)
}

func TestOpenInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := openTest(t, Config{Path: path})
	_, err := Open(Config{Path: path})
	require.ErrorIs(t, err, ErrInUse)

	cmd, out := child(t, "open", path)
	text, code := finish(t, cmd, out)
	require.Equal(t, exitInUse, code)
	require.Equal(t, "opening store "+path+": file is in use by another process\n", text)

	require.NoError(t, s.Close())
	cmd, out = child(t, "open", path)
	_, code = finish(t, cmd, out)
	require.Zero(t, code)
}

func TestOpenWaitsForTimeout(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := openTest(t, Config{Path: path})
	put(t, s, "k", "v")
	opened := make(chan error)
	go func() {
		second, err := Open(Config{Path: path, Timeout: time.Hour})
		if err == nil {
			err = second.Close()
		}
		opened <- err
	}()
	require.NoError(t, s.Close())
	require.NoError(t, <-opened)
}

// TestOpenTogether has many make the same file: one gets it, and none loses what that one writes.
func TestOpenTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	stores, errs := make([]*Store, 12), make([]error, 12)
	var wg sync.WaitGroup
	for i := range stores {
		wg.Go(func() { stores[i], errs[i] = Open(Config{Path: path}) })
	}
	wg.Wait()
	var winner *Store
	for i, s := range stores {
		if errs[i] != nil {
			require.ErrorIs(t, errs[i], ErrInUse)
			continue
		}
		require.Nil(t, winner, "two have the file")
		winner = s
	}
	require.NotNil(t, winner)
	put(t, winner, "k", "v")
	require.NoError(t, winner.Close())
	require.Equal(t, "v", get(t, openTest(t, Config{Path: path}), "k"))
}
