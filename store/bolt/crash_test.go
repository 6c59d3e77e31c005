package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"hsmkms/store"
)

const crashWriters = 6

// commitForEver counts upwards with several writers, and prints "writer count" when a count is committed.
func commitForEver(path string) error {
	s, err := Open(Config{Path: path, Timeout: time.Minute})
	if err != nil {
		return err
	}
	errs := make([]error, crashWriters)
	var wg sync.WaitGroup
	for writer := range crashWriters {
		wg.Go(func() {
			for errs[writer] == nil {
				errs[writer] = commitNext(s, writer)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// commitNext adds one to the count of a writer, in two records that belong together, and prints it. Values of many
// sizes, and deletions, make the tree grow and shrink.
func commitNext(s *Store, writer int) error {
	count := 0
	err := s.Update(context.Background(), func(tx store.Txn) error {
		old, _, err := tx.Get(fmt.Sprint("count/", writer))
		if err != nil {
			return err
		}
		count, _ = strconv.Atoi(string(old)) // 0 for none
		count++
		value := strconv.AppendInt(nil, int64(count), 10)
		return errors.Join(
			tx.Put(fmt.Sprint("count/", writer), value),
			tx.Put(fmt.Sprintf("fill/%d/%d", writer, count), bytes.Repeat([]byte{'x'}, count%50*100)),
			tx.Delete(fmt.Sprintf("fill/%d/%d", writer, count-20)),
			tx.Put(fmt.Sprint("twin/", writer), value),
		)
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(os.Stdout, "%d %d\n", writer, count)
	return err
}

// TestKill kills a process that commits, many times at different moments, the first ones while it makes the file.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	acknowledged := make([]int, crashWriters)
	for _, lines := range []int{0, 0, 0, 1, 2, 3, 5, 8, 13, 50, 100, 200, 400} {
		cmd, out := child(t, "commit", path)
		var read strings.Builder
		for range lines {
			line, err := out.ReadString('\n')
			require.NoError(t, err)
			read.WriteString(line)
		}
		require.NoError(t, cmd.Process.Kill())
		rest, code := finish(t, cmd, out)
		require.Equal(t, -1, code, "killed, not exited")
		read.WriteString(rest)
		for line := range strings.Lines(read.String()) {
			var writer, count int
			_, err := fmt.Sscanf(line, "%d %d\n", &writer, &count)
			require.NoError(t, err)
			acknowledged[writer] = count
		}
		checkCounts(t, path, acknowledged)
	}
}

// checkCounts opens the store of a killed process. A writer may have committed once more than it has printed.
func checkCounts(t *testing.T, path string, acknowledged []int) {
	t.Helper()
	s, err := Open(Config{Path: path})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	require.NoError(t, s.View(t.Context(), func(r store.Reader) error {
		for writer, count := range acknowledged {
			value, _, err := r.Get(fmt.Sprint("count/", writer))
			require.NoError(t, err)
			twin, _, err := r.Get(fmt.Sprint("twin/", writer))
			require.NoError(t, err)
			require.Equal(t, value, twin, "all or nothing")
			got, _ := strconv.Atoi(string(value))
			require.Contains(t, []int{count, count + 1}, got, "writer %d", writer)
			acknowledged[writer] = got
		}
		return nil
	}))
	require.NoError(t, s.db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			return err
		}
		return nil
	}))
}
