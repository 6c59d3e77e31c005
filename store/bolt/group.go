package bolt

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"hsmkms/store"
)

// maxGroup is the number of transactions that share a commit at most, so that the first does not wait for ever.
const maxGroup = 128

// group is a run of transactions that one commit of bbolt makes durable. Whoever writes passes the turn on as long
// as somebody waits for it, and the last commits for all. Nobody ever waits for company: a lone transaction commits
// at once, and a group is what has queued up during the commit before it.
//
// bbolt's own Batch does not keep the contract. It calls fn in another goroutine, runs the others again when one fails,
// does not heed ctx, and makes a lone transaction wait ten milliseconds for company. Here each fn runs once, in the
// goroutine of its caller, and its writes stay in its own txn until it has succeeded; so a failure or a panic in one
// leaves nothing to undo for the others.
//
// A member sees what earlier members wrote. Its answer, a failure of fn included, rests on those writes, so it is not
// given before they are durable, and not at all if they could not be committed.
//
// All fields but done and err are for the member that has the turn.
type group struct {
	tx      *bbolt.Tx
	bucket  *bbolt.Bucket
	members int
	commits [][]store.Change // of each member that changed something
	broken  error            // the writes of a member are in tx by half

	done chan struct{} // closed when err is final
	err  error
}

var (
	// errInterrupted is the outcome of a group whose commit panicked.
	errInterrupted = fmt.Errorf("%w: it was interrupted", store.ErrUncertain)
	// errDoubt is why a store closed itself.
	errDoubt = fmt.Errorf("%w: the disk did not confirm a commit", store.ErrClosed)
)

// Update implements store.Store. It calls fn once. When fn has returned, ctx has no more effect.
func (s *Store) Update(ctx context.Context, fn func(store.Txn) error) error {
	if err := s.alive(ctx); err != nil {
		return err
	}
	if err := s.turns.take(ctx, s.life); err != nil {
		return err
	}
	g, err := s.join()
	if err != nil {
		s.turns.release()
		return err
	}
	fnErr := s.runTurn(g, fn)
	<-g.done
	if g.err != nil {
		return g.err
	}
	return fnErr
}

// join returns the open group, and opens one if there is none. The caller has the turn.
func (s *Store) join() (*group, error) {
	if s.open == nil {
		if s.life.Err() != nil {
			return nil, context.Cause(s.life)
		}
		tx, err := s.db.Begin(true)
		if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
			return nil, store.ErrClosed
		}
		if err != nil {
			return nil, fmt.Errorf("beginning transaction: %w", err)
		}
		s.open = &group{tx: tx, bucket: tx.Bucket(records), done: make(chan struct{}), err: errInterrupted}
	}
	s.open.members++
	return s.open, nil
}

// runTurn calls fn and gives the turn away, even if fn panics or ends its goroutine.
func (s *Store) runTurn(g *group, fn func(store.Txn) error) error {
	defer s.endTurn(g)
	t := txn{reader: reader{g.bucket}}
	if err := fn(&t); err != nil {
		return err
	}
	g.broken = g.add(&t)
	return nil
}

// add moves the writes of t into the group, in key order.
func (g *group) add(t *txn) error {
	var changes []store.Change
	for _, key := range slices.Sorted(maps.Keys(t.writes)) {
		c := t.writes[key]
		var err error
		switch {
		case !c.Deleted:
			err = g.bucket.Put([]byte(key), c.Value)
		case g.bucket.Get([]byte(key)) != nil:
			err = g.bucket.Delete([]byte(key))
		default: // absent before and after
			continue
		}
		if err != nil {
			return fmt.Errorf("writing record: %w", err)
		}
		changes = append(changes, c)
	}
	if len(changes) > 0 {
		g.commits = append(g.commits, changes)
	}
	return nil
}

// endTurn passes the turn on, or commits the group if nobody waits or it is full.
func (s *Store) endTurn(g *group) {
	if g.broken == nil && g.members < maxGroup && s.turns.pass() {
		return
	}
	defer s.turns.release()
	defer close(g.done)
	s.open = nil
	defer func() { _ = g.tx.Rollback() }() // does nothing after a commit
	g.err = g.broken
	if g.broken == nil && len(g.commits) > 0 {
		g.err = errInterrupted
		g.err = s.commit(g.tx)
	}
	if g.err == nil {
		s.hub.publish(g.commits)
	}
}

// commit commits tx and finds out what became of it if that fails.
//
// If the new root of the tree is not in the file, nothing was written, and the store goes on: a full disk is such a
// case. If it is there but the disk did not confirm it, the disk may hold this root or the one before, and no later
// commit can be made that is safe with both. The store closes itself then, for readers too: what they would see may be
// gone after a crash.
func (s *Store) commit(tx *bbolt.Tx) error {
	known := false
	defer func() {
		if !known {
			s.end(errDoubt)
		}
	}()
	id := tx.ID()
	err := s.commitTx(tx)
	if err == nil {
		known = true
		return nil
	}
	if last, viewErr := s.lastCommit(); viewErr == nil && last < id {
		known = true
		return fmt.Errorf("committing: %w", err)
	}
	return fmt.Errorf("%w: %w", store.ErrUncertain, err)
}

// lastCommit returns the ID of the last transaction whose root is in the file.
func (s *Store) lastCommit() (id int, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		id = tx.ID()
		return nil
	})
	return id, err
}
