package kms

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
)

// atOnce runs f n times at once and counts the errors by their type, "" for none.
func atOnce(n int, f func(i int) error) map[ErrorType]int {
	var mu sync.Mutex
	var running sync.WaitGroup
	counts := map[ErrorType]int{}
	for i := range n {
		running.Go(func() {
			err := f(i)
			mu.Lock()
			defer mu.Unlock()
			counts[TypeOf(err)]++
		})
	}
	running.Wait()
	return counts
}

// TestRotateKeyOnDemandLimit asks for more rotations than there are, all at once and one by one.
func TestRotateKeyOnDemandLimit(t *testing.T) {
	r := newRotor(t)
	id := r.newKey()
	counts := atOnce(30, func(int) error { _, err := r.demand(id); return err })
	require.Equal(t, map[ErrorType]int{"": 25, LimitExceeded: 5}, counts)
	r.requireMaterials(map[string]int{id: 26})
	require.Equal(t, OnDemand, r.record(id).current().How)
	made := r.token.made
	out, err := r.demand(id)
	requireError(t, out, err, LimitExceeded, "The on-demand rotations limit has been reached for the given keyId. "+
		"No more on-demand rotations can be performed for this key: "+newTestKey(id).ARN())
	require.Equal(t, made, r.token.made, "the token worked in vain")
	// Automatic ones go on, and are not counted.
	r.enable(id, nil)
	r.sleep(usual)
	r.attend()
	r.requireMaterials(map[string]int{id: 27})
	require.Equal(t, 25, r.record(id).OnDemand)
}

// TestRotateKeyOnDemandConflict rotates on demand around an automatic rotation.
func TestRotateKeyOnDemandConflict(t *testing.T) {
	r := newRotor(t)
	id := r.newRotating()
	const soon = 20 * time.Minute // as the answer says
	r.sleep(usual - soon - time.Millisecond)
	_, err := r.demand(id)
	require.NoError(t, err)
	r.requireNext(id, rotorStart.Add(usual))
	for _, wait := range []time.Duration{time.Millisecond, soon, day} { // 20 minutes before, then, and overdue
		r.sleep(wait)
		out, err := r.demand(id)
		requireError(t, out, err, Conflict, "The request was rejected because an automatic rotation of this key is currently in progress or scheduled to begin within the next 20 minutes.")
	}
	r.requireMaterials(map[string]int{id: 2})
	r.attend()
	_, err = r.demand(id)
	require.NoError(t, err)
	r.requireMaterials(map[string]int{id: 4})
	r.requireNext(id, rotorStart.Add(2*usual))
	require.Equal(t, 2, r.record(id).OnDemand)
}

