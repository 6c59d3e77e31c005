package fault

import (
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// verify compares the server with what the workers know, and uses every key.
func (w *world) verify(t *testing.T, s *kmstest.Server) {
	t.Helper()
	w.verifyOrphans(t, s)
	client := s.Client()
	w.verifyKeys(t, client)
	w.verifyGrants(t, s)
	aliases := listAliases(t, client, nil)
	w.verifyIndex(t, client, aliases)
	for _, worker := range w.workers {
		worker.verifyAliases(t, client, aliases)
	}
	require.Empty(t, aliases, "nobody made these aliases")
}

// verifyOrphans checks that what a crash left on the token is reported, and that there is no more of it than there was
// being made: one thing by each worker, and one by the schedule.
func (w *world) verifyOrphans(t *testing.T, s *kmstest.Server) {
	t.Helper()
	orphans := requireStockTaken(t, s)
	most := w.orphans
	if w.home == kmstest.HomeToken {
		most++ // an automatic rotation
	}
	for _, worker := range w.workers {
		if worker.making == pair || worker.making == material && w.home == kmstest.HomeToken {
			most++
		}
		worker.making = nothing
	}
	require.GreaterOrEqual(t, orphans, w.orphans, "orphans went away by themselves")
	require.LessOrEqual(t, orphans, most)
	eventually(t, func() bool { return strings.Count(s.Log(), "object on the token without a key") == orphans }, "orphans are not in the log")
	w.orphans = orphans
}

// verifyKeys checks every key: those that are listed, those that came to their end, and those that nobody was told of.
func (w *world) verifyKeys(t *testing.T, client *kms.Client) {
	t.Helper()
	ids := listKeys(t, client)
	for _, worker := range w.workers {
		for _, key := range slices.Clone(worker.keys) {
			if !ids[key.key] {
				got, err := key.observe(client)
				require.NoError(t, err)
				require.Equal(t, gone, got.condition.state, "key %s is not listed", key.key)
			}
			delete(ids, key.key)
		}
	}
	w.adopt(t, client, ids)
	for _, worker := range w.workers {
		for _, key := range slices.Clone(worker.keys) {
			w.automatic += worker.verifyKey(t, client, key)
		}
	}
}

// adopt hands keys that were never acknowledged to the workers that asked for them when the server was killed.
func (w *world) adopt(t *testing.T, client *kms.Client, ids map[string]bool) {
	t.Helper()
	asked := map[string]*worker{}
	for _, worker := range w.workers {
		if worker.creating != nil {
			asked[worker.creating.description.is] = worker
		}
	}
	for id := range ids {
		out, err := client.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &id})
		require.NoError(t, err)
		description := aws.ToString(out.KeyMetadata.Description)
		require.Contains(t, asked, description, "nobody asked for key %s", id)
		worker := asked[description]
		worker.creating.key = id
		worker.keys = append(worker.keys, worker.creating)
		delete(asked, description)
	}
	for _, worker := range w.workers {
		worker.creating = nil
	}
}

// verifyKey checks the facts of a key and that it encrypts, and opens what it encrypted before. It gives the number of
// automatic rotations that it finds.
func (w *worker) verifyKey(t *testing.T, client *kms.Client, k *ownKey) (automatic int) {
	t.Helper()
	got, err := k.observe(client)
	require.NoError(t, err)
	if got.condition.state == gone {
		w.bury(k)
		return 0
	}
	k.condition.settle(t, got.condition, "condition of "+k.key)
	k.description.settle(t, got.description, "description of "+k.key)
	if !w.revive(t, client, k) {
		return 0
	}
	for _, r := range k.readings() {
		value, err := r.read(client)
		require.NoError(t, err)
		r.fact.settle(t, value, r.what+" of "+k.key)
	}
	if k.condition.is.state != enabled {
		require.Equal(t, condition{state: waiting, imported: true}, k.condition.is, "the key has material and is not enabled")
		return 0
	}
	if k.imports == nil {
		automatic = k.verifyMaterials(t, client, got.current)
	}
	k.verifyOpens(t, client)
	require.NoError(t, k.encrypt(client))
	require.NoError(t, k.open(client))
	return automatic
}

// revive makes a key usable, unless it is doomed, comes to its end or never had material.
func (w *worker) revive(t *testing.T, client *kms.Client, k *ownKey) bool {
	t.Helper()
	if k.condition.is.state == dying {
		if k.doomed {
			return false
		}
		require.NoError(t, w.cancelDeletion(client, k))
		if k.condition.is.state == dying {
			return false // it was too late
		}
	}
	k.ends = span{} // also of a deletion that never was
	for number, letter := range k.condition.is.materials {
		if letter == absent {
			require.NoError(t, w.bring(client, k, number))
		}
	}
	if k.condition.is.state == disabled {
		require.NoError(t, w.enable(client, k))
	}
	return true
}

