package kms

import "context"

// GetKeyLastUsageInput is the input of GetKeyLastUsage.
type GetKeyLastUsageInput struct {
	KeyId string
}

// GetKeyLastUsageOutput is the output of GetKeyLastUsage.
type GetKeyLastUsageOutput struct {
	KeyCreationDate   *Timestamp        `json:",omitempty"`
	KeyId             string            `json:",omitempty"`
	KeyLastUsage      *KeyLastUsageData // present even when empty
	TrackingStartDate *Timestamp        `json:",omitempty"`
}

// KeyLastUsageData is a successful cryptographic operation with a key; all is absent for a key that was never used.
type KeyLastUsageData struct {
	CloudTrailEventId string     `json:",omitempty"`
	KmsRequestId      string     `json:",omitempty"`
	Operation         string     `json:",omitempty"`
	Timestamp         *Timestamp `json:",omitempty"`
}

// GetKeyLastUsage gives the last successful cryptographic operation with a key, in any state. Uses are recorded from the
// creation of a key on. See uses for how far the answer may be behind.
func (s *Service) GetKeyLastUsage(ctx context.Context, r *Request, in *GetKeyLastUsageInput) (*GetKeyLastUsageOutput, error) {
	key, err := s.authorize(ctx, r, actionGetKeyLastUsage, in.KeyId, asked{})
	if err != nil {
		return nil, err
	}
	if err := usable(r, actionGetKeyLastUsage, key); err != nil {
		return nil, err
	}
	last, err := s.meter.last(ctx, key)
	if err != nil {
		return nil, err
	}
	created := Timestamp{key.Created}
	out := &GetKeyLastUsageOutput{KeyCreationDate: &created, KeyId: key.ID, KeyLastUsage: &KeyLastUsageData{}, TrackingStartDate: &created}
	if !last.At.IsZero() {
		out.KeyLastUsage = &KeyLastUsageData{
			CloudTrailEventId: last.EventID, KmsRequestId: last.RequestID, Operation: last.Operation, Timestamp: &Timestamp{last.At},
		}
	}
	return out, nil
}
