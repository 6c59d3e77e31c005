package api

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// maxMembers bounds the members of a structure in a request, so that the decoder can note them on its stack.
const maxMembers = 16

// kind is what a node of a decoder reads.
type kind int

const (
	kindString kind = iota
	kindInteger
	kindBoolean
	kindTimestamp
	kindBlob
	kindList
	kindMap
	kindStructure
)

// kinds are the model's types with the Go types that can hold them. Strings, integers, booleans, timestamps and
// structures may also stand behind a pointer, which is nil for an absent member. Go's integers may be wider than the
// wire's, which have 32 bits.
var kinds = map[string]struct {
	kind kind
	fits func(reflect.Type) bool
}{
	"string":    {kindString, func(t reflect.Type) bool { return t.Kind() == reflect.String }},
	"integer":   {kindInteger, func(t reflect.Type) bool { return t.Kind() == reflect.Int32 || t.Kind() == reflect.Int64 }},
	"boolean":   {kindBoolean, func(t reflect.Type) bool { return t.Kind() == reflect.Bool }},
	"timestamp": {kindTimestamp, func(t reflect.Type) bool { return t.Kind() == reflect.Struct }}, // and model.timestamp
	"blob":      {kindBlob, func(t reflect.Type) bool { return t == reflect.TypeFor[[]byte]() }},
	"list":      {kindList, func(t reflect.Type) bool { return t.Kind() == reflect.Slice }},
	"map":       {kindMap, func(t reflect.Type) bool { return t == reflect.TypeFor[map[string]string]() }},
	"structure": {kindStructure, func(t reflect.Type) bool { return t.Kind() == reflect.Struct }},
}

// node is a shape of the model joined with the Go type that holds its values.
type node struct {
	kind kind
	constraints
	// hidden keeps values out of error texts: blobs, tokens and what the model calls sensitive.
	hidden bool
	// secret keeps values out of the audit trail: the same.
	secret bool
	// bytes says that a string of an answer is held by bytes, which can be wiped.
	bytes bool
	// element is what a list holds: strings or structures.
	element *node
	// members are those of a structure, in the order in which they are checked.
	members []memberNode
}

// memberNode is one member of a structure and the Go field of the same name.
type memberNode struct {
	name string
	// path is the name in error texts.
	path     string
	field    int
	required bool
	node     *node
}

// decoder reads the requests of one operation. It is immutable and safe for concurrent use.
type decoder struct {
	input reflect.Type
	root  *node
}

// newDecoder joins the input shape of an operation with input, the struct type that is to hold it. It fails unless the
// two have the same members, by name, and each Go type can hold what the model allows.
func newDecoder(m *model, operation string, input reflect.Type) (*decoder, error) {
	op, found := m.Operations[operation]
	if !found {
		return nil, fmt.Errorf("the model has no operation %q", operation)
	}
	root, err := m.join(op.Input, input)
	if err != nil {
		return nil, fmt.Errorf("joining the input of %s with %s: %w", operation, input, err)
	}
	if big := root.biggest(); big > maxMembers {
		return nil, fmt.Errorf("the input of %s has a structure of %d members, at most %d can be read", operation, big, maxMembers)
	}
	if m.query() {
		if err := root.checkForm(); err != nil {
			return nil, fmt.Errorf("the input of %s: %w", operation, err)
		}
	}
	return &decoder{input: input, root: root}, nil
}

// checkOutput holds the struct type of an operation's answer against the model as newDecoder does for requests; JSON
// tags must keep the members' names. An operation without output takes a struct without exported fields. The node that it
// gives can be written as XML.
func checkOutput(m *model, operation string, output reflect.Type) (*node, error) {
	op, found := m.Operations[operation]
	if !found {
		return nil, fmt.Errorf("the model has no operation %q", operation)
	}
	n, err := m.join(op.Output, output)
	if err != nil {
		return nil, fmt.Errorf("joining the output of %s with %s: %w", operation, output, err)
	}
	return n, nil
}

