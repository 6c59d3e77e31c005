package fault

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"hsmkms/test/kmstest"
)

// veteran is a key that is rotated, with ciphertext of its materials and the ids of those that it was seen to have.
type veteran struct {
	key       string
	secrets   []secret
	materials []string
}

// seal encrypts under the current material. It fails when the server does not answer.
func (v *veteran) seal(client *kms.Client) error {
	text := fmt.Sprintf("%s %d", v.key, len(v.secrets))
	out, err := client.Encrypt(background, &kms.EncryptInput{KeyId: &v.key, Plaintext: []byte(text)})
	if err == nil {
		v.secrets = append(v.secrets, secret{key: v.key, plaintext: text, blob: out.CiphertextBlob})
	}
	return err
}

// verify checks that every ciphertext opens, that the key encrypts, and that it has all materials that it had, in their
// order. Of the others, at most unknown came without being seen.
func (v *veteran) verify(t *testing.T, s *kmstest.Server, unknown int) {
	t.Helper()
	require.NoError(t, v.seal(s.Client()))
	for _, x := range v.secrets {
		x.requireOpens(t, s)
	}
	materials := materialsOf(t, s, v.key)
	require.LessOrEqual(t, len(materials), len(v.materials)+unknown)
	require.GreaterOrEqual(t, len(materials), len(v.materials))
	require.Equal(t, v.materials, materials[:len(v.materials)], "an acknowledged rotation is gone")
	v.materials = materials
}

// materialsOf gives the ids of a key's materials, oldest first. The last of them must be the current one.
func materialsOf(t *testing.T, s *kmstest.Server, key string) (ids []string) {
	t.Helper()
	out, err := s.Client().ListKeyRotations(t.Context(), &kms.ListKeyRotationsInput{
		KeyId: &key, IncludeKeyMaterial: types.IncludeKeyMaterialAllKeyMaterial, Limit: aws.Int32(1000),
	})
	require.NoError(t, err)
	require.False(t, out.Truncated)
	for i, entry := range out.Rotations {
		require.Equal(t, i == len(out.Rotations)-1, entry.KeyMaterialState == types.KeyMaterialStateCurrent)
		ids = append(ids, *entry.KeyMaterialId)
	}
	return ids
}

// newVeteran makes a key with one ciphertext.
func newVeteran(t *testing.T, s *kmstest.Server) *veteran {
	t.Helper()
	v := &veteran{key: s.NewKey(t)}
	v.materials = materialsOf(t, s, v.key)
	require.NoError(t, v.seal(s.Client()))
	return v
}

// rotate rotates on demand and encrypts. It fails when the server does not answer.
func (v *veteran) rotate(client *kms.Client) error {
	if _, err := client.RotateKeyOnDemand(background, &kms.RotateKeyOnDemandInput{KeyId: &v.key}); err != nil {
		return err
	}
	out, err := client.DescribeKey(background, &kms.DescribeKeyInput{KeyId: &v.key})
	if err != nil {
		return err
	}
	v.materials = append(v.materials, *out.KeyMetadata.CurrentKeyMaterialId)
	return v.seal(client)
}

// rotationMurders are, by home, calls of a rotation, and of the first use of what it made, in which the server is killed.
var rotationMurders = map[string][]string{
	kmstest.HomeToken:   {"C_GenerateKey", "C_Encrypt", "C_CopyObject"},
	kmstest.HomeWrapped: {"C_GenerateKey", "C_WrapKey", "C_UnwrapKey", "C_Encrypt"},
}

// TestRotationKilled kills the server at every step of a rotation on demand: the key works as before, it can be rotated, and
// what is left is at most a reported orphan.
func TestRotationKilled(t *testing.T) {
	eachHome(t, func(t *testing.T, home string) {
		r := newRig(t, kmstest.Options{Home: home})
		v := newVeteran(t, r.Server)
		orphans := 0
		for _, call := range rotationMurders[home] {
			for _, rule := range []string{" kill=1", " kill=1 when=after"} {
				r.requireCalm(t)
				r.fault.Set(call + rule)
				require.Error(t, v.rotate(r.Client()), call)
				require.ErrorContains(t, r.Wait(), "signal: killed")
				r.fault.Clear()
				require.NoError(t, r.Run())
				orphans = requireOrphans(t, r.Server, home, orphans)
				v.verify(t, r.Server, 1)
				require.NoError(t, v.rotate(r.Client()))
				v.verify(t, r.Server, 0)
			}
		}
		if home == kmstest.HomeToken {
			require.NotZero(t, orphans, "killed after C_GenerateKey, and no orphan")
		}
	})
}

