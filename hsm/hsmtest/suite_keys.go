package hsmtest

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
)

func (s *suite) testGenerateKey(t *testing.T) {
	seen := map[hsm.KeyID]bool{}
	for range 5 {
		ref := s.generate(t)
		raw, err := hex.DecodeString(string(ref.ID))
		require.NoError(t, err)
		require.Len(t, raw, 16)
		require.Equal(t, string(ref.ID), hex.EncodeToString(raw), "not in lower case")
		require.False(t, seen[ref.ID])
		seen[ref.ID] = true
		require.Equal(t, hsm.AES256, ref.Kind)
		s.requireHome(t, ref)
	}
	a, b := s.generate(t), s.generate(t)
	o := s.seal(t, hsm.Sealing{Key: a}, []byte("plaintext"))
	o.Key = b
	_, err := s.token.Decrypt(t.Context(), o)
	requireClass(t, err, hsm.BadInput)
}

// requireHome demands that a reference says what the home under test needs, and no more.
func (s *suite) requireHome(t *testing.T, ref hsm.KeyRef) {
	t.Helper()
	require.Len(t, ref.Proof, hsm.IVSize+16+hsm.TagSize)
	s.requireOpens(t, hsm.Opening{Key: ref, Sealed: proofOf(ref)}, make([]byte, 16))
	if s.domain == "" {
		require.Equal(t, hsm.KeyRef{ID: ref.ID, Kind: ref.Kind, Proof: ref.Proof}, ref)
		return
	}
	size := map[hsm.WrapFormat]int{hsm.WrapKWP: 40, hsm.WrapPKCS7: 48}[ref.WrapFormat]
	require.NotZero(t, size, "wrap format %q", ref.WrapFormat)
	require.Len(t, ref.Wrapped, size)
	require.Equal(t, s.domain, ref.WrappedBy)
}

// proofOf reads KeyRef.Proof as a ciphertext.
func proofOf(ref hsm.KeyRef) hsm.Sealed {
	return hsm.Sealed{IV: [hsm.IVSize]byte(ref.Proof), Data: ref.Proof[hsm.IVSize:]}
}

func (s *suite) testGenerateKeyRefused(t *testing.T) {
	domain := s.request(t, hsm.KeyRequest{Kind: hsm.AES256Wrap, Label: "refusing"}).ID
	crypting := s.request(t, hsm.KeyRequest{Kind: hsm.AES256, Label: "refusing"}).ID
	before, err := s.token.Objects(t.Context())
	require.NoError(t, err)
	for name, c := range map[string]struct {
		request hsm.KeyRequest
		classes []hsm.Class
	}{
		"no kind":                        {hsm.KeyRequest{}, []hsm.Class{hsm.Unsupported}},
		"unknown kind":                   {hsm.KeyRequest{Kind: "DES"}, []hsm.Class{hsm.Unsupported}},
		"wrapped wrapping key":           {hsm.KeyRequest{Kind: hsm.AES256Wrap, WrapUnder: domain}, []hsm.Class{hsm.Unsupported}},
		"unknown domain":                 {hsm.KeyRequest{Kind: hsm.AES256, WrapUnder: unknownKey()}, []hsm.Class{hsm.KeyMissing}},
		"domain that is no key name":     {hsm.KeyRequest{Kind: hsm.AES256, WrapUnder: "domain"}, []hsm.Class{hsm.KeyMissing}},
		"domain that is no wrapping key": {hsm.KeyRequest{Kind: hsm.AES256, WrapUnder: crypting}, []hsm.Class{hsm.Failed, hsm.Unsupported}},
		"domain in upper case":           {hsm.KeyRequest{Kind: hsm.AES256, WrapUnder: upper(domain)}, []hsm.Class{hsm.KeyMissing}},
	} {
		ref, err := s.token.GenerateKey(t.Context(), c.request)
		require.Error(t, err, name)
		requireClass(t, err, c.classes...)
		require.Zero(t, ref, name)
	}
	after, err := s.token.Objects(t.Context())
	require.NoError(t, err)
	require.ElementsMatch(t, before, after)
}

