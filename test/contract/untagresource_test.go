package contract

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

func TestUntagResource(t *testing.T) {
	s := anyHome()
	id := newTaggedKey(t, s, tag{"a", "1"}, tag{"b", "2"}, tag{"B", "3"}, tag{"c", "4"}, tag{"d", "5"})
	untag := func(name string, keys ...string) {
		t.Helper()
		perform(t, s, "UntagResource", object(t, "KeyId", name, "TagKeys", append([]string{}, keys...)))
	}
	for range 2 { // the second time there is nothing to do
		untag(id, "b", "d")
		untag(kmstest.KeyARN(id), "absent", "C")
		untag(id)
		require.Equal(t, []tag{{"B", "3"}, {"a", "1"}, {"c", "4"}}, allTags(t, s, id, 50))
	}
	untag(id, "c", "absent", "a", "B")
	require.Equal(t, members{"Tags": []any{}, "Truncated": false}, accept(t, s, "ListResourceTags", object(t, "KeyId", id)))
	perform(t, s, "TagResource", object(t, "KeyId", id, "Tags", tagList(tag{"b", "again"})))
	require.Equal(t, []tag{{"b", "again"}}, allTags(t, s, id, 50))
}

func TestUntagResourceSDK(t *testing.T) {
	s := anyHome()
	id := newTaggedKey(t, s, tag{"a", "1"}, tag{"b", "2"})
	_, err := s.Client().UntagResource(t.Context(), &kms.UntagResourceInput{KeyId: &id, TagKeys: []string{"a"}})
	require.NoError(t, err)
	require.Equal(t, []tag{{"b", "2"}}, allTags(t, s, id, 50))
}

func TestUntagResourceRefusals(t *testing.T) {
	s := anyHome()
	requireKeyNames(t, s, "UntagResource", "keyId", false, func(name string) string { return `{"KeyId":` + name + `,"TagKeys":[]}` })
	id := newTaggedKey(t, s, tag{"kept", ""})
	// AWS lists all demands on the elements of a list of strings.
	const bounds = "satisfy constraint: [Member must have length less than or equal to 128, Member must have length greater than or equal to 1]"
	many := make([]string, 51)
	for i := range many {
		many[i] = fmt.Sprint("k", i)
	}
	for name, test := range map[string]struct {
		keys          any
		code, message string
	}{
		"none":           {nil, "ValidationException", missing("tagKeys")},
		"a reserved one": {[]string{"kept", "aws:k"}, "TagException", textReservedTag},
		"in capitals":    {[]string{"AWS:"}, "TagException", textReservedTag},
		"one twice":      {[]string{"kept", "kept"}, "TagException", textDuplicateTag},
		"51":             {many, "TagException", textTooManyTags},
		"an empty one":   {[]string{""}, "ValidationException", violated("[]", "tagKeys", bounds)},
		"a long one":     {[]string{"a", strings.Repeat("k", 129)}, "ValidationException", violated("[a, "+strings.Repeat("k", 129)+"]", "tagKeys", bounds)},
		"text":           {"kept", "SerializationException", "Unexpected field type"},
		"a number":       {[]int{1}, "SerializationException", "NUMBER_VALUE can not be converted to a String"},
	} {
		t.Run(name, func(t *testing.T) {
			s.Post(t, "UntagResource", object(t, "KeyId", id, "TagKeys", test.keys)).RequireRefusal(t, test.code, test.message)
		})
	}
	s.Post(t, "UntagResource", `{"TagKeys":["kept"]}`).RequireRefusal(t, "ValidationException", missing("keyId"))
	require.Equal(t, []tag{{"kept", ""}}, allTags(t, s, id, 50))
}
