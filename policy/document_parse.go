package policy

import (
	"encoding/json"
	"errors"
	"strings"
)

// parsePolicy reads what Load does, but for the variables and the values of conditions, which are read when it is compiled.
func parsePolicy(policy string, kind Kind) (*Document, error) {
	d, err := readPolicy(policy, kind)
	if err != nil {
		return nil, err
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	return d, nil
}

// readPolicy reads the form of a policy. IAM says nothing of what is wrong with that.
func readPolicy(policy string, kind Kind) (*Document, error) {
	d := &Document{Kind: kind, Version: Version2008}
	err := d.readJSON([]byte(policy))
	var words MalformedError
	if errors.As(err, &words) && kind.ofIdentity() {
		err = errSyntax
	}
	return d, err
}

func (d *Document) readJSON(raw []byte) error {
	if err := checkJSON(raw); err != nil {
		if d.Kind == TrustPolicy {
			return errTrustJSON
		}
		return err
	}
	all, err := members("The policy", trim(raw))
	if err != nil {
		return err
	}
	for _, m := range all {
		if err := d.read(m); err != nil {
			return err
		}
	}
	if d.Statements == nil {
		return malformed("The policy has no Statement.")
	}
	return nil
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

func statement(raw json.RawMessage, kind Kind) (Statement, error) {
	all, err := members("A statement", raw)
	if err != nil {
		return Statement{}, err
	}
	var s Statement
	has := map[string]bool{}
	for _, m := range all {
		err := s.read(m, kind)
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
	return s, nil
}

// read takes over an element of the statement.
func (s *Statement) read(m member, kind Kind) (err error) {
	switch m.name {
	case "Sid":
		s.SID, err = text("Sid", m.value)
	case "Effect":
		var effect string
		effect, err = text("Effect", m.value)
		s.Effect = Effect(effect)
	case "Principal", "NotPrincipal":
		if kind.ofIdentity() { // which has none, whoever it is
			s.Principals.AWS = []string{Everybody}
			return nil
		}
		s.Principals, err = principals(m)
	case "Action", "NotAction":
		s.Actions, err = patterns(m, kind)
	case "Resource", "NotResource":
		s.Resources, err = patterns(m, kind)
	case "Condition":
		s.Conditions, err = conditions(m.value)
	default:
		return malformed("A statement has the unknown element %s.", show(m.name))
	}
	return err
}

// patterns reads an element of patterns. Policies of identities are refused when they are checked if there are none.
func patterns(m member, kind Kind) (Patterns, error) {
	list, err := each(m.name, m.value, text)
	if err == nil && len(list) == 0 && !kind.ofIdentity() {
		err = errEmpty(m.name)
	}
	return Patterns{Except: strings.HasPrefix(m.name, "Not"), List: list}, err
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
	c.Values, err = scalars("The value of a condition", key.value)
	return c, err
}
