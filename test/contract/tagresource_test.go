package contract

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// A tag is its key and its value.
type tag = [2]string

// tagList is tags as requests and answers have them.
func tagList(tags ...tag) []any {
	list := make([]any, len(tags))
	for i := range tags {
		list[i] = members{"TagKey": tags[i][0], "TagValue": tags[i][1]}
	}
	return list
}

// numbered are tags k00, k01 and so on from first up to, not including, end.
func numbered(first, end int) (tags []tag) {
	for i := first; i < end; i++ {
		tags = append(tags, tag{fmt.Sprintf("k%02d", i), fmt.Sprint(i)})
	}
	return tags
}

// newTaggedKey makes a key with tags and gives its id.
func newTaggedKey(t testing.TB, s *kmstest.Server, tags ...tag) string {
	t.Helper()
	return createKey(t, s, object(t, "Tags", tagList(tags...)))["KeyId"].(string)
}

func setTag(ctx context.Context, client *kms.Client, id, key, value string) error {
	_, err := client.TagResource(ctx, &kms.TagResourceInput{KeyId: &id, Tags: []types.Tag{{TagKey: &key, TagValue: &value}}})
	return err
}

const (
	textReservedTag  = "Tags beginning with aws: are reserved"
	textDuplicateTag = "Duplicate tag keys"
	textTooManyTags  = "Too many tags"
)

// TestTagResource follows what is on record of AWS: new tags, and a new value of an old one, in one request.
func TestTagResource(t *testing.T) {
	s := anyHome()
	id := newTaggedKey(t, s, tag{"tag1", "1"}, tag{"tag2", "2"}, tag{"tag3", "3"})
	perform(t, s, "TagResource", object(t, "KeyId", id, "Tags", tagList(tag{"tag4", "4"}, tag{"tag2", "new"}, tag{"tag5", ""})))
	want := []tag{{"tag1", "1"}, {"tag2", "new"}, {"tag3", "3"}, {"tag4", "4"}, {"tag5", ""}}
	require.Equal(t, want, allTags(t, s, id, 50))
	for range 2 { // under the other name, and to no effect
		perform(t, s, "TagResource", object(t, "KeyId", kmstest.KeyARN(id), "Tags", tagList(want...)))
		perform(t, s, "TagResource", object(t, "KeyId", id, "Tags", []any{}))
		require.Equal(t, want, allTags(t, s, id, 50))
	}
}

func TestTagResourceSDK(t *testing.T) {
	s := anyHome()
	id := s.NewKey(t)
	_, err := s.Client().TagResource(t.Context(), &kms.TagResourceInput{KeyId: &id, Tags: []types.Tag{{TagKey: aws.String("a"), TagValue: aws.String("b")}}})
	require.NoError(t, err)
	require.Equal(t, []tag{{"a", "b"}}, allTags(t, s, id, 50))
	err = setTag(t.Context(), s.Client(), id, "aws:a", "")
	var failure *types.TagException
	require.ErrorAs(t, err, &failure)
	require.Equal(t, textReservedTag, failure.ErrorMessage())
}

// TestTagResourceAccepts has tags that are unusual and yet right.
func TestTagResourceAccepts(t *testing.T) {
	s := anyHome()
	for _, tags := range [][]tag{
		{{strings.Repeat("k", 128), strings.Repeat("v", 256)}},
		{{strings.Repeat("😀", 64), strings.Repeat("😀", 128)}},
		{{"K", ""}, {"k", ""}}, // they differ in case
		{{"aws", "aws:"}, {"awsx:", ""}, {"xaws:", ""}},
		{{" +-=._:/@", "<&> \"\\"}, {"é", "ÿ"}},
		numbered(0, 50),
	} {
		id := s.NewKey(t)
		perform(t, s, "TagResource", object(t, "KeyId", id, "Tags", tagList(tags...)))
		require.ElementsMatch(t, tags, allTags(t, s, id, 50))
	}
}

