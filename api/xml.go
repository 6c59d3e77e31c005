package api

import (
	"bytes"
	"encoding/xml"
	"reflect"
	"strconv"
	"time"
)

// xmlTime is the form of timestamps in XML.
const xmlTime = "2006-01-02T15:04:05Z"

// writeXML writes the members of a structure as elements. Absent are members without a value that the model does not
// require: nil pointers and lists, empty strings, zero times.
func (n *node) writeXML(out *bytes.Buffer, v reflect.Value) {
	for i := range n.members {
		m := &n.members[i]
		if field := v.Field(m.field); m.required || !absent(field) {
			element(out, m.name, func() { m.node.writeValue(out, field) })
		}
	}
}

func absent(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Bool, reflect.Int32, reflect.Int64:
		return false
	default:
		return v.IsZero()
	}
}

func element(out *bytes.Buffer, name string, content func()) {
	out.WriteString("<" + name + ">")
	content()
	out.WriteString("</" + name + ">")
}

// writeValue writes what stands between the tags of an element.
func (n *node) writeValue(out *bytes.Buffer, v reflect.Value) {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return
		}
		v = v.Elem()
	}
	switch n.kind {
	case kindStructure:
		n.writeXML(out, v)
	case kindList:
		for i := range v.Len() {
			element(out, "member", func() { n.element.writeValue(out, v.Index(i)) })
		}
	case kindBoolean:
		out.WriteString(strconv.FormatBool(v.Bool()))
	case kindInteger:
		out.WriteString(strconv.FormatInt(v.Int(), 10))
	case kindTimestamp:
		out.WriteString(v.Interface().(time.Time).UTC().Format(xmlTime))
	default:
		writeText(out, v, n.bytes)
	}
}

// writeText writes a string, or a secret in bytes, of which no copy is left.
func writeText(out *bytes.Buffer, v reflect.Value, secret bool) {
	if secret {
		_ = xml.EscapeText(out, v.Bytes()) // a buffer takes everything
		return
	}
	_ = xml.EscapeText(out, []byte(v.String()))
}