// verifyMaterials checks that the key has all materials that it had, in their order, and that neither rotations nor the
// material that DescribeKey named went back. It gives the number of automatic rotations that are new.
func (k *ownKey) verifyMaterials(t *testing.T, client *kms.Client, current string) (automatic int) {
	t.Helper()
	out, err := client.ListKeyRotations(t.Context(), &kms.ListKeyRotationsInput{
		KeyId: &k.key, IncludeKeyMaterial: types.IncludeKeyMaterialAllKeyMaterial, Limit: aws.Int32(1000),
	})
	require.NoError(t, err)
	var ids []string
	demanded := 0
	for i, entry := range out.Rotations {
		require.Equal(t, i == len(out.Rotations)-1, entry.KeyMaterialState == types.KeyMaterialStateCurrent)
		ids = append(ids, *entry.KeyMaterialId)
		switch {
		case entry.RotationType == types.RotationTypeOnDemand:
			demanded++
		case entry.RotationType == types.RotationTypeAutomatic && i >= len(k.materials):
			automatic++
		}
	}
	k.demanded.settle(t, demanded, "rotations on demand of "+k.key)
	require.True(t, automatic == 0 || k.turned, "rotated automatically, and nobody wanted that")
	require.GreaterOrEqual(t, len(ids), len(k.materials))
	require.Equal(t, k.materials, ids[:len(k.materials)], "materials of %s", k.key)
	require.GreaterOrEqual(t, slices.Index(ids, current), len(k.materials)-1, "current material")
	for id := range k.secrets {
		require.Contains(t, ids, id)
	}
	k.materials = ids
	return automatic
}

// verifyOpens opens a ciphertext of each material that has one.
func (k *ownKey) verifyOpens(t *testing.T, client *kms.Client) {
	t.Helper()
	require.NoError(t, k.open(client))
	for id, x := range k.secrets {
		if x.plaintext == k.plaintext {
			continue // opened already
		}
		got, err := x.open(client)
		require.NoError(t, err)
		require.Equal(t, id, got)
	}
}

// verifyAliases checks the worker's aliases, and takes them out of the list. Those of keys that come to their end may
// have gone with them.
func (w *worker) verifyAliases(t *testing.T, client *kms.Client, aliases map[string]string) {
	t.Helper()
	for name, alias := range w.aliases {
		got := aliases[name]
		delete(aliases, name)
		if w.isDying(alias.is) {
			require.Contains(t, []string{alias.is, ""}, got, name)
			continue
		}
		alias.settle(t, got, name)
		if alias.is == "" {
			continue
		}
		out, err := client.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &name})
		require.NoError(t, err)
		require.Equal(t, alias.is, *out.KeyMetadata.KeyId)
	}
}

// verifyIndex compares the aliases of all keys with those listed by key, but for keys that come to their end.
func (w *world) verifyIndex(t *testing.T, client *kms.Client, aliases map[string]string) {
	t.Helper()
	for _, worker := range w.workers {
		for _, key := range worker.keys {
			if key.condition.is.state == dying {
				continue
			}
			want := map[string]string{}
			for name, target := range aliases {
				if target == key.key {
					want[name] = target
				}
			}
			require.Equal(t, want, listAliases(t, client, &key.key))
		}
	}
}

// listKeys gives the ids of all keys.
func listKeys(t *testing.T, client *kms.Client) map[string]bool {
	t.Helper()
	ids := map[string]bool{}
	pages := kms.NewListKeysPaginator(client, &kms.ListKeysInput{Limit: aws.Int32(7)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		require.NoError(t, err)
		for _, key := range page.Keys {
			require.False(t, ids[*key.KeyId], "key %s is listed twice", *key.KeyId)
			ids[*key.KeyId] = true
		}
	}
	return ids
}

// listAliases gives the key of each alias, of all or of one key's.
func listAliases(t *testing.T, client *kms.Client, key *string) map[string]string {
	t.Helper()
	aliases := map[string]string{}
	pages := kms.NewListAliasesPaginator(client, &kms.ListAliasesInput{KeyId: key, Limit: aws.Int32(7)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		require.NoError(t, err)
		for _, alias := range page.Aliases {
			aliases[*alias.AliasName] = *alias.TargetKeyId
		}
	}
	return aliases
}
