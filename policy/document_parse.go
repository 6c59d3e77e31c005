package policy

import (
	"encoding/json"
	"errors"
	"regexp"
	"strings"
)

// parsePolicy reads what Load does, but for the variables and the values of conditions, which are read when it is compiled.
func parsePolicy(policy string, kind Kind) (*Document, error) {
	raw := []byte(policy)
	if err := checkJSON(raw); err != nil {
		return nil, err
	}
	all, err := members("The policy", trim(raw))
	if err != nil {
		return nil, err
	}
	d := &Document{Kind: kind, Version: Version2008}
	for _, m := range all {
		if err := d.read(m); err != nil {
			return nil, err
		}
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	return d, nil
}

// trim cuts off white space around a value; within one, the decoder does.
func trim(raw []byte) json.RawMessage { return []byte(strings.Trim(string(raw), " \t\r\n")) }

// read takes over an element of the document.
func (d *Document) read(m member) (err error) {
	switch m.name {
	case "Version":
		var version string
		version, err = text("Version", m.value)
		if d.Version = Version(version); err == nil && d.Version != Version2008 && d.Version != Version2012 {
			return malformed("The policy has the unknown Version %s.", show(version))
		}
	case "Id":
		d.ID, err = text("Id", m.value)
	case "Statement":
		d.Statements, err = statements(m.value, d.Kind)
	default:
		return malformed("The policy has the unknown element %s.", show(m.name))
	}
	return err
}

// iamSID is the form of statement IDs in policies of IAM; those of KMS are free.
var iamSID = regexp.MustCompile(`^[0-9A-Za-z]*$`)

// check looks at the document as a whole.
func (d *Document) check() error {
	if d.Statements == nil {
		return malformed("The policy has no Statement.")
	}
	seen := map[string]bool{}
	for i := range d.Statements {
		s := &d.Statements[i]
		if s.SID != "" && seen[s.SID] { // tools write empty ones for none
			return malformed("Statement IDs (SID) in a single policy must be unique; %s is not.", show(s.SID))
		}
		if d.Kind != KeyPolicy && !iamSID.MatchString(s.SID) {
			return malformed("Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*")
		}
		seen[s.SID] = true
	}
	return nil
}

func statements(raw json.RawMessage, kind Kind) ([]Statement, error) {
	all, err := elements(raw)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, errEmpty("Statement")
	}
	list := make([]Statement, len(all))
	for i := range all {
		if list[i], err = statement(all[i], kind); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// presence is what a kind of policy says about an element, or its opposite, being there: that it must, or must not.
type presence struct {
	element string
	must    bool
	text    string // of the error
}

var presences = map[Kind][]presence{
	KeyPolicy: {{"Principal", true, string(errNoPrincipal)}},
	IdentityPolicy: {
		{"Principal", false, "Policy document should not specify a principal."},
		{"Action", true, "Policy statement must contain actions."},
		{"Resource", true, "Policy statement must contain resources."},
	},
	TrustPolicy: {
		{"Principal", true, "Missing required field Principal"},
		{"Action", true, "Missing required field Action"},
		{"Resource", false, "Has prohibited field Resource"},
	},
}

func statement(raw json.RawMessage, kind Kind) (Statement, error) {
	all, err := members("A statement", raw)
	if err != nil {
		return Statement{}, err
	}
	var s Statement
	has := map[string]bool{}
	for _, m := range all {
		err := s.read(m)
		var invalid invalidName
		if errors.As(err, &invalid) {
			err = invalid.in(kind)
		}
		if err != nil {
			return Statement{}, err
		}
		has[m.name] = true
	}
	for _, name := range []string{"Principal", "Action", "Resource"} {
		if has[name] && has["Not"+name] {
			return Statement{}, malformed("A statement must not have both %s and Not%s.", name, name)
		}
	}
	if !has["Effect"] {
		return Statement{}, malformed("A statement has no Effect.")
	}
	for _, p := range presences[kind] {
		if p.must != (has[p.element] || has["Not"+p.element]) {
			return Statement{}, MalformedError(p.text)
		}
	}
	if kind == TrustPolicy {
		return s, checkTrustActions(s.Actions.List)
	}
	return s, nil
}

// checkTrustActions refuses actions that are not about assuming a role.
func checkTrustActions(actions []string) error {
	for _, action := range actions {
		if service, _, _ := strings.Cut(action, ":"); !strings.EqualFold(service, "sts") {
			return malformed("AssumeRole policy may only specify STS AssumeRole actions.")
		}
	}
	return nil
}

// read takes over an element of the statement.
func (s *Statement) read(m member) (err error) {
	switch m.name {
	case "Sid":
		s.SID, err = text("Sid", m.value)
	case "Effect":
		s.Effect, err = effect(m.value)
	case "Principal", "NotPrincipal":
		s.Principals, err = principals(m)
	case "Action", "NotAction":
		s.Actions, err = patterns(m, checkAction)
	case "Resource", "NotResource":
		s.Resources, err = patterns(m, checkResource)
	case "Condition":
		s.Conditions, err = conditions(m.value)
	default:
		return malformed("A statement has the unknown element %s.", show(m.name))
	}
	return err
}

func effect(raw json.RawMessage) (Effect, error) {
	value, err := text("Effect", raw)
	if e := Effect(value); err != nil || e == Allow || e == Deny {
		return e, err
	}
	return "", malformed("Effect must be Allow or Deny, not %s.", show(value))
}

// patterns reads an element of patterns, each of which check must accept.
func patterns(m member, check func(string) error) (Patterns, error) {
	list, err := texts(m.name, m.value)
	if err != nil {
		return Patterns{}, err
	}
	for _, pattern := range list {
		if err := check(pattern); err != nil {
			return Patterns{}, err
		}
	}
	return Patterns{Except: strings.HasPrefix(m.name, "Not"), List: list}, nil
}

var (
	// vendor is the name of a service before the colon of an action, or stands for all; part of a name can't be a wildcard.
	vendor = regexp.MustCompile(`^(\*|[A-Za-z0-9-]+)$`)
	// conditionKey has a service, or the URL of an identity provider, before its colon.
	conditionKey = regexp.MustCompile(`^[^:\s]+:[^\s].*$`)
)

func checkAction(action string) error {
	service, name, ok := strings.Cut(action, ":")
	switch {
	case action == "*":
		return nil
	case !ok || name == "":
		return malformed("Actions must be prefaced by a vendor, as kms:Encrypt is by kms; %s is not.", show(action))
	case !vendor.MatchString(service):
		return malformed("Vendor %s is not valid.", show(service))
	case strings.ContainsAny(name, ": \t\r\n"):
		return malformed("The action %s is not valid.", show(action))
	}
	return nil
}

func checkResource(resource string) error {
	if resource == "*" || strings.HasPrefix(resource, "arn:") && strings.Count(resource, ":") >= 5 {
		return nil
	}
	return malformed("Resource %s must be in ARN format or \"*\".", show(resource))
}

func conditions(raw json.RawMessage) ([]Condition, error) {
	operators, err := members("Condition", raw)
	if err != nil {
		return nil, err
	}
	var all []Condition
	for _, operator := range operators {
		keys, err := members("A condition operator", operator.value)
		if err != nil {
			return nil, err
		}
		for _, key := range keys {
			c, err := readCondition(operator.name, key)
			if err != nil {
				return nil, err
			}
			all = append(all, c)
		}
	}
	return all, nil
}

// readCondition reads one operator with one key.
func readCondition(name string, key member) (c Condition, err error) {
	c.Operator, c.Key = name, key.name
	if quantifier, operator, ok := strings.Cut(name, ":"); ok {
		c.Quantifier, c.Operator = Quantifier(quantifier), operator
		if c.Quantifier != ForAllValues && c.Quantifier != ForAnyValue {
			c.Operator = "" // no operator at all
		}
	}
	if operator, ok := strings.CutSuffix(c.Operator, "IfExists"); ok && operators[operator].comparison != existence {
		c.Operator, c.IfExists = operator, true
	}
	if _, ok := operators[c.Operator]; !ok {
		return Condition{}, malformed("Invalid condition operator: %s.", show(name))
	}
	if !conditionKey.MatchString(key.name) {
		return Condition{}, malformed("Conditions must be prefaced by a vendor, as kms:ViaService is by kms; %s is not.", show(key.name))
	}
	c.Values, err = scalars("The value of a condition", key.value)
	return c, err
}
