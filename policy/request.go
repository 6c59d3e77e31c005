package policy

import "strings"

// Request is what is decided: who wants to do what, with which resource. It is used by one goroutine at a time. Its values
// for condition keys come from three places: the Caller, the fields here, and Values.
type Request struct {
	// Caller asks. Without one, nothing is allowed.
	Caller *Caller
	// Action is the permission that the request needs, for example kms:ReEncryptFrom. Without one, nothing is allowed.
	Action string
	// Resource is the ARN that the action is about; "" for actions without a resource, which policies allow with "*".
	Resource string
	// Account is the account that the resource belongs to; "" for actions without a resource.
	Account string
	// EncryptionContext is that of a cryptographic operation with a symmetric key; nil for all other operations.
	EncryptionContext map[string]string
	// NewGrant is the grant that kms:CreateGrant would create; nil for all other actions.
	NewGrant *Grant
	// Values has the values of all other condition keys; nil for none.
	Values Values
}

// resource gives the ARN that patterns are compared with.
func (r *Request) resource() string {
	if r.Resource == "" {
		return "*"
	}
	return r.Resource
}

// wellFormed tells whether there is something to decide, and the caller is known by all the names and ids that policies may
// have for him.
func (r *Request) wellFormed() bool {
	c := r.Caller
	return r.Action != "" && c != nil && c.Account != "" && c.ARN != "" && (c.Type == AssumedRole) == (c.RoleARN != "") && c.identified()
}

// value gives the value of a condition key.
func (r *Request) value(key ConditionKey, name string) Value {
	switch key {
	case unknownKey:
		return Value{}
	case KeyResourceAccount:
		return Optional(r.Account)
	case KeyPrincipalIsAWSService, KeyViaAWSService: // AWS services never call this server
		return Flag(false)
	case KeyGrantIsForAWSResource:
		switch r.Action {
		case "kms:CreateGrant", "kms:ListGrants", "kms:RevokeGrant":
			return Flag(false)
		}
		return Value{}
	case KeyEncryptionContext:
		return Member(r.context(), name)
	case KeyEncryptionContextKeys:
		return KeysOf(r.context())
	case KeyEpochTime:
		now := r.value(KeyCurrentTime, "")
		if now.kind != oneMoment {
			return Value{}
		}
		return Number(now.time.Unix())
	case KeyGrantConstraintType, KeyGrantOperations, KeyGranteePrincipal, KeyRetiringPrincipal:
		return r.NewGrant.value(key)
	}
	if key < keyOfValues {
		return r.Caller.value(key, name)
	}
	if r.Values == nil {
		return Value{}
	}
	return r.Values.Value(key, name)
}

// context gives the encryption context that condition keys are about. For a new grant, it is that of its constraint.
func (r *Request) context() map[string]string {
	if r.NewGrant == nil {
		return r.EncryptionContext
	}
	if len(r.NewGrant.EncryptionContextEquals) > 0 {
		return r.NewGrant.EncryptionContextEquals
	}
	return r.NewGrant.EncryptionContextSubset
}

// value gives the value of a condition key about who calls.
func (p *Principal) value(key ConditionKey, name string) Value {
	switch key {
	case KeyPrincipalARN:
		if p.Type == AssumedRole {
			return Optional(p.RoleARN)
		}
		return Optional(p.ARN)
	case KeyPrincipalAccount, KeyCallerAccount:
		return Text(p.Account)
	case KeyPrincipalType:
		return Optional(principalTypes[p.Type])
	case KeyPrincipalTag:
		return Member(p.Tags, name)
	case KeyUserID:
		return Optional(p.UserID)
	case KeyUsername:
		return Optional(p.UserName)
	case KeySourceIdentity:
		return Optional(p.SourceIdentity)
	case KeyTokenIssueTime:
		return Moment(p.Issued)
	case KeyMultiFactorAuthPresent:
		if !p.Issued.IsZero() { // an access key without an end has no such key
			return Flag(p.MFA)
		}
	}
	return Value{}
}

// principalTypes are the values of aws:PrincipalType.
var principalTypes = map[PrincipalType]string{Root: "Account", IAMUser: "User", AssumedRole: "AssumedRole", FederatedUser: "FederatedUser"}

// operation gives the name of a permission of KMS without its service, as grants have it.
func (r *Request) operation() string {
	name, ok := strings.CutPrefix(r.Action, "kms:")
	if !ok {
		return ""
	}
	return name
}
