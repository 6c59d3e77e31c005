package kms

import (
	"context"
	"time"

	"hsmkms/policy"
)

// ScheduleKeyDeletionInput is the input of ScheduleKeyDeletion.
type ScheduleKeyDeletionInput struct {
	KeyId               string
	PendingWindowInDays *int32
}

// ScheduleKeyDeletionOutput is the output of ScheduleKeyDeletion.
type ScheduleKeyDeletionOutput struct {
	DeletionDate        *Timestamp `json:",omitempty"`
	KeyId               string     `json:",omitempty"`
	KeyState            KeyState   `json:",omitempty"`
	PendingWindowInDays int32      `json:",omitempty"`
}

// CancelKeyDeletionInput is the input of CancelKeyDeletion.
type CancelKeyDeletionInput struct {
	KeyId string
}

// CancelKeyDeletionOutput is the output of CancelKeyDeletion.
type CancelKeyDeletionOutput struct {
	KeyId string `json:",omitempty"`
}

// The waiting period of a deletion, in days.
const (
	shortestWindow = 7
	longestWindow  = 30
)

// ScheduleKeyDeletion makes a key unusable and has it deleted, with its material on the token, when the waiting period of
// 7 to 30 days (30 if not said) is over. Until then nothing is destroyed.
func (s *Service) ScheduleKeyDeletion(ctx context.Context, r *Request, in *ScheduleKeyDeletionInput) (*ScheduleKeyDeletionOutput, error) {
	window := int32(longestWindow)
	if in.PendingWindowInDays != nil {
		window = *in.PendingWindowInDays
	}
	if window < shortestWindow || window > longestWindow {
		return nil, Errorf(Validation, "PendingWindowInDays must be between %d and %d.", shortestWindow, longestWindow)
	}
	// Answers show milliseconds, and the key ends when they say.
	deletion := s.cfg.Clock().UTC().Truncate(time.Millisecond).Add(time.Duration(window) * s.cfg.Day)
	asked := asked{values: []given{{policy.KeyScheduleKeyDeletionPendingWindowInDays, policy.Number(int64(window))}}}
	key, err := s.manage(ctx, r, actionScheduleKeyDeletion, in.KeyId, asked, func(key *Key) error {
		key.State, key.Deletion = PendingDeletion, deletion
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ScheduleKeyDeletionOutput{
		DeletionDate: &Timestamp{deletion}, KeyId: key.ARN(), KeyState: PendingDeletion, PendingWindowInDays: window,
	}, nil
}

// CancelKeyDeletion saves a key from its deletion and leaves it Disabled, or PendingImport if it has lost imported
// material meanwhile.
func (s *Service) CancelKeyDeletion(ctx context.Context, r *Request, in *CancelKeyDeletionInput) (*CancelKeyDeletionOutput, error) {
	key, err := s.manage(ctx, r, actionCancelKeyDeletion, in.KeyId, asked{}, func(key *Key) error {
		key.State, key.Deletion = DisabledState, time.Time{}
		key.settle()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &CancelKeyDeletionOutput{KeyId: key.ARN()}, nil
}

// endKey deletes a key whose time is over (see Key.at): from here on it does not exist, and its doom does the rest.
func (t *recorder) endKey(region, id, entry string) error {
	if err := t.remove(entry); err != nil {
		return err
	}
	value, found, err := t.Get(keyRecord(region, id))
	if err != nil || !found {
		return err
	}
	key, err := decodeKey(value)
	if err != nil {
		return err
	}
	pairs, err := t.removeImports(region, id)
	if err != nil {
		return err
	}
	end := key.doom()
	end.Refs = append(end.Refs, pairs...)
	if err := t.doom(region, id, end); err != nil {
		return err
	}
	for _, h := range append(key.expire(key.Deletion).news, happening{Event: eventDeleteKey}) {
		if err := t.happened(key, h); err != nil {
			return err
		}
	}
	for _, record := range []string{key.indexed, accountKeys(key.Account, region) + id, keyRecord(region, id)} {
		if err := t.remove(record); err != nil {
			return err
		}
	}
	return nil
}

// doom is what is left to be destroyed of a key that ends.
func (k *Key) doom() doom {
	end := doom{Key: k.ID, Account: k.Account}
	for i := range k.Materials {
		end.Meters = append(end.Meters, k.Materials[i].ID)
		if k.Materials[i].present() {
			end.Refs = append(end.Refs, k.Materials[i].Ref)
		}
	}
	return end
}
