package kms

import (
	"context"
	"fmt"
	"time"

	"hsmkms/audit"
	"hsmkms/store"
)

// What the service does to keys by itself is in the audit trail too, as it is in CloudTrail: rotations, deletions and the
// end of imported material that has expired. The transaction that does it writes a happening beside; who attends to the
// schedule records it in the trail and removes it. So none is lost, and one that is recorded twice, by a server that is
// killed in between or by two at once, has one eventID.
//
//	happened/<milliseconds since the epoch, 15 digits>/<eventID>
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
	return t.put(fmt.Sprintf("%s%015d/%s", happenedPrefix, h.At.UnixMilli(), h.ID), h)
}

// announce records what has happened in the audit trail, and tells whether all of it is.
func (s *Service) announce(ctx context.Context) (done bool) {
	if s.cfg.Trail == nil {
		return true
	}
	return s.each(ctx, "recording what was done to a key", happenedPrefix, "", func(ctx context.Context, record string) error {
		var h *happening
		err := s.cfg.Store.View(ctx, func(r store.Reader) (err error) {
			h, err = read[happening](r, record)
			return err
		})
		if err != nil || h == nil { // another server was first
			return err
		}
		if err := s.cfg.Trail(ctx, h.record()); err != nil {
			return err
		}
		return s.update(ctx, func(t *recorder) error { return t.remove(record) })
	})
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
