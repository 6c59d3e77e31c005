package pkcs11

import (
	"context"
	"crypto/aes"
	"fmt"
	"maps"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// ability is what a token was seen to do with keys of a kind.
type ability struct {
	hsm.Support
	// form is the index of the form in which the token makes such keys.
	form int
}

// Support implements hsm.Token. What was found out holds for as long as the Token is open, whatever becomes of its sessions.
// Of the kinds whose keys are for the token's own use, hsm.AES256Wrap and those that material is imported under, it tells
// nothing.
func (t *Token) Support(ctx context.Context, kind hsm.KeyKind) (hsm.Support, error) {
	if len(kinds[kind].algorithms) == 0 {
		return hsm.Support{}, nil
	}
	a, err := t.ability(ctx, kind)
	a.Algorithms = maps.Clone(a.Algorithms)
	return a.Support, err
}

// ability gives what was found out of a kind of keys, or has it found out in the slow lane.
func (t *Token) ability(ctx context.Context, kind hsm.KeyKind) (ability, error) {
	return t.abilities.get(ctx, string(kind), func(ctx context.Context) (ability, error) {
		return inTurn(ctx, t, kinds[kind].slow(), func() (ability, error) {
			return do(ctx, t, &task[ability]{slow: true, f: func(s *session) (ability, error) { return s.tryKind(kind) }})
		})
	})
}

// demand gives the route that an algorithm takes, and fails if the token was not seen to carry it out.
func (t *Token) demand(ctx context.Context, kind hsm.KeyKind, a hsm.Algorithm) (hsm.Route, error) {
	able, err := t.ability(ctx, kind)
	if err != nil {
		return "", err
	}
	route, ok := able.Algorithms[a]
	if !ok {
		return "", &hsm.Error{Class: hsm.Unsupported, Cause: fmt.Errorf("the token does not carry out %s with keys of the kind %q", a, kind)}
	}
	return route, nil
}

// form gives the form in which the token has keys of a kind: the first one until another is found out.
func (t *Token) form(kind hsm.KeyKind) int {
	a, _ := t.abilities.peek(string(kind))
	return a.form
}

// tryKind makes a throw-away key, in the first form that the token takes and does anything with, and tries everything that
// keys of the kind may do. What does not work is no error; a token that is lost meanwhile is.
func (s *session) tryKind(kind hsm.KeyKind) (ability, error) {
	s.keys.objectsMu.Lock() // a search would not bear session objects that come and go
	defer s.keys.objectsMu.Unlock()
	for form := range kinds[kind].forms {
		for _, extractable := range []bool{true, false} { // there are tokens that make no keys that can be wrapped
			a, err := s.tryForm(template{kind: kind, form: form, label: "probe", extractable: extractable})
			if err != nil || len(a.Algorithms) > 0 {
				return a, err
			}
		}
	}
	return ability{}, nil
}

func (s *session) tryForm(t template) (ability, error) {
	a := ability{Support: hsm.Support{Algorithms: map[hsm.Algorithm]hsm.Route{}}, form: t.form}
	key, ref := &loadedKey{}, hsm.KeyRef{Kind: t.kind}
	err := twice(func() (err error) {
		key.handle, ref.Public, err = s.makeTrial(t)
		return err
	})
	if err != nil {
		return a, s.grave(err)
	}
	defer func() { _ = s.destroy(key.handle) }()
	for _, algorithm := range kinds[t.kind].algorithms {
		for _, route := range s.routesOf(algorithm) {
			err := twice(func() error { return s.rehearseKey(key, ref, algorithm, route) })
			if err == nil {
				a.Algorithms[algorithm] = route
				break
			}
			if err := s.grave(err); err != nil {
				return a, err
			}
		}
	}
	if t.extractable && len(a.Algorithms) > 0 {
		err = twice(func() error { return s.rehearseWrapped(t, a, key.handle, ref) })
		a.Wraps = err == nil
	}
	return a, s.grave(err)
}

// largeRSA is the size in bits above which RSA keys are not made to be tried. That the token makes key pairs is seen with the
// smaller ones; GenerateKey proves each key in any case.
const largeRSA = 2048

// makeTrial makes a throw-away key. An RSA key of a large size, which takes a token seconds to make, is one that is known
// already, if the token takes it.
func (s *session) makeTrial(t template) (p11.ObjectHandle, []byte, error) {
	if k := kinds[t.kind]; k.slow() && k.size > largeRSA {
		if handle, public, err := s.bringRSA(t); err == nil {
			return handle, public, nil
		}
	}
	return s.makeOne(t)
}

// bringRSA brings a known RSA key to the token, wrapped under an AES key of known value.
func (s *session) bringRSA(t template) (p11.ObjectHandle, []byte, error) {
	known, err := rsaSample(kinds[t.kind].size)
	if err != nil {
		return 0, nil, err
	}
	value, err := randomBytes(aesKeySize)
	if err != nil {
		return 0, nil, err
	}
	under, err := s.create(template{kind: hsm.AES256Wrap}, value)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = s.destroy(under) }()
	w, err := s.wrapping(under)
	if err != nil {
		return 0, nil, err
	}
	block, err := aes.NewCipher(value)
	if err != nil {
		return 0, nil, err
	}
	if w.format != hsm.WrapKWP {
		return 0, nil, &hsm.Error{Class: hsm.Unsupported, Cause: fmt.Errorf("keys are wrapped in the format %s", w.format)}
	}
	handle, err := s.unwrapAs(t, mechanismOf(w.mechanism, nil), under, keyWrapPadded(block, known.material))
	return handle, known.evidence, err
}

// routesOf gives the routes that an algorithm can take, the better one first.
func (s *session) routesOf(a hsm.Algorithm) []hsm.Route {
	if _, decrypts := decrypters[a]; decrypts {
		return s.routes()
	}
	return []hsm.Route{hsm.OnToken}
}

// rehearseWrapped wraps a key, unwraps it and has it do what it is for. The public key shows that it is the same key.
func (s *session) rehearseWrapped(t template, a ability, key p11.ObjectHandle, ref hsm.KeyRef) error {
	under, err := s.generateKey(template{kind: hsm.AES256Wrap, label: "probe"})
	if err != nil {
		return err
	}
	defer func() { _ = s.destroy(under) }()
	if ref.WrapFormat, ref.Wrapped, err = s.wrap(under, key); err != nil {
		return err
	}
	if err := checkWrapped(ref); err != nil {
		return err
	}
	w, err := s.wrapping(under)
	if err != nil {
		return err
	}
	unwrapped, err := s.unwrapAs(template{kind: t.kind, form: t.form, label: "probe"}, mechanismOf(w.mechanism, nil), under, ref.Wrapped)
	if err != nil {
		return err
	}
	defer func() { _ = s.destroy(unwrapped) }()
	algorithm, route := a.first(t.kind)
	return s.rehearseKey(&loadedKey{handle: unwrapped}, ref, algorithm, route)
}

// first gives the first algorithm that the token carries out, and its route.
func (a ability) first(kind hsm.KeyKind) (hsm.Algorithm, hsm.Route) {
	for _, algorithm := range kinds[kind].algorithms {
		if route, ok := a.Algorithms[algorithm]; ok {
			return algorithm, route
		}
	}
	return "", ""
}
