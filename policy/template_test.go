package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWildcards(t *testing.T) {
	for _, test := range []struct {
		pattern, value string
		want           bool
	}{
		{"", "", true},
		{"", "a", false},
		{"a", "", false},
		{"?", "", false},
		{"*", "", true},
		{"**", "ab", true},
		{"a*", "a", true},
		{"*a", "ba", true},
		{"*ab", "aab", true},
		{"*ab*cd", "xabycabcd", true},
		{"*ab*cd", "xabycabc", false},
		{"a?c", "abc", true},
		{"a?c", "ac", false},
		{"a*?", "a", false},
		{"a*?", "ab", true},
		{"?*", "a", true},
		{"a*b?", "aXbYbZ", true},
		{"a*b?", "aXbYb", false},
	} {
		require.Equal(t, test.want, like(wildcards.Replace(test.pattern), test.value, false), "%q ~ %q", test.pattern, test.value)
	}
}

// TestWildcardsEnd takes patterns on which a matcher that tries everything would not end within the age of the universe.
func TestWildcardsEnd(t *testing.T) {
	done := make(chan bool, 1)
	go func() {
		done <- like(wildcards.Replace(strings.Repeat("*a", 1000)+"b"), strings.Repeat("a", 10_000), false)
	}()
	select {
	case matched := <-done:
		require.False(t, matched)
	case <-time.After(time.Minute):
		t.Fatal("the matcher hangs")
	}
}

// TestWildcardsAndCharacters has patterns and values that are not of single bytes.
func TestWildcardsAndCharacters(t *testing.T) {
	for _, test := range []struct {
		pattern, value string
		want           bool
	}{
		{"?", "é", true},
		{"??", "é", false},
		{"*??", "é", false},
		{"*??", "éa", true},
		{"*???", "éa", false},
		{"?*?", "é", false},
		{"é*", "éa", true},
		{"*é", "é", true},
		{"????", "a😀b", false},
		{"???", "a😀b", true},
		{"*??xy", "€xy", false},
		{"*?xy", "€xy", true},
		{"*\u00a9", "\u00e9", false}, // whose last bytes are the same
	} {
		require.Equal(t, test.want, like(wildcards.Replace(test.pattern), test.value, false), "%q ~ %q", test.pattern, test.value)
	}
	require.True(t, like(wildcards.Replace("kms:re*from"), "KMS:ReEncryptFrom", true))
	require.False(t, like(wildcards.Replace("kms:re*from"), "KMS:ReEncryptFrom", false))
	require.False(t, like(wildcards.Replace("kms:re*from"), "KMS:ReEncryptTo", true))
}

// TestVariablesAreNoWildcards has callers whose tags hold the bytes that stand for wildcards in compiled patterns.
func TestVariablesAreNoWildcards(t *testing.T) {
	tmpl, err := newTemplate("x${aws:PrincipalTag/team}", true, true)
	require.NoError(t, err)
	for tag, matched := range map[string]bool{"yz": true, "*": false, "??": false, "\xff": false, "\xfe\xfe": false, "": false} {
		r := &Request{Caller: &Caller{Principal: Principal{Account: ours, Tags: map[string]string{"team": tag}}}}
		require.Equal(t, matched, tmpl.matches(likeText, r, "xyz"), "%q", tag)
	}
}
