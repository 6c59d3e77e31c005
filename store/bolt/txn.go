package bolt

import (
	"bytes"
	"slices"
	"strings"

	"go.etcd.io/bbolt"

	"hsmkms/store"
)

// reader reads the bucket of one transaction of bbolt.
type reader struct{ bucket *bbolt.Bucket }

// Get implements store.Reader.
func (r reader) Get(key string) (value []byte, found bool, err error) {
	value = r.bucket.Get([]byte(key))
	return value, value != nil, nil
}

// Scan implements store.Reader.
func (r reader) Scan(prefix, after string, fn func(key string, value []byte) bool) error {
	for c := r.seek(prefix, after); c.valid; c.next() {
		if !fn(c.key, c.value) {
			return nil
		}
	}
	return nil
}

// cursor stands on one record with the prefix, as long as it is valid.
type cursor struct {
	records *bbolt.Cursor
	prefix  []byte
	key     string
	value   []byte
	valid   bool
}

// seek returns a cursor on the first record that begins with prefix and is greater than after.
func (r reader) seek(prefix, after string) *cursor {
	c := &cursor{records: r.bucket.Cursor(), prefix: []byte(prefix)}
	start := c.prefix
	if after >= prefix {
		start = append([]byte(after), 0) // the next possible key
	}
	c.set(c.records.Seek(start))
	return c
}

func (c *cursor) next() { c.set(c.records.Next()) }

func (c *cursor) set(key, value []byte) {
	c.valid = key != nil && bytes.HasPrefix(key, c.prefix)
	if c.valid {
		c.key, c.value = string(key), value
	}
}

// txn keeps its writes apart from the bucket, and lays them over it when it reads. See group for the reason.
type txn struct {
	reader
	writes map[string]store.Change
	bytes  int // of the keys and values in writes
}

// Get implements store.Reader.
func (t *txn) Get(key string) (value []byte, found bool, err error) {
	if c, ok := t.writes[key]; ok {
		return c.Value, !c.Deleted, nil
	}
	return t.reader.Get(key)
}

// Scan implements store.Reader: it merges the own writes into the records of the bucket.
func (t *txn) Scan(prefix, after string, fn func(key string, value []byte) bool) error {
	written := t.written(prefix, after)
	c := t.seek(prefix, after)
	for c.valid || len(written) > 0 {
		if len(written) == 0 || c.valid && c.key < written[0] {
			if !fn(c.key, c.value) {
				return nil
			}
			c.next()
			continue
		}
		key := written[0]
		written = written[1:]
		if c.valid && c.key == key {
			c.next()
		}
		if w := t.writes[key]; !w.Deleted && !fn(key, w.Value) {
			return nil
		}
	}
	return nil
}

// written returns in order the written and removed keys that begin with prefix and are greater than after.
func (t *txn) written(prefix, after string) []string {
	var keys []string
	for key := range t.writes {
		if strings.HasPrefix(key, prefix) && key > after {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// Put implements store.Txn.
func (t *txn) Put(key string, value []byte) error {
	switch {
	case len(key) == 0 || len(key) > store.MaxKey:
		return store.ErrKeySize
	case len(value) > store.MaxValue:
		return store.ErrValueSize
	}
	// The copy is never nil: to bbolt, nil is no value.
	return t.write(store.Change{Key: key, Value: append([]byte{}, value...)})
}

// Delete implements store.Txn.
func (t *txn) Delete(key string) error {
	return t.write(store.Change{Key: key, Deleted: true})
}

func (t *txn) write(c store.Change) error {
	old, again := t.writes[c.Key]
	total := t.bytes - size(old) + size(c)
	if total > store.MaxTxnBytes || !again && len(t.writes) == store.MaxTxnKeys {
		return store.ErrTxnSize
	}
	if t.writes == nil {
		t.writes = map[string]store.Change{}
	}
	t.writes[c.Key] = c
	t.bytes = total
	return nil
}

func size(c store.Change) int { return len(c.Key) + len(c.Value) }
