package pkcs11

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// Scope says how much of a token Probe looks at.
type Scope string

// The scopes.
const (
	// ProbeAll tries everything. It makes RSA keys of up to 4096 bits, which takes seconds on SoftHSM and may take
	// minutes on a small HSM.
	ProbeAll Scope = "all"
	// ProbeAES tries only what SYMMETRIC_DEFAULT keys and the wrapping of them need. It takes milliseconds.
	ProbeAES Scope = "aes"
)

// Capabilities is what a token was seen to do, not what its mechanism list says.
type Capabilities struct {
	Token  TokenInfo `json:"token"`
	Limits Limits    `json:"limits"`
	// Scope bounds Checks and KeySpecs: what lies outside of it is not mentioned there.
	Scope Scope `json:"scope"`
	GCM   GCM   `json:"gcm"`
	// Copy tells whether C_CopyObject makes a working copy of a key.
	Copy bool `json:"copyObject"`
	// Wraps has one entry for each mechanism that wraps keys with an AES key.
	Wraps []Wrap `json:"wraps"`
	// KeySpecs has an entry for every KeySpec of the AWS API that is in the scope. It tells what the token itself could
	// carry: the server serves SYMMETRIC_DEFAULT alone today.
	KeySpecs []KeySpec `json:"keySpecs"`
	// Checks are all results, in the order in which they were found.
	Checks []Check `json:"checks"`
}

// GCM is how the token does AES-GCM.
type GCM struct {
	// IV is the mode to set in the Profile; empty if none works.
	IV IVMode `json:"ivMode,omitempty"`
	// Forged is what the token answers to a ciphertext with another tag, such as "C_Decrypt 0x40".
	Forged string `json:"forged,omitempty"`
	// MaxPlaintext is the largest plaintext that it encrypts and decrypts, in bytes; hsm.MaxPlaintext is the largest tried.
	MaxPlaintext int `json:"maxPlaintext"`
}

// Wrap is one mechanism for wrapping keys.
type Wrap struct {
	// Mechanism is its PKCS#11 name.
	Mechanism string `json:"mechanism"`
	// Bytes is the length of a wrapped 32-byte AES key; 0 if the mechanism does not wrap one.
	Bytes int `json:"bytes,omitempty"`
	// Format tells what the mechanism does, which its name does not: hsm.WrapKWP, hsm.WrapPKCS7 or "AES-KW", which is AES
	// Key Wrap without padding, RFC 3394.
	Format hsm.WrapFormat `json:"format,omitempty"`
	// Kinds are the kinds of keys that it wraps and unwraps into the same key, named as their KeySpec, or GENERIC_SECRET.
	Kinds []string `json:"kinds,omitempty"`
}

// KeySpec is a type of keys of the AWS API.
type KeySpec struct {
	Name string `json:"keySpec"`
	// Algorithms are the algorithms of the AWS API that the token itself carries out for such a key; empty if it cannot
	// carry the key.
	Algorithms []string `json:"algorithms"`
}

// Check is the result of one self-test.
type Check struct {
	// Key is the KeySpec of the throw-away key that was tried, or AES_256_WRAP for a wrapping key.
	Key string `json:"key"`
	// Name of what was tried: an algorithm of the AWS API, or plain words.
	Name string `json:"name"`
	// Works is true when the token did it and the result proved right.
	Works bool `json:"works"`
	// Detail is a remark or, on a failure, the function and its return code, such as "C_SignInit 0x70".
	Detail string `json:"detail,omitempty"`
}

// check is one self-test. It gives a remark, or the reason why the token does not have the capability.
type check func(p *prober) (string, error)

// step is a named check.
type step struct {
	name string
	run  check
}

// group is the checks of one throw-away key.
type group struct {
	// key names the key in Check.Key.
	key string
	// generate makes the key. Without it, no other check of the group is run.
	generate check
	// extras are checks that no algorithm of the AWS API stands for.
	extras []step
	// algorithms are checks named as the algorithm of the AWS API that they prove; nil if key is no KeySpec.
	algorithms []step
}

// prober probes one token.
type prober struct {
	ctx  context.Context
	m    *Module
	rand io.Reader
	// anchor owns the throw-away keys and does nothing that could leave an operation under way.
	anchor *session
	// work runs the operations. It is replaced after every failure, for some modules keep a failed operation active.
	work *session
	caps *Capabilities
	made []p11.ObjectHandle
}

// Probe finds out what a token can do, by doing it with throw-away session keys, and checks the results with Go's own
// implementations as far as the token shows a public key or takes a known key. It leaves nothing on the token.
//
// It logs in by itself, once, so it works beside an open Token and alone. From cfg it needs Label, Serial, PIN and Rand;
// the Profile is what it finds out. The error is for a token that cannot be reached, refuses the login or is lost on the
// way; a capability that is missing is no error.
//
// ctx is looked at between the checks. A check that was begun is not cut short, and while Probe runs, no Token of the
// module is opened, re-opened or closed.
func (m *Module) Probe(ctx context.Context, cfg TokenConfig, scope Scope) (*Capabilities, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	caps, err := m.probe(ctx, cfg, scope)
	if err != nil {
		return nil, fmt.Errorf("probing token %q: %w", cfg.Label, err)
	}
	return caps, nil
}

