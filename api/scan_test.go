package api

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestScannerParts(t *testing.T) {
	for _, test := range []struct {
		raw   string
		parts []string
	}{
		{`{}`, nil},
		{"[ \t\r\n ]", nil},
		{`{"a":1,"b":"x"}`, []string{`"a"`, `1`, `"b"`, `"x"`}},
		{"{ \"a\" :\n-1.5e3 ,\t\"b\" : null }", []string{`"a"`, `-1.5e3`, `"b"`, `null`}},
		{`[true,[1,[2]],{"c":[{}]},"]"]`, []string{`true`, `[1,[2]]`, `{"c":[{}]}`, `"]"`}},
		{`["\"","\\","\\\"}","a\\\\"]`, []string{`"\""`, `"\\"`, `"\\\"}"`, `"a\\\\"`}},
		{`[{"k":"}\"]"},""]`, []string{`{"k":"}\"]"}`, `""`}},
	} {
		t.Run(test.raw, func(t *testing.T) {
			require.NoError(t, validJSON([]byte(test.raw)))
			var parts []string
			for s := scan([]byte(test.raw)); s.more(); {
				parts = append(parts, string(s.next()))
			}
			require.Equal(t, test.parts, parts)
			require.Equal(t, len(test.parts), count([]byte(test.raw)))
		})
	}
}

func TestUnquote(t *testing.T) {
	for raw, want := range map[string]string{
		`""`:                         "",
		`"plain"`:                    "plain",
		`"\"\\\/\b\f\n\r\t"`:         "\"\\/\b\f\n\r\t",
		`"\u0041\u00e9\u20AC"`:       "Aé€",
		`"\ud83d\uDE00!"`:            "😀!",
		`"\uFFFD"`:                   "\uFFFD",
		`"é\u0000€"`:                 "é\x00€",
		`"\\ud800"`:                  `\ud800`,
		`"\ud83d\ude00\ud83d\ude00"`: "😀😀",
	} {
		chars, fresh, err := unquote([]byte(raw))
		require.NoError(t, err, raw)
		require.Equal(t, want, string(chars), raw)
		require.Equal(t, strings.Contains(raw, `\`), fresh, raw)
	}
}

func TestUnquoteRefusesHalfPairs(t *testing.T) {
	for _, raw := range []string{
		`"\ud800"`, `"\udc00"`, `"a\ud800b"`, `"\ud800\u0041"`, `"\ud800\ud800"`, `"\udc00\ud800"`, `"\ud800\n12345"`, `"\ud800\\udc00"`,
	} {
		_, _, err := unquote([]byte(raw))
		require.ErrorIs(t, err, errLoneSurrogate, raw)
	}
}

func TestValidJSON(t *testing.T) {
	for text, want := range map[string]error{
		`{"a":[1]}`:                  nil,
		"{\"a\":\"\xff\"}":           errNotUTF8,
		"{\"a\":\"\xed\xa0\x80\"}":   errNotUTF8,
		``:                           errNotJSON,
		`{`:                          errNotJSON,
		`{} {}`:                      errNotJSON,
		`{"a":1,}`:                   errNotJSON,
		`{'a':1}`:                    errNotJSON,
		`{"a":01}`:                   errNotJSON,
		`{"a":NaN}`:                  errNotJSON,
		"\ufeff{}":                   errNotJSON,
		"{\"a\":\"\n\"}":             errNotJSON,
		"{}\x00":                     errNotJSON,
		strings.Repeat("[", 100_000): errNotJSON,
		strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001): errNotJSON,
	} {
		require.Equal(t, want, validJSON([]byte(text)), "%.40q", text)
	}
}

// FuzzScan holds the scanner against encoding/json: the parts of a text, put together again, are the same value.
func FuzzScan(f *testing.F) {
	for _, seed := range []string{`{"a":[1,"\"]",{"b":null}],"c":"\ud83d\ude00\/"}`, `[]`, `"\\"`, "[ -1.5E+3 ,\ttrue ]", `["\ud800"]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		text = trimSpace(text)
		if validJSON(text) != nil {
			return
		}
		got, ok := rebuild(text)
		if !ok {
			return
		}
		var want any
		d := json.NewDecoder(strings.NewReader(string(text)))
		d.UseNumber()
		require.NoError(t, d.Decode(&want))
		require.Equal(t, want, got)
	})
}

// rebuild reads raw as encoding/json does into an interface with numbers kept; not ok if a string is refused.
func rebuild(raw []byte) (value any, ok bool) {
	switch raw[0] {
	case 'n':
		return nil, true
	case 't', 'f':
		return raw[0] == 't', true
	case '"':
		chars, _, err := unquote(raw)
		return string(chars), err == nil
	case '[':
		list := []any{}
		for s := scan(raw); s.more(); {
			part, ok := rebuild(s.next())
			if !ok {
				return nil, false
			}
			list = append(list, part)
		}
		return list, true
	case '{':
		object := map[string]any{}
		for s := scan(raw); s.more(); {
			name, ok := rebuild(s.next())
			if !ok {
				return nil, false
			}
			if object[name.(string)], ok = rebuild(s.next()); !ok {
				return nil, false
			}
		}
		return object, true
	}
	return json.Number(raw), true
}
