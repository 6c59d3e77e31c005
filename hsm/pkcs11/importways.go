package pkcs11

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// ways is what a token was seen to do with imported material.
type ways struct {
	// paths are by the kinds that were tried out; see importKinds.
	paths map[hsm.KeyKind]map[hsm.ImportWrap]path
	// wrap is the mechanism that wraps a key to find out its length, size what it makes of 32 bytes.
	wrap uint
	size int
	// kwp is the mechanism that is AES-KWP; 0 if the token has none.
	kwp uint
}

// path is how encrypted material becomes a key.
type path struct {
	// route is that of what is encrypted to the key pair: the material, or the AES key over it.
	route hsm.Route
	// read tells that material under an AES key is unwrapped on the token but read by the process, because the token makes no
	// key of it by itself.
	read bool
}

// seen gives the route of the material.
func (p path) seen() hsm.Route {
	if p.read {
		return hsm.InProcess
	}
	return p.route
}

// way is a way of encrypting material, with the path that it takes.
type way struct {
	wrap hsm.ImportWrap
	path
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
	for _, paths := range w.paths {
		for _, path := range paths {
			seen[path.route] = true
		}
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
	if importKinds[kind] == "" {
		return nil, nil
	}
	w, err := t.importWays(ctx)
	if err != nil {
		return nil, err
	}
	routes := map[hsm.ImportWrap]hsm.Route{}
	for wrap, path := range w.paths[importKinds[kind]] {
		routes[wrap] = path.seen()
	}
	return routes, nil
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
	w := &ways{paths: map[hsm.KeyKind]map[hsm.ImportWrap]path{}}
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
	kinds := slices.Sorted(maps.Values(importKinds))
	for _, kind := range append([]hsm.KeyKind{hsm.AES256}, slices.Compact(kinds)...) { // what decrypts an AES key decides for all
		if w.paths[kind], err = l.findPaths(kind); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// findPaths tries all ways for a kind. The route of the key over the material is that of material which is an AES key.
func (l *landing) findPaths(kind hsm.KeyKind) (map[hsm.ImportWrap]path, error) {
	found, base := map[hsm.ImportWrap]path{}, l.ways.paths[hsm.AES256]
	if base == nil {
		base = found
	}
	for _, hash := range []struct{ plain, transported hsm.ImportWrap }{{hsm.OAEPSHA1, hsm.RSAAESSHA1}, {hsm.OAEPSHA256, hsm.RSAAESSHA256}} {
		if err := l.findPath(found, hash.plain, kind, l.s.paths()); err != nil {
			return nil, err
		}
		if key, ok := base[hash.plain]; ok {
			if err := l.findPath(found, hash.transported, kind, l.s.pathsUnder(key.route, kind)); err != nil {
				return nil, err
			}
		}
	}
	return found, nil
}

// findPath enters the first of the paths that works.
func (l *landing) findPath(found map[hsm.ImportWrap]path, wrap hsm.ImportWrap, kind hsm.KeyKind, paths []path) error {
	if !transported(wrap) && kinds[kind].keyType() == p11.CKK_RSA { // does not fit
		return nil
	}
	for _, path := range paths {
		works, err := l.works(way{wrap, path}, kind)
		if err != nil {
			return err
		}
		if works {
			found[wrap] = path
			return nil
		}
	}
	return nil
}

// routes gives the routes that the configuration allows, the better one first.
func (s *session) routes() []hsm.Route {
	if s.keys.token.cfg.StrictOnToken {
		return []hsm.Route{hsm.OnToken}
	}
	return []hsm.Route{hsm.OnToken, hsm.InProcess}
}

// paths gives those of material that is encrypted to the key pair, likewise.
func (s *session) paths() []path {
	var paths []path
	for _, route := range s.routes() {
		paths = append(paths, path{route: route})
	}
	return paths
}

// pathsUnder gives those of material under an AES key that comes on a route, likewise.
func (s *session) pathsUnder(route hsm.Route, kind hsm.KeyKind) []path {
	paths := []path{{route: route}}
	if kinds[kind].edwards() && slices.Contains(s.routes(), hsm.InProcess) {
		paths = append(paths, path{route: route, read: true})
	}
	return paths
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

// works tells whether a way gives a key of a kind, and does not take what is longer or shorter by a byte for one.
func (l *landing) works(via way, kind hsm.KeyKind) (bool, error) {
	if transported(via.wrap) && l.ways.kwp == 0 {
		return false, nil
	}
	if err := twice(func() error { return l.rehearse(via, kind) }); err != nil {
		return false, l.s.grave(err)
	}
	if kinds[kind].pair() {
		return true, nil
	}
	for _, size := range []int{kinds[kind].size - 1, kinds[kind].size + 1} {
		_, err := l.land(via, kind, make([]byte, size))
		if fatal := l.s.grave(err); err == nil || fatal != nil {
			return false, fatal
		}
	}
	return true, nil
}

// rehearse imports a known key in one way and compares it with Go's. It is what tells the fault of a caller's material
// from one of the token.
func (l *landing) rehearse(via way, kind hsm.KeyKind) error {
	key, err := newSample(kind)
	if err != nil {
		return &hsm.Error{Class: hsm.Failed, Cause: fmt.Errorf("making a key: %w", err)}
	}
	found, err := l.land(via, kind, key.material)
	if err == nil && !bytes.Equal(found.evidence, key.evidence) {
		err = &hsm.Error{Class: hsm.Failed, Cause: errWrongResult}
	}
	return err
}

// land takes material through an import, but for the making of the key itself.
func (l *landing) land(via way, kind hsm.KeyKind, material []byte) (identity, error) {
	encrypted, err := encryptTo(l.public, via.wrap, material)
	if err != nil {
		return identity{}, &hsm.Error{Class: hsm.Failed, Cause: fmt.Errorf("encrypting in Go: %w", err)}
	}
	carrier, err := l.carrier(via, kind, encrypted)
	if err != nil {
		return identity{}, err
	}
	return l.inspect(kind, carrier, nil)
}
