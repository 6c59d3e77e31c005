package contract

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// makeKeys makes keys, one of them a multi-Region one, and gives their ids in the order of ListKeys.
func makeKeys(t testing.TB, s *kmstest.Server, n int) []string {
	t.Helper()
	ids := []string{createKey(t, s, `{"MultiRegion":true}`)["KeyId"].(string)}
	for len(ids) < n {
		ids = append(ids, s.NewKey(t))
	}
	slices.Sort(ids)
	return ids
}

// keyEntries are the entries of ListKeys for some keys.
func keyEntries(ids ...string) []any {
	entries := make([]any, 0, len(ids))
	for _, id := range ids {
		entries = append(entries, members{"KeyId": id, "KeyArn": kmstest.KeyARN(id)})
	}
	return entries
}

func TestListKeys(t *testing.T) {
	eachFresh(t, func(t *testing.T, s *kmstest.Server) {
		for _, body := range []string{"", "{}", `{"Limit":1}`, `{"Limit":1000}`} {
			require.Equal(t, members{"Keys": []any{}, "Truncated": false}, accept(t, s, "ListKeys", body))
		}
		ids := makeKeys(t, s, 5)
		perform(t, s, "DisableKey", object(t, "KeyId", ids[0]))
		newAlias(t, s, ids[1])
		for _, body := range []string{"", "{}", `{"Limit":5}`, `{"Limit":6}`, `{"Limit":1000}`, `{"Limit":null,"Marker":null}`} {
			require.Equal(t, members{"Keys": keyEntries(ids...), "Truncated": false}, accept(t, s, "ListKeys", body), body)
		}
		for limit := 1; limit < 5; limit++ {
			require.Equal(t, ids, allKeys(t, s, limit))
		}
	})
}

// allKeys reads all pages of ListKeys and checks their form.
func allKeys(t testing.TB, s *kmstest.Server, limit int) (ids []string) {
	t.Helper()
	request := []any{"Limit", limit}
	for {
		answer := accept(t, s, "ListKeys", object(t, request...))
		page := column(list(t, answer, "Keys"), "KeyId")
		ids = append(ids, page...)
		want := members{"Keys": keyEntries(page...), "Truncated": false}
		marker, more := answer["NextMarker"]
		if more {
			want["Truncated"], want["NextMarker"] = true, marker
			require.Len(t, page, limit)
			require.Regexp(t, "^[A-Za-z0-9_-]+$", marker)
		}
		require.Equal(t, want, answer)
		if !more {
			return ids
		}
		request = []any{"Limit", limit, "Marker", marker}
	}
}

// TestListKeysDefault checks how many keys a page has when the request does not say.
func TestListKeysDefault(t *testing.T) {
	eachFresh(t, func(t *testing.T, s *kmstest.Server) {
		ids := makeKeys(t, s, 101)
		answer := accept(t, s, "ListKeys", "{}")
		require.Equal(t, members{"Keys": keyEntries(ids[:100]...), "Truncated": true, "NextMarker": answer["NextMarker"]}, answer)
		require.Equal(t, members{"Keys": keyEntries(ids[100]), "Truncated": false},
			accept(t, s, "ListKeys", object(t, "Marker", answer["NextMarker"])))
		require.Equal(t, members{"Keys": keyEntries(ids...), "Truncated": false}, accept(t, s, "ListKeys", `{"Limit":101}`))

		var paged []string
		pages := kms.NewListKeysPaginator(s.Client(), &kms.ListKeysInput{Limit: aws.Int32(40)})
		for pages.HasMorePages() {
			page, err := pages.NextPage(t.Context())
			require.NoError(t, err)
			for _, key := range page.Keys {
				paged = append(paged, *key.KeyId)
			}
		}
		require.Equal(t, ids, paged)
	})
}

// TestListKeysWhileKeysAreMade reads page by page while keys are made: what was there at the start is listed once.
func TestListKeysWhileKeysAreMade(t *testing.T) {
	eachFresh(t, func(t *testing.T, s *kmstest.Server) {
		ids := makeKeys(t, s, 6)
		var listed []string
		request := []any{"Limit", 2}
		for {
			answer := accept(t, s, "ListKeys", object(t, request...))
			listed = append(listed, column(list(t, answer, "Keys"), "KeyId")...)
			if answer["Truncated"] == false {
				break
			}
			s.NewKey(t)
			require.Less(t, len(listed), 100)
			request = []any{"Limit", 2, "Marker", answer["NextMarker"]}
		}
		require.IsIncreasing(t, listed)
		require.Subset(t, listed, ids)
		require.Subset(t, allKeys(t, s, 1000), listed)
	})
}

