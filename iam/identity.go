package iam

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"hsmkms/policy"
	"hsmkms/store"
)

// Identity is who is behind an access key, with all that decides what it may do. It is shared and must not be changed.
type Identity struct {
	Caller *policy.Caller
	// Version changes whenever the secret of the access key does.
	Version string
	// Session says that the credentials are temporary: a request must carry the session token whose SHA-256 is Token, before
	// Expires. The other two are zero without it.
	Session bool
	Token   [sha256.Size]byte
	Expires time.Time

	key *credential
}

// Identity gives the identity behind an access key, and false if there is none, or it is inactive, or its user or role is
// gone. A change is in force for the next call.
func (s *Service) Identity(ctx context.Context, accessKeyID string) (*Identity, bool, error) {
	return s.identities.Get(ctx, accessKeyID)
}

// Secret gives the secret of an access key, which the caller wipes. It is a visit to the token.
func (s *Service) Secret(ctx context.Context, accessKeyID string) ([]byte, error) {
	identity, found, err := s.identities.Get(ctx, accessKeyID)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("no access key %s", accessKeyID)
	}
	return s.cfg.Vault.Open(ctx, keyPrefix+accessKeyID, identity.key.Sealed)
}

// stale says which identities a change of a record affects. Users, roles and policies change rarely, and so all identities
// are made anew then.
func stale(changed string) (accessKeyID string, all bool) {
	if id, ok := strings.CutPrefix(changed, keyPrefix); ok {
		return id, false
	}
	return "", strings.HasPrefix(changed, entityPrefix) || strings.HasPrefix(changed, policyPrefix)
}

// compose reads all that belongs to the identity behind an access key.
func compose(r store.Reader, accessKeyID string) (*Identity, bool, error) {
	key, err := read[credential](r, keyPrefix+accessKeyID)
	if err != nil || key == nil || key.Inactive {
		return nil, false, err
	}
	caller, err := callerOf(r, key)
	if err != nil || caller == nil {
		return nil, false, err
	}
	caller.AccessKeyID = key.ID
	identity := &Identity{Caller: caller, Version: key.Created.Format(time.RFC3339Nano), key: key}
	if key.Session != nil {
		caller.Issued = key.Created
		identity.Session, identity.Expires = true, key.Session.Expires
		if copy(identity.Token[:], key.Session.Token) != sha256.Size {
			return nil, false, fmt.Errorf("access key %s has a session token of %d bytes", key.ID, len(key.Session.Token))
		}
	}
	return identity, true, nil
}

// errNoPolicy says that a managed policy is missing.
var errNoPolicy = errors.New("there is no such policy")

// callerOf makes the caller; nil if the owner of the key is gone, or a managed policy that narrowed the session.
func callerOf(r store.Reader, key *credential) (*policy.Caller, error) {
	if key.Owner == key.Account {
		return &policy.Caller{Principal: policy.Principal{
			Type: policy.Root, Account: key.Account, ARN: rootARN(key.Account), UserID: key.Account,
		}}, nil
	}
	owner, err := read[entity](r, entityPrefix+key.Owner)
	if err != nil || owner == nil {
		return nil, err
	}
	caller := &policy.Caller{Principal: principalOf(owner, key.Session)}
	if err := addPolicies(r, caller, owner); err != nil {
		return nil, fmt.Errorf("reading the policies of %s: %w", owner.arn(), err)
	}
	if key.Session == nil {
		return caller, nil
	}
	err = addSessionPolicies(r, caller, key)
	if errors.Is(err, errNoPolicy) { // what it denied is denied, with the rest
		return nil, nil //nolint:nilnil // see above
	}
	if err != nil {
		return nil, fmt.Errorf("reading the policies of the session %s: %w", key.ID, err)
	}
	return caller, nil
}

// principalOf makes the principal of a user, whose access key may be that of a session, or of a session of a role.
func principalOf(e *entity, session *session) policy.Principal {
	p := policy.Principal{Type: policy.IAMUser, Account: e.Account, ARN: e.arn(), UserID: e.ID, UserName: e.Name, Tags: tagMap(e.Tags)}
	if e.Kind == role {
		p.Type, p.UserName, p.RoleARN = policy.AssumedRole, "", e.arn()
		p.ARN, p.UserID = sessionARN(e, session.Name), e.ID+":"+session.Name
		maps.Copy(p.Tags, tagMap(session.Tags))
		p.SourceIdentity = session.SourceIdentity
	}
	return p
}

func sessionARN(r *entity, name string) string {
	return "arn:aws:sts::" + r.Account + ":assumed-role/" + r.Name + "/" + name
}

func tagMap(tags []Tag) map[string]string {
	m := make(map[string]string, len(tags))
	for _, tag := range tags {
		m[tag.Key] = tag.Value
	}
	return m
}

// addPolicies gives a caller the policies of its user or role.
func addPolicies(r store.Reader, caller *policy.Caller, e *entity) (err error) {
	for _, name := range slices.Sorted(maps.Keys(e.Inline)) {
		if caller.Identity, err = appendParsed(caller.Identity, e.Inline[name]); err != nil {
			return err
		}
	}
	if caller.Identity, err = appendManaged(r, caller.Identity, e.Account, e.Attached); err != nil {
		return err
	}
	if e.Boundary == "" {
		return nil
	}
	boundary, err := appendManaged(r, nil, e.Account, []string{e.Boundary})
	if err == nil {
		caller.Boundary = boundary[0]
	}
	return err
}

// addSessionPolicies gives a caller the policies of its session.
func addSessionPolicies(r store.Reader, caller *policy.Caller, key *credential) (err error) {
	if key.Session.Policy != "" {
		if caller.Session, err = appendParsed(nil, key.Session.Policy); err != nil {
			return err
		}
	}
	caller.Session, err = appendManaged(r, caller.Session, key.Account, key.Session.PolicyARNs)
	return err
}

// appendManaged appends managed policies. One that is missing is errNoPolicy, for it may have been the one that denies. (A
// policy is not deleted while a user or role has it, but it may be while a session has it.)
func appendManaged(r store.Reader, policies []*policy.Policy, account string, arns []string) ([]*policy.Policy, error) {
	for _, arn := range arns {
		m, err := byARN(r, account, arn)
		if err == nil && m == nil {
			err = fmt.Errorf("%s: %w", arn, errNoPolicy)
		}
		if err == nil {
			policies, err = appendParsed(policies, m.document())
		}
		if err != nil {
			return nil, err
		}
	}
	return policies, nil
}

// appendParsed appends a policy whose document was accepted before.
func appendParsed(policies []*policy.Policy, document string) ([]*policy.Policy, error) {
	p, err := policy.Load(policy.AcceptedPolicy, document)
	if err != nil {
		return nil, fmt.Errorf("reading a policy that was accepted: %w", err)
	}
	return append(policies, p), nil
}
