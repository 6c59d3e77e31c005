package api

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"hsmkms/kms"
)

// How Amazon's JSON reader says that it met a value of the wrong type. None of these texts is recorded for KMS; other AWS
// services of the same protocol answer so. For JSON that cannot be read at all, and for bad base64, it gives no text.
const (
	foundStructure = "Start of structure or map found where not expected."
	foundList      = "Start of list found where not expected"
	foundScalar    = "Unexpected field type"
	noConversion   = " can not be converted to "
)

// conversions are the wire's names of the types that a scalar can be converted to.
var conversions = map[kind]string{
	kindString:    "a String",
	kindInteger:   "an Integer",
	kindBoolean:   "a Boolean",
	kindTimestamp: "milliseconds since epoch",
	kindBlob:      "a ByteBuffer",
}

// base64Text is the standard alphabet with padding, refusing stray bits at the end.
var base64Text = base64.StdEncoding.Strict()

var errNotBase64 = errors.New("a blob is not base64")

// latestTimestamp is the end of the year 9999, in milliseconds since the Unix epoch; earliestTimestamp the start of year 1.
const (
	latestTimestamp   = 253402300799999
	earliestTimestamp = -62135596800000
)

// reading is one request under way.
type reading struct {
	failed violations
}

// decode reads body, the JSON text of a request, into dst, a pointer to the struct type that the decoder was made for,
// and checks it against the model. An empty body counts as {}, a JSON null as an absent member; members that the model
// lacks are ignored; of two members of one name the last counts.
//
// The errors are *kms.Error: kms.Serialization, at the first value that does not have the form of its type, or else
// kms.Validation, naming all failed constraints. After an error *dst is zero, and the blobs read so far are wiped.
//
// body is not changed and nothing in *dst refers to it: the caller may wipe it at once.
func (d *decoder) decode(body []byte, dst any) error {
	v := reflect.ValueOf(dst)
	if v.Kind() != reflect.Pointer || v.Type().Elem() != d.input || v.IsNil() {
		return fmt.Errorf("decoding into %T: the decoder was made for *%s", dst, d.input)
	}
	v = v.Elem()
	v.SetZero()
	err := d.read(body, v)
	if err != nil {
		d.root.discard(v)
	}
	return err
}

// read is decode for a checked destination, which it leaves half filled on errors.
func (d *decoder) read(body []byte, v reflect.Value) error {
	body = trimSpace(body)
	if len(body) == 0 {
		body = []byte("{}")
	}
	if err := validJSON(body); err != nil {
		return malformed(err)
	}
	var r reading
	if err := r.value(d.root, body, v); err != nil {
		return err
	}
	return r.failed.err()
}

// discard makes v zero, and the memory of its blobs before that.
func (n *node) discard(v reflect.Value) {
	n.wipe(v)
	v.SetZero()
}

// wipe overwrites the blobs in v.
func (n *node) wipe(v reflect.Value) {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	switch {
	case !v.IsValid():
	case n.kind == kindBlob:
		clear(v.Bytes())
	case n.kind == kindStructure:
		for _, member := range n.members {
			member.node.wipe(v.Field(member.field))
		}
	case n.kind == kindList:
		for i := range v.Len() {
			n.element.wipe(v.Index(i))
		}
	}
}

// malformed is the error for text that cannot be read; the cause is for the log.
func malformed(cause error) error { return &kms.Error{Type: kms.Serialization, Cause: cause} }

// mismatch is the error for a raw value that is not of kind k.
func mismatch(raw []byte, k kind) error {
	token := "NUMBER_VALUE"
	switch raw[0] {
	case '{':
		return &kms.Error{Type: kms.Serialization, Message: foundStructure}
	case '[':
		return &kms.Error{Type: kms.Serialization, Message: foundList}
	case '"':
		token = "STRING_VALUE"
	case 't':
		token = "TRUE_VALUE"
	case 'f':
		token = "FALSE_VALUE"
	}
	if target, scalar := conversions[k]; scalar {
		return &kms.Error{Type: kms.Serialization, Message: token + noConversion + target}
	}
	return &kms.Error{Type: kms.Serialization, Message: foundScalar}
}

