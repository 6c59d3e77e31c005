package api

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"hsmkms/kms"
)

// The texts of failed constraints are AWS's own; clients match on them.
const (
	mustNotBeNull = "Member must not be null"
	mustSatisfy   = "Member must satisfy constraint: "
)

// maxViolations bounds the answer to a request that is wrong many times over: three bytes of request ("{},") would
// otherwise grow into two sentences of answer. AWS's limits lie far below (50 tags, 10 grant tokens).
const maxViolations = 100

// constraints are the model's demands on the value of a shape, with the texts for a value that fails them. A text is ""
// where the model demands nothing.
type constraints struct {
	min, max    int64
	pattern     *regexp.Regexp
	enum        []string
	minText     string
	maxText     string
	patternText string
	enumText    string
}

// newConstraints collects the demands of s.
func newConstraints(s *shape) constraints {
	noun := "length"
	if s.Type == "integer" {
		noun = "value"
	}
	c := constraints{min: math.MinInt64, max: math.MaxInt64, pattern: s.pattern, enum: s.Enum}
	if s.Min != nil {
		c.min = *s.Min
		c.minText = "Member must have " + noun + " greater than or equal to " + strconv.FormatInt(c.min, 10)
	}
	if s.Max != nil {
		c.max = *s.Max
		c.maxText = "Member must have " + noun + " less than or equal to " + strconv.FormatInt(c.max, 10)
	}
	if s.pattern != nil {
		c.patternText = "Member must satisfy regular expression pattern: " + s.Pattern
	}
	if len(s.Enum) > 0 {
		c.enumText = "Member must satisfy enum value set: [" + strings.Join(s.Enum, ", ") + "]"
	}
	return c
}

// all gives the texts of all constraints, as AWS lists them for the elements of a list.
func (c *constraints) all() string {
	var texts []string
	for _, text := range []string{c.maxText, c.minText, c.patternText, c.enumText} {
		if text != "" {
			texts = append(texts, text)
		}
	}
	return strings.Join(texts, ", ")
}

// size gives the text of the bound that n breaks, or "".
func (c *constraints) size(n int64) string {
	switch {
	case n < c.min:
		return c.minText
	case n > c.max:
		return c.maxText
	}
	return ""
}

// chars gives the texts of the constraints that a string breaks; nil if it breaks none.
func (c *constraints) chars(value string) []string {
	var texts []string
	if c.minText != "" || c.maxText != "" {
		if text := c.size(utf16Length(value)); text != "" {
			texts = append(texts, text)
		}
	}
	if c.pattern != nil && !c.pattern.MatchString(value) {
		texts = append(texts, c.patternText)
	}
	if c.enum != nil && !slices.Contains(c.enum, value) {
		texts = append(texts, c.enumText)
	}
	return texts
}

// intern gives chars as a string: the model's own for an enum value, which costs no memory, else a copy.
func (c *constraints) intern(chars []byte) string {
	for _, e := range c.enum {
		if e == string(chars) {
			return e
		}
	}
	return string(chars)
}

// utf16Length gives the length of s as AWS, written in Java, counts it: characters beyond U+FFFF count twice. s is valid
// UTF-8.
func utf16Length(s string) int64 {
	n := int64(0)
	for i := range len(s) {
		if s[i]&0xC0 != 0x80 { // the first byte of a character
			n++
		}
		if s[i] >= 0xF0 { // ... of four bytes
			n++
		}
	}
	return n
}

// violation is one failed constraint. Its path is relative to the value under inspection and grows on the way up.
type violation struct {
	path string
	// value is shown to the caller if quoted is set. It never holds a secret, nor any blob.
	value  string
	quoted bool
	text   string
}

// String is AWS's sentence for the violation.
func (v violation) String() string {
	value := "Value"
	if v.quoted {
		value += " '" + v.value + "'"
	}
	return value + " at '" + v.path + "' failed to satisfy constraint: " + v.text
}

// violations are the failed constraints of one request, in the order of the model's members.
type violations []violation

// add appends v unless there are maxViolations already.
func (vs *violations) add(v violation) {
	if len(*vs) < maxViolations {
		*vs = append(*vs, v)
	}
}

// within puts step before the paths of all violations from the index first on.
func (vs violations) within(step string, first int) {
	for i := first; i < len(vs); i++ {
		if vs[i].path == "" {
			vs[i].path = step
		} else {
			vs[i].path = step + "." + vs[i].path
		}
	}
}

// err gives the ValidationException for the violations; nil for none.
func (vs violations) err() error {
	if len(vs) == 0 {
		return nil
	}
	noun := " validation errors detected: "
	if len(vs) == 1 {
		noun = " validation error detected: "
	}
	texts := make([]string, len(vs))
	for i, v := range vs {
		texts[i] = v.String()
	}
	return &kms.Error{Type: kms.Validation, Message: strconv.Itoa(len(vs)) + noun + strings.Join(texts, "; ")}
}

// lowerCamel gives a member's name as error texts and CloudTrail write it: KeyId becomes keyId. As in Java's beans, a name that
// begins with an abbreviation stays: AWSAccountId.
func lowerCamel(name string) string {
	if len(name) > 1 && unicode.IsUpper(rune(name[0])) && unicode.IsUpper(rune(name[1])) {
		return name
	}
	return string(unicode.ToLower(rune(name[0]))) + name[1:]
}
