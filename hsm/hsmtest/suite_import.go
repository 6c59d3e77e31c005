package hsmtest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
)

// importBits are the kinds of key pairs that material is imported under.
var importBits = map[hsm.KeyKind]int{hsm.RSA2048Import: 2048, hsm.RSA3072Import: 3072, hsm.RSA4096Import: 4096}

// importKinds gives the kinds to test.
func (s *suite) importKinds() []hsm.KeyKind {
	if s.cfg.ImportKinds != nil {
		return s.cfg.ImportKinds
	}
	return slices.Sorted(maps.Keys(importBits))
}

// pair gives the key pair of a kind.
func (s *suite) pair(t *testing.T, kind hsm.KeyKind) hsm.KeyRef {
	t.Helper()
	if s.pairs == nil {
		s.pairs = map[hsm.KeyKind]hsm.KeyRef{}
	}
	if _, ok := s.pairs[kind]; !ok {
		s.pairs[kind] = s.request(t, hsm.KeyRequest{Kind: kind, Label: "import"})
	}
	return s.pairs[kind]
}

// routes gives the ways that the token has.
func (s *suite) routes(t *testing.T) []hsm.ImportWrap {
	t.Helper()
	routes, err := s.token.ImportRoutes(t.Context(), hsm.AES256)
	require.NoError(t, err)
	require.NotEmpty(t, routes, "the token cannot import")
	return slices.Sorted(maps.Keys(routes))
}

// importOf asks for the import of material into the home under test.
func (s *suite) importOf(t *testing.T, kind hsm.KeyKind, wrap hsm.ImportWrap, material []byte) hsm.ImportRequest {
	t.Helper()
	under := s.pair(t, kind)
	return hsm.ImportRequest{
		Under: under, Wrap: wrap, Material: EncryptMaterial(t, under.Public, wrap, material), Kind: hsm.AES256, Label: "imported",
		WrapUnder: s.domain, Nonce: []byte("owner"),
	}
}

func (s *suite) mustImport(t *testing.T, r hsm.ImportRequest) hsm.Imported {
	t.Helper()
	made, err := s.token.ImportKey(t.Context(), r)
	require.NoError(t, err, "%s under %s", r.Wrap, r.Under.Kind)
	return made
}

func (s *suite) testImportRoutes(t *testing.T) {
	first, err := s.token.ImportRoutes(t.Context(), hsm.AES256)
	require.NoError(t, err)
	require.NotEmpty(t, first)
	kept := maps.Clone(first)
	for wrap, route := range first {
		require.Contains(t, []hsm.ImportWrap{hsm.OAEPSHA1, hsm.OAEPSHA256, hsm.RSAAESSHA1, hsm.RSAAESSHA256}, wrap)
		require.Contains(t, []hsm.Route{hsm.OnToken, hsm.InProcess}, route)
	}
	clear(first) // it is the caller's
	count := s.cfg.Count(t)
	again, err := s.token.ImportRoutes(t.Context(), hsm.AES256)
	require.NoError(t, err)
	require.Equal(t, kept, again)
	require.Equal(t, count, s.cfg.Count(t))
}

func (s *suite) testImportPairs(t *testing.T) {
	for _, kind := range s.importKinds() {
		s.routes(t)
		before := s.cfg.Count(t)
		ref := s.pair(t, kind)
		require.Equal(t, before+1, s.cfg.Count(t), "a pair leaves one object: its private key")
		require.Equal(t, hsm.KeyRef{ID: ref.ID, Kind: kind, Public: ref.Public}, ref)
		parsed, err := x509.ParsePKIXPublicKey(ref.Public)
		require.NoError(t, err)
		public, ok := parsed.(*rsa.PublicKey)
		require.True(t, ok)
		require.Equal(t, importBits[kind], public.N.BitLen())
		require.Equal(t, 65537, public.E)
		require.Equal(t, []Attributes{{Token: true, Sensitive: true}}, s.cfg.Attributes(t, ref.ID))
		objects, err := s.token.Objects(t.Context())
		require.NoError(t, err)
		listed := slices.DeleteFunc(objects, func(o hsm.Object) bool { return o.ID != ref.ID })
		require.Equal(t, []hsm.Object{{ID: ref.ID, Label: "import"}}, listed)
		_, err = s.token.Encrypt(t.Context(), hsm.Sealing{Key: ref}, []byte("plaintext"))
		requireClass(t, err, hsm.Failed, hsm.Unsupported)
	}
	s.testPairDestroyed(t)
}

