package api

import (
	"reflect"
	"time"

	"hsmkms/audit"
	"hsmkms/kms"
)

// givers are operations that change nothing and still have responseElements, for they give credentials.
var givers = map[string]bool{"AssumeRole": true, "GetSessionToken": true}

// responseElements gives what the audit trail has of an answer. As with CloudTrail, that is nothing of calls that only read, at no
// cost, and nothing of answers that are empty.
func (x *exchange) responseElements(e endpoint) audit.Parameters {
	operation := x.request.Operation
	if x.output == nil || readOnly(operation) && !givers[operation] {
		return nil
	}
	if list := e.output.parameters(reflect.ValueOf(x.output).Elem(), absent); len(list) > 0 {
		return list
	}
	return nil
}

// absence tells which values count as absent; it is another in requests than in answers.
type absence func(reflect.Value) bool

// unsaid is the absence of requests, in which false is as good as nothing.
func unsaid(v reflect.Value) bool { return absent(v) || v.Kind() == reflect.Bool && !v.Bool() }

// parameters gives the members of a structure for the audit trail, under CloudTrail's names. Left out are what is absent,
// blobs (plaintexts, ciphertexts, signatures, key material), what the model calls sensitive, and tokens.
func (n *node) parameters(v reflect.Value, missing absence) audit.Parameters {
	shown := func(m *memberNode) bool { return !m.node.secret && !missing(v.Field(m.field)) }
	count := 0
	for i := range n.members {
		if shown(&n.members[i]) {
			count++
		}
	}
	list := make(audit.Parameters, 0, count)
	for i := range n.members {
		if m := &n.members[i]; shown(m) {
			list = append(list, audit.Parameter{Name: m.path, Value: m.node.parameter(v.Field(m.field), missing)})
		}
	}
	return list
}

// parameter gives a value for the audit trail.
func (n *node) parameter(v reflect.Value, missing absence) audit.Value {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	switch n.kind {
	case kindInteger:
		return audit.Int(v.Int())
	case kindBoolean:
		return audit.Bool(v.Bool())
	case kindTimestamp:
		return audit.Time(moment(v))
	case kindMap:
		return audit.Pairs(v.Interface().(map[string]string))
	case kindStructure:
		return audit.Object(n.parameters(v, missing))
	case kindList:
		return n.parameterList(v, missing)
	}
	return audit.Text(v.String())
}

func (n *node) parameterList(v reflect.Value, missing absence) audit.Value {
	if n.element.secret {
		return audit.Value{}
	}
	if n.element.kind != kindStructure {
		texts := make([]string, v.Len())
		for i := range texts {
			texts[i] = v.Index(i).String()
		}
		return audit.Texts(texts)
	}
	objects := make([]audit.Parameters, v.Len())
	for i := range objects {
		objects[i] = n.element.parameters(v.Index(i), missing)
	}
	return audit.Objects(objects)
}

// moment gives the time in a timestamp of either protocol.
func moment(v reflect.Value) time.Time {
	if t, ok := v.Interface().(kms.Timestamp); ok {
		return t.Time
	}
	return v.Interface().(time.Time)
}
