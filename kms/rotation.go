package kms

import (
	"context"
	"time"

	"hsmkms/policy"
)

// RotationType says why a key was rotated, in AWS's words.
type RotationType string

// The reasons for a rotation.
const (
	Automatic RotationType = "AUTOMATIC"
	OnDemand  RotationType = "ON_DEMAND"
)

// Rotation is the automatic rotation of a key.
type Rotation struct {
	// Days is the rotation period.
	Days int32 `json:"days"`
	// Next is when the key is rotated next.
	Next time.Time `json:"next"`
}

// EnableKeyRotationInput is the input of EnableKeyRotation.
type EnableKeyRotationInput struct {
	KeyId                string
	RotationPeriodInDays *int32
}

// DisableKeyRotationInput is the input of DisableKeyRotation.
type DisableKeyRotationInput struct {
	KeyId string
}

// GetKeyRotationStatusInput is the input of GetKeyRotationStatus.
type GetKeyRotationStatusInput struct {
	KeyId string
}

// GetKeyRotationStatusOutput is the output of GetKeyRotationStatus.
type GetKeyRotationStatusOutput struct {
	KeyId                string     `json:",omitempty"`
	KeyRotationEnabled   bool       // present even when false
	NextRotationDate     *Timestamp `json:",omitempty"`
	RotationPeriodInDays int32      `json:",omitempty"`
	// OnDemandRotationStartDate tells of a rotation under way. There never is one: RotateKeyOnDemand answers when it is done.
	OnDemandRotationStartDate *Timestamp `json:",omitempty"`
}

// usualPeriod is the rotation period in days if a request names none.
const usualPeriod = 365

// EnableKeyRotation has a key rotated automatically, once in a period of 90 to 2560 days (365 if not said) that begins
// now. A key that has the same period already keeps its date, unless that is more than a period away, because the clock was
// wrong when it was reckoned.
func (s *Service) EnableKeyRotation(ctx context.Context, r *Request, in *EnableKeyRotationInput) (*Empty, error) {
	days := int32(usualPeriod)
	if in.RotationPeriodInDays != nil {
		days = *in.RotationPeriodInDays
	}
	asked := asked{values: []given{{policy.KeyRotationPeriodInDays, policy.Number(int64(days))}}}
	return empty(s.manage(ctx, r, actionEnableKeyRotation, in.KeyId, asked, func(key *Key) error {
		if err := rotatable(key); err != nil {
			return err
		}
		next := s.moment().Add(s.period(days))
		if key.Rotation == nil || key.Rotation.Days != days || key.Rotation.Next.After(next) {
			key.Rotation = &Rotation{Days: days, Next: next}
		}
		return nil
	}))
}

// DisableKeyRotation ends the automatic rotation of a key; it is no error if there is none.
func (s *Service) DisableKeyRotation(ctx context.Context, r *Request, in *DisableKeyRotationInput) (*Empty, error) {
	return empty(s.manage(ctx, r, actionDisableKeyRotation, in.KeyId, asked{}, func(key *Key) error {
		key.Rotation = nil
		return rotatable(key)
	}))
}

// GetKeyRotationStatus tells whether and when a key is rotated automatically. A key pending deletion is not; it is again,
// with the date that it had, if its deletion is cancelled.
func (s *Service) GetKeyRotationStatus(ctx context.Context, r *Request, in *GetKeyRotationStatusInput) (*GetKeyRotationStatusOutput, error) {
	key, err := s.authorize(ctx, r, actionGetKeyRotationStatus, in.KeyId, asked{})
	if err != nil {
		return nil, err
	}
	if err := usable(r, actionGetKeyRotationStatus, key); err != nil {
		return nil, err
	}
	if err := rotatable(key); err != nil {
		return nil, err
	}
	out := &GetKeyRotationStatusOutput{KeyId: key.ARN()}
	if key.Rotation != nil && key.State != PendingDeletion {
		out.KeyRotationEnabled, out.RotationPeriodInDays = true, key.Rotation.Days
		out.NextRotationDate = &Timestamp{key.Rotation.Next}
	}
	return out, nil
}

// rotatable fails for a key of a spec that is never rotated, in AWS's way: without text. Which origins are rotated
// automatically is in the table of states.
func rotatable(key *Key) error {
	if key.Spec != SymmetricDefault {
		return &Error{Type: UnsupportedOperation}
	}
	return nil
}

// period is how long a rotation period lasts.
func (s *Service) period(days int32) time.Duration { return time.Duration(days) * s.cfg.Day }

// moment is the time from which rotation periods are reckoned, as exact as answers tell their end.
func (s *Service) moment() time.Time { return s.cfg.Clock().UTC().Truncate(time.Millisecond) }

// following is the rotation that follows this one: a period after its date, or, when the key could not be rotated for so
// long that this has passed too, a period from now.
func (s *Service) following(rotation *Rotation) *Rotation {
	now, period := s.moment(), s.period(rotation.Days)
	next := rotation.Next.Add(period)
	if !next.After(now) {
		next = now.Add(period)
	}
	return &Rotation{Days: rotation.Days, Next: next}
}
