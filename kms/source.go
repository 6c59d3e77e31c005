package kms

import (
	"context"
	"slices"

	"hsmkms/hsm"
	"hsmkms/kms/ciphertext"
)

// openTarget is what a request says of a ciphertext to open.
type openTarget struct {
	keyID       string
	member      string // the member of the request that keyID came from
	blob        []byte
	algorithm   hsm.Algorithm
	context     map[string]string
	grantTokens []string
	// values are those of other condition keys than the usual ones.
	values []given
	// blind asks for a judgement without looking at the ciphertext.
	blind bool
}

// source is a ciphertext that the caller may open, with the key that opens it.
type source struct {
	region  Region
	key     *Key
	opening hsm.Opening
	// material is nil when the ciphertext was not looked at.
	material *Material
}

// source finds the key of a ciphertext and decides whether the caller may open it, in AWS's order: the key must exist,
// the caller be allowed, the key be the ciphertext's, and its state and usage fit.
func (s *Service) source(ctx context.Context, r *Request, a action, t *openTarget) (*source, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	region, err := s.region(r)
	if err != nil {
		return nil, err
	}
	key, blob, err := s.sourceKey(ctx, r, a, t)
	if err != nil {
		return nil, err
	}
	if err := s.able(ctx, r, a, key, t.algorithm); err != nil {
		return nil, err
	}
	if err := checkContextFor(key, t.context); err != nil {
		return nil, err
	}
	from := &source{region: region, key: key}
	switch {
	case t.blind:
	case key.symmetric():
		from.opening, from.material, err = opening(key, blob, t.context)
	default:
		from.opening, from.material, err = openingPair(key, t.blob, t.algorithm)
	}
	return from, err
}

// asked is what policies and grants may be about.
func (t *openTarget) asked() asked {
	return asked{context: t.context, tokens: t.grantTokens, algorithm: t.algorithm, values: t.values}
}

func (t *openTarget) check() error {
	if t.blob == nil && !t.blind {
		return Errorf(Validation, "1 validation error detected: Value at 'ciphertextBlob' failed to satisfy constraint: Member must not be null")
	}
	if t.keyID == "" && (t.blind || t.algorithm != hsm.SymmetricDefault) {
		return Errorf(Validation, "1 validation error detected: Value at '%s' failed to satisfy constraint: Member must not be null", t.member)
	}
	return checkContext(t.context)
}

// sourceKey finds the key by the request, or by the ciphertext if the request does not name it. What is to be opened with
// the algorithm of a key pair says nothing of its key.
func (s *Service) sourceKey(ctx context.Context, r *Request, a action, t *openTarget) (key *Key, blob ciphertext.Blob, err error) {
	if t.keyID != "" {
		if key, err = s.authorize(ctx, r, a, t.keyID, t.asked()); err != nil || t.blind || t.bare(key) {
			return key, blob, err
		}
	}
	if blob, err = parseBlob(t.blob); err != nil {
		return nil, blob, err
	}
	if key == nil {
		key, err = s.authorizeID(ctx, r, a, blob.KeyID, t.asked())
		return key, blob, err
	}
	if key.ID != blob.KeyID {
		return nil, blob, Errorf(IncorrectKey, "The key ID in the request does not identify a CMK that can perform this operation.")
	}
	return key, blob, nil
}

// bare tells whether the ciphertext is to be one of a key pair.
func (t *openTarget) bare(key *Key) bool {
	return t.algorithm != hsm.SymmetricDefault && !key.symmetric()
}

// blind tells whether a dry run shall not look at the ciphertext. The modifier means nothing without DryRun.
func blind(dryRun bool, modifiers []string) bool {
	return dryRun && slices.Contains(modifiers, "IGNORE_CIPHERTEXT")
}