// requireBadMarkers checks that an operation refuses everything that is not a marker of this very listing.
func requireBadMarkers(t *testing.T, s *kmstest.Server, operation, good string, others ...string) {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(good)
	require.NoError(t, err)
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	require.NotZero(t, len(raw)%3, "the last character has bits to spare")
	stray := good[:len(good)-1] + string(alphabet[strings.IndexByte(alphabet, good[len(good)-1])+1])
	bad := append([]string{
		stray, "x", "=", " ", good + "=", good + "!", good[:len(good)-1] + "%", good[:1], good[:len(good)/3], strings.ToUpper(good),
		base64.RawURLEncoding.EncodeToString([]byte("no listing")), base64.StdEncoding.EncodeToString(append(raw, 0xFB, 0xFF)), "ÿ",
	}, others...)
	for _, marker := range bad {
		s.Post(t, operation, object(t, "Marker", marker)).RequireRefusal(t, "InvalidMarkerException", "The marker is not valid.")
	}
	for _, test := range []struct{ marker, constraint string }{
		{strings.Repeat("m", 1025), "have length less than or equal to 1024"},
		{"", "have length greater than or equal to 1"},
		{"a\nb", `satisfy regular expression pattern: [\u0020-\u00FF]*`},
		{"Ā", `satisfy regular expression pattern: [\u0020-\u00FF]*`},
	} {
		s.Post(t, operation, object(t, "Marker", test.marker)).RequireRefusal(t, "ValidationException", violated(test.marker, "marker", test.constraint))
	}
	s.Post(t, operation, `{"Marker":1}`).RequireRefusal(t, "SerializationException", "NUMBER_VALUE can not be converted to a String")
}

func TestListKeysMarkers(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		ids := makeKeys(t, s, 2)
		newAlias(t, s, ids[0])
		newAlias(t, s, ids[0])
		marker := accept(t, s, "ListKeys", `{"Limit":1}`)["NextMarker"].(string)
		ofAliases := accept(t, s, "ListAliases", `{"Limit":1}`)["NextMarker"].(string)
		ofKey := accept(t, s, "ListAliases", object(t, "Limit", 1, "KeyId", ids[0]))["NextMarker"].(string)
		requireBadMarkers(t, s, "ListKeys", marker, ofAliases, ofKey)
		for range 2 { // a marker is good more than once, and for pages of another size
			require.Equal(t, keyEntries(allKeys(t, s, 1000)[1:]...), accept(t, s, "ListKeys", object(t, "Marker", marker, "Limit", 1000))["Keys"])
		}
	})
}

func TestListKeysLimits(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		const least, most = "have value greater than or equal to 1", "have value less than or equal to 1000"
		for _, test := range []struct{ body, code, message string }{
			{`{"Limit":0}`, "ValidationException", violated("0", "limit", least)},
			{`{"Limit":-1}`, "ValidationException", violated("-1", "limit", least)},
			{`{"Limit":-2147483648}`, "ValidationException", violated("-2147483648", "limit", least)},
			{`{"Limit":1001}`, "ValidationException", violated("1001", "limit", most)},
			{`{"Limit":2147483647}`, "ValidationException", violated("2147483647", "limit", most)},
			{`{"Limit":2147483648}`, "SerializationException", "NUMBER_VALUE can not be converted to an Integer"},
			{`{"Limit":1.5}`, "SerializationException", "NUMBER_VALUE can not be converted to an Integer"},
			{`{"Limit":1e2}`, "SerializationException", "NUMBER_VALUE can not be converted to an Integer"},
			{`{"Limit":"1"}`, "SerializationException", "STRING_VALUE can not be converted to an Integer"},
			{`{"Limit":true}`, "SerializationException", "TRUE_VALUE can not be converted to an Integer"},
			{`{"Limit":0,"Marker":""}`, "ValidationException", "2 validation errors detected: Value '0' at 'limit' failed to satisfy constraint: Member must " + least +
				"; Value '' at 'marker' failed to satisfy constraint: Member must have length greater than or equal to 1"},
		} {
			s.Post(t, "ListKeys", test.body).RequireRefusal(t, test.code, test.message)
		}
	})
}
