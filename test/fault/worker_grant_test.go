package fault

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// A key has a few possible grants. Each lets the grantee, who has no other permission, encrypt with an encryption context
// that has the grant's name, and with no other. Grants of keys that come to their end are left alone: they end with them.

var grantNames = []string{"g0", "g1", "g2", "g3"}

// grantee is the name of the user.
const grantee = "grantee"

func grantContext(name string) map[string]string { return map[string]string{"grant": name} }

// grant asks for a grant. All that have a name are the same.
func (k *ownKey) grant(name string) *kms.CreateGrantInput {
	return &kms.CreateGrantInput{
		KeyId: aws.String(kmstest.KeyARN(k.key)), Name: &name, GranteePrincipal: aws.String(kmstest.IAMARN("user/" + grantee)),
		RetiringPrincipal: aws.String(kmstest.IAMARN("root")), Operations: []types.GrantOperation{types.GrantOperationEncrypt},
		Constraints: &types.GrantConstraints{EncryptionContextEquals: grantContext(name)},
	}
}

// granted gives the names of the grants that there are.
func (k *ownKey) granted() []string { return strings.Fields(k.grants.is) }

// joined writes names of grants as the fact does. A name that is there twice stays so.
func joined(names []string) string { return strings.Join(slices.Sorted(slices.Values(names)), " ") }

func isGranted(w *worker, k *ownKey) bool { return alive(w, k) && k.grants.is != "" }

// createGrant makes a grant, or asks for one that there is and must get the same.
func (w *worker) createGrant(client *kms.Client, k *ownKey) error {
	name := grantNames[w.random.IntN(len(grantNames))]
	names := k.granted()
	if !slices.Contains(names, name) {
		names = append(names, name)
	}
	return k.grants.change(joined(names), func() error {
		out, err := client.CreateGrant(background, k.grant(name))
		if err != nil {
			return err
		}
		return k.hear(name, *out.GrantId, aws.ToString(out.GrantToken))
	})
}

// toldGrant is what an answer of CreateGrant named.
type toldGrant struct{ id, token string }

// hear takes note of the answer for a grant, which keeps its id.
func (k *ownKey) hear(name, id, token string) error {
	if before, told := k.told[name]; told {
		if err := same("id of grant "+name+" of "+k.key, id, before.id); err != nil {
			return err
		}
	}
	k.told[name] = toldGrant{id, token}
	return nil
}

// retireGrant ends a grant by its token, if one was told, or by its id.
func (w *worker) retireGrant(client *kms.Client, k *ownKey) error {
	return w.endGrant(client, k, func(id, token string) error {
		in := &kms.RetireGrantInput{KeyId: aws.String(kmstest.KeyARN(k.key)), GrantId: &id}
		if token != "" && w.random.IntN(2) == 0 {
			in = &kms.RetireGrantInput{GrantToken: &token}
		}
		_, err := client.RetireGrant(background, in)
		return err
	})
}

func (w *worker) revokeGrant(client *kms.Client, k *ownKey) error {
	return w.endGrant(client, k, func(id, _ string) error {
		_, err := client.RevokeGrant(background, &kms.RevokeGrantInput{KeyId: &k.key, GrantId: &id})
		return err
	})
}

// endGrant ends one of the grants. Its id is looked up, because the request that made it may not have been answered.
func (w *worker) endGrant(client *kms.Client, k *ownKey, request func(id, token string) error) error {
	names := k.granted()
	name := names[w.random.IntN(len(names))]
	entries, err := k.listGrants(client)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(entries, func(e types.GrantListEntry) bool { return aws.ToString(e.Name) == name })
	if i < 0 {
		return &wrongAnswer{"grant " + name + " of " + k.key, "not listed", "listed"}
	}
	token := k.told[name].token
	delete(k.told, name) // also if no answer comes: the next one with that name is another
	left := slices.DeleteFunc(names, func(n string) bool { return n == name })
	return k.grants.change(joined(left), func() error { return request(*entries[i].GrantId, token) })
}

func (k *ownKey) listGrants(client *kms.Client) (entries []types.GrantListEntry, err error) {
	pages := kms.NewListGrantsPaginator(client, &kms.ListGrantsInput{KeyId: &k.key, Limit: aws.Int32(2)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(background)
		if err != nil {
			return nil, err
		}
		entries = append(entries, page.Grants...)
	}
	return entries, nil
}

// readGrants reads the names of the key's grants, each of which must have the id that was told and the terms of its name.
func (k *ownKey) readGrants(client *kms.Client) (string, error) {
	entries, err := k.listGrants(client)
	if err != nil {
		return "", err
	}
	var names []string
	var wrong error
	for i := range entries {
		e := &entries[i]
		name := aws.ToString(e.Name)
		names = append(names, name)
		got := kms.CreateGrantInput{
			KeyId: e.KeyId, Name: e.Name, GranteePrincipal: e.GranteePrincipal, RetiringPrincipal: e.RetiringPrincipal,
			Operations: e.Operations, Constraints: e.Constraints,
		}
		wrong = errors.Join(wrong, same("terms of grant "+name, terms(&got), terms(k.grant(name))))
		if told, ok := k.told[name]; ok {
			wrong = errors.Join(wrong, same("id of grant "+name+" of "+k.key, *e.GrantId, told.id))
		}
	}
	return joined(names), wrong
}

// terms writes a grant as a text.
func terms(in *kms.CreateGrantInput) string {
	text, _ := json.Marshal(in) // texts alone
	return string(text)
}

// verifyGrants checks that the grants of each key are in force, that those that ended are not, and that whoever may retire
// them finds them.
func (w *world) verifyGrants(t *testing.T, s *kmstest.Server) {
	t.Helper()
	who, retirable := s.As(w.grantee).KMS, listRetirable(t, s.Client())
	for _, worker := range w.workers {
		for _, key := range worker.keys {
			if key.condition.is.state != enabled {
				continue
			}
			require.Equal(t, key.grants.is, joined(retirable[kmstest.KeyARN(key.key)]), "retirable grants of %s", key.key)
			for _, name := range grantNames {
				key.verifyGrant(t, who, name)
			}
		}
	}
}

// verifyGrant tries a grant.
func (k *ownKey) verifyGrant(t *testing.T, who *kms.Client, name string) {
	t.Helper()
	_, err := who.Encrypt(t.Context(), &kms.EncryptInput{KeyId: &k.key, Plaintext: []byte("x"), EncryptionContext: grantContext(name), DryRun: aws.Bool(true)})
	want := "AccessDeniedException"
	if slices.Contains(k.granted(), name) {
		want = "DryRunOperationException"
	}
	require.ErrorContains(t, err, want, "grant %s of %s, of %q", name, k.key, k.grants.is)
}

// listRetirable gives the names of the grants that the root user may retire, by the ARNs of their keys.
func listRetirable(t *testing.T, client *kms.Client) map[string][]string {
	t.Helper()
	names := map[string][]string{}
	pages := kms.NewListRetirableGrantsPaginator(client, &kms.ListRetirableGrantsInput{RetiringPrincipal: aws.String(kmstest.IAMARN("root")), Limit: aws.Int32(7)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		require.NoError(t, err)
		for _, entry := range page.Grants {
			names[*entry.KeyId] = append(names[*entry.KeyId], aws.ToString(entry.Name))
		}
	}
	return names
}
