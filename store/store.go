// Package store is the contract for keeping hsmkms's records: an ordered map from strings to small values, with
// serializable transactions and a feed of changes. Two shapes of database fit it without translation: an embedded
// B+tree file (store/bolt) and an etcd cluster. store/storetest holds the rules that each implementation must pass.
//
// Keys are any bytes and are ordered bytewise. Values are opaque, at most MaxValue bytes. Nothing here is secret by
// itself: key material arrives already wrapped by the token, credentials already encrypted under a key of the token.
package store

import (
	"context"
	"errors"
)

// Limits that every implementation keeps, so that a record written to one can be moved to another. They leave room
// in what an etcd server accepts without settings of its own: 128 operations and 1.5 MiB a transaction.
const (
	// MaxKey is the longest key in bytes; the shortest is 1.
	MaxKey = 1024
	// MaxValue is the largest value in bytes.
	MaxValue = 1 << 20
	// MaxTxnKeys is the number of keys that one transaction may write or remove, each counted once.
	MaxTxnKeys = 100
	// MaxTxnBytes is the largest sum of the lengths of the keys that one transaction writes or removes and of their
	// final values.
	MaxTxnBytes = 5 << 18
)

var (
	// ErrClosed is returned by every method of a store that was closed, or that closed itself because it can no
	// longer tell what it holds.
	ErrClosed = errors.New("store is closed")
	// ErrKeySize is returned by Put for a key that is empty or longer than MaxKey.
	ErrKeySize = errors.New("key is empty or too long")
	// ErrValueSize is returned by Put for a value longer than MaxValue.
	ErrValueSize = errors.New("value is too long")
	// ErrTxnSize is returned by Put and Delete when the transaction would exceed MaxTxnKeys or MaxTxnBytes.
	ErrTxnSize = errors.New("transaction is too large")
	// ErrUncertain is returned by Update when the commit began but could not be confirmed: the whole transaction was
	// committed, or nothing of it. After any other error of Update, nothing was.
	ErrUncertain = errors.New("outcome of the commit is uncertain")
	// ErrLagged ends a Watch whose reader fell behind: changes were lost, and the reader must read anew.
	ErrLagged = errors.New("watch fell behind")
)

// Store is an ordered map of records. All methods are safe for concurrent use. Errors may wrap those of this package
// and ctx.Err(): test them with errors.Is. A method whose ctx has ended calls no function.
type Store interface {
	// View calls fn with a consistent snapshot, in which is every Update that returned nil before View was called.
	// It does not wait for the fn of a running Update. fn must not keep the Reader, nor any byte slice it got from
	// it, beyond its return; it must not call the store; and it should be quick, since an open snapshot keeps old
	// records from being reclaimed and may hold up the growth of the store. The error of fn is returned unchanged.
	View(ctx context.Context, fn func(Reader) error) error

	// Update calls fn in a serializable read-write transaction and commits what it wrote, all or nothing, before it
	// returns nil: a committed change survives the death of the process and, on sound disks, of the machine. If fn
	// fails, nothing is written and its error is returned unchanged; if fn panics, nothing is written and the panic
	// goes on. fn may be called more than once (an implementation with optimistic concurrency retries it on
	// conflict), so it must have no effect but on the Txn and on variables that it sets anew each time. fn must not
	// call the store, nor keep the Txn or a byte slice it got from it beyond its return. If the store failed to commit
	// something that fn has read, Update returns that failure, whatever fn returned.
	Update(ctx context.Context, fn func(Txn) error) error

	// Watch calls fn with the changes of each transaction that commits after ready was called and touches a key with
	// the given prefix, in commit order, one call a transaction, one call at a time, until ctx ends (it returns
	// ctx.Err()), the store is closed (ErrClosed), fn fails (its error) or the watch fell behind (ErrLagged). ready,
	// if not nil, is called once when no later commit can be missed; commits between the call of Watch and ready may
	// be delivered, commits before the call of Watch are not. Changes committed by this very Store value are
	// delivered too.
	//
	// fn may call the store, and a View in it sees at least the transaction that fn was called with. A View may
	// be ahead of the watch, too: a cache that is loaded in a View after ready will be told again of changes that
	// it already holds, and between them of older values. To stay exact, it should drop what changed and read anew.
	Watch(ctx context.Context, prefix string, ready func(), fn func([]Change) error) error

	// Close ends all watches, waits for running transactions and releases the store. It does not wait for the fn of
	// a Watch. Later calls give ErrClosed. It must not be called in a transaction.
	Close() error
}

// Reader reads one consistent snapshot. It is for one goroutine.
type Reader interface {
	// Get returns the value under key, and false if there is none. The slice is valid until the transaction ends and
	// must not be changed.
	Get(key string) (value []byte, found bool, err error)

	// Scan calls fn for the records whose keys begin with prefix and are greater than after (pass "" to begin at the
	// first), in key order, until fn returns false. The value is valid until the transaction ends and must not be
	// changed. fn must not write.
	Scan(prefix, after string, fn func(key string, value []byte) (more bool)) error
}

// Txn is a Reader that can write, and that reads its own writes. It is for one goroutine. A Put or Delete that fails
// leaves the transaction as it was.
type Txn interface {
	Reader
	// Put sets the value under key. The store does not keep the slice after Put returns.
	Put(key string, value []byte) error
	// Delete removes key; removing an absent key is no error.
	Delete(key string) error
}

// Change is one key that a committed transaction wrote or removed. A key that a transaction touches several times is
// reported once, with its final value; a key that was absent before the transaction and is absent after it is not
// reported. The changes of a transaction come in key order.
type Change struct {
	Key string
	// Value is the new value; nil when the key was deleted. It belongs to the receiver of the change.
	Value []byte
	// Deleted tells a deletion from an empty value.
	Deleted bool
}
