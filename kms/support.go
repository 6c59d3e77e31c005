package kms

import (
	"context"

	"hsmkms/hsm"
)

// What the token of a Region can do with keys of each kind is what it was seen to do, see hsm.Token.Support. The answer is
// asked for once and remembered there. Symmetric keys are not asked for: a token without them does not open.

// carries fails for a new key that the token of its Region cannot carry.
func (s *Service) carries(ctx context.Context, key *Key) error {
	if key.symmetric() {
		return nil
	}
	support, err := s.support(ctx, key)
	if err != nil {
		return err
	}
	if len(support.Algorithms) == 0 {
		return Errorf(UnsupportedOperation, "KeySpec %s with KeyUsage %s is not supported by the HSM token of this Region.", key.Spec, key.Usage)
	}
	return nil
}

// supports fails for an algorithm of a key that its token does not carry out. It is asked before a public key is used in
// the process too: what is encrypted to one must be decrypted some day.
func (s *Service) supports(ctx context.Context, key *Key, algorithm hsm.Algorithm) error {
	if key.symmetric() {
		return nil
	}
	support, err := s.support(ctx, key)
	if err != nil {
		return err
	}
	if _, can := support.Algorithms[algorithm]; !can {
		return Errorf(UnsupportedOperation, "Algorithm %s is not supported by the HSM token of this Region.", algorithm)
	}
	return nil
}

func (s *Service) support(ctx context.Context, key *Key) (hsm.Support, error) {
	support, err := s.cfg.Regions[key.Region].Token.Support(ctx, key.purpose().kind)
	return support, TokenError(err)
}
