package kms

import "context"

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
	byToken, byID := in.GrantToken != "", in.KeyId != "" && in.GrantId != ""
	if byToken == byID || byToken && in.KeyId+in.GrantId != "" {
		return nil, Errorf(Validation, "You must specify either a GrantToken, or a KeyId and a GrantId.")
	}
	if byToken {
		g, err := s.openGrantToken(ctx, in.GrantToken)
		if err != nil {
			return nil, err
		}
		if g == nil {
			return nil, errBadGrantToken(nil)
		}
		return s.retire(ctx, r, g, in.DryRun)
	}
	name, err := parseKeyName(r, in.KeyId)
	if err != nil {
		return nil, err
	}
	if name.alias != "" {
		return nil, Errorf(NotFound, "Invalid keyId '%s'", in.KeyId)
	}
	g, err := s.grant(ctx, name.region, name.id, in.GrantId)
	if err != nil {
		return nil, err
	}
	if g == nil || g.Account != name.account {
		key := &Key{ID: name.id, Account: name.account, Region: name.region}
		if name.account != r.Caller.Account { // whether there is such a grant is not for other accounts to know
			return nil, s.denied(r, actionRetireGrant, key, &asked{})
		}
		return nil, s.noGrant(ctx, key, in.GrantId)
	}
	return s.retire(ctx, r, g, in.DryRun)
}

// noGrant tells that a key has no grant of an id, or that there is no such key.
func (s *Service) noGrant(ctx context.Context, key *Key, id string) error {
	now, err := s.live(ctx, key.Region, key.ID)
	switch {
	case err != nil:
		return err
	case now == nil || now.Account != key.Account:
		return notFound(key.ARN())
	}
	return Errorf(NotFound, "Grant '%s' does not exist", id)
}

// retire ends a grant if the caller may.
func (s *Service) retire(ctx context.Context, r *Request, g *Grant, dry bool) (*Empty, error) {
	key, err := s.live(ctx, g.Region, g.Key)
	if err != nil {
		return nil, err
	}
	if g.Region != r.Region || key == nil {
		return nil, notFound(g.key().ARN())
	}
	if err := s.judgeRetirement(ctx, r, key, g); err != nil {
		return nil, err
	}
	r.Keys = append(r.Keys, key.ARN())
	return s.endGrant(ctx, g, dry)
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
		return nil, Errorf(NotFound, "Grant '%s' does not exist", in.GrantId)
	}
	return s.endGrant(ctx, g, in.DryRun)
}

func (s *Service) endGrant(ctx context.Context, g *Grant, dry bool) (*Empty, error) {
	if dry {
		return nil, dryRun()
	}
	return empty(nil, s.update(ctx, func(t *recorder) error { return t.removeGrant(g.record()) }))
}
