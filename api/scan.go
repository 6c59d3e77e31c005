package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// The functions of this file walk over JSON that validJSON accepted, without copying it and without looking for mistakes
// again: they would panic on text that is not JSON. A ready-made walker such as gjson unescapes every string that it passes
// into memory that nobody can wipe: clients that write base64 with "\/" or "\u002b" would leave their plaintexts there.

var (
	errNotUTF8       = errors.New("the body is not UTF-8")
	errNotJSON       = errors.New("the body is not JSON, or nested too deeply")
	errLoneSurrogate = errors.New("a string holds half of a surrogate pair")
)

// validJSON checks that text is one JSON value in UTF-8, with white space around it at most. The depth of nesting is
// limited by encoding/json (10,000 levels).
func validJSON(text []byte) error {
	if !utf8.Valid(text) {
		return errNotUTF8
	}
	if !json.Valid(text) {
		return errNotJSON
	}
	return nil
}

// trimSpace cuts JSON's white space from both ends.
func trimSpace(text []byte) []byte { return bytes.Trim(text, " \t\r\n") }

// scanner gives the parts of one object or array in turn: an object's names and values alternate.
type scanner struct {
	text []byte
	pos  int
}

// scan begins at the first part of raw, an object or array without white space before it.
func scan(raw []byte) scanner { return scanner{text: raw, pos: 1} }

// more tells whether another part follows.
func (s *scanner) more() bool {
	for {
		switch s.text[s.pos] {
		case ' ', '\t', '\r', '\n', ',', ':':
			s.pos++
		case '}', ']':
			return false
		default:
			return true
		}
	}
}

// next gives the raw text of the next part, which there must be.
func (s *scanner) next() []byte {
	s.more()
	start := s.pos
	s.pos = valueEnd(s.text, start)
	return s.text[start:s.pos]
}

// count gives the number of parts of raw, an object or array.
func count(raw []byte) int {
	n := 0
	for s := scan(raw); s.more(); n++ {
		s.next()
	}
	return n
}

// valueEnd gives the index after the value that begins at text[i].
func valueEnd(text []byte, i int) int {
	switch text[i] {
	case '"':
		return stringEnd(text, i)
	case '{', '[':
		return nestedEnd(text, i)
	}
	for i < len(text) && strings.IndexByte(" \t\r\n,:]}", text[i]) < 0 {
		i++
	}
	return i
}

// stringEnd gives the index after the string whose opening quote is text[i].
func stringEnd(text []byte, i int) int {
	i++
	quote := i + bytes.IndexByte(text[i:], '"')
	if bytes.IndexByte(text[i:quote], '\\') < 0 {
		return quote + 1
	}
	for ; text[i] != '"'; i++ {
		if text[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// nestedEnd gives the index after the object or array that begins at text[i]. It does not recurse: the depth is the
// caller's choice.
func nestedEnd(text []byte, i int) int {
	for depth := 0; ; i++ {
		switch text[i] {
		case '"':
			i = stringEnd(text, i) - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
}

// unquote gives the characters of a raw JSON string. Without escapes they are a view of raw; with escapes they are fresh
// memory, the only copy, which the caller wipes if the string is a secret. Half a surrogate pair is refused: replaced by
// U+FFFD, as is usual, it would make two different encryption contexts equal.
func unquote(raw []byte) (chars []byte, fresh bool, err error) {
	raw = raw[1 : len(raw)-1]
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw, false, nil
	}
	chars = make([]byte, 0, len(raw)) // no escape is shorter than its character: the slice never moves
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			chars = append(chars, raw[i])
			continue
		}
		i++
		if raw[i] != 'u' {
			chars = append(chars, escaped(raw[i]))
			continue
		}
		r, size := codePoint(raw[i+1:])
		if utf16.IsSurrogate(r) {
			clear(chars)
			return nil, false, errLoneSurrogate
		}
		chars = utf8.AppendRune(chars, r)
		i += size
	}
	return chars, true, nil
}

// escaped gives the character that stands for c after a backslash.
func escaped(c byte) byte {
	switch c {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return c // '"', '\\', '/'
}

// codePoint reads the XXXX of \uXXXX, or the XXXX\uYYYY of a surrogate pair, and gives the number of bytes it read. Half
// a pair is returned as it is.
func codePoint(text []byte) (r rune, size int) {
	r = hexRune(text)
	if utf16.IsSurrogate(r) && len(text) >= 10 && text[4] == '\\' && text[5] == 'u' {
		if pair := utf16.DecodeRune(r, hexRune(text[6:])); pair != utf8.RuneError {
			return pair, 10
		}
	}
	return r, 4
}

// hexRune reads four hexadecimal digits, which validJSON has seen to.
func hexRune(text []byte) rune {
	n, _ := strconv.ParseUint(string(text[:4]), 16, 32)
	return rune(n)
}
