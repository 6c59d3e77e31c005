package contract

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// What the tests of authorization share: accounts, requests of every operation, and AWS's sentences.

var accounts atomic.Int64

// newAccount makes an account and gives its id and its root user.
func newAccount(t testing.TB, s *kmstest.Server) (string, kmstest.Someone) {
	t.Helper()
	id := fmt.Sprintf("5%011d", accounts.Add(1))
	return id, s.NewAccount(t, id)
}

// statement is a statement of an identity-based policy, or of a key policy if there is a principal.
type statement map[string]any

func allow(action, resource any) statement {
	return statement{"Effect": "Allow", "Action": action, "Resource": resource}
}

func (s statement) with(member string, value any) statement {
	s[member] = value
	return s
}

func document(t testing.TB, statements ...statement) string {
	t.Helper()
	text, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": statements})
	require.NoError(t, err)
	return string(text)
}

// deniedText is AWS's sentence. resource is "" for none.
func deniedText(who, permission, resource, why string) string {
	text := "User: " + who + " is not authorized to perform: " + permission
	if resource != "" {
		text += " on resource: " + resource
	}
	return text + why
}

func silentText(kind, permission string) string {
	return " because no " + kind + " policy allows the " + permission + " action"
}

// need is a permission that an operation needs, and the ARN that it needs it for; "" for none.
type need struct{ permission, resource string }

// call is a request that succeeds once if the caller has all that it needs.
type call struct {
	operation, what string
	body            string
	needs           []need
	// dry is set for a dry run, of what SoftHSM can't do: that is success, too.
	dry bool
}

// requireSuccess checks the answer to a call.
func (c call) requireSuccess(t testing.TB, answer kmstest.Answer) {
	t.Helper()
	if c.dry {
		answer.RequireRefusal(t, "DryRunOperationException", "The request would have succeeded, but the DryRun option is set.")
		return
	}
	require.Equal(t, http.StatusOK, answer.Status, "%s %s: %s", c.operation, c.what, answer.Body)
}

// rig makes what calls are about: in one account, and with keys that have one policy.
type rig struct {
	t       testing.TB
	s       *kmstest.Server
	root    kmstest.Someone
	account string
	policy  *string // of the keys; nil for the default one
	// bystander is the ARN of a user, see somebody.
	bystander string
}

func (g *rig) arn(resource string) string {
	return "arn:aws:kms:" + kmstest.Region + ":" + g.account + ":" + resource
}

// key makes a key and gives its ARN.
func (g *rig) key(edits ...func(*kms.CreateKeyInput)) string {
	g.t.Helper()
	in := &kms.CreateKeyInput{Policy: g.policy, BypassPolicyLockoutSafetyCheck: true}
	for _, edit := range edits {
		edit(in)
	}
	out, err := g.root.KMS.CreateKey(g.t.Context(), in)
	require.NoError(g.t, err)
	return *out.KeyMetadata.Arn
}

func of(spec types.KeySpec, usage types.KeyUsageType) func(*kms.CreateKeyInput) {
	return func(in *kms.CreateKeyInput) { in.KeySpec, in.KeyUsage = spec, usage }
}

func ofExternal(in *kms.CreateKeyInput) { in.Origin = types.OriginTypeExternal }

// do sends a request of the root user that must succeed, and gives a member of the answer.
func (g *rig) do(operation, member string, pairs ...any) string {
	g.t.Helper()
	answer := g.s.PostAs(g.t, g.root, operation, object(g.t, pairs...))
	require.Equal(g.t, http.StatusOK, answer.Status, "%s: %s", operation, answer.Body)
	if member == "" {
		return ""
	}
	value, ok := answer.JSON(g.t)[member].(string)
	require.True(g.t, ok, answer.Body)
	return value
}

func (g *rig) alias(key string) string {
	g.t.Helper()
	name := freeAlias()
	g.do("CreateAlias", "", "AliasName", name, "TargetKeyId", key)
	return name
}

// somebody gives the ARN of a user of whom no more is needed than that it exists.
func (g *rig) somebody() string {
	g.t.Helper()
	if g.bystander == "" {
		g.newUser("somebody")
		g.bystander = g.userARN("somebody")
	}
	return g.bystander
}

// newUser makes a user without access keys.
func (g *rig) newUser(name string) {
	g.t.Helper()
	_, err := g.root.IAM.CreateUser(g.t.Context(), &iam.CreateUserInput{UserName: &name})
	require.NoError(g.t, err)
}

