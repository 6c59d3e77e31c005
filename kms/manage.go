package kms

import "context"

// EnableKeyInput is the input of EnableKey.
type EnableKeyInput struct {
	KeyId string
}

// DisableKeyInput is the input of DisableKey.
type DisableKeyInput struct {
	KeyId string
}

// UpdateKeyDescriptionInput is the input of UpdateKeyDescription.
type UpdateKeyDescriptionInput struct {
	Description string
	KeyId       string
}

// EnableKey makes a key usable; it is no error if it is.
func (s *Service) EnableKey(ctx context.Context, r *Request, in *EnableKeyInput) (*Empty, error) {
	return empty(s.manage(ctx, r, actionEnableKey, in.KeyId, asked{}, func(key *Key) error { key.State = Enabled; return nil }))
}

// DisableKey makes a key unusable until EnableKey; it is no error if it is.
func (s *Service) DisableKey(ctx context.Context, r *Request, in *DisableKeyInput) (*Empty, error) {
	return empty(s.manage(ctx, r, actionDisableKey, in.KeyId, asked{}, func(key *Key) error { key.State = DisabledState; return nil }))
}

// UpdateKeyDescription changes a key's description.
func (s *Service) UpdateKeyDescription(ctx context.Context, r *Request, in *UpdateKeyDescriptionInput) (*Empty, error) {
	return empty(s.manage(ctx, r, actionUpdateKeyDescription, in.KeyId, asked{}, func(key *Key) error { key.Description = in.Description; return nil }))
}

// Empty is the output of operations that answer nothing: the body of the answer is empty, not an empty object.
type Empty struct{}

func empty(_ *Key, err error) (*Empty, error) {
	if err != nil {
		return nil, err
	}
	return &Empty{}, nil
}

// manage applies a change to the record of a key, if the key's state allows the action, and gives the key as it then is.
func (s *Service) manage(ctx context.Context, r *Request, a action, keyID string, q asked, f func(*Key) error) (*Key, error) {
	key, err := s.authorize(ctx, r, a, keyID, q)
	if err != nil {
		return nil, err
	}
	return s.change(ctx, key, func(now *Key) error {
		if err := usable(r, a, now); err != nil {
			return err
		}
		return f(now)
	})
}
