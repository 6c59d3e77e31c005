package wycheproof

import (
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

type numbered struct {
	Case
	Value Hex `json:"value"`
}

type suite = Suite[struct{ Even bool }, numbered]

// parity accepts values whose last byte is even, or odd, as the group says.
func parity(_ *testing.T, _ string, g struct{ Even bool }) func(*testing.T, numbered) Outcome {
	return func(_ *testing.T, c numbered) Outcome {
		if len(c.Value) == 0 {
			return LeftOut("no value")
		}
		return Took(c.Value[len(c.Value)-1]%2 == 0 == g.Even)
	}
}

var files = fstest.MapFS{
	"a_good_test.json": {Data: []byte(`{"numberOfTests": 5, "testGroups": [
		{"even": true, "tests": [{"tcId": 1, "result": "valid", "value": "ab00"}, {"tcId": 2, "result": "invalid", "value": "01"}]},
		{"even": false, "tests": [{"tcId": 3, "result": "valid", "value": "03"}, {"tcId": 4, "result": "invalid", "value": ""},
			{"tcId": 5, "result": "acceptable", "flags": ["Other", "Odd"], "value": "05"}]}]}`)},
	"a_bad_test.json": {Data: []byte(`{"numberOfTests": 3, "testGroups": [{"even": true, "tests": [
		{"tcId": 1, "result": "valid", "value": "01"}, {"tcId": 2, "result": "invalid", "value": "02"}, {"tcId": 3, "result": "new", "value": "02"}]}]}`)},
	"b_none_test.json":  {Data: []byte(`{"numberOfTests": 0, "testGroups": []}`)},
	"b_short_test.json": {Data: []byte(`{"numberOfTests": 2, "testGroups": [{"even": true, "tests": [{"tcId": 1, "result": "valid", "value": "00"}]}]}`)},
	"b_left_test.json":  {Data: []byte(`{"numberOfTests": 1, "testGroups": [{"tests": [{"tcId": 1, "result": "valid", "value": ""}]}]}`)},
	"b_hex_test.json":   {Data: []byte(`{"numberOfTests": 1, "testGroups": [{"tests": [{"tcId": 1, "result": "valid", "value": "0x"}]}]}`)},
}

// wrong gives what is wrong with a file, and the counts.
func wrong(t *testing.T, s suite, name string) ([]string, tally) {
	t.Helper()
	s.Group = parity
	total := tally{left: map[string]int{}, decided: map[string]bool{}}
	var texts []string
	for _, err := range s.file(t, files, name, &total) {
		texts = append(texts, err.Error())
	}
	return texts, total
}

func TestCasesAreJudgedAndCounted(t *testing.T) {
	for _, accepted := range []bool{true, false} {
		s := suite{Acceptable: map[string]Decision{"Odd": {Accepted: accepted, Reason: "because"}}}
		texts, total := wrong(t, s, "a_good_test.json")
		require.Equal(t, tally{run: 4, left: map[string]int{"no value": 1}, decided: map[string]bool{"Odd": true}}, total)
		if accepted {
			require.Empty(t, texts)
		} else {
			require.Equal(t, []string{"case 5, , flags [Other Odd]: accepted: true, expected: false (because)"}, texts)
		}
	}
	texts, _ := wrong(t, suite{}, "a_good_test.json")
	require.Equal(t, []string{"case 5, , flags [Other Odd]: no decision about an acceptable case"}, texts)

	texts, _ = wrong(t, suite{}, "a_bad_test.json")
	require.Len(t, texts, 3)
	require.Contains(t, texts[0], "accepted: false, expected: true")
	require.Contains(t, texts[1], "accepted: true, expected: false")
	require.Contains(t, texts[2], `unknown result "new"`)
}

func TestFilesWithoutCasesFail(t *testing.T) {
	for name, text := range map[string]string{
		"b_none_test.json":   "it has no cases",
		"b_short_test.json":  "1 cases where the file says 2",
		"b_left_test.json":   "no case was run",
		"b_hex_test.json":    "decoding group",
		"b_absent_test.json": "file does not exist",
	} {
		texts, _ := wrong(t, suite{}, name)
		require.Len(t, texts, 1, name)
		require.Contains(t, texts[0], text, name)
	}
}

func TestEveryFileIsRunOrLeftOut(t *testing.T) {
	names, left, err := suite{Files: []string{"a_*", "*_bad_*"}, LeftOut: map[string]string{"a_b*": "z", "*_bad_*": "bad"}}.split(files)
	require.NoError(t, err)
	require.Equal(t, []string{"a_good_test.json"}, names)
	require.Equal(t, map[string]string{"a_bad_test.json": "bad"}, left)

	for text, s := range map[string]suite{
		"looking for c_*: no file matches":                                   {Files: []string{"a_*", "c_*"}},
		"looking for d_*: no file matches":                                   {Files: []string{"a_*"}, LeftOut: map[string]string{"d_*": "gone"}},
		"*_hex_* leaves out b_hex_test.json, which is not among the suite's": {Files: []string{"a_*"}, LeftOut: map[string]string{"*_hex_*": "no"}},
		"every file is left out":                                             {Files: []string{"a_*"}, LeftOut: map[string]string{"a_*": "all"}},
		"looking for [: syntax error in pattern":                             {Files: []string{"["}},
	} {
		_, _, err := s.split(files)
		require.EqualError(t, err, text)
	}
}
