package policy

// condition is a compiled Condition.
type condition struct {
	operator   operator
	quantifier Quantifier
	ifExists   bool
	key        ConditionKey
	name       string // of a member of a family
	literals   []literal
	templates  []template // in their place, for operators on texts
}

func newCondition(c *Condition, d *Document) (condition, error) {
	compiled := condition{operator: operators[c.Operator], quantifier: c.Quantifier, ifExists: c.IfExists}
	compiled.key, compiled.name = conditionKeyOf(c.Key)
	how := compiled.operator.comparison
	if how == noComparison {
		return condition{}, malformed("Invalid condition operator: %s.", show(c.Operator))
	}
	variables, wild := how.textual()
	for _, value := range c.Values {
		if !variables {
			l, ok := parseLiteral(how, value)
			switch {
			case !ok && how == ofTimes && d.Kind == IdentityPolicy:
				return condition{}, errLegacy
			case !ok:
				return condition{}, malformed("The value %s is not valid for the condition operator %s.", show(value), show(c.Operator))
			}
			compiled.literals = append(compiled.literals, l)
			continue
		}
		t, err := newTemplate(value, d.Version == Version2012, wild)
		if err != nil {
			return condition{}, err
		}
		compiled.templates = append(compiled.templates, t)
	}
	return compiled, nil
}

// met tells whether a request meets the condition.
func (c *condition) met(r *Request) bool {
	have := r.value(c.key, c.name)
	if c.operator.comparison == existence {
		return c.asksFor(have.missing())
	}
	if have.missing() {
		switch {
		case c.ifExists || c.quantifier == ForAllValues:
			return true
		case c.quantifier == ForAnyValue:
			return false
		}
		return c.operator.negated
	}
	matched, all := c.count(r, &have)
	switch {
	case c.quantifier == ForAllValues && c.operator.negated:
		return matched == 0
	case c.quantifier == ForAllValues:
		return matched == all
	case c.quantifier == ForAnyValue && c.operator.negated:
		return matched < all
	case c.quantifier == ForAnyValue:
		return matched > 0
	}
	return matched > 0 != c.operator.negated
}

// asksFor is the operator Null: whether the key is missing is one of the values.
func (c *condition) asksFor(missing bool) bool {
	for i := range c.literals {
		if c.literals[i].flag == missing {
			return true
		}
	}
	return false
}

// count tells how many values the request has for the key, and how many of them match a value of the condition.
func (c *condition) count(r *Request, have *Value) (matched, all int) {
	tally := func(one item) {
		all++
		if c.matches(r, one) {
			matched++
		}
	}
	switch have.kind {
	case oneText:
		tally(item{text: have.text})
	case oneMoment:
		tally(item{time: have.time, moment: true})
	case manyTexts:
		for _, one := range have.list {
			tally(item{text: one})
		}
	case manyKeys:
		for one := range have.keys {
			tally(item{text: one})
		}
	}
	return matched, all
}

// matches tells whether a value of the request matches one of the condition.
func (c *condition) matches(r *Request, have item) bool {
	for i := range c.literals {
		if c.literals[i].matches(c.operator, have) {
			return true
		}
	}
	for i := range c.templates {
		if c.templates[i].matches(c.operator.comparison, r, have.String()) {
			return true
		}
	}
	return false
}

// lasting tells whether the condition will be met by the caller's next request if it is by this one.
func (c *condition) lasting() bool {
	for i := range c.templates {
		if !c.templates[i].lasting() {
			return false
		}
	}
	return lasting[c.key]
}
