package fault

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// background is for requests that end with the server at the latest.
var background = context.Background()

// murders are, by home, calls of the module in which the server is killed. Rounds without one kill it at any moment.
var murders = map[string][]string{
	kmstest.HomeToken: {
		"C_GenerateKey kill=1 skip=2", "C_GenerateKey kill=1 skip=2 when=after", "C_CopyObject kill=1 skip=2",
		"C_CopyObject kill=1 skip=2 when=after", "C_Encrypt kill=1 skip=5 when=after",
	},
	kmstest.HomeWrapped: {
		"C_GenerateKey kill=1 skip=2", "C_GenerateKey kill=1 skip=2 when=after", "C_WrapKey kill=1 skip=2",
		"C_WrapKey kill=1 skip=3 when=after", "C_UnwrapKey kill=1 skip=2",
	},
}

const (
	rounds  = 12
	workers = 4
	// shortest and longest bound the number of requests in a round without a murder.
	shortest, longest = 20, 300
	// aim bounds the time from the last of them to the kill, so that it hits all parts of the next ones.
	aim = 10 * time.Millisecond
)

// TestKillNine kills the server again and again while clients make and change keys and aliases. After each restart,
// everything that was acknowledged is there, and nothing else but what was under way.
func TestKillNine(t *testing.T) {
	eachHome(t, func(t *testing.T, home string) {
		r := newRig(t, kmstest.Options{Home: home})
		seed := rand.Uint64()
		t.Log("seed", seed)
		random := rand.New(rand.NewPCG(seed, 0))
		w := &world{home: home}
		for i := range workers {
			w.workers = append(w.workers, newWorker(fmt.Sprint("worker", i), seed+uint64(i)))
		}
		for round := range rounds {
			if round%2 == 1 && round/2 < len(murders[home]) {
				r.fault.Set(murders[home][round/2])
				w.work(t, r, func() {})
			} else {
				w.work(t, r, func() {
					requests := w.requests.Load() + shortest + random.Int64N(longest-shortest)
					eventually(t, func() bool { return w.requests.Load() > requests }, "no requests")
					time.Sleep(time.Duration(random.Int64N(int64(aim))))
					require.NoError(t, r.Kill())
				})
			}
			r.fault.Clear()
			require.NoError(t, r.Run())
			w.verify(t, r.Server)
		}
		w.requireUsed(t)
	})
}

// world is what the clients of a server know.
type world struct {
	home     string
	workers  []*worker
	requests atomic.Int64 // that were answered
	orphans  int
}

// work lets the workers work until the server is killed, by kill or by itself.
func (w *world) work(t *testing.T, r *rig, kill func()) {
	t.Helper()
	ends := make(chan error, len(w.workers))
	for _, worker := range w.workers {
		client := r.Client()
		go func() { ends <- worker.work(client, &w.requests) }()
	}
	kill()
	for range w.workers {
		require.NoError(t, <-ends)
	}
	require.ErrorContains(t, r.Wait(), "signal: killed")
}

// verify compares the server with what the workers know, and uses every key.
func (w *world) verify(t *testing.T, s *kmstest.Server) {
	t.Helper()
	w.verifyOrphans(t, s)
	client := s.Client()
	aliases := listAliases(t, client, nil)
	ids := listKeys(t, client)
	for _, worker := range w.workers {
		for _, key := range worker.keys {
			require.Contains(t, ids, key.key, "an acknowledged key is gone")
			delete(ids, key.key)
		}
	}
	w.adopt(t, client, ids)
	ofKey := map[string]map[string]string{}
	for _, worker := range w.workers {
		for _, key := range worker.keys {
			key.verify(t, client)
			ofKey[key.key] = listAliases(t, client, &key.key)
		}
		worker.verifyAliases(t, client, aliases)
	}
	require.Empty(t, aliases, "nobody made these aliases")
	w.verifyIndex(t, ofKey)
}

// verifyOrphans checks that what a crash left on the token is reported, and that there is no more of it than there were
// keys being made.
func (w *world) verifyOrphans(t *testing.T, s *kmstest.Server) {
	t.Helper()
	orphans := requireStockTaken(t, s)
	most := w.orphans
	for _, worker := range w.workers {
		if worker.creating != "" {
			most++
		}
	}
	if w.home == kmstest.HomeWrapped {
		most = 0
	}
	require.GreaterOrEqual(t, orphans, w.orphans, "orphans went away by themselves")
	require.LessOrEqual(t, orphans, most)
	eventually(t, func() bool { return strings.Count(s.Log(), "object on the token without a key") == orphans }, "orphans are not in the log")
	w.orphans = orphans
}

// adopt hands keys that were never acknowledged to the workers that asked for them when the server was killed.
func (w *world) adopt(t *testing.T, client *kms.Client, ids map[string]bool) {
	t.Helper()
	asked := map[string]*worker{}
	for _, worker := range w.workers {
		if worker.creating != "" {
			asked[worker.creating] = worker
		}
		worker.creating = ""
	}
	for id := range ids {
		out, err := client.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &id})
		require.NoError(t, err)
		description := aws.ToString(out.KeyMetadata.Description)
		require.Contains(t, asked, description, "nobody asked for key %s", id)
		asked[description].keys = append(asked[description].keys,
			&ownKey{secret: secret{key: id}, state: known(enabled), description: known(description)})
		delete(asked, description)
	}
}

