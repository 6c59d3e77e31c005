package hsmtest

import "sync"

// crowd calls functions from many goroutines and keeps their failures. The zero value is ready for use.
type crowd struct {
	group    sync.WaitGroup
	mu       sync.Mutex
	failures []error
}

// start calls f so many times, one after the other, in a goroutine of its own that the first failure ends.
func (c *crowd) start(times int, f func(i int) error) {
	c.group.Go(func() {
		for i := range times {
			if err := f(i); err != nil {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.failures = append(c.failures, err)
				return
			}
		}
	})
}

// wait waits until all are done and gives the failures.
func (c *crowd) wait() []error {
	c.group.Wait()
	return c.failures
}
