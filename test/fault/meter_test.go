package fault

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"hsmkms/kms/ciphertext"
	"hsmkms/store"
	"hsmkms/store/bolt"
	"hsmkms/test/kmstest"
)

// tally counts encryptions that were answered, by material.
type tally struct {
	mu    sync.Mutex
	made  map[string]int
	blobs map[string][]byte // one of each material
}

func newTally() *tally { return &tally{made: map[string]int{}, blobs: map[string][]byte{}} }

// add enters a ciphertext.
func (y *tally) add(raw []byte) error {
	blob, err := ciphertext.Parse(raw)
	if err != nil {
		return err
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	material := hex.EncodeToString(blob.Material[:])
	y.made[material]++
	y.blobs[material] = raw
	return nil
}

func (y *tally) total() (n int) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for _, made := range y.made {
		n += made
	}
	return n
}

// encrypt encrypts under a key and enters the ciphertext.
func (y *tally) encrypt(client *kms.Client, key string) error {
	out, err := client.Encrypt(background, &kms.EncryptInput{KeyId: &key, Plaintext: []byte("counted")})
	if err != nil {
		return err
	}
	return y.add(out.CiphertextBlob)
}

// TestBudgetUnderLoad has clients encrypt, with a small budget. The server moves the key to fresh material again and
// again, and nobody notices.
func TestBudgetUnderLoad(t *testing.T) {
	const budget, clients, each = 200, 8, 150
	eachHome(t, func(t *testing.T, home string) {
		s := kmstest.Start(t, kmstest.Options{Home: home, Top: []string{fmt.Sprint("encryptions_per_material: ", budget)}})
		s.AwaitTrials(t) // which hold up the making of keys, and this small budget is soon spent
		key, other := s.NewKey(t), newSecret(t, s, "kept")
		made := newTally()
		failures := make(chan error, clients*each)
		var group sync.WaitGroup
		for i := range clients {
			client := s.Client()
			group.Go(func() {
				for range each {
					if i%4 == 0 {
						out, err := client.ReEncrypt(background, &kms.ReEncryptInput{CiphertextBlob: other.blob, DestinationKeyId: &key})
						if err == nil {
							err = made.add(out.CiphertextBlob)
						}
						failures <- err
						continue
					}
					failures <- made.encrypt(client, key)
				}
			})
		}
		group.Wait()
		close(failures)
		for err := range failures {
			require.NoError(t, err)
		}
		require.Equal(t, clients*each, made.total())
		require.GreaterOrEqual(t, len(made.made), clients*each/(2*budget))
		for material, n := range made.made {
			require.Less(t, n, 2*budget, material)
		}
		requireRotations(t, s, key, made)
		for _, blob := range made.blobs {
			require.NotEmpty(t, s.Decrypt(t, blob, nil))
		}
	})
}

// requireRotations checks that the rotations are recorded, and that the key has no other material.
func requireRotations(t *testing.T, s *kmstest.Server, key string, made *tally) {
	t.Helper()
	out, err := s.Client().ListKeyRotations(t.Context(), &kms.ListKeyRotationsInput{KeyId: &key, IncludeKeyMaterial: types.IncludeKeyMaterialAllKeyMaterial})
	require.NoError(t, err)
	var materials []string
	for i := range out.Rotations {
		materials = append(materials, *out.Rotations[i].KeyMaterialId)
		if out.Rotations[i].RotationDate != nil {
			require.Equal(t, types.RotationTypeAutomatic, out.Rotations[i].RotationType)
		}
	}
	require.Subset(t, materials, slices.Collect(maps.Keys(made.made)))
	require.LessOrEqual(t, len(materials), len(made.made)+1, "rotated more often than needed")
}

