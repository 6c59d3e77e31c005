package contract

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestListRetirableGrants lists grants of keys of two accounts that a principal may retire.
func TestListRetirableGrants(t *testing.T) {
	s := one()
	g, h := newRig(t, s), newRig(t, s)
	_, alice := g.user("alice")
	ask := func(who *rig, principal string) []string {
		answer := who.as(who.root, "ListRetirableGrants", "RetiringPrincipal", principal)
		requireCode(t, answer, "")
		return column(list(t, answer.JSON(t), "Grants"), "KeyId")
	}
	require.Empty(t, ask(g, alice))
	mine, theirs := g.key(), h.key()
	g.do("CreateGrant", "GrantId", "KeyId", mine, "GranteePrincipal", alice, "RetiringPrincipal", alice, "Operations", []string{"Encrypt"})
	id := h.do("CreateGrant", "GrantId", "KeyId", theirs, "GranteePrincipal", alice, "RetiringPrincipal", alice, "Operations", []string{"Encrypt"})
	g.do("CreateGrant", "GrantId", "KeyId", mine, "GranteePrincipal", alice, "Operations", []string{"Encrypt"}) // without a retiring principal
	require.ElementsMatch(t, []string{mine, theirs}, ask(g, alice))
	h.as(h.root, "ListRetirableGrants", "RetiringPrincipal", alice).RequireRefusal(t, denied,
		deniedText("arn:aws:iam::"+h.account+":root", "kms:ListRetirableGrants", alice, silentText("resource-based", "kms:ListRetirableGrants")))
	h.do("RevokeGrant", "", "KeyId", theirs, "GrantId", id)
	require.Equal(t, []string{mine}, ask(g, alice))
	g.as(g.root, "ListRetirableGrants", "RetiringPrincipal", "alice").RequireRefusal(t, "InvalidArnException", "ARN does not refer to a valid principal: alice")
}
