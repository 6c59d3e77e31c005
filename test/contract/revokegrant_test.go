package contract

import (
	"strings"
	"testing"
)

// absentGrant could be the id of a grant, and badGrantIDs could not.
var (
	absentGrant = strings.Repeat("0", 64)
	badGrantIDs = []string{"x", absentGrant[1:], absentGrant + "0", absentGrant[1:] + "F", absentGrant[1:] + "g", absentGrant[1:] + "/", "../" + absentGrant}
)

func TestRevokeGrant(t *testing.T) {
	s := one()
	g, w := newRig(t, s), newStranger(t, s)
	grantee, granteeARN := g.user("grantee")
	key := g.key()
	id := g.do("CreateGrant", "GrantId", "KeyId", key, "GranteePrincipal", granteeARN, "RetiringPrincipal", granteeARN, "Operations", []string{"Encrypt"})
	requireCode(t, g.as(grantee, "Encrypt", "KeyId", key, "Plaintext", b64("x")), "")
	requireCode(t, g.as(grantee, "RevokeGrant", "KeyId", key, "GrantId", id), denied) // who may retire it may not revoke it
	requireCode(t, g.as(grantee, "RevokeGrant", "KeyId", key, "GrantId", id, "DryRun", true), denied)
	requireCode(t, g.as(g.root, "RevokeGrant", "KeyId", key, "GrantId", id, "DryRun", true), "DryRunOperationException")
	requireCode(t, g.as(grantee, "Encrypt", "KeyId", key, "Plaintext", b64("x")), "")
	g.as(g.root, "RevokeGrant", "KeyId", g.key(), "GrantId", id).RequireRefusal(t, "NotFoundException", "Grant '"+id+"' does not exist")
	requireCode(t, g.as(g.root, "RevokeGrant", "KeyId", key, "GrantId", id), "")
	requireCode(t, g.as(grantee, "Encrypt", "KeyId", key, "Plaintext", b64("x")), denied)
	g.as(g.root, "RevokeGrant", "KeyId", key, "GrantId", id).RequireRefusal(t, "NotFoundException", "Grant '"+id+"' does not exist")

	g.as(g.root, "RevokeGrant", "KeyId", key, "GrantId", absentGrant).RequireRefusal(t, "NotFoundException", "Grant '"+absentGrant+"' does not exist")
	for _, bad := range badGrantIDs {
		for _, dry := range []bool{false, true} {
			g.as(g.root, "RevokeGrant", "KeyId", key, "GrantId", bad, "DryRun", dry).RequireRefusal(t, "InvalidGrantIdException", "Invalid grant ID: "+bad)
			requireCode(t, g.as(grantee, "RevokeGrant", "KeyId", key, "GrantId", bad, "DryRun", dry), denied)
		}
	}

	// Another account may, if both policies say so.
	id = g.do("CreateGrant", "GrantId", "KeyId", key, "GranteePrincipal", granteeARN, "Operations", []string{"Encrypt"})
	g.putPolicy(key, document(t,
		statement{"Effect": "Allow", "Principal": members{"AWS": []string{g.account, w.account}}, "Action": "kms:*", "Resource": "*"}))
	w.may(t, allow("kms:RevokeGrant", key))
	requireCode(t, g.as(w.Someone, "RevokeGrant", "KeyId", key, "GrantId", id), "")
}