// join makes the node for the shape that r names, held by t.
func (m *model) join(r reference, t reflect.Type) (*node, error) {
	s, err := m.shapeNamed(r)
	if err != nil {
		return nil, err
	}
	k, known := kinds[s.Type]
	if !known {
		return nil, fmt.Errorf("values of type %q cannot be read", s.Type)
	}
	if t.Kind() == reflect.Pointer && k.kind != kindBlob && k.kind != kindList && k.kind != kindMap {
		t = t.Elem()
	}
	secret := k.kind == kindString && m.query() && t == reflect.TypeFor[[]byte]()
	if !k.fits(t) && !secret || k.kind == kindTimestamp && t != m.timestamp {
		return nil, fmt.Errorf("%s cannot hold the %s %s", t, s.Type, r.Shape)
	}
	n := &node{kind: k.kind, constraints: newConstraints(s), hidden: s.Sensitive || k.kind == kindBlob, secret: s.Sensitive || k.kind == kindBlob || secret, bytes: secret}
	switch k.kind {
	case kindList:
		err = m.joinList(n, s, t)
	case kindMap:
		err = m.checkMap(s)
	case kindStructure:
		err = m.joinMembers(n, s, t)
	}
	if err == nil && !n.enforced() {
		err = fmt.Errorf("constraints on the %s %s cannot be enforced", s.Type, r.Shape)
	}
	return n, err
}

// enforced tells whether the decoder checks all constraints that n has: better no decoder than one that overlooks some.
func (n *node) enforced() bool {
	switch n.kind {
	case kindString:
		return true
	case kindInteger, kindBlob, kindList:
		return n.pattern == nil && n.enum == nil
	}
	return n.all() == ""
}

// joinList joins the elements of a list.
func (m *model) joinList(n *node, s *shape, t reflect.Type) (err error) {
	if n.element, err = m.join(*s.Member, t.Elem()); err != nil {
		return fmt.Errorf("elements: %w", err)
	}
	if n.element.kind != kindString && n.element.kind != kindStructure {
		return fmt.Errorf("a list of %s cannot be read", m.Shapes[s.Member.Shape].Type)
	}
	n.hidden = n.hidden || n.element.kind == kindStructure || n.element.hidden
	return nil
}

// checkMap sees to it that a map is one of plain strings.
func (m *model) checkMap(s *shape) error {
	for _, r := range []reference{*s.Key, *s.Value} {
		part, err := m.join(r, reflect.TypeFor[string]())
		if err != nil {
			return err
		}
		if part.all() != "" {
			return fmt.Errorf("constraints on %s in a map cannot be enforced", r.Shape)
		}
	}
	return nil
}

// tokens are members that prove something to a server, though the model does not call them sensitive: like those they have no
// place in an error text, which is recorded too, nor in the audit trail.
var tokens = map[string]bool{"GrantToken": true, "GrantTokens": true, "TokenCode": true, "ContextAssertion": true}

// joinMembers joins the members of a structure with the fields of t.
func (m *model) joinMembers(n *node, s *shape, t reflect.Type) error {
	if err := checkFields(s, t); err != nil {
		return err
	}
	for _, name := range s.memberOrder() {
		field, found := t.FieldByName(fieldName(name))
		if !found || len(field.Index) != 1 || !field.IsExported() {
			return fmt.Errorf("%s lacks the field %s", t, name)
		}
		child, err := m.join(s.Members[name], field.Type)
		if err != nil {
			return fmt.Errorf("member %s: %w", name, err)
		}
		if tokens[name] {
			child.hidden, child.secret = true, true
		}
		n.members = append(n.members, memberNode{
			name:     name,
			path:     lowerCamel(name),
			field:    field.Index[0],
			required: slices.Contains(s.Required, name),
			node:     child,
		})
	}
	return nil
}

// fieldName is the name of the field for a member: a few members begin with a small letter.
func fieldName(member string) string { return strings.ToUpper(member[:1]) + member[1:] }

// checkFields refuses exported fields that are not members of s and JSON tags that give a field another name.
func checkFields(s *shape, t reflect.Type) error {
	known := map[string]bool{}
	for name := range s.Members {
		known[fieldName(name)] = true
	}
	for i := range t.NumField() {
		field := t.Field(i)
		if !field.IsExported() {
			continue
		}
		if !known[field.Name] || field.Anonymous {
			return fmt.Errorf("%s has the field %s, which is no member in the model", t, field.Name)
		}
		if tag, _, _ := strings.Cut(field.Tag.Get("json"), ","); tag != "" && tag != field.Name {
			return fmt.Errorf("the JSON tag of %s.%s gives it the name %q", t, field.Name, tag)
		}
	}
	return nil
}

// biggest gives the largest number of members among the structures of n.
func (n *node) biggest() int {
	big := len(n.members)
	for _, member := range n.members {
		big = max(big, member.node.biggest())
	}
	if n.element != nil {
		big = max(big, n.element.biggest())
	}
	return big
}
