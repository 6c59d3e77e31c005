// Package pkcs11 implements hsm.Token on any PKCS#11 module (Cryptoki 2.40, OASIS).
//
// A Module is the loaded library. It holds Tokens, found by label and serial, never by slot number. A Token does its
// work in an epoch: the span between a login and the next loss of the token. An epoch owns a fixed number of sessions,
// each with one goroutine that runs the operations handed to it, and a cache of the handles of keys, which are worth
// nothing beyond it. Because a call into a module cannot be cancelled, callers wait for a worker and its answer no
// longer than their context allows, and a call that hangs holds up its worker alone.
//
// No session is opened and no object is searched for on the way of a request. Calls that carry plaintext, a caller's
// ciphertext or a PIN go through direct; everything else goes through the miekg binding.
package pkcs11

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// ModuleConfig describes a module.
type ModuleConfig struct {
	// Path of the shared library.
	Path string
	// Observe, if set, is told of every call into the module: its name, the class of its failure ("" for success) and
	// how long it took. C_EncryptInit and C_DecryptInit, which are one crossing with what follows them, are named only when
	// they fail. It is called from many goroutines and must be quick.
	Observe func(function string, class hsm.Class, took time.Duration)
	// Log receives what an operator should know; nil discards it.
	Log *slog.Logger
	// Drain is how long to wait for calls in flight when a token is closed or re-opened; 0 means 10 seconds.
	Drain time.Duration
	// RetryMin and RetryMax bound the pauses between attempts to re-open a lost token; 0 means 1 and 60 seconds.
	RetryMin, RetryMax time.Duration
}

// Module is a loaded and initialised PKCS#11 library. There must be one Module for a library in a process.
type Module struct {
	cfg    ModuleConfig
	ctx    *p11.Ctx
	direct direct

	// mu is held while tokens are opened, re-opened or closed.
	mu     sync.Mutex
	tokens []*Token

	// closed says that the module is finalised for good; guarded by mu.
	closed bool

	lost     chan struct{}
	stop     chan struct{}
	stopOnce sync.Once
	done     chan struct{}
}

// errHanging says that a call has not come back, so that C_Finalize would crash the process.
var errHanging = errors.New("a call into the module does not return; only a restart of the process helps")

