package contract

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"hsmkms/test/kmstest"
)

// TestContextsOfRSAKeysAreInvisible sends an encryption context with an RSA key, which takes none: conditions do not see it.
func TestContextsOfRSAKeysAreInvisible(t *testing.T) {
	g := newRig(t, one())
	who, _ := g.user("caller")
	rsa, symmetric := g.key(of(types.KeySpecRsa2048, types.KeyUsageTypeEncryptDecrypt)), g.key()
	send := func(key string, condition members) kmstest.Answer {
		g.root.PutUserPolicy(t, "caller", document(t, allow("kms:Encrypt", "*").with("Condition", condition)))
		algorithm := "SYMMETRIC_DEFAULT"
		if key == rsa {
			algorithm = "RSAES_OAEP_SHA_256"
		}
		return g.as(who, "Encrypt", "KeyId", key, "Plaintext", b64("x"), "EncryptionAlgorithm", algorithm, "EncryptionContext", members{"tenant": "blue"})
	}
	const allowed = "ValidationException" // which comes after the decision
	for _, test := range []struct {
		condition      members
		symmetric, rsa string
	}{
		{members{"StringEquals": members{"kms:EncryptionContext:tenant": "blue"}}, "", denied},
		{members{"ForAnyValue:StringEquals": members{"kms:EncryptionContextKeys": "tenant"}}, "", denied},
		{members{"Null": members{"kms:EncryptionContext:tenant": "true"}}, denied, allowed},
		{members{"Null": members{"kms:EncryptionContextKeys": "true"}}, denied, allowed},
	} {
		requireCode(t, send(symmetric, test.condition), test.symmetric)
		requireCode(t, send(rsa, test.condition), test.rsa)
	}
}
