package contract

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// stranger is a user of an account that other accounts' keys are closed to, in some way.
type stranger struct {
	kmstest.Someone
	account string
	arn     string
	root    kmstest.Someone
}

func newStranger(t testing.TB, s *kmstest.Server) *stranger {
	t.Helper()
	id, root := newAccount(t, s)
	return &stranger{s.NewUserOf(t, root, "stranger", ""), id, "arn:aws:iam::" + id + ":user/stranger", root}
}

// may gives the stranger an identity-based policy.
func (w *stranger) may(t testing.TB, statements ...statement) {
	t.Helper()
	if len(statements) == 0 {
		statements = []statement{allow("iam:GetUser", "*")}
	}
	w.root.PutUserPolicy(t, "stranger", document(t, statements...))
}

// way is one in which a key is closed to a stranger: by its key policy, by his own policies, or by both.
type way struct {
	name      string
	key, user []statement
}

func closed(g *rig, w *stranger) (ways []way) {
	keep := statement{"Effect": "Allow", "Principal": members{"AWS": g.account}, "Action": "kms:*", "Resource": "*"}
	open := statement{"Effect": "Allow", "Principal": members{"AWS": w.account}, "Action": "kms:*", "Resource": "*"}
	deny := statement{"Effect": "Deny", "Principal": members{"AWS": w.arn}, "Action": "kms:*", "Resource": "*"}
	all := allow("kms:*", "*")
	when := func(key, value string) statement {
		return allow("kms:*", "*").with("Condition", members{"StringEquals": members{key: value}})
	}
	denied := statement{"Effect": "Deny", "Action": "kms:*", "Resource": "*", "Condition": members{"StringEquals": members{"kms:KeyOrigin": []string{"AWS_KMS", "EXTERNAL"}}}}
	aliased := allow("kms:*", "*").with("Condition", members{"ForAnyValue:StringLike": members{"kms:ResourceAliases": "alias/*"}})
	same := allow("kms:*", "*").with("Condition", members{"Bool": members{"kms:ReEncryptOnSameKey": "true"}})
	add := func(name string, key, user []statement) {
		ways = append(ways, way{name, key, user})
	}
	for name, key := range map[string][]statement{"silent": {keep}, "denying": {keep, open, deny}} {
		add(name+" key policy, user may all", key, []statement{all})
		add(name+" key policy, user may nothing", key, nil)
		add(name+" key policy, on attributes", key, []statement{when("kms:KeyOrigin", "AWS_KMS"), when("aws:ResourceTag/team", "red"), aliased, same})
		add(name+" key policy, denied on attributes", key, []statement{all, denied})
	}
	add("open key policy, user may nothing", []statement{keep, open}, nil)
	add("open key policy, on other attributes", []statement{keep, open}, []statement{when("kms:KeyOrigin", "AWS_CLOUDHSM"), when("aws:ResourceTag/team", "blue")})
	add("open key policy, denied on attributes", []statement{keep, open}, []statement{all, denied})
	return ways
}

var keyARNs = regexp.MustCompile(`arn:aws:kms:[a-z0-9-]+:\d{12}:(key/[0-9a-f-]{36}|alias/[\w/-]+)`)

// requireAlike sends two requests that differ in ARNs alone and must be denied in the same words.
func requireAlike(t *testing.T, s *kmstest.Server, who kmstest.Someone, operation, forbidden, missing, what string) {
	t.Helper()
	a, b := s.PostAs(t, who, operation, forbidden), s.PostAs(t, who, operation, missing)
	blank := func(text string) string { return keyARNs.ReplaceAllString(text, "ARN") }
	require.Equal(t, "AccessDeniedException", a.JSON(t)["__type"], "%s, %s: %s", operation, what, a.Body)
	require.Equal(t, blank(a.Body), blank(b.Body), "%s, %s", operation, what)
	require.Equal(t, a.Status, b.Status)
	require.Equal(t, slices.Sorted(maps.Keys(a.Header)), slices.Sorted(maps.Keys(b.Header)))
	for _, arn := range keyARNs.FindAllString(a.Body, -1) {
		require.Contains(t, forbidden, arn, "%s, %s: an ARN that was not in the request", operation, what)
	}
	for _, arn := range keyARNs.FindAllString(b.Body, -1) {
		require.Contains(t, missing, arn, "%s, %s: an ARN that was not in the request", operation, what)
	}
}

// TestForeignKeysAreNotTold asks for keys of another account that there are and that there are not, with every operation that
// names a key, while they are closed in every way.
func TestForeignKeysAreNotTold(t *testing.T) {
	s := one()
	g, w := newRig(t, s), newStranger(t, s)
	asked := map[string]bool{}
	var calls []call
	keys := map[string]bool{}
	for _, operation := range slices.Sorted(maps.Keys(makers)) {
		for _, c := range makers[operation](g) {
			if operation == "UpdateAlias" || operation == "DeleteAlias" || !keyARNs.MatchString(c.body) {
				continue // which name an alias of the caller's own account; TestForeignTargets has them
			}
			calls, asked[operation] = append(calls, c), true
			for _, arn := range keyARNs.FindAllString(c.body, -1) {
				keys[arn] = true
			}
		}
	}
	require.Len(t, asked, len(makers)-len([]string{"CreateKey", "DeleteAlias", "GenerateRandom", "ListKeys", "ListRetirableGrants", "UpdateAlias"}))
	for _, way := range closed(g, w) {
		for arn := range keys {
			g.putPolicy(arn, document(t, way.key...))
		}
		w.may(t, way.user...)
		for _, c := range calls {
			if c.operation == "CreateAlias" && len(way.user) == 0 {
				continue // denied for the alias
			}
			missing := keyARNs.ReplaceAllStringFunc(c.body, func(string) string { return g.arn("key/" + uuid.NewString()) })
			if c.operation == "CreateAlias" || c.operation == "ListAliases" {
				w.may(t, append(way.user, allow("kms:CreateAlias", "*"), allow("kms:ListAliases", "*"))...)
			}
			requireAlike(t, s, w.Someone, c.operation, c.body, missing, way.name)
			if c.operation == "CreateAlias" || c.operation == "ListAliases" {
				w.may(t, way.user...)
			}
		}
	}
}

