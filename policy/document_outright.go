package policy

import "strings"

// AllowsOutright tells whether the document by itself plainly lets a caller do an action, such as kms:PutKeyPolicy, with a
// resource: a statement without conditions allows it, and none without conditions denies it. It is for judging a policy
// ahead of the requests to come, of which no conditions can be known, and decides no request. It does not see policy
// variables, that a conditional Deny may always be met, and what else stands in the caller's way: policies of the caller's
// own may deny, and an Allow for an account needs one of them to allow as well.
func (d *Document) AllowsOutright(caller *Principal, action, resource string) bool {
	allowed := false
	for i := range d.Statements {
		s := &d.Statements[i]
		if len(s.Conditions) > 0 || !s.Principals.include(caller) || !s.Actions.match(foldCase(action), foldCase) || !s.Resources.match(resource, asIs) {
			continue
		}
		if s.Effect != Allow {
			return false
		}
		allowed = allowed || !s.Principals.Except // those who are not listed were hardly meant to be trusted
	}
	return allowed
}

// match tells whether the patterns are about a value. Each pattern passes through normal first.
func (p *Patterns) match(value string, normal func(string) string) bool {
	for _, pattern := range p.List {
		if wildcardMatch(normal(pattern), value) {
			return !p.Except
		}
	}
	return p.Except
}

func foldCase(s string) string { return strings.ToLower(s) }

func asIs(s string) string { return s }

// wildcardMatch tells whether a value matches a pattern, in which * stands for any characters and ? for one. A failure after a *
// only ever moves the latest of them on, so that no pattern takes more than its length times that of the value.
func wildcardMatch(pattern, value string) bool {
	p, v := 0, 0
	star, from := -1, 0 // the latest *, and where in the value what follows it is tried
	for v < len(value) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, v
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == value[v]):
			p++
			v++
		case star >= 0:
			from++
			p, v = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
