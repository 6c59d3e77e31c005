package iam

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"hsmkms/store"
)

const (
	// housekeeping is how often things are written down and cleared away.
	housekeeping = time.Minute
	// lastSave bounds the writing when the service ends.
	lastSave = 5 * time.Second
	// batch is how many records one transaction of housekeeping is about; see store.MaxTxnKeys.
	batch = 40
	// grace is how long the record of a session outlives it, so that the client learns that it has expired.
	grace = 24 * time.Hour
)

// keepHouse writes down when access keys were used and clears away sessions that have ended, until ctx ends.
func (s *Service) keepHouse(ctx context.Context) {
	tick := time.NewTicker(housekeeping)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
			s.tidy(ctx)
		case <-ctx.Done():
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastSave)
	defer cancel()
	s.report("writing down when access keys were used", s.saveUses(ctx))
}

func (s *Service) tidy(ctx context.Context) {
	s.report("writing down when access keys were used", s.saveUses(ctx))
	s.report("clearing away sessions that have ended", s.sweep(ctx))
}

func (s *Service) report(what string, err error) {
	if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, store.ErrClosed) {
		s.cfg.Log.Error(what, "error", err)
	}
}

// saveUses writes down when access keys were last used. What cannot be written waits for the next use of the key.
func (s *Service) saveUses(ctx context.Context) error {
	var errs []error
	for some := range slices.Chunk(s.uses.unsaved(), batch) {
		errs = append(errs, s.cfg.Store.Update(ctx, func(t store.Txn) error { return putUses(t, some) }))
	}
	return errors.Join(errs...)
}

func putUses(t store.Txn, some []keyUse) error {
	for _, last := range some {
		_, found, err := t.Get(keyPrefix + last.id)
		if err == nil && found { // it may have been deleted
			err = put(t, usedPrefix+last.id, last.lastUse)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// expiryTime is the form of times in keys: their order is that of time.
const expiryTime = "20060102T150405Z"

// expiryRecord is the entry of a session among those that end.
func expiryRecord(key *credential) string {
	return expiryPrefix + key.Session.Expires.Add(grace).UTC().Format(expiryTime) + "/" + key.ID
}

// sweep removes the records of sessions whose time is over.
func (s *Service) sweep(ctx context.Context) error {
	now := s.cfg.Clock().UTC().Format(expiryTime)
	for {
		var over []string
		err := s.cfg.Store.View(ctx, func(r store.Reader) error {
			over = nil
			return r.Scan(expiryPrefix, "", func(key string, _ []byte) bool {
				at, _, _ := strings.Cut(strings.TrimPrefix(key, expiryPrefix), "/")
				if at > now || len(over) == batch {
					return false
				}
				over = append(over, key)
				return true
			})
		})
		if err != nil || len(over) == 0 {
			return err
		}
		if err := s.removeSessions(ctx, over); err != nil {
			return err
		}
	}
}

// removeSessions removes sessions by their entries among those that end.
func (s *Service) removeSessions(ctx context.Context, entries []string) error {
	return s.cfg.Store.Update(ctx, func(t store.Txn) error {
		for _, entry := range entries {
			for _, record := range []string{entry, keyPrefix + lastPart(entry)} {
				if err := t.Delete(record); err != nil {
					return err
				}
			}
		}
		return nil
	})
}
