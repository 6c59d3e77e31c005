package policy

import "strings"

// relation is how a resource-based policy, or a grant, means a caller. The higher it is, the less the policies of the
// caller's own matter.
type relation uint8

// The relations.
const (
	// stranger is not meant at all.
	stranger relation = iota
	// ofAccount is meant by the account: the identity-based policies of that account decide.
	ofAccount
	// ofRole is meant by the role of his session, or with everybody. Permissions boundary and session policies still narrow
	// what is allowed, see "Policy evaluation logic" in the IAM user guide.
	ofRole
	// himself is meant as that user or session. Nothing of his own narrows that, unless it denies.
	himself
)

// audience are compiled Principals.
type audience struct {
	except    bool
	everybody bool
	names     []name
}

// accountDigits is how many digits the id of an account has.
const accountDigits = 12

// name is an AWS principal: an account, by the ARN of its root, or anybody else by the unique id that is bound to the ARN.
type name struct {
	account string
	arn     string
	id      string // "" until it is bound: nobody
}

func newName(arn string) name {
	if rest, ok := strings.CutPrefix(arn, "arn:aws:iam::"); ok {
		if account, ok := strings.CutSuffix(rest, ":root"); ok && len(account) == accountDigits {
			return name{account: account}
		}
	}
	return name{arn: arn}
}

func newAudience(p *Principals) audience {
	compiled := audience{except: p.Except}
	for _, arn := range p.AWS {
		if arn == Everybody {
			compiled.everybody = true
		} else {
			compiled.names = append(compiled.names, newName(arn))
		}
	}
	return compiled
}

// means tells how the name means a caller. The root user is meant by his account only.
func (n *name) means(caller *Principal) relation {
	switch {
	case n.account != "":
		if n.account == caller.Account {
			return ofAccount
		}
	case n.id == "":
		return stranger
	case n.id == caller.UserID:
		return himself
	case n.id == caller.RoleID():
		return ofRole
	}
	return stranger
}

// allow tells how the principals of a statement that allows mean a caller. With NotPrincipal, whoever is listed in any way
// is left out, and everybody else is meant.
func (p *audience) allow(caller *Principal) relation {
	best := stranger
	if p.everybody {
		best = ofRole
	}
	for i := range p.names {
		best = max(best, p.names[i].means(caller))
	}
	if !p.except {
		return best
	}
	if best == stranger {
		return ofRole
	}
	return stranger
}

// deny tells whether the principals of a statement that denies mean a caller. With NotPrincipal, only those are left out who
// are listed with all that they are: a session by its own ARN, its role and its account, a user by its ARN and its account.
// AWS demands the same, since the account and the role would be denied otherwise.
func (p *audience) deny(caller *Principal) bool {
	if !p.except {
		return p.allow(caller) > stranger
	}
	if p.everybody {
		return false
	}
	account, role, self := false, caller.Type != AssumedRole, caller.Type == Root
	for i := range p.names {
		switch p.names[i].means(caller) {
		case ofAccount:
			account = true
		case ofRole:
			role = true
		case himself:
			self = true
		case stranger:
		}
	}
	return !account || !role || !self
}
