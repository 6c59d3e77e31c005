package fault

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// background is for requests that end with the server at the latest.
var background = context.Background()

// murders are, by home, calls of the module in which the server is killed. Rounds without one kill it at any moment.
var murders = map[string][]string{
	kmstest.HomeToken: {
		"C_GenerateKey kill=1 skip=2", "C_GenerateKey kill=1 skip=2 when=after", "C_CopyObject kill=1 skip=2",
		"C_CopyObject kill=1 skip=2 when=after", "C_Encrypt kill=1 skip=5 when=after", "C_UnwrapKey kill=1 when=after",
		"C_DestroyObject kill=1 skip=2",
	},
	kmstest.HomeWrapped: {
		"C_GenerateKey kill=1 skip=2", "C_GenerateKeyPair kill=1 when=after", "C_GenerateKey kill=1 skip=2 when=after",
		"C_WrapKey kill=1 skip=2", "C_WrapKey kill=1 skip=3 when=after", "C_UnwrapKey kill=1 skip=2", "C_DestroyObject kill=1 skip=2",
	},
}

const (
	rounds  = 14
	workers = 4
	// shortest and longest bound the number of steps in a round without a murder.
	shortest, longest = 20, 250
	// aim bounds the time from the last of them to the kill, so that it hits all parts of the next ones.
	aim = 10 * time.Millisecond
	// killDay is how long a day lasts: so long that some keys are saved from their deletion, and so short that others come
	// to their end, and are rotated automatically.
	killDay = 25 * time.Millisecond
)

// TestKillNine kills the server again and again while clients do all that changes keys, aliases and grants, and time
// deletes and rotates some. After each restart, everything that was acknowledged is there, and nothing else but what was
// under way.
func TestKillNine(t *testing.T) {
	eachHome(t, func(t *testing.T, home string) {
		r := newRig(t, kmstest.Options{Home: home, Day: killDay.String()})
		seed := rand.Uint64()
		t.Log("seed", seed)
		random := rand.New(rand.NewPCG(seed, 0))
		w := &world{home: home, grantee: r.NewUser(t, grantee, "").Credentials}
		for i := range workers {
			w.workers = append(w.workers, newWorker(fmt.Sprint("worker", i), seed+uint64(i)))
		}
		for round := range rounds {
			if round%2 == 1 {
				r.requireCalm(t)
				r.fault.Set(murders[home][round/2])
				w.work(t, r, func() {})
			} else {
				w.work(t, r, func() {
					steps := w.steps.Load() + shortest + random.Int64N(longest-shortest)
					eventually(t, func() bool { return w.steps.Load() > steps || w.failed.Load() }, "no requests")
					time.Sleep(time.Duration(random.Int64N(int64(aim))))
					require.NoError(t, r.Kill())
				})
			}
			r.fault.Clear()
			require.NoError(t, r.Run())
			w.verify(t, r.Server)
		}
		w.awaitEnds(t, r.Client())
		w.requireUsed(t)
	})
}

// world is what the clients of a server know.
type world struct {
	home         string
	grantee      aws.Credentials // of the user who has no permissions but grants
	workers      []*worker
	steps        atomic.Int64 // that were answered
	failed       atomic.Bool  // a worker found something wrong
	acknowledged acknowledgements
	orphans      int
	automatic    int // rotations
}

// work lets the workers work until the server is killed, by kill or by itself.
func (w *world) work(t *testing.T, r *rig, kill func()) {
	t.Helper()
	ends := make(chan error, len(w.workers))
	for _, worker := range w.workers {
		client := w.acknowledged.client(r.Client())
		go func() {
			err := worker.work(client, &w.steps)
			if err != nil {
				w.failed.Store(true)
				_ = r.Kill() // it never fails, and ends the others
			}
			ends <- err
		}()
	}
	kill()
	for range w.workers {
		require.NoError(t, <-ends)
	}
	require.ErrorContains(t, r.Wait(), "signal: killed")
}

// awaitEnds waits for the end of the keys that nobody saves.
func (w *world) awaitEnds(t *testing.T, client *kms.Client) {
	t.Helper()
	for _, worker := range w.workers {
		for _, key := range append([]*ownKey{}, worker.keys...) {
			if key.condition.is.state != dying {
				continue
			}
			eventually(t, func() bool {
				got, err := key.observe(client)
				require.NoError(t, err)
				return got.condition.state == gone
			}, "a key stays")
			worker.bury(key)
		}
	}
}

// requireUsed guards against a test that leaves something out.
func (w *world) requireUsed(t *testing.T) {
	t.Helper()
	ended := 0
	for _, worker := range w.workers {
		ended += worker.ended
	}
	t.Logf("%d steps, %d keys ended, %d automatic rotations, %d orphans; %v", w.steps.Load(), ended, w.automatic, w.orphans, w.acknowledged.counts)
	for _, s := range steps {
		require.NotZero(t, w.acknowledged.counts[s.operation], "%s was never acknowledged", s.operation)
	}
	require.NotZero(t, ended, "no deletion came to its end")
	require.NotZero(t, w.automatic, "nothing was rotated automatically")
	require.NotZero(t, w.orphans, "killed after C_GenerateKey or C_GenerateKeyPair, and no orphan")
}
