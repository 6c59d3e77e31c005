package kms

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// makings are what this server is making on its tokens: objects that are there, or may be at any moment, and whose records
// are still to be written. Each has a channel that is closed when it is over.
type makings struct {
	mu    sync.Mutex
	under map[chan struct{}]bool
}

func newMakings() *makings { return &makings{under: map[chan struct{}]bool{}} }

// begin takes note of a making, before the token is asked. The caller calls over when the record is written, or the object
// destroyed.
func (m *makings) begin() (over func()) {
	making := make(chan struct{})
	m.mu.Lock()
	defer m.mu.Unlock()
	m.under[making] = true
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.under, making)
		close(making)
	}
}

// wait waits until all is over that has begun by now. It holds nothing up.
func (m *makings) wait(ctx context.Context) error {
	m.mu.Lock()
	under := slices.Collect(maps.Keys(m.under))
	m.mu.Unlock()
	for _, making := range under {
		select {
		case <-making:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
