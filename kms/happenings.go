package kms

import (
	"context"
	"fmt"
	"time"

	"hsmkms/audit"
	"hsmkms/store"
)

// What the service does to keys by itself is in the audit trail too, as it is in CloudTrail: rotations, deletions and the
// end of imported material that has expired. The transaction that does it writes a happening beside; the announcer has it
// recorded in the trail and removes it. So none is lost, and one that is recorded twice, by a server that is killed in
// between or by two at once, has one eventID.
//
//	happened/<milliseconds since the epoch, 15 digits>/<number in its transaction, 3 digits>/<eventID>
const happenedPrefix = "happened/"

// happening is the record of something that the service did to a key by itself.
type happening struct {
	// Event is CloudTrail's name for it.
	Event   string    `json:"event"`
	ID      string    `json:"id"`
	At      time.Time `json:"at"`
	Region  string    `json:"region"`
	Account string    `json:"account"`
	Key     string    `json:"key"`
	// Rotation is set for a RotateKey.
	Rotation *rotated `json:"rotation,omitempty"`
	// Material is the id of a material that has expired.
	Material string `json:"material,omitempty"`
}

// rotated tells of a rotation.
type rotated struct {
	How      RotationType `json:"how"`
	Origin   Origin       `json:"origin"`
	Previous string       `json:"previous"`
	Current  string       `json:"current"`
}

// The events, in CloudTrail's words.
const (
	eventRotateKey     = "RotateKey"
	eventDeleteKey     = "DeleteKey"
	eventDeleteExpired = "DeleteExpiredKeyMaterial"
)

// happened writes a happening of a key. Without an audit trail there is nobody to tell.
func (t *recorder) happened(key *Key, h happening) (err error) {
	if t.random == nil {
		return nil
	}
	if h.ID, err = audit.NewID(t.random); err != nil {
		return err
	}
	h.At, h.Region, h.Account, h.Key = t.now.UTC(), key.Region, key.Account, key.ID
	t.happenings++
	return t.put(fmt.Sprintf("%s%015d/%03d/%s", happenedPrefix, h.At.UnixMilli(), t.happenings, h.ID), h)
}

// announcer tells the audit trail what has happened. It is beside the schedule, which a trail that hangs must not hold up.
type announcer struct {
	s    *Service
	wake chan struct{}
	// told are happenings that the trail has and the store could not remove yet.
	told map[string]bool
}

func (s *Service) newAnnouncer() *announcer {
	return &announcer{s: s, wake: make(chan struct{}, 1), told: map[string]bool{}}
}

// farewell bounds the time for what is still to be told when the service ends.
const farewell = 5 * time.Second

// run tells what happens until ctx ends, and then what is left.
func (a *announcer) run(ctx context.Context) {
	for ctx.Err() == nil {
		wait := longestWait
		if a.s.tell("recording what was done to keys", a.all(ctx)) {
			wait = retryWait
		}
		select {
		case <-ctx.Done():
		case <-a.wake:
		case <-time.After(wait):
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	a.s.tell("recording what was done to keys", a.all(last))
}

// all tells everything, up to what fails.
func (a *announcer) all(ctx context.Context) error {
	for {
		records, err := a.s.some(ctx, happenedPrefix, "", "", tasksAtOnce)
		if err != nil || len(records) == 0 {
			return err
		}
		for _, record := range records {
			if err := a.tell(ctx, record); err != nil {
				return err
			}
		}
	}
}

// tell has one happening recorded and removes it. It waits for the trail as long as ctx allows, for whoever goes away does
// not learn whether it was recorded.
func (a *announcer) tell(ctx context.Context, record string) error {
	var h *happening
	err := a.s.cfg.Store.View(ctx, func(r store.Reader) (err error) {
		h, err = read[happening](r, record)
		return err
	})
	if err != nil || h == nil { // another server was first
		return err
	}
	if !a.told[record] {
		if err := a.s.cfg.Trail(ctx, h.record()); err != nil {
			return err
		}
		a.told[record] = true
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	if err := a.s.update(ctx, func(t *recorder) error { return t.remove(record) }); err != nil {
		return err
	}
	delete(a.told, record)
	return nil
}

// byItself is whom CloudTrail names for what nobody asked for.
const byItself = "AWS Internal"

// record is the happening as CloudTrail records it.
func (h *happening) record() *audit.Event {
	details := audit.Parameters{{Name: "keyId", Value: audit.Text(h.Key)}}
	if r := h.Rotation; r != nil {
		details = append(details,
			audit.Parameter{Name: "rotationType", Value: audit.Text(string(r.How))},
			audit.Parameter{Name: "keyOrigin", Value: audit.Text(string(r.Origin))},
			audit.Parameter{Name: "previousKeyMaterialId", Value: audit.Text(r.Previous)},
			audit.Parameter{Name: "currentKeyMaterialId", Value: audit.Text(r.Current)})
	}
	if h.Material != "" {
		details = append(details, audit.Parameter{Name: "keyMaterialId", Value: audit.Text(h.Material)})
	}
	arn := (&Key{ID: h.Key, Account: h.Account, Region: h.Region}).ARN()
	return &audit.Event{
		UserIdentity: audit.UserIdentity{AccountID: h.Account, InvokedBy: byItself}, EventTime: h.At, EventName: h.Event, EventType: audit.ServiceEvent,
		AWSRegion: h.Region, SourceIPAddress: byItself, UserAgent: byItself, ServiceEventDetails: details,
		Resources:  []audit.Resource{{AccountID: h.Account, ARN: arn}},
		Recipients: []audit.Recipient{{AccountID: h.Account, EventID: h.ID}},
	}
}