// TestRotationOvertaken changes the key while the token is making its fresh material, which then goes again.
func TestRotationOvertaken(t *testing.T) {
	arn := func(id string) string { return newTestKey(id).ARN() }
	edits := map[string]struct {
		edit func(r *rotor, key *Key)
		// demand is what a rotation on demand answers, nil for success; automatic tells whether an automatic one is made.
		demand    func(id string) *Error
		automatic bool
	}{
		"nothing": {edit: func(*rotor, *Key) {}, automatic: true},
		"disabled": {
			edit:   func(_ *rotor, key *Key) { key.State = DisabledState },
			demand: func(id string) *Error { return Errorf(Disabled, "%s is disabled.", arn(id)) },
		},
		"dying": {
			edit:   func(r *rotor, key *Key) { key.State, key.Deletion = PendingDeletion, r.clock().Add(day) },
			demand: func(id string) *Error { return Errorf(InvalidState, "%s is pending deletion.", arn(id)) },
		},
		"dead": {
			edit:   func(r *rotor, key *Key) { key.State, key.Deletion = PendingDeletion, r.clock() },
			demand: func(id string) *Error { return Errorf(NotFound, "Key '%s' does not exist", arn(id)) },
		},
		"not rotated any more": {edit: func(_ *rotor, key *Key) { key.Rotation = nil }},
		"rotated": {edit: func(r *rotor, key *Key) {
			if key.Rotation != nil {
				key.Rotation = r.following(key.Rotation)
			}
		}},
		"exhausted": {
			edit: func(_ *rotor, key *Key) { key.OnDemand = maxOnDemand },
			demand: func(id string) *Error {
				return Errorf(LimitExceeded, "The on-demand rotations limit has been reached for the given keyId. No more on-demand rotations can be performed for this key: %s", arn(id))
			},
			automatic: true,
		},
	}
	for name, test := range edits {
		t.Run(name, func(t *testing.T) {
			r := newRotor(t)
			demanded, automatic := r.newKey(), r.newRotating()
			r.sleep(usual)
			// begin has the next material of a key come too late.
			begin := func(id string) *Key {
				before := r.record(id)
				r.token.hook = func() error {
					_, err := r.change(t.Context(), before, func(key *Key) error { test.edit(r, key); return nil })
					return err
				}
				return before
			}
			begin(demanded)
			_, err := r.demand(demanded)
			if test.demand == nil {
				require.NoError(t, err)
			} else {
				requireError[Empty](t, nil, err, test.demand(demanded).Type, test.demand(demanded).Message)
			}
			require.NoError(t, r.rotateOnSchedule(t.Context(), begin(automatic)))
			count := map[bool]int{true: 2, false: 1}
			r.requireMaterials(map[string]int{demanded: count[test.demand == nil], automatic: count[test.automatic]})
		})
	}
}

// TestRotateSpent replaces a material that has encrypted often enough, for all who notice it once.
func TestRotateSpent(t *testing.T) {
	r := newRotor(t)
	id := r.newRotating()
	spend := func(material string) error { return r.rotateSpent(t.Context(), testRegion, id, material) }
	for i := range 3 {
		r.sleep(day)
		first := r.record(id).current().ID
		require.Equal(t, map[ErrorType]int{"": 8}, atOnce(8, func(int) error { return spend(first) }))
		r.requireMaterials(map[string]int{id: i + 2})
		require.Equal(t, Automatic, r.record(id).current().How)
		require.Contains(t, r.logged(), `why="its material has encrypted often enough" material=`+r.record(id).current().ID)
	}
	r.requireNext(id, rotorStart.Add(usual)) // the schedule stays
	require.NoError(t, r.rotateSpent(t.Context(), testRegion, secondKey, "of no key"))
	made, current := r.token.made, r.record(id).current().ID
	require.NoError(t, spend("unknown"))
	_, err := r.DisableKey(t.Context(), newRequest("DisableKey"), &DisableKeyInput{KeyId: id})
	require.NoError(t, err)
	require.EqualError(t, spend(current), "rotating key "+id+": it is Disabled")
	require.Equal(t, made, r.token.made, "the token worked in vain")
}

// TestRotateSpentImported replaces imported material by what is pending. Without anything pending it cannot.
func TestRotateSpentImported(t *testing.T) {
	s := newService(t, fakeToken{}) // which is not called
	key := newImportedKey()
	pending, first := key.Materials[2].ID, key.Materials[1].ID
	put(t, s, key)
	require.NoError(t, s.rotateSpent(t.Context(), testRegion, key.ID, first))
	now := storedKey(t, s, key.ID)
	require.Equal(t, pending, now.current().ID)
	require.Nil(t, now.pending())
	require.Equal(t, Automatic, now.current().How)
	require.Zero(t, now.OnDemand)
	require.NoError(t, s.rotateSpent(t.Context(), testRegion, key.ID, first))
	require.EqualError(t, s.rotateSpent(t.Context(), testRegion, key.ID, pending), "rotating key "+key.ID+": no imported material is pending rotation")
}

