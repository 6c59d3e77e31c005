package policy

import (
	"strings"
	"unicode/utf8"
)

// In compiled patterns, these bytes stand for the wildcards. They are in no UTF-8 text, so that a * which is meant as such,
// by ${*} or in the value of a variable, is not taken for one.
const (
	anyOne = 0xfe // one character: the ? of the policy language
	anyRun = 0xff // any number of characters: the * of the policy language
)

var wildcards = strings.NewReplacer("*", string([]byte{anyRun}), "?", string([]byte{anyOne}))

// chars are a compiled pattern, or one whose variables were replaced.
type chars interface{ ~string | ~[]byte }

// like tells whether a value matches a compiled pattern. With fold, the pattern is in lower case, and the value is taken as if
// its ASCII letters were. A failure after a wildcard for a run only ever moves the latest of them on, so that no pattern
// takes more than its length times that of the value; and one that has more characters than the value is not tried.
func like[P chars](pattern P, value string, fold bool) bool {
	if len(pattern) > len(value) && literals(pattern) > len(value) {
		return false
	}
	p, v := 0, 0
	run, from := -1, 0 // the latest run, and where in the value what follows it is tried
	for v < len(value) {
		switch {
		case p < len(pattern) && pattern[p] == anyRun:
			run, from = p, v
			if p++; p == len(pattern) {
				return true
			}
		case p < len(pattern) && pattern[p] == anyOne:
			p++
			v += width(value[v:])
		case p < len(pattern) && (pattern[p] == value[v] || fold && pattern[p] == lower(value[v])):
			p++
			v++
		case run >= 0:
			from += width(value[from:])
			p, v = run+1, from
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == anyRun {
		p++
	}
	return p == len(pattern)
}

func lower(b byte) byte {
	if 'A' <= b && b <= 'Z' {
		return b + 'a' - 'A'
	}
	return b
}

// literals counts what in a pattern stands for at least one byte.
func literals[P chars](pattern P) int {
	n := 0
	for i := range len(pattern) {
		if pattern[i] != anyRun {
			n++
		}
	}
	return n
}

// width is how many bytes the first character has.
func width(value string) int {
	if value[0] < utf8.RuneSelf {
		return 1
	}
	_, size := utf8.DecodeRuneInString(value)
	return size
}

// arnColons is how many colons separate the six parts of an ARN; the last part may have more.
const arnColons = 5

// likeARNs is like for ARNs: each part is matched by itself, so that a * stays within it. A pattern that is * alone matches
// every ARN.
func likeARNs[P chars](pattern P, value string) bool {
	everything := len(pattern) == 1 && pattern[0] == anyRun
	for range arnColons {
		v := strings.IndexByte(value, ':')
		if v < 0 {
			return false
		}
		if !everything {
			p := colon(pattern)
			if p < 0 || !like(pattern[:p], value[:v], false) {
				return false
			}
			pattern = pattern[p+1:]
		}
		value = value[v+1:]
	}
	return like(pattern, value, false)
}

func colon[P chars](pattern P) int {
	for i := range len(pattern) {
		if pattern[i] == ':' {
			return i
		}
	}
	return -1
}

// template is a text of a policy: a pattern, or pieces of one between policy variables.
type template struct {
	pattern string
	pieces  []piece // nil without variables
}

// piece is a part of a template: a piece of pattern, or a variable.
type piece struct {
	pattern    string
	variable   bool
	key        ConditionKey
	name       string // of a member of a family
	fallback   string
	hasDefault bool
}

// newTemplate compiles a text. variables says whether ${...} is a variable in it; wild, whether * and ? are wildcards.
func newTemplate(words string, variables, wild bool) (template, error) {
	compile := func(plain string) string {
		if wild {
			return wildcards.Replace(plain)
		}
		return plain
	}
	var t template
	rest := words
	for {
		before, after, found := strings.Cut(rest, "${")
		if !variables || !found {
			break
		}
		body, behind, ok := cutVariable(after)
		if !ok {
			return template{}, malformed("The policy has an invalid variable in %s.", show(words))
		}
		t.add(piece{pattern: compile(before)})
		t.add(body)
		rest = behind
	}
	t.add(piece{pattern: compile(rest)})
	if len(t.pieces) == 1 && !t.pieces[0].variable {
		return template{pattern: t.pieces[0].pattern}, nil
	}
	return t, nil
}

// add puts a piece at the end. Pieces of pattern grow together.
func (t *template) add(p piece) {
	if last := len(t.pieces) - 1; last >= 0 && !p.variable && !t.pieces[last].variable {
		t.pieces[last].pattern += p.pattern
		return
	}
	t.pieces = append(t.pieces, p)
}

// cutVariable reads what stands behind ${ of a variable: key}, key, 'default'} or one of the characters *, ? and $ with
// their brace.
func cutVariable(text string) (p piece, rest string, ok bool) {
	if len(text) > 1 && strings.IndexByte("*?$", text[0]) >= 0 && text[1] == '}' {
		return piece{pattern: text[:1]}, text[2:], true
	}
	end := strings.IndexAny(text, ",}")
	if end < 0 || !conditionKey.MatchString(text[:end]) {
		return piece{}, "", false
	}
	p = piece{variable: true}
	p.key, p.name = conditionKeyOf(text[:end])
	if text[end] == '}' {
		return p, text[end+1:], true
	}
	quoted, ok := strings.CutPrefix(strings.TrimLeft(text[end+1:], " "), "'")
	if !ok {
		return piece{}, "", false
	}
	p.fallback, rest, ok = strings.Cut(quoted, "'")
	if !ok {
		return piece{}, "", false
	}
	p.hasDefault = true
	rest, ok = strings.CutPrefix(strings.TrimLeft(rest, " "), "}")
	return p, rest, ok
}

// matches compares a text of the request with the template, in the way of a comparison of texts. A variable without a value
// and a default matches nothing.
func (t *template) matches(c comparison, r *Request, value string) bool {
	if t.pieces == nil {
		return compareText(c, t.pattern, value)
	}
	var room [256]byte
	pattern, ok := t.expand(room[:0], r)
	return ok && compareText(c, pattern, value)
}

func compareText[P chars](c comparison, pattern P, value string) bool {
	switch c {
	case equalText:
		return string(pattern) == value
	case equalFold:
		return strings.EqualFold(string(pattern), value)
	case likeText:
		return like(pattern, value, false)
	case likeARN:
		return likeARNs(pattern, value)
	}
	return false
}

// expand appends the template with the values of its variables, in which no character is a wildcard.
func (t *template) expand(to []byte, r *Request) ([]byte, bool) {
	for i := range t.pieces {
		p := &t.pieces[i]
		if !p.variable {
			to = append(to, p.pattern...)
			continue
		}
		v := r.value(p.key, p.name)
		value, ok := v.single()
		switch {
		case !ok && p.hasDefault:
			value = p.fallback
		case !ok, !utf8.ValidString(value): // whose bytes could be taken for wildcards
			return nil, false
		}
		to = append(to, value...)
	}
	return to, true
}

// lasting tells whether the template means the same in the caller's next request.
func (t *template) lasting() bool {
	for i := range t.pieces {
		if t.pieces[i].variable && !lasting[t.pieces[i].key] {
			return false
		}
	}
	return true
}
