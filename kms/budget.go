package kms

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"hsmkms/hsm"
	"hsmkms/store"
)

// AES-GCM with random IVs may encrypt 2^32 times under a key (NIST SP 800-38D, section 8.3), so encryptions are counted
// for each material. The count may be too high and is never too low, whenever and however often a server is killed, and
// however many servers share the store. It is the sum of:
//
//   - one, for the proof that was made with the material (hsm.KeyRef.Proof; each import of the same material makes one
//     more, which is not counted: 2^31 imports take years);
//   - the encryptions that servers reserved under the material, in its record, before they made them: a batch at a time;
//   - the free encryptions of every run of a server that came after the material, whether it used the material or not.
//
// The free ones keep a restart from writing a record for each of very many keys. A run claims its allowance before its
// first encryption, by adding it to one counter for all materials, and may then encrypt so often under each of them
// without writing anything. A material remembers what the counter stood at when it was made (Material.Base), and its
// count has everything that was added since. What was added earlier is not in its count: so a run has nothing free
// under material whose Base is beyond what the counter stood at when the run claimed, which another server, started
// later, has made. A Base that is too low only makes the count too high.
//
// The parts of the budget: with 2^31 encryptions, a start of a server costs each material 65,536 of them, and a material
// that is used up to them is written to the store once in 1,048,576 encryptions. A budget of less than 2^15 has no free
// ones. Budgets may differ between runs and servers: what was added and reserved counts as it was.
const (
	freeShare  = 1 << 15
	batchShare = 1 << 11
)

const (
	freeKey     = systemPrefix + "free"
	countPrefix = "count/"
)

// allowance is the record of the free encryptions.
type allowance struct {
	Free uint64 `json:"free"`
}

// count is the record of a material's reserved encryptions.
type count struct {
	Reserved uint64 `json:"reserved"`
}

// materialName names a material among all Regions.
type materialName struct{ region, id string }

func (n materialName) record() string { return countPrefix + n.region + "/" + n.id }

// budget counts encryptions. Its memory is about 300 bytes for each material that encrypted in this run: what is left
// of the free ones must not be forgotten before the run ends.
type budget struct {
	s *Service
	// limit is Config.Budget. free is the allowance of this run under each material, batch what is reserved at a time.
	limit, free, batch uint64

	mu       sync.RWMutex
	counters map[materialName]*counter

	claiming gate
	claimed  atomic.Bool
	before   uint64 // what the counter stood at before this run's claim; set once claimed is

	spent spentMaterials
}

func newBudget(s *Service) *budget {
	limit := s.cfg.Budget
	return &budget{
		s: s, limit: limit, free: limit / freeShare, batch: max(1, limit/batchShare),
		counters: map[materialName]*counter{}, claiming: newGate(), spent: newSpentMaterials(),
	}
}

func (b *budget) counter(name materialName) *counter {
	b.mu.RLock()
	c := b.counters[name]
	b.mu.RUnlock()
	if c != nil {
		return c
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if c = b.counters[name]; c == nil {
		c = &counter{gate: newGate()}
		b.counters[name] = c
	}
	return c
}

func (b *budget) forget(name materialName) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.counters, name)
}

// base is what Material.Base of new material must be: what the counter stood at before this run's claim or, as long as
// nothing is claimed, stands at now. If that cannot be told it is 0, which is always safe.
func (b *budget) base() uint64 {
	if b.claimed.Load() {
		return b.before
	}
	ctx, cancel := context.WithTimeout(context.Background(), baseTimeout)
	defer cancel()
	var now uint64
	err := b.s.cfg.Store.View(ctx, func(r store.Reader) (err error) {
		now, err = freeNow(r)
		return err
	})
	if err != nil {
		return 0
	}
	return now
}

// baseTimeout bounds base, which knows no deadline.
const baseTimeout = 5 * time.Second

// freeNow reads the counter of free encryptions.
func freeNow(r store.Reader) (uint64, error) {
	record, err := read[allowance](r, freeKey)
	if err != nil || record == nil {
		return 0, err
	}
	return record.Free, nil
}

// take must succeed before each encryption under a key's material: it enters the encryption into the count. It fails
// when the material has encrypted twice as often as it should, or when the count cannot be kept. Key pairs may encrypt as
// often as they like.
func (b *budget) take(ctx context.Context, key *Key, m *Material) error {
	if !key.symmetric() {
		return nil
	}
	c := b.counter(materialName{key.Region, m.ID})
	if c.take() {
		return nil
	}
	if c.exhausted.Load() {
		return b.refuse(key, m)
	}
	if err := c.gate.enter(ctx); err != nil {
		return fmt.Errorf("waiting to count an encryption: %w", err)
	}
	defer c.gate.leave()
	if c.take() { // another request has got more
		return nil
	}
	more, err := b.more(ctx, c, key, m)
	if err != nil {
		return fmt.Errorf("counting encryptions: %w", err)
	}
	if more == 0 {
		c.exhausted.Store(true)
		return b.refuse(key, m)
	}
	c.left.Add(int64(more) - 1)
	return nil
}

