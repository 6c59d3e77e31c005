package kms

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/audit"
	"hsmkms/hsm"
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

// TestHappenings has the audit trail told, once, of each kind of thing that the service does by itself.
func TestHappenings(t *testing.T) {
	trail := &hearing{}
	r := newRotor(t, func(cfg *Config) { cfg.Trail = trail.record })
	id := r.newRotating()
	first := r.record(id).current().ID
	r.attend()
	require.Empty(t, trail.names())

	r.sleep(usual)
	r.attend()
	require.Len(t, trail.heard, 1)
	second := r.record(id).current().ID
	require.Equal(t, audit.Parameters{
		{Name: "keyId", Value: audit.Text(id)}, {Name: "rotationType", Value: audit.Text("AUTOMATIC")}, {Name: "keyOrigin", Value: audit.Text("AWS_KMS")},
		{Name: "previousKeyMaterialId", Value: audit.Text(first)}, {Name: "currentKeyMaterialId", Value: audit.Text(second)},
	}, trail.heard[0].ServiceEventDetails)
	require.Equal(t, r.clock(), trail.heard[0].EventTime)
	require.Equal(t, []audit.Resource{{AccountID: testAccount, ARN: r.record(id).ARN()}}, trail.heard[0].Resources)
	require.Equal(t, []string{"RotateKey"}, trail.names())

	_, err := r.demand(id)
	require.NoError(t, err)
	r.attend()
	require.Equal(t, []string{"RotateKey"}, trail.names())

	_, err = r.ScheduleKeyDeletion(t.Context(), newRequest("ScheduleKeyDeletion"), &ScheduleKeyDeletionInput{KeyId: id})
	require.NoError(t, err)
	r.sleep(longestWindow * day)
	r.attend()
	require.Equal(t, []string{"DeleteKey"}, trail.names())
	r.attend()
	require.Empty(t, trail.names())
}

// TestHappeningExpired has material expire: in the schedule, and in a request that comes before it.
func TestHappeningExpired(t *testing.T) {
	for name, first := range map[string]func(r *rotor, id string) error{
		"schedule": func(r *rotor, _ string) error { r.attend(); return nil },
		"request": func(r *rotor, id string) error {
			_, err := r.UpdateKeyDescription(r.t.Context(), newRequest("UpdateKeyDescription"), &UpdateKeyDescriptionInput{KeyId: id, Description: "new"})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			trail := &hearing{}
			r := newRotor(t, func(cfg *Config) { cfg.Trail = trail.record })
			key := newImportedKey()
			key.Materials[1].Expires = r.clock().Add(day)
			put(t, r.Service, key)
			require.NoError(t, r.update(t.Context(), func(t *recorder) error { return t.mark(key.dueEntry()) }))
			r.sleep(day)
			require.NoError(t, first(r, key.ID))
			r.attend()
			require.Len(t, trail.heard, 1, r.logged())
			require.Equal(t, audit.Parameters{
				{Name: "keyId", Value: audit.Text(key.ID)}, {Name: "keyMaterialId", Value: audit.Text(key.Materials[1].ID)},
			}, trail.heard[0].ServiceEventDetails)
			require.Equal(t, []string{"DeleteExpiredKeyMaterial"}, trail.names())
		})
	}
}

// TestHappeningsWait has a trail fail, and a service end: nothing is lost, and what is recorded is so under one eventID.
func TestHappeningsWait(t *testing.T) {
	trail := &hearing{failure: errors.New("disk full")}
	r := newRotor(t, func(cfg *Config) { cfg.Trail = trail.record })
	id := r.newRotating()
	r.sleep(usual)
	require.Equal(t, retryWait, r.attendAll(t.Context()))
	require.Contains(t, r.logged(), "disk full")
	require.Len(t, r.record(id).Materials, 2, "the rotation does not wait")
	waiting, err := r.some(t.Context(), happenedPrefix, "", "", 10)
	require.NoError(t, err)
	require.Len(t, waiting, 1)

	again, err := New(Config{Store: r.cfg.Store, Regions: map[string]Region{testRegion: {Token: hsm.Token(r.token)}}, Clock: r.clock, Trail: trail.record})
	require.NoError(t, err)
	defer again.Close()
	trail.failure = nil
	again.attendAll(t.Context())
	require.Len(t, trail.heard, 1)
	require.Contains(t, waiting[0], trail.heard[0].Recipients[0].EventID)
	require.Equal(t, []string{"RotateKey"}, trail.names())
	r.attend()
	require.Empty(t, trail.names())
}

// TestNoTrailNoHappenings leaves nothing in the store that nobody will take out.
func TestNoTrailNoHappenings(t *testing.T) {
	r := newRotor(t)
	r.newRotating()
	r.sleep(usual)
	r.attend()
	waiting, err := r.some(t.Context(), happenedPrefix, "", "", 10)
	require.NoError(t, err)
	require.Empty(t, waiting)
}