func (g *rig) grant(key string, operations ...string) (id, token string) {
	g.t.Helper()
	if len(operations) == 0 {
		operations = []string{"Decrypt"}
	}
	answer := g.s.PostAs(g.t, g.root, "CreateGrant", object(g.t, "KeyId", key, "GranteePrincipal", g.somebody(), "Operations", operations))
	require.Equal(g.t, http.StatusOK, answer.Status, answer.Body)
	body := answer.JSON(g.t)
	return body["GrantId"].(string), body["GrantToken"].(string)
}

func b64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// peer is a public key to agree on a secret with.
func peer(t testing.TB) string {
	t.Helper()
	private, err := ecdh.P256().GenerateKey(rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKIXPublicKey(private.PublicKey())
	require.NoError(t, err)
	return base64.StdEncoding.EncodeToString(der)
}

// makers make a call of each operation that is served.
var makers = map[string]func(g *rig) []call{
	"CancelKeyDeletion": func(g *rig) []call {
		key := g.key()
		g.do("ScheduleKeyDeletion", "", "KeyId", key)
		return g.plain("CancelKeyDeletion", key)
	},
	"CreateAlias": func(g *rig) []call {
		key, name := g.key(), freeAlias()
		return []call{{operation: "CreateAlias", body: object(g.t, "AliasName", name, "TargetKeyId", key), needs: []need{{"kms:CreateAlias", g.arn(name)}, {"kms:CreateAlias", key}}}}
	},
	"CreateGrant": func(g *rig) []call {
		return g.plain("CreateGrant", g.key(), "GranteePrincipal", "arn:aws:iam::"+g.account+":root", "Operations", []string{"Decrypt"})
	},
	"CreateKey": func(*rig) []call {
		return []call{
			{operation: "CreateKey", body: "{}", needs: []need{{"kms:CreateKey", ""}}},
			{operation: "CreateKey", what: "tags", body: `{"Tags":[{"TagKey":"a","TagValue":"b"}]}`, needs: []need{{"kms:CreateKey", ""}, {"kms:TagResource", ""}}},
		}
	},
	"Decrypt": func(g *rig) []call {
		key := g.key()
		blob := g.do("Encrypt", "CiphertextBlob", "KeyId", key, "Plaintext", b64("x"))
		return append(g.plain("Decrypt", key, "CiphertextBlob", blob),
			call{operation: "Decrypt", what: "no key", body: object(g.t, "CiphertextBlob", blob), needs: []need{{"kms:Decrypt", key}}})
	},
	"DeleteAlias": func(g *rig) []call {
		key := g.key()
		name := g.alias(key)
		return []call{{operation: "DeleteAlias", body: object(g.t, "AliasName", name), needs: []need{{"kms:DeleteAlias", g.arn(name)}, {"kms:DeleteAlias", key}}}}
	},
	"DeleteImportedKeyMaterial": func(g *rig) []call { return g.plain("DeleteImportedKeyMaterial", g.imported()) },
	"DeriveSharedSecret": func(g *rig) []call {
		return g.plain("DeriveSharedSecret", g.key(of(types.KeySpecEccNistP256, types.KeyUsageTypeKeyAgreement)), "KeyAgreementAlgorithm", "ECDH", "PublicKey", peer(g.t))
	},
	"DescribeKey":        func(g *rig) []call { return g.plain("DescribeKey", g.key()) },
	"DisableKey":         func(g *rig) []call { return g.plain("DisableKey", g.key()) },
	"DisableKeyRotation": func(g *rig) []call { return g.plain("DisableKeyRotation", g.key()) },
	"EnableKey":          func(g *rig) []call { return g.plain("EnableKey", g.key()) },
	"EnableKeyRotation":  func(g *rig) []call { return g.plain("EnableKeyRotation", g.key()) },
	"Encrypt":            func(g *rig) []call { return g.plain("Encrypt", g.key(), "Plaintext", b64("x")) },
	"GenerateDataKey":    func(g *rig) []call { return g.plain("GenerateDataKey", g.key(), "KeySpec", "AES_256") },
	"GenerateDataKeyPair": func(g *rig) []call {
		return dry(g.plain("GenerateDataKeyPair", g.key(), "KeyPairSpec", "RSA_2048", "DryRun", true))
	},
	"GenerateDataKeyPairWithoutPlaintext": func(g *rig) []call {
		return dry(g.plain("GenerateDataKeyPairWithoutPlaintext", g.key(), "KeyPairSpec", "RSA_2048", "DryRun", true))
	},
	"GenerateDataKeyWithoutPlaintext": func(g *rig) []call {
		return g.plain("GenerateDataKeyWithoutPlaintext", g.key(), "KeySpec", "AES_256")
	},
	"GenerateMac": func(g *rig) []call {
		return g.plain("GenerateMac", g.key(of(types.KeySpecHmac256, types.KeyUsageTypeGenerateVerifyMac)), "MacAlgorithm", "HMAC_SHA_256", "Message", b64("x"))
	},
	"GenerateRandom": func(*rig) []call {
		return []call{{operation: "GenerateRandom", body: `{"NumberOfBytes":8}`, needs: []need{{"kms:GenerateRandom", ""}}}}
	},
	"GetKeyLastUsage":      func(g *rig) []call { return g.plain("GetKeyLastUsage", g.key()) },
	"GetKeyPolicy":         func(g *rig) []call { return g.plain("GetKeyPolicy", g.key()) },
	"GetKeyRotationStatus": func(g *rig) []call { return g.plain("GetKeyRotationStatus", g.key()) },
	"GetParametersForImport": func(g *rig) []call {
		return g.plain("GetParametersForImport", g.key(ofExternal), "WrappingAlgorithm", "RSAES_OAEP_SHA_1", "WrappingKeySpec", "RSA_2048")
	},
	"GetPublicKey": func(g *rig) []call {
		return g.plain("GetPublicKey", g.key(of(types.KeySpecEccNistP256, types.KeyUsageTypeSignVerify)))
	},
	"ImportKeyMaterial": func(g *rig) []call {
		key := g.key(ofExternal)
		in := g.importInput(key)
		return g.plain("ImportKeyMaterial", key, "ImportToken", in.ImportToken, "EncryptedKeyMaterial", in.EncryptedKeyMaterial, "ExpirationModel", in.ExpirationModel)
	},
	"ListAliases": func(g *rig) []call {
		return []call{
			{operation: "ListAliases", body: "{}", needs: []need{{"kms:ListAliases", ""}}},
			{operation: "ListAliases", what: "of a key", body: object(g.t, "KeyId", g.key()), needs: []need{{"kms:ListAliases", ""}}},
		}
	},
	"ListGrants":       func(g *rig) []call { return g.plain("ListGrants", g.key()) },
	"ListKeyPolicies":  func(g *rig) []call { return g.plain("ListKeyPolicies", g.key()) },
	"ListKeyRotations": func(g *rig) []call { return g.plain("ListKeyRotations", g.key()) },
	"ListKeys": func(*rig) []call {
		return []call{{operation: "ListKeys", body: "{}", needs: []need{{"kms:ListKeys", ""}}}}
	},
	"ListResourceTags": func(g *rig) []call { return g.plain("ListResourceTags", g.key()) },
	"ListRetirableGrants": func(g *rig) []call {
		return []call{{operation: "ListRetirableGrants", body: object(g.t, "RetiringPrincipal", "arn:aws:iam::"+g.account+":root"), needs: []need{{"kms:ListRetirableGrants", ""}}}}
	},
	"PutKeyPolicy": func(g *rig) []call {
		key := g.key()
		return g.plain("PutKeyPolicy", key, "Policy", g.do("GetKeyPolicy", "Policy", "KeyId", key), "BypassPolicyLockoutSafetyCheck", true)
	},
	"ReEncrypt": func(g *rig) []call {
		from, to := g.key(), g.key()
		blob := g.do("Encrypt", "CiphertextBlob", "KeyId", from, "Plaintext", b64("x"))
		needs := []need{{"kms:ReEncryptFrom", from}, {"kms:ReEncryptTo", to}}
		return []call{
			{operation: "ReEncrypt", body: object(g.t, "CiphertextBlob", blob, "SourceKeyId", from, "DestinationKeyId", to), needs: needs},
			{operation: "ReEncrypt", what: "no source", body: object(g.t, "CiphertextBlob", blob, "DestinationKeyId", to), needs: needs},
		}
	},
	"RetireGrant": func(g *rig) []call {
		key := g.key()
		id, _ := g.grant(key)
		_, token := g.grant(key)
		return append(g.plain("RetireGrant", key, "GrantId", id), call{operation: "RetireGrant", what: "token", body: object(g.t, "GrantToken", token), needs: []need{{"kms:RetireGrant", key}}})
	},
	"RevokeGrant": func(g *rig) []call {
		key := g.key()
		id, _ := g.grant(key)
		return g.plain("RevokeGrant", key, "GrantId", id)
	},
	"RotateKeyOnDemand":   func(g *rig) []call { return g.plain("RotateKeyOnDemand", g.key()) },
	"ScheduleKeyDeletion": func(g *rig) []call { return g.plain("ScheduleKeyDeletion", g.key()) },
	"Sign": func(g *rig) []call {
		return g.plain("Sign", g.key(of(types.KeySpecEccNistP256, types.KeyUsageTypeSignVerify)), "SigningAlgorithm", "ECDSA_SHA_256", "Message", b64("x"))
	},
	"TagResource": func(g *rig) []call {
		return g.plain("TagResource", g.key(), "Tags", []members{{"TagKey": "a", "TagValue": "b"}})
	},
	"UntagResource": func(g *rig) []call { return g.plain("UntagResource", g.key(), "TagKeys", []string{"a"}) },
	"UpdateAlias": func(g *rig) []call {
		from, to := g.key(), g.key()
		name := g.alias(from)
		return []call{{operation: "UpdateAlias", body: object(g.t, "AliasName", name, "TargetKeyId", to), needs: []need{{"kms:UpdateAlias", g.arn(name)}, {"kms:UpdateAlias", from}, {"kms:UpdateAlias", to}}}}
	},
	"UpdateKeyDescription": func(g *rig) []call { return g.plain("UpdateKeyDescription", g.key(), "Description", "x") },
	"Verify": func(g *rig) []call {
		key := g.key(of(types.KeySpecEccNistP256, types.KeyUsageTypeSignVerify))
		signature := g.do("Sign", "Signature", "KeyId", key, "SigningAlgorithm", "ECDSA_SHA_256", "Message", b64("x"))
		return g.plain("Verify", key, "SigningAlgorithm", "ECDSA_SHA_256", "Message", b64("x"), "Signature", signature)
	},
	"VerifyMac": func(g *rig) []call {
		key := g.key(of(types.KeySpecHmac256, types.KeyUsageTypeGenerateVerifyMac))
		mac := g.do("GenerateMac", "Mac", "KeyId", key, "MacAlgorithm", "HMAC_SHA_256", "Message", b64("x"))
		return g.plain("VerifyMac", key, "MacAlgorithm", "HMAC_SHA_256", "Message", b64("x"), "Mac", mac)
	},
}

func dry(calls []call) []call {
	for i := range calls {
		calls[i].dry = true
	}
	return calls
}

// plain is a call of an operation that needs the permission of its name for one key.
func (g *rig) plain(operation, key string, pairs ...any) []call {
	return []call{{operation: operation, body: object(g.t, append(pairs, "KeyId", key)...), needs: []need{{"kms:" + operation, key}}}}
}

// imported makes a key with imported material.
func (g *rig) imported() string {
	g.t.Helper()
	key := g.key(ofExternal)
	_, err := g.root.KMS.ImportKeyMaterial(g.t.Context(), g.importInput(key))
	require.NoError(g.t, err)
	return key
}

func (g *rig) importInput(key string) *kms.ImportKeyMaterialInput {
	g.t.Helper()
	out, err := g.root.KMS.GetParametersForImport(g.t.Context(), &kms.GetParametersForImportInput{
		KeyId: &key, WrappingAlgorithm: types.AlgorithmSpecRsaesOaepSha1, WrappingKeySpec: types.WrappingKeySpecRsa2048,
	})
	require.NoError(g.t, err)
	set, err := kmstest.NewImportSet(key, "RSAES_OAEP_SHA_1", out)
	require.NoError(g.t, err)
	return set.Input(g.t, make([]byte, 32))
}

// userARN is that of a user of the rig's account.
func (g *rig) userARN(name string) string { return "arn:aws:iam::" + g.account + ":user/" + name }

func newRig(t testing.TB, s *kmstest.Server) *rig {
	t.Helper()
	id, root := newAccount(t, s)
	return &rig{t: t, s: s, root: root, account: id}
}

// putPolicy puts a key policy that may lock out whom it will.
func (g *rig) putPolicy(key, policy string) {
	g.t.Helper()
	_, err := g.root.KMS.PutKeyPolicy(g.t.Context(), &kms.PutKeyPolicyInput{KeyId: &key, Policy: aws.String(policy), BypassPolicyLockoutSafetyCheck: true})
	require.NoError(g.t, err)
}
