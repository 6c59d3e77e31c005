package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// The collector of a small heap has little to do if the heap may grow further between collections than Go's default
// allows: that saves a tenth of the CPU time of a request and costs some megabytes. A large heap, of a server with a great
// many keys, would cost gigabytes so, and gets the default.
const (
	spareHeap      = 128 << 20
	mostPercent    = 400
	leastPercent   = 100
	collectorEvery = 2 * time.Second
)

// collectorPercent gives the GOGC for a heap of so many live bytes.
func collectorPercent(live uint64) int {
	return int(max(leastPercent, min(mostPercent, spareHeap*100/max(live, 1))))
}

// tuneCollector keeps the collector at that until ctx ends, unless the operator chose otherwise.
func tuneCollector(ctx context.Context) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	defer debug.SetGCPercent(debug.SetGCPercent(mostPercent))
	ticks := time.NewTicker(collectorEvery)
	defer ticks.Stop()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
			metrics.Read(live)
			debug.SetGCPercent(collectorPercent(live[0].Value.Uint64()))
		}
	}
}
