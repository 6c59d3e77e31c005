package contract

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestListGrants(t *testing.T) {
	g := newRig(t, one())
	_, alice := g.user("alice")
	_, bob := g.user("bob")
	key := g.key()
	answer := g.as(g.root, "ListGrants", "KeyId", key)
	require.Equal(t, members{"Grants": []any{}, "Truncated": false}, answer.JSON(t))
	made := g.as(g.root, "CreateGrant", "KeyId", key, "GranteePrincipal", alice, "RetiringPrincipal", bob, "Name", "n", "Operations", []string{"Decrypt", "DescribeKey"},
		"Constraints", members{"EncryptionContextEquals": members{"a": "b"}}).JSON(t)
	grants := list(t, g.as(g.root, "ListGrants", "KeyId", key).JSON(t), "Grants")
	require.Len(t, grants, 1)
	require.InDelta(t, float64(time.Now().Unix()), grants[0]["CreationDate"], 60)
	delete(grants[0], "CreationDate")
	require.Equal(t, members{
		"KeyId": key, "GrantId": made["GrantId"], "Name": "n", "GranteePrincipal": alice, "RetiringPrincipal": bob, "Operations": []any{"Decrypt", "DescribeKey"},
		"IssuingAccount": "arn:aws:iam::" + g.account + ":root", "Constraints": members{"EncryptionContextEquals": members{"a": "b"}},
	}, grants[0])

	ids := map[string][]string{alice: {made["GrantId"].(string)}}
	for n := range 6 {
		who := []string{alice, bob}[n%2]
		id := g.as(g.root, "CreateGrant", "KeyId", key, "GranteePrincipal", who, "Operations", []string{"Encrypt"}).JSON(t)["GrantId"].(string)
		ids[who] = append(ids[who], id)
	}
	all := slices.Sorted(slices.Values(slices.Concat(ids[alice], ids[bob])))
	pages := func(operation string, pairs ...any) (found []string) {
		for marker := []any(nil); ; {
			answer := g.as(g.root, operation, slices.Concat(pairs, marker, []any{"Limit", 2})...)
			requireCode(t, answer, "")
			page := list(t, answer.JSON(t), "Grants")
			require.LessOrEqual(t, len(page), 2)
			found = append(found, column(page, "GrantId")...)
			next, more := answer.JSON(t)["NextMarker"]
			require.Equal(t, more, answer.JSON(t)["Truncated"])
			if !more {
				return found
			}
			marker = []any{"Marker", next}
		}
	}
	require.Equal(t, all, pages("ListGrants", "KeyId", key))
	for who := range ids {
		require.Equal(t, slices.Sorted(slices.Values(ids[who])), pages("ListGrants", "KeyId", key, "GranteePrincipal", who))
	}
	one := ids[bob][0]
	require.Equal(t, []string{one}, pages("ListGrants", "KeyId", key, "GrantId", one))
	require.Equal(t, []string{one}, pages("ListGrants", "KeyId", key, "GrantId", one, "GranteePrincipal", bob))
	require.Empty(t, pages("ListGrants", "KeyId", key, "GrantId", one, "GranteePrincipal", alice))
	require.Empty(t, pages("ListGrants", "KeyId", g.key(), "GrantId", one), "of another key")
	require.Empty(t, pages("ListGrants", "KeyId", key, "GrantId", absentGrant))
	for _, bad := range badGrantIDs {
		g.as(g.root, "ListGrants", "KeyId", key, "GrantId", bad).RequireRefusal(t, "InvalidGrantIdException", "Invalid grant ID: "+bad)
	}
	g.as(g.root, "ListGrants", "KeyId", key, "Marker", "x").RequireRefusal(t, "InvalidMarkerException", "The marker is not valid.")
	g.as(g.root, "ListGrants", "KeyId", key, "Limit", 101).RequireRefusal(t, "ValidationException", violated("101", "limit", "have value less than or equal to 100"))

	require.Equal(t, []string{made["GrantId"].(string)}, pages("ListRetirableGrants", "RetiringPrincipal", bob))
}
