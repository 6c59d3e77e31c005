package contract

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/stretchr/testify/require"
)

// TestChangesAreInForce changes what lets a user in, to and fro, and looks at the very next request each time.
func TestChangesAreInForce(t *testing.T) {
	g := newRig(t, one())
	who, arn := g.user("caller")
	key := g.key()
	keep := statement{"Effect": "Allow", "Principal": members{"AWS": g.account}, "Action": "kms:*", "Resource": "*"}
	name := "caller"
	policies := map[string][2]func(){
		"key policy": {
			func() {
				g.putPolicy(key, document(t, keep, statement{"Effect": "Allow", "Principal": members{"AWS": arn}, "Action": "kms:Encrypt", "Resource": "*"}))
			},
			func() { g.putPolicy(key, document(t, keep)) },
		},
		"user policy": {
			func() { g.root.PutUserPolicy(t, name, document(t, allow("kms:Encrypt", key))) },
			func() { g.root.PutUserPolicy(t, name, document(t, allow("kms:Decrypt", key))) },
		},
	}
	id := ""
	policies["grant"] = [2]func(){
		func() {
			id = g.do("CreateGrant", "GrantId", "KeyId", key, "GranteePrincipal", arn, "Operations", []string{"Encrypt"})
		},
		func() { g.do("RevokeGrant", "", "KeyId", key, "GrantId", id) },
	}
	encrypt := func(code string) { requireCode(t, g.as(who, "Encrypt", "KeyId", key, "Plaintext", b64("x")), code) }
	for _, change := range policies {
		for range 20 {
			encrypt(denied)
			change[0]()
			encrypt("")
			change[1]()
		}
		encrypt(denied)
	}
	policies["user policy"][0]()
	set := func(status iamtypes.StatusType) {
		_, err := g.root.IAM.UpdateAccessKey(t.Context(), &iam.UpdateAccessKeyInput{UserName: &name, AccessKeyId: &who.AccessKeyID, Status: status})
		require.NoError(t, err)
	}
	for range 20 {
		encrypt("")
		set(iamtypes.StatusTypeInactive)
		encrypt("UnrecognizedClientException")
		set(iamtypes.StatusTypeActive)
	}
	encrypt("")
}

// TestLockOut puts key policies as users and roots that these would lock out.
func TestLockOut(t *testing.T) {
	g := newRig(t, one())
	who, arn := g.user("manager")
	key := g.key()
	g.root.PutUserPolicy(t, "manager", document(t, allow("kms:*", "*")))
	for principal, code := range map[string]string{g.account: "", arn: "", g.userARN("manager2"): "MalformedPolicyDocumentException"} {
		for _, operation := range []string{"CreateKey", "PutKeyPolicy"} {
			pairs := []any{"Policy", document(t, statement{"Effect": "Allow", "Principal": members{"AWS": principal}, "Action": "kms:*", "Resource": "*"})}
			if operation == "PutKeyPolicy" {
				pairs = append(pairs, "KeyId", key)
			}
			requireCode(t, g.as(who, operation, pairs...), code)
		}
	}
}
