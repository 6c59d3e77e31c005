package kms

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"hsmkms/store"
)

const usagePrefix = "usage/"

const (
	// flushInterval is how often last uses are written: after a kill they are behind by at most this, the time that the
	// writing takes, and a pause or two of retryWait if the store failed.
	flushInterval = 20 * time.Second
	// lastFlush bounds the writing at the end.
	lastFlush = 15 * time.Second
)

// usage is the record of the last successful cryptographic operation with a key.
type usage struct {
	Operation string    `json:"operation"`
	At        time.Time `json:"at"`
	RequestID string    `json:"requestId,omitempty"`
	// EventID is that of the key's account in the audit trail.
	EventID string `json:"eventId,omitempty"`
}

// usedKey names a key among all Regions.
type usedKey struct{ region, id string }

func (k usedKey) record() string { return usagePrefix + k.region + "/" + k.id }

// uses are the last uses of keys that were not written yet: about 300 bytes for each key that was used since the last
// flush.
type uses struct {
	s *Service
	// every is flushInterval.
	every time.Duration

	mu sync.Mutex
	// fresh has the uses since the last flush began, flushing those that it has not written yet.
	fresh, flushing map[usedKey]usage
}

func newUses(s *Service) *uses {
	return &uses{s: s, every: flushInterval, fresh: map[usedKey]usage{}, flushing: map[usedKey]usage{}}
}

// used takes note of a successful cryptographic operation with a key, which was no dry run.
func (u *uses) used(r *Request, key *Key) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.fresh[usedKey{key.Region, key.ID}] = usage{r.Operation, u.s.cfg.Clock().UTC(), r.ID, r.event(key.Account)}
}

// last gives the last use of a key that this server or the store knows of; a zero one if there is none. A use by another
// server is known when that has flushed.
func (u *uses) last(ctx context.Context, key *Key) (usage, error) {
	name := usedKey{key.Region, key.ID}
	own := u.unwritten(name) // before the store: what is flushed in between is in both
	var written *usage
	err := u.s.cfg.Store.View(ctx, func(r store.Reader) (err error) {
		written, err = read[usage](r, name.record())
		return err
	})
	if err == nil && written != nil && written.At.After(own.At) {
		own = *written
	}
	return own, err
}

func (u *uses) unwritten(name usedKey) usage {
	u.mu.Lock()
	defer u.mu.Unlock()
	if use, ok := u.fresh[name]; ok {
		return use
	}
	return u.flushing[name]
}

func (u *uses) forget(name usedKey) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.fresh, name)
	delete(u.flushing, name)
}

// keep writes the uses from time to time until ctx ends, and then once more.
func (u *uses) keep(ctx context.Context) {
	wait := u.every
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(wait):
			wait = u.every
			if u.s.tell("writing the last uses of keys", u.flush(ctx)) {
				wait = min(wait, retryWait)
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastFlush)
	defer cancel()
	u.s.tell("writing the last uses of keys", u.flush(ctx))
}

// flush writes the uses so far. What it cannot write stays for the next time.
func (u *uses) flush(ctx context.Context) error {
	// In the order of the records, so that the writes of a batch are near to each other.
	names := u.begin()
	for batch := range slices.Chunk(names, store.MaxTxnKeys) {
		if err := u.write(ctx, batch); err != nil {
			return err
		}
		u.written(batch)
	}
	return nil
}

// begin moves the fresh uses among those to be written, and gives the names of all of these.
func (u *uses) begin() []usedKey {
	u.mu.Lock()
	if len(u.flushing) == 0 {
		u.flushing = u.fresh
	} else { // the last flush failed
		maps.Copy(u.flushing, u.fresh)
	}
	u.fresh = map[usedKey]usage{}
	names := make([]usedKey, 0, len(u.flushing))
	for name := range u.flushing {
		names = append(names, name)
	}
	u.mu.Unlock()
	slices.SortFunc(names, func(a, b usedKey) int { return cmp.Or(cmp.Compare(a.region, b.region), cmp.Compare(a.id, b.id)) })
	return names
}

// write writes the uses of some keys, but not of keys that are gone, and not over later uses by another server.
func (u *uses) write(ctx context.Context, names []usedKey) error {
	batch := make([]usage, len(names))
	u.mu.Lock()
	for i, name := range names {
		batch[i] = u.flushing[name]
	}
	u.mu.Unlock()
	return u.s.update(ctx, func(t *recorder) error {
		for i, name := range names {
			if _, found, err := t.Get(keyRecord(name.region, name.id)); err != nil {
				return err
			} else if !found {
				continue
			}
			before, err := read[usage](t, name.record())
			if err != nil {
				return err
			}
			if before != nil && !batch[i].At.After(before.At) {
				continue
			}
			if err := t.put(name.record(), batch[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (u *uses) written(names []usedKey) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, name := range names {
		delete(u.flushing, name)
	}
}