// testWrappingKey demands that a wrapping key cannot encrypt or decrypt, or a caller could unwrap with it what is for
// the token alone.
func (s *suite) testWrappingKey(t *testing.T) {
	ref := s.request(t, hsm.KeyRequest{Kind: hsm.AES256Wrap, Label: "wrapping"})
	require.Equal(t, hsm.KeyRef{ID: ref.ID, Kind: hsm.AES256Wrap}, ref)
	for _, kind := range []hsm.KeyKind{hsm.AES256Wrap, hsm.AES256} { // whatever the reference says of it
		ref.Kind = kind
		_, err := s.token.Encrypt(t.Context(), hsm.Sealing{Key: ref}, []byte("plaintext"))
		requireClass(t, err, hsm.Failed, hsm.Unsupported)
		o := hsm.Opening{Key: ref, Sealed: hsm.Sealed{IV: [hsm.IVSize]byte{1}, Data: random(40)}}
		_, err = s.token.Decrypt(t.Context(), o)
		requireClass(t, err, hsm.Failed, hsm.Unsupported)
	}
	for _, a := range s.cfg.Attributes(t, ref.ID) {
		require.Equal(t, Attributes{Token: a.Token, Sensitive: true}, a)
	}
}

func (s *suite) testKeyMissing(t *testing.T) {
	o := s.seal(t, hsm.Sealing{Key: s.first}, []byte("plaintext"))
	noName := s.first
	noName.ID = "not hexadecimal"
	short := s.first
	short.ID = "abcd"
	another := s.first // a second name for a key would outlive its destruction
	another.ID = upper(s.first.ID)
	if s.domain != "" {
		noName.WrappedBy, short.WrappedBy, another.WrappedBy = "", "abcd", upper(s.domain)
	}
	for _, ref := range []hsm.KeyRef{s.missing(), noName, short, another} {
		_, err := s.token.Encrypt(t.Context(), hsm.Sealing{Key: ref}, []byte("plaintext"))
		requireClass(t, err, hsm.KeyMissing)
		o.Key = ref
		_, err = s.token.Decrypt(t.Context(), o)
		requireClass(t, err, hsm.KeyMissing)
	}
	require.NoError(t, s.token.Check(t.Context()))
}

func upper(id hsm.KeyID) hsm.KeyID { return hsm.KeyID(strings.ToUpper(string(id))) }

func (s *suite) testDestroyKey(t *testing.T) {
	ref, other := s.generate(t), s.generate(t)
	o := s.seal(t, hsm.Sealing{Key: ref}, []byte("plaintext"))
	for range 3 { // once is enough, more is no error
		require.NoError(t, s.token.DestroyKey(t.Context(), ref))
	}
	if s.domain == "" {
		s.requireGone(t, o)
		s.token = s.cfg.Reopen(t)
		s.requireGone(t, o)
	} else {
		require.Empty(t, s.cfg.Attributes(t, ref.ID), "the unwrapped copy is still there")
		s.requireOpens(t, o, []byte("plaintext"))
	}
	s.requireOpens(t, s.seal(t, hsm.Sealing{Key: other}, []byte("spared")), []byte("spared"))
	require.NoError(t, s.token.DestroyKey(t.Context(), hsm.KeyRef{ID: unknownKey(), Kind: hsm.AES256}))
}

// requireGone demands that the key of o is nowhere on the token.
func (s *suite) requireGone(t *testing.T, o hsm.Opening) {
	t.Helper()
	_, err := s.token.Decrypt(t.Context(), o)
	requireClass(t, err, hsm.KeyMissing)
	_, err = s.token.Encrypt(t.Context(), hsm.Sealing{Key: o.Key}, []byte("plaintext"))
	requireClass(t, err, hsm.KeyMissing)
	require.Empty(t, s.cfg.Attributes(t, o.Key.ID))
	objects, err := s.token.Objects(t.Context())
	require.NoError(t, err)
	require.False(t, slices.ContainsFunc(objects, func(o2 hsm.Object) bool { return o2.ID == o.Key.ID }))
}