// TestRotateKeyOnDemandImported takes the material that is pending, once, whoever asks.
func TestRotateKeyOnDemandImported(t *testing.T) {
	s := newService(t, fakeToken{}) // which is not called
	key := newImportedKey()
	put(t, s, key)
	counts := atOnce(8, func(int) error {
		_, err := s.RotateKeyOnDemand(t.Context(), newRequest("RotateKeyOnDemand"), &RotateKeyOnDemandInput{KeyId: key.ID})
		return err
	})
	require.Equal(t, map[ErrorType]int{"": 1, InvalidState: 7}, counts)
	now := storedKey(t, s, key.ID)
	require.Equal(t, key.Materials[2].ID, now.current().ID)
	require.Equal(t, OnDemand, now.current().How)
	require.Equal(t, 1, now.OnDemand)
	require.Len(t, now.Materials, 3)
}

// TestRotationByTwoServers has two servers on one store and one token make the same rotation, each of them with its fresh
// material in hand before the other has stored its own. One succeeds, and nothing is left of the other.
func TestRotationByTwoServers(t *testing.T) {
	first := newRotor(t)
	second, err := New(first.cfg)
	require.NoError(t, err)
	t.Cleanup(second.Close)
	scheduled, unscheduled := first.newRotating(), first.newKey()
	for i := range 3 {
		first.sleep(usual)
		for name, rotate := range map[string]func(*Service) error{
			"due": func(s *Service) error { return s.rotateOnSchedule(t.Context(), storedKey(t, s, scheduled)) },
			"spent": func(s *Service) error {
				return s.rotateSpent(t.Context(), testRegion, unscheduled, storedKey(t, s, unscheduled).current().ID)
			},
		} {
			for _, s := range []*Service{first.Service, second} { // which may not have heard yet of what the other did before
				s.keys.Forget(keyRecord(testRegion, scheduled), keyRecord(testRegion, unscheduled))
			}
			both := sync.WaitGroup{}
			both.Add(2)
			first.token.hook = func() error { both.Done(); both.Wait(); return nil }
			require.Equal(t, map[ErrorType]int{"": 2}, atOnce(2, func(n int) error { return rotate([]*Service{first.Service, second}[n]) }), name)
			first.token.hook = nil
		}
		first.requireMaterials(map[string]int{scheduled: i + 2, unscheduled: i + 2})
	}
	require.Equal(t, 2+2*2*3, first.token.made)
}

// newImportedKey makes the record of a key with imported material: the first one, which was deleted, the current one and
// one that is pending.
func newImportedKey() *Key {
	return newTestKey(firstKey, func(key *Key) {
		key.Origin = OriginExternal
		first := key.Materials[0]
		current, pending := first, first
		current.ID, current.Ref.ID, current.Rotated, current.How = rotatedID(2), "current", rotorStart, OnDemand
		current.Description, current.Expires = "current", time.Now().Add(day).UTC().Truncate(time.Millisecond)
		pending.ID, pending.Ref.ID, pending.Pending = rotatedID(3), "pending", true
		key.Materials = []Material{first, current, pending}
	})
}

// rotatedID makes the id of a material.
func rotatedID(n int) string { return fmt.Sprintf("%064x", n) }

// TestRotateSpentTimeout has a token hang for as long as it may.
func TestRotateSpentTimeout(t *testing.T) {
	r := newRotor(t)
	id := r.newRotating()
	hanging := &hangingToken{mint: r.token}
	r.cfg.Regions[testRegion] = Region{Token: hanging}
	require.ErrorIs(t, r.rotateSpent(t.Context(), testRegion, id, r.record(id).current().ID), errHung)
	require.LessOrEqual(t, hanging.patience, taskLimit)
	require.Positive(t, hanging.patience)
}

var errHung = errors.New("it hangs")

// hangingToken notes how long it was given to make a key.
type hangingToken struct {
	*mint
	patience time.Duration
}

func (h *hangingToken) GenerateKey(ctx context.Context, _ hsm.KeyRequest) (hsm.KeyRef, error) {
	if deadline, ok := ctx.Deadline(); ok {
		h.patience = time.Until(deadline)
	}
	return hsm.KeyRef{}, errHung
}
