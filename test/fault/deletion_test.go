package fault

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// objectFiles counts the objects of the token, by the files that SoftHSM keeps them in: an independent look, which works
// while there is no server.
func objectFiles(t *testing.T, s *kmstest.Server) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.Dir, "tokens", "*", "*.object"))
	require.NoError(t, err)
	return len(files)
}

// schedule has a key deleted after seven of the server's days.
func schedule(t *testing.T, s *kmstest.Server, id string) {
	t.Helper()
	_, err := s.Client().ScheduleKeyDeletion(t.Context(), &kms.ScheduleKeyDeletionInput{KeyId: &id, PendingWindowInDays: aws.Int32(7)})
	require.NoError(t, err)
}

// isGone tells whether there is no such key any more.
func isGone(t *testing.T, s *kmstest.Server, id string) bool {
	t.Helper()
	_, err := s.Client().DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &id})
	if err != nil {
		kmstest.RequireError(t, err, "NotFoundException", "Key '"+kmstest.KeyARN(id)+"' does not exist")
	}
	return err != nil
}

// TestKilledAtDestruction kills the server before and after each call that destroys a part of a deleted key on the token.
// The next one completes the deletion, and no other key is harmed.
func TestKilledAtDestruction(t *testing.T) {
	calls := map[string]int{kmstest.HomeToken: 2, kmstest.HomeWrapped: 1} // the object and its session object, or only that
	eachHome(t, func(t *testing.T, home string) {
		r := newRig(t, kmstest.Options{Home: home, Day: "50ms"})
		kept := newSecret(t, r.Server, "kept")
		objects := objectFiles(t, r.Server)
		for skip := range calls[home] {
			for _, when := range []string{"", " when=after"} {
				rule := fmt.Sprintf("C_DestroyObject kill=1 skip=%d%s", skip, when)
				t.Run(rule, func(t *testing.T) { r.killInDeletion(t, rule, kept, objects) })
			}
		}
	})
}

// killInDeletion has a rule kill the server when it deletes a new key.
func (r *rig) killInDeletion(t *testing.T, rule string, kept secret, objects int) {
	r.requireCalm(t)
	doomed := newSecret(t, r.Server, "doomed") // has a session object
	alias := "alias/" + doomed.key
	_, err := r.Client().CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: &alias, TargetKeyId: &doomed.key})
	require.NoError(t, err)
	r.fault.Set(rule)
	_, err = r.Client().ScheduleKeyDeletion(background, &kms.ScheduleKeyDeletionInput{KeyId: &doomed.key, PendingWindowInDays: aws.Int32(7)})
	killed := r.Wait()
	require.ErrorContains(t, killed, "signal: killed", "%v", err) // on a busy machine, even before it had answered
	r.fault.Clear()
	require.NoError(t, r.Run())
	require.True(t, isGone(t, r.Server, doomed.key))
	r.requireLogged(t, `"msg":"deleted key, nothing of it is left","region":"us-east-1","key":"`+doomed.key, 1)
	require.Empty(t, listAliases(t, r.Client(), nil))
	require.Equal(t, objects, objectFiles(t, r.Server))
	kept.requireOpens(t, r.Server)
	require.NoError(t, r.Kill())
	require.NoError(t, r.Run())
	require.Zero(t, requireStockTaken(t, r.Server))
	kept.requireOpens(t, r.Server)
}

// deathRow is the keys of a round of TestKilledWhileDeleting.
type deathRow struct {
	kept   []secret // nobody wanted them deleted
	doomed []secret
	// saved and perhaps are those whose deletion was cancelled, with an answer and without one.
	saved, perhaps []secret
}

// TestKilledWhileDeleting kills the server at any moment while many keys come to their end and the deletion of others is
// cancelled at the last moment. In the end the token has exactly the keys that were saved, and they work.
func TestKilledWhileDeleting(t *testing.T) {
	const rounds = 6
	eachHome(t, func(t *testing.T, home string) {
		r := newRig(t, kmstest.Options{Home: home, Day: "40ms"})
		empty := objectFiles(t, r.Server)
		seed := rand.Uint64()
		t.Log("seed", seed)
		random := rand.New(rand.NewPCG(seed, 0))
		alive, died, saved := 0, 0, 0
		for range rounds {
			row := &deathRow{}
			row.fill(t, r, random)
			row.run(t, r, random)
			require.NoError(t, r.Run())
			row.await(t, r)
			require.Zero(t, requireStockTaken(t, r.Server))
			alive += len(row.kept) + len(row.saved)
			died, saved = died+len(row.doomed), saved+len(row.saved)
			objects := empty
			if home == kmstest.HomeToken {
				objects += alive
			}
			eventually(t, func() bool { return objectFiles(t, r.Server) == objects }, "the material stays, or too much of it goes")
			require.Len(t, listKeys(t, r.Client()), alive)
			require.Len(t, listAliases(t, r.Client(), nil), alive)
		}
		t.Logf("%d deleted, %d saved", died, saved)
		require.NotZero(t, died)
	})
}

// fill makes keys, each with an alias and a ciphertext.
func (d *deathRow) fill(t *testing.T, r *rig, random *rand.Rand) {
	t.Helper()
	for i := range 24 {
		x := newSecret(t, r.Server, fmt.Sprint("secret ", random.Uint64()))
		alias := "alias/" + x.key
		_, err := r.Client().CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: &alias, TargetKeyId: &x.key})
		require.NoError(t, err)
		if i%6 == 0 {
			d.kept = append(d.kept, x)
		} else {
			d.doomed = append(d.doomed, x)
		}
	}
}