// TestTagResourceStates tags keys in every state.
func TestTagResourceStates(t *testing.T) {
	s := anyHome()
	inEveryState(t, s, func(t *testing.T, id, state string) {
		if state == "PendingDeletion" {
			for operation, body := range map[string]string{
				"TagResource":   object(t, "KeyId", id, "Tags", tagList(tag{"a", "b"})),
				"UntagResource": object(t, "KeyId", id, "TagKeys", []string{"a"}),
			} {
				s.Post(t, operation, body).RequireRefusal(t, "KMSInvalidStateException", kmstest.KeyARN(id)+" is pending deletion.")
			}
			require.Empty(t, allTags(t, s, id, 50))
			return
		}
		perform(t, s, "TagResource", object(t, "KeyId", id, "Tags", tagList(tag{"a", "b"}, tag{"c", "d"})))
		require.Equal(t, []tag{{"a", "b"}, {"c", "d"}}, allTags(t, s, id, 50))
		perform(t, s, "UntagResource", object(t, "KeyId", id, "TagKeys", []string{"a"}))
		require.Equal(t, []tag{{"c", "d"}}, allTags(t, s, id, 50))
	})
}

// TestTagResourceQuota fills a key with tags, over several requests.
func TestTagResourceQuota(t *testing.T) {
	s := anyHome()
	id := newTaggedKey(t, s, numbered(0, 30)...)
	refuse := func(code string, tags ...tag) {
		t.Helper()
		before := allTags(t, s, id, 50)
		s.Post(t, "TagResource", object(t, "KeyId", id, "Tags", tagList(tags...))).RequireRefusal(t, code, textTooManyTags)
		require.Equal(t, before, allTags(t, s, id, 50))
	}
	refuse("LimitExceededException", numbered(30, 51)...)
	refuse("LimitExceededException", append(numbered(31, 51), tag{"k00", "new"}, tag{"another", ""})...)
	refuse("TagException", numbered(0, 51)...)
	perform(t, s, "TagResource", object(t, "KeyId", id, "Tags", tagList(numbered(20, 50)...))) // ten of them are there
	refuse("LimitExceededException", tag{"one more", ""})
	perform(t, s, "TagResource", object(t, "KeyId", id, "Tags", tagList(tag{"k07", "new"})))
	perform(t, s, "UntagResource", object(t, "KeyId", id, "TagKeys", []string{"k00"}))
	perform(t, s, "TagResource", object(t, "KeyId", id, "Tags", tagList(tag{"one more", ""})))
	require.Len(t, allTags(t, s, id, 50), 50)
}

