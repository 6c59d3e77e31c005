package kms

import (
	"encoding/base64"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// markNames enters names into an index.
func markNames(t *testing.T, s *Service, prefix string, names ...string) {
	t.Helper()
	require.NoError(t, s.update(t.Context(), func(r *recorder) error {
		for _, name := range names {
			if err := r.mark(prefix + name); err != nil {
				return err
			}
		}
		return nil
	}))
}

// list reads all pages, changing the index between two of them.
func list(t *testing.T, s *Service, prefix string, limit int32, between func(page int)) (names []string, pages int) {
	t.Helper()
	for marker := ""; ; pages++ {
		p, err := newPage(&limit, 50, marker, prefix)
		require.NoError(t, err)
		found, err := s.scan(t.Context(), p)
		require.NoError(t, err)
		require.LessOrEqual(t, len(found), int(limit))
		names = append(names, found...)
		if marker = p.next; marker == "" {
			return names, pages + 1
		}
		between(pages)
	}
}

func TestPages(t *testing.T) {
	s := newService(t, fakeToken{})
	var all []string
	for i := range 10 {
		all = append(all, fmt.Sprintf("name-%02d", i))
	}
	markNames(t, s, "index/a/", all...)
	markNames(t, s, "index/b/", "another index") // follows the index in the store
	for limit, want := range map[int32]int{1: 10, 3: 4, 5: 2, 9: 2, 10: 1, 11: 1} {
		names, pages := list(t, s, "index/a/", limit, func(int) {})
		require.Equal(t, all, names)
		require.Equal(t, want, pages, "a last page that is full is followed by none")
	}
	names, pages := list(t, s, "index/none/", 5, func(int) {})
	require.Empty(t, names)
	require.Equal(t, 1, pages)
}

// TestPagesAreStable adds and removes names between two pages: every name that was there all the time is listed once.
func TestPagesAreStable(t *testing.T) {
	s := newService(t, fakeToken{})
	const prefix = "index/"
	markNames(t, s, prefix, "b", "d", "f", "h", "j")
	names, _ := list(t, s, prefix, 2, func(page int) {
		if page == 0 { // after b and d
			markNames(t, s, prefix, "a", "c", "e", "z")
			require.NoError(t, s.update(t.Context(), func(r *recorder) error { return r.remove(prefix + "d") })) // where the marker points
		}
	})
	require.Equal(t, []string{"b", "d", "e", "f", "h", "j", "z"}, names)
}

func TestPageDefaults(t *testing.T) {
	p, err := newPage(nil, 50, "", "index/")
	require.NoError(t, err)
	require.Equal(t, &page{prefix: "index/", limit: 50}, p)
}

// TestMarkers refuses what newPage has not made for the same list. It must not be possible to read another account's list.
func TestMarkers(t *testing.T) {
	encode := base64.RawURLEncoding.EncodeToString
	for name, marker := range map[string]string{
		"not base64":              "!",
		"padding":                 base64.URLEncoding.EncodeToString([]byte("index/ab")) + "=",
		"stray bits":              "aW5kZXgvYR", // "index/a" with a bit set behind its end
		"standard alphabet":       base64.RawStdEncoding.EncodeToString([]byte("index/\xff\xff\xff")),
		"nothing":                 encode(nil) + "A",
		"no name":                 encode([]byte("index/")),
		"no prefix":               encode([]byte("a")),
		"a line end":              encode([]byte("index/a")) + "\n",
		"another list":            encode([]byte("index2/a")),
		"another account's":       encode([]byte(accountKeys(otherAccount, testRegion) + firstKey)),
		"a shorter prefix":        encode([]byte("inde")),
		"the prefix after a name": encode([]byte("aindex/a")),
	} {
		t.Run(name, func(t *testing.T) {
			p, err := newPage(nil, 50, marker, "index/")
			requireError(t, p, err, InvalidMarker, "The marker is not valid.")
		})
	}
	p, err := newPage(nil, 50, encode([]byte("index/a")), "index/")
	require.NoError(t, err)
	require.Equal(t, "a", p.after)
}

// TestCut cuts a list of entries into pages of every size. The list changes between them like an index: see
// TestPagesAreStable.
func TestCut(t *testing.T) {
	name := func(name string) string { return name }
	pagesOf := func(limit int32, lists ...[]string) (pages [][]string) {
		marker := ""
		for {
			p, err := newPage(&limit, 50, marker, "list/")
			require.NoError(t, err)
			pages = append(pages, cut(p, lists[0], name))
			if marker = p.next; marker == "" {
				return pages
			}
			if len(lists) > 1 {
				lists = lists[1:]
			}
		}
	}
	all := []string{"a", "b", "c", "d", "e"}
	require.Equal(t, [][]string{{"a"}, {"b"}, {"c"}, {"d"}, {"e"}}, pagesOf(1, all))
	require.Equal(t, [][]string{{"a", "b"}, {"c", "d"}, {"e"}}, pagesOf(2, all))
	require.Equal(t, [][]string{{"a", "b", "c", "d"}, {"e"}}, pagesOf(4, all))
	require.Equal(t, [][]string{all}, pagesOf(5, all), "a last page that is full is followed by none")
	require.Equal(t, [][]string{all}, pagesOf(6, all))
	require.Equal(t, [][]string{{}}, pagesOf(1, []string{}))
	require.Equal(t, [][]string{{"b", "d"}, {"e", "f"}, {"h"}}, pagesOf(2, []string{"b", "d", "f"}, []string{"a", "c", "e", "f", "h"}))
	require.Equal(t, [][]string{{"a", "b"}, {}}, pagesOf(2, all, []string{}), "all that was left is gone")
}
