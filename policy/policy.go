package policy

import "strings"

// Policy is a Document that is ready to decide. It is immutable and may be shared.
type Policy struct {
	kind       Kind
	statements []rule
	// unbound says that a principal is not bound yet.
	unbound bool
}

// Load parses and compiles a policy. It is strict: an element that the language does not have, or has in another place for this
// kind of policy, is an error and never overlooked, and so is a value that does not suit its operator. Whether principals exist
// is not checked: who they are is up to Bind, without which the policy decides nothing if it names some. It fails with a
// MalformedError.
//
// A statement of a key policy may lack Action or Resource; it then has no effect, as AWS documents.
func Load(kind Kind, text string) (*Policy, error) {
	d, err := parsePolicy(text, kind)
	if err != nil {
		return nil, err
	}
	return Compile(d)
}

// Compile makes a Policy. It fails with a MalformedError, which no document that was parsed gives.
func Compile(d *Document) (*Policy, error) {
	p := &Policy{kind: d.Kind, statements: make([]rule, len(d.Statements))}
	for i := range d.Statements {
		var err error
		if p.statements[i], err = newRule(&d.Statements[i], d); err != nil {
			return nil, err
		}
	}
	p.unbound = len(p.Unbound()) > 0
	return p, nil
}

// rule is a compiled Statement.
type rule struct {
	deny       bool
	principals audience
	actions    []string // patterns in lower case
	notActions bool
	resources  []template
	// notResources says that the resources are the others; everything, that the statement is about whatever it is attached to.
	notResources bool
	everything   bool
	conditions   []condition
	// lasting says that conditions and resources are the same for the caller's next request.
	lasting bool
}

func newRule(s *Statement, d *Document) (rule, error) {
	compiled := rule{
		deny: s.Effect != Allow, principals: newAudience(&s.Principals), notActions: s.Actions.Except, notResources: s.Resources.Except,
		everything: d.Kind == TrustPolicy, lasting: true,
	}
	for _, action := range s.Actions.List {
		compiled.actions = append(compiled.actions, wildcards.Replace(strings.ToLower(action)))
	}
	for _, resource := range s.Resources.List {
		t, err := newTemplate(resource, d.Version == Version2012, true)
		if err != nil {
			return rule{}, err
		}
		compiled.resources = append(compiled.resources, t)
		compiled.lasting = compiled.lasting && t.lasting()
	}
	for i := range s.Conditions {
		c, err := newCondition(&s.Conditions[i], d)
		if err != nil {
			return rule{}, err
		}
		compiled.conditions = append(compiled.conditions, c)
		compiled.lasting = compiled.lasting && c.lasting()
	}
	return compiled, nil
}

// about tells whether the statement is about a request, whoever asks.
func (s *rule) about(r *Request) bool { return s.hasAction(r.Action) && s.hasResource(r) && s.met(r) }

func (s *rule) hasAction(action string) bool {
	for _, pattern := range s.actions {
		if like(pattern, action, true) {
			return !s.notActions
		}
	}
	return s.notActions
}

func (s *rule) hasResource(r *Request) bool {
	if s.everything {
		return true
	}
	for i := range s.resources {
		if s.resources[i].matches(likeText, r, r.resource()) {
			return !s.notResources
		}
	}
	return s.notResources
}

func (s *rule) met(r *Request) bool {
	for i := range s.conditions {
		if !s.conditions[i].met(r) {
			return false
		}
	}
	return true
}

// verdict is what an identity-based policy says of a request.
type verdict uint8

// The verdicts, from the weakest.
const (
	silent verdict = iota
	allows
	denies
)

// ofIdentity gives the verdict of an identity-based policy. A policy of another kind has no business there, and denies.
func (p *Policy) ofIdentity(r *Request) verdict {
	if p == nil || p.kind != IdentityPolicy {
		return denies
	}
	says := silent
	for i := range p.statements {
		switch s := &p.statements[i]; {
		case s.deny && s.about(r):
			return denies
		case !s.deny && says == silent && s.about(r):
			says = allows
		}
	}
	return says
}

// together gives the verdict of several identity-based policies.
func together(all []*Policy, r *Request) verdict {
	says := silent
	for _, p := range all {
		if says = max(says, p.ofIdentity(r)); says == denies {
			break
		}
	}
	return says
}

// ofResource tells how well a resource-based policy means the caller by what it allows, and whether it denies. A policy of
// another kind has no business there, and denies; and so does one that is not bound, of which it is unknown whom it means.
func (p *Policy) ofResource(r *Request, kind Kind) (means relation, denied bool) {
	if p == nil || p.kind != kind || p.unbound {
		return stranger, true
	}
	for i := range p.statements {
		s := &p.statements[i]
		if s.deny {
			if s.principals.deny(&r.Caller.Principal) && s.about(r) {
				return stranger, true
			}
		} else if m := s.principals.allow(&r.Caller.Principal); m > means && s.about(r) {
			means = m
		}
	}
	return means, false
}

// KeepsControl tells whether a key policy, once it is in force, will let the caller make a request such as
// kms:PutKeyPolicy for its key: the check that a caller doesn't lock himself out. A statement counts only if it can be known
// to hold for a request to come: its conditions, if any, are on who calls and on what of the key never changes (see lasting). So
// neither an Allow nor a Deny under a condition such as aws:SourceIp counts. Nor does an Allow with NotPrincipal: those who
// are not listed were hardly meant to be trusted. A statement for the caller's account does count, although an
// identity-based policy must then allow it too.
func (p *Policy) KeepsControl(r *Request) bool {
	if p == nil || p.kind != KeyPolicy || p.unbound || !r.wellFormed() {
		return false
	}
	kept := false
	for i := range p.statements {
		s := &p.statements[i]
		if !s.lasting || !s.about(r) {
			continue
		}
		if s.deny && s.principals.deny(&r.Caller.Principal) {
			return false
		}
		kept = kept || !s.deny && !s.principals.except && s.principals.allow(&r.Caller.Principal) > stranger
	}
	return kept
}
