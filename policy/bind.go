package policy

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Bindings say who the principals of a policy are: under their ARNs, as they are written, the unique ids that they had when it
// was put. An ARN can come to mean somebody else, when a user or role is deleted and another made under its name; an id
// can't. It is in the form of Principal.UserID, and that of a role is what stands before the colon in those of its sessions.
type Bindings map[string]string

// NeedsBinding tells whether an AWS principal is bound by a unique id: all are but accounts, by the ARNs of their roots, and
// Everybody.
func NeedsBinding(principal string) bool {
	n := newName(principal)
	return principal != Everybody && n.account == ""
}

// Unbound gives the ARNs of the principals that are to be bound before the policy can decide anything, each once. Until then
// it denies everything.
func (p *Policy) Unbound() []string {
	var arns []string
	for i := range p.statements {
		for _, n := range p.statements[i].principals.names {
			if n.account == "" && n.id == "" && !slices.Contains(arns, n.arn) {
				arns = append(arns, n.arn)
			}
		}
	}
	return arns
}

// Bind gives the policy with its principals bound by ids, and unbound if ids lacks them.
func (p *Policy) Bind(ids Bindings) *Policy {
	bound := &Policy{kind: p.kind, statements: slices.Clone(p.statements)}
	for i := range bound.statements {
		audience := &bound.statements[i].principals
		audience.names = slices.Clone(audience.names)
		for j := range audience.names {
			if n := &audience.names[j]; n.account == "" {
				n.id = ids[n.arn]
			}
		}
	}
	bound.unbound = len(bound.Unbound()) > 0
	return bound
}

// RoleID gives the unique id of the role of an AssumedRole; "" for others.
func (p *Principal) RoleID() string {
	id, _, found := strings.Cut(p.UserID, ":")
	if p.Type != AssumedRole || !found {
		return ""
	}
	return id
}

// identified tells whether the principal has the ids that bindings may have for it.
func (p *Principal) identified() bool {
	switch p.Type {
	case Root: // is meant by the account
		return true
	case AssumedRole:
		return p.RoleID() != ""
	default:
		return p.UserID != ""
	}
}

// Nobody is a unique id that no user and no role ever has: 0 is none of the characters that ids are made of.
const Nobody = "AIDA00000000000000000"

// Show gives the text of a policy as readers get it: character for character as it was put, but for principals who have
// another ARN now, or are gone, of whom the unique id is left. arns has the ARNs of now by unique ids.
func (b Bindings) Show(text string, arns map[string]string) (string, error) {
	names := map[string]string{}
	for arn, id := range b {
		if shown := cmp.Or(arns[id], id); shown != arn {
			names[arn] = shown
		}
	}
	if len(names) == 0 {
		return text, nil
	}
	return rewrite(text, names)
}

// Adopt gives the bindings with principals added to whom found binds them, and to Nobody those whom it doesn't: of a policy that
// was put before there were bindings.
func (b Bindings) Adopt(unbound []string, found Bindings) Bindings {
	all := maps.Clone(b)
	if all == nil && len(unbound) > 0 {
		all = Bindings{}
	}
	for _, arn := range unbound {
		all[arn] = cmp.Or(found[arn], Nobody)
	}
	return all
}
