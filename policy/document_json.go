package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// The JSON of a policy is read element by element, each level by itself: no text is read deeper than the language goes,
// and encoding/json, which takes the last of two members of one name, never sees an object as a whole.

// MalformedError is what is wrong with a document, in words for whoever wrote it.
type MalformedError string

// Error gives the words.
func (e MalformedError) Error() string { return string(e) }

func malformed(format string, args ...any) error { return MalformedError(fmt.Sprintf(format, args...)) }

// shorten gives no more of a text for an error than is needed to find it.
func shorten(words string) string {
	const enough = 200
	if cut := []rune(words); len(cut) > enough {
		return string(cut[:enough]) + "..."
	}
	return words
}

// show gives text of a document for an error, quoted.
func show(words string) string { return `"` + shorten(words) + `"` }

// checkJSON refuses what is not one JSON value.
func checkJSON(text []byte) error {
	if !utf8.Valid(text) || !json.Valid(text) {
		return malformed("The policy is not valid JSON.")
	}
	return nil
}

// member is a member of an object. Its value is JSON that was checked.
type member struct {
	name  string
	value json.RawMessage
}

// members reads an object. No two members have the same name.
func members(what string, raw json.RawMessage) ([]member, error) {
	if raw[0] != '{' {
		return nil, malformed("%s must be an object.", what)
	}
	var all []member
	seen := map[string]bool{}
	in := json.NewDecoder(bytes.NewReader(raw))
	_, _ = in.Token() // the brace
	for in.More() {
		name, err := in.Token()
		if err != nil {
			return nil, err
		}
		m := member{name: name.(string)}
		if err := in.Decode(&m.value); err != nil {
			return nil, err
		}
		switch {
		case replaced(m.name):
			return nil, malformed("The name of an element contains an invalid character.")
		case seen[m.name]:
			return nil, malformed("The element %s appears twice.", show(m.name))
		}
		seen[m.name] = true
		all = append(all, m)
	}
	return all, nil
}

// elements reads an array, or takes anything else for an array of one.
func elements(raw json.RawMessage) ([]json.RawMessage, error) {
	if raw[0] != '[' {
		return []json.RawMessage{raw}, nil
	}
	var all []json.RawMessage
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, err
	}
	return all, nil
}

func errEmpty(what string) error { return malformed("%s must not be empty.", what) }

// replaced tells of half a surrogate pair, which encoding/json replaces. No policy needs the replacement itself.
func replaced(value string) bool { return strings.ContainsRune(value, utf8.RuneError) }

// text reads a string.
func text(what string, raw json.RawMessage) (string, error) {
	if raw[0] != '"' {
		return "", malformed("%s must be a string.", what)
	}
	var value string
	if err := json.Unmarshal(raw, &value); err != nil {
		return "", err
	}
	if replaced(value) {
		return "", malformed("%s contains an invalid character.", what)
	}
	return value, nil
}

// texts reads a string or a list of them, which is not empty.
func texts(what string, raw json.RawMessage) ([]string, error) {
	list, err := each(what, raw, text)
	if err == nil && len(list) == 0 {
		err = errEmpty(what)
	}
	return list, err
}

// scalars is texts for values that may be numbers and truth values too. There may be none: tools write empty lists of
// values, and AWS finds them useless, but not wrong.
func scalars(what string, raw json.RawMessage) ([]string, error) {
	return each(what, raw, func(what string, raw json.RawMessage) (string, error) {
		switch raw[0] {
		case '{', '[', 'n':
			return "", malformed("%s must be a string, a number or a Boolean.", what)
		case '"':
			return text(what, raw)
		}
		return string(raw), nil
	})
}

// each reads one value or a list of them.
func each(what string, raw json.RawMessage, read func(string, json.RawMessage) (string, error)) ([]string, error) {
	all, err := elements(raw)
	if err != nil {
		return nil, err
	}
	values := make([]string, len(all))
	for i := range all {
		if values[i], err = read(what, all[i]); err != nil {
			return nil, err
		}
	}
	return values, nil
}
