package contract

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// allTags reads all pages of ListResourceTags and checks their form.
func allTags(t testing.TB, s *kmstest.Server, id string, limit int) (tags []tag) {
	t.Helper()
	request := []any{"KeyId", id, "Limit", limit}
	for {
		answer := accept(t, s, "ListResourceTags", object(t, request...))
		entries := list(t, answer, "Tags")
		for _, entry := range entries {
			key, _ := entry["TagKey"].(string)
			value, ok := entry["TagValue"].(string)
			require.True(t, ok)
			require.Equal(t, members{"TagKey": key, "TagValue": value}, entry)
			tags = append(tags, tag{key, value})
		}
		marker, more := answer["NextMarker"]
		require.Equal(t, more, answer["Truncated"])
		if !more {
			require.Len(t, answer, 2)
			return tags
		}
		require.Len(t, answer, 3)
		require.Len(t, entries, limit)
		request = append(request[:4:4], "Marker", marker)
	}
}

func TestListResourceTags(t *testing.T) {
	s := anyHome()
	id := s.NewKey(t)
	require.Equal(t, members{"Tags": []any{}, "Truncated": false}, accept(t, s, "ListResourceTags", object(t, "KeyId", id)))
	id = newTaggedKey(t, s, tag{"b", ""}, tag{"a/b", "2"}, tag{"B", "3"}, tag{"a", "4"}, tag{"é", "<5>"})
	want := []tag{{"B", "3"}, {"a", "4"}, {"a/b", "2"}, {"b", ""}, {"é", "<5>"}}
	for limit := 1; limit <= 6; limit++ {
		require.Equal(t, want, allTags(t, s, id, limit))
	}
	for _, body := range []string{object(t, "KeyId", id), object(t, "KeyId", kmstest.KeyARN(id)), object(t, "KeyId", id, "Limit", nil, "Marker", nil)} {
		require.Equal(t, members{"Tags": tagList(want...), "Truncated": false}, accept(t, s, "ListResourceTags", body))
	}
}

