package kms

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// RotateKeyOnDemandInput is the input of RotateKeyOnDemand.
type RotateKeyOnDemandInput struct {
	KeyId string
}

// RotateKeyOnDemandOutput is the output of RotateKeyOnDemand.
type RotateKeyOnDemandOutput struct {
	KeyId string `json:",omitempty"`
}

const (
	// maxOnDemand is how often a key may be rotated on demand.
	maxOnDemand = 25
	// automaticSoon is how long before an automatic rotation there is none on demand. It is not shortened with Config.Day.
	automaticSoon = 20 * time.Minute
)

// turn is a rotation that somebody wants.
type turn struct {
	how RotationType
	// wanted fails if the rotation must not be made, or not any more. It is asked before the token works in vain, and again
	// inside the transaction, where it decides.
	wanted func(*Key) error
	// note changes what the rotation means for the key beside its material; nil for nothing.
	note func(*Key)
}

// errSuperseded says that a rotation is not wanted any more, because another server has made it or the key has changed.
var errSuperseded = errors.New("the rotation is not wanted any more")

// RotateKeyOnDemand gives a key fresh material, 25 times at most. A key of imported material takes the one that is
// pending. The rotation is complete when the call returns, and automatic rotations stay when they are.
func (s *Service) RotateKeyOnDemand(ctx context.Context, r *Request, in *RotateKeyOnDemandInput) (*RotateKeyOnDemandOutput, error) {
	key, err := s.authorize(ctx, r, actionRotateKeyOnDemand, in.KeyId, asked{})
	if err != nil {
		return nil, err
	}
	_, err = s.rotate(ctx, key, turn{
		how:    OnDemand,
		wanted: func(key *Key) error { return s.demandable(r, key) },
		note:   func(key *Key) { key.OnDemand++ },
	})
	if err != nil {
		return nil, err
	}
	return &RotateKeyOnDemandOutput{KeyId: key.ARN()}, nil
}

// demandable decides whether a request may rotate the key now.
func (s *Service) demandable(r *Request, key *Key) error {
	if err := usable(r, actionRotateKeyOnDemand, key); err != nil {
		return err
	}
	if err := rotatable(key); err != nil {
		return err
	}
	switch {
	case key.Origin == OriginExternal && key.pending() == nil:
		return Errorf(InvalidState, "No available key material pending rotation for the key: %s.", key.ARN())
	case key.OnDemand >= maxOnDemand:
		return Errorf(LimitExceeded, "The on-demand rotations limit has been reached for the given keyId. No more on-demand rotations can be performed for this key: %s", key.ARN())
	case key.Rotation != nil && key.Rotation.Next.Sub(s.cfg.Clock()) <= automaticSoon:
		return Errorf(Conflict, "The request was rejected because an automatic rotation of this key is currently in progress or scheduled to begin within the next 20 minutes.")
	}
	return nil
}

// rotateOnSchedule makes the automatic rotation that is due. Of several servers that do so at once, one succeeds.
func (s *Service) rotateOnSchedule(ctx context.Context, key *Key) error {
	due := key.Rotation.Next
	return s.rotateByItself(ctx, key, "its rotation was due", turn{
		how: Automatic,
		wanted: func(key *Key) error {
			if key.State != Enabled || key.Rotation == nil || !key.Rotation.Next.Equal(due) {
				return errSuperseded
			}
			return nil
		},
		note: func(key *Key) { key.Rotation = s.following(key.Rotation) },
	})
}

// rotateSpent rotates a key, which must be Enabled, because a material of it has encrypted as often as it should. There is
// nothing to do if the material is no longer the current one. A key of imported material takes the one that is pending,
// and fails if there is none.
func (s *Service) rotateSpent(ctx context.Context, region, keyID, materialID string) error {
	ctx, cancel := context.WithTimeout(ctx, taskLimit)
	defer cancel()
	key, err := s.live(ctx, region, keyID)
	if err != nil || key == nil {
		return err
	}
	return s.rotateByItself(ctx, key, "its material has encrypted often enough", turn{
		how:    Automatic,
		wanted: func(key *Key) error { return spent(key, materialID) },
	})
}

// spent decides whether a material that has encrypted often enough is to be replaced now.
func spent(key *Key, materialID string) error {
	current := key.current()
	switch {
	case current == nil || current.ID != materialID:
		return errSuperseded
	case key.State != Enabled:
		return fmt.Errorf("rotating key %s: it is %s", key.ID, key.State)
	case key.Origin == OriginExternal && key.pending() == nil:
		return fmt.Errorf("rotating key %s: no imported material is pending rotation", key.ID)
	}
	return nil
}

// rotateByItself makes a rotation that no request asked for, and logs why.
func (s *Service) rotateByItself(ctx context.Context, key *Key, why string, t turn) error {
	now, err := s.rotate(ctx, key, t)
	switch {
	case errors.Is(err, errSuperseded), TypeOf(err) == NotFound: // rotated or deleted meanwhile
		return nil
	case err != nil:
		return err
	}
	s.cfg.Log.Info("key rotated", "key", now.ARN(), "why", why, "material", now.current().ID)
	return nil
}

// rotate makes a rotation, and gives the key as it then is. Like a new key, fresh material is on the token before its
// record is written; the material before it stays, for decryption.
func (s *Service) rotate(ctx context.Context, key *Key, t turn) (*Key, error) {
	if err := t.wanted(key); err != nil {
		return nil, err
	}
	if key.Origin == OriginExternal {
		return s.succeed(ctx, key, t, nil)
	}
	defer s.making.begin()()
	fresh, err := s.newMaterial(ctx, key)
	if err != nil {
		return nil, err
	}
	now, err := s.succeed(ctx, key, t, &fresh)
	if err != nil {
		s.discard(ctx, key.Region, fresh.Ref, err)
	}
	return now, err
}

// succeed makes fresh material the key's current one, or, without any, the one that is pending.
func (s *Service) succeed(ctx context.Context, key *Key, t turn, fresh *Material) (*Key, error) {
	return s.change(ctx, key, func(key *Key) error {
		if err := t.wanted(key); err != nil {
			return err
		}
		previous := key.current().ID
		if fresh != nil {
			key.Materials = append(key.Materials, *fresh)
		}
		m := &key.Materials[len(key.Materials)-1]
		m.Pending, m.Rotated, m.How = false, s.cfg.Clock().UTC(), t.how
		key.news = append(key.news, happening{Event: eventRotateKey, Rotation: &rotated{t.how, key.Origin, previous, m.ID}})
		if t.note != nil {
			t.note(key)
		}
		return nil
	})
}
