package kms

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hsmkms/hsm"
	"hsmkms/store"
)

// An import set is a wrapping key on the token with the import token that goes with it, as GetParametersForImport makes
// them. The records are:
//
//	import/<region>/<id>                           importSet
//	key-import/<region>/<key id>/<valid to>/<id>   nothing: the import sets of a key, oldest first
//
// The id is that of the wrapping key on the token, and the time is written as in schedule.go. A set ends when its time is
// over, when the key has too many of them, or with the key; its wrapping key is then destroyed like key material, see
// doom.go.
const (
	importPrefix    = "import/"
	keyImportPrefix = "key-import/"
)

const (
	// importValidity is how long an import set can be used.
	importValidity = 24 * time.Hour
	// maxImportSets is how many import sets a key may have; one more, and the oldest ends.
	maxImportSets = 10
)

func importRecord(region, id string) string { return importPrefix + region + "/" + id }

func keyImports(region, key string) string { return keyImportPrefix + region + "/" + key + "/" }

type importSet struct {
	Region string `json:"region"`
	// Key is the id of the KMS key that material may be imported into.
	Key string `json:"key"`
	// Pair is the wrapping key.
	Pair hsm.KeyRef `json:"pair"`
	// Wrap is how material must be encrypted.
	Wrap hsm.ImportWrap `json:"wrap"`
	// ValidTo is when the set ends, in whole milliseconds.
	ValidTo time.Time `json:"validTo"`
}

func (i *importSet) id() string { return string(i.Pair.ID) }

func (i *importSet) record() string { return importRecord(i.Region, i.id()) }

// keyEntry is the set's entry among those of its key.
func (i *importSet) keyEntry() string {
	return keyImports(i.Region, i.Key) + fmt.Sprintf("%015d/", i.ValidTo.UnixMilli()) + i.id()
}

func (i *importSet) dueEntry() string { return dueEntry(i.ValidTo, i.Region, dueImports, i.id()) }

// putImport writes a set, and ends the oldest ones of the key if it has too many.
func (t *recorder) putImport(set *importSet) error {
	sets, err := t.imports(set.Region, set.Key)
	if err != nil {
		return err
	}
	for ; len(sets) >= maxImportSets; sets = sets[1:] {
		if err := t.endImport(sets[0]); err != nil {
			return err
		}
	}
	if err := t.put(set.record(), set); err != nil {
		return err
	}
	if err := t.mark(set.keyEntry()); err != nil {
		return err
	}
	return t.mark(set.dueEntry())
}

// imports reads the sets of a key, oldest first.
func (t *recorder) imports(region, key string) ([]*importSet, error) {
	prefix := keyImports(region, key)
	var ids []string
	err := t.Scan(prefix, "", func(entry string, _ []byte) bool {
		ids = append(ids, entry[len(prefix)+len("000000000000000/"):])
		return true
	})
	if err != nil {
		return nil, err
	}
	sets := make([]*importSet, 0, len(ids))
	for _, id := range ids {
		set, err := read[importSet](t, importRecord(region, id))
		if err != nil {
			return nil, err
		}
		if set == nil {
			return nil, fmt.Errorf("import set %s of key %s has no record", id, key)
		}
		sets = append(sets, set)
	}
	return sets, nil
}

// endImport removes a set and dooms its wrapping key.
func (t *recorder) endImport(set *importSet) error {
	if err := t.removeImport(set); err != nil {
		return err
	}
	return t.doom(set.Region, set.id(), doom{Refs: []hsm.KeyRef{set.Pair}})
}

func (t *recorder) removeImport(set *importSet) error {
	for _, record := range []string{set.record(), set.keyEntry(), set.dueEntry()} {
		if err := t.remove(record); err != nil {
			return err
		}
	}
	return nil
}

// removeImports removes all sets of a key that ends, and gives their wrapping keys, which are to be destroyed with it.
func (t *recorder) removeImports(region, key string) ([]hsm.KeyRef, error) {
	sets, err := t.imports(region, key)
	if err != nil {
		return nil, err
	}
	var pairs []hsm.KeyRef
	for _, set := range sets {
		if err := t.removeImport(set); err != nil {
			return nil, err
		}
		pairs = append(pairs, set.Pair)
	}
	return pairs, nil
}

// endImportSet ends a set whose time is over; entry is what the schedule found it by.
func (s *Service) endImportSet(ctx context.Context, region, id, entry string) error {
	return s.update(ctx, func(t *recorder) error {
		set, err := read[importSet](t, importRecord(region, id))
		if err != nil {
			return err
		}
		if set == nil || set.dueEntry() != entry {
			return t.remove(entry)
		}
		if t.now.Before(set.ValidTo) {
			return nil // the clock was set back meanwhile
		}
		return t.endImport(set)
	})
}

// ownImports enters the wrapping keys of import sets.
func ownImports(r store.Reader, region string, owners map[hsm.KeyID]string) error {
	var bad error
	err := r.Scan(importRecord(region, ""), "", func(record string, value []byte) bool {
		var set *importSet
		if set, bad = decode[importSet](value); bad == nil {
			owners[set.Pair.ID] = record
		}
		return bad == nil
	})
	return errors.Join(err, bad)
}