// TestListResourceTagsMost lists as many tags as a key can have: that is one page when the request does not say.
func TestListResourceTagsMost(t *testing.T) {
	s := anyHome()
	tags := numbered(0, 50)
	id := newTaggedKey(t, s, tags...)
	require.Equal(t, members{"Tags": tagList(tags...), "Truncated": false}, accept(t, s, "ListResourceTags", object(t, "KeyId", id)))
	var paged []tag
	pages := kms.NewListResourceTagsPaginator(s.Client(), &kms.ListResourceTagsInput{KeyId: &id, Limit: aws.Int32(7)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		require.NoError(t, err)
		for _, entry := range page.Tags {
			paged = append(paged, tag{*entry.TagKey, *entry.TagValue})
		}
	}
	require.Equal(t, tags, paged)
}

func TestListResourceTagsStates(t *testing.T) {
	s := anyHome()
	inEveryState(t, s, func(t *testing.T, id, _ string) { require.Empty(t, allTags(t, s, id, 50)) })
	id := newTaggedKey(t, s, tag{"a", "b"})
	accept(t, s, "ScheduleKeyDeletion", object(t, "KeyId", id))
	require.Equal(t, []tag{{"a", "b"}}, allTags(t, s, id, 50))
}

// TestListResourceTagsWhileTheyChange removes, between two pages, the tag that the marker names and others on both sides,
// and adds new ones on both sides: what stays all the time is listed once.
func TestListResourceTagsWhileTheyChange(t *testing.T) {
	s := anyHome()
	id := newTaggedKey(t, s, tag{"a", ""}, tag{"c", ""}, tag{"e", ""}, tag{"g", ""}, tag{"i", ""})
	request := []any{"KeyId", id, "Limit", 2, "Marker", nil}
	next := func() []string {
		t.Helper()
		answer := accept(t, s, "ListResourceTags", object(t, request...))
		require.Equal(t, answer["NextMarker"] != nil, answer["Truncated"])
		if answer["NextMarker"] != nil {
			request[5] = answer["NextMarker"]
		}
		return column(list(t, answer, "Tags"), "TagKey")
	}
	require.Equal(t, []string{"a", "c"}, next())
	perform(t, s, "UntagResource", object(t, "KeyId", id, "TagKeys", []string{"a", "c", "g"}))
	perform(t, s, "TagResource", object(t, "KeyId", id, "Tags", tagList(tag{"d", ""}, tag{"b", ""})))
	require.Equal(t, []string{"d", "e"}, next())
	perform(t, s, "TagResource", object(t, "KeyId", id, "Tags", tagList(tag{"e", "another value"})))
	require.Equal(t, []string{"i"}, next())
	// With everything gone, the old marker still leads to the end.
	perform(t, s, "UntagResource", object(t, "KeyId", id, "TagKeys", []string{"b", "d", "e", "i"}))
	require.Empty(t, next())
}

// TestConcurrentTagPages reads page by page while others tag and untag the key: every listing has the tags that stay, each
// once, in order.
func TestConcurrentTagPages(t *testing.T) {
	const readers, writers, turns = 4, 4, 10
	s := anyHome()
	stay := numbered(0, 20)
	id, client := newTaggedKey(t, s, stay...), s.Client()
	var reading atomic.Int32
	reading.Store(readers)
	// write lets a tag of its own come and go, at a place of its own in the list, until nobody reads.
	write := func(i int) error {
		key := fmt.Sprintf("k%02d.", 5*i)
		for reading.Load() > 0 {
			if err := setTag(t.Context(), client, id, key, "comes and goes"); err != nil {
				return err
			}
			if _, err := client.UntagResource(t.Context(), &kms.UntagResourceInput{KeyId: &id, TagKeys: []string{key}}); err != nil {
				return err
			}
		}
		return nil
	}
	read := func() error {
		defer reading.Add(-1)
		for range turns {
			var keys, staying []string
			pages := kms.NewListResourceTagsPaginator(client, &kms.ListResourceTagsInput{KeyId: &id, Limit: aws.Int32(3)})
			for pages.HasMorePages() {
				page, err := pages.NextPage(t.Context())
				if err != nil {
					return err
				}
				for _, entry := range page.Tags {
					keys = append(keys, *entry.TagKey)
					if !strings.HasSuffix(*entry.TagKey, ".") {
						staying = append(staying, *entry.TagKey)
					}
				}
			}
			if len(staying) != len(stay) || !slices.IsSorted(keys) || len(slices.Compact(slices.Clone(keys))) != len(keys) {
				return fmt.Errorf("listed %q", keys)
			}
		}
		return nil
	}
	require.NoError(t, together(readers+writers, func(i int) error {
		if i < readers {
			return read()
		}
		return write(i - readers)
	}))
	require.Equal(t, stay, allTags(t, s, id, 50))
}

// TestListResourceTagsMarkers sends what is not a marker of this very key's listing.
func TestListResourceTagsMarkers(t *testing.T) {
	s := anyHome()
	longest := tag{strings.Repeat("K", 1) + strings.Repeat("\uffef", 127), ""} // no marker is longer than its
	first, second := newTaggedKey(t, s, longest, tag{"a", ""}), newTaggedKey(t, s, longest, tag{"a", ""})
	newAlias(t, s, first)
	newAlias(t, s, first)
	marker := func(operation string, pairs ...any) string {
		return accept(t, s, operation, object(t, append(pairs, "Limit", 1)...))["NextMarker"].(string)
	}
	good := marker("ListResourceTags", "KeyId", first)
	require.LessOrEqual(t, len(good), 1024)
	require.Regexp(t, "^[A-Za-z0-9_-]+$", good)
	for range 2 { // a marker is good more than once, and for pages of another size
		for _, limit := range []any{nil, 1, 50} {
			answer := accept(t, s, "ListResourceTags", object(t, "KeyId", first, "Marker", good, "Limit", limit))
			require.Equal(t, members{"Tags": tagList(tag{"a", ""}), "Truncated": false}, answer)
		}
	}
	raw, err := base64.RawURLEncoding.DecodeString(good)
	require.NoError(t, err)
	for _, bad := range []string{
		"x", "=", " ", good + "=", good[:1], good[:8], strings.ToUpper(good), good + " ", "a", base64.StdEncoding.EncodeToString(append(raw, 0xFB, 0xFF)),
		base64.RawURLEncoding.EncodeToString([]byte("no listing")),
		marker("ListResourceTags", "KeyId", second), marker("ListAliases", "KeyId", first), marker("ListAliases"), marker("ListKeys"),
	} {
		s.Post(t, "ListResourceTags", object(t, "KeyId", first, "Marker", bad)).RequireRefusal(t, "InvalidMarkerException", "The marker is not valid.")
	}
	for bad, demand := range map[string]string{
		strings.Repeat("m", 1025): "have length less than or equal to 1024",
		"":                        "have length greater than or equal to 1",
		"a\nb":                    `satisfy regular expression pattern: [\u0020-\u00FF]*`,
	} {
		s.Post(t, "ListResourceTags", object(t, "KeyId", first, "Marker", bad)).RequireRefusal(t, "ValidationException", violated(bad, "marker", demand))
	}
	s.Post(t, "ListKeys", object(t, "Marker", good)).RequireRefusal(t, "InvalidMarkerException", "The marker is not valid.")
}

func TestListResourceTagsRefusals(t *testing.T) {
	s := anyHome()
	requireKeyNames(t, s, "ListResourceTags", "keyId", false, func(name string) string { return `{"KeyId":` + name + `}` })
	s.Post(t, "ListResourceTags", "{}").RequireRefusal(t, "ValidationException", missing("keyId"))
	id := s.NewKey(t)
	const least, most = "have value greater than or equal to 1", "have value less than or equal to "
	for _, test := range []struct {
		limit         any
		code, message string
	}{
		{0, "ValidationException", violated("0", "limit", least)},
		{-1, "ValidationException", violated("-1", "limit", least)},
		{51, "ValidationException", violated("51", "limit", most+"50")},
		{1000, "ValidationException", violated("1000", "limit", most+"50")},
		{1001, "ValidationException", violated("1001", "limit", most+"1000")}, // the model's own bound
		{"1", "SerializationException", "STRING_VALUE can not be converted to an Integer"},
	} {
		s.Post(t, "ListResourceTags", object(t, "KeyId", id, "Limit", test.limit)).RequireRefusal(t, test.code, test.message)
	}
}