func (s *suite) testPairDestroyed(t *testing.T) {
	domain := s.request(t, hsm.KeyRequest{Kind: hsm.AES256Wrap, Label: "refusing"}).ID
	_, err := s.token.GenerateKey(t.Context(), hsm.KeyRequest{Kind: hsm.RSA2048Import, WrapUnder: domain})
	requireClass(t, err, hsm.Unsupported)
	r := s.importOf(t, hsm.RSA2048Import, s.routes(t)[0], random(32))
	require.NoError(t, s.token.DestroyKey(t.Context(), r.Under))
	delete(s.pairs, hsm.RSA2048Import)
	_, err = s.token.ImportKey(t.Context(), r)
	requireClass(t, err, hsm.KeyMissing)
	require.Empty(t, s.cfg.Attributes(t, r.Under.ID))
	require.NoError(t, s.token.DestroyKey(t.Context(), r.Under))
}

// testImportKey imports in every way, and has Go decrypt with the material what the token encrypted.
func (s *suite) testImportKey(t *testing.T) {
	for _, kind := range s.importKinds() {
		for _, wrap := range s.routes(t) {
			material := random(32)
			made := s.mustImport(t, s.importOf(t, kind, wrap, material))
			s.requireHome(t, made.Key)
			o := s.seal(t, hsm.Sealing{Key: made.Key, AAD: randomAAD()}, []byte("plaintext"))
			requireMaterial(t, material, o, "plaintext")
			s.requireOpens(t, o, []byte("plaintext"))
			forged := o
			forged.AAD[0] ^= 1
			_, err := s.token.Decrypt(t.Context(), forged)
			requireClass(t, err, hsm.BadInput)
			s.requireProtected(t, made.Key)
			if wrap == s.routes(t)[0] && kind == hsm.RSA2048Import {
				s.token = s.cfg.Reopen(t)
				s.requireOpens(t, o, []byte("plaintext"))
			}
			require.NoError(t, s.token.DestroyKey(t.Context(), made.Key))
			if s.domain == "" {
				s.requireGone(t, o)
			}
		}
	}
}

// requireProtected demands that no object of a key gives it away.
func (s *suite) requireProtected(t *testing.T, ref hsm.KeyRef) {
	t.Helper()
	objects := s.cfg.Attributes(t, ref.ID)
	require.NotEmpty(t, objects)
	persistent := 0
	for _, a := range objects {
		if a.Token {
			persistent++
		}
		require.Equal(t, Attributes{Token: a.Token, Sensitive: true}, a)
	}
	require.Equal(t, len(ref.Wrapped) == 0, persistent == 1)
}

// requireMaterial demands that o was encrypted under the material.
func requireMaterial(t *testing.T, material []byte, o hsm.Opening, plaintext string) {
	t.Helper()
	block, err := aes.NewCipher(material)
	require.NoError(t, err)
	gcm, err := cipher.NewGCM(block)
	require.NoError(t, err)
	got, err := gcm.Open(nil, o.Sealed.IV[:], o.Sealed.Data, o.AAD[:])
	require.NoError(t, err)
	require.Equal(t, plaintext, string(got))
}

// fingerprint is the definition, in Go, which must never change: stores keep fingerprints.
func fingerprint(t *testing.T, material, nonce []byte) [32]byte {
	t.Helper()
	const prefix = "hsmkms key material fingerprint"
	block, err := aes.NewCipher(material)
	require.NoError(t, err)
	blocks := sha256.Sum256(append([]byte(prefix+"\x00"), nonce...))
	for b := range slices.Chunk(blocks[:], aes.BlockSize) {
		block.Encrypt(b, b)
	}
	text := binary.BigEndian.AppendUint64([]byte(prefix), uint64(len(nonce)))
	return sha256.Sum256(append(append(text, nonce...), blocks[:]...))
}

func (s *suite) testImportFingerprint(t *testing.T) {
	domain := s.request(t, hsm.KeyRequest{Kind: hsm.AES256Wrap, Label: "other domain"}).ID
	material, seen := random(32), map[[32]byte]bool{}
	for _, nonce := range [][]byte{nil, {}, []byte("a"), []byte("another"), random(100)} {
		for _, wrap := range s.routes(t) {
			for _, under := range []hsm.KeyID{"", domain} {
				r := s.importOf(t, hsm.RSA2048Import, wrap, material)
				r.Nonce, r.WrapUnder = nonce, under
				made := s.mustImport(t, r)
				require.Equal(t, fingerprint(t, material, nonce), made.Fingerprint)
				require.NoError(t, s.token.DestroyKey(t.Context(), made.Key))
				seen[made.Fingerprint] = true
			}
		}
	}
	require.Len(t, seen, 4, "the nonce does not matter")
	for _, i := range []int{0, 31} {
		other := slices.Clone(material)
		other[i] ^= 1
		made := s.mustImport(t, s.importOf(t, hsm.RSA2048Import, s.routes(t)[0], other))
		require.Equal(t, fingerprint(t, other, []byte("owner")), made.Fingerprint)
		require.NotEqual(t, fingerprint(t, material, []byte("owner")), made.Fingerprint)
		require.NoError(t, s.token.DestroyKey(t.Context(), made.Key))
	}
}