// testAlteredReference has references to wrapped material that a store has spoilt. They are no fault of a caller's
// input, nor of the token.
func (s *suite) testAlteredReference(t *testing.T) {
	if s.domain == "" {
		s.testAddedWrapping(t)
		return
	}
	good := s.generate(t)
	other := s.request(t, hsm.KeyRequest{Kind: hsm.AES256Wrap, Label: "another domain"}).ID
	for name, change := range map[string]func(*hsm.KeyRef){
		"first byte":        func(r *hsm.KeyRef) { r.Wrapped[0] ^= 1 },
		"last byte":         func(r *hsm.KeyRef) { r.Wrapped[len(r.Wrapped)-1] ^= 1 },
		"end cut off":       func(r *hsm.KeyRef) { r.Wrapped = r.Wrapped[:len(r.Wrapped)-1] },
		"a block cut off":   func(r *hsm.KeyRef) { r.Wrapped = r.Wrapped[:len(r.Wrapped)-8] },
		"one byte":          func(r *hsm.KeyRef) { r.Wrapped = r.Wrapped[:1] },
		"a block appended":  func(r *hsm.KeyRef) { r.Wrapped = append(r.Wrapped, make([]byte, 8)...) },
		"zeros":             func(r *hsm.KeyRef) { clear(r.Wrapped) },
		"another domain":    func(r *hsm.KeyRef) { r.WrappedBy = other },
		"no format":         func(r *hsm.KeyRef) { r.WrapFormat = "" },
		"unknown format":    func(r *hsm.KeyRef) { r.WrapFormat = "ROT13" },
		"the other format":  func(r *hsm.KeyRef) { r.WrapFormat = otherFormat(r.WrapFormat) },
		"a domain not ours": func(r *hsm.KeyRef) { r.WrappedBy = unknownKey() },
		"wrapping kind":     func(r *hsm.KeyRef) { r.Kind = hsm.AES256Wrap },
		"unknown kind":      func(r *hsm.KeyRef) { r.Kind = "DES" },
	} {
		require.NoError(t, s.token.DestroyKey(t.Context(), good)) // that is, forget the unwrapped copy
		ref := good
		ref.Wrapped = slices.Clone(good.Wrapped)
		change(&ref)
		_, err := s.token.Encrypt(t.Context(), hsm.Sealing{Key: ref}, []byte("plaintext"))
		require.Error(t, err, name)
		requireClass(t, err, hsm.Failed, hsm.Unsupported, hsm.KeyMissing)
		require.NoError(t, s.token.DestroyKey(t.Context(), ref))
	}
	s.requireOpens(t, s.seal(t, hsm.Sealing{Key: good}, []byte("good")), []byte("good"))
}

func otherFormat(f hsm.WrapFormat) hsm.WrapFormat {
	if f == hsm.WrapKWP {
		return hsm.WrapPKCS7
	}
	return hsm.WrapKWP
}

// testAddedWrapping has a reference to an object of the token that claims to be wrapped too: destroying it must not
// destroy the object, nor may the object be used in its place.
func (s *suite) testAddedWrapping(t *testing.T) {
	ref := s.generate(t)
	s.token = s.cfg.Reopen(t)
	claim := ref
	claim.Wrapped, claim.WrappedBy, claim.WrapFormat = random(40), s.first.ID, hsm.WrapKWP
	_, err := s.token.Encrypt(t.Context(), hsm.Sealing{Key: claim}, []byte("plaintext"))
	requireClass(t, err, hsm.Failed, hsm.Unsupported, hsm.KeyMissing)
	require.NoError(t, s.token.DestroyKey(t.Context(), claim))
	s.requireOpens(t, s.seal(t, hsm.Sealing{Key: ref}, []byte("still here")), []byte("still here"))
}

// testNoKeyByteReadable asks the token itself, by the other way, whether it would give a key away.
func (s *suite) testNoKeyByteReadable(t *testing.T) {
	ref := s.generate(t)
	s.requireOpens(t, s.seal(t, hsm.Sealing{Key: ref}, []byte("loads the key")), []byte("loads the key"))
	objects := s.cfg.Attributes(t, ref.ID)
	require.NotEmpty(t, objects)
	persistent := 0
	for _, a := range objects {
		if a.Token {
			persistent++
		}
		require.Equal(t, Attributes{Token: a.Token, Sensitive: true}, a)
	}
	if s.domain != "" {
		require.Zero(t, persistent, "wrapped material has an object of the token")
		return
	}
	require.Equal(t, 1, persistent)
}

func (s *suite) testObjects(t *testing.T) {
	label := "objects " + string(unknownKey())
	ref := s.request(t, hsm.KeyRequest{Kind: hsm.AES256, Label: label, WrapUnder: s.domain})
	objects, err := s.token.Objects(t.Context())
	require.NoError(t, err)
	require.Equal(t, s.domain == "", slices.Contains(objects, hsm.Object{ID: ref.ID, Label: label}))
	seen := map[hsm.KeyID]bool{}
	for _, o := range objects {
		require.Len(t, o.ID, 32)
		require.False(t, seen[o.ID], "%s is listed twice", o.ID)
		seen[o.ID] = true
	}
	require.Equal(t, s.domain != "", seen[s.domain])
}

