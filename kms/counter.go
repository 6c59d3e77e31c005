package kms

import (
	"context"
	"sync/atomic"
)

// gate lets one in at a time, and those who wait may give up.
type gate chan struct{}

func newGate() gate { return make(gate, 1) }

func (g gate) enter(ctx context.Context) error {
	select {
	case g <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g gate) leave() { <-g }

// counter is what this server has of a material's encryptions.
type counter struct {
	// left are encryptions that are in the count and were not made yet.
	left atomic.Int64
	// gate guards the getting of more, and opened.
	gate gate
	// opened tells that the free ones were given.
	opened bool
	// exhausted tells that there will never be more.
	exhausted atomic.Bool
}

// take takes one encryption, if there is one.
func (c *counter) take() bool {
	for {
		left := c.left.Load()
		if left <= 0 {
			return false
		}
		if c.left.CompareAndSwap(left, left-1) {
			return true
		}
	}
}
