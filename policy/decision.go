package policy

// Decision is what policies and grants say of a request. The zero Decision denies.
type Decision struct {
	// Allowed says that the caller may.
	Allowed bool
	// Reason is why not; Allowance if Allowed.
	Reason Reason
	// Grant is the grant without which the request would not be allowed; nil for none.
	Grant *Grant
}

// Reason is why a request is denied, in the order in which AWS looks.
type Reason uint8

// The reasons. The zero Reason is that the request itself can't be decided.
const (
	Undecidable Reason = iota
	Allowance
	ResourceDenies
	IdentityDenies
	BoundaryDenies
	SessionDenies
	ResourceSilent
	IdentitySilent
	BoundarySilent
	SessionSilent
	// ResourceHidden is never decided: it is told to callers of other accounts, who must not learn whether there is a resource
	// and what its policy says.
	ResourceHidden
)

// reasons are the ends of AWS's sentences: what stands before the action, and if it is named, what stands behind it.
var reasons = map[Reason][2]string{
	ResourceDenies: {" with an explicit deny in a resource-based policy"},
	IdentityDenies: {" with an explicit deny in an identity-based policy"},
	BoundaryDenies: {" with an explicit deny in a permissions boundary"},
	SessionDenies:  {" with an explicit deny in a session policy"},
	ResourceSilent: {" because no resource-based policy allows the ", " action"},
	IdentitySilent: {" because no identity-based policy allows the ", " action"},
	BoundarySilent: {" because no permissions boundary allows the ", " action"},
	SessionSilent:  {" because no session policy allows the ", " action"},
	ResourceHidden: {" because the resource does not exist in this Region, no resource-based policies allow access, or a resource-based policy explicitly denies access"},
}

// Sentence is the message of AWS's AccessDenied errors for a request that was denied. Without a resource, the sentence has
// none either.
func (d Decision) Sentence(r *Request) string {
	arn := ""
	if r.Caller != nil {
		arn = r.Caller.ARN
	}
	sentence := "User: " + arn + " is not authorized to perform: " + r.Action
	if r.Resource != "" {
		sentence += " on resource: " + r.Resource
	}
	if why, ok := reasons[d.Reason]; ok {
		sentence += why[0]
		if why[1] != "" {
			sentence += r.Action + why[1]
		}
	}
	return sentence
}

// DecideByKeyPolicy decides a request for a KMS key. The key policy must allow it, or leave it to the caller's account, whose
// identity-based policies then must; or else one of the grants of the key must allow it, which may be given in any order
// and may be for others. A caller of another account needs a policy of its own as well. What any policy denies is denied.
func DecideByKeyPolicy(r *Request, key *Policy, grants []*Grant) Decision {
	if !r.wellFormed() {
		return Decision{}
	}
	means, denied := key.ofResource(r, KeyPolicy)
	if denied {
		return Decision{Reason: ResourceDenies}
	}
	own := r.own()
	reason := own.conclude(r, means)
	if reason < ResourceSilent { // allowed, or denied whoever allows it
		return Decision{Allowed: reason == Allowance, Reason: reason}
	}
	var best *Grant
	for _, g := range grants {
		if m := g.covers(r); m > means {
			means, best = m, g
		}
	}
	if reason = own.conclude(r, means); reason != Allowance {
		best = nil
	}
	return Decision{Allowed: reason == Allowance, Reason: reason, Grant: best}
}

// DecideByTrust decides a request to assume a role, r.Resource, by the trust policy of the role: it must allow it to the
// caller, or leave it to the caller's account, whose identity-based policies then must. A caller of another account needs
// both. The root user can't assume a role, whatever policies say; the reason then is Undecidable.
func DecideByTrust(r *Request, trust *Policy) Decision {
	if !r.wellFormed() || r.Caller.Type == Root {
		return Decision{}
	}
	means, denied := trust.ofResource(r, TrustPolicy)
	if denied {
		return Decision{Reason: ResourceDenies}
	}
	return decided(r.own().conclude(r, means))
}

// DecideByIdentity decides a request that only the policies of the caller's own are about: those for no key, such as
// kms:ListKeys and kms:CreateKey, those for an alias, and those of IAM and STS. What belongs to another account is denied.
func DecideByIdentity(r *Request) Decision {
	if !r.wellFormed() {
		return Decision{}
	}
	if r.Account != "" && r.Account != r.Caller.Account {
		return Decision{Reason: ResourceSilent}
	}
	return decided(r.own().narrow())
}

// DecideRetire decides whether a caller may retire a grant of a key, r.Resource, in the account r.Account. The grant itself
// says who may: its retiring principal, and its grantee if RetireGrant is among its operations. In the account of the key,
// the root user may, and whoever is allowed to by an identity-based policy. Key policies are not asked.
func DecideRetire(r *Request, g *Grant) Decision {
	if !r.wellFormed() {
		return Decision{}
	}
	means := g.retiredBy(&r.Caller.Principal)
	if r.Caller.Account == r.Account {
		means = max(means, ofAccount)
	}
	return decided(r.own().conclude(r, means))
}

func decided(reason Reason) Decision { return Decision{Allowed: reason == Allowance, Reason: reason} }

// own are the verdicts of the policies of the caller's own.
type own struct{ identity, boundary, session verdict }

func (r *Request) own() own {
	o := own{identity: together(r.Caller.Identity, r), boundary: allows, session: allows}
	if r.Caller.Type == Root && o.identity == silent {
		o.identity = allows
	}
	if r.Caller.Boundary != nil {
		o.boundary = r.Caller.Boundary.ofIdentity(r)
	}
	if len(r.Caller.Session) > 0 {
		o.session = together(r.Caller.Session, r)
	}
	return o
}

// denial gives the reason if one of the policies denies.
func (o own) denial() (Reason, bool) {
	switch denies {
	case o.identity:
		return IdentityDenies, true
	case o.boundary:
		return BoundaryDenies, true
	case o.session:
		return SessionDenies, true
	}
	return Allowance, false
}

// narrow decides by the policies of the caller's own alone: all must allow.
func (o own) narrow() Reason {
	if reason, denied := o.denial(); denied {
		return reason
	}
	switch silent {
	case o.identity:
		return IdentitySilent
	case o.boundary:
		return BoundarySilent
	case o.session:
		return SessionSilent
	}
	return Allowance
}

// conclude decides for a caller whom the resource's policy, or a grant, means by what it allows.
func (o own) conclude(r *Request, means relation) Reason {
	if reason, denied := o.denial(); denied {
		return reason
	}
	if means == stranger {
		return ResourceSilent
	}
	if r.Caller.Account == r.Account {
		switch means {
		case himself:
			return Allowance
		case ofRole:
			o.identity = allows
		}
	}
	return o.narrow()
}
