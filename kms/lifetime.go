package kms

import (
	"slices"
	"time"

	"hsmkms/hsm"
)

// at gives the key as it is at a moment: nil once its waiting period for deletion is over, and without the material that
// has expired. It is the same Key, unless time has changed it. What it changes is written by Service.attend, or with
// whatever else is written first.
func (k *Key) at(now time.Time) *Key {
	if k.due.IsZero() || now.Before(k.due) {
		return k
	}
	if k.ended(now) {
		return nil
	}
	return k.expire(now)
}

// expire gives the key without the material that has expired.
func (k *Key) expire(now time.Time) *Key {
	aged := *k
	aged.Materials = slices.Clone(k.Materials)
	for i := len(aged.Materials) - 1; i >= 0; i-- {
		if m := &aged.Materials[i]; m.present() && !m.Expires.IsZero() && !now.Before(m.Expires) {
			aged.news = append(aged.news, happening{Event: eventDeleteExpired, Material: aged.shownID(m)})
			aged.drop(m)
		}
	}
	aged.due = aged.nextChange()
	return &aged
}

// ended tells whether the key's waiting period for deletion is over.
func (k *Key) ended(now time.Time) bool { return k.State == PendingDeletion && !now.Before(k.Deletion) }

// drop takes imported material away from the key. Material that still waits for its rotation leaves nothing behind; of
// any other the key remembers the id, and cannot be used until the same material is imported again.
func (k *Key) drop(m *Material) {
	k.dropped = append(k.dropped, m.Ref)
	if m.Pending {
		k.Materials = k.Materials[:len(k.Materials)-1]
		return
	}
	m.Ref, m.Expires = hsm.KeyRef{}, time.Time{}
	k.settle()
}

// settle moves a key between PendingImport and the states in which it has all its material.
func (k *Key) settle() {
	switch whole := k.whole(); {
	case !whole && k.State != PendingDeletion:
		k.State = PendingImport
	case whole && k.State == PendingImport:
		k.State = Enabled
	}
}

// whole tells whether all material that is permanently associated with the key can be used.
func (k *Key) whole() bool {
	associated := 0
	for i := range k.Materials {
		if k.Materials[i].Pending {
			continue
		}
		if !k.Materials[i].present() {
			return false
		}
		associated++
	}
	return associated > 0
}

// nextChange is when time changes the key by itself, see at; zero if it does not.
func (k *Key) nextChange() time.Time {
	var next time.Time
	for i := range k.Materials {
		if k.Materials[i].present() {
			next = earlier(next, k.Materials[i].Expires)
		}
	}
	if k.State == PendingDeletion {
		next = earlier(next, k.Deletion)
	}
	return next
}

// nextTask is when the schedule has to do something about the key; zero for never.
func (k *Key) nextTask() time.Time {
	next := k.nextChange()
	if k.Rotation != nil && k.State == Enabled {
		next = earlier(next, k.Rotation.Next)
	}
	return next
}

// earlier gives the earlier of two times, of which a zero one is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
