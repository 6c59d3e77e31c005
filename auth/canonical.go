package auth

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const (
	maxQuery      = 8192 // KMS has no query at all
	maxHeaderName = 128
)

// appendCanonicalRequest appends the text whose hash is signed. It fails when there is none: SignedHeaders is not in
// canonical order or names a header that the request lacks, the query cannot be decoded, or X-Amz-Content-Sha256 is not
// the hash of the body. (So that header's value is always the hash written here, and no UNSIGNED-PAYLOAD.)
//
//	method LF
//	path, each byte percent-encoded once more LF
//	query, decoded, encoded and sorted LF
//	name ":" value LF                           for each signed header
//	LF
//	names of the signed headers LF
//	hexadecimal SHA-256 of the body
func appendCanonicalRequest(buf []byte, r *http.Request, signedHeaders string, body []byte) ([]byte, bool) {
	buf = append(append(buf, r.Method...), '\n')
	buf = append(appendEscaped(buf, requestPath(r.URL), '/'), '\n')
	buf, ok := appendQuery(buf, r.URL.RawQuery)
	if !ok {
		return nil, false
	}
	buf = append(buf, '\n')
	if buf, ok = appendHeaders(buf, r, signedHeaders); !ok {
		return nil, false
	}
	buf = append(buf, '\n')
	buf = append(append(buf, signedHeaders...), '\n')

	digest := sha256.Sum256(body)
	start := len(buf)
	buf = hex.AppendEncode(buf, digest[:])
	if given, ok := r.Header["X-Amz-Content-Sha256"]; ok && (len(given) != 1 || given[0] != string(buf[start:])) {
		return nil, false
	}
	return buf, true
}

// requestPath gives the path as it stood in the request line, still encoded. (EscapedPath alone would encode again, and
// so change, a path that came with bytes outside of ASCII.)
func requestPath(u *url.URL) string {
	switch {
	case u.Opaque != "":
		return u.Opaque
	case u.RawPath != "":
		return u.RawPath
	case u.Path != "":
		return u.EscapedPath()
	}
	return "/"
}

// appendEscaped appends s with all bytes but RFC 3986's unreserved ones and keep percent-encoded.
func appendEscaped(buf []byte, s string, keep byte) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		if unreserved(c) || c == keep {
			buf = append(buf, c)
		} else {
			buf = append(buf, '%', digits[c>>4], digits[c&15])
		}
	}
	return buf
}

func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

// appendQuery appends the query with its parameters encoded in the one canonical way and then sorted, by name and then
// by value. A plus sign is a space, as it is for net/url.
func appendQuery(buf []byte, raw string) ([]byte, bool) {
	if raw == "" {
		return buf, true
	}
	if len(raw) > maxQuery {
		return nil, false
	}
	type pair struct{ name, value string }
	var pairs []pair
	for field := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(field, "=")
		name, err := recode(name)
		if err != nil {
			return nil, false
		}
		if value, err = recode(value); err != nil {
			return nil, false
		}
		pairs = append(pairs, pair{name, value})
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.value, b.value))
	})
	for i, p := range pairs {
		if i > 0 {
			buf = append(buf, '&')
		}
		buf = append(append(append(buf, p.name...), '='), p.value...)
	}
	return buf, true
}

// recode turns one of the many encodings of a query component into the canonical one.
func recode(s string) (string, error) {
	plain, err := url.QueryUnescape(s)
	if err != nil {
		return "", err
	}
	return string(appendEscaped(nil, plain, '-')), nil
}

// appendHeaders appends a line for each signed header. The names must be in lower case and strictly ascending: then none
// is empty and none occurs twice.
func appendHeaders(buf []byte, r *http.Request, signedHeaders string) ([]byte, bool) {
	previous := ""
	for name := range strings.SplitSeq(signedHeaders, ";") {
		if name <= previous {
			return nil, false
		}
		previous = name
		buf = append(append(buf, name...), ':')
		switch name {
		case "host": // net/http takes it out of the header
			buf = appendCollapsed(buf, r.Host)
		case "content-length": // likewise, in some cases
			buf = strconv.AppendInt(buf, r.ContentLength, 10)
		default:
			values, ok := headerValues(r.Header, name)
			if !ok {
				return nil, false
			}
			buf = appendValues(buf, values)
		}
		buf = append(buf, '\n')
	}
	return buf, true
}

func appendValues(buf []byte, values []string) []byte {
	for i, value := range values {
		if i > 0 {
			buf = append(buf, ',')
		}
		buf = appendCollapsed(buf, value)
	}
	return buf
}

// headerValues gives the values of the header with a name in lower case. Unlike Header.Values it allocates no key.
func headerValues(header http.Header, name string) ([]string, bool) {
	var key [maxHeaderName]byte
	if len(name) > len(key) {
		return nil, false
	}
	first := true // of a word
	for i := range len(name) {
		c := name[i]
		switch {
		case 'A' <= c && c <= 'Z':
			return nil, false
		case first && 'a' <= c && c <= 'z':
			c -= 'a' - 'A'
		}
		key[i] = c
		first = c == '-'
	}
	values := header[string(key[:len(name)])]
	return values, len(values) > 0
}

// appendCollapsed appends value without white space at its ends and with one space for each run of them inside.
func appendCollapsed(buf []byte, value string) []byte {
	value = textproto.TrimString(value)
	for {
		i := strings.Index(value, "  ")
		if i < 0 {
			return append(buf, value...)
		}
		buf = append(buf, value[:i+1]...)
		value = strings.TrimLeft(value[i:], " ")
	}
}

// appendStringToSign appends the text that is signed, given the hash of the canonical request.
func appendStringToSign(buf []byte, s *signed, digest *[sha256.Size]byte) []byte {
	buf = slices.Grow(buf, len(algorithm)+len(s.stamp)+len(s.scope)+2*len(digest)+3)
	buf = append(buf, algorithm+"\n"...)
	buf = append(append(buf, s.stamp...), '\n')
	buf = append(append(buf, s.scope...), '\n')
	return hex.AppendEncode(buf, digest[:])
}
