// Package policy knows who may ask for what: the IAM policy language and KMS grants, evaluated. It is pure: no clock, no
// I/O, no knowledge of HTTP or of keys.
//
// Text becomes a Policy (Load), those whom it names by ARN are bound to it by their unique ids (Policy.Bind), and a Request is
// decided by the policies of its Caller and of the resource: DecideByKeyPolicy, DecideByTrust, DecideByIdentity, DecideRetire.
// What goes wrong on the way denies.
package policy

import "time"

// PrincipalType is the kind of an identity, in the words of CloudTrail's userIdentity element.
type PrincipalType string

// The kinds of identities.
const (
	Root          PrincipalType = "Root"
	IAMUser       PrincipalType = "IAMUser"
	AssumedRole   PrincipalType = "AssumedRole"
	FederatedUser PrincipalType = "FederatedUser"
)

// Principal is the identity behind a request, after its signature was verified. It is immutable and may be shared.
type Principal struct {
	// Type says what kind of identity this is.
	Type PrincipalType `json:"type"`
	// ARN names the identity, for example arn:aws:iam::111122223333:root. That of an AssumedRole is the ARN of the session,
	// arn:aws:sts::<account>:assumed-role/<role name>/<session name>.
	ARN string `json:"arn"`
	// Account is the identity's account: 12 digits.
	Account string `json:"account"`
	// AccessKeyID is the access key that signed the request. It is not a secret.
	AccessKeyID string `json:"-"`
	// UserID is the unique id, aws:userid: the account id for Root, AIDA... for an IAMUser, AROA...:<session name> for an
	// AssumedRole, <account>:<name> for a FederatedUser.
	UserID string `json:"userId,omitempty"`
	// UserName is the name of an IAMUser, without its path; "" for others.
	UserName string `json:"userName,omitempty"`
	// RoleARN is the ARN of the role of an AssumedRole, with its path; "" for others.
	RoleARN string `json:"roleArn,omitempty"`
	// Tags are the principal tags: those of the user or role, and over them those of the session.
	Tags map[string]string `json:"tags,omitempty"`
	// Issued is when the temporary credentials of a session were issued; zero for an access key without an end.
	Issued time.Time `json:"issued,omitzero"`
	// MFA says that a session was begun with multi-factor authentication.
	MFA bool `json:"mfa,omitempty"`
	// SourceIdentity is what a session of a role was given under that name; "" for none.
	SourceIdentity string `json:"sourceIdentity,omitempty"`
}

// Caller is a Principal with the policies that go with it, all of the kind IdentityPolicy. It is immutable and may be
// shared. The root user has none of them, and needs none.
type Caller struct {
	Principal
	// Identity are the identity-based policies: of a user and the groups it is in, or of the role of a session.
	Identity []*Policy
	// Boundary is the permissions boundary of the user or role; nil for none.
	Boundary *Policy
	// Session are the session policies, which together narrow a session; none if empty.
	Session []*Policy
}
