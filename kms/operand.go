package kms

import (
	"context"

	"hsmkms/hsm"
	"hsmkms/policy"
)

// operandTarget is what a request says of a key that is to do something other than encryption.
type operandTarget struct {
	keyID       string
	algorithm   hsm.Algorithm
	grantTokens []string
	// condition is the condition key that the algorithm is the value of, and values are those of others.
	condition policy.ConditionKey
	values    []given
	// public is set for what the public key alone does, which needs no token.
	public bool
}

// operand is a key that the caller may use, with its material.
type operand struct {
	token hsm.Token
	key   *Key
	ref   hsm.KeyRef
}

// operand finds the key and decides whether the caller may use it, in AWS's order: the key must exist, the caller be
// allowed, and its state, usage and algorithm fit.
func (s *Service) operand(ctx context.Context, r *Request, a action, t *operandTarget) (*operand, error) {
	region, err := s.region(r)
	if err != nil {
		return nil, err
	}
	key, err := s.authorize(ctx, r, a, t.keyID, asked{tokens: t.grantTokens, values: append(t.values, text(t.condition, t.algorithm))})
	if err != nil {
		return nil, err
	}
	if t.public {
		err = ableInProcess(r, a, key, t.algorithm)
	} else {
		err = s.able(ctx, r, a, key, t.algorithm)
	}
	if err != nil {
		return nil, err
	}
	material := key.current()
	if material == nil || !material.present() {
		return nil, noMaterial(key)
	}
	return &operand{token: region.Token, key: key, ref: material.Ref}, nil
}
