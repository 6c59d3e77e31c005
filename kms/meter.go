package kms

import (
	"context"
	"slices"
	"sync"

	"hsmkms/store"
)

// The meter counts what is done with keys, without a write a request. Its records are:
//
//	system/free                      allowance: the free encryptions of all runs, see budget.go
//	count/<region>/<material id>     count: the encryptions reserved under a material, see budget.go
//	usage/<region>/<key id>          usage: the last use of a key, see usage.go
//
// The last two come into being when there is something to write, and go with their key.
type meter struct {
	*budget
	*uses
	s *Service
}

func newMeter(s *Service) *meter { return &meter{budget: newBudget(s), uses: newUses(s), s: s} }

// run rotates keys whose material has encrypted as often as it should and writes the last uses of keys, until ctx ends,
// and then writes those once more.
func (m *meter) run(ctx context.Context) {
	var rotating sync.WaitGroup
	defer rotating.Wait()
	rotating.Go(func() { m.rotate(ctx) })
	m.keep(ctx)
}

// remove removes what the meter knows of a deleted key.
func (m *meter) remove(ctx context.Context, region string, d *doom) error {
	var records []string
	for _, id := range d.Meters {
		name := materialName{region, id}
		m.budget.forget(name)
		records = append(records, name.record())
	}
	if d.Key != "" {
		m.uses.forget(usedKey{region, d.Key})
		records = append(records, usedKey{region, d.Key}.record())
	}
	for batch := range slices.Chunk(records, store.MaxTxnKeys) {
		err := m.s.update(ctx, func(t *recorder) error {
			for _, record := range batch {
				if err := t.remove(record); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