// OpenModule loads and initialises the library.
func OpenModule(cfg ModuleConfig) (*Module, error) {
	if cfg.Observe == nil {
		cfg.Observe = func(string, hsm.Class, time.Duration) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Drain = orDefault(cfg.Drain, 10*time.Second)
	cfg.RetryMin = orDefault(cfg.RetryMin, time.Second)
	cfg.RetryMax = orDefault(cfg.RetryMax, time.Minute)
	m := &Module{cfg: cfg, lost: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	if m.ctx = p11.New(cfg.Path); m.ctx == nil {
		return nil, fmt.Errorf("loading PKCS#11 module %s: no such library, or not a PKCS#11 module", cfg.Path)
	}
	var err error
	if m.direct, err = loadDirect(cfg.Path); err != nil {
		m.ctx.Destroy()
		return nil, fmt.Errorf("loading PKCS#11 module: %w", err)
	}
	if err := m.call("C_Initialize", func() error { return m.ctx.Initialize() }); err != nil {
		m.ctx.Destroy()
		return nil, fmt.Errorf("initialising PKCS#11 module %s: %w", cfg.Path, err)
	}
	go m.supervise()
	return m, nil
}

func orDefault(d, fallback time.Duration) time.Duration {
	if d == 0 {
		return fallback
	}
	return d
}

// Close closes every token and finalises the module. If a call hangs, the module is left as it is and an error says so;
// Close may then be called again. The library stays loaded, so that late calls fail instead of crashing.
func (m *Module) Close() error {
	m.stopOnce.Do(func() { close(m.stop) })
	select {
	case <-m.done:
	case <-time.After(m.cfg.Drain):
		return fmt.Errorf("closing PKCS#11 module: %w", errHanging)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	if !m.stopAll() {
		return fmt.Errorf("closing PKCS#11 module: %w", errHanging)
	}
	m.tokens, m.closed = nil, true
	return m.finalize()
}

// finalize calls C_Finalize on a module that may be finalised already. The caller holds mu.
func (m *Module) finalize() error {
	if err := m.call("C_Finalize", m.ctx.Finalize); err != nil && !isCode(err, p11.CKR_CRYPTOKI_NOT_INITIALIZED) {
		return fmt.Errorf("finalising module: %w", err)
	}
	return nil
}

// call runs one function of the miekg binding, translates its error and tells Observe.
func (m *Module) call(function string, f func() error) error {
	start := time.Now()
	err := failed(function, f())
	m.cfg.Observe(function, hsm.ClassOf(err), time.Since(start))
	return err
}

// supervise re-opens lost tokens until the module is closed. It is the only goroutine that does.
func (m *Module) supervise() {
	defer close(m.done)
	for {
		select {
		case <-m.stop:
			return
		case <-m.lost:
			m.recoverAll()
		}
	}
}

// report wakes supervise; a report that is pending already says the same.
func (m *Module) report() {
	select {
	case m.lost <- struct{}{}:
	default:
	}
}

// recoverAll tries until every token is open again: first by a new login, then by a restart of the module, because
// some modules do not heal otherwise (Luna HA, YubiHSM 2, p11-kit remoting).
func (m *Module) recoverAll() {
	for pause := m.cfg.RetryMin; ; pause = min(2*pause, m.cfg.RetryMax) {
		err := m.reopen(false)
		if err != nil {
			err = m.reopen(true)
		}
		if err == nil {
			return
		}
		m.cfg.Log.Error("re-opening token", "error", err, "pause", pause)
		select {
		case <-m.stop:
			return
		case <-time.After(pause):
		}
	}
}

// reopen starts a new epoch for the tokens that are down, or, with restart, for all of them on a module that was
// finalised and initialised.
func (m *Module) reopen(restart bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if restart {
		if err := m.restart(); err != nil {
			return err
		}
	}
	var failures error
	for _, t := range m.tokens {
		if t.epoch.Load() != nil || t.barred != nil {
			continue
		}
		err := t.start()
		if t.barred != nil { // a restart of the module will not help, and would harm the other tokens
			m.cfg.Log.Error("token is out of service", "token", t.cfg.Label, "error", err)
			continue
		}
		if err == nil {
			m.cfg.Log.Info("token re-opened", "token", t.cfg.Label)
		}
		failures = errors.Join(failures, err)
	}
	return failures
}

// restart finalises and initialises the module. The caller holds mu.
func (m *Module) restart() error {
	for _, t := range m.tokens {
		if t.epoch.Load() == nil && !t.shutdown() {
			return errHanging // and so the other tokens are not disturbed for nothing
		}
	}
	if !m.stopAll() {
		return errHanging
	}
	if err := m.finalize(); err != nil {
		return err
	}
	if err := m.call("C_Initialize", func() error { return m.ctx.Initialize() }); err != nil {
		return fmt.Errorf("initialising module: %w", err)
	}
	return nil
}

// stopAll ends the epochs of all tokens and tells whether every call has come back. The caller holds mu.
func (m *Module) stopAll() bool {
	all := true
	for _, t := range m.tokens {
		all = t.shutdown() && all
	}
	return all
}

// TokenInfo describes a token in a slot.
type TokenInfo struct {
	Slot         uint   `json:"slot"`
	Label        string `json:"label"`
	Serial       string `json:"serial"`
	Manufacturer string `json:"manufacturer"`
	Model        string `json:"model"`
	Firmware     string `json:"firmware"`
	Initialized  bool   `json:"initialized"`
	// PINSet tells whether the token has a user PIN, without which nobody can log in.
	PINSet bool `json:"pinSet"`
	// MaxSessions is what the token says; 0 when it says nothing of use.
	MaxSessions int `json:"maxSessions,omitempty"`
}

// Tokens lists the tokens that the module sees.
func (m *Module) Tokens() ([]TokenInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.list()
}

func (m *Module) list() ([]TokenInfo, error) {
	var slots []uint
	if err := m.call("C_GetSlotList", func() (err error) { slots, err = m.ctx.GetSlotList(true); return }); err != nil {
		return nil, fmt.Errorf("listing slots: %w", err)
	}
	infos := make([]TokenInfo, 0, len(slots))
	for _, slot := range slots {
		var i p11.TokenInfo
		if err := m.call("C_GetTokenInfo", func() (err error) { i, err = m.ctx.GetTokenInfo(slot); return }); err != nil {
			continue // a slot whose token went away meanwhile
		}
		infos = append(infos, TokenInfo{
			Slot: slot, Label: i.Label, Serial: i.SerialNumber, Manufacturer: i.ManufacturerID, Model: i.Model,
			Firmware:    fmt.Sprintf("%d.%d", i.FirmwareVersion.Major, i.FirmwareVersion.Minor),
			Initialized: i.Flags&p11.CKF_TOKEN_INITIALIZED != 0, PINSet: i.Flags&p11.CKF_USER_PIN_INITIALIZED != 0, MaxSessions: sessionLimit(i),
		})
	}
	return infos, nil
}

// sessionLimit reads ulMaxRwSessionCount, a hint at best: 0 is CK_EFFECTIVELY_INFINITE, the largest values are
// CK_UNAVAILABLE_INFORMATION and what some modules make of it.
func sessionLimit(i p11.TokenInfo) int {
	if i.MaxRwSessionCount > 1<<20 {
		return 0
	}
	return int(i.MaxRwSessionCount)
}

// find gives the one initialised token with the label and, if set, the serial.
func (m *Module) find(label, serial string) (TokenInfo, error) {
	infos, err := m.list()
	if err != nil {
		return TokenInfo{}, err
	}
	infos = slices.DeleteFunc(infos, func(i TokenInfo) bool {
		return !i.Initialized || i.Label != label || serial != "" && i.Serial != serial
	})
	if len(infos) > 1 { // one without a PIN is a remainder, see InitToken
		infos = slices.DeleteFunc(infos, func(i TokenInfo) bool { return !i.PINSet })
	}
	switch len(infos) {
	case 0:
		return TokenInfo{}, &hsm.Error{Class: hsm.TokenGone, Cause: fmt.Errorf("no token with label %q and serial %q", label, serial)}
	case 1:
		return infos[0], nil
	default:
		return TokenInfo{}, fmt.Errorf("%d tokens have the label %q: name the serial too", len(infos), label)
	}
}

// InitToken initialises the first uninitialised token of the module with a label that no other has, an SO PIN and a user
// PIN (C_InitToken, C_InitPIN). A token that a process which died in between left without a user PIN gets one. It is for
// development tokens; the caller wipes the PINs.
func (m *Module) InitToken(label string, soPIN, userPIN []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	infos, err := m.list()
	if err != nil {
		return err
	}
	done, err := m.finishToken(infos, label, soPIN, userPIN)
	if err != nil || done {
		return err
	}
	free := slices.IndexFunc(infos, func(i TokenInfo) bool { return !i.Initialized })
	if free < 0 {
		return errors.New("no uninitialised token in any slot")
	}
	slot := infos[free].Slot
	if err := m.call("C_InitToken", func() error { return m.ctx.InitToken(slot, string(soPIN), label) }); err != nil {
		return fmt.Errorf("initialising token: %w", err)
	}
	now, err := m.list()
	if err != nil {
		return err
	}
	// SoftHSM moves a new token to another slot and gives it its serial only then.
	made := slices.IndexFunc(now, func(i TokenInfo) bool {
		return i.Initialized && i.Label == label &&
			!slices.ContainsFunc(infos, func(old TokenInfo) bool { return old.Initialized && old.Serial == i.Serial })
	})
	if made < 0 {
		return errors.New("initialising token: it cannot be found now")
	}
	return m.initPIN(now[made].Slot, soPIN, userPIN)
}

// finishToken gives a token of the label that has no user PIN one, and tells whether there was such a token. One whose SO
// PIN is not ours is a remainder without use, and another token may be made beside it.
func (m *Module) finishToken(infos []TokenInfo, label string, soPIN, userPIN []byte) (bool, error) {
	infos = slices.DeleteFunc(slices.Clone(infos), func(i TokenInfo) bool { return !i.Initialized || i.Label != label })
	if slices.ContainsFunc(infos, func(i TokenInfo) bool { return i.PINSet }) {
		return false, fmt.Errorf("a token with the label %q exists already", label) // two could not be told apart
	}
	for _, info := range infos {
		err := m.initPIN(info.Slot, soPIN, userPIN)
		var refused *hsm.Error
		if errors.As(err, &refused) && refused.Function == "C_Login" && refused.Class == hsm.LoginFailed {
			continue
		}
		return true, err
	}
	return false, nil
}

func (m *Module) initPIN(slot uint, soPIN, userPIN []byte) error {
	s, err := m.openSession(slot)
	if err != nil {
		return err
	}
	defer s.close()
	start := time.Now()
	if err := s.observe("C_Login", m.direct.login(s.handle, p11.CKU_SO, soPIN), start); err != nil {
		return fmt.Errorf("logging in as security officer: %w", err)
	}
	if err := m.call("C_InitPIN", func() error { return m.ctx.InitPIN(s.handle, string(userPIN)) }); err != nil {
		return fmt.Errorf("setting user PIN: %w", err)
	}
	return m.call("C_Logout", func() error { return m.ctx.Logout(s.handle) })
}
