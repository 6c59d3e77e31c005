package kms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"hsmkms/hsm"
	"hsmkms/store"
)

// What is destroyed goes in an order that a crash cannot break: first one transaction takes it out of the records, so
// that nothing can use it any more, and writes its doom; then it is destroyed on the token; then the doom is removed.
// Whoever finds a doom completes it, any number of times.
const doomedPrefix = "doomed/"

// doom is the record of what is to be destroyed.
type doom struct {
	// Refs name key materials to destroy on the token. They hold no wrapped material: that is gone already.
	Refs []hsm.KeyRef `json:"refs,omitempty"`
	// Key is the id of a deleted key whose aliases and other records are to be removed too; empty if there is none.
	Key string `json:"key,omitempty"`
	// Account is that key's.
	Account string `json:"account,omitempty"`
	// Meters are the ids of materials whose counts are to be removed.
	Meters []string `json:"meters,omitempty"`
}

// doomName names a doom.
type doomName struct{ region, id string }

func (n doomName) record() string { return doomedPrefix + n.region + "/" + n.id }

// doom writes a doom. Its id must name nothing else for ever: the id of a key or of a material on the token.
func (t *recorder) doom(region, id string, d doom) error {
	refs := make([]hsm.KeyRef, len(d.Refs))
	for i, ref := range d.Refs {
		refs[i] = hsm.KeyRef{ID: ref.ID, Kind: ref.Kind}
	}
	d.Refs = refs
	name := doomName{region, id}
	t.doomed = append(t.doomed, name)
	return t.put(name.record(), d)
}

// ownDooms enters the materials that wait for their destruction. Nobody misses those that are gone already.
func ownDooms(r store.Reader, region string, owners map[hsm.KeyID]string) error {
	var bad error
	prefix := doomName{region, ""}.record()
	err := r.Scan(prefix, "", func(_ string, value []byte) bool {
		var d *doom
		if d, bad = decode[doom](value); bad != nil {
			return false
		}
		for _, ref := range d.Refs {
			owners[ref.ID] = nobody
		}
		return true
	})
	return errors.Join(err, bad)
}

// reap completes all dooms that it can, and tells whether none is left. A token that is out of reach is asked once.
func (s *Service) reap(ctx context.Context) (done bool) {
	away := map[string]bool{} // by Region
	return s.each(ctx, "destroying key material", doomedPrefix, "", func(ctx context.Context, record string) error {
		region, id, _ := strings.Cut(strings.TrimPrefix(record, doomedPrefix), "/")
		if away[region] {
			return nil
		}
		err := s.complete(ctx, doomName{region, id})
		away[region] = outOfReach(err)
		return err
	})
}

// outOfReach tells whether an error is the whole token's, not one key's.
func outOfReach(err error) bool {
	switch hsm.ClassOf(err) {
	case hsm.TokenGone, hsm.SessionDead, hsm.Busy, hsm.LoginFailed:
		return true
	}
	return false
}

// completeNow carries out the dooms that a request wrote, before it answers. What fails is left to the schedule.
func (s *Service) completeNow(ctx context.Context, key *Key, doomed []doomName) {
	for _, name := range doomed {
		if err := s.complete(ctx, name); err != nil {
			s.cfg.Log.Error("destroying what a key no longer has; the schedule will", "key", key.ARN(), "doom", name.id, "error", err)
		}
	}
}

// complete carries a doom out. Two servers may do so at the same time; within one, the schedule, which wakes up at every
// doom, does not repeat what a request is doing: to look in vain for an object costs some tokens a search of all they have.
func (s *Service) complete(ctx context.Context, name doomName) error {
	region, ok := s.cfg.Regions[name.region]
	if !ok {
		return nil // of a Region that another server serves
	}
	if err := s.reaping[name.region].enter(ctx); err != nil {
		return fmt.Errorf("waiting to destroy: %w", err)
	}
	defer s.reaping[name.region].leave()
	var d *doom
	err := s.cfg.Store.View(ctx, func(r store.Reader) (err error) {
		d, err = read[doom](r, name.record())
		return err
	})
	if err != nil || d == nil {
		return err
	}
	if d.Key != "" { // before the token is asked, which may be away: the names are free from the moment the key is deleted
		if err := s.removeAliases(ctx, name.region, d); err != nil {
			return err
		}
		if err := s.removeGrants(ctx, name.region, d.Key); err != nil {
			return err
		}
	}
	for i, ref := range d.Refs {
		if err := region.Token.DestroyKey(ctx, ref); err != nil {
			return errors.Join(err, s.shorten(ctx, name, d.Refs[:i]))
		}
		s.cfg.Log.Info("destroyed key material on the token", "region", name.region, "material", ref.ID)
	}
	if err := s.meter.remove(ctx, name.region, d); err != nil {
		return err
	}
	err = s.update(ctx, func(t *recorder) error { return t.remove(name.record()) })
	if err == nil && d.Key != "" {
		s.cfg.Log.Info("deleted key, nothing of it is left", "region", name.region, "key", d.Key)
	}
	return err
}

// shorten takes what is destroyed out of a doom that could not be completed. Otherwise a doom of many keys might never be: each
// time would begin with looking for what is gone, on a token that is slow at that, or fails at every so many calls.
func (s *Service) shorten(ctx context.Context, name doomName, gone []hsm.KeyRef) error {
	if len(gone) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), discardTimeout)
	defer cancel()
	return s.update(ctx, func(t *recorder) error {
		d, err := read[doom](t, name.record())
		if err != nil || d == nil { // another server has completed it
			return err
		}
		d.Refs = slices.DeleteFunc(d.Refs, func(ref hsm.KeyRef) bool {
			return slices.ContainsFunc(gone, func(g hsm.KeyRef) bool { return g.ID == ref.ID })
		})
		return t.put(name.record(), d)
	})
}

// removeAliases removes the aliases of a deleted key that still point at it.
func (s *Service) removeAliases(ctx context.Context, region string, d *doom) error {
	index := keyAliases(region, d.Key)
	for {
		entries, err := s.some(ctx, index, "", "", aliasesAtOnce)
		if err != nil || len(entries) == 0 {
			return err
		}
		err = s.update(ctx, func(t *recorder) error {
			for _, entry := range entries {
				if err := t.removeAlias(aliasRecords(d.Account, region)+strings.TrimPrefix(entry, index), d.Key, entry); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}

// aliasesAtOnce is how many aliases a transaction removes: each takes two records.
const aliasesAtOnce = store.MaxTxnKeys / 4

// removeAlias removes an entry of a key's index of aliases, and the alias if it still points at the key.
func (t *recorder) removeAlias(record, keyID, entry string) error {
	alias, err := read[Alias](t, record)
	if err != nil {
		return err
	}
	if alias != nil && alias.KeyID == keyID {
		if err := t.remove(record); err != nil {
			return err
		}
	}
	return t.remove(entry)
}