// requireOrphans checks that there is at most one orphan more than before, and none at all where key material leaves
// nothing on the token.
func requireOrphans(t *testing.T, s *kmstest.Server, home string, before int) int {
	t.Helper()
	orphans, most := requireStockTaken(t, s), before+1
	if home == kmstest.HomeWrapped {
		most = 0
	}
	require.LessOrEqual(t, orphans, most)
	require.GreaterOrEqual(t, orphans, before)
	return orphans
}

// TestAutomaticRotationKilled kills the server again and again, at any moment and when fresh material is not yet in the
// store, while keys are rotated automatically and used. The schedule makes one rotation at a time, so at most one orphan comes with each kill.
func TestAutomaticRotationKilled(t *testing.T) {
	const keys, rounds = 6, 6
	eachHome(t, func(t *testing.T, home string) {
		r := newRig(t, kmstest.Options{Home: home, Day: "3ms"})
		veterans := make([]*veteran, keys)
		for i := range veterans {
			veterans[i] = newVeteran(t, r.Server)
			_, err := r.Client().EnableKeyRotation(t.Context(), &kms.EnableKeyRotationInput{KeyId: &veterans[i].key, RotationPeriodInDays: aws.Int32(90)})
			require.NoError(t, err)
		}
		seed := rand.Uint64()
		t.Log("seed", seed)
		random := rand.New(rand.NewPCG(seed, 0))
		orphans := 0
		for round := range rounds {
			ends := make(chan struct{}, keys)
			for _, v := range veterans {
				client := r.Client()
				go func() { v.useUntilDead(client); ends <- struct{}{} }()
			}
			if round%2 == 1 {
				r.requireCalm(t)
				r.fault.Set(fmt.Sprintf("C_GenerateKey kill=1 when=after skip=%d", random.IntN(keys)))
				require.ErrorContains(t, r.Wait(), "signal: killed")
				r.fault.Clear()
			} else {
				killWhileRotating(t, r, veterans[0], random)
			}
			for range veterans {
				<-ends
			}
			require.NoError(t, r.Run())
			orphans = requireOrphans(t, r.Server, home, orphans)
			for _, v := range veterans {
				v.verify(t, r.Server, 1000)
			}
		}
		t.Logf("%d materials, %d orphans", len(veterans[0].materials), orphans)
		if home == kmstest.HomeToken {
			require.GreaterOrEqual(t, orphans, rounds/2, "killed after C_GenerateKey, and no orphan")
		}
	})
}

// killWhileRotating kills the server some time after a key was rotated, so that it hits any part of the next rotations.
func killWhileRotating(t *testing.T, r *rig, v *veteran, random *rand.Rand) {
	t.Helper()
	rotated := len(materialsOf(t, r.Server, v.key))
	eventually(t, func() bool { return len(materialsOf(t, r.Server, v.key)) > rotated }, "no rotation")
	time.Sleep(time.Duration(random.Int64N(int64(50 * time.Millisecond))))
	require.NoError(t, r.Kill())
}

// useUntilDead encrypts now and then until the server is gone.
func (v *veteran) useUntilDead(client *kms.Client) {
	for v.seal(client) == nil {
		ctx, done := context.WithTimeout(background, 20*time.Millisecond)
		<-ctx.Done()
		done()
	}
}

