package audit

import (
	"fmt"
	"sync"
	"syscall"
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
	spent := cpuTime(b)
	for b.Loop() {
		p := getPending()
		if err := p.encode(v, nil); err != nil {
			b.Fatal(err)
		}
		out, last = appendLine(out[:0], p.buf, nil, last)
		putPending(p)
	}
	reportCPU(b, spent)
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
	spent := cpuTime(b)
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
	reportCPU(b, spent)
}

// cpuTime is the processor time that this process has used, in user and system mode.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// reportCPU reports the processor time of an operation, which other processes on the machine do not change.
func reportCPU(b *testing.B, since time.Duration) {
	b.Helper()
	b.ReportMetric(float64(cpuTime(b)-since)/float64(b.N), "cpu-ns/op")
}
