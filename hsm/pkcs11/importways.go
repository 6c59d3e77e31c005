package pkcs11

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// ways is what a token was seen to do with imported material.
type ways struct {
	routes map[hsm.ImportWrap]hsm.Route
	// wrap is the mechanism that wraps a key to find out its length, size what it makes of 32 bytes.
	wrap uint
	size int
	// kwp is the mechanism that is AES-KWP; 0 if the token has none.
	kwp uint
}

// way is a way of encrypting material, with the route that it takes.
type way struct {
	wrap  hsm.ImportWrap
	route hsm.Route
}

// oaepHashes gives the hash of each way.
var oaepHashes = map[hsm.ImportWrap]rsaHash{
	hsm.OAEPSHA1: rsaSHA1, hsm.OAEPSHA256: rsaSHA256, hsm.RSAAESSHA1: rsaSHA1, hsm.RSAAESSHA256: rsaSHA256,
}

// transported tells whether the material is under an AES key that comes with it.
func transported(wrap hsm.ImportWrap) bool { return wrap == hsm.RSAAESSHA1 || wrap == hsm.RSAAESSHA256 }

// uses gives what a private key must do for these ways.
func (w *ways) uses() []uint {
	var uses []uint
	seen := map[hsm.Route]bool{}
	for _, route := range w.routes {
		seen[route] = true
	}
	if len(seen) > 0 {
		uses = append(uses, p11.CKA_UNWRAP)
	}
	if seen[hsm.InProcess] {
		uses = append(uses, p11.CKA_DECRYPT)
	}
	return uses
}

// ImportRoutes implements hsm.Token. What was found out holds for as long as the Token is open, whatever becomes of its
// sessions.
func (t *Token) ImportRoutes(ctx context.Context, kind hsm.KeyKind) (map[hsm.ImportWrap]hsm.Route, error) {
	if kind != hsm.AES256 {
		return nil, nil
	}
	w, err := t.importWays(ctx)
	if err != nil {
		return nil, err
	}
	return maps.Clone(w.routes), nil
}

// importWays gives what importWays found out before, or has it found out: once for all who ask meanwhile, and to the end
// even if none of them waits for it.
func (t *Token) importWays(ctx context.Context) (*ways, error) {
	if err := ctx.Err(); err != nil {
		return nil, &hsm.Error{Class: hsm.Busy, Cause: err}
	}
	if w := t.ways.Load(); w != nil {
		return w, nil
	}
	found := t.wayfinding.DoChan("", func() (any, error) {
		if w := t.ways.Load(); w != nil {
			return w, nil
		}
		w, err := do(context.WithoutCancel(ctx), t, &task[*ways]{slow: true, f: (*session).findWays})
		if err == nil {
			t.ways.Store(w)
		}
		return w, err
	})
	select {
	case r := <-found:
		w, _ := r.Val.(*ways)
		return w, r.Err
	case <-ctx.Done():
		return nil, &hsm.Error{Class: hsm.Busy, Cause: ctx.Err()}
	}
}

// findWays tries every way with throw-away session objects. A way that does not work is no error; a token that is lost
// meanwhile is.
func (s *session) findWays() (*ways, error) {
	s.keys.objectsMu.Lock()
	defer s.keys.objectsMu.Unlock()
	w := &ways{routes: map[hsm.ImportWrap]hsm.Route{}}
	if err := s.grave(twice(func() error { return s.findWraps(w) })); err != nil || w.wrap == 0 {
		return w, err
	}
	var l *landing
	defer func() { l.clear() }()
	err := twice(func() (err error) {
		l.clear()
		l, err = s.newTrial(w)
		return err
	})
	if err != nil {
		return w, s.grave(err)
	}
	for _, base := range []struct{ plain, transported hsm.ImportWrap }{{hsm.OAEPSHA1, hsm.RSAAESSHA1}, {hsm.OAEPSHA256, hsm.RSAAESSHA256}} {
		for _, route := range s.routes() {
			works, err := l.works(way{base.plain, route})
			if err != nil {
				return nil, err
			}
			if !works {
				continue
			}
			w.routes[base.plain] = route
			if works, err = l.works(way{base.transported, route}); err != nil {
				return nil, err
			}
			if works {
				w.routes[base.transported] = route
			}
			break
		}
	}
	return w, nil
}

// routes gives the routes that the configuration allows, the better one first.
func (s *session) routes() []hsm.Route {
	if s.keys.token.cfg.StrictOnToken {
		return []hsm.Route{hsm.OnToken}
	}
	return []hsm.Route{hsm.OnToken, hsm.InProcess}
}

