package kms

import (
	"context"
	"errors"

	"hsmkms/hsm"
	"hsmkms/policy"
)

// asked is what authorization must know of a request besides who asks, the action and the key. The zero value is for
// requests of which there is nothing else to know.
type asked struct {
	// context is the encryption context; policies and grants see it with symmetric keys only.
	context map[string]string
	// tokens are grant tokens.
	tokens []string
	// newGrant is the grant that CreateGrant would create.
	newGrant *policy.Grant
	// tags and tagKeys are those that the request would give or take.
	tags    []Tag
	tagKeys []string
	// algorithm is that of encryption; empty for operations without one.
	algorithm hsm.Algorithm
	// values are those of the operation's other condition keys.
	values []given
}

// authorize is the only way from a key identifier in a request to a key: it finds the key and decides whether the
// caller may do the action with it. It does not look at the key's state; see usable.
func (s *Service) authorize(ctx context.Context, r *Request, a action, identifier string, q asked) (*Key, error) {
	granted, err := s.openGrantTokens(ctx, q.tokens)
	if err != nil {
		return nil, err
	}
	name, err := a.keyName(r, identifier)
	if err != nil {
		return nil, err
	}
	foreign := name.account != r.Caller.Account
	if foreign && !a.foreign {
		return nil, s.denied(r, a, name, &q)
	}
	key, err := s.find(ctx, name)
	if err == nil {
		err = s.permit(ctx, r, a, key, judgement{asked: &q, alias: name.alias, granted: granted})
	}
	if foreign && (TypeOf(err) == NotFound || TypeOf(err) == AccessDenied) {
		return nil, s.denied(r, a, name, &q)
	}
	if err != nil {
		return nil, err
	}
	return key, nil
}

// ownKey finds a key of the caller's account for an action that key policies are not asked about.
func (s *Service) ownKey(ctx context.Context, r *Request, a action, identifier string) (*Key, error) {
	name, err := a.keyName(r, identifier)
	if err != nil {
		return nil, err
	}
	if name.account != r.Caller.Account {
		return nil, s.denied(r, a, name, &asked{})
	}
	key, err := s.find(ctx, name)
	if err == nil {
		r.Keys = append(r.Keys, key.ARN())
	}
	return key, err
}

// keyName reads a key identifier that an operation names its key by.
func (a action) keyName(r *Request, identifier string) (keyName, error) {
	name, err := parseKeyName(r, identifier)
	if err == nil && name.alias != "" && !a.aliases {
		return name, Errorf(NotFound, "Invalid keyId '%s'", identifier)
	}
	return name, err
}

// authorizeID is authorize for the bare key id in a ciphertext, which may belong to any account of the Region.
func (s *Service) authorizeID(ctx context.Context, r *Request, a action, id string, q asked) (*Key, error) {
	granted, err := s.openGrantTokens(ctx, q.tokens)
	if err != nil {
		return nil, err
	}
	key, err := s.live(ctx, r.Region, id)
	if err != nil {
		return nil, err
	}
	if key != nil {
		err = s.permit(ctx, r, a, key, judgement{asked: &q, granted: granted})
	}
	if key == nil || TypeOf(err) == AccessDenied && key.Account != r.Caller.Account {
		return nil, Errorf(AccessDenied, "The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are not allowed to access.")
	}
	if err != nil {
		return nil, err
	}
	return key, nil
}

// permit decides with judge and enters the key into the request's list if the caller may use it.
func (s *Service) permit(ctx context.Context, r *Request, a action, key *Key, j judgement) error {
	if err := s.judge(ctx, r, a, key, j); err != nil {
		return err
	}
	if r.Keys == nil {
		r.Keys = make([]string, 0, 2) // as ReEncrypt has
	}
	r.Keys = append(r.Keys, key.ARN())
	return nil
}

// judgement is what judge must know besides the action and the key.
type judgement struct {
	*asked
	// alias is the name of the alias by which the request names the key; empty if it does not.
	alias string
	// granted are the grants of the request's grant tokens, which may be for other keys.
	granted []*Grant
}

// judge decides whether the caller may do the action with the key: by the key policy, the caller's own policies and, if these
// do not allow it, the grants of the key. Who is not of the key's account must not see its answer, see denied.
func (s *Service) judge(ctx context.Context, r *Request, a action, key *Key, j judgement) error {
	compiled, err := s.compiled(key)
	if err != nil {
		return err
	}
	c := &circumstances{ctx: ctx, s: s, r: r, key: key, alias: j.alias, asked: j.asked}
	request := c.decide(a)
	decision := policy.DecideByKeyPolicy(request, compiled, nil)
	if decision.Reason >= policy.ResourceSilent {
		grants, err := s.grantsTo(ctx, request, key, j.granted)
		if err != nil {
			return err
		}
		if len(grants) > 0 {
			decision = policy.DecideByKeyPolicy(request, compiled, grants)
		}
	}
	return c.conclude(decision)
}

// judgeRetirement decides whether the caller may retire a grant, as judge does.
func (s *Service) judgeRetirement(ctx context.Context, r *Request, key *Key, g *Grant) error {
	c := &circumstances{ctx: ctx, s: s, r: r, key: key, asked: &asked{}}
	return c.conclude(policy.DecideRetire(c.decide(actionRetireGrant), &g.Terms))
}

