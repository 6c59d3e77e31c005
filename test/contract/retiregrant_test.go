package contract

import (
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// TestRetireGrant has a grant retired by everybody who may, and by everybody who may not.
func TestRetireGrant(t *testing.T) {
	s := one()
	g, w := newRig(t, s), newStranger(t, s)
	grantee, granteeARN := g.user("grantee")
	retiring, retiringARN := g.user("retiring")
	nobody, nobodyARN := g.user("nobody")
	key := g.key()
	grant := func(retiringPrincipal string, operations ...string) (id, token string) {
		made := g.as(g.root, "CreateGrant", "KeyId", key, "GranteePrincipal", granteeARN, "RetiringPrincipal", retiringPrincipal, "Operations", operations)
		requireCode(t, made, "")
		return made.JSON(t)["GrantId"].(string), made.JSON(t)["GrantToken"].(string)
	}
	w.may(t, allow("kms:RetireGrant", "*"))
	for _, test := range []struct {
		who        kmstest.Someone
		retiring   string
		operations []string
		code       string
	}{
		{retiring, retiringARN, []string{"Encrypt"}, ""},
		{grantee, retiringARN, []string{"Encrypt"}, denied},
		{grantee, retiringARN, []string{"Encrypt", "RetireGrant"}, ""},
		{nobody, retiringARN, []string{"Encrypt", "RetireGrant"}, denied},
		{g.root, retiringARN, []string{"Encrypt"}, ""},
		{w.Someone, retiringARN, []string{"Encrypt"}, denied},
		{w.Someone, w.arn, []string{"Encrypt"}, ""},
		{w.root, w.arn, []string{"Encrypt"}, denied},
		{w.Someone, "arn:aws:iam::" + w.account + ":root", []string{"Encrypt"}, ""},
	} {
		id, token := grant(test.retiring, test.operations...)
		dry := test.code
		if dry == "" {
			dry = "DryRunOperationException"
		}
		requireCode(t, g.as(test.who, "RetireGrant", "KeyId", key, "GrantId", id, "DryRun", true), dry)
		requireCode(t, g.as(test.who, "RetireGrant", "GrantToken", token, "DryRun", true), dry)
		requireCode(t, g.as(test.who, "RetireGrant", "KeyId", key, "GrantId", id), test.code)
		if _, token := grant(test.retiring, test.operations...); test.code == "" {
			requireCode(t, g.as(test.who, "RetireGrant", "GrantToken", token), "")
			g.as(test.who, "RetireGrant", "GrantToken", token).RequireRefusal(t, "InvalidGrantTokenException", "The specified grant token is not valid.")
		}
	}
	id, _ := grant(retiringARN, "Encrypt")
	g.as(nobody, "RetireGrant", "KeyId", key, "GrantId", id).RequireRefusal(t, denied, deniedText(nobodyARN, "kms:RetireGrant", key, silentText("identity-based", "kms:RetireGrant")))
	requireCode(t, g.as(grantee, "Encrypt", "KeyId", key, "Plaintext", b64("x")), "")
	for _, entry := range list(t, g.as(g.root, "ListGrants", "KeyId", key).JSON(t), "Grants") {
		requireCode(t, g.as(g.root, "RetireGrant", "KeyId", key, "GrantId", entry["GrantId"]), "")
	}
	requireCode(t, g.as(grantee, "Encrypt", "KeyId", key, "Plaintext", b64("x")), denied)
	require.Empty(t, list(t, g.as(g.root, "ListGrants", "KeyId", key).JSON(t), "Grants"))

	g.as(g.root, "RetireGrant", "KeyId", key, "GrantId", id).RequireRefusal(t, "NotFoundException", "Grant '"+id+"' does not exist")
	g.as(g.root, "RetireGrant", "KeyId", g.arn("key/"+absentKey), "GrantId", id).RequireRefusal(t, "NotFoundException", "Key '"+g.arn("key/"+absentKey)+"' does not exist")
	for _, bad := range badGrantIDs {
		g.as(g.root, "RetireGrant", "KeyId", key, "GrantId", bad).RequireRefusal(t, "InvalidGrantIdException", "Invalid grant ID: "+bad)
		g.as(g.root, "RetireGrant", "KeyId", g.arn("key/"+absentKey), "GrantId", bad).RequireRefusal(t, "NotFoundException", "Key '"+g.arn("key/"+absentKey)+"' does not exist")
		for _, named := range []string{key, g.arn("key/" + absentKey)} { // of which another account is not told
			requireCode(t, g.as(w.Someone, "RetireGrant", "KeyId", named, "GrantId", bad), denied)
		}
	}
	for _, pairs := range [][]any{{}, {"KeyId", key}, {"GrantId", id}, {"GrantToken", "x", "KeyId", key}} {
		g.as(g.root, "RetireGrant", pairs...).RequireRefusal(t, "ValidationException", "You must specify either a GrantToken, or a KeyId and a GrantId.")
	}
}
