// Package bolt keeps the records of a store.Store in one bbolt file: for one server that needs no other.
//
// The file is a B+tree with one bucket of records. Any number of Views read it at a time, each its own snapshot, and
// none waits for a writer. One transaction at a time writes; those that wait for their turn share a commit with the one
// before them (see group), so that many writers at once cost one flush of the disk and not one each. After a commit its
// changes go to the watches (see hub) in the same order.
//
// bbolt shows a commit to new Views an instant before the disk confirms it. A crash of the machine in that instant can
// lose a change that was read but not acknowledged; a crash of the process cannot.
package bolt

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"hsmkms/store"
)

// Config says where a Store is and how it behaves. Path is required.
type Config struct {
	// Path names the file. Open creates it, with mode 0600, in a directory that must exist.
	Path string
	// Timeout is how long Open waits for another process to release the file, in steps of about 50 milliseconds;
	// zero tries once.
	Timeout time.Duration
	// WatchBuffer is the number of transactions by which a Watch may be behind before it ends with store.ErrLagged;
	// zero means 1024. Their values stay in memory until the watch has handled them.
	WatchBuffer int
}

const defaultWatchBuffer = 1024

// Store is a store.Store in one file. Make it with Open.
type Store struct {
	db    *bbolt.DB
	turns turns
	open  *group // not nil between the first turn of a group and its commit; for who has the turn
	hub   hub

	// life ends with the store: its cause is what methods return from then on.
	life context.Context
	end  context.CancelCauseFunc

	closed   atomic.Bool           // Close was called
	commitTx func(*bbolt.Tx) error // (*bbolt.Tx).Commit, but in tests of its failures
}

var _ store.Store = (*Store)(nil)

// Open opens the file of cfg.Path for this process alone, and creates it if it does not exist. The error wraps
// ErrInUse if another process, or another Store of this one, has the file open, and ErrForeign if the file is not a
// store of this package.
func Open(cfg Config) (*Store, error) {
	db, err := openFile(cfg)
	if err != nil {
		return nil, fmt.Errorf("opening store %s: %w", cfg.Path, err)
	}
	if cfg.WatchBuffer <= 0 {
		cfg.WatchBuffer = defaultWatchBuffer
	}
	life, end := context.WithCancelCause(context.Background())
	return &Store{
		db:       db,
		hub:      hub{buffer: cfg.WatchBuffer, watchers: map[*watcher]struct{}{}},
		life:     life,
		end:      end,
		commitTx: (*bbolt.Tx).Commit,
	}, nil
}

// alive returns nil if a call with this ctx may begin, and its error otherwise.
func (s *Store) alive(ctx context.Context) error {
	if s.life.Err() != nil {
		return context.Cause(s.life)
	}
	return ctx.Err()
}

// View implements store.Store. It never waits for a commit while the file is smaller than 1 GiB; beyond that, the
// commits that extend the memory map wait for running Views, and new Views for them.
func (s *Store) View(ctx context.Context, fn func(store.Reader) error) error {
	if err := s.alive(ctx); err != nil {
		return err
	}
	err := s.db.View(func(tx *bbolt.Tx) error {
		return fn(reader{tx.Bucket(records)})
	})
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return store.ErrClosed
	}
	return err
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, prefix string, ready func(), fn func([]store.Change) error) error {
	if err := s.alive(ctx); err != nil {
		return err
	}
	w := s.hub.add(prefix)
	defer s.hub.remove(w)
	if ready != nil {
		ready()
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.life.Done():
			return context.Cause(s.life)
		case changes, more := <-w.feed:
			if !more {
				return store.ErrLagged
			}
			// select picks at random among what is ready: nothing is delivered after the end.
			if err := s.alive(ctx); err != nil {
				return err
			}
			if err := fn(own(changes)); err != nil {
				return err
			}
		}
	}
}

// Close implements store.Store. An Update that still waits for its turn returns store.ErrClosed.
func (s *Store) Close() error {
	s.end(store.ErrClosed)
	if !s.closed.CompareAndSwap(false, true) {
		return store.ErrClosed
	}
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("closing store: %w", err)
	}
	return nil
}
