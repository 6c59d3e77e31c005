package pkcs11

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"sync"
	"time"

	"hsmkms/hsm"
)

// Measurement is how fast one operation of a token is.
type Measurement struct {
	// Operation is a method of hsm.Token.
	Operation string `json:"operation"`
	Workers   int    `json:"workers"`
	// Operations is how many were done.
	Operations int `json:"operations"`
	// PerSecond is the rate of all workers together.
	PerSecond float64 `json:"perSecond"`
	// P50 and P99 are the times that half and 99 of 100 operations took at most, waiting for a session included. They
	// are rounded up by less than 1/16.
	P50 time.Duration `json:"p50Nanoseconds"`
	P99 time.Duration `json:"p99Nanoseconds"`
}

// benchPlaintext is the size of the plaintexts, in bytes: data keys are of this size or half of it.
const benchPlaintext = 64

// cleanupTime bounds the making and the removal of the throw-away key, which go on when the caller's context has ended.
const cleanupTime = 30 * time.Second

// Measure times Encrypt, Decrypt and ReEncrypt of 64 bytes and Random of 32 bytes, for d each, with that many goroutines at
// a time. It works like a server: with a persistent key, which it makes and destroys. Should that fail, the error names
// the label of the key. It ends early, with an error, when ctx ends or an operation fails.
func (t *Token) Measure(ctx context.Context, d time.Duration, workers int) (_ []Measurement, err error) {
	if d <= 0 || workers < 1 {
		return nil, errors.New("measuring needs a duration and at least one worker")
	}
	var suffix [8]byte
	if _, err := io.ReadFull(t.cfg.Rand, suffix[:]); err != nil {
		return nil, fmt.Errorf("naming the throw-away key: %w", err)
	}
	label := "bench/" + hex.EncodeToString(suffix[:])
	defer func() { err = errors.Join(err, t.cleanUp(ctx, label)) }()
	key, err := t.throwAway(ctx, label)
	if err != nil {
		return nil, err
	}
	return t.measure(ctx, key, d, workers)
}

// throwAway makes a key. Giving up halfway would leave a key behind of which nobody knows, so it does not end with ctx.
func (t *Token) throwAway(ctx context.Context, label string) (hsm.KeyRef, error) {
	if err := ctx.Err(); err != nil {
		return hsm.KeyRef{}, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	key, err := t.GenerateKey(ctx, hsm.KeyRequest{Kind: hsm.AES256, Label: label})
	if err != nil {
		return hsm.KeyRef{}, fmt.Errorf("making a throw-away key: %w", err)
	}
	return key, nil
}

// cleanUp destroys the objects with a label, for GenerateKey may fail and leave one. It waits for a lost token.
func (t *Token) cleanUp(ctx context.Context, label string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	for {
		err := t.destroyLabelled(ctx, label)
		if hsm.ClassOf(err) != hsm.TokenGone {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (t *Token) destroyLabelled(ctx context.Context, label string) error {
	objects, err := t.Objects(ctx)
	if err != nil {
		return fmt.Errorf("looking for the throw-away key %q: %w", label, err)
	}
	for _, o := range objects {
		if o.Label != label {
			continue
		}
		if err := t.DestroyKey(ctx, hsm.KeyRef{ID: o.ID, Kind: hsm.AES256}); err != nil {
			return fmt.Errorf("destroying the throw-away key %q: %w", label, err)
		}
	}
	return nil
}

// operation is one thing to measure.
type operation struct {
	name string
	run  func(ctx context.Context) error
}

func (t *Token) operations(ctx context.Context, key hsm.KeyRef) ([]operation, error) {
	s, plaintext := hsm.Sealing{Key: key}, make([]byte, benchPlaintext)
	sealed, err := t.Encrypt(ctx, s, plaintext)
	if err != nil {
		return nil, err
	}
	o := hsm.Opening{Key: key, Sealed: sealed}
	return []operation{
		{"Encrypt", func(ctx context.Context) error { _, err := t.Encrypt(ctx, s, plaintext); return err }},
		{"Decrypt", func(ctx context.Context) error { _, err := t.Decrypt(ctx, o); return err }},
		{"ReEncrypt", func(ctx context.Context) error { _, err := t.ReEncrypt(ctx, o, s); return err }},
		{"Random", func(ctx context.Context) error { return t.Random(ctx, make([]byte, 32)) }},
	}, nil
}

func (t *Token) measure(ctx context.Context, key hsm.KeyRef, d time.Duration, workers int) ([]Measurement, error) {
	operations, err := t.operations(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("trying the throw-away key: %w", err)
	}
	var all []Measurement
	for _, o := range operations {
		m, err := o.measure(ctx, d, workers)
		if err != nil {
			return nil, fmt.Errorf("measuring %s: %w", o.name, err)
		}
		all = append(all, m)
	}
	return all, nil
}

// measure runs the operation on all workers until d is over.
func (o operation) measure(ctx context.Context, d time.Duration, workers int) (Measurement, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	times := make([]histogram, workers)
	var wait sync.WaitGroup
	start := time.Now()
	for i := range times {
		wait.Go(func() {
			if err := o.repeat(ctx, &times[i], start.Add(d)); err != nil {
				cancel(err) // the first one stands
			}
		})
	}
	wait.Wait()
	took := time.Since(start)
	if err := context.Cause(ctx); err != nil {
		return Measurement{}, err
	}
	for i := range times[1:] {
		times[0].add(&times[1+i])
	}
	sum := &times[0]
	return Measurement{
		Operation: o.name, Workers: workers, Operations: sum.count, PerSecond: float64(sum.count) / took.Seconds(),
		P50: sum.quantile(0.50), P99: sum.quantile(0.99),
	}, nil
}

// repeat runs the operation, at least once, until the time is over or it fails.
func (o operation) repeat(ctx context.Context, times *histogram, end time.Time) error {
	for {
		start := time.Now()
		if err := o.run(ctx); err != nil {
			return err
		}
		now := time.Now()
		times.record(now.Sub(start))
		if now.After(end) {
			return nil
		}
	}
}

// histogram counts durations in buckets that are at most 1/16 wider than what they hold, so a long measurement takes no
// more memory than a short one.
type histogram struct {
	count   int
	buckets [64 * 16]int
}

func (h *histogram) record(d time.Duration) {
	h.count++
	h.buckets[bucketOf(d)]++
}

// bucketOf numbers the buckets by the highest bit of d and the four bits after it.
func bucketOf(d time.Duration) int {
	n := uint64(max(d, 0))
	if n < 16 {
		return int(n)
	}
	shift := bits.Len64(n) - 5
	return (shift+1)*16 + int(n>>shift&15)
}

// limitOf is the largest duration in a bucket.
func limitOf(bucket int) time.Duration {
	if bucket < 16 {
		return time.Duration(bucket)
	}
	shift := bucket/16 - 1
	return time.Duration(uint64(bucket%16+17)<<shift - 1)
}

func (h *histogram) add(other *histogram) {
	h.count += other.count
	for i, n := range other.buckets {
		h.buckets[i] += n
	}
}

// quantile gives the time that the fraction q of the operations took at most.
func (h *histogram) quantile(q float64) time.Duration {
	left := int(q * float64(h.count))
	for i, n := range h.buckets {
		if left -= n; left < 0 {
			return limitOf(i)
		}
	}
	return limitOf(len(h.buckets) - 1)
}
