// Package wycheproof runs the test vectors of Project Wycheproof (https://github.com/C2SP/wycheproof) and keeps account of
// them: whatever a test does not run, it must name with a reason.
package wycheproof

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	vectors "github.com/c2sp/wycheproof"
	"github.com/stretchr/testify/require"
)

// Case is what the cases of all files have in common. A test embeds it in its own type of case.
type Case struct {
	ID      int      `json:"tcId"`
	Comment string   `json:"comment"`
	Flags   []string `json:"flags"`
	// Result is valid, invalid or acceptable.
	Result string `json:"result"`
}

func (c Case) common() Case { return c }

type embedsCase interface{ common() Case }

// Hex is a JSON string of hexadecimal digits.
type Hex []byte

// UnmarshalText decodes the digits.
func (h *Hex) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// Outcome is what the code under test made of a case.
type Outcome struct {
	accepted bool
	left     string
}

// Took is the outcome of a case that was run: accepted says whether the code took the signature, gave the same result as the
// vector has, and the like.
func Took(accepted bool) Outcome { return Outcome{accepted: accepted} }

// LeftOut is the outcome of a case that was not run. Files that are not run at all belong in Suite.LeftOut.
func LeftOut(reason string) Outcome { return Outcome{left: reason} }

// Decision says what is expected of cases that Wycheproof calls acceptable.
type Decision struct {
	Accepted bool
	Reason   string
}

// Suite says what a test makes of some files. G is decoded from each group, but for its cases, and C, which embeds Case, from
// each case.
type Suite[G any, C embedsCase] struct {
	// Files are patterns (path.Match) of the names of the files that the test answers for. Each must match.
	Files []string
	// LeftOut has patterns of those among Files that are not run, each with the reason. Each must match.
	LeftOut map[string]string
	// Acceptable has what is expected of acceptable cases by flag. One without a decision fails, and so does a decision without
	// a case.
	Acceptable map[string]Decision
	// Group prepares for a group of a file, and gives what runs its cases. A group is left out case by case.
	Group func(t *testing.T, file string, group G) func(t *testing.T, c C) Outcome
}

// Run runs the suite with a subtest for each file. Every case of every file is run or left out with a reason; a suite and a
// file that isn't left out run at least one.
func (s Suite[G, C]) Run(t *testing.T) {
	names, left, err := s.split(vectors.TestVectors)
	require.NoError(t, err)
	total := tally{left: map[string]int{}, decided: map[string]bool{}}
	for name, reason := range left {
		c, err := read(vectors.TestVectors, name)
		require.NoError(t, err)
		total.left[reason] += c.NumberOfTests
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(name, "_test.json"), func(t *testing.T) {
			for _, err := range s.file(t, vectors.TestVectors, name, &total) {
				t.Error(err)
			}
		})
	}
	for flag := range s.Acceptable {
		require.True(t, total.decided[flag], "a decision about %s, which no acceptable case has", flag)
	}
	t.Logf("%d cases of %d files were run", total.run, len(names))
	for _, reason := range slices.Sorted(maps.Keys(total.left)) {
		t.Logf("%d cases left out: %s", total.left[reason], reason)
	}
}

// split gives the files to run, in order, and those that are left out with their reasons.
func (s Suite[G, C]) split(source fs.FS) ([]string, map[string]string, error) {
	names, err := matching(source, s.Files)
	if err != nil {
		return nil, nil, err
	}
	left := map[string]string{}
	for pattern, reason := range s.LeftOut {
		out, err := matching(source, []string{pattern})
		if err != nil {
			return nil, nil, err
		}
		for _, name := range out {
			if !slices.Contains(names, name) {
				return nil, nil, fmt.Errorf("%s leaves out %s, which is not among the suite's", pattern, name)
			}
			// Of two reasons any will do, but the same one every time.
			if known, twice := left[name]; !twice || reason < known {
				left[name] = reason
			}
		}
	}
	names = slices.DeleteFunc(names, func(name string) bool { return left[name] != "" })
	if len(names) == 0 {
		return nil, nil, errors.New("every file is left out")
	}
	return names, left, nil
}

// matching gives the names of files that match one of patterns, in order.
func matching(source fs.FS, patterns []string) ([]string, error) {
	var names []string
	for _, pattern := range patterns {
		matches, err := fs.Glob(source, pattern)
		if err == nil && len(matches) == 0 {
			err = errors.New("no file matches")
		}
		if err != nil {
			return nil, fmt.Errorf("looking for %s: %w", pattern, err)
		}
		names = append(names, matches...)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// content is a file, as far as all files are alike.
type content struct {
	NumberOfTests int               `json:"numberOfTests"`
	Groups        []json.RawMessage `json:"testGroups"`
}

func read(source fs.FS, name string) (content, error) {
	var c content
	data, err := fs.ReadFile(source, name)
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err == nil && c.NumberOfTests == 0 {
		err = errors.New("it has no cases")
	}
	if err != nil {
		return content{}, fmt.Errorf("reading %s: %w", name, err)
	}
	return c, nil
}

// file runs the cases of a file, and gives what is wrong with it.
func (s Suite[G, C]) file(t *testing.T, source fs.FS, name string, total *tally) []error {
	c, err := read(source, name)
	if err != nil {
		return []error{err}
	}
	var wrong []error
	seen, run := 0, total.run
	for _, raw := range c.Groups {
		var group G
		var cases struct {
			Tests []C `json:"tests"`
		}
		if err := errors.Join(json.Unmarshal(raw, &group), json.Unmarshal(raw, &cases)); err != nil {
			return append(wrong, fmt.Errorf("decoding group: %w", err))
		}
		check := s.Group(t, name, group)
		for _, each := range cases.Tests {
			seen++
			if err := s.judge(each, check(t, each), total); err != nil {
				wrong = append(wrong, err)
			}
		}
	}
	if seen != c.NumberOfTests {
		wrong = append(wrong, fmt.Errorf("%d cases where the file says %d", seen, c.NumberOfTests))
	}
	if total.run == run {
		wrong = append(wrong, errors.New("no case was run: leave the file out, with the reason"))
	}
	return wrong
}

// tally counts cases.
type tally struct {
	run     int
	left    map[string]int  // by reason
	decided map[string]bool // flags whose decision was needed
}

// judge holds an outcome against the case's result.
func (s Suite[G, C]) judge(c C, o Outcome, total *tally) error {
	if o.left != "" {
		total.left[o.left]++
		return nil
	}
	total.run++
	common := c.common()
	want, reason, err := s.expected(common, total)
	if err == nil && o.accepted != want {
		err = fmt.Errorf("accepted: %t, expected: %t (%s)", o.accepted, want, reason)
	}
	if err != nil {
		return fmt.Errorf("case %d, %s, flags %v: %w", common.ID, common.Comment, common.Flags, err)
	}
	return nil
}

// expected tells whether a case is to be accepted, and why.
func (s Suite[G, C]) expected(c Case, total *tally) (bool, string, error) {
	switch c.Result {
	case "valid", "invalid":
		return c.Result == "valid", c.Result, nil
	case "acceptable":
		for _, flag := range c.Flags {
			if d, known := s.Acceptable[flag]; known {
				total.decided[flag] = true
				return d.Accepted, d.Reason, nil
			}
		}
		return false, "", errors.New("no decision about an acceptable case")
	default:
		return false, "", fmt.Errorf("unknown result %q", c.Result)
	}
}
