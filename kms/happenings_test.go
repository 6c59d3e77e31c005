package kms

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/audit"
	"hsmkms/hsm"
	"hsmkms/store"
)

// hearing collects what a service tells its audit trail, unless it fails.
type hearing struct {
	heard   []*audit.Event
	failure error
}

func (h *hearing) record(_ context.Context, e *audit.Event) error {
	if h.failure != nil {
		return h.failure
	}
	h.heard = append(h.heard, e)
	return nil
}

// names gives the events that were heard since the last time.
func (h *hearing) names() (names []string) {
	for _, e := range h.heard {
		names = append(names, e.EventName)
	}
	h.heard = nil
	return names
}

// attendAndTell has the schedule do what is due, and the trail told of it.
func (r *rotor) attendAndTell() {
	r.t.Helper()
	r.attend()
	require.NoError(r.t, r.newAnnouncer().all(r.t.Context()))
}

// waiting gives the happenings that are not told yet.
func (r *rotor) waiting() []string {
	r.t.Helper()
	records, err := r.some(r.t.Context(), happenedPrefix, "", "", 10)
	require.NoError(r.t, err)
	return records
}

// TestHappenings has the audit trail told, once, of each kind of thing that the service does by itself.
func TestHappenings(t *testing.T) {
	trail := &hearing{}
	r := newRotor(t, func(cfg *Config) { cfg.Trail = trail.record })
	id := r.newRotating()
	first := r.record(id).current().ID
	r.attendAndTell()
	require.Empty(t, trail.names())

	details := func(how, previous string) audit.Parameters {
		return audit.Parameters{
			{Name: "keyId", Value: audit.Text(id)}, {Name: "rotationType", Value: audit.Text(how)}, {Name: "keyOrigin", Value: audit.Text("AWS_KMS")},
			{Name: "previousKeyMaterialId", Value: audit.Text(previous)}, {Name: "currentKeyMaterialId", Value: audit.Text(r.record(id).current().ID)},
		}
	}
	r.sleep(usual)
	r.attendAndTell()
	require.Len(t, trail.heard, 1)
	require.Equal(t, details("AUTOMATIC", first), trail.heard[0].ServiceEventDetails)
	require.Equal(t, r.clock(), trail.heard[0].EventTime)
	require.Equal(t, []audit.Resource{{AccountID: testAccount, ARN: r.record(id).ARN()}}, trail.heard[0].Resources)
	require.Equal(t, testAccount, trail.heard[0].Recipients[0].AccountID)
	require.Equal(t, []string{"RotateKey"}, trail.names())

	second := r.record(id).current().ID
	_, err := r.demand(id)
	require.NoError(t, err)
	r.attendAndTell()
	require.Len(t, trail.heard, 1)
	require.Equal(t, details("ON_DEMAND", second), trail.heard[0].ServiceEventDetails)
	require.Equal(t, []string{"RotateKey"}, trail.names())

	_, err = r.ScheduleKeyDeletion(t.Context(), newRequest("ScheduleKeyDeletion"), &ScheduleKeyDeletionInput{KeyId: id})
	require.NoError(t, err)
	r.sleep(longestWindow * day)
	r.attendAndTell()
	require.Equal(t, []string{"DeleteKey"}, trail.names())
	r.attendAndTell()
	require.Empty(t, trail.names())
}

// TestHappeningExpired has material expire: in the schedule, in a request that comes before it, with the end of the key, and not,
// because it was deleted before.
func TestHappeningExpired(t *testing.T) {
	for name, test := range map[string]struct {
		act  func(r *rotor, id string) error // at the moment when it expires
		told []string
	}{
		"schedule": {func(r *rotor, _ string) error { r.attend(); return nil }, []string{"DeleteExpiredKeyMaterial"}},
		"request": {func(r *rotor, id string) error {
			_, err := r.UpdateKeyDescription(r.t.Context(), newRequest("UpdateKeyDescription"), &UpdateKeyDescriptionInput{KeyId: id, Description: "new"})
			return err
		}, []string{"DeleteExpiredKeyMaterial"}},
		"end of the key": {func(r *rotor, _ string) error { r.sleep(day); r.attend(); return nil }, []string{"DeleteExpiredKeyMaterial", "DeleteKey"}},
		"deleted": {func(r *rotor, id string) error {
			r.sleep(-time.Second)
			_, err := r.DeleteImportedKeyMaterial(r.t.Context(), newRequest("DeleteImportedKeyMaterial"), &DeleteImportedKeyMaterialInput{KeyId: id})
			r.sleep(time.Second)
			return err
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			trail := &hearing{}
			r := newRotor(t, func(cfg *Config) { cfg.Trail = trail.record })
			key := newImportedKey()
			key.Materials = key.Materials[:2]
			key.Materials[1].Expires = r.clock().Add(day)
			if len(test.told) == 2 {
				key.State, key.Deletion = PendingDeletion, r.clock().Add(2*day)
			}
			put(t, r.Service, key)
			require.NoError(t, r.update(t.Context(), func(t *recorder) error { return t.mark(key.dueEntry()) }))
			r.sleep(day)
			require.NoError(t, test.act(r, key.ID))
			r.attendAndTell()
			if test.told != nil {
				require.Equal(t, audit.Parameters{
					{Name: "keyId", Value: audit.Text(key.ID)}, {Name: "keyMaterialId", Value: audit.Text(key.Materials[1].ID)},
				}, trail.heard[0].ServiceEventDetails)
			}
			require.Equal(t, test.told, trail.names())
		})
	}
}

