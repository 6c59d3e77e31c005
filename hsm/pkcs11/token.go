package pkcs11

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"hsmkms/hsm"
)

var (
	errEmptyPIN = errors.New("the PIN is empty")
	errDown     = &hsm.Error{Class: hsm.TokenGone, Cause: errors.New("the token is being re-opened")}
)

// TokenConfig describes a token.
type TokenConfig struct {
	// Label and, when several tokens carry it, Serial name the token.
	Label, Serial string
	// PIN reads the user PIN. It is called at every login; the slice is wiped after use.
	PIN func() ([]byte, error)
	// Profile holds the settings of the make; see LookupProfile.
	Profile Profile
	// Rand is the source of IVs in the mode IVCaller and of key names; nil means crypto/rand.
	Rand io.Reader
	// StrictOnToken refuses the route hsm.InProcess, on which the process sees imported key material or plaintexts that it need
	// not see, and key pairs that are not made by the token.
	StrictOnToken bool
}

// Token is an hsm.Token on a PKCS#11 token.
type Token struct {
	m   *Module
	cfg TokenConfig
	// epoch is nil while the token is down.
	epoch atomic.Pointer[epoch]
	// last is the epoch that shutdown has to wait for; guarded by Module.mu.
	last *epoch
	// barred is set for good when the token refused the PIN: trying again could lock it. Guarded by Module.mu.
	barred error
	// refusal is what callers are told of it.
	refusal atomic.Pointer[hsm.Error]
	// ways is what the token was seen to do with imported material; nil until somebody asks.
	ways       atomic.Pointer[ways]
	wayfinding singleflight.Group
	// abilities is what the token was seen to do with keys, by kind.
	abilities memo[ability]
	// dataWays holds, by hsm.KeyKind, the index of the way in which key pairs for use outside of the token are made.
	dataWays sync.Map
}

var _ hsm.Token = (*Token)(nil)

// OpenToken finds the token, logs in, indexes its objects and opens its sessions.
func (m *Module) OpenToken(cfg TokenConfig) (*Token, error) {
	cfg.Profile = cfg.Profile.complete()
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := &Token{m: m, cfg: cfg}
	if err := t.start(); err != nil {
		return nil, fmt.Errorf("opening token %q: %w", cfg.Label, err)
	}
	m.tokens = append(m.tokens, t)
	return t, nil
}

// start begins an epoch. The caller holds Module.mu.
func (t *Token) start() error {
	if t.barred != nil {
		return t.barred
	}
	if t.last != nil && !t.shutdown() {
		return errHanging
	}
	info, err := t.m.find(t.cfg.Label, t.cfg.Serial)
	if err != nil {
		return err
	}
	e := &epoch{token: t, jobs: make(chan job), slow: make(chan job), pairs: make(chan struct{}, 1), stop: make(chan struct{})}
	anchor, err := t.m.openSession(info.Slot)
	if err != nil {
		return err
	}
	if err := t.logIn(anchor); err != nil {
		anchor.close()
		return err
	}
	e.keys = newKeys(t, anchor)
	if err := e.keys.index(); err != nil {
		anchor.close()
		return err
	}
	if err := e.open(info); err != nil {
		close(e.stop)
		e.workers.Wait()
		anchor.close()
		return err
	}
	t.last = e
	t.epoch.Store(e)
	return nil
}

// outage tells why the token is down.
func (t *Token) outage() error {
	if refusal := t.refusal.Load(); refusal != nil {
		return refusal
	}
	return errDown
}

func (t *Token) logIn(s *session) error {
	err := s.login(t.cfg.PIN)
	if hsm.ClassOf(err) == hsm.LoginFailed {
		t.barred = fmt.Errorf("logging in (not tried again, for the token may lock the PIN): %w", err)
		t.refusal.Store(&hsm.Error{Class: hsm.LoginFailed, Cause: t.barred})
		return t.barred
	}
	if err != nil {
		return fmt.Errorf("logging in: %w", err)
	}
	return nil
}

// open opens the workers' sessions: as many as the profile says, or as the token has room for, and one for slow work.
func (e *epoch) open(info TokenInfo) error {
	wanted := e.token.cfg.Profile.Sessions
	if info.MaxSessions > 0 {
		wanted = min(wanted, max(1, info.MaxSessions-2)) // the others are the anchor and the slow lane's
	}
	for n := range wanted {
		err := e.hire(info.Slot, e.jobs)
		if err != nil && n > 0 && hsm.ClassOf(err) == hsm.Busy {
			e.token.m.cfg.Log.Warn("token has fewer sessions than wanted", "wanted", wanted, "opened", n)
			break
		}
		if err != nil {
			return err
		}
	}
	err := e.hire(info.Slot, e.slow)
	if hsm.ClassOf(err) == hsm.Busy {
		e.slow = e.jobs
		return nil
	}
	return err
}

// hire opens a session and starts its worker.
func (e *epoch) hire(slot uint, lane <-chan job) error {
	s, err := e.token.m.openSession(slot)
	if err != nil {
		return err
	}
	if err := s.allocScratch(); err != nil {
		s.close()
		return err
	}
	s.keys = e.keys
	e.sessions++
	e.workers.Add(1)
	go e.work(s, lane)
	return nil
}

// shutdown ends the current epoch, waits for the calls in flight and tells whether all came back. The caller holds
// Module.mu.
func (t *Token) shutdown() bool {
	if e := t.epoch.Swap(nil); e != nil {
		close(e.stop)
	}
	last := t.last
	if last == nil {
		return true
	}
	idle := make(chan struct{})
	go func() { last.workers.Wait(); close(idle) }() // ends when the calls do
	select {
	case <-idle:
		last.keys.anchor.close()
		t.last = nil
		return true
	case <-time.After(t.m.cfg.Drain):
		return false
	}
}

// Random implements hsm.Token.
func (t *Token) Random(ctx context.Context, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	_, err := do(ctx, t, &task[struct{}]{f: func(s *session) (struct{}, error) { return struct{}{}, s.random(b) }})
	return err
}

// Check implements hsm.Token.
func (t *Token) Check(ctx context.Context) error {
	_, err := do(ctx, t, &task[struct{}]{f: func(s *session) (struct{}, error) { return struct{}{}, s.check() }})
	return err
}

// Objects implements hsm.Token.
func (t *Token) Objects(ctx context.Context) ([]hsm.Object, error) {
	return do(ctx, t, &task[[]hsm.Object]{slow: true, f: func(s *session) ([]hsm.Object, error) { return s.keys.list(s) }})
}
