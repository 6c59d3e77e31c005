package policy

import (
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

// Bind gives the policy with principals bound. Those that ids lacks stay as they are.
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