// TestBudgetKillNine kills the server again and again while clients encrypt under some keys. The count in the store is
// never below the encryptions that were answered, and not far above.
func TestBudgetKillNine(t *testing.T) {
	const rounds, clients, keys = 6, 4, 3
	for _, part := range []struct{ budget, free, batch int }{{1 << 17, 4, 64}, {2000, 0, 1}} {
		t.Run(fmt.Sprint(part.budget), func(t *testing.T) {
			s := kmstest.Start(t, kmstest.Options{Top: []string{fmt.Sprint("encryptions_per_material: ", part.budget)}})
			ids := make([]string, keys)
			for i := range ids {
				ids[i] = s.NewKey(t)
			}
			made := newTally()
			seed := rand.Uint64()
			t.Log("seed", seed)
			random := rand.New(rand.NewPCG(seed, 0))
			for round := range rounds {
				work(t, s, clients, func(client *kms.Client, i int) error { return made.encrypt(client, ids[i%keys]) }, func() {
					enough := made.total() + 20 + random.IntN(200)
					eventually(t, func() bool { return made.total() > enough }, "no requests")
					time.Sleep(time.Duration(random.Int64N(int64(aim)))) // to hit any part of a request
				})
				counts := storedCounts(t, s)
				require.Len(t, counts, keys)
				for material, count := range counts {
					require.LessOrEqual(t, made.made[material]+1, count, "the count is behind")
					require.LessOrEqual(t, count, made.made[material]+1+(round+1)*(part.free+part.batch+clients))
				}
				require.NoError(t, s.Run())
			}
			require.Len(t, made.made, keys)
		})
	}
}

// work has clients send requests until the server is killed, when ready returns.
func work(t *testing.T, s *kmstest.Server, clients int, request func(client *kms.Client, i int) error, ready func()) {
	t.Helper()
	var group sync.WaitGroup
	var killed atomic.Bool
	failures := make(chan error, clients)
	for i := range clients {
		client := s.Client()
		group.Go(func() {
			for n := i; ; n++ {
				if err := request(client, n); err != nil {
					if !killed.Load() {
						failures <- err
					}
					return
				}
			}
		})
	}
	ready()
	killed.Store(true)
	require.NoError(t, s.Kill())
	group.Wait()
	close(failures)
	for err := range failures {
		require.NoError(t, err)
	}
}

// storedCounts reads the counts of all materials from the store of a server that is not running.
func storedCounts(t *testing.T, s *kmstest.Server) map[string]int {
	t.Helper()
	st, err := bolt.Open(bolt.Config{Path: filepath.Join(s.Dir, "hsmkms.db")})
	require.NoError(t, err)
	defer func() { require.NoError(t, st.Close()) }()
	counts := map[string]int{}
	require.NoError(t, st.View(t.Context(), func(r store.Reader) error {
		free := number(t, r, "system/free", "free")
		return r.Scan("key/"+kmstest.Region+"/", "", func(_ string, value []byte) bool {
			var key struct {
				Materials []struct {
					ID   string
					Base int
				}
			}
			require.NoError(t, json.Unmarshal(value, &key))
			for _, m := range key.Materials {
				counts[m.ID] = 1 + free - m.Base + number(t, r, "count/"+kmstest.Region+"/"+m.ID, "reserved")
			}
			return true
		})
	}))
	return counts
}

// number reads a number from a record, 0 if there is none.
func number(t *testing.T, r store.Reader, name, member string) int {
	t.Helper()
	value, found, err := r.Get(name)
	require.NoError(t, err)
	if !found {
		return 0
	}
	record := map[string]int{}
	require.NoError(t, json.Unmarshal(value, &record))
	require.Contains(t, record, member)
	return record[member]
}

// TestForgeriesSpendNothing sends more forged ciphertexts than the source and the destination may encrypt at all.
func TestForgeriesSpendNothing(t *testing.T) {
	const budget, forgeries = 200, 1000
	eachHome(t, func(t *testing.T, home string) {
		s := kmstest.Start(t, kmstest.Options{Home: home, Top: []string{fmt.Sprint("encryptions_per_material: ", budget)}})
		x, destination := newSecret(t, s, "kept"), s.NewKey(t)
		bodies := []string{secret{blob: forge(t, x.blob)}.reEncrypt(t, destination), secret{blob: forge(t, x.blob)}.reEncrypt(t, x.key)}
		sendForgeries(t, s, bodies, forgeries)
		x.requireOpens(t, s)
		s.Encrypt(t, destination, []byte("x"), nil)
		require.NoError(t, s.Kill())
		counts := storedCounts(t, s)
		require.Len(t, counts, 2, "rotated")
		for material, count := range counts {
			require.LessOrEqual(t, count, 2+connections, material)
		}
	})
}