// requireNotImported demands a failure that leaves nothing behind, and a token that works afterwards.
func (s *suite) requireNotImported(t *testing.T, name string, r hsm.ImportRequest, classes ...hsm.Class) {
	t.Helper()
	before := s.cfg.Count(t)
	made, err := s.token.ImportKey(t.Context(), r)
	require.Error(t, err, "%s: %s", r.Wrap, name)
	require.Contains(t, classes, hsm.ClassOf(err), "%s: %s: %v", r.Wrap, name, err)
	require.Zero(t, made)
	require.LessOrEqual(t, s.cfg.Count(t), before, "%s: %s: objects were left behind", r.Wrap, name) // copies may have gone
}

// testImportWrongMaterial has material that is no AES-256 key. Lengths near 32 bytes matter most: they look the same
// when they are wrapped.
func (s *suite) testImportWrongMaterial(t *testing.T) {
	for _, kind := range s.importKinds() {
		for _, wrap := range s.routes(t) {
			for _, size := range []int{1, 8, 16, 24, 25, 31, 33, 39, 40, 48, 64} {
				r := s.importOf(t, kind, wrap, random(size))
				s.requireNotImported(t, fmt.Sprintf("%d bytes", size), r, hsm.WrongMaterial)
			}
			trailing := s.importOf(t, kind, wrap, append(random(31), 0))
			made := s.mustImport(t, trailing) // a key that ends in 0 is no key of 31 bytes
			require.NoError(t, s.token.DestroyKey(t.Context(), made.Key))
		}
	}
	for _, wrap := range s.routes(t) {
		if wrap == hsm.OAEPSHA1 || wrap == hsm.OAEPSHA256 {
			s.requireNotImported(t, "nothing", s.importOf(t, hsm.RSA2048Import, wrap, nil), hsm.WrongMaterial, hsm.BadInput)
		} else {
			s.requireNotImported(t, "1 kB", s.importOf(t, hsm.RSA2048Import, wrap, random(1200)), hsm.WrongMaterial)
		}
	}
	require.NoError(t, s.token.Check(t.Context()))
}

// testImportBadInput has encrypted material that is not what it should be. Nothing may tell in what it differs.
func (s *suite) testImportBadInput(t *testing.T) {
	other := s.request(t, hsm.KeyRequest{Kind: hsm.RSA2048Import, Label: "another pair"})
	for _, kind := range s.importKinds() {
		for _, wrap := range s.routes(t) {
			good := s.importOf(t, kind, wrap, random(32))
			for name, material := range spoilt(good.Material, importBits[kind]/8) {
				r := good
				r.Material = material
				s.requireNotImported(t, name, r, hsm.BadInput)
			}
			made := s.mustImport(t, good)
			require.NoError(t, s.token.DestroyKey(t.Context(), made.Key))
		}
	}
	for _, wrap := range s.routes(t) {
		r := s.importOf(t, hsm.RSA2048Import, wrap, random(32))
		r.Under = other
		s.requireNotImported(t, "of another pair", r, hsm.BadInput)
		for _, claimed := range s.routes(t) {
			if claimed != wrap {
				r := s.importOf(t, hsm.RSA2048Import, wrap, random(32))
				r.Wrap = claimed
				s.requireNotImported(t, "encrypted by "+string(wrap), r, hsm.BadInput)
			}
		}
	}
	s.testImportSpoiltTransport(t)
	require.NoError(t, s.token.DestroyKey(t.Context(), other))
	require.NoError(t, s.token.Check(t.Context()))
}

