package audit

import (
	"maps"
	"slices"
	"strconv"
	"time"
)

// Parameters is an object of a record whose members an operation chooses: requestParameters, responseElements,
// additionalEventData. Members are written in the order of the list, under CloudTrail's names, which begin with a small
// letter ("keyId", "encryptionContext"). nil is written as null, or not at all where CloudTrail leaves it out.
//
// There is no way to put bytes into it, and that is on purpose: a plaintext, a ciphertext blob, a signature or wrapped key
// material is a []byte everywhere in this server. Who would convert one to a string to get it in here leaks it for ever.
// What may stand in here of an operation is decided where the operation is; CloudTrail has identifiers, algorithms and
// encryption contexts.
type Parameters []Parameter

// Parameter is one member. Name must be made of letters and digits only; it is not escaped.
type Parameter struct {
	Name  string
	Value Value
}

// Value is a JSON value. The zero value is null.
type Value struct {
	kind   kind
	text   string
	number int64
	list   []string
	pairs  map[string]string
	object Parameters
	// objects is a list of them.
	objects []Parameters
}

type kind uint8

const (
	kindNull kind = iota
	kindText
	kindNumber
	kindBool
	kindTime
	kindList
	kindPairs
	kindObject
	kindObjects
)

// Text is a string.
func Text(s string) Value { return Value{kind: kindText, text: s} }

// Int is a whole number.
func Int(n int64) Value { return Value{kind: kindNumber, number: n} }

// Bool is true or false.
func Bool(b bool) Value {
	v := Value{kind: kindBool}
	if b {
		v.number = 1
	}
	return v
}

// Time is a moment, written in UTC and in seconds, such as "2026-11-25T21:25:21Z".
func Time(t time.Time) Value { return Value{kind: kindTime, number: t.Unix()} }

// Texts is a list of strings. It is not copied.
func Texts(list []string) Value { return Value{kind: kindList, list: list} }

// Pairs is an object of strings, such as an encryption context, written in the order of its names. It is not copied.
func Pairs(pairs map[string]string) Value { return Value{kind: kindPairs, pairs: pairs} }

// Object is an object within an object.
func Object(members Parameters) Value { return Value{kind: kindObject, object: members} }

// Objects is a list of objects. It is not copied.
func Objects(list []Parameters) Value { return Value{kind: kindObjects, objects: list} }

func (e *encoder) object(members Parameters) {
	e.raw("{")
	for i := range members {
		e.name(members[i].Name)
		e.value(&members[i].Value)
	}
	e.raw("}")
}

func (e *encoder) value(v *Value) {
	switch v.kind {
	case kindText:
		e.buf = appendString(e.buf, v.text)
	case kindNumber:
		e.buf = strconv.AppendInt(e.buf, v.number, 10)
	case kindBool:
		e.buf = strconv.AppendBool(e.buf, v.number == 1)
	case kindTime:
		e.buf = appendString(e.buf, time.Unix(v.number, 0).UTC().Format(timeFormat))
	case kindList:
		e.list(v.list)
	case kindPairs:
		e.pairs(v.pairs)
	case kindObject:
		e.object(v.object)
	case kindObjects:
		e.objects(v.objects)
	case kindNull:
		e.raw("null")
	}
}

func (e *encoder) objects(list []Parameters) {
	e.raw("[")
	for i := range list {
		if i > 0 {
			e.raw(",")
		}
		e.object(list[i])
	}
	e.raw("]")
}

func (e *encoder) list(list []string) {
	e.raw("[")
	for i, s := range list {
		if i > 0 {
			e.raw(",")
		}
		e.buf = appendString(e.buf, s)
	}
	e.raw("]")
}

func (e *encoder) pairs(pairs map[string]string) {
	var few [8]string
	names := slices.AppendSeq(few[:0], maps.Keys(pairs))
	slices.Sort(names)
	e.raw("{")
	for i, name := range names {
		if i > 0 {
			e.raw(",")
		}
		e.buf = appendString(e.buf, name)
		e.raw(":")
		e.buf = appendString(e.buf, pairs[name])
	}
	e.raw("}")
}
