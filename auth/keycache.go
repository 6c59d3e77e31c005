package auth

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/sync/singleflight"
)

// signingKey is the key that signs all requests of one access key, day, Region and service.
type signingKey [sha256.Size]byte

// sign gives the signature of text in lower-case hexadecimal.
func (k *signingKey) sign(text []byte) [2 * sha256.Size]byte {
	mac := hmac.New(sha256.New, k[:])
	mac.Write(text)
	var sum [sha256.Size]byte
	var out [2 * sha256.Size]byte
	hex.Encode(out[:], mac.Sum(sum[:0]))
	return out
}

// keyID names a signing key.
type keyID struct {
	accessKeyID string
	version     string
	date        string
	region      string
	service     string
}

// keyCache holds the signing keys used last and derives the ones that it lacks. It never holds a secret access key. A
// key's bytes are wiped when it leaves the cache; get therefore gives copies, made under the lock.
type keyCache struct {
	secret  func(ctx context.Context, accessKeyID string) ([]byte, error)
	timeout time.Duration
	flights singleflight.Group

	mu   sync.Mutex
	keys *simplelru.LRU[keyID, *signingKey]
}

func newKeyCache(config Config) (*keyCache, error) {
	wipe := func(_ keyID, key *signingKey) { clear(key[:]) }
	keys, err := simplelru.NewLRU(config.CacheSize, wipe)
	if err != nil {
		return nil, err
	}
	return &keyCache{secret: config.Secret, timeout: config.SecretTimeout, keys: keys}, nil
}

// get gives a copy of the key, which the caller wipes after use. It waits for the secret when it must, but not beyond
// the end of ctx.
func (c *keyCache) get(ctx context.Context, id keyID) (signingKey, error) {
	for {
		if key, ok := c.cached(id); ok {
			return key, nil
		}
		// Whoever waits reads the cache again afterwards: a key handed over by the flight could not be wiped. Should the
		// key be evicted in between, one more turn brings it back.
		if err := c.fill(ctx, id); err != nil {
			return signingKey{}, err
		}
	}
}

func (c *keyCache) cached(id keyID) (signingKey, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key, ok := c.keys.Get(id)
	if !ok {
		return signingKey{}, false
	}
	return *key, true
}

// fill derives the key and caches it, once for all who ask at the same time. The derivation goes on when the one who
// began it gives up, for the others' sake; its goroutine ends with the call of secret, which has a deadline.
func (c *keyCache) fill(ctx context.Context, id keyID) error {
	done := c.flights.DoChan(fmt.Sprintf("%q", id), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.timeout)
		defer cancel()
		return nil, c.derive(ctx, id)
	})
	select {
	case result := <-done:
		return result.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *keyCache) derive(ctx context.Context, id keyID) error {
	if c.contains(id) { // another flight landed after our look into the cache
		return nil
	}
	secret, err := c.secret(ctx, id.accessKeyID)
	defer clear(secret)
	if err != nil {
		return fmt.Errorf("getting the secret access key: %w", err)
	}
	if len(secret) == 0 { // anyone could sign with it
		return errors.New("the secret access key is empty")
	}
	c.add(id, deriveKey(secret, id.date, id.region, id.service))
	return nil
}

func (c *keyCache) contains(id keyID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keys.Contains(id)
}

// add takes key over. The names are copied, because they may be parts of a whole request header.
func (c *keyCache) add(id keyID, key *signingKey) {
	id = keyID{
		accessKeyID: strings.Clone(id.accessKeyID),
		version:     strings.Clone(id.version),
		date:        strings.Clone(id.date),
		region:      strings.Clone(id.region),
		service:     strings.Clone(id.service),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keys.Add(id, key)
}

// deriveKey makes the signing key of a secret, by the published chain of HMACs, and wipes what it made on the way. (The
// copies inside crypto/hmac are out of reach and left to the garbage collector.)
func deriveKey(secret []byte, date, region, service string) *signingKey {
	const prefix = "AWS4"
	key := make([]byte, len(prefix)+len(secret))
	copy(key[copy(key, prefix):], secret)
	for _, part := range [...]string{date, region, service, terminator} {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		clear(key)
		key = mac.Sum(nil)
	}
	return (*signingKey)(key)
}
