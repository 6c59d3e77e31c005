package kms

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"unique"

	"hsmkms/policy"
)

// Principals tells who users and roles are. Key policies and grants name them by ARN, and mean those who existed when they were
// made: the unique ids of these are kept beside them.
type Principals struct {
	// IDs gives the unique ids of principals by their ARNs, see policy.Bindings. Who does not exist is left out.
	IDs func(ctx context.Context, arns []string) (policy.Bindings, error)
	// ARNs gives the ARNs that they have now, by unique ids. Who is gone is left out.
	ARNs func(ctx context.Context, ids []string) (map[string]string, error)
}

// noPrincipals are the Principals where there are no users and roles.
var noPrincipals = Principals{
	IDs:  func(context.Context, []string) (policy.Bindings, error) { return policy.Bindings{}, nil },
	ARNs: func(context.Context, []string) (map[string]string, error) { return map[string]string{}, nil },
}

// ruled is a key policy with its bindings. Keys that have the same share it, compiled.
type ruled struct{ text, ids string }

func newRuling(text string, ids policy.Bindings) unique.Handle[ruled] {
	bound := ""
	if len(ids) > 0 {
		raw, _ := json.Marshal(ids) // in the order of the ARNs; it never fails
		bound = string(raw)
	}
	return unique.Make(ruled{text, bound})
}

// setPolicy gives the key a policy with its bindings.
func (k *Key) setPolicy(text string, ids policy.Bindings) {
	k.Policy, k.Principals, k.ruling = text, ids, newRuling(text, ids)
}

// compiled gives the key policy, ready to decide.
func (s *Service) compiled(key *Key) (*policy.Policy, error) {
	ruling := key.ruling
	if ruling == (unique.Handle[ruled]{}) { // of a record that was not read
		ruling = newRuling(key.Policy, key.Principals)
	}
	if compiled, ok := s.policies.Get(ruling); ok {
		return compiled, nil
	}
	compiled, err := policy.Load(policy.KeyPolicy, key.Policy)
	if err != nil {
		return nil, fmt.Errorf("reading the policy of key %s: %w", key.ID, err)
	}
	compiled = compiled.Bind(key.Principals)
	if unbound := compiled.Unbound(); len(unbound) > 0 {
		return nil, fmt.Errorf("the policy of key %s is not bound to %s", key.ID, unbound[0])
	}
	s.policies.Add(ruling, compiled)
	return compiled, nil
}

// bind binds the principals of a new key policy, who must exist.
func (s *Service) bind(ctx context.Context, p *policy.Policy) (*policy.Policy, policy.Bindings, error) {
	named := p.Unbound()
	if len(named) == 0 {
		return p, nil, nil
	}
	ids, err := s.cfg.Principals.IDs(ctx, named)
	if err != nil {
		return nil, nil, fmt.Errorf("looking up the principals of a policy: %w", err)
	}
	p = p.Bind(ids)
	if unknown := p.Unbound(); len(unknown) > 0 {
		return nil, nil, Errorf(MalformedPolicyDocument, "%s", policy.InvalidPrincipal(policy.KeyPolicy, unknown[0]))
	}
	return p, ids, nil
}

// shownPolicy gives the policy of a key as readers get it.
func (s *Service) shownPolicy(ctx context.Context, key *Key) (string, error) {
	if len(key.Principals) == 0 {
		return key.Policy, nil
	}
	arns, err := s.cfg.Principals.ARNs(ctx, slices.Collect(maps.Values(key.Principals)))
	if err != nil {
		return "", fmt.Errorf("looking up the principals of a policy: %w", err)
	}
	return key.Principals.Show(key.Policy, arns)
}

// named are the principals of a grant that are bound.
func (g *Grant) named() []string {
	return slices.DeleteFunc([]string{g.Terms.GranteePrincipal, g.Terms.RetiringPrincipal}, func(arn string) bool {
		return arn == "" || !policy.NeedsBinding(arn)
	})
}

// bindGrant binds the principals of a new grant, who must exist.
func (s *Service) bindGrant(ctx context.Context, g *Grant) error {
	named := g.named()
	if len(named) == 0 {
		return nil
	}
	ids, err := s.cfg.Principals.IDs(ctx, named)
	if err != nil {
		return fmt.Errorf("looking up the principals of a grant: %w", err)
	}
	for _, arn := range named {
		if ids[arn] == "" {
			return invalidPrincipal(arn)
		}
	}
	g.Terms.GranteeID, g.Terms.RetiringID = ids[g.Terms.GranteePrincipal], ids[g.Terms.RetiringPrincipal]
	return nil
}

func invalidPrincipal(arn string) error {
	return Errorf(InvalidArn, "ARN does not refer to a valid principal: %s", arn)
}

// grantee and retiring are whom the grant is for, as the indexes have them: unique ids, and the ARNs of the roots of accounts.
func (g *Grant) grantee() string { return cmp.Or(g.Terms.GranteeID, g.Terms.GranteePrincipal) }

func (g *Grant) retiring() string { return cmp.Or(g.Terms.RetiringID, g.Terms.RetiringPrincipal) }

// subject gives what the indexes have for a principal in a request: an ARN, or the unique id that is shown for somebody who is
// gone. It is "" if there is nobody of the ARN.
func (s *Service) subject(ctx context.Context, principal string) (string, error) {
	if !policy.IsPrincipal(principal) || !policy.NeedsBinding(principal) {
		return principal, nil
	}
	ids, err := s.cfg.Principals.IDs(ctx, []string{principal})
	if err != nil {
		return "", fmt.Errorf("looking up a principal: %w", err)
	}
	return ids[principal], nil
}

// subjects are what the indexes have for a caller: for himself, for his role, and for his account; "" for what he is not.
func subjects(caller *policy.Principal) [3]string {
	account := rootARN(caller.Account)
	if caller.Type == policy.Root {
		return [...]string{"", "", account}
	}
	return [...]string{caller.UserID, caller.RoleID(), account}
}

// entries describes grants for a list. Of principals who are gone it has the unique ids.
func (s *Service) entries(ctx context.Context, grants []*Grant) ([]GrantListEntry, error) {
	var ids []string
	for _, g := range grants {
		ids = append(ids, g.Terms.GranteeID, g.Terms.RetiringID)
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return id == "" })
	var arns map[string]string
	if len(ids) > 0 {
		var err error
		if arns, err = s.cfg.Principals.ARNs(ctx, ids); err != nil {
			return nil, fmt.Errorf("looking up the principals of grants: %w", err)
		}
	}
	entries := make([]GrantListEntry, len(grants))
	for i, g := range grants {
		entries[i] = g.entry()
		if id := g.Terms.GranteeID; id != "" {
			entries[i].GranteePrincipal = cmp.Or(arns[id], id)
		}
		if id := g.Terms.RetiringID; id != "" {
			entries[i].RetiringPrincipal = cmp.Or(arns[id], id)
		}
	}
	return entries, nil
}