// isNull tells a JSON null, or a member that was not there at all.
func isNull(raw []byte) bool { return len(raw) == 0 || raw[0] == 'n' }

// value reads raw, which is not null unless it is the whole request, into v, making the room that a pointer needs.
func (r *reading) value(n *node, raw []byte, v reflect.Value) error {
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	switch n.kind {
	case kindString:
		return r.string(n, raw, v)
	case kindInteger:
		return r.integer(n, raw, v)
	case kindBoolean:
		return boolean(raw, v)
	case kindTimestamp:
		return timestamp(raw, v)
	case kindBlob:
		return r.blob(n, raw, v)
	case kindList:
		return r.list(n, raw, v)
	case kindMap:
		return r.stringMap(raw, v)
	default:
		return r.structure(n, raw, v)
	}
}

// structure reads an object: first it notes where its members are, then it reads them in the model's order, so that the
// last of two members counts and failures are reported in a fixed order.
func (r *reading) structure(n *node, raw []byte, v reflect.Value) error {
	if raw[0] != '{' {
		return mismatch(raw, kindStructure)
	}
	var values [maxMembers][]byte
	for s := scan(raw); s.more(); {
		name, _, err := unquote(s.next())
		if err != nil {
			return malformed(err)
		}
		value := s.next()
		if i := n.member(name); i >= 0 {
			values[i] = value
		}
	}
	for i := range n.members {
		if err := r.member(&n.members[i], values[i], v); err != nil {
			return err
		}
	}
	return nil
}

// member gives the index of the member called name, -1 if there is none.
func (n *node) member(name []byte) int {
	for i := range n.members {
		if n.members[i].name == string(name) {
			return i
		}
	}
	return -1
}

// member reads one member of the structure v.
func (r *reading) member(m *memberNode, raw []byte, v reflect.Value) error {
	if isNull(raw) {
		if m.required {
			r.failed.add(violation{path: m.path, text: mustNotBeNull})
		}
		return nil
	}
	first := len(r.failed)
	if err := r.value(m.node, raw, v.Field(m.field)); err != nil {
		return err
	}
	r.failed.within(m.path, first)
	return nil
}

// string reads a string.
func (r *reading) string(n *node, raw []byte, v reflect.Value) error {
	if raw[0] != '"' {
		return mismatch(raw, kindString)
	}
	chars, _, err := unquote(raw)
	if err != nil {
		return malformed(err)
	}
	value := n.intern(chars)
	v.SetString(value)
	for _, text := range n.chars(value) {
		r.fail(n, value, text)
	}
	return nil
}

// fail notes that value breaks the constraint of n that text describes.
func (r *reading) fail(n *node, value, text string) {
	if n.hidden {
		r.failed.add(violation{text: text})
		return
	}
	r.failed.add(violation{value: value, quoted: true, text: text})
}

// integer reads a number without fraction and exponent that fits into 32 bits.
func (r *reading) integer(n *node, raw []byte, v reflect.Value) error {
	value, err := strconv.ParseInt(string(raw), 10, 32)
	if err != nil {
		return mismatch(raw, kindInteger)
	}
	v.SetInt(value)
	if text := n.size(value); text != "" {
		r.fail(n, strconv.FormatInt(value, 10), text)
	}
	return nil
}

// boolean reads true or false.
func boolean(raw []byte, v reflect.Value) error {
	if raw[0] != 't' && raw[0] != 'f' {
		return mismatch(raw, kindBoolean)
	}
	v.SetBool(raw[0] == 't')
	return nil
}

// timestamp reads seconds since the Unix epoch, rounding to the millisecond, which is all that the wire keeps.
func timestamp(raw []byte, v reflect.Value) error {
	seconds, err := strconv.ParseFloat(string(raw), 64)
	if err != nil {
		return mismatch(raw, kindTimestamp)
	}
	ms := math.Round(seconds * 1000)
	if ms < earliestTimestamp || ms > latestTimestamp {
		return mismatch(raw, kindTimestamp)
	}
	*v.Addr().Interface().(*kms.Timestamp) = kms.Timestamp{Time: time.UnixMilli(int64(ms)).UTC()}
	return nil
}

