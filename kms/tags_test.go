package kms

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// tagged puts tags into a key's record as they are.
func tagged(tags ...Tag) func(*Key) { return func(key *Key) { key.Tags = tags } }

// TestTagsAreListedInOrder lists the tags of a record in any order, and leaves the record, which is shared, alone.
func TestTagsAreListedInOrder(t *testing.T) {
	s := newService(t, fakeToken{})
	put(t, s, newTestKey(firstKey, tagged(Tag{"b", "1"}, Tag{"a", "2"}, Tag{"B", "3"}, Tag{"é", "4"}, Tag{"aa", "5"}, Tag{" ", "6"})))
	sorted := []Tag{{" ", "6"}, {"B", "3"}, {"a", "2"}, {"aa", "5"}, {"b", "1"}, {"é", "4"}}
	limit := int32(2)
	for range 2 {
		var listed []Tag
		for marker := ""; ; {
			out, err := s.ListResourceTags(t.Context(), newRequest("ListResourceTags"), &ListResourceTagsInput{KeyId: firstKey, Limit: &limit, Marker: marker})
			require.NoError(t, err)
			require.Equal(t, out.NextMarker != "", out.Truncated)
			listed = append(listed, out.Tags...)
			if marker = out.NextMarker; marker == "" {
				break
			}
		}
		require.Equal(t, sorted, listed)
	}
	key, found, err := s.keys.Get(t.Context(), keyRecord(testRegion, firstKey))
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, "b", key.Tags[0].TagKey)
}

// TestRefusedTagsChangeNothing refuses requests of which a part would be right.
func TestRefusedTagsChangeNothing(t *testing.T) {
	s := newService(t, fakeToken{})
	before := []Tag{{"a", "1"}, {"b", "2"}}
	put(t, s, newTestKey(firstKey, tagged(before...)))
	tag, err := s.TagResource(t.Context(), newRequest("TagResource"), &TagResourceInput{KeyId: firstKey, Tags: []Tag{{"a", "new"}, {"c", "3"}, {"aws:x", ""}}})
	requireError(t, tag, err, TagError, "Tags beginning with aws: are reserved")
	tag, err = s.UntagResource(t.Context(), newRequest("UntagResource"), &UntagResourceInput{KeyId: firstKey, TagKeys: []string{"a", "b", "b"}})
	requireError(t, tag, err, TagError, "Duplicate tag keys")
	out, err := s.ListResourceTags(t.Context(), newRequest("ListResourceTags"), &ListResourceTagsInput{KeyId: firstKey})
	require.NoError(t, err)
	require.Equal(t, &ListResourceTagsOutput{Tags: before}, out)
}
