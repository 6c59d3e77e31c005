package audit

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Signer is the key that signs checkpoints.
type Signer struct {
	// Sign signs a SHA-256 digest with ECDSA P-256 and returns the signature in DER (SEQUENCE of r and s). It must return
	// when ctx ends. It is called by one goroutine at a time.
	Sign func(ctx context.Context, digest []byte) (signature []byte, err error)
	// PublicKey is the key's public half, DER SubjectPublicKeyInfo.
	PublicKey []byte
}

const (
	// signTimeout bounds one signature.
	signTimeout = 10 * time.Second
	// The pauses after signatures that failed.
	shortestPause, longestPause = time.Second, time.Minute
)

// checkpointer signs where the trail stands, beside the writer: a token that is slow holds up no record, and one that is
// down makes checkpoints late.
type checkpointer struct {
	trail  *Trail
	signer Signer
	key    *verifyKey
	due    chan struct{}
	pause  time.Duration // after the last failure; 0 after success
}

func newCheckpointer(t *Trail) (*checkpointer, error) {
	if t.cfg.Signer.Sign == nil {
		return nil, nil
	}
	key, err := newVerifyKey(t.cfg.Signer.PublicKey)
	if err != nil {
		return nil, err
	}
	return &checkpointer{trail: t, signer: t.cfg.Signer, key: key, due: make(chan struct{}, 1)}, nil
}

// wake has a checkpoint made soon.
func (c *checkpointer) wake() {
	select {
	case c.due <- struct{}{}:
	default:
	}
}

func (c *checkpointer) run(ctx context.Context) {
	timer := time.NewTimer(0) // the start is signed at once
	defer timer.Stop()
	for {
		due := c.due
		if c.pause > 0 {
			due = nil // a token that is down is left alone
		}
		select {
		case <-timer.C:
		case <-due:
		case <-ctx.Done():
			return
		}
		timer.Reset(c.try(ctx))
	}
}

// try makes a checkpoint if there is something new, and says when to come again.
func (c *checkpointer) try(ctx context.Context) time.Duration {
	t := c.trail
	t.mu.Lock()
	last, signed, unsigned := t.status.Last, t.status.Signed, t.unsigned
	t.mu.Unlock()
	if unsigned == 0 && signed.Sequence > 0 {
		return t.cfg.CheckpointEvery
	}
	m, err := c.sign(ctx, last)
	if err == nil {
		err = t.enter(ctx, t.marked(m))
	}
	switch {
	case ctx.Err() != nil:
		return longestPause // the last checkpoint is made by the writer
	case err != nil:
		if c.pause == 0 {
			t.cfg.Log.Warn("audit: a checkpoint is late", "cause", err, "unsigned", unsigned)
		}
		c.pause = min(max(2*c.pause, shortestPause), longestPause)
		return c.pause
	}
	if c.pause > 0 {
		t.cfg.Log.Info("audit: checkpoints are signed again")
	}
	c.pause = 0
	t.settle(last, unsigned)
	t.cfg.Log.Debug("audit: checkpoint", "signed", last)
	return t.cfg.CheckpointEvery
}

// settle enters that a checkpoint covers the trail up to a position, and so many records of calls.
func (t *Trail) settle(signed Position, calls uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.status.Signed = signed
	t.unsigned -= calls
}

// sign makes the mark of a checkpoint over a position. The signature is checked: one that nobody could verify is none.
func (c *checkpointer) sign(ctx context.Context, p Position) (*mark, error) {
	ctx, cancel := context.WithTimeout(ctx, signTimeout)
	defer cancel()
	m := &mark{Checkpoint: &checkpointMark{
		Trail: c.trail.id, Sequence: p.Sequence, Hash: p.Hash.String(),
		Time: c.trail.cfg.Clock().UTC().Format(timeFormat), KeyID: c.key.id,
	}}
	digest := sha256.Sum256(m.Checkpoint.statement())
	signature, err := c.signer.Sign(ctx, digest[:])
	if err != nil {
		return nil, fmt.Errorf("signing a checkpoint: %w", err)
	}
	if m.Signature, err = lowS(signature); err != nil {
		return nil, fmt.Errorf("signing a checkpoint: %w", err)
	}
	if !c.key.verifies(m) {
		return nil, errors.New("signing a checkpoint: the signature is not by the public key")
	}
	return m, nil
}

// verifyKey is a public key that checkpoints are verified with.
type verifyKey struct {
	id     string
	public *ecdsa.PublicKey
}

func newVerifyKey(der []byte) (*verifyKey, error) {
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("reading public key of checkpoints: %w", err)
	}
	public, ok := parsed.(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		return nil, errors.New("reading public key of checkpoints: it is not a key on the curve P-256")
	}
	sum := sha256.Sum256(der)
	return &verifyKey{id: hex.EncodeToString(sum[:]), public: public}, nil
}

// verifies tells whether the mark is a checkpoint with this key's signature, in the one form in which it is written.
func (k *verifyKey) verifies(m *mark) bool {
	if m.Checkpoint.KeyID != k.id {
		return false
	}
	low, err := lowS(m.Signature)
	if err != nil || string(low) != string(m.Signature) {
		return false
	}
	digest := sha256.Sum256(m.Checkpoint.statement())
	return ecdsa.VerifyASN1(k.public, digest[:], m.Signature)
}

// lowS gives the one of the two forms of an ECDSA signature whose s is not above half of the order of the group. For
// each signature (r, s), (r, -s) is valid too; a record must have one form only.
func lowS(signature []byte) ([]byte, error) {
	var pair struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(signature, &pair)
	if err != nil {
		return nil, fmt.Errorf("reading a signature: %w", err)
	}
	if len(rest) > 0 {
		return nil, errors.New("reading a signature: there is something behind it")
	}
	order := elliptic.P256().Params().N
	if pair.S.Cmp(new(big.Int).Rsh(order, 1)) > 0 {
		pair.S.Sub(order, pair.S)
	}
	return asn1.Marshal(pair)
}
