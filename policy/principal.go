// Package policy knows who may ask for what: principals today, and the IAM policy language, conditions and grants on
// top of them. It is pure: no clock, no I/O, no knowledge of HTTP or of keys.
package policy

// PrincipalType is the kind of an identity, in the words of CloudTrail's userIdentity element.
type PrincipalType string

// The kinds of identities.
const (
	Root        PrincipalType = "Root"
	IAMUser     PrincipalType = "IAMUser"
	AssumedRole PrincipalType = "AssumedRole"
)

// Principal is the identity behind a request, after its signature was verified. It is immutable and may be shared.
type Principal struct {
	// Type says what kind of identity this is.
	Type PrincipalType `json:"type"`
	// ARN names the identity, for example arn:aws:iam::111122223333:root.
	ARN string `json:"arn"`
	// Account is the identity's account: 12 digits.
	Account string `json:"account"`
	// AccessKeyID is the access key that signed the request. It is not a secret.
	AccessKeyID string `json:"-"`
}
