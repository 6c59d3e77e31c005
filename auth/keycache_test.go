package auth

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var testKeyName = keyID{accessKeyID: testKeyID, version: "1", date: "20260101", region: testRegion, service: "kms"}

// countingCache counts the calls of Secret.
func countingCache(t *testing.T, size int) (*keyCache, *atomic.Int32) {
	t.Helper()
	var calls atomic.Int32
	config := testConfig()
	config.CacheSize = size
	config.SecretTimeout = time.Minute
	config.Secret = func(context.Context, string) ([]byte, error) {
		calls.Add(1)
		return []byte(testSecret), nil
	}
	cache, err := newKeyCache(config)
	require.NoError(t, err)
	return cache, &calls
}

func TestKeyCacheAsksOnceForEachName(t *testing.T) {
	cache, calls := countingCache(t, 10)
	names := []keyID{testKeyName, testKeyName, testKeyName, testKeyName, testKeyName}
	names[1].accessKeyID = "AKIDOTHER"
	names[2].version = "2"
	names[3].date = "20260102"
	names[4].region = "eu-west-1"
	for range 3 {
		for _, name := range names {
			key, err := cache.get(t.Context(), name)
			require.NoError(t, err)
			require.Equal(t, *deriveKey([]byte(testSecret), name.date, name.region, "kms"), key)
		}
	}
	require.EqualValues(t, len(names), calls.Load())
}

func TestKeyCacheWipesWhatItEvicts(t *testing.T) {
	cache, calls := countingCache(t, 1)
	copied, err := cache.get(t.Context(), testKeyName)
	require.NoError(t, err)
	held, ok := cache.keys.Get(testKeyName)
	require.True(t, ok)
	require.Equal(t, copied, *held)

	other := testKeyName
	other.date = "20260102"
	_, err = cache.get(t.Context(), other)
	require.NoError(t, err)
	require.Zero(t, *held)
	require.NotZero(t, copied, "a copy belongs to the one who asked")
	require.Equal(t, 1, cache.keys.Len())

	_, err = cache.get(t.Context(), testKeyName)
	require.NoError(t, err)
	require.EqualValues(t, 3, calls.Load())
}

// TestKeyCacheUnderEviction has users of keys that others evict all the time.
func TestKeyCacheUnderEviction(t *testing.T) {
	cache, _ := countingCache(t, 1)
	var wait sync.WaitGroup
	for i := range 8 {
		name := testKeyName
		name.date = []string{"20260101", "20260102", "20260103"}[i%3]
		want := *deriveKey([]byte(testSecret), name.date, name.region, "kms")
		wait.Go(func() {
			for range 200 {
				key, err := cache.get(t.Context(), name)
				if err != nil || key != want {
					t.Errorf("key %x, error %v", key, err)
					return
				}
			}
		})
	}
	wait.Wait()
}

func TestSecretIsWiped(t *testing.T) {
	for name, failure := range map[string]error{"success": nil, "failure": errors.New("no")} {
		t.Run(name, func(t *testing.T) {
			secret := []byte(testSecret)
			config := testConfig()
			config.Secret = func(context.Context, string) ([]byte, error) { return secret, failure }
			_, err := newVerifier(t, config).keys.get(t.Context(), testKeyName)
			require.ErrorIs(t, err, failure)
			require.Equal(t, make([]byte, len(testSecret)), secret)
		})
	}
}

func TestFailureIsNotCached(t *testing.T) {
	failure := errors.New("the token is busy")
	config := testConfig()
	config.Secret = func(context.Context, string) ([]byte, error) { return []byte(testSecret), failure }
	v := newVerifier(t, config)
	_, err := v.keys.get(t.Context(), testKeyName)
	require.ErrorIs(t, err, failure)
	failure = nil
	_, err = v.keys.get(t.Context(), testKeyName)
	require.NoError(t, err)
}

// TestConcurrentMissesAskOnce holds the one call of Secret until all have begun to wait.
func TestConcurrentMissesAskOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache, calls := countingCache(t, 10)
		release := make(chan struct{})
		answer := cache.secret
		cache.secret = func(ctx context.Context, id string) ([]byte, error) {
			<-release
			return answer(ctx, id)
		}
		var done atomic.Int32
		for range 20 {
			go func() {
				if _, err := cache.get(t.Context(), testKeyName); err == nil {
					done.Add(1)
				}
			}()
		}
		synctest.Wait()
		require.Zero(t, done.Load())
		close(release)
		synctest.Wait()
		require.EqualValues(t, 20, done.Load())
		require.EqualValues(t, 1, calls.Load())
	})
}

// TestLateMissAsksNotAgain is the one who missed, but came to the flight after it had landed.
func TestLateMissAsksNotAgain(t *testing.T) {
	cache, calls := countingCache(t, 10)
	require.NoError(t, cache.fill(t.Context(), testKeyName))
	require.NoError(t, cache.fill(t.Context(), testKeyName))
	require.EqualValues(t, 1, calls.Load())
}

// TestCancelledCallerFailsAlone cancels the request that began the call of Secret.
func TestCancelledCallerFailsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache, calls := countingCache(t, 10)
		release := make(chan struct{})
		answer := cache.secret
		cache.secret = func(ctx context.Context, id string) ([]byte, error) {
			<-release
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return answer(ctx, id)
		}
		first, cancel := context.WithCancel(t.Context())
		var firstErr, secondErr error
		go func() { _, firstErr = cache.get(first, testKeyName) }()
		synctest.Wait()
		secondErr = errors.New("not done")
		go func() { _, secondErr = cache.get(t.Context(), testKeyName) }()
		synctest.Wait()

		cancel()
		synctest.Wait()
		require.ErrorIs(t, firstErr, context.Canceled)
		close(release)
		synctest.Wait()
		require.NoError(t, secondErr)
		require.EqualValues(t, 1, calls.Load())
	})
}

func TestSecretHasADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := testConfig()
		config.Secret = func(ctx context.Context, _ string) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		start := time.Now()
		_, err := newVerifier(t, config).keys.get(t.Context(), testKeyName)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, defaultSecretTimeout, time.Since(start))
	})
}

// TestNewSecretReplacesTheOld changes the secret of an access key whose signing key is cached.
func TestNewSecretReplacesTheOld(t *testing.T) {
	credential, secret := Credential{Caller: testPrincipal, Version: "1"}, testSecret
	config := testConfig()
	config.Credential = func(context.Context, string) (Credential, bool, error) { return credential, true, nil }
	config.Secret = func(context.Context, string) ([]byte, error) { return []byte(secret), nil }
	v := newVerifier(t, config)
	verify := func(with string) error {
		r := newRequest(t, testBody)
		signing{secret: with}.sign(t, r, []byte(testBody))
		_, err := v.Verify(t.Context(), r, []byte(testBody), testServices)
		return err
	}
	require.NoError(t, verify(testSecret))
	credential.Version, secret = "2", "new"
	requireError(t, verify(testSecret), invalidSignatureException, mismatchText)
	require.NoError(t, verify("new"))
}