// testReopen demands that references and ciphertexts outlive the process.
func (s *suite) testReopen(t *testing.T) {
	ref := s.generate(t)
	o := s.seal(t, hsm.Sealing{Key: ref, AAD: randomAAD()}, []byte("before"))
	for range 2 {
		s.token = s.cfg.Reopen(t)
		s.requireOpens(t, o, []byte("before"))
		s.requireOpens(t, s.seal(t, hsm.Sealing{Key: ref}, []byte("after")), []byte("after"))
		more := s.generate(t)
		s.requireOpens(t, s.seal(t, hsm.Sealing{Key: more}, []byte("more")), []byte("more"))
	}
	require.NoError(t, s.token.DestroyKey(t.Context(), ref))
}

// testConcurrency uses more keys than the token holds ready, from many goroutines, while keys come and go.
func (s *suite) testConcurrency(t *testing.T) {
	refs := make([]hsm.KeyRef, 4*CacheKeys)
	for i := range refs {
		refs[i] = s.generate(t)
	}
	var users crowd
	for g := range 16 {
		users.start(25, func(i int) error { return s.travel(t, refs[(g+i)%len(refs)], refs[(g*5+i*3)%len(refs)]) })
	}
	users.start(25, func(int) error { return s.comeAndGo(t) })
	users.start(25, func(int) error { return s.comeAndGo(t) })
	users.start(25, func(int) error { _, err := s.token.Objects(t.Context()); return err })
	users.start(25, func(int) error { return s.token.Check(t.Context()) })
	require.Empty(t, users.wait())
}

// travel takes a plaintext through both keys.
func (s *suite) travel(t *testing.T, from, to hsm.KeyRef) error {
	plaintext, aad := random(100), randomAAD()
	sealed, err := s.token.Encrypt(t.Context(), hsm.Sealing{Key: from, AAD: aad}, plaintext)
	if err != nil {
		return fmt.Errorf("encrypting: %w", err)
	}
	forged := sealed
	forged.IV[0] ^= 1
	if _, err := s.token.Decrypt(t.Context(), hsm.Opening{Key: from, AAD: aad, Sealed: forged}); hsm.ClassOf(err) != hsm.BadInput {
		return fmt.Errorf("decrypting a forgery: %w", err)
	}
	if sealed, err = s.token.ReEncrypt(t.Context(), hsm.Opening{Key: from, AAD: aad, Sealed: sealed}, hsm.Sealing{Key: to}); err != nil {
		return fmt.Errorf("re-encrypting: %w", err)
	}
	got, err := s.token.Decrypt(t.Context(), hsm.Opening{Key: to, Sealed: sealed})
	if err != nil {
		return fmt.Errorf("decrypting: %w", err)
	}
	if !bytes.Equal(plaintext, got) {
		return fmt.Errorf("the plaintext of %s is another one", to.ID)
	}
	return nil
}

func (s *suite) comeAndGo(t *testing.T) error {
	ref, err := s.token.GenerateKey(t.Context(), hsm.KeyRequest{Kind: hsm.AES256, Label: "short-lived", WrapUnder: s.domain})
	if err != nil {
		return fmt.Errorf("generating: %w", err)
	}
	if err := s.travel(t, ref, ref); err != nil {
		return err
	}
	if err := s.token.DestroyKey(t.Context(), ref); err != nil {
		return fmt.Errorf("destroying: %w", err)
	}
	return nil
}

// testDestroyInUse destroys keys while others use them. Once DestroyKey has returned, no object of the token may work
// any more, not even through a copy that was made meanwhile. Uses that it overtakes may fail in other ways (SoftHSM
// answers CKR_KEY_TYPE_INCONSISTENT or CKR_MECHANISM_INVALID), but not as if the token were lost.
func (s *suite) testDestroyInUse(t *testing.T) {
	for range 10 {
		ref := s.generate(t)
		var users crowd
		for range 8 {
			users.start(20, func(int) error {
				_, err := s.token.Encrypt(t.Context(), hsm.Sealing{Key: ref}, []byte("in use"))
				return err
			})
		}
		require.NoError(t, s.token.DestroyKey(t.Context(), ref))
		_, err := s.token.Encrypt(t.Context(), hsm.Sealing{Key: ref}, []byte("afterwards"))
		if s.domain == "" {
			requireClass(t, err, hsm.KeyMissing)
		} else {
			require.NoError(t, err)
		}
		for _, err := range users.wait() {
			require.Empty(t, s.domain)
			requireClass(t, err, hsm.KeyMissing, hsm.Failed, hsm.Unsupported)
		}
	}
}
