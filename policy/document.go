package policy

// Document is a policy, as it was written but for three things: what may be one string or a list is a list, an account
// id among the principals is the ARN of the account's root, and ARNs in an identity-based policy are complete. It is immutable
// and may be shared.
type Document struct {
	// Kind says what the policy is attached to.
	Kind Kind
	// Version chooses the language; a document that names none is in Version2008.
	Version    Version
	ID         string
	Statements []Statement

	accepted bool // see AcceptedPolicy
}

// Kind is what a policy is attached to. It decides which elements the policy may and must have.
type Kind uint8

// The kinds of policies.
const (
	// KeyPolicy is attached to a KMS key.
	KeyPolicy Kind = iota
	// IdentityPolicy is attached to a user, a group or a role, as a permission or a permissions boundary, or to a session.
	IdentityPolicy
	// TrustPolicy is attached to a role and says who may assume it.
	TrustPolicy
	// ManagedPolicy is for checking a new managed policy: an IdentityPolicy, as which it is loaded, that must be in Version2012.
	ManagedPolicy
	// AcceptedPolicy is for reading an identity-based policy that was accepted before, maybe by a version that checked less: an
	// IdentityPolicy, as which it is loaded, whose resources are not judged again. Whoever has it would be shut out otherwise.
	AcceptedPolicy
)

// ofIdentity tells kinds of identity-based policies.
func (k Kind) ofIdentity() bool {
	return k == IdentityPolicy || k == ManagedPolicy || k == AcceptedPolicy
}

// Version is a version of the policy language. They differ in policy variables, which only Version2012 has.
type Version string

// The versions of the language.
const (
	Version2008 Version = "2008-10-17"
	Version2012 Version = "2012-10-17"
)

// Statement is one statement of a Document.
type Statement struct {
	SID    string
	Effect Effect
	// Principals are nobody in an identity-based policy.
	Principals Principals
	// Actions are patterns such as kms:Describe*, without regard to case. Without any, the statement has no effect.
	Actions Patterns
	// Resources are patterns of ARNs. Without any, the statement has no effect, but for trust policies, which have none: they
	// are about their role.
	Resources Patterns
	// Conditions must all be met.
	Conditions []Condition
}

// Effect is what a statement does to the requests that it matches.
type Effect string

// The effects of statements. Deny wins.
const (
	Allow Effect = "Allow"
	Deny  Effect = "Deny"
)

// Patterns are the values of an Action or Resource element, or of its opposite. The zero value matches nothing.
type Patterns struct {
	// Except says that the element was NotAction or NotResource: it matches what none of the patterns matches.
	Except bool
	// List has patterns in which * stands for any characters and ? for one.
	List []string
}

// Principals are the values of a Principal element, or of NotPrincipal.
type Principals struct {
	// Except says that the element was NotPrincipal: it means everybody who is not listed.
	Except bool
	// AWS has ARNs of users, roles and sessions, which are bound to unique ids (see Bindings), ARNs of the roots of accounts,
	// which stand for everybody in the account, and Everybody.
	AWS []string
	// Service has names of AWS services, which never call this server.
	Service []string
	// Federated has the names and ARNs of identity providers.
	Federated []string
	// CanonicalUser has the ids that S3 gives to accounts.
	CanonicalUser []string
}

// Everybody is the AWS principal that stands for all, as does "*" in the place of all principals.
const Everybody = "*"

// Condition is one operator with one condition key.
type Condition struct {
	// Quantifier says what must hold of the values that the request has for a key with several values; "" for keys with one.
	Quantifier Quantifier
	// Operator is a condition operator such as StringLike, without quantifier and IfExists.
	Operator string
	// IfExists says that a request that has no value for the key meets the condition.
	IfExists bool
	// Key is the condition key as it was written. It is compared without regard to case.
	Key string
	// Values are what the operator compares with; numbers and truth values are as JSON writes them. They are of the
	// operator's kind, and there may be none.
	Values []string
}

// Quantifier is the prefix of an operator for keys with several values.
type Quantifier string

// The quantifiers.
const (
	ForAllValues Quantifier = "ForAllValues"
	ForAnyValue  Quantifier = "ForAnyValue"
)
