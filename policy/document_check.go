package policy

import (
	"regexp"
	"slices"
	"strings"
)

// What a document means is checked when all of it has been read, in IAM's order: whoever has several faults hears of the one
// that IAM would tell.

const (
	errSyntax      = MalformedError("Syntax errors in policy.")
	errTrustJSON   = MalformedError("This policy contains invalid Json")
	errVersion     = MalformedError("Policy document must be version 2012-10-17 or greater.")
	errLegacy      = MalformedError("The policy failed legacy parsing")
	errSameSID     = MalformedError("Statement IDs (SID) in a single policy must be unique.")
	errBadSID      = MalformedError("Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*")
	errNoVendor    = MalformedError("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.")
	errColons      = MalformedError("Actions/Condition can contain only one colon.")
	errProduct     = MalformedError("Resource vendor must be fully qualified and cannot contain regexes.")
	errTrustAction = MalformedError("AssumeRole policy may only specify STS AssumeRole actions.")
)

// check looks at the meaning of a document.
func (d *Document) check() error {
	if d.Kind == ManagedPolicy && d.Version != Version2012 {
		return errVersion
	}
	d.accepted = d.Kind == AcceptedPolicy
	if d.Kind.ofIdentity() {
		d.Kind = IdentityPolicy
	}
	for _, step := range []func(*Statement) error{d.checkEffect, d.checkLegacy} {
		if err := d.each(step); err != nil {
			return err
		}
	}
	if err := d.checkSIDs(); err != nil {
		return err
	}
	for _, step := range []func(*Statement) error{d.checkElements, d.checkResources, d.checkActions, checkConditions} {
		if err := d.each(step); err != nil {
			return err
		}
	}
	return nil
}

// each calls fn with every statement.
func (d *Document) each(fn func(*Statement) error) error {
	for i := range d.Statements {
		if err := fn(&d.Statements[i]); err != nil {
			return err
		}
	}
	return nil
}

func (d *Document) checkEffect(s *Statement) error {
	effects := []Effect{Allow, Deny}
	anyCase := func(e Effect) bool { return strings.EqualFold(string(e), string(s.Effect)) }
	switch {
	case slices.Contains(effects, s.Effect):
		return nil
	case d.Kind != IdentityPolicy:
		return malformed("Effect must be Allow or Deny, not %s.", show(string(s.Effect)))
	case slices.ContainsFunc(effects, anyCase):
		return errLegacy
	}
	return errSyntax
}

// iamSID is the form of statement IDs in policies of IAM; those of KMS are free.
var iamSID = regexp.MustCompile(`^[0-9A-Za-z]*$`)

func (d *Document) checkSIDs() error {
	seen := map[string]bool{}
	return d.each(func(s *Statement) error {
		if s.SID != "" && seen[s.SID] { // tools write empty ones for none
			return errSameSID
		}
		if d.Kind != KeyPolicy && !iamSID.MatchString(s.SID) {
			return errBadSID
		}
		seen[s.SID] = true
		return nil
	})
}

// presence is what a kind of policy says about an element, or its opposite, being there: that it must, or must not.
type presence struct {
	element func(*Statement) bool
	must    bool
	text    MalformedError
}

func hasPrincipal(s *Statement) bool {
	p := &s.Principals
	return p.AWS != nil || p.Service != nil || p.Federated != nil || p.CanonicalUser != nil
}

func hasAction(s *Statement) bool { return len(s.Actions.List) > 0 }

func hasResource(s *Statement) bool { return len(s.Resources.List) > 0 }

var presences = map[Kind][]presence{
	KeyPolicy: {{hasPrincipal, true, errNoPrincipal}},
	IdentityPolicy: {
		{hasPrincipal, false, "Policy document should not specify a principal."},
		{hasAction, true, "Policy statement must contain actions."},
		{hasResource, true, "Policy statement must contain resources."},
	},
	TrustPolicy: {
		{hasPrincipal, true, "Missing required field Principal"},
		{hasAction, true, "Missing required field Action"},
		{hasResource, false, "Has prohibited field Resource"},
	},
}

func (d *Document) checkElements(s *Statement) error {
	for _, p := range presences[d.Kind] {
		if p.must != p.element(s) {
			return p.text
		}
	}
	return nil
}

// vendor is the name of a service before the colon of an action, or stands for all; part of a name can't be a wildcard.
var vendor = regexp.MustCompile(`^(\*|[A-Za-z0-9.-]+)$`)

