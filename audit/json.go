package audit

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// encoder appends JSON to a buffer. It puts the commas; names must not need escaping.
type encoder struct{ buf []byte }

// name begins a member of the object that is open.
func (e *encoder) name(name string) {
	if e.buf[len(e.buf)-1] != '{' {
		e.buf = append(e.buf, ',')
	}
	e.buf = append(e.buf, '"')
	e.buf = append(e.buf, name...)
	e.buf = append(e.buf, '"', ':')
}

func (e *encoder) raw(text string) { e.buf = append(e.buf, text...) }

// text appends a member that is a string, unless it is empty.
func (e *encoder) text(name, value string) {
	if value != "" {
		e.name(name)
		e.buf = appendString(e.buf, value)
	}
}

func (e *encoder) flag(name string, value bool) {
	e.name(name)
	e.buf = strconv.AppendBool(e.buf, value)
}

func (e *encoder) number(name string, value uint64) {
	e.name(name)
	e.buf = strconv.AppendUint(e.buf, value, 10)
}

// time appends a moment as CloudTrail writes it: UTC, in seconds.
func (e *encoder) time(name string, at time.Time) {
	e.name(name)
	e.buf = append(e.buf, '"')
	e.buf = at.UTC().AppendFormat(e.buf, timeFormat)
	e.buf = append(e.buf, '"')
}

const timeFormat = "2006-01-02T15:04:05Z"

const hexDigits = "0123456789abcdef"

// plain tells which bytes stand for themselves in a JSON string: ASCII without controls, quote and backslash.
var plain = func() (table [256]bool) {
	for b := ' '; b < utf8.RuneSelf; b++ {
		table[b] = b != '"' && b != '\\'
	}
	return table
}()

// appendString appends s as a JSON string, as encoding/json writes it without HTML escaping: bytes that are not UTF-8
// become U+FFFD.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		if plain[s[i]] {
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r >= utf8.RuneSelf && r != '\u2028' && r != '\u2029' && (r != utf8.RuneError || size > 1) {
			i += size
			continue
		}
		dst = append(dst, s[start:i]...)
		dst = appendEscaped(dst, r)
		i += size
		start = i
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

func appendEscaped(dst []byte, r rune) []byte {
	switch r {
	case '"', '\\':
		return append(dst, '\\', byte(r))
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}

// cut shortens s to at most limit bytes, at the border of a character.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}
