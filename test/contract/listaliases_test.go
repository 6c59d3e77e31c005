package contract

import (
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// allAliases reads all pages of ListAliases, of one key or of all, and checks their form.
func allAliases(t testing.TB, s *kmstest.Server, keyID string, limit int) (names []string) {
	t.Helper()
	request := []any{"Limit", limit}
	if keyID != "" {
		request = append(request, "KeyId", keyID)
	}
	first := len(request)
	for {
		answer := accept(t, s, "ListAliases", object(t, request...))
		entries := list(t, answer, "Aliases")
		for _, entry := range entries {
			name, _ := entry["AliasName"].(string)
			require.Equal(t, members{
				"AliasArn": kmstest.AliasARN(name), "AliasName": name, "TargetKeyId": entry["TargetKeyId"],
				"CreationDate": entry["CreationDate"], "LastUpdatedDate": entry["LastUpdatedDate"],
			}, entry)
			if keyID != "" {
				require.Equal(t, keyID, entry["TargetKeyId"])
			}
		}
		names = append(names, column(entries, "AliasName")...)
		marker, more := answer["NextMarker"]
		require.Equal(t, more, answer["Truncated"])
		if !more {
			require.Len(t, answer, 2)
			return names
		}
		require.Len(t, answer, 3)
		require.Len(t, entries, limit)
		request = append(request[:first:first], "Marker", marker)
	}
}

func TestListAliases(t *testing.T) {
	eachFresh(t, func(t *testing.T, s *kmstest.Server) {
		empty := members{"Aliases": []any{}, "Truncated": false}
		for _, body := range []string{"", "{}", `{"Limit":1}`, `{"Limit":100}`} {
			require.Equal(t, empty, accept(t, s, "ListAliases", body))
		}
		first, second, none := s.NewKey(t), s.NewKey(t), s.NewKey(t)
		// In an order that is not that of the list; names that are the beginnings of others; - sorts before /.
		targets := map[string]string{"alias/b": first, "alias/a/x": second, "alias/a": first, "alias/a-x": second, "alias/B": first, "alias/z": second}
		for name, target := range targets {
			perform(t, s, "CreateAlias", object(t, "AliasName", name, "TargetKeyId", target))
		}
		for limit := 1; limit <= 7; limit++ {
			require.Equal(t, []string{"alias/B", "alias/a", "alias/a-x", "alias/a/x", "alias/b", "alias/z"}, allAliases(t, s, "", limit))
			require.Equal(t, []string{"alias/B", "alias/a", "alias/b"}, allAliases(t, s, first, limit))
			require.Equal(t, []string{"alias/a-x", "alias/a/x", "alias/z"}, allAliases(t, s, second, limit))
		}
		require.Equal(t, empty, accept(t, s, "ListAliases", object(t, "KeyId", none)))
		require.Equal(t, accept(t, s, "ListAliases", object(t, "KeyId", first)), accept(t, s, "ListAliases", object(t, "KeyId", kmstest.KeyARN(first))))
		for _, entry := range list(t, accept(t, s, "ListAliases", "{}"), "Aliases") {
			require.Equal(t, targets[entry["AliasName"].(string)], entry["TargetKeyId"])
		}
		for name := range targets {
			perform(t, s, "DeleteAlias", object(t, "AliasName", name))
		}
		require.Equal(t, empty, accept(t, s, "ListAliases", "{}"))
	})
}

// TestListAliasesDefault checks the sizes of pages: 50 when the request does not say, 100 at most.
func TestListAliasesDefault(t *testing.T) {
	eachFresh(t, func(t *testing.T, s *kmstest.Server) {
		var names []string
		for range 3 {
			id := s.NewKey(t)
			for range 34 {
				names = append(names, newAlias(t, s, id))
			}
		}
		slices.Sort(names)
		usual := accept(t, s, "ListAliases", "{}")
		require.Equal(t, names[:50], column(list(t, usual, "Aliases"), "AliasName"))
		require.Equal(t, true, usual["Truncated"])
		most := accept(t, s, "ListAliases", `{"Limit":100}`)
		require.Equal(t, names[:100], column(list(t, most, "Aliases"), "AliasName"))
		rest := accept(t, s, "ListAliases", object(t, "Marker", most["NextMarker"]))
		require.Equal(t, names[100:], column(list(t, rest, "Aliases"), "AliasName"))
		require.NotContains(t, rest, "NextMarker")

		var paged []string
		pages := kms.NewListAliasesPaginator(s.Client(), &kms.ListAliasesInput{Limit: aws.Int32(7)})
		for pages.HasMorePages() {
			page, err := pages.NextPage(t.Context())
			require.NoError(t, err)
			for _, alias := range page.Aliases {
				paged = append(paged, *alias.AliasName)
			}
		}
		require.Equal(t, names, paged)
	})
}

// TestListAliasesWhileTheyChange deletes, between two pages, the alias that the marker names and others on both sides, and
// makes new ones on both sides: what stays all the time is listed once.
func TestListAliasesWhileTheyChange(t *testing.T) {
	eachFresh(t, func(t *testing.T, s *kmstest.Server) {
		id, other := s.NewKey(t), s.NewKey(t)
		change := func(operation string, names ...string) {
			for _, name := range names {
				if operation == "CreateAlias" {
					perform(t, s, operation, object(t, "AliasName", name, "TargetKeyId", id))
				} else {
					perform(t, s, operation, object(t, "AliasName", name))
				}
			}
		}
		for _, request := range [][]any{{"Limit", 2}, {"Limit", 2, "KeyId", id}} {
			change("CreateAlias", "alias/a", "alias/c", "alias/e", "alias/g", "alias/i")
			first := accept(t, s, "ListAliases", object(t, request...))
			require.Equal(t, []string{"alias/a", "alias/c"}, column(list(t, first, "Aliases"), "AliasName"))
			change("DeleteAlias", "alias/a", "alias/c", "alias/g")
			change("CreateAlias", "alias/b", "alias/d")
			request = append(request, "Marker", first["NextMarker"])
			second := accept(t, s, "ListAliases", object(t, request...))
			require.Equal(t, []string{"alias/d", "alias/e"}, column(list(t, second, "Aliases"), "AliasName"))
			// The alias of this marker moves to another key, out of the listing of the first.
			perform(t, s, "UpdateAlias", object(t, "AliasName", "alias/e", "TargetKeyId", other))
			request[len(request)-1] = second["NextMarker"]
			third := accept(t, s, "ListAliases", object(t, request...))
			require.Equal(t, []string{"alias/i"}, column(list(t, third, "Aliases"), "AliasName"))
			require.Equal(t, false, third["Truncated"])
			change("DeleteAlias", "alias/b", "alias/d", "alias/e", "alias/i")
			// With everything gone, the old marker still leads to the end.
			require.Equal(t, members{"Aliases": []any{}, "Truncated": false}, accept(t, s, "ListAliases", object(t, request...)))
		}
	})
}

func TestListAliasesMarkers(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		first, second := s.NewKey(t), s.NewKey(t)
		for _, id := range []string{first, second, first, second} {
			newAlias(t, s, id)
		}
		marker := func(operation string, pairs ...any) string {
			return accept(t, s, operation, object(t, append(pairs, "Limit", 1)...))["NextMarker"].(string)
		}
		all, ofFirst, ofSecond, keys := marker("ListAliases"), marker("ListAliases", "KeyId", first), marker("ListAliases", "KeyId", second), marker("ListKeys")
		requireBadMarkers(t, s, "ListAliases", all, ofFirst, keys)
		for _, bad := range []string{all, ofSecond, keys} {
			s.Post(t, "ListAliases", object(t, "KeyId", first, "Marker", bad)).RequireRefusal(t, "InvalidMarkerException", "The marker is not valid.")
		}
		require.Len(t, list(t, accept(t, s, "ListAliases", object(t, "KeyId", first, "Marker", ofFirst)), "Aliases"), 1)
		next := accept(t, s, "ListAliases", object(t, "Marker", all, "Limit", 1))
		require.Equal(t, allAliases(t, s, "", 100)[1:2], column(list(t, next, "Aliases"), "AliasName"))
	})
}

func TestListAliasesRefusals(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		requireKeyNames(t, s, "ListAliases", "keyId", false, func(name string) string { return `{"KeyId":` + name + `}` })
		const least, most = "have value greater than or equal to 1", "have value less than or equal to 100"
		for _, test := range []struct{ body, code, message string }{
			{`{"Limit":0}`, "ValidationException", violated("0", "limit", least)},
			{`{"Limit":-1}`, "ValidationException", violated("-1", "limit", least)},
			{`{"Limit":101}`, "ValidationException", violated("101", "limit", most)},
			{`{"Limit":1000}`, "ValidationException", violated("1000", "limit", most)},
			{`{"Limit":1001}`, "ValidationException", violated("1001", "limit", most+"0")}, // the model's own bound
			{`{"Limit":"1"}`, "SerializationException", "STRING_VALUE can not be converted to an Integer"},
		} {
			s.Post(t, "ListAliases", test.body).RequireRefusal(t, test.code, test.message)
		}
	})
}