func (d *Document) checkActions(s *Statement) error {
	for _, action := range s.Actions.List {
		if err := checkAction(action); err != nil {
			return err
		}
		if service, _, _ := strings.Cut(action, ":"); d.Kind == TrustPolicy && !strings.EqualFold(service, "sts") {
			return errTrustAction
		}
	}
	return nil
}

func checkAction(action string) error {
	service, name, ok := strings.Cut(action, ":")
	switch {
	case action == "*":
		return nil
	case !ok:
		return errNoVendor
	case strings.Contains(name, ":"):
		return errColons
	case !vendor.MatchString(service):
		return malformed("Vendor %s is not valid", shorten(service))
	case name == "" || strings.ContainsAny(name, " \t\r\n"):
		return malformed("The action %s is not valid.", show(action))
	}
	return nil
}

// conditionKey has a service, or the URL of an identity provider, before its colon.
var conditionKey = regexp.MustCompile(`^[^:\s]+:[^\s].*$`)

func checkConditions(s *Statement) error {
	for i := range s.Conditions {
		if !conditionKey.MatchString(s.Conditions[i].Key) {
			return errNoVendor
		}
	}
	return nil
}

// partitions are those of AWS.
var partitions = []string{"aws", "aws-cn", "aws-us-gov", "aws-iso", "aws-iso-b", "aws-iso-e", "aws-iso-f", "aws-eusc"}

// arnParts is how many parts an ARN has. The last may have colons.
const arnParts = arnColons + 1

func isPattern(s string) bool { return strings.ContainsAny(s, "*?$") }

// checkLegacy refuses the incomplete ARNs that do not mean what they seem to: those with an empty part, or without a service.
func (d *Document) checkLegacy(s *Statement) error {
	if d.Kind != IdentityPolicy || d.accepted {
		return nil
	}
	for _, resource := range s.Resources.List {
		if resource == "*" || checkARN(resource) != nil { // of which checkResources tells
			continue
		}
		parts := strings.SplitN(resource, ":", arnParts)
		if parts[2] == "" || len(parts) < arnParts && slices.Contains(parts, "") {
			return errLegacy
		}
	}
	return nil
}

// checkResources checks resources and completes their ARNs: what is missing at the end of one is a wildcard. Policies of
// resources may leave out nothing, but what does end early, behind a policy variable, has passed for whole there.
func (d *Document) checkResources(s *Statement) error {
	for i, resource := range s.Resources.List {
		if resource == "*" {
			continue
		}
		if err := d.checkResource(resource); err != nil {
			return err
		}
		s.Resources.List[i] = complete(resource)
	}
	return nil
}

func (d *Document) checkResource(resource string) error {
	switch {
	case d.accepted:
		return nil
	case d.Kind == IdentityPolicy:
		return checkARN(resource)
	case !strings.HasPrefix(resource, "arn:") || strings.Count(resource, ":") < arnColons:
		return errNoARN(resource)
	}
	return nil
}

func errNoARN(resource string) error {
	return malformed(`Resource %s must be in ARN format or "*".`, shorten(resource))
}

// checkARN checks a pattern of ARNs in an identity-based policy.
func checkARN(resource string) error {
	parts := strings.SplitN(resource, ":", arnParts)
	switch {
	case len(parts) == 1:
		return errNoARN(resource)
	case !isPattern(parts[1]) && !slices.Contains(partitions, parts[1]):
		parts[0] = "arn"
		return malformed(`Partition "%s" is not valid for resource "%s".`, shorten(parts[1]), shorten(complete(strings.Join(parts, ":"))))
	case parts[0] != "arn":
		return errNoARN(resource)
	case len(parts) == 2 || isPattern(parts[2]):
		return errProduct
	case parts[2] == "iam" && len(parts) > 3 && parts[3] != "" && !isPattern(parts[3]):
		return malformed("IAM resource %s cannot contain region information.", shorten(resource))
	}
	return nil
}

func complete(arn string) string { return arn + strings.Repeat(":*", missingParts(arn)) }

// missingParts is how many parts a pattern of ARNs ends short of. The colon in the name of a policy variable separates none.
func missingParts(arn string) int {
	return max(0, arnColons-strings.Count(arnVariable.ReplaceAllString(arn, ""), ":"))
}

var arnVariable = regexp.MustCompile(`\$\{[^}]*\}`)
