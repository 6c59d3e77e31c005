package kms

import (
	"context"
	"encoding/hex"
	"slices"
)

// RetireGrantInput is the input of RetireGrant.
type RetireGrantInput struct {
	DryRun     bool
	GrantId    string
	GrantToken string
	KeyId      string
}

// RevokeGrantInput is the input of RevokeGrant.
type RevokeGrantInput struct {
	DryRun  bool
	GrantId string
	KeyId   string
}

// RetireGrant ends a grant, named by its token, or by its key and id, on behalf of those for whom it was made: its retiring
// principal, its grantee if it may, or the account of the key.
func (s *Service) RetireGrant(ctx context.Context, r *Request, in *RetireGrantInput) (*Empty, error) {
	name, g, err := s.grantToRetire(ctx, r, in)
	if err != nil {
		return nil, err
	}
	if err := s.retire(ctx, r, name, g, in); err != nil {
		if hidden := []ErrorType{NotFound, InvalidGrantID, AccessDenied}; name.account != r.Caller.Account && slices.Contains(hidden, TypeOf(err)) {
			return nil, s.denied(r, actionRetireGrant, name, &asked{}) // whether there is such a grant is not for other accounts to know
		}
		return nil, err
	}
	return s.endGrant(ctx, g, in.DryRun)
}

// grantToRetire finds a grant, nil if there is none, and the name of its key.
func (s *Service) grantToRetire(ctx context.Context, r *Request, in *RetireGrantInput) (keyName, *Grant, error) {
	byToken, byID := in.GrantToken != "", in.KeyId != "" && in.GrantId != ""
	if byToken == byID || byToken && in.KeyId+in.GrantId != "" {
		return keyName{}, nil, Errorf(Validation, "You must specify either a GrantToken, or a KeyId and a GrantId.")
	}
	if byToken {
		g, err := s.openGrantToken(ctx, in.GrantToken)
		if err == nil && (g == nil || g.Region != r.Region) {
			err = errBadGrantToken(nil)
		}
		if err != nil {
			return keyName{}, nil, err
		}
		return keyName{account: g.Account, region: g.Region, id: g.Key}, g, nil
	}
	name, err := actionRetireGrant.keyName(r, in.KeyId)
	if err != nil {
		return name, nil, err
	}
	g, err := s.grant(ctx, name.region, name.id, in.GrantId)
	return name, g, err
}

// retire decides whether the caller may retire a grant, nil if there is none, of a key.
func (s *Service) retire(ctx context.Context, r *Request, name keyName, g *Grant, in *RetireGrantInput) error {
	key, err := s.find(ctx, name)
	if err != nil {
		return err
	}
	if g == nil {
		return noGrant(in.GrantId)
	}
	if err := s.judgeRetirement(ctx, r, key, g); err != nil {
		return err
	}
	r.Keys = append(r.Keys, key.ARN())
	return nil
}

// noGrant is the error for an id that no grant of a key has.
func noGrant(id string) error {
	if err := checkGrantID(id); err != nil {
		return err
	}
	return Errorf(NotFound, "Grant '%s' does not exist", id)
}

// isGrantID tells what could be the id of a grant.
func isGrantID(id string) bool {
	raw, err := hex.DecodeString(id)
	return err == nil && len(raw) == grantIDSize && hex.EncodeToString(raw) == id
}

// checkGrantID refuses what could not.
func checkGrantID(id string) error {
	if !isGrantID(id) {
		return Errorf(InvalidGrantID, "Invalid grant ID: %s", id)
	}
	return nil
}

// RevokeGrant ends a grant on behalf of those who manage the key.
func (s *Service) RevokeGrant(ctx context.Context, r *Request, in *RevokeGrantInput) (*Empty, error) {
	key, err := s.authorize(ctx, r, actionRevokeGrant, in.KeyId, asked{})
	if err != nil {
		return nil, err
	}
	g, err := s.grant(ctx, key.Region, key.ID, in.GrantId)
	if err != nil {
		return nil, err
	}
	if g == nil {
		return nil, noGrant(in.GrantId)
	}
	return s.endGrant(ctx, g, in.DryRun)
}

func (s *Service) endGrant(ctx context.Context, g *Grant, dry bool) (*Empty, error) {
	if dry {
		return nil, dryRun()
	}
	return empty(nil, s.update(ctx, func(t *recorder) error { return t.removeGrant(g.record()) }))
}
