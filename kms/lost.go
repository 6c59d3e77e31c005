package kms

import (
	"context"

	"hsmkms/hsm"
	"hsmkms/store"
)

// lost looks into a token's failure to find key material that the key had when the request began. If the key has lost it
// meanwhile, because it was deleted, expired, or ended with the key, the answer is what a request that comes now gets, or
// would have got a moment ago if the material is back already. Any other failure is given back as it is.
func (s *Service) lost(ctx context.Context, key *Key, ref hsm.KeyRef, failure error) error {
	if hsm.ClassOf(failure) != hsm.KeyMissing {
		return failure
	}
	var now *Key
	err := s.cfg.Store.View(ctx, func(r store.Reader) error {
		value, found, err := r.Get(keyRecord(key.Region, key.ID))
		if err != nil || !found {
			return err
		}
		now, err = decodeKey(value)
		return err
	})
	if err != nil {
		return failure
	}
	if now != nil {
		now = now.at(s.cfg.Clock())
	}
	if now == nil {
		return notFound(key.ARN())
	}
	if now.refersTo(ref) {
		return failure
	}
	if err := cryptographic.check(now); err != nil {
		return err
	}
	return noMaterial(now)
}

func (k *Key) refersTo(ref hsm.KeyRef) bool {
	for i := range k.Materials {
		if k.Materials[i].Ref.ID == ref.ID {
			return true
		}
	}
	return false
}
