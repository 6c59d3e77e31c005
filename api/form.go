package api

import (
	"fmt"
	"net/url"
	"reflect"
	"strconv"
	"strings"

	"hsmkms/iam"
)

// form is one parameter of a request in the query protocol with the parameters below it: in Tags.member.1.Key=a the value
// a is that of the part Key of the part 1 of the part member of Tags.
type form struct {
	value string
	set   bool
	parts map[string]*form
}

// maxDepth bounds the parts of a parameter's name. AWS's have five at most.
const maxDepth = 8

// parseForm reads the body of a request.
func parseForm(body []byte) (*form, error) {
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, &iam.Error{Type: malformedQueryString, Message: "The query string is malformed.", Cause: err}
	}
	root := &form{}
	for name, given := range values {
		parts := strings.SplitN(name, ".", maxDepth+1)
		if len(given) != 1 || len(parts) > maxDepth {
			return nil, &iam.Error{Type: malformedQueryString, Message: "A parameter is repeated, or its name has too many parts."}
		}
		f := root
		for _, part := range parts {
			f = f.grow(part)
		}
		f.value, f.set = given[0], true
	}
	return root, nil
}

// grow gives a part, and makes it first if it is not there.
func (f *form) grow(name string) *form {
	if f.parts == nil {
		f.parts = map[string]*form{}
	}
	if f.parts[name] == nil {
		f.parts[name] = &form{}
	}
	return f.parts[name]
}

// get gives the value of a parameter, "" if there is none.
func (f *form) get(name string) string {
	if part := f.parts[name]; part != nil {
		return part.value
	}
	return ""
}

// decodeForm is decode for a form. Parameters that the model lacks are ignored.
func (d *decoder) decodeForm(f *form, dst any) error {
	v := reflect.ValueOf(dst)
	if v.Kind() != reflect.Pointer || v.Type().Elem() != d.input || v.IsNil() {
		return fmt.Errorf("decoding into %T: the decoder was made for *%s", dst, d.input)
	}
	var r reading
	if err := r.form(d.root, f, v.Elem()); err != nil {
		return err
	}
	return r.failed.err()
}

// form reads a parameter into v, making the room that a pointer needs.
func (r *reading) form(n *node, f *form, v reflect.Value) error {
	if n.kind != kindList && n.kind != kindStructure && len(f.parts) > 0 || n.kind == kindStructure && f.set {
		return malformedInput()
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	switch n.kind {
	case kindInteger:
		return r.formInteger(n, f.value, v)
	case kindBoolean:
		if f.value != "true" && f.value != "false" {
			return malformedInput()
		}
		v.SetBool(f.value == "true")
	case kindList:
		return r.formList(n, f, v)
	case kindStructure:
		return r.formStructure(n, f, v)
	default:
		v.SetString(f.value)
		for _, text := range n.chars(f.value) {
			r.fail(n, f.value, text)
		}
	}
	return nil
}

// checkForm refuses what cannot be read from a form.
func (n *node) checkForm() error {
	switch {
	case n.kind == kindTimestamp || n.kind == kindBlob || n.kind == kindMap || n.bytes:
		return fmt.Errorf("kind %d cannot be read from a form", n.kind)
	case n.kind == kindList:
		return n.element.checkForm()
	}
	for _, member := range n.members {
		if err := member.node.checkForm(); err != nil {
			return fmt.Errorf("member %s: %w", member.name, err)
		}
	}
	return nil
}

func (r *reading) formInteger(n *node, text string, v reflect.Value) error {
	value, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return malformedInput()
	}
	v.SetInt(value)
	if text := n.size(value); text != "" {
		r.fail(n, strconv.FormatInt(value, 10), text)
	}
	return nil
}

func (r *reading) formStructure(n *node, f *form, v reflect.Value) error {
	for i := range n.members {
		m := &n.members[i]
		part := f.parts[m.name]
		if part == nil {
			if m.required {
				r.failed.add(violation{path: m.path, text: mustNotBeNull})
			}
			continue
		}
		first := len(r.failed)
		if err := r.form(m.node, part, v.Field(m.field)); err != nil {
			return err
		}
		r.failed.within(m.path, first)
	}
	return nil
}

// formList reads Name.member.1, Name.member.2 and so on. An empty list is Name=.
func (r *reading) formList(n *node, f *form, v reflect.Value) error {
	var members map[string]*form
	if all := f.parts["member"]; all != nil {
		members = all.parts
	}
	if f.value != "" || len(f.parts) > 0 && len(members) == 0 {
		return malformedInput()
	}
	v.Set(reflect.MakeSlice(v.Type(), len(members), len(members)))
	if text := n.size(int64(len(members))); text != "" {
		r.fail(n, "", text)
	}
	for i := range len(members) {
		place := strconv.Itoa(i + 1)
		if members[place] == nil {
			return malformedInput()
		}
		first := len(r.failed)
		if err := r.form(n.element, members[place], v.Index(i)); err != nil {
			return err
		}
		r.failed.within(place+".member", first)
	}
	return nil
}

// malformedInput is the error for a value that is not of its type. AWS gives no text that helps.
func malformedInput() error {
	return &iam.Error{Type: malformedInputType, Message: "The request has a value that is not of its type, or a list with gaps."}
}