// testImportSpoiltTransport has AES keys over the material that are none.
func (s *suite) testImportSpoiltTransport(t *testing.T) {
	for _, wrap := range s.routes(t) {
		if wrap != hsm.RSAAESSHA1 && wrap != hsm.RSAAESSHA256 {
			continue
		}
		r := s.importOf(t, hsm.RSA2048Import, wrap, random(32))
		for _, size := range []int{0, 1, 15, 31, 33, 64} {
			r.Material = append(encryptOAEP(t, r.Under.Public, wrap, random(size)), wrapKWP(t, random(32), random(32))...)
			s.requireNotImported(t, fmt.Sprintf("a transport key of %d bytes", size), r, hsm.BadInput)
		}
		r.Material = append(encryptOAEP(t, r.Under.Public, wrap, random(32)), wrapKWP(t, random(32), random(32))...)
		s.requireNotImported(t, "under another transport key", r, hsm.BadInput)
	}
}

// spoilt gives copies of encrypted material each of which has another thing wrong. modulus is in bytes.
func spoilt(good []byte, modulus int) map[string][]byte {
	all := map[string][]byte{
		"nil": nil, "empty": {}, "one byte": {1}, "end cut off": good[:len(good)-1], "begin cut off": good[1:],
		"a byte appended": append(slices.Clone(good), 0), "zero in front": append([]byte{0}, good...),
		"zeros": make([]byte, len(good)), "ones": slices.Repeat([]byte{0xff}, len(good)),
		"random":  append([]byte{0}, random(len(good)-1)...),
		"8 bytes": good[:8], "half": good[:len(good)/2], "twice": slices.Repeat(good, 2),
		"a block appended": append(slices.Clone(good), make([]byte, 8)...), "a block cut off": good[:len(good)-8],
		"a megabyte": make([]byte, 1<<20), "modulus alone": make([]byte, modulus), "two blocks after zeros": make([]byte, modulus+16),
		"one block after it": append(slices.Clone(good[:modulus]), make([]byte, 8)...),
	}
	for _, i := range []int{0, 1, modulus / 2, modulus - 1, len(good) - 1, len(good) - 8, modulus % len(good)} {
		tampered := slices.Clone(good)
		tampered[i] ^= 1
		all[fmt.Sprintf("byte %d", i)] = tampered
	}
	return all
}

func (s *suite) testImportRefused(t *testing.T) {
	crypting := s.request(t, hsm.KeyRequest{Kind: hsm.AES256, Label: "refusing"})
	for name, c := range map[string]struct {
		change  func(*hsm.ImportRequest)
		classes []hsm.Class
	}{
		"no kind":                        {func(r *hsm.ImportRequest) { r.Kind = "" }, []hsm.Class{hsm.Unsupported}},
		"a wrapping key":                 {func(r *hsm.ImportRequest) { r.Kind = hsm.AES256Wrap }, []hsm.Class{hsm.Unsupported}},
		"a key pair":                     {func(r *hsm.ImportRequest) { r.Kind = hsm.RSA2048Import }, []hsm.Class{hsm.Unsupported}},
		"no way":                         {func(r *hsm.ImportRequest) { r.Wrap = "" }, []hsm.Class{hsm.Unsupported}},
		"PKCS#1 v1.5":                    {func(r *hsm.ImportRequest) { r.Wrap = "RSAES_PKCS1_V1_5" }, []hsm.Class{hsm.Unsupported}},
		"under a key that encrypts":      {func(r *hsm.ImportRequest) { r.Under = crypting }, []hsm.Class{hsm.Unsupported}},
		"under a missing pair":           {func(r *hsm.ImportRequest) { r.Under.ID = unknownKey() }, []hsm.Class{hsm.KeyMissing}},
		"under no key name":              {func(r *hsm.ImportRequest) { r.Under.ID = "pair" }, []hsm.Class{hsm.KeyMissing}},
		"no public key":                  {func(r *hsm.ImportRequest) { r.Under.Public = nil }, []hsm.Class{hsm.Failed}},
		"another size":                   {func(r *hsm.ImportRequest) { r.Under.Kind = hsm.RSA4096Import }, []hsm.Class{hsm.Failed}},
		"an object of another kind":      {func(r *hsm.ImportRequest) { r.Under.ID = crypting.ID }, []hsm.Class{hsm.Failed}},
		"unknown domain":                 {func(r *hsm.ImportRequest) { r.WrapUnder = unknownKey() }, []hsm.Class{hsm.KeyMissing}},
		"domain that is no wrapping key": {func(r *hsm.ImportRequest) { r.WrapUnder = crypting.ID }, []hsm.Class{hsm.Failed, hsm.Unsupported}},
	} {
		for _, wrap := range s.routes(t) {
			r := s.importOf(t, hsm.RSA2048Import, wrap, random(32))
			c.change(&r)
			s.requireNotImported(t, name, r, c.classes...)
		}
	}
}