// conclude makes the answer of a decision. None counts that was made without a value that could not be found out.
func (c *circumstances) conclude(d policy.Decision) error {
	switch {
	case c.failure != nil:
		return c.failure
	case d.Allowed:
		return nil
	}
	return Errorf(AccessDenied, "%s", d.Sentence(&c.request))
}

// denied is the answer about a key of another account that does not exist, or does not let the caller in. These must not be
// told apart, so it is made of the name in the request and of the caller's own policies, without a look at the key: if they
// do not allow the action, that is the reason, and else a sentence that is true of both.
func (s *Service) denied(r *Request, a action, name keyName, q *asked) error {
	c := &circumstances{r: r, alias: name.alias, asked: q}
	request := c.decide(a)
	request.Resource, request.Account, request.EncryptionContext = name.arn(), name.account, q.context
	decision := policy.DecideByKeyPolicy(request, s.open, nil)
	if decision.Allowed {
		decision = policy.Decision{Reason: policy.ResourceHidden}
	}
	return Errorf(AccessDenied, "%s", decision.Sentence(request))
}

// authorizeAlone decides about an action that is for no key, by the caller's own policies. resource is the ARN of what it is
// for, which belongs to the caller's account; "" for nothing in particular.
func (s *Service) authorizeAlone(r *Request, permission, resource string, q asked) error {
	c := &circumstances{r: r, asked: &q}
	request := c.decide(action{permission: permission})
	request.Resource = resource
	if resource != "" {
		request.Account = r.Caller.Account
	}
	if decision := policy.DecideByIdentity(request); !decision.Allowed {
		return Errorf(AccessDenied, "%s", decision.Sentence(request))
	}
	return nil
}

// find looks a key up by its name.
func (s *Service) find(ctx context.Context, name keyName) (*Key, error) {
	id := name.id
	if name.alias != "" {
		alias, found, err := s.aliases.Get(ctx, aliasRecords(name.account, name.region)+name.alias)
		if err != nil {
			return nil, err
		}
		if !found {
			return nil, aliasNotFound(name.arn())
		}
		id = alias.KeyID
	}
	key, err := s.live(ctx, name.region, id)
	switch {
	case err != nil:
		return nil, err
	case key != nil && key.Account == name.account:
		return key, nil
	case name.alias != "": // it goes the way of its key
		return nil, aliasNotFound(name.arn())
	default:
		return nil, notFound(name.arn())
	}
}

// live gives a key as it is now, see Key.at; nil if there is none.
func (s *Service) live(ctx context.Context, region, id string) (*Key, error) {
	key, found, err := s.keys.Get(ctx, keyRecord(region, id))
	if err != nil || !found {
		return nil, err
	}
	return key.at(s.cfg.Clock()), nil
}

func notFound(arn string) error { return Errorf(NotFound, "Key '%s' does not exist", arn) }

func aliasNotFound(arn string) error { return Errorf(NotFound, "Alias %s is not found.", arn) }

// usable checks, in AWS's order, that the key's state allows the action and that the key is for it. operation is the
// name that AWS's text gives.
func usable(r *Request, a action, key *Key) error {
	if err := a.states.check(key); err != nil {
		return err
	}
	if a.usage != "" && key.Usage != a.usage {
		return Errorf(InvalidKeyUsage, "%s key usage is %s which is not valid for %s.", key.ARN(), key.Usage, r.Operation)
	}
	return nil
}

// able is usable for an action that has an algorithm: the key must have it, and its token carry it out.
func (s *Service) able(ctx context.Context, r *Request, a action, key *Key, algorithm hsm.Algorithm) error {
	if err := ableInProcess(r, a, key, algorithm); err != nil {
		return err
	}
	return s.supports(ctx, key, algorithm)
}

// ableInProcess is able for what is done without the token.
func ableInProcess(r *Request, a action, key *Key, algorithm hsm.Algorithm) error {
	if err := usable(r, a, key); err != nil {
		return err
	}
	return checkAlgorithm(key, algorithm)
}

// checkRecipient refuses attestation documents, which come from AWS Nitro Enclaves only.
func checkRecipient(recipient *RecipientInfo) error {
	if recipient != nil {
		return Errorf(UnsupportedOperation, "The Recipient parameter is not supported.")
	}
	return nil
}

// dryRun is the answer to a request that would have succeeded.
func dryRun() error {
	return Errorf(DryRunOperation, "The request would have succeeded, but the DryRun option is set.")
}

// TokenError makes of a token's failure what a caller may know; the cause is for the log. BadInput is the caller's matter
// and must be dealt with before. Other errors are given back as they are.
func TokenError(err error) error {
	var shown *Error
	if err == nil || errors.As(err, &shown) {
		return err
	}
	switch hsm.ClassOf(err) {
	case hsm.TokenGone, hsm.SessionDead, hsm.KeyMissing, hsm.LoginFailed, hsm.TokenFull:
		return &Error{Type: KeyUnavailable, Message: "The request was rejected because the key is not available. Try again later.", Cause: err}
	case hsm.Busy:
		return &Error{Type: DependencyTimeout, Message: "The system timed out while trying to fulfill the request.", Cause: err}
	default:
		return err
	}
}