// TestForeignAliasesAreNotTold is TestForeignKeysAreNotTold for alias ARNs.
func TestForeignAliasesAreNotTold(t *testing.T) {
	s := one()
	g, w := newRig(t, s), newStranger(t, s)
	key := g.key()
	other := g.key()
	alias := g.arn(g.alias(key))
	blob := g.do("Encrypt", "CiphertextBlob", "KeyId", key, "Plaintext", b64("x"))
	bodies := map[string]func(name string) string{
		"DescribeKey":     func(name string) string { return object(t, "KeyId", name) },
		"Encrypt":         func(name string) string { return object(t, "KeyId", name, "Plaintext", b64("x")) },
		"Decrypt":         func(name string) string { return object(t, "KeyId", name, "CiphertextBlob", blob) },
		"GenerateDataKey": func(name string) string { return object(t, "KeyId", name, "KeySpec", "AES_256") },
		"GetPublicKey":    func(name string) string { return object(t, "KeyId", name) },
		"ReEncrypt": func(name string) string {
			return object(t, "CiphertextBlob", blob, "SourceKeyId", name, "DestinationKeyId", key)
		},
	}
	for _, way := range closed(g, w) {
		g.putPolicy(key, document(t, way.key...))
		g.putPolicy(other, document(t, way.key...))
		w.may(t, way.user...)
		for operation, body := range bodies {
			requireAlike(t, s, w.Someone, operation, body(alias), body(g.arn(freeAlias())), way.name)
		}
		// Whether the alias and the ARN mean the same key is not told either.
		body := bodies["ReEncrypt"](alias)
		requireAlike(t, s, w.Someone, "ReEncrypt", body, strings.ReplaceAll(body, key, other), way.name)
	}
}

// TestForeignCiphertextsAreNotTold opens ciphertexts of keys of another account that there are and that there are not.
func TestForeignCiphertextsAreNotTold(t *testing.T) {
	s := one()
	g, w := newRig(t, s), newStranger(t, s)
	key := g.key()
	blob, err := base64.StdEncoding.DecodeString(g.do("Encrypt", "CiphertextBlob", "KeyId", key, "Plaintext", b64("x")))
	require.NoError(t, err)
	id := func(arn string) []byte {
		raw, err := hex.DecodeString(strings.ReplaceAll(arn[strings.LastIndexByte(arn, '/')+1:], "-", ""))
		require.NoError(t, err)
		return raw
	}
	other := bytes.Replace(blob, id(key), id(uuid.NewString()), 1)
	require.NotEqual(t, blob, other)
	out, err := w.root.KMS.CreateKey(t.Context(), nil)
	require.NoError(t, err)
	for _, way := range closed(g, w) {
		g.putPolicy(key, document(t, way.key...))
		w.may(t, way.user...)
		for _, b := range [][]byte{blob, other} {
			s.PostAs(t, w.Someone, "Decrypt", object(t, "CiphertextBlob", b)).RequireRefusal(t, "AccessDeniedException", textUnreachable)
			s.PostAs(t, w.Someone, "ReEncrypt", object(t, "CiphertextBlob", b, "DestinationKeyId", *out.KeyMetadata.KeyId)).RequireRefusal(t, "AccessDeniedException", textUnreachable)
		}
	}
	// In its own account, the reason is told.
	who := s.NewUserOf(t, g.root, "insider", "")
	s.PostAs(t, who, "Decrypt", object(t, "CiphertextBlob", blob)).RequireRefusal(t, "AccessDeniedException",
		deniedText(g.userARN("insider"), "kms:Decrypt", key, silentText("identity-based", "kms:Decrypt")))
}

// TestForeignTargets points aliases at keys of another account, and retires grants of theirs.
func TestForeignTargets(t *testing.T) {
	s := one()
	g, w := newRig(t, s), newStranger(t, s)
	key, absent := g.key(), g.arn("key/"+uuid.NewString())
	grant, _ := g.grant(key)
	mine := &rig{t: t, s: s, root: w.root, account: w.account}
	name := mine.alias(mine.key())
	for _, way := range closed(g, w) {
		g.putPolicy(key, document(t, way.key...))
		w.may(t, append(way.user, allow([]string{"kms:UpdateAlias", "kms:CreateAlias"}, "*"))...)
		for operation, alias := range map[string]string{"UpdateAlias": name, "CreateAlias": freeAlias()} {
			body := func(target string) string { return object(t, "AliasName", alias, "TargetKeyId", target) }
			requireAlike(t, s, w.Someone, operation, body(key), body(absent), way.name)
			requireAlike(t, s, w.root, operation, body(key), body(absent), way.name) // who may everything in his own account
		}
		w.may(t, way.user...)
		body := func(key, grant string) string { return object(t, "KeyId", key, "GrantId", grant) }
		for _, operation := range []string{"RetireGrant", "RevokeGrant"} {
			requireAlike(t, s, w.Someone, operation, body(key, grant), body(key, strings.Repeat("0", 64)), way.name)
			requireAlike(t, s, w.Someone, operation, body(key, grant), body(absent, grant), way.name)
		}
	}
}