// newTrial makes a throw-away key pair. The caller clears the landing in any case.
func (s *session) newTrial(w *ways) (*landing, error) {
	t := template{kind: hsm.RSA2048Import, label: "probe", uses: []uint{p11.CKA_UNWRAP, p11.CKA_DECRYPT}}
	if len(s.routes()) == 1 {
		t.uses = t.uses[:1]
	}
	private, public, err := s.makePair(t)
	if refusedTemplate(err) && len(t.uses) > 1 { // a key may have one use alone, as on Luna without multi-function keys
		t.uses = t.uses[:1]
		private, public, err = s.makePair(t)
	}
	if err != nil {
		return nil, err
	}
	parsed, err := publicOf(hsm.KeyRef{Kind: t.kind, Public: public})
	if err != nil {
		_ = s.destroy(private)
		return nil, err
	}
	l, err := s.newLanding(w, private, parsed)
	l.made = append(l.made, private)
	return l, err
}

// findWraps finds the mechanisms that wrap an AES key, by their names in the field.
func (s *session) findWraps(w *ways) error {
	under, err := s.generateKey(template{kind: hsm.AES256Wrap, label: "probe"})
	if err != nil {
		return err
	}
	defer func() { _ = s.destroy(under) }()
	key, err := s.generateKey(template{kind: hsm.AES256, label: "probe", extractable: true})
	if err != nil {
		return err
	}
	defer func() { _ = s.destroy(key) }()
	for _, mechanism := range []uint{p11.CKM_AES_KEY_WRAP_PAD, ckmAESKeyWrapKWP} {
		var wrapped []byte
		err := twice(func() (err error) {
			wrapped, err = s.wrapWith(mechanism, under, key)
			return err
		})
		if err := s.grave(err); err != nil {
			return err
		}
		format, unknown := formatOf(wrapped)
		if err != nil || unknown != nil {
			continue
		}
		if format == hsm.WrapKWP && w.kwp == 0 {
			w.kwp = mechanism
		}
		if w.wrap == 0 || w.kwp == mechanism {
			w.wrap, w.size = mechanism, len(wrapped)
		}
	}
	return nil
}

// twice gives what may have failed by chance another try: what is found out holds until the next start, and a token that was
// busy for a moment must not lose a way by it, nor material pass through the process.
func twice(f func() error) error {
	if f() == nil {
		return nil
	}
	return f()
}

// grave gives err if it is the loss of the token or of what is needed to try anything, nil if it only says that the token
// does not do something.
func (s *session) grave(err error) error {
	switch hsm.ClassOf(err) {
	case "", hsm.BadInput, hsm.WrongMaterial, hsm.Unsupported:
		return nil
	case hsm.Failed:
		if vague(err) && s.check() != nil {
			return reclassed(err, hsm.TokenGone)
		}
		return nil
	default:
		return err
	}
}

// works tells whether a way gives a key of 32 bytes, and does not take one of 31 for a key.
func (l *landing) works(via way) (bool, error) {
	if transported(via.wrap) && l.ways.kwp == 0 {
		return false, nil
	}
	if err := twice(func() error { return l.rehearse(via) }); err != nil {
		return false, l.s.grave(err)
	}
	err := l.land(via, make([]byte, aesKeySize-1))
	return err != nil, l.s.grave(err)
}

// rehearse imports a known key in one way and compares it with Go's. It is what tells the fault of a caller's material
// from one of the token.
func (l *landing) rehearse(via way) error {
	material := make([]byte, aesKeySize)
	if _, err := rand.Read(material); err != nil {
		return &hsm.Error{Class: hsm.Failed, Cause: fmt.Errorf("making a key: %w", err)}
	}
	return l.land(via, material)
}

// land takes material through an import, but for the making of the key itself.
func (l *landing) land(via way, material []byte) error {
	encrypted, err := encryptTo(l.public, via.wrap, material)
	if err != nil {
		return &hsm.Error{Class: hsm.Failed, Cause: fmt.Errorf("encrypting in Go: %w", err)}
	}
	carrier, err := l.carrier(via, encrypted)
	if err != nil {
		return err
	}
	if _, err = l.inspect(carrier); err != nil {
		return err
	}
	block, err := aes.NewCipher(material)
	if err != nil { // the token took what is no AES key for one
		return nil //nolint:nilerr // see works
	}
	want := make([]byte, len(someBlock))
	block.Encrypt(want, someBlock[:])
	if got, err := l.s.encryptECB(carrier, someBlock[:]); err != nil || !bytes.Equal(got, want) {
		return errors.Join(err, &hsm.Error{Class: hsm.Failed, Cause: errWrongResult})
	}
	return nil
}
