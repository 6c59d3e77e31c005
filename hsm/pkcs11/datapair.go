package pkcs11

import (
	"context"
	"crypto"
	"crypto/aes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// dataWay is a way of making a key pair that leaves the token. Its private key is the caller's to wipe.
type dataWay struct {
	name string
	make func(s *session, a ability, t template) (hsm.DataPair, error)
}

// dataWays are tried in this order; what worked for a kind is kept to.
var dataWays = []dataWay{
	{"wrapped", (*session).exportWrapped},
	{"read", (*session).exportValue},
	{"in_process", (*session).makeInProcess},
}

// GenerateDataPair implements hsm.Token. The token makes the pair and gives it out under an AES key that this process has made
// or, if it wraps no such keys, as the value of a key that may be read. One that does neither has the pair made here, by Go,
// unless TokenConfig.StrictOnToken forbids it; Go's libraries keep traces of such a key that can't be wiped.
func (t *Token) GenerateDataPair(ctx context.Context, kind hsm.KeyKind) (hsm.DataPair, error) {
	k := kinds[kind]
	if !k.pair() || k.forms[0].keyType == ckkMLDSA || k.uses[0] != p11.CKA_SIGN {
		return hsm.DataPair{}, &hsm.Error{Class: hsm.Unsupported, Cause: fmt.Errorf("data key pairs of the kind %q", kind)}
	}
	a, err := t.ability(ctx, kind)
	if err != nil {
		return hsm.DataPair{}, err
	}
	return inTurn(ctx, t, k.slow(), func() (hsm.DataPair, error) {
		return do(ctx, t, &task[hsm.DataPair]{
			slow:    true,
			f:       func(s *session) (hsm.DataPair, error) { return s.dataPair(a, kind) },
			discard: func(_ *session, made hsm.DataPair) { clear(made.Private) },
		})
	})
}

// TryDataPair implements hsm.Token. A large RSA key comes out of the token as a smaller one does, if the token wraps it at all.
func (t *Token) TryDataPair(ctx context.Context, kind hsm.KeyKind) error {
	if _, known := t.dataWays.Load(kind); known {
		return nil
	}
	if k := kinds[kind]; k.slow() && k.size > largeRSA && k.uses[0] == p11.CKA_SIGN {
		if !t.cfg.StrictOnToken {
			return nil // makeInProcess is left in any case
		}
		a, err := t.ability(ctx, kind)
		if err != nil {
			return err
		}
		if !a.Wraps {
			return &hsm.Error{Class: hsm.Unsupported, Cause: fmt.Errorf("the token does not wrap keys of the kind %s", kind)}
		}
		return t.TryDataPair(ctx, hsm.RSA2048Sign)
	}
	pair, err := t.GenerateDataPair(ctx, kind)
	clear(pair.Private)
	return err
}

func (s *session) dataPair(a ability, kind hsm.KeyKind) (hsm.DataPair, error) {
	s.keys.objectsMu.Lock() // a search would not bear session objects that come and go
	defer s.keys.objectsMu.Unlock()
	t := template{kind: kind, form: a.form, label: "data key pair"}
	token := s.keys.token
	if known, ok := token.dataWays.Load(kind); ok {
		return dataWays[known.(int)].make(s, a, t) //nolint:forcetypeassert // see below
	}
	var first error
	for i, way := range dataWays {
		var made hsm.DataPair
		err := twice(func() (err error) {
			made, err = way.make(s, a, t)
			return err
		})
		if err == nil {
			token.dataWays.Store(kind, i)
			s.m.cfg.Log.Info("data key pairs", "kind", kind, "way", way.name, "refused", first)
			return made, nil
		}
		if err := s.grave(err); err != nil {
			return hsm.DataPair{}, err
		}
		if first == nil {
			first = err
		}
	}
	return hsm.DataPair{}, reclassed(first, hsm.Unsupported)
}

// makeData makes a key pair that signs as it should. The caller destroys it.
func (s *session) makeData(a ability, t template) (p11.ObjectHandle, []byte, error) {
	algorithm, route := a.first(t.kind)
	if algorithm == "" {
		return 0, nil, &hsm.Error{Class: hsm.Unsupported, Cause: errors.New("the token cannot carry such keys")}
	}
	private, public, err := s.makePair(t)
	if err != nil {
		return 0, nil, err
	}
	if err := s.rehearseKey(&loadedKey{handle: private}, hsm.KeyRef{Kind: t.kind, Public: public}, algorithm, route); err != nil {
		_ = s.destroy(private)
		return 0, nil, fmt.Errorf("testing a new key pair: %w", err)
	}
	return private, public, nil
}

// exportWrapped has the token wrap the private key, which it never shows, under an AES key of known value.
func (s *session) exportWrapped(a ability, t template) (hsm.DataPair, error) {
	if !a.Wraps {
		return hsm.DataPair{}, &hsm.Error{Class: hsm.Unsupported, Cause: errors.New("the token does not wrap such keys")}
	}
	value, err := randomBytes(aesKeySize)
	if err != nil {
		return hsm.DataPair{}, err
	}
	defer clear(value)
	under, err := s.create(template{kind: hsm.AES256Wrap}, value)
	if err != nil {
		return hsm.DataPair{}, err
	}
	defer func() { _ = s.destroy(under) }()
	t.extractable = true
	private, public, err := s.makeData(a, t)
	if err != nil {
		return hsm.DataPair{}, err
	}
	defer func() { _ = s.destroy(private) }()
	format, wrapped, err := s.wrap(under, private)
	if err != nil {
		return hsm.DataPair{}, err
	}
	block, err := aes.NewCipher(value)
	if err != nil {
		return hsm.DataPair{}, &hsm.Error{Class: hsm.Failed, Cause: err}
	}
	defer clear(wrapped) // which is unwrapped in place
	unwrapped, err := keyUnwrap(block, format, wrapped)
	if err != nil {
		return hsm.DataPair{}, err
	}
	encoded, err := privateKeyInfo(t.kind, public, unwrapped)
	return hsm.DataPair{Private: encoded, Public: public}, err
}

// exportValue reads the private key of a pair that was made to be read. That of an elliptic curve is one number; RSA's are not
// read in this way.
func (s *session) exportValue(a ability, t template) (hsm.DataPair, error) {
	k := kinds[t.kind]
	if k.slow() {
		return hsm.DataPair{}, &hsm.Error{Class: hsm.Unsupported, Cause: errors.New("RSA keys are not read number by number")}
	}
	t.readable = true
	private, public, err := s.makeData(a, t)
	if err != nil {
		return hsm.DataPair{}, err
	}
	defer func() { _ = s.destroy(private) }()
	value := make([]byte, (k.size+7)/8+1) // a number may come with a zero in front
	defer clear(value)
	n, err := s.readUpTo(private, p11.CKA_VALUE, value)
	if err != nil {
		return hsm.DataPair{}, err
	}
	encoded, err := curveKeyInfo(t.kind, public, value[:n])
	return hsm.DataPair{Private: encoded, Public: public}, err
}

// makeInProcess makes a pair without the token.
func (s *session) makeInProcess(_ ability, t template) (hsm.DataPair, error) {
	if s.keys.token.cfg.StrictOnToken {
		return hsm.DataPair{}, &hsm.Error{Class: hsm.Unsupported, Cause: errors.New("key pairs must be made by the token")}
	}
	private, err := generateInGo(t.kind)
	if err != nil {
		return hsm.DataPair{}, err
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return hsm.DataPair{}, &hsm.Error{Class: hsm.Failed, Cause: fmt.Errorf("encoding key: %w", err)}
	}
	public, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		return hsm.DataPair{}, &hsm.Error{Class: hsm.Failed, Cause: fmt.Errorf("encoding key: %w", err)}
	}
	return hsm.DataPair{Private: encoded, Public: public}, nil
}

func generateInGo(kind hsm.KeyKind) (key crypto.Signer, err error) {
	curves := map[hsm.KeyKind]elliptic.Curve{hsm.P256Sign: elliptic.P256(), hsm.P384Sign: elliptic.P384(), hsm.P521Sign: elliptic.P521()}
	switch {
	case curves[kind] != nil:
		key, err = ecdsa.GenerateKey(curves[kind], rand.Reader)
	case kind == hsm.Ed25519Sign:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case kinds[kind].slow():
		key, err = rsa.GenerateKey(rand.Reader, kinds[kind].size)
	default:
		return nil, &hsm.Error{Class: hsm.Unsupported, Cause: fmt.Errorf("keys of the kind %s are not made in Go", kind)}
	}
	if err != nil {
		return nil, &hsm.Error{Class: hsm.Failed, Cause: fmt.Errorf("generating in Go: %w", err)}
	}
	return key, nil
}
