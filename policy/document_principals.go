package policy

import (
	"fmt"
	"regexp"
	"strings"
)

// The forms of principals. Parts of names cannot be wildcards, as they can in actions and resources.
var (
	// awsARN is the ARN of a root, a user, a role, a session of a role or a federated user.
	awsARN = regexp.MustCompile(`^arn:aws:(` +
		`iam::[0-9]{12}:(root|(user|role)/([!-)+-.0->@-~]+/)*[\w+=,.@-]{1,64})|` +
		`sts::[0-9]{12}:(assumed-role/[\w+=,.@-]{1,64}/[\w+=,.@-]{2,64}|federated-user/[\w+=,.@-]{2,32})` +
		`)$`)
	// hostName is the form of the names of services and of the identity providers that AWS knows.
	hostName = regexp.MustCompile(`^[a-z0-9-]+(\.[a-z0-9-]+)+$`)
	// providerARN is the ARN of an identity provider.
	providerARN = regexp.MustCompile(`^arn:aws:iam::[0-9]{12}:(saml|oidc)-provider/[\w+=,.@:/-]+$`)
	// canonicalID is the id that S3 gives to an account.
	canonicalID = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

const (
	errNoPrincipal      = MalformedError("Policy contains a statement with no principal.")
	errInvalidPrincipal = MalformedError("Policy contains a statement with one or more invalid principals.")
)

// principals reads a Principal or NotPrincipal element.
func principals(m member) (Principals, error) {
	p := Principals{Except: m.name == "NotPrincipal"}
	if m.value[0] != '{' {
		everybody, err := text(m.name, m.value)
		if err == nil && everybody != Everybody {
			err = errInvalidPrincipal
		}
		p.AWS = []string{Everybody}
		return p, err
	}
	kinds, err := members(m.name, m.value)
	if err == nil && len(kinds) == 0 {
		err = errNoPrincipal
	}
	for _, kind := range kinds {
		if err == nil {
			err = p.read(kind)
		}
	}
	return p, err
}

// read takes over the principals of one kind.
func (p *Principals) read(kind member) (err error) {
	switch kind.name {
	case "AWS":
		p.AWS, err = names(kind, awsPrincipal)
	case "Service":
		p.Service, err = names(kind, form(hostName))
	case "Federated":
		p.Federated, err = names(kind, form(hostName, providerARN))
	case "CanonicalUser":
		p.CanonicalUser, err = names(kind, form(canonicalID))
	default:
		return errInvalidPrincipal
	}
	return err
}

// names reads principals, each as normal gives it; "" is for none.
func names(kind member, normal func(string) string) ([]string, error) {
	list, err := texts(kind.name, kind.value)
	if err != nil {
		return nil, err
	}
	for i := range list {
		name := list[i]
		if list[i] = normal(name); list[i] == "" {
			return nil, invalidName{kind.name, name}
		}
	}
	return list, nil
}

// invalidName is a principal of some kind that cannot be one. InvalidPrincipal has the words for it.
type invalidName struct{ kind, name string }

func (e invalidName) Error() string { return string(errInvalidPrincipal) }

// InvalidPrincipal is the error for an AWS principal that is none, or does not exist, in a policy of some kind.
func InvalidPrincipal(in Kind, name string) MalformedError { return invalidName{"AWS", name}.in(in) }

// in gives the words that AWS has for it in a kind of policy.
func (e invalidName) in(kind Kind) MalformedError {
	if kind == TrustPolicy {
		return MalformedError(fmt.Sprintf(`Invalid principal in policy: "%s":%s`, e.kind, show(e.name)))
	}
	return errInvalidPrincipal
}

func awsPrincipal(name string) string {
	switch {
	case IsAccount(name):
		return rootARN(name)
	case name == Everybody, awsARN.MatchString(name):
		return name
	}
	return ""
}

// IsPrincipal tells whether a text is the ARN of a principal, as a policy or a grant may name one: the root of an account, a
// user, a role, a session of a role or a federated user.
func IsPrincipal(arn string) bool { return awsARN.MatchString(arn) }

// form accepts names of one of some forms.
func form(forms ...*regexp.Regexp) func(string) string {
	return func(name string) string {
		for _, f := range forms {
			if f.MatchString(name) {
				return name
			}
		}
		return ""
	}
}

// rootARN is the ARN of an account's root user. As a principal it stands for the whole account.
func rootARN(account string) string { return "arn:aws:iam::" + account + ":root" }

// IsAccount tells whether a text is the id of an account: twelve digits.
func IsAccount(id string) bool {
	return len(id) == accountDigits && strings.Trim(id, "0123456789") == ""
}
