package audit

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkEncode is the cost of building a record of a call, and of chaining it: JSON, number and hashes.
func BenchmarkEncode(b *testing.B) {
	v := reEncrypt(1)
	v.Recipients = []Recipient{{AccountID: accountA, EventID: "11111111-2222-4333-8444-555555555555"}}
	var out []byte
	last := Position{}
	b.ReportAllocs()
	for b.Loop() {
		p := getPending()
		if err := p.encode(v, nil); err != nil {
			b.Fatal(err)
		}
		out, last = appendLine(out[:0], p.buf, nil, last)
		putPending(p)
	}
	b.ReportMetric(float64(len(out)), "bytes/record")
}

// BenchmarkRecord is a call's whole way into a file, alone and from 64 goroutines at a time.
func BenchmarkRecord(b *testing.B) {
	for name, every := range map[string]time.Duration{"1s": time.Second, "always": SyncAlways} {
		for _, callers := range []int{1, 64} {
			b.Run(fmt.Sprintf("sync=%s/callers=%d", name, callers), func(b *testing.B) { benchmarkRecord(b, every, callers) })
		}
	}
}

func benchmarkRecord(b *testing.B, every time.Duration, callers int) {
	trail, err := New(b.Context(), Config{Dir: b.TempDir(), Sync: every})
	require.NoError(b, err)
	defer closeTrail(b, trail)
	b.ReportAllocs()
	b.ResetTimer()
	var group sync.WaitGroup
	for c := range callers {
		group.Go(func() {
			v := reEncrypt(c)
			v.Recipients = []Recipient{{AccountID: accountA, EventID: "11111111-2222-4333-8444-555555555555"}}
			for i := c; i < b.N; i += callers {
				if err := trail.Record(b.Context(), v); err != nil {
					b.Error(err)
				}
			}
		})
	}
	group.Wait()
}
