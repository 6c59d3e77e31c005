package kms

import (
	"context"
	"fmt"

	"hsmkms/policy"
	"hsmkms/store"
)

// principalsBound says that all key policies and grants are bound to whom they mean. A store of a version that did not bind
// them lacks it.
const principalsBound = systemPrefix + "principals-bound"

// Upgrade binds the key policies and grants of a store that was written by a version that did not, to those who have the names
// now, or to nobody. It must be called before the service is used. If it is cut off, it goes on where it was the next time.
func (s *Service) Upgrade(ctx context.Context) error {
	if err := s.bindAll(ctx); err != nil {
		return fmt.Errorf("binding key policies and grants to principals: %w", err)
	}
	return nil
}

func (s *Service) bindAll(ctx context.Context) error {
	done := false
	err := s.cfg.Store.View(ctx, func(r store.Reader) (err error) {
		_, done, err = r.Get(principalsBound)
		return err
	})
	if err != nil || done {
		return err
	}
	if err := s.eachRecord(ctx, keyPrefix, s.bindOldPolicy); err != nil {
		return err
	}
	if err := s.eachRecord(ctx, grantPrefix, s.bindOldGrant); err != nil {
		return err
	}
	return s.update(ctx, func(t *recorder) error { return t.mark(principalsBound) })
}

// eachRecord calls f, which may write a record but neither adds nor removes one, with all records below a prefix.
func (s *Service) eachRecord(ctx context.Context, prefix string, f func(ctx context.Context, record string) error) error {
	for after := ""; ; {
		records, err := s.some(ctx, prefix, after, "", tasksAtOnce)
		if err != nil || len(records) == 0 {
			return err
		}
		for _, record := range records {
			if err := f(ctx, record); err != nil {
				return fmt.Errorf("%s: %w", record, err)
			}
		}
		after = records[len(records)-1]
	}
}

// stored reads a record outside of a transaction.
func stored[T any](ctx context.Context, s *Service, record string) (value *T, err error) {
	err = s.cfg.Store.View(ctx, func(r store.Reader) (err error) {
		value, err = read[T](r, record)
		return err
	})
	return value, err
}

// bindOldPolicy binds the policy of a key, as far as it is not bound. Nothing else happens meanwhile.
func (s *Service) bindOldPolicy(ctx context.Context, record string) error {
	key, err := stored[Key](ctx, s, record)
	if err != nil || key == nil {
		return err
	}
	p, err := policy.Load(policy.KeyPolicy, key.Policy)
	if err != nil {
		return err
	}
	unbound := p.Bind(key.Principals).Unbound()
	if len(unbound) == 0 {
		return nil
	}
	found, err := s.cfg.Principals.IDs(ctx, unbound)
	if err != nil {
		return err
	}
	key.Principals = key.Principals.Adopt(unbound, found)
	return s.update(ctx, func(t *recorder) error { return t.put(record, key) })
}

// bindOldGrant binds a grant, and moves it in the indexes, which have it by the ARNs until then.
func (s *Service) bindOldGrant(ctx context.Context, record string) error {
	g, err := stored[Grant](ctx, s, record)
	if err != nil || g == nil {
		return err
	}
	named := g.named()
	if len(named) == 0 || g.Terms.GranteeID+g.Terms.RetiringID != "" {
		return nil
	}
	found, err := s.cfg.Principals.IDs(ctx, named)
	if err != nil {
		return err
	}
	ids := policy.Bindings{}.Adopt(named, found)
	bound := *g
	bound.Terms.GranteeID, bound.Terms.RetiringID = ids[g.Terms.GranteePrincipal], ids[g.Terms.RetiringPrincipal]
	return s.update(ctx, func(t *recorder) error {
		for entry := range g.entries() {
			if err := t.remove(entry); err != nil {
				return err
			}
		}
		return t.writeGrant(&bound)
	})
}