// settle checks a fact and takes note of it.
func (f *fact) settle(t *testing.T, got, what string) {
	t.Helper()
	require.Contains(t, []string{f.is, f.may}, got, what)
	*f = known(got)
}

// verify checks the facts of a key and that it encrypts, and opens what it encrypted before.
func (k *ownKey) verify(t *testing.T, client *kms.Client) {
	t.Helper()
	out, err := client.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &k.key})
	require.NoError(t, err)
	k.state.settle(t, string(out.KeyMetadata.KeyState), "state of "+k.key)
	k.description.settle(t, aws.ToString(out.KeyMetadata.Description), "description of "+k.key)
	for k.state.is != enabled {
		require.NoError(t, k.toggle(client))
	}
	if k.blob != nil {
		k.verifyOpens(t, client)
	}
	require.NoError(t, k.encrypt(client))
	k.verifyOpens(t, client)
}

func (k *ownKey) verifyOpens(t *testing.T, client *kms.Client) {
	t.Helper()
	out, err := client.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: k.blob})
	require.NoError(t, err)
	require.Equal(t, k.plaintext, string(out.Plaintext))
}

// verifyAliases checks the worker's aliases, and takes them out of the list.
func (w *worker) verifyAliases(t *testing.T, client *kms.Client, aliases map[string]string) {
	t.Helper()
	for name, alias := range w.aliases {
		alias.settle(t, aliases[name], name)
		delete(aliases, name)
		if alias.is == "" {
			continue
		}
		out, err := client.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &name})
		require.NoError(t, err)
		require.Equal(t, alias.is, *out.KeyMetadata.KeyId)
	}
}

// verifyIndex compares the aliases with those listed by key.
func (w *world) verifyIndex(t *testing.T, ofKey map[string]map[string]string) {
	t.Helper()
	byName := map[string]string{}
	for key, aliases := range ofKey {
		for name, target := range aliases {
			require.Equal(t, key, target)
			byName[name] = target
		}
	}
	want := map[string]string{}
	for _, worker := range w.workers {
		for name, alias := range worker.aliases {
			if alias.is != "" {
				want[name] = alias.is
			}
		}
	}
	require.Equal(t, want, byName)
}

// requireUsed guards against a test that changes nothing.
func (w *world) requireUsed(t *testing.T) {
	t.Helper()
	keys := 0
	for _, worker := range w.workers {
		require.NotEmpty(t, worker.keys)
		keys += len(worker.keys)
	}
	t.Logf("%d keys, %d requests, %d orphans", keys, w.requests.Load(), w.orphans)
	if w.home == kmstest.HomeToken {
		require.NotZero(t, w.orphans, "killed after C_GenerateKey, and no orphan")
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

// TestOrphan kills the server when the token has a key of which the store does not know yet. It is reported at every
// start, and stays.
func TestOrphan(t *testing.T) {
	r := newRig(t, kmstest.Options{})
	x := newSecret(t, r.Server, "kept")
	r.fault.Set("C_GenerateKey kill=1 when=after")
	_, err := r.Client().CreateKey(t.Context(), &kms.CreateKeyInput{})
	require.Error(t, err)
	require.ErrorContains(t, r.Wait(), "signal: killed")
	r.fault.Clear()
	for range 2 {
		require.NoError(t, r.Run())
		require.Equal(t, 1, requireStockTaken(t, r.Server))
		r.requireLogged(t, `"msg":"object on the token without a key`, 1)
		r.requireLogged(t, `"label":"kms/`, 1)
		x.requireOpens(t, r.Server)
		keys, err := r.Client().ListKeys(t.Context(), &kms.ListKeysInput{})
		require.NoError(t, err)
		require.Equal(t, []types.KeyListEntry{{KeyArn: aws.String(kmstest.KeyARN(x.key)), KeyId: &x.key}}, keys.Keys)
		require.NoError(t, r.Stop())
	}
}

// TestInitKilledAfterKey kills init after each of the keys that it makes, its throw-away keys included. The next init
// completes the work.
func TestInitKilledAfterKey(t *testing.T) {
	eachHome(t, func(t *testing.T, home string) {
		r := newRig(t, kmstest.Options{Home: home})
		require.NoError(t, r.Stop())
		before := r.fault.Calls("C_GenerateKey")
		out, err := r.initAnew(t)
		require.NoError(t, err, "%s", out)
		keys := r.fault.Calls("C_GenerateKey") - before
		require.Positive(t, keys)
		for i := range keys {
			r.fault.Set(fmt.Sprintf("C_GenerateKey kill=1 when=after skip=%d", i))
			_, err = r.initAnew(t)
			require.ErrorContains(t, err, "signal: killed")
			r.fault.Clear()
			out, err = initCommand(t, r.Server).CombinedOutput()
			require.NoError(t, err, "%s", out)
			require.NoError(t, r.Run())
			requireStockTaken(t, r.Server)
			newSecret(t, r.Server, "text").requireOpens(t, r.Server)
			require.NoError(t, r.Kill())
		}
	})
}

// initAnew runs init on an empty store.
func (r *rig) initAnew(t *testing.T) ([]byte, error) {
	t.Helper()
	for _, name := range []string{"hsmkms.db", "credentials"} {
		require.NoError(t, os.RemoveAll(filepath.Join(r.Dir, name)))
	}
	return initCommand(t, r.Server).CombinedOutput()
}
