package bolt

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/store"
)

const benchRecords = 10_000

func benchKey(i int) string { return fmt.Sprintf("key/%06d", i) }

// benchStore returns a store with records of 1 KiB.
func benchStore(b *testing.B) *Store {
	s := openTest(b, Config{})
	for first := 0; first < benchRecords; first += store.MaxTxnKeys {
		require.NoError(b, s.Update(b.Context(), func(tx store.Txn) error {
			for i := range store.MaxTxnKeys {
				if err := tx.Put(benchKey(first+i), make([]byte, 1024)); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	b.ReportAllocs()
	b.ResetTimer()
	return s
}

// BenchmarkGet reads one random record in a View.
func BenchmarkGet(b *testing.B) {
	s := benchStore(b)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			key := benchKey(rand.IntN(benchRecords))
			_ = s.View(b.Context(), func(r store.Reader) error {
				_, found, err := r.Get(key)
				if !found || err != nil {
					b.Error(found, err)
				}
				return nil
			})
		}
	})
}

// BenchmarkScan reads 100 records from a random place on.
func BenchmarkScan(b *testing.B) {
	s := benchStore(b)
	for b.Loop() {
		n, after := 0, benchKey(rand.IntN(benchRecords-100))
		_ = s.View(b.Context(), func(r store.Reader) error {
			return r.Scan("key/", after, func(string, []byte) bool { n++; return n < 100 })
		})
	}
}

// BenchmarkUpdate changes one random record durably, with so many writers at a time.
func BenchmarkUpdate(b *testing.B) {
	for _, writers := range []int{1, 8, 64} {
		b.Run(fmt.Sprint("writers=", writers), func(b *testing.B) {
			s := benchStore(b)
			commits := countCommits(s)
			var left atomic.Int64
			left.Store(int64(b.N))
			done := make(chan error, writers)
			for range writers {
				go func() {
					var err error
					for left.Add(-1) >= 0 && err == nil {
						key := benchKey(rand.IntN(benchRecords))
						err = s.Update(b.Context(), func(tx store.Txn) error { return tx.Put(key, make([]byte, 1024)) })
					}
					done <- err
				}()
			}
			for range writers {
				require.NoError(b, <-done)
			}
			b.ReportMetric(float64(b.N)/float64(commits.Load()), "txns/commit")
		})
	}
}