// probe does the work of Probe. The caller holds mu.
func (m *Module) probe(ctx context.Context, cfg TokenConfig, scope Scope) (*Capabilities, error) {
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	info, err := m.find(cfg.Label, cfg.Serial)
	if err != nil {
		return nil, err
	}
	p := &prober{ctx: ctx, m: m, rand: cfg.Rand, caps: &Capabilities{Token: info, Scope: scope}}
	if p.caps.Limits, err = m.limits(info.Slot); err != nil {
		return nil, err
	}
	if err := p.open(cfg); err != nil {
		return nil, err
	}
	defer p.close()
	if err := p.run(scope); err != nil {
		return nil, err
	}
	return p.caps, nil
}

// open opens both sessions and logs in.
func (p *prober) open(cfg TokenConfig) error {
	// A token that this process must not log in to again must not be probed either.
	for _, t := range p.m.tokens {
		if t.barred != nil && t.cfg.Label == cfg.Label && t.cfg.Serial == cfg.Serial {
			return t.barred
		}
	}
	var err error
	if p.anchor, err = p.m.openSession(p.caps.Token.Slot); err != nil {
		return err
	}
	if err := p.anchor.login(cfg.PIN); err != nil {
		p.anchor.close()
		return fmt.Errorf("logging in: %w", err)
	}
	if p.work, err = p.m.openSession(p.caps.Token.Slot); err != nil {
		p.anchor.close()
		return err
	}
	// session.encrypt reads the IV mode and the source of IVs from the session's token.
	p.work.keys = &keys{token: &Token{m: p.m, cfg: TokenConfig{Rand: p.rand}}}
	return nil
}

// close closes the sessions, and with them whatever session objects are left.
func (p *prober) close() {
	p.discard()
	p.work.close()
	p.anchor.close()
}

func (p *prober) run(scope Scope) error {
	for _, g := range p.groups(scope) {
		if err := p.group(g); err != nil {
			return err
		}
	}
	return nil
}

// groups gives everything that there is to try, in the order of the AWS API's KeySpecs.
func (p *prober) groups(scope Scope) []group {
	if scope == ProbeAES {
		return []group{aesGroup(), wrapGroup(secretTargets())}
	}
	groups := []group{aesGroup(), wrapGroup(append(secretTargets(), privateTargets()...))}
	for _, bits := range []int{2048, 3072, 4096} {
		groups = append(groups, rsaGroup(bits))
	}
	for _, c := range curves {
		groups = append(groups, ecGroup(c))
	}
	groups = append(groups, ed25519Group())
	for _, h := range macHashes {
		groups = append(groups, macGroup(h))
	}
	for _, s := range mldsaSets {
		groups = append(groups, mldsaGroup(s))
	}
	return append(groups, sm2Group())
}

// group makes a key, runs its checks and destroys it.
func (p *prober) group(g group) error {
	defer p.discard()
	made, err := p.try(g.key, step{"generate", g.generate})
	if err != nil {
		return err
	}
	if !made {
		g.extras, g.algorithms = withoutKey(g.extras), withoutKey(g.algorithms)
	}
	for _, s := range g.extras {
		if _, err := p.try(g.key, s); err != nil {
			return err
		}
	}
	spec := KeySpec{Name: g.key, Algorithms: []string{}}
	for _, s := range g.algorithms {
		works, err := p.try(g.key, s)
		if err != nil {
			return err
		}
		if works {
			spec.Algorithms = append(spec.Algorithms, s.name)
		}
	}
	if g.algorithms != nil {
		p.caps.KeySpecs = append(p.caps.KeySpecs, spec)
	}
	return nil
}

// The failures of a token that reports success.
var (
	errWrongResult = errors.New("the result is wrong")
	errUnverified  = errors.New("the signature does not verify")
)

// errNotTried is not the token's failure but follows from one.
var errNotTried = errors.New("not tried: it needs what failed before")

// withoutKey replaces the checks of a group whose key could not be made.
func withoutKey(steps []step) []step {
	failing := make([]step, len(steps))
	for i, s := range steps {
		failing[i] = step{s.name, func(*prober) (string, error) { return "", errNotTried }}
	}
	return failing
}

// try runs a check and records its result. Its error says that the token was lost or that the context has ended.
func (p *prober) try(key string, s step) (bool, error) {
	if err := p.ctx.Err(); err != nil {
		return false, err
	}
	detail, err := s.run(p)
	works := err == nil
	if !works {
		detail = describe(err)
	}
	p.caps.Checks = append(p.caps.Checks, Check{Key: key, Name: s.name, Works: works, Detail: detail})
	if works || errors.Is(err, errNotTried) {
		return works, nil
	}
	return false, p.renew()
}

// renew puts a fresh session in the place of one on which something failed, and makes sure that the failure was neither
// the loss of the token nor of the randomness here.
func (p *prober) renew() error {
	if _, err := p.random(1); err != nil {
		return err
	}
	if err := p.anchor.check(); err != nil {
		return err
	}
	return p.work.replace()
}

// keep remembers an object, to be destroyed after the group.
func (p *prober) keep(objects ...p11.ObjectHandle) { p.made = append(p.made, objects...) }

// discard destroys the objects of a group. What cannot be destroyed goes with the session.
func (p *prober) discard() {
	for _, object := range p.made {
		_ = p.anchor.destroy(object)
	}
	p.made = nil
}

// describe gives the function and the code of a failure or, if the module did not report it, the reason.
func describe(err error) string {
	var e *hsm.Error
	switch {
	case errors.As(err, &e) && e.Code != 0:
		return fmt.Sprintf("%s 0x%x", e.Function, e.Code)
	case e != nil && e.Cause != nil:
		return e.Cause.Error()
	default:
		return err.Error()
	}
}