func TestTagResourceRefusals(t *testing.T) {
	s := anyHome()
	requireKeyNames(t, s, "TagResource", "keyId", false, func(name string) string { return `{"KeyId":` + name + `,"Tags":[]}` })
	id := newTaggedKey(t, s, tag{"kept", "as it is"})
	key, value := strings.Repeat("k", 129), strings.Repeat("v", 257)
	for name, test := range map[string]struct {
		tags          any
		code, message string
	}{
		"no tags":                    {nil, "ValidationException", missing("tags")},
		"a reserved tag":             {tagList(tag{"kept", "changed"}, tag{"aws:k", "v"}), "TagException", textReservedTag},
		"a reserved tag in capitals": {tagList(tag{"AWS:key1", "v"}), "TagException", textReservedTag},
		"a reserved tag in both":     {tagList(tag{"aWs:", "v"}), "TagException", textReservedTag},
		"a tag twice":                {tagList(tag{"k", "v"}, tag{"kept", "changed"}, tag{"k", "w"}), "TagException", textDuplicateTag},
		"a tag twice, the same":      {tagList(tag{"k", "v"}, tag{"k", "v"}), "TagException", textDuplicateTag},
		"a long key":                 {tagList(tag{key, ""}), "ValidationException", violated(key, "tags.1.member.tagKey", "have length less than or equal to 128")},
		"a long key of pairs":        {tagList(tag{strings.Repeat("😀", 65), ""}), "ValidationException", violated(strings.Repeat("😀", 65), "tags.1.member.tagKey", "have length less than or equal to 128")},
		"a long value":               {tagList(tag{"a", ""}, tag{"b", value}), "ValidationException", violated(value, "tags.2.member.tagValue", "have length less than or equal to 256")},
		"an empty key":               {tagList(tag{"", "v"}), "ValidationException", violated("", "tags.1.member.tagKey", "have length greater than or equal to 1")},
		"a key without value":        {[]any{members{"TagKey": "k"}}, "ValidationException", missing("tags.1.member.tagValue")},
		"a value without key":        {[]any{members{"TagValue": "v"}}, "ValidationException", missing("tags.1.member.tagKey")},
		"a null":                     {[]any{nil}, "ValidationException", missing("tags.1.member")},
		"an object":                  {members{"k": "v"}, "SerializationException", "Start of structure or map found where not expected."},
		"text":                       {[]any{"k"}, "SerializationException", "Unexpected field type"},
		"a number for a value":       {[]any{members{"TagKey": "k", "TagValue": 1}}, "SerializationException", "NUMBER_VALUE can not be converted to a String"},
	} {
		t.Run(name, func(t *testing.T) {
			s.Post(t, "TagResource", object(t, "KeyId", id, "Tags", test.tags)).RequireRefusal(t, test.code, test.message)
		})
	}
	s.Post(t, "TagResource", `{"Tags":[]}`).RequireRefusal(t, "ValidationException", missing("keyId"))
	s.Post(t, "TagResource", object(t, "KeyId", absentKey, "Tags", tagList(tag{"aws:", ""}))).
		RequireRefusal(t, "NotFoundException", "Key '"+kmstest.KeyARN(absentKey)+"' does not exist")
	require.Equal(t, []tag{{"kept", "as it is"}}, allTags(t, s, id, 50))
}

// TestConcurrentTagging has 16 clients tag and untag one key. Each has tags of its own, of which none may be lost or left.
func TestConcurrentTagging(t *testing.T) {
	const clients, turns = 16, 8
	s := anyHome()
	id, client := newTaggedKey(t, s, tag{"always", "there"}), s.Client()
	require.NoError(t, together(clients, func(i int) error {
		stays, goes := fmt.Sprintf("stays %02d", i), fmt.Sprintf("goes %02d", i)
		for turn := range turns {
			for _, key := range []string{stays, goes} {
				if err := setTag(t.Context(), client, id, key, fmt.Sprint(turn)); err != nil {
					return err
				}
			}
			if _, err := client.UntagResource(t.Context(), &kms.UntagResourceInput{KeyId: &id, TagKeys: []string{goes}}); err != nil {
				return err
			}
		}
		return nil
	}))
	want := []tag{{"always", "there"}}
	for i := range clients {
		want = append(want, tag{fmt.Sprintf("stays %02d", i), fmt.Sprint(turns - 1)})
	}
	require.Equal(t, want, allTags(t, s, id, 50))
}

// TestConcurrentTagQuota has 16 clients fight for room for ten tags.
func TestConcurrentTagQuota(t *testing.T) {
	const clients = 16
	s := anyHome()
	id, client := newTaggedKey(t, s, numbered(0, 40)...), s.Client()
	codes := make([]string, clients)
	require.NoError(t, together(clients, func(i int) error {
		codes[i] = codeOf(setTag(t.Context(), client, id, fmt.Sprint("mine ", i), ""))
		return nil
	}))
	counts := map[string]int{}
	for _, code := range codes {
		counts[code]++
	}
	require.Equal(t, map[string]int{"": 10, "LimitExceededException": clients - 10}, counts)
	require.Len(t, allTags(t, s, id, 50), 50)
}
