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
