package contract

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm/hsmtest"
	"hsmkms/hsm/pkcs11"
	"hsmkms/kms"
	"hsmkms/policy"
	"hsmkms/store/bolt"
	"hsmkms/test/kmstest"
)

// twin is one of two services in this process, on one store and one token: what two servers of a cluster are.
type twin struct {
	*kms.Service
	t *testing.T
}

// clock is a time that stands still until it is told otherwise.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) sleep(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// newTwins makes two services on a new store and a new SoftHSM token.
func newTwins(t *testing.T, home string, c *clock) (twins [2]twin) {
	t.Helper()
	soft := hsmtest.New(t)
	soft.Token(t, "twins")
	module, err := pkcs11.OpenModule(pkcs11.ModuleConfig{Path: soft.Module})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, module.Close()) })
	profile, err := pkcs11.LookupProfile("softhsm")
	require.NoError(t, err)
	pin := func() ([]byte, error) { return []byte(hsmtest.PIN), nil }
	token, err := module.OpenToken(pkcs11.TokenConfig{Label: "twins", PIN: pin, Profile: profile})
	require.NoError(t, err)
	st, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "store.db")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	region := kms.Region{Token: token}
	if home == kmstest.HomeWrapped {
		require.NoError(t, kms.InitDomain(t.Context(), st, kmstest.Region, token))
		region.WrapUnder, err = kms.Domain(t.Context(), st, kmstest.Region)
		require.NoError(t, err)
	}
	for i := range twins {
		s, err := kms.New(kms.Config{Store: st, Regions: map[string]kms.Region{kmstest.Region: region}, Clock: c.Now})
		require.NoError(t, err)
		t.Cleanup(s.Close)
		twins[i] = twin{s, t}
	}
	return twins
}

// request is a request of the root user.
func (w twin) request(operation string) *kms.Request {
	caller := &policy.Caller{Principal: policy.Principal{Type: policy.Root, ARN: "arn:aws:iam::" + kmstest.Account + ":root", Account: kmstest.Account}}
	return &kms.Request{Operation: operation, Region: kmstest.Region, Caller: caller}
}

// newRotating makes a key that is rotated automatically after 365 days.
func (w twin) newRotating() string {
	w.t.Helper()
	out, err := w.CreateKey(w.t.Context(), w.request("CreateKey"), &kms.CreateKeyInput{})
	require.NoError(w.t, err)
	id := out.KeyMetadata.KeyId
	_, err = w.EnableKeyRotation(w.t.Context(), w.request("EnableKeyRotation"), &kms.EnableKeyRotationInput{KeyId: id})
	require.NoError(w.t, err)
	return id
}

// rotations tells how often a key was rotated.
func (w twin) rotations(id string) int {
	w.t.Helper()
	out, err := w.ListKeyRotations(w.t.Context(), w.request("ListKeyRotations"), &kms.ListKeyRotationsInput{KeyId: id})
	require.NoError(w.t, err)
	return len(out.Rotations)
}

// TestRotationByTwoServers has two servers do what is due at the same moment, again and again: each rotation is made once,
// and nothing is left on the token.
func TestRotationByTwoServers(t *testing.T) {
	const keys, periods = 10, 4
	for home := range servers {
		t.Run(home, func(t *testing.T) {
			c := &clock{now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
			twins := newTwins(t, home, c)
			ids := make([]string, keys)
			for i := range ids {
				ids[i] = twins[i%2].newRotating()
			}
			stop := runTwins(t, twins)
			for period := range periods {
				c.sleep(365 * 24 * time.Hour)
				twins[period%2].newRotating() // a change of the schedule, on which both look at the time
				require.Eventually(t, func() bool {
					for _, id := range ids {
						if twins[0].rotations(id) <= period {
							return false
						}
					}
					return true
				}, waitLimit, waitStep)
			}
			stop()
			for _, id := range ids {
				require.Equal(t, periods, twins[0].rotations(id))
			}
			found, err := twins[1].Stocktake(t.Context(), kmstest.Region)
			require.NoError(t, err)
			require.Empty(t, found.Orphans)
			require.Empty(t, found.Missing)
		})
	}
}

// runTwins runs both services. The function that it gives ends them, and waits for their end.
func runTwins(t *testing.T, twins [2]twin) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	for _, w := range twins {
		running.Go(func() { w.Run(ctx) })
	}
	stop = func() { cancel(); running.Wait() }
	t.Cleanup(stop)
	return stop
}