// TestRotationOfFullToken lets rotations fail for want of room on the token. The keys go on under the material that they
// have; the automatic rotation is made as soon as there is room.
func TestRotationOfFullToken(t *testing.T) {
	eachHome(t, func(t *testing.T, home string) {
		r := newRig(t, kmstest.Options{Home: home, Day: "10ms"})
		demanded, scheduled := newVeteran(t, r.Server), newVeteran(t, r.Server)
		r.fault.Set("C_GenerateKey rv=0x31") // CKR_DEVICE_MEMORY
		_, err := r.Client().EnableKeyRotation(t.Context(), &kms.EnableKeyRotationInput{KeyId: &scheduled.key, RotationPeriodInDays: aws.Int32(90)})
		require.NoError(t, err)
		r.requireLogged(t, `"msg":"doing what is due"`, 1)
		r.Post(t, "RotateKeyOnDemand", body(t, map[string]any{"KeyId": demanded.key})).
			RequireRefusal(t, "LimitExceededException", "The HSM token has no room for another key.")
		demanded.verify(t, r.Server, 0)
		scheduled.verify(t, r.Server, 0)
		r.fault.Clear()
		eventually(t, func() bool { return len(materialsOf(t, r.Server, scheduled.key)) > 1 }, "it is not rotated")
		scheduled.verify(t, r.Server, 1000)
		require.NoError(t, demanded.rotate(r.Client()))
		demanded.verify(t, r.Server, 0)
	})
}

// TestRotationOfLostToken has the token fail altogether when a rotation falls due: it is made when the token is back.
func TestRotationOfLostToken(t *testing.T) {
	eachHome(t, func(t *testing.T, home string) {
		r := newRig(t, kmstest.Options{Home: home, Day: "10ms"})
		v, demanded := newVeteran(t, r.Server), newVeteran(t, r.Server)
		r.fault.Set("* rv=0x32") // CKR_DEVICE_REMOVED
		_, err := r.Client().EnableKeyRotation(t.Context(), &kms.EnableKeyRotationInput{KeyId: &v.key, RotationPeriodInDays: aws.Int32(90)})
		require.NoError(t, err)
		r.requireLogged(t, `"msg":"doing what is due"`, 1)
		r.requireFault(t, r.Post(t, "RotateKeyOnDemand", body(t, map[string]any{"KeyId": demanded.key})), keyUnavailable, "")
		require.Len(t, materialsOf(t, r.Server, v.key), 1)
		r.fault.Clear()
		eventually(t, func() bool { return len(materialsOf(t, r.Server, v.key)) > 1 }, "it is not rotated")
		v.verify(t, r.Server, 1000)
		require.NoError(t, demanded.rotate(r.Client()))
	})
}

// TestRotationOnFullDisk fails to store rotations. The key stays as it was, and no material is left on the token.
func TestRotationOnFullDisk(t *testing.T) {
	for name, size := range map[string]uint64{"store": 8 << 10, "store and token": 0} {
		t.Run(name, func(t *testing.T) {
			eachHome(t, func(t *testing.T, home string) {
				r := &rig{Server: kmstest.Start(t, kmstest.Options{Home: home, NoAudit: true})} // without the fault module, which writes too
				v := newVeteran(t, r.Server)
				requireStockTaken(t, r.Server)
				limitFiles(t, r.Server, size)
				for range 3 {
					r.requireFault(t, r.Post(t, "RotateKeyOnDemand", body(t, map[string]any{"KeyId": v.key})), internalError, "")
					r.requireFault(t, r.Post(t, "EnableKeyRotation", body(t, map[string]any{"KeyId": v.key})), internalError, "")
					v.verify(t, r.Server, 0)
				}
				limitFiles(t, r.Server, unix.RLIM_INFINITY)
				for range 25 { // none of those that failed was counted
					require.NoError(t, v.rotate(r.Client()))
				}
				answer := r.Post(t, "GetKeyRotationStatus", body(t, map[string]any{"KeyId": v.key}))
				require.Equal(t, http.StatusOK, answer.Status)
				require.Equal(t, false, answer.JSON(t)["KeyRotationEnabled"])
				require.NoError(t, r.Stop())
				require.NoError(t, r.Run())
				require.Zero(t, requireStockTaken(t, r.Server), "refused material was left on the token")
				v.verify(t, r.Server, 0)
			})
		})
	}
}
