package iam

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"hsmkms/policy"
	"hsmkms/store"
)

// Identify gives the unique ids of users, roles, sessions of roles and federated users by their ARNs, as policies are bound
// to them. A session needs to be one of a role that exists, and a federated user one of an account. Who does not exist is
// left out.
func (s *Service) Identify(ctx context.Context, arns []string) (ids policy.Bindings, err error) {
	err = s.cfg.Store.View(ctx, func(r store.Reader) (err error) {
		ids, err = identify(r, arns)
		return err
	})
	return ids, err
}

// ARNs gives the ARNs that users and roles have now, by unique ids as Identify gives them. Who is gone is left out.
func (s *Service) ARNs(ctx context.Context, ids []string) (arns map[string]string, err error) {
	err = s.cfg.Store.View(ctx, func(r store.Reader) (err error) {
		arns, err = arnsOf(r, ids)
		return err
	})
	return arns, err
}

func identify(r store.Reader, arns []string) (policy.Bindings, error) {
	ids := policy.Bindings{}
	for _, arn := range arns {
		id, err := identifyOne(r, arn)
		if err != nil {
			return nil, err
		}
		if id != "" {
			ids[arn] = id
		}
	}
	return ids, nil
}

// namedARN is the form of the ARNs of principals: the account, the kind, and what is the kind's.
var namedARN = regexp.MustCompile(`^arn:aws:(?:iam|sts)::([0-9]{12}):(user|role|assumed-role|federated-user)/(.+)$`)

// identifyOne gives the unique id of a principal; "" if it does not exist.
func identifyOne(r store.Reader, arn string) (string, error) {
	parts := namedARN.FindStringSubmatch(arn)
	if parts == nil {
		return "", nil
	}
	owner, name := parts[1], parts[3]
	switch parts[2] {
	case "federated-user":
		a, err := read[account](r, accountPrefix+owner)
		if err != nil || a == nil {
			return "", err
		}
		return owner + ":" + name, nil
	case "assumed-role":
		name, session, _ := strings.Cut(name, "/")
		e, err := byName(r, role, owner, name)
		if err != nil || e == nil || sessionARN(e, session) != arn {
			return "", err
		}
		return e.ID + ":" + session, nil
	}
	e, err := byName(r, kind(parts[2]), owner, lastPart(name))
	if err != nil || e == nil || e.arn() != arn {
		return "", err
	}
	return e.ID, nil
}

func arnsOf(r store.Reader, ids []string) (map[string]string, error) {
	arns := map[string]string{}
	for _, id := range ids {
		owner, name, session := strings.Cut(id, ":")
		e, err := read[entity](r, entityPrefix+owner)
		switch {
		case err != nil:
			return nil, err
		case e != nil && session:
			arns[id] = sessionARN(e, name)
		case e != nil:
			arns[id] = e.arn()
		case policy.IsAccount(owner):
			arns[id] = "arn:aws:sts::" + owner + ":federated-user/" + name
		}
	}
	return arns, nil
}

// bindTrust binds the principals of a role's trust policy to those who have their names now. All must exist.
func (e *entity) bindTrust(r store.Reader) error {
	if e.Kind != role {
		return nil
	}
	trust, err := policy.Load(policy.TrustPolicy, e.Trust)
	if err != nil {
		return malformed(err)
	}
	if e.Trusted, err = identify(r, trust.Unbound()); err != nil {
		return err
	}
	if unknown := trust.Bind(e.Trusted).Unbound(); len(unknown) > 0 {
		return malformed(policy.InvalidPrincipal(policy.TrustPolicy, unknown[0]))
	}
	return nil
}

// trust gives the trust policy of a role, ready to decide.
func (e *entity) trust() (*policy.Policy, error) {
	trust, err := policy.Load(policy.TrustPolicy, e.Trust)
	if err != nil {
		return nil, fmt.Errorf("reading the trust policy of %s: %w", e.arn(), err)
	}
	return trust.Bind(e.Trusted), nil
}

// shown gives an entity with its trust policy as readers get it. It is not to be written.
func (e *entity) shown(r store.Reader) (*entity, error) {
	arns, err := arnsOf(r, slices.Collect(maps.Values(e.Trusted)))
	if err != nil {
		return nil, err
	}
	shown := *e
	shown.Trust, err = e.Trusted.Show(e.Trust, arns)
	return &shown, err
}

// trustBound says that all trust policies are bound. A store of a version that did not bind them lacks it.
const trustBound = recordPrefix + "trust-bound"

// Upgrade binds the trust policies of a store that was written by a version that did not, to those who have the names now, or
// to nobody. It must be called before the service is used.
func (s *Service) Upgrade(ctx context.Context) error {
	err := s.bindAll(ctx)
	if err != nil {
		return fmt.Errorf("binding the trust policies of roles: %w", err)
	}
	return nil
}

func (s *Service) bindAll(ctx context.Context) error {
	var roles []string
	done := false
	err := s.cfg.Store.View(ctx, func(r store.Reader) (err error) {
		if _, done, err = r.Get(trustBound); err == nil && !done {
			roles, err = unboundRoles(r)
		}
		return err
	})
	if err != nil || done {
		return err
	}
	for _, record := range roles { // one at a time, for they may be large
		if err := s.cfg.Store.Update(ctx, func(t store.Txn) error { return bindOld(t, record) }); err != nil {
			return err
		}
	}
	return s.cfg.Store.Update(ctx, func(t store.Txn) error { return t.Put(trustBound, nil) })
}

// unboundRoles gives the records of the roles whose trust policies are not bound.
func unboundRoles(r store.Reader) (records []string, err error) {
	all, err := names(r, entityPrefix)
	for _, id := range all {
		e, err := read[entity](r, entityPrefix+id)
		if err != nil {
			return nil, err
		}
		if e.Kind != role {
			continue
		}
		trust, err := e.trust()
		if err != nil {
			return nil, err
		}
		if len(trust.Unbound()) > 0 {
			records = append(records, entityPrefix+id)
		}
	}
	return records, err
}

// bindOld binds the trust policy of a role to those who have the names now, or to nobody.
func bindOld(t store.Txn, record string) error {
	e, err := read[entity](t, record)
	if err != nil {
		return err
	}
	trust, err := e.trust()
	if err != nil {
		return err
	}
	unbound := trust.Unbound()
	found, err := identify(t, unbound)
	if err != nil {
		return err
	}
	e.Trusted = e.Trusted.Adopt(unbound, found)
	return put(t, record, e)
}
