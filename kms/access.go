package kms

import (
	"context"
	"errors"

	"hsmkms/hsm"
	"hsmkms/policy"
)

// authorize is the only way from a key identifier in a request to a key: it finds the key and decides whether the
// caller may do the action with it. It does not look at the key's state; see usable.
func (s *Service) authorize(ctx context.Context, r *Request, a action, identifier string) (*Key, error) {
	name, err := parseKeyName(r, identifier)
	if err != nil {
		return nil, err
	}
	if name.alias != "" && !a.aliases {
		return nil, Errorf(NotFound, "Invalid keyId '%s'", identifier)
	}
	if name.account != r.Caller.Account {
		// Whether the key exists is not for other accounts to know.
		return nil, denied(r, a, name.arn())
	}
	key, err := s.find(ctx, name)
	if err != nil {
		return nil, err
	}
	return key, s.permit(r, a, key)
}

// authorizeID is authorize for the bare key id in a ciphertext, which may belong to any account of the Region.
func (s *Service) authorizeID(ctx context.Context, r *Request, a action, id string) (*Key, error) {
	key, err := s.live(ctx, r.Region, id)
	if err != nil {
		return nil, err
	}
	if key == nil || s.permit(r, a, key) != nil {
		return nil, Errorf(AccessDenied, "The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are not allowed to access.")
	}
	return key, nil
}

// permit decides with judge and enters the key into the request's list if the caller may use it.
func (s *Service) permit(r *Request, a action, key *Key) error {
	if err := s.judge(r, a, key); err != nil {
		return err
	}
	r.Keys = append(r.Keys, key.ARN())
	return nil
}

// judge decides whether the caller may do the action with the key: the root user of the key's own account may, others may
// not.
func (s *Service) judge(r *Request, a action, key *Key) error {
	if r.Caller.Type != policy.Root || key.Account != r.Caller.Account {
		return denied(r, a, key.ARN())
	}
	return nil
}

// permitAccount decides whether the caller may do what no key decides about: the root user may, others may not.
func permitAccount(r *Request, permission string) error {
	if r.Caller.Type != policy.Root {
		return Errorf(AccessDenied, "User: %s is not authorized to perform: kms:%s because no identity-based policy allows the kms:%s action",
			r.Caller.ARN, permission, permission)
	}
	return nil
}

func denied(r *Request, a action, resource string) error {
	return Errorf(AccessDenied, "User: %s is not authorized to perform: kms:%s on resource: %s because no resource-based policy allows the kms:%s action",
		r.Caller.ARN, a.permission, resource, a.permission)
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
	case name.alias != "": // it goes the way of its key, a moment later
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

// checkGrantTokens refuses grant tokens: no grant was ever given, so no token can be valid.
func checkGrantTokens(tokens []string) error {
	if len(tokens) > 0 {
		return Errorf(InvalidGrantToken, "The specified grant token is not valid.")
	}
	return nil
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
