package iam

import (
	"context"
	"errors"
	"strings"

	"hsmkms/policy"
	"hsmkms/store"
)

// Request is what an operation must know of the request besides its Input. It belongs to one request.
type Request struct {
	// ID is the request id that the answer carries.
	ID string
	// Operation is the name in the AWS API, for example CreateUser.
	Operation string
	// Caller is the authenticated identity. It acts on its own account.
	Caller *policy.Caller
	// Origin has the values of condition keys about the connection, such as aws:SourceIp; nil for none.
	Origin policy.Values
	// Roles gets the ARN of the role that AssumeRole was allowed, for the audit trail.
	Roles []string

	// asks is what the operation's Input has for condition keys.
	asks asks
}

// asks has the values of condition keys that come from a request and what it is about.
type asks struct {
	tags         []Tag  // of the request
	resourceTags []Tag  // of what it is about
	boundary     string // the permissions boundary that is asked for, or else the one that there is
	policyARN    string
	// The rest is for AssumeRole.
	externalID     string
	sessionName    string
	sourceIdentity string
	transitive     []string
}

// values are the asks with what is known of the connection.
type values struct {
	*asks
	origin policy.Values
}

// Value implements policy.Values.
func (v values) Value(key policy.ConditionKey, name string) policy.Value {
	switch key {
	case policy.KeyRequestTag:
		return policy.Member(tagMap(v.tags), name)
	case policy.KeyTagKeys:
		return policy.KeysOf(tagMap(v.tags))
	case policy.KeyResourceTag, policy.KeyIAMResourceTag:
		return policy.Member(tagMap(v.resourceTags), name)
	case policy.KeyIAMPermissionsBoundary:
		return policy.Optional(v.boundary)
	case policy.KeyIAMPolicyARN:
		return policy.Optional(v.policyARN)
	case policy.KeySTSExternalID:
		return policy.Optional(v.externalID)
	case policy.KeySTSRoleSessionName:
		return policy.Optional(v.sessionName)
	case policy.KeySTSSourceIdentity:
		return policy.Optional(v.sourceIdentity)
	case policy.KeySTSTransitiveTagKeys:
		return policy.Texts(v.transitive)
	}
	if v.origin == nil {
		return policy.Value{}
	}
	return v.origin.Value(key, name)
}

// question is what policies are asked about an action with a resource.
func (r *Request) question(action, account, arn string) *policy.Request {
	return &policy.Request{Caller: r.Caller, Action: action, Resource: arn, Account: account, Values: values{&r.asks, r.Origin}}
}

// permit decides whether the policies of the caller allow an action with something in its account. The root user needs none.
func permit(r *Request, action, arn string) error {
	if err := checkCredentials(r); err != nil {
		return err
	}
	q := r.question(action, r.Caller.Account, arn)
	if d := policy.DecideByIdentity(q); !d.Allowed {
		return errorf(AccessDenied, "%s", d.Sentence(q))
	}
	return nil
}

// permitOperation is permit for the action of the operation's name.
func permitOperation(r *Request, arn string) error { return permit(r, "iam:"+r.Operation, arn) }

// checkCredentials refuses temporary credentials of users and root users: without multi-factor authentication, which there
// is not, they are for other services.
func checkCredentials(r *Request) error {
	if r.Caller.Type != policy.AssumedRole && isTemporary(r) {
		return errorf(InvalidClientTokenID, "The security token included in the request is invalid")
	}
	return nil
}

func isTemporary(r *Request) bool { return strings.HasPrefix(r.Caller.AccessKeyID, temporary) }

// view calls fn with a user or role that the caller may do the operation with, in a snapshot of the store.
func (s *Service) view(ctx context.Context, r *Request, k kind, name string, fn func(store.Reader, *entity) error) error {
	return s.cfg.Store.View(ctx, func(reader store.Reader) error {
		e, err := open(reader, r, k, name)
		if err != nil {
			return err
		}
		return fn(reader, e)
	})
}

// change is view in a transaction, which writes the record that fn has changed.
func (s *Service) change(ctx context.Context, r *Request, k kind, name string, fn func(store.Txn, *entity) error) error {
	return s.update(ctx, func(t store.Txn) (string, error) {
		e, err := open(t, r, k, name)
		if err != nil {
			return "", err
		}
		if err := fn(t, e); err != nil {
			return "", err
		}
		return entityPrefix + e.ID, put(t, entityPrefix+e.ID, e)
	})
}

// open finds a user or role that the caller may do the operation with. Whoever may not is not told whether it exists.
func open(reader store.Reader, r *Request, k kind, name string) (*entity, error) {
	e, err := byName(reader, k, r.Caller.Account, name)
	if err != nil {
		return nil, err
	}
	asked := *r
	arn := k.arn(r.Caller.Account, "/", name)
	if e != nil {
		arn, asked.asks.resourceTags = e.arn(), e.Tags
		if asked.asks.boundary == "" {
			asked.asks.boundary = e.Boundary
		}
	}
	if err := permitOperation(&asked, arn); err != nil {
		return nil, err
	}
	if e == nil {
		return nil, noSuch(k, name)
	}
	return e, nil
}

// update runs a transaction, and forgets afterwards what was kept of the record that fn says it wrote, so that the change is
// in force for the next request. It does so too when the outcome is uncertain.
func (s *Service) update(ctx context.Context, fn func(store.Txn) (changed string, err error)) error {
	changed := ""
	err := s.cfg.Store.Update(ctx, func(t store.Txn) (err error) {
		changed, err = fn(t)
		return err
	})
	if err == nil || errors.Is(err, store.ErrUncertain) {
		s.identities.Forget(changed)
	}
	return err
}
