package api

import (
	"reflect"
	"time"

	"hsmkms/audit"
	"hsmkms/kms"
)

// parameters gives the members of a structure for the audit trail, under CloudTrail's names. Left out are what is absent,
// blobs (plaintexts, ciphertexts, signatures, key material), what the model calls sensitive, and tokens.
func (n *node) parameters(v reflect.Value) audit.Parameters {
	list := audit.Parameters{}
	for i := range n.members {
		m := &n.members[i]
		field := v.Field(m.field)
		if m.node.secret || absentParameter(field) {
			continue
		}
		list = append(list, audit.Parameter{Name: m.path, Value: m.node.parameter(field)})
	}
	return list
}

// absentParameter is absent for requests, in which false is as good as nothing.
func absentParameter(v reflect.Value) bool { return absent(v) || v.Kind() == reflect.Bool && !v.Bool() }

// parameter gives a value for the audit trail.
func (n *node) parameter(v reflect.Value) audit.Value {
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
		return audit.Object(n.parameters(v))
	case kindList:
		return n.parameterList(v)
	}
	return audit.Text(v.String())
}

func (n *node) parameterList(v reflect.Value) audit.Value {
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
		objects[i] = n.element.parameters(v.Index(i))
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