// run schedules the deletions, cancels some, and kills the server when some keys are gone.
func (d *deathRow) run(t *testing.T, r *rig, random *rand.Rand) {
	t.Helper()
	var group sync.WaitGroup
	for _, x := range d.doomed {
		group.Go(func() {
			_, err := r.Client().ScheduleKeyDeletion(t.Context(), &kms.ScheduleKeyDeletionInput{KeyId: &x.key, PendingWindowInDays: aws.Int32(7)})
			if err != nil {
				t.Errorf("scheduling: %v", err)
			}
		})
	}
	group.Wait()
	candidates := d.doomed[:len(d.doomed)/2]
	outcomes := make([]error, len(candidates))
	at := time.Now().Add(280 * time.Millisecond) // about when the first ones end
	for i, x := range candidates {
		delay := time.Until(at) + time.Duration(random.Int64N(int64(60*time.Millisecond))-int64(40*time.Millisecond))
		group.Go(func() {
			time.Sleep(delay) // to hit the moment of the deletion, more or less
			_, outcomes[i] = r.Client().CancelKeyDeletion(background, &kms.CancelKeyDeletionInput{KeyId: &x.key})
		})
	}
	time.Sleep(time.Until(at) + time.Duration(random.Int64N(int64(60*time.Millisecond))))
	require.NoError(t, r.Kill())
	group.Wait()
	d.sort(t, outcomes)
}

// sort takes note of what became of the cancellations.
func (d *deathRow) sort(t *testing.T, outcomes []error) {
	t.Helper()
	doomed := d.doomed[len(outcomes):]
	for i, err := range outcomes {
		x := d.doomed[i]
		switch {
		case err == nil:
			d.saved = append(d.saved, x)
		case strings.Contains(err.Error(), "NotFoundException"):
			doomed = append(doomed, x)
		default: // the server was killed under way
			d.perhaps = append(d.perhaps, x)
		}
	}
	d.doomed = doomed
}

// await waits for the end of what must end, and uses the rest.
func (d *deathRow) await(t *testing.T, r *rig) {
	t.Helper()
	for _, x := range d.perhaps {
		out, err := r.Client().DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &x.key})
		if err == nil && out.KeyMetadata.KeyState == types.KeyStateDisabled {
			d.saved = append(d.saved, x)
		} else {
			d.doomed = append(d.doomed, x)
		}
	}
	for _, x := range d.doomed {
		eventually(t, func() bool { return isGone(t, r.Server, x.key) }, "a key stays")
	}
	for _, x := range d.saved {
		_, err := r.Client().EnableKey(t.Context(), &kms.EnableKeyInput{KeyId: &x.key})
		require.NoError(t, err)
	}
	for _, x := range append(d.kept, d.saved...) {
		x.requireOpens(t, r.Server)
		require.Equal(t, map[string]string{"alias/" + x.key: x.key}, listAliases(t, r.Client(), &x.key))
	}
}

// TestTokenDownAtDeletion has the token fail, or hang, when a key comes to its end. The key is gone, the failure is logged,
// and the material is destroyed when the token is back.
func TestTokenDownAtDeletion(t *testing.T) {
	for name, rule := range map[string]string{
		"device gone": "* rv=0x30", "destruction fails": "C_DestroyObject rv=0x5", "device error": "C_DestroyObject rv=0x30",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, kmstest.Options{Day: "10ms"})
			kept, doomed := newSecret(t, r.Server, "kept"), newSecret(t, r.Server, "doomed")
			requireStockTaken(t, r.Server)
			objects := objectFiles(t, r.Server)
			r.fault.Set(rule)
			schedule(t, r.Server, doomed.key)
			eventually(t, func() bool { return isGone(t, r.Server, doomed.key) }, "the key stays")
			r.requireLogged(t, `"level":"ERROR","msg":"destroying key material"`, 1)
			require.Equal(t, objects, objectFiles(t, r.Server))
			r.fault.Clear()
			eventually(t, func() bool { return objectFiles(t, r.Server) == objects-1 }, "the material stays")
			r.requireReady(t)
			kept.requireOpens(t, r.Server)
			require.True(t, isGone(t, r.Server, doomed.key))
		})
	}
}

// TestDestructionHangs has the token not answer when it is to destroy a key. Other keys are served meanwhile.
func TestDestructionHangs(t *testing.T) {
	r := newRig(t, kmstest.Options{Day: "10ms"})
	kept, doomed := newSecret(t, r.Server, "kept"), newSecret(t, r.Server, "doomed")
	objects := objectFiles(t, r.Server)
	before := r.fault.Calls("C_DestroyObject")
	r.fault.Set("C_DestroyObject hang=1")
	schedule(t, r.Server, doomed.key)
	eventually(t, func() bool { return r.fault.Calls("C_DestroyObject") > before }, "the schedule does not destroy")
	for range 20 {
		kept.requireOpens(t, r.Server)
	}
	require.True(t, isGone(t, r.Server, doomed.key))
	require.Equal(t, objects, objectFiles(t, r.Server))
	r.fault.Clear()
	eventually(t, func() bool { return objectFiles(t, r.Server) == objects-1 }, "the material stays")
	kept.requireOpens(t, r.Server)
}
