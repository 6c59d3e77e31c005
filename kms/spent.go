package kms

import (
	"context"
	"sync"
	"time"
)

// spentMaterials are the materials that have encrypted as often as they should, and whose keys wait for their rotation.
// Requests go on under the material meanwhile.
type spentMaterials struct {
	mu      sync.Mutex
	waiting map[materialName]*spentMaterial
	wake    chan struct{}
	// pause is how long a rotation that failed waits for the next attempt. It doubles from time to time, to longestPause.
	pause time.Duration
}

type spentMaterial struct {
	keyID string
	// next is when to try, after pause.
	next  time.Time
	pause time.Duration
}

const longestPause = 10 * time.Minute

func newSpentMaterials() spentMaterials {
	return spentMaterials{waiting: map[materialName]*spentMaterial{}, wake: make(chan struct{}, 1), pause: retryWait}
}

// add has a key rotated, once, however often it is called meanwhile.
func (w *spentMaterials) add(key *Key, m *Material) {
	w.mu.Lock()
	defer w.mu.Unlock()
	name := materialName{key.Region, m.ID}
	if w.waiting[name] != nil {
		return
	}
	w.waiting[name] = &spentMaterial{keyID: key.ID, pause: w.pause}
	select {
	case w.wake <- struct{}{}:
	default: // it is awake
	}
}

// due gives a material whose time has come; if there is none, how long to wait.
func (w *spentMaterials) due(now time.Time) (name materialName, keyID string, wait time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	wait = longestPause
	for name, m := range w.waiting {
		if !m.next.After(now) {
			return name, m.keyID, 0
		}
		wait = min(wait, m.next.Sub(now))
	}
	return materialName{}, "", wait
}

// done takes note of a rotation that was made or is not wanted any more.
func (w *spentMaterials) done(name materialName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.waiting, name)
}

// failed has a rotation tried again later, and gives how much later.
func (w *spentMaterials) failed(name materialName, now time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.waiting[name]
	pause := m.pause
	m.next, m.pause = now.Add(pause), min(2*pause, longestPause)
	return pause
}

// rotate rotates the keys of spent materials, one at a time, until ctx ends.
func (b *budget) rotate(ctx context.Context) {
	for ctx.Err() == nil {
		name, keyID, wait := b.spent.due(time.Now())
		if keyID != "" {
			b.replace(ctx, name, keyID)
			continue
		}
		select {
		case <-ctx.Done():
		case <-b.spent.wake:
		case <-time.After(wait):
		}
	}
}

// replace moves a key from a spent material to fresh one. A key that cannot be rotated, because nobody has imported
// material for it, encrypts on until it has done so twice as often as it should.
func (b *budget) replace(ctx context.Context, name materialName, keyID string) {
	replaceable, err := b.replaceable(ctx, name, keyID)
	if err == nil && replaceable {
		err = b.s.rotateSpent(ctx, name.region, keyID, name.id)
	}
	if err == nil {
		b.spent.done(name)
		return
	}
	pause := b.spent.failed(name, time.Now())
	if ctx.Err() == nil {
		b.s.cfg.Log.Warn("a key has encrypted as often as it should under its material, and could not be rotated",
			"region", name.region, "key", keyID, "again", pause.String(), "error", err)
	}
}

// replaceable tells whether a material is still used to encrypt. If it is used again, because a disabled key is enabled,
// the next request that needs another batch asks for the rotation again.
func (b *budget) replaceable(ctx context.Context, name materialName, keyID string) (bool, error) {
	key, found, err := b.s.keys.Get(ctx, keyRecord(name.region, keyID))
	if err != nil || !found {
		return false, err
	}
	if key = key.at(b.s.cfg.Clock()); key == nil || key.State != Enabled {
		return false, nil
	}
	current := key.current()
	return current != nil && current.ID == name.id, nil
}
