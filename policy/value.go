package policy

import (
	"strconv"
	"strings"
	"time"
)

// Value is what a request has for a condition key: nothing, one text, a moment, or several texts. The zero Value is
// nothing. It is made without allocation.
type Value struct {
	kind valueKind
	text string
	time time.Time
	list []string
	keys map[string]string
}

type valueKind uint8

const (
	nothing valueKind = iota
	oneText
	oneMoment
	manyTexts
	manyKeys
)

// Text is one text, which may be empty.
func Text(text string) Value { return Value{kind: oneText, text: text} }

// Optional is one text, or nothing if it is empty.
func Optional(text string) Value {
	if text == "" {
		return Value{}
	}
	return Text(text)
}

// Texts are the values of a key with several; without any, the key is missing. The caller must not change them before the
// decision.
func Texts(list []string) Value {
	if len(list) == 0 {
		return Value{}
	}
	return Value{kind: manyTexts, list: list}
}

// KeysOf are the keys of a map, as Texts are of a list.
func KeysOf(m map[string]string) Value {
	if len(m) == 0 {
		return Value{}
	}
	return Value{kind: manyKeys, keys: m}
}

// Number is a whole number.
func Number(n int64) Value { return Text(strconv.FormatInt(n, 10)) }

// Flag is a truth value.
func Flag(flag bool) Value {
	if flag {
		return Text("true")
	}
	return Text("false")
}

// Moment is a point in time, or nothing if it is zero.
func Moment(t time.Time) Value {
	if t.IsZero() {
		return Value{}
	}
	return Value{kind: oneMoment, time: t}
}

// Member is a member of a family of condition keys, such as aws:ResourceTag/. Its name has no regard to case; of members
// whose names differ by case alone, the one that is written like name is taken, or else the first in the order of bytes.
func Member(family map[string]string, name string) Value {
	if value, ok := family[name]; ok {
		return Text(value)
	}
	found, chosen := Value{}, ""
	for key, value := range family {
		if strings.EqualFold(key, name) && (found.missing() || key < chosen) {
			found, chosen = Text(value), key
		}
	}
	return found
}

func (v *Value) missing() bool { return v.kind == nothing }

// item is one of a Value's values: a text or a moment.
type item struct {
	text   string
	time   time.Time
	moment bool
}

// String gives the text; a moment is in the form of aws:CurrentTime.
func (i item) String() string {
	if i.moment {
		return i.time.UTC().Format(time.RFC3339)
	}
	return i.text
}

// single gives the text of a value that is one text or moment; policy variables stand for such only.
func (v *Value) single() (string, bool) {
	switch v.kind {
	case oneText:
		return v.text, true
	case oneMoment:
		return item{time: v.time, moment: true}.String(), true
	}
	return "", false
}

// Values has the values of condition keys that a Request doesn't know by itself.
type Values interface {
	// Value gives the value of a key; the zero Value if the request has none, which is so for every key that does not go with
	// its operation. name is what stands behind the name of a family, as the policy wrote it (see Member), and "" for other
	// keys. Points in time are a Moment; aws:EpochTime is made of aws:CurrentTime. It is called once for each condition and
	// variable that is looked at, and must not allocate if decisions are not to.
	Value(key ConditionKey, name string) Value
}
