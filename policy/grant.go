package policy

import (
	"slices"
	"strings"
	"unicode"
)

// Grant lets a principal use a key. It is immutable and may be shared.
type Grant struct {
	// ID is the grant's own, within its key.
	ID string
	// Name is the name given to it, or "".
	Name string
	// IssuingAccount is the account that the grant was created under: 12 digits.
	IssuingAccount string
	// GranteePrincipal is the ARN of whoever may use the grant: a user, a role, a session, a federated user, or the root of an
	// account, which means its principals whose identity-based policies allow it.
	GranteePrincipal string
	// GranteeID is the unique id that is bound to it, as in Bindings; "" for an account.
	GranteeID string
	// RetiringPrincipal is the ARN of whoever may retire the grant, or "".
	RetiringPrincipal string
	// RetiringID is the unique id that is bound to that.
	RetiringID string
	// Operations are what the grant is for, in the words of GrantOperations.
	Operations []string
	// EncryptionContextEquals and EncryptionContextSubset are its constraints; empty for none. The keys have no regard to case,
	// the values have.
	EncryptionContextEquals, EncryptionContextSubset map[string]string
}

// GrantOperations are the operations that a grant may be for, and whether a constraint on the encryption context applies to
// them: it does to those that have one with a symmetric key.
var GrantOperations = map[string]bool{
	"Decrypt":                             true,
	"Encrypt":                             true,
	"GenerateDataKey":                     true,
	"GenerateDataKeyWithoutPlaintext":     true,
	"GenerateDataKeyPair":                 true,
	"GenerateDataKeyPairWithoutPlaintext": true,
	"ReEncryptFrom":                       true,
	"ReEncryptTo":                         true,
	"CreateGrant":                         false,
	"DescribeKey":                         false,
	"DeriveSharedSecret":                  false,
	"GenerateMac":                         false,
	"GetPublicKey":                        false,
	"RetireGrant":                         false,
	"Sign":                                false,
	"Verify":                              false,
	"VerifyMac":                           false,
}

const (
	createGrant = "CreateGrant"
	retireGrant = "RetireGrant"
)

// covers tells how the grant means the caller of a request, if it is for it at all.
func (g *Grant) covers(r *Request) relation {
	means := meansARN(g.GranteePrincipal, g.GranteeID, &r.Caller.Principal)
	if means == stranger {
		return stranger
	}
	operation := r.operation()
	constrained, known := GrantOperations[operation]
	switch {
	case !known, operation == retireGrant, !slices.Contains(g.Operations, operation): // to retire it, see DecideRetire
		return stranger
	case constrained && !g.meets(r.EncryptionContext), operation == createGrant && !g.AllowsGrant(r.NewGrant):
		return stranger
	}
	return means
}

// retiredBy tells how the grant means a caller who wants to retire it: as its retiring principal, or as its grantee if
// RetireGrant is among its operations.
func (g *Grant) retiredBy(caller *Principal) relation {
	means := meansARN(g.RetiringPrincipal, g.RetiringID, caller)
	if slices.Contains(g.Operations, retireGrant) {
		means = max(means, meansARN(g.GranteePrincipal, g.GranteeID, caller))
	}
	return means
}

// meansARN tells how an ARN with a unique id means a caller.
func meansARN(arn, id string, caller *Principal) relation {
	n := newName(arn)
	if n.account == "" {
		n.id = id
	}
	return n.means(caller)
}

// AllowsGrant tells whether whoever holds this grant for CreateGrant may create another: it must be for no operation that
// this one is not for, and its constraints must be at least as strict.
func (g *Grant) AllowsGrant(other *Grant) bool {
	if other == nil || len(other.Operations) == 0 {
		return false
	}
	for _, operation := range other.Operations {
		if !slices.Contains(g.Operations, operation) {
			return false
		}
	}
	if len(g.EncryptionContextEquals) > 0 && !sameContext(other.EncryptionContextEquals, g.EncryptionContextEquals) {
		return false
	}
	return len(g.EncryptionContextSubset) == 0 ||
		hasContext(other.EncryptionContextEquals, g.EncryptionContextSubset) || hasContext(other.EncryptionContextSubset, g.EncryptionContextSubset)
}

// meets tells whether an encryption context is within the constraints.
func (g *Grant) meets(context map[string]string) bool {
	if len(g.EncryptionContextEquals) > 0 && !sameContext(context, g.EncryptionContextEquals) {
		return false
	}
	return len(g.EncryptionContextSubset) == 0 || hasContext(context, g.EncryptionContextSubset)
}

// sameContext tells whether two contexts have the same pairs.
func sameContext(a, b map[string]string) bool { return hasContext(a, b) && hasContext(b, a) }

// hasContext tells whether a context has all pairs of another. Where keys differ by case alone, all of them must have the
// value.
func hasContext(context, pairs map[string]string) bool {
	for key, value := range pairs {
		if !hasPair(context, key, value) {
			return false
		}
	}
	return true
}

func hasPair(context map[string]string, key, value string) bool {
	found := false
	for k, v := range context {
		if strings.EqualFold(k, key) {
			if v != value {
				return false
			}
			found = true
		}
	}
	return found
}

// FoldContext gives the pairs of an encryption context, or of a constraint, under keys of which all that differ by case alone
// are one. If these have different values, they are left out: no constraint is met by them.
func FoldContext(context map[string]string) map[string]string {
	folded, unclear := make(map[string]string, len(context)), []string(nil)
	for key, value := range context {
		key = strings.Map(foldRune, key)
		if other, ok := folded[key]; ok && other != value {
			unclear = append(unclear, key)
		}
		folded[key] = value
	}
	for _, key := range unclear {
		delete(folded, key)
	}
	return folded
}

// foldRune gives the first of the characters that strings.EqualFold takes for the same.
func foldRune(r rune) rune {
	first := r
	for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
		first = min(first, other)
	}
	return first
}

// value gives the value of a condition key about a grant that is to be created.
func (g *Grant) value(key ConditionKey) Value {
	if g == nil {
		return Value{}
	}
	switch key {
	case KeyGrantConstraintType:
		switch {
		case len(g.EncryptionContextEquals) > 0:
			return Text("EncryptionContextEquals")
		case len(g.EncryptionContextSubset) > 0:
			return Text("EncryptionContextSubset")
		}
	case KeyGrantOperations:
		return Texts(g.Operations)
	case KeyGranteePrincipal:
		return Optional(g.GranteePrincipal)
	case KeyRetiringPrincipal:
		return Optional(g.RetiringPrincipal)
	}
	return Value{}
}