// TestHappeningHidesMaterial names no material of a key of which answers show none.
func TestHappeningHidesMaterial(t *testing.T) {
	key := newImportedKey()
	key.Spec = "HMAC_256"
	key.Materials = key.Materials[:1]
	key.Materials[0].Expires = rotorStart
	require.Equal(t, []happening{{Event: eventDeleteExpired}}, key.expire(rotorStart).news)
}

// TestHappeningsWait has a trail fail, and a service end: nothing is lost, and what is recorded is so under one eventID.
func TestHappeningsWait(t *testing.T) {
	trail := &hearing{failure: errors.New("disk full")}
	r := newRotor(t, func(cfg *Config) { cfg.Trail = trail.record })
	id := r.newRotating()
	r.sleep(usual)
	r.attend()
	require.Len(t, r.record(id).Materials, 2, "the rotation does not wait")
	require.ErrorContains(t, r.newAnnouncer().all(t.Context()), "disk full")
	waiting := r.waiting()
	require.Len(t, waiting, 1)

	again, err := New(Config{Store: r.cfg.Store, Regions: map[string]Region{testRegion: {Token: hsm.Token(r.token)}}, Clock: r.clock, Trail: trail.record})
	require.NoError(t, err)
	defer again.Close()
	trail.failure = nil
	ended, end := context.WithCancel(t.Context())
	end()
	again.newAnnouncer().run(ended) // tells what is left
	require.Len(t, trail.heard, 1)
	eventID := trail.heard[0].Recipients[0].EventID
	require.NotEmpty(t, eventID)
	require.Contains(t, waiting[0], eventID)
	require.Empty(t, r.waiting())
}

// newHappening gives a rotor with one happening, which the trail takes and the store may not be able to remove.
func newHappening(t *testing.T) (*rotor, *hearing, *unwritable) {
	t.Helper()
	trail, broken := &hearing{}, &unwritable{}
	r := newRotor(t, func(cfg *Config) {
		cfg.Trail = trail.record
		broken.Store, cfg.Store = cfg.Store, broken
	})
	r.newRotating()
	r.sleep(usual)
	r.attend()
	return r, trail, broken
}

// TestHappeningsOnce does not tell again what the store cannot remove, but removes it when it can.
func TestHappeningsOnce(t *testing.T) {
	r, trail, broken := newHappening(t)
	a := r.newAnnouncer()
	broken.failure = errors.New("disk full")
	for range 3 {
		require.ErrorContains(t, a.all(t.Context()), "disk full")
	}
	broken.failure = nil
	require.NoError(t, a.all(t.Context()))
	require.Equal(t, []string{"RotateKey"}, trail.names())
	require.Empty(t, r.waiting())
	require.Empty(t, a.told)
}

// TestHappeningsAfterAKill has a server killed when the trail has a happening and the store still has it too: the next one records
// it again, with all that the first record says and its eventID, and then it is gone.
func TestHappeningsAfterAKill(t *testing.T) {
	r, trail, broken := newHappening(t)
	waiting := r.waiting()
	require.Len(t, waiting, 1)
	killed := errors.New("killed")
	broken.failure = killed
	require.ErrorIs(t, r.newAnnouncer().all(t.Context()), killed)
	require.Len(t, trail.heard, 1)
	require.Equal(t, waiting, r.waiting())

	broken.failure = nil
	again, err := New(Config{Store: broken, Regions: map[string]Region{testRegion: {Token: hsm.Token(r.token)}}, Clock: r.clock, Trail: trail.record})
	require.NoError(t, err)
	defer again.Close()
	require.NoError(t, again.newAnnouncer().all(t.Context()))
	require.Len(t, trail.heard, 2)
	require.Equal(t, trail.heard[0], trail.heard[1])
	require.Contains(t, waiting[0], trail.heard[1].Recipients[0].EventID)
	require.Empty(t, r.waiting())
	require.NoError(t, again.newAnnouncer().all(t.Context()))
	require.Len(t, trail.heard, 2)
}

// unwritable is a store that fails to write while it has a failure.
type unwritable struct {
	store.Store
	failure error
}

func (u *unwritable) Update(ctx context.Context, fn func(store.Txn) error) error {
	if u.failure != nil {
		return u.failure
	}
	return u.Store.Update(ctx, fn)
}

// TestNoTrailNoHappenings leaves nothing in the store that nobody will take out.
func TestNoTrailNoHappenings(t *testing.T) {
	r := newRotor(t)
	r.newRotating()
	r.sleep(usual)
	r.attend()
	require.Empty(t, r.waiting())
}