// refuse is the answer under material that must not encrypt any more.
func (b *budget) refuse(key *Key, m *Material) error {
	b.spent.add(key, m)
	return Errorf(InvalidState, "%s cannot encrypt because its current key material has reached the limit of encryptions.", key.ARN())
}

// untaken takes an encryption out of the count again if it was certainly not made: by its failure, the token had found the
// ciphertext that was to be re-encrypted to be bad. Otherwise forgeries would use a key up.
func (b *budget) untaken(key *Key, m *Material, failure *hsm.Error) {
	if key.symmetric() && failure.Class == hsm.BadInput {
		b.counter(materialName{key.Region, m.ID}).left.Add(1)
	}
}

// more gets more encryptions, free ones at first; 0 if there are none for ever. The caller is in the counter's gate.
func (b *budget) more(ctx context.Context, c *counter, key *Key, m *Material) (uint64, error) {
	if !c.opened {
		free, err := b.open(ctx, key, m)
		if err != nil {
			return 0, err
		}
		c.opened = true
		if free > 0 {
			return free, nil
		}
	}
	return b.reserve(ctx, key, m)
}

// open gives the free encryptions of this run under a material, which are in the material's count since the run claimed
// them.
func (b *budget) open(ctx context.Context, key *Key, m *Material) (uint64, error) {
	if b.free == 0 {
		return 0, nil
	}
	if err := b.claim(ctx); err != nil || m.Base > b.before {
		return 0, err
	}
	var total uint64
	err := b.s.cfg.Store.View(ctx, func(r store.Reader) (err error) {
		total, _, err = counted(r, materialName{key.Region, m.ID}, m.Base)
		return err
	})
	if err != nil || total > 2*b.limit {
		return 0, err
	}
	if total >= b.limit {
		b.spent.add(key, m)
	}
	return b.free, nil
}

// claim adds the free encryptions of this run to the counter, once.
func (b *budget) claim(ctx context.Context) error {
	if b.claimed.Load() {
		return nil
	}
	if err := b.claiming.enter(ctx); err != nil {
		return err
	}
	defer b.claiming.leave()
	if b.claimed.Load() {
		return nil
	}
	var before uint64
	err := b.s.update(ctx, func(t *recorder) (err error) {
		if before, err = freeNow(t); err != nil {
			return err
		}
		return t.put(freeKey, allowance{before + b.free})
	})
	if err != nil { // if it was committed all the same, more is counted than needed
		return err
	}
	b.before = before
	b.claimed.Store(true)
	return nil
}

// counted gives a material's count, and its record.
func counted(r store.Reader, name materialName, base uint64) (total uint64, own count, err error) {
	free, err := freeNow(r)
	if err != nil {
		return 0, own, err
	}
	record, err := read[count](r, name.record())
	if err != nil {
		return 0, own, err
	}
	if record != nil {
		own = *record
	}
	if base > free { // it can't be; all of it may belong to the material
		base = 0
	}
	return 1 + own.Reserved + free - base, own, nil
}

// reserve enters encryptions into the material's record and gives their number, 0 if the material must not encrypt any
// more. The key is to be rotated once the limit is in the count.
func (b *budget) reserve(ctx context.Context, key *Key, m *Material) (uint64, error) {
	name := materialName{key.Region, m.ID}
	var total, batch uint64
	err := b.s.update(ctx, func(t *recorder) error {
		// A record that is written after its key is gone would stay for ever.
		if _, found, err := t.Get(keyRecord(key.Region, key.ID)); err != nil || !found {
			return orNotFound(err, key)
		}
		var own count
		var err error
		if total, own, err = counted(t, name, m.Base); err != nil {
			return err
		}
		if batch = b.portion(total); batch == 0 {
			return nil
		}
		own.Reserved += batch
		return t.put(name.record(), own)
	})
	if err != nil {
		return 0, err
	}
	if total+batch >= b.limit {
		b.spent.add(key, m)
	}
	return batch, nil
}

func orNotFound(err error, key *Key) error {
	if err != nil {
		return err
	}
	return notFound(key.ARN())
}

// portion is how many encryptions may be reserved at a count: a batch, but never beyond the limit, so that the key is
// rotated in time, nor beyond twice the limit.
func (b *budget) portion(total uint64) uint64 {
	switch {
	case total < b.limit:
		return min(b.batch, b.limit-total)
	case total < 2*b.limit:
		return min(b.batch, 2*b.limit-total)
	default:
		return 0
	}
}
