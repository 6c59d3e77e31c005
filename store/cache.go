package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"
)

// Cache keeps decoded records, or what was made of several, in memory. What it gives is never older than the last change that this process committed
// and forgot (see Forget), and follows changes of other processes as fast as the store's watch does. It is safe for
// concurrent use.
type Cache[T any] struct {
	store  Store
	prefix string
	load   func(r Reader, key string) (T, bool, error)
	// stale says what a change of a record with the prefix makes stale: what is kept under a key, or all of it; "" for nothing.
	stale func(changed string) (key string, all bool)

	mu      sync.Mutex
	records *lru.LRU[string, T]
	// changes counts invalidations: a record that was read before one of them must not be kept.
	changes uint64
	// blind is set when Run has ended: nothing is kept any more.
	blind bool
}

// NewCache makes a cache of at most size records whose keys begin with prefix. decode must not keep its argument. Run
// must be running while the cache is in use.
func NewCache[T any](s Store, prefix string, size int, decode func([]byte) (T, error)) (*Cache[T], error) {
	load := func(r Reader, key string) (record T, found bool, err error) {
		value, found, err := r.Get(key)
		if err != nil || !found {
			return record, false, err
		}
		record, err = decode(value)
		return record, err == nil, err
	}
	return NewJoin(s, prefix, size, load, func(changed string) (string, bool) { return changed, false })
}

// NewJoin makes a cache of what load makes of several records in one snapshot of the store, under a key of its own choice.
// All the records that it reads have the prefix. stale is told of each of them that changes, and says what can no longer be
// kept: what load made for a key ("" for nothing), or all. Run must be running while the cache is in use.
func NewJoin[T any](s Store, prefix string, size int, load func(r Reader, key string) (T, bool, error),
	stale func(changed string) (key string, all bool)) (*Cache[T], error) {
	records, err := lru.NewLRU[string, T](size, nil)
	if err != nil {
		return nil, fmt.Errorf("making a record cache: %w", err)
	}
	return &Cache[T]{store: s, prefix: prefix, load: load, stale: stale, records: records}, nil
}

// Get gives the record under key, and false if there is none. The record is shared and must not be changed.
func (c *Cache[T]) Get(ctx context.Context, key string) (record T, found bool, err error) {
	c.mu.Lock()
	record, found = c.records.Get(key)
	changes := c.changes
	c.mu.Unlock()
	if found {
		return record, true, nil
	}
	return c.fill(ctx, key, changes)
}

// fill reads a record, and keeps it unless something has changed since changes was read. It is apart from Get, whose
// variables would otherwise be allocated for its closure.
func (c *Cache[T]) fill(ctx context.Context, key string, changes uint64) (record T, found bool, err error) {
	err = c.store.View(ctx, func(r Reader) error {
		record, found, err = c.load(r, key)
		return err
	})
	if err != nil || !found {
		return record, false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changes == changes && !c.blind {
		c.records.Add(key, record)
	}
	return record, true, nil
}

// Forget drops records after a change to them was committed; keys without the cache's prefix are passed over.
func (c *Cache[T]) Forget(keys ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range keys {
		if !strings.HasPrefix(key, c.prefix) {
			continue
		}
		stale, all := c.stale(key)
		if all || stale != "" {
			c.changes++
		}
		if all {
			c.records.Purge()
		}
		c.records.Remove(stale)
	}
}

// Run follows the store's changes until ctx ends or the store is closed, and returns why. From then on nothing is kept.
func (c *Cache[T]) Run(ctx context.Context) error {
	defer c.retire()
	for {
		err := c.store.Watch(ctx, c.prefix, c.purge, func(changes []Change) error {
			for _, change := range changes {
				c.Forget(change.Key)
			}
			return nil
		})
		if !errors.Is(err, ErrLagged) {
			return err
		}
	}
}

func (c *Cache[T]) retire() {
	c.mu.Lock()
	c.blind = true
	c.mu.Unlock()
	c.purge()
}

func (c *Cache[T]) purge() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes++
	c.records.Purge()
}