// blob reads base64. Besides the body, the bytes exist in v alone.
func (r *reading) blob(n *node, raw []byte, v reflect.Value) error {
	if raw[0] != '"' {
		return mismatch(raw, kindBlob)
	}
	chars, fresh, err := unquote(raw)
	if err != nil {
		return malformed(err)
	}
	if fresh {
		defer clear(chars)
	}
	b := make([]byte, base64Text.DecodedLen(len(chars)))
	v.SetBytes(b) // all of it: discard must find what a failing Decode wrote
	size, err := base64Text.Decode(b, chars)
	if err != nil || base64Text.EncodedLen(size) != len(chars) { // Decode skips line ends, which are no base64 here
		return malformed(errNotBase64)
	}
	v.SetBytes(b[:size:size])
	if text := n.size(int64(size)); text != "" {
		r.fail(n, "", text)
	}
	return nil
}

// list reads an array of strings or structures.
func (r *reading) list(n *node, raw []byte, v reflect.Value) error {
	if raw[0] != '[' {
		return mismatch(raw, kindList)
	}
	size := count(raw)
	v.Set(reflect.MakeSlice(v.Type(), size, size))
	if n.element.kind == kindString {
		return r.strings(n, raw, v)
	}
	if text := n.size(int64(size)); text != "" {
		r.fail(n, "", text)
	}
	s := scan(raw)
	for i := range size {
		if err := r.element(n.element, s.next(), v.Index(i), i+1); err != nil {
			return err
		}
	}
	return nil
}

// element reads one structure of a list; place is its number in error texts.
func (r *reading) element(n *node, raw []byte, v reflect.Value, place int) error {
	first := len(r.failed)
	if isNull(raw) {
		r.failed.add(violation{text: mustNotBeNull})
	} else if err := r.value(n, raw, v); err != nil {
		return err
	}
	if len(r.failed) > first {
		r.failed.within(strconv.Itoa(place)+".member", first)
	}
	return nil
}

// strings reads the elements of a list of strings into v, which has room for them. However many of them break their
// constraints, AWS reports the list as a whole, with all the constraints of an element.
func (r *reading) strings(n *node, raw []byte, v reflect.Value) error {
	var elements reading
	null := false
	s := scan(raw)
	for i := range v.Len() {
		part := s.next()
		if isNull(part) {
			null = true
			elements.failed.add(violation{})
		} else if err := elements.value(n.element, part, v.Index(i)); err != nil {
			return err
		}
	}
	if text := n.size(int64(v.Len())); text != "" {
		r.fail(n, listText(raw), text)
	}
	if len(elements.failed) == 0 {
		return nil
	}
	demand := n.element.all()
	if null {
		demand = mustNotBeNull
	}
	r.fail(n, listText(raw), mustSatisfy+"["+demand+"]")
	return nil
}

// listText shows a list of strings and nulls that was read without error, as "[a, b]".
func listText(raw []byte) string {
	var values []string
	for s := scan(raw); s.more(); {
		part := s.next()
		if isNull(part) {
			values = append(values, "null")
			continue
		}
		chars, _, _ := unquote(part)
		values = append(values, string(chars))
	}
	return "[" + strings.Join(values, ", ") + "]"
}

// stringMap reads an object of strings.
func (r *reading) stringMap(raw []byte, v reflect.Value) error {
	if raw[0] != '{' {
		return mismatch(raw, kindMap)
	}
	values := make(map[string]string, count(raw)/2)
	*v.Addr().Interface().(*map[string]string) = values
	for s := scan(raw); s.more(); {
		name, _, err := unquote(s.next())
		if err != nil {
			return malformed(err)
		}
		part := s.next()
		if isNull(part) {
			r.failed.add(violation{path: string(name) + ".member", text: mustNotBeNull})
			continue
		}
		if part[0] != '"' {
			return mismatch(part, kindString)
		}
		chars, _, err := unquote(part)
		if err != nil {
			return malformed(err)
		}
		values[string(name)] = string(chars)
	}
	return nil
}
