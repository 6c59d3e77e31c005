package hsmtest

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/publickey"
)

// known is a key of which the suite has the material.
type known struct {
	kind     hsm.KeyKind
	material []byte
	// public is the SubjectPublicKeyInfo of a key pair.
	public []byte
	// agree gives the secret of an agreement with it and the point of the other party.
	agree func() (point, secret []byte)
	// sign gives the signature that there is of a message, for keys that sign a message in one way alone.
	sign func(message []byte) []byte
}

// A key on secp256k1 as OpenSSL writes it, because the standard library has no such keys.
const (
	secp256k1Private = "308184020100301006072a8648ce3d020106052b8104000a046d306b0201010420e17463d29025962cf14ba6c97c3f111427c6a8c4b9867605c7816c4540d70be9" +
		"a1440342000407d39456eb27a031b1c395a02c36e9e740bea0c0fe169f4e94f71c70701e7ea5317397a7f6687c38a04585248716d7535a13827948a2b2b0c7dcc8b049f0eea9"
	secp256k1Public = "3056301006072a8648ce3d020106052b8104000a0342000407d39456eb27a031b1c395a02c36e9e740bea0c0fe169f4e94f71c70701e7ea5" +
		"317397a7f6687c38a04585248716d7535a13827948a2b2b0c7dcc8b049f0eea9"
)

var (
	importHMACs = map[hsm.KeyKind]struct {
		size      int
		algorithm hsm.Algorithm
		hash      func() hash.Hash
	}{
		hsm.HMAC224: {28, hsm.HMACWithSHA224, sha256.New224}, hsm.HMAC256: {32, hsm.HMACWithSHA256, sha256.New},
		hsm.HMAC384: {48, hsm.HMACWithSHA384, sha512.New384}, hsm.HMAC512: {64, hsm.HMACWithSHA512, sha512.New},
	}
	importCurves = map[hsm.KeyKind]elliptic.Curve{
		hsm.P256Sign: elliptic.P256(), hsm.P384Sign: elliptic.P384(), hsm.P521Sign: elliptic.P521(),
		hsm.P256Derive: elliptic.P256(), hsm.P384Derive: elliptic.P384(), hsm.P521Derive: elliptic.P521(),
	}
	importRSA = map[hsm.KeyKind]int{
		hsm.RSA2048Decrypt: 2048, hsm.RSA2048Sign: 2048, hsm.RSA3072Decrypt: 3072, hsm.RSA3072Sign: 3072, hsm.RSA4096Decrypt: 4096, hsm.RSA4096Sign: 4096,
	}
)

// otherKinds gives the kinds to import, hsm.AES256 apart. Large RSA keys take seconds to make.
func (s *suite) otherKinds() []hsm.KeyKind {
	kinds := slices.Concat(slices.Collect(maps.Keys(importHMACs)), slices.Collect(maps.Keys(importCurves)), []hsm.KeyKind{hsm.Secp256k1Sign, hsm.Ed25519Sign})
	for kind, bits := range importRSA {
		if s.cfg.ImportKinds == nil || bits == 2048 {
			kinds = append(kinds, kind)
		}
	}
	slices.Sort(kinds)
	return kinds
}

// newKnown makes up a key.
func newKnown(t *testing.T, kind hsm.KeyKind) known {
	t.Helper()
	k := known{kind: kind}
	if h, ok := importHMACs[kind]; ok {
		k.material = random(h.size)
		return k
	}
	if kind == hsm.Secp256k1Sign {
		k.material, k.public = fromHex(t, secp256k1Private), fromHex(t, secp256k1Public)
		return k
	}
	if kind == hsm.Ed25519Sign {
		public, private, err := ed25519.GenerateKey(rand.Reader)
		require.NoError(t, err)
		k.encode(t, private, public)
		k.sign = func(message []byte) []byte { return ed25519.Sign(private, message) }
		return k
	}
	if curve, ok := importCurves[kind]; ok {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		require.NoError(t, err)
		k.encode(t, key, &key.PublicKey)
		k.agree = func() (point, secret []byte) {
			ours, err := key.ECDH()
			require.NoError(t, err)
			other, err := ours.Curve().GenerateKey(rand.Reader)
			require.NoError(t, err)
			secret, err = ours.ECDH(other.PublicKey())
			require.NoError(t, err)
			return other.PublicKey().Bytes(), secret
		}
		return k
	}
	key, err := rsa.GenerateKey(rand.Reader, importRSA[kind])
	require.NoError(t, err)
	k.encode(t, key, &key.PublicKey)
	return k
}

func (k *known) encode(t *testing.T, private, public any) {
	t.Helper()
	var err error
	k.material, err = x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	k.public, err = x509.MarshalPKIXPublicKey(public)
	require.NoError(t, err)
}

func fromHex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	require.NoError(t, err)
	return b
}

// fingerprint is the definition, in Go, which must never change: stores keep fingerprints.
func (k known) fingerprint(nonce []byte) [32]byte {
	const prefix = "hsmkms key material fingerprint"
	evidence := k.public
	if h, ok := importHMACs[k.kind]; ok {
		message := sha256.Sum256(append([]byte(prefix+"\x00"), nonce...))
		mac := hmac.New(h.hash, k.material)
		mac.Write(message[:])
		evidence = mac.Sum(nil)
	}
	text := binary.BigEndian.AppendUint64([]byte(prefix), uint64(len(nonce)))
	return sha256.Sum256(append(append(text, nonce...), evidence...))
}

// routesOf gives the ways that the token has for a kind.
func (s *suite) routesOf(t *testing.T, kind hsm.KeyKind) []hsm.ImportWrap {
	t.Helper()
	routes, err := s.token.ImportRoutes(t.Context(), kind)
	require.NoError(t, err)
	return slices.Sorted(maps.Keys(routes))
}

// importAs asks for the import of material of a kind, under the smallest key pair that it fits under.
func (s *suite) importAs(t *testing.T, kind hsm.KeyKind, wrap hsm.ImportWrap, material []byte) hsm.ImportRequest {
	t.Helper()
	pair := hsm.RSA2048Import
	if (wrap == hsm.OAEPSHA1 || wrap == hsm.OAEPSHA256) && len(material) > 190 {
		pair = hsm.RSA3072Import
	}
	r := s.importOf(t, pair, wrap, material)
	r.Kind = kind
	return r
}

// isRSA tells whether keys of a kind need an AES key on their way: OAEP does not take them.
func isRSA(kind hsm.KeyKind) bool { return strings.HasPrefix(string(kind), "RSA_") }

// testImportKinds imports keys of every kind in every way, and holds what they do against Go.
func (s *suite) testImportKinds(t *testing.T) {
	for _, kind := range s.otherKinds() {
		wraps := s.routesOf(t, kind)
		if transported := slices.Contains(s.routesOf(t, hsm.AES256), hsm.RSAAESSHA1); isRSA(kind) && !transported {
			require.Empty(t, wraps, "%s is too long for OAEP alone", kind)
			continue
		}
		require.NotEmpty(t, wraps, "%s cannot be imported", kind)
		key := newKnown(t, kind)
		for _, wrap := range wraps {
			made := s.mustImport(t, s.importAs(t, kind, wrap, key.material))
			require.Equal(t, key.public, made.Key.Public, "%s, %s", kind, wrap)
			require.Equal(t, key.fingerprint([]byte("owner")), made.Fingerprint, "%s, %s", kind, wrap)
			require.Equal(t, kind, made.Key.Kind)
			support, err := s.token.Support(t.Context(), kind)
			require.NoError(t, err)
			require.Equal(t, s.domain != "" && support.Wraps, len(made.Key.Wrapped) > 0)
			s.requireWorks(t, key, made.Key)
			s.requireProtected(t, made.Key)
			require.NoError(t, s.token.DestroyKey(t.Context(), made.Key))
			require.Empty(t, s.cfg.Attributes(t, made.Key.ID))
		}
	}
}

// requireWorks demands of a key what only the material can do.
func (s *suite) requireWorks(t *testing.T, k known, ref hsm.KeyRef) {
	t.Helper()
	support, err := s.token.Support(t.Context(), k.kind)
	require.NoError(t, err)
	require.NotEmpty(t, support.Algorithms)
	for a := range support.Algorithms {
		switch {
		case importHMACs[k.kind].size > 0:
			mac, err := s.token.MAC(t.Context(), ref, a, []byte("message"))
			require.NoError(t, err)
			want := hmac.New(importHMACs[k.kind].hash, k.material)
			want.Write([]byte("message"))
			require.Equal(t, want.Sum(nil), mac)
		case a == hsm.ECDH:
			point, want := k.agree()
			secret, err := s.token.DeriveSecret(t.Context(), ref, point)
			require.NoError(t, err)
			require.Equal(t, want, secret)
		case a == hsm.OAEPWithSHA1 || a == hsm.OAEPWithSHA256:
			public, err := publickey.Parse(k.public)
			require.NoError(t, err)
			data, err := public.Encrypt(string(a), []byte("plaintext"))
			require.NoError(t, err)
			s.requireDecrypts(t, hsm.Opening{Key: ref, Algorithm: a, Sealed: hsm.Sealed{Data: data}}, []byte("plaintext"))
		case k.sign != nil:
			signature, err := s.token.Sign(t.Context(), hsm.Signing{Key: ref, Algorithm: a, Input: []byte("message")})
			require.NoError(t, err)
			require.Equal(t, k.sign([]byte("message")), signature)
		default:
			s.requireSigns(t, k, ref, a)
		}
	}
}

func (s *suite) requireSigns(t *testing.T, k known, ref hsm.KeyRef, a hsm.Algorithm) {
	t.Helper()
	public, err := publickey.Parse(k.public)
	require.NoError(t, err)
	algorithm, ok := publickey.Signing(string(a))
	require.True(t, ok)
	digest := random(algorithm.Hash.Size())
	signature, err := s.token.Sign(t.Context(), hsm.Signing{Key: ref, Algorithm: a, Input: digest})
	require.NoError(t, err)
	require.NoError(t, public.Verify(publickey.Signed{Algorithm: string(a), Type: publickey.Digest, Message: digest, Signature: signature}))
}

// ecInfo is a private key on an elliptic curve as PKCS#8 has it, to be put together in other ways than Go does.
type ecInfo struct {
	Version   int
	Algorithm struct {
		Algorithm asn1.ObjectIdentifier
		Curve     asn1.ObjectIdentifier `asn1:"optional"`
	}
	Key []byte
}

type ecKey struct {
	Version int
	Key     []byte
	Curve   asn1.ObjectIdentifier `asn1:"optional,explicit,tag:0"`
	Point   asn1.BitString        `asn1:"optional,explicit,tag:1"`
}

// p256 puts a key on P-256 together, change by change.
func p256(t *testing.T, changes ...func(*ecInfo, *ecKey)) (known, *ecdh.PrivateKey) {
	t.Helper()
	private, err := ecdh.P256().GenerateKey(rand.Reader)
	require.NoError(t, err)
	info, key := ecInfo{}, ecKey{Version: 1, Key: private.Bytes()}
	info.Algorithm.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	info.Algorithm.Curve = asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
	for _, change := range changes {
		change(&info, &key)
	}
	info.Key, err = asn1.Marshal(key)
	require.NoError(t, err)
	k := known{kind: hsm.P256Sign}
	k.material, err = asn1.Marshal(info)
	require.NoError(t, err)
	k.public, err = x509.MarshalPKIXPublicKey(private.PublicKey())
	require.NoError(t, err)
	return k, private
}

// testImportForms has the forms that PKCS#8 allows for one key.
func (s *suite) testImportForms(t *testing.T) {
	named := func(i *ecInfo, k *ecKey) { k.Curve = i.Algorithm.Curve }
	pointed := func(_ *ecInfo, k *ecKey) {
		private, err := ecdh.P256().NewPrivateKey(k.Key)
		require.NoError(t, err)
		point := private.PublicKey().Bytes()
		k.Point = asn1.BitString{Bytes: point, BitLength: 8 * len(point)}
	}
	for _, wrap := range s.routesOf(t, hsm.P256Sign) {
		for name, changes := range map[string][]func(*ecInfo, *ecKey){
			"bare": nil, "the curve named twice": {named}, "with its point": {pointed}, "with both": {named, pointed},
		} {
			key, _ := p256(t, changes...)
			made, err := s.token.ImportKey(t.Context(), s.importAs(t, hsm.P256Sign, wrap, key.material))
			require.NoError(t, err, "%s: %s", wrap, name)
			require.Equal(t, key.public, made.Key.Public, "%s: %s", wrap, name)
			require.NoError(t, s.token.DestroyKey(t.Context(), made.Key))
		}
	}
}

// edwardsInfo is a private key of Ed25519 as RFC 8410 has it.
type edwardsInfo struct {
	Version    int
	Algorithm  struct{ Algorithm asn1.ObjectIdentifier }
	Key        []byte
	Attributes asn1.RawValue  `asn1:"optional"`
	Public     asn1.BitString `asn1:"optional,tag:1"`
}

// ed25519Key puts a key of Ed25519 together, change by change.
func ed25519Key(t *testing.T, changes ...func(*edwardsInfo)) known {
	t.Helper()
	k := newKnown(t, hsm.Ed25519Sign)
	var info edwardsInfo
	_, err := asn1.Unmarshal(k.material, &info)
	require.NoError(t, err)
	for _, change := range changes {
		change(&info)
	}
	k.material, err = asn1.Marshal(info)
	require.NoError(t, err)
	return k
}

// withPublic gives an edwardsInfo a public key: that of its seed, or of another one.
func withPublic(version int, seed []byte) func(*edwardsInfo) {
	return func(i *edwardsInfo) {
		public := ed25519.NewKeyFromSeed(append(seed, i.Key[2:]...)[:32])[32:]
		i.Version, i.Public = version, asn1.BitString{Bytes: public, BitLength: 256}
	}
}

func withAttributes(i *edwardsInfo) {
	i.Attributes.FullBytes = append([]byte{0xa0, 21, 0x30, 19, 6, 10, 0x2b, 6, 1, 4, 1, 0x82, 0x37, 0x0c, 1, 1, 0x31, 5, 0x0c, 3}, "key"...)
}

// testImportEdwardsForms has the forms of RFC 8410, and what is none of them.
func (s *suite) testImportEdwardsForms(t *testing.T) {
	for _, wrap := range s.routesOf(t, hsm.Ed25519Sign) {
		for name, changes := range map[string][]func(*edwardsInfo){
			"bare": nil, "version 2": {withPublic(1, nil)}, "attributes": {withAttributes}, "version 2 and attributes": {withPublic(1, nil), withAttributes},
		} {
			key := ed25519Key(t, changes...)
			made, err := s.token.ImportKey(t.Context(), s.importAs(t, hsm.Ed25519Sign, wrap, key.material))
			require.NoError(t, err, "%s: %s", wrap, name)
			require.Equal(t, key.public, made.Key.Public, "%s: %s", wrap, name)
			require.NoError(t, s.token.DestroyKey(t.Context(), made.Key))
		}
		for name, material := range notEd25519(t) {
			s.requireNotImported(t, "Ed25519: "+name, s.importAs(t, hsm.Ed25519Sign, wrap, material), hsm.WrongMaterial)
		}
	}
}

// notEd25519 gives material that is no private key of Ed25519.
func notEd25519(t *testing.T) map[string][]byte {
	t.Helper()
	good := ed25519Key(t)
	oid := func(last int) func(*edwardsInfo) {
		return func(i *edwardsInfo) { i.Algorithm.Algorithm = asn1.ObjectIdentifier{1, 3, 101, last} }
	}
	length := func(n int) func(*edwardsInfo) {
		return func(i *edwardsInfo) { i.Key = append([]byte{asn1.TagOctetString, byte(n)}, make([]byte, n)...) }
	}
	null := bytes.Replace(good.material, []byte{0x30, 5, 6, 3}, []byte{0x30, 7, 6, 3}, 1)
	null = append(append(null[:12:12], 5, 0), null[12:]...)
	null[1] += 2
	return map[string][]byte{
		"another public key": ed25519Key(t, withPublic(1, random(32))).material, "a public key in version 1": ed25519Key(t, withPublic(0, nil)).material,
		"version 3": ed25519Key(t, withPublic(2, nil)).material, "X25519": ed25519Key(t, oid(110)).material, "Ed448": ed25519Key(t, oid(113)).material,
		"31 bytes": ed25519Key(t, length(31)).material, "33 bytes": ed25519Key(t, length(33)).material, "no seed": ed25519Key(t, length(0)).material,
		"no octets in the octets": ed25519Key(t, func(i *edwardsInfo) { i.Key = i.Key[2:] }).material, "parameters": null,
		"P-256": newKnown(t, hsm.P256Sign).material, "the public key": good.public, "the seed alone": random(32), "seed and public key": random(64),
		"end cut off": good.material[:len(good.material)-1], "a byte more": append(bytes.Clone(good.material), 0), "noise": random(100),
	}
}

// notP256 gives material that is no private key on P-256.
func notP256(t *testing.T) map[string][]byte {
	t.Helper()
	good, private := p256(t)
	sec1, err := asn1.Marshal(ecKey{Version: 1, Key: private.Bytes(), Curve: asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}})
	require.NoError(t, err)
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	edwardsInfo, err := x509.MarshalPKCS8PrivateKey(edwards)
	require.NoError(t, err)
	wrongName, _ := p256(t, func(i *ecInfo, _ *ecKey) { i.Algorithm.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1} })
	nameless, _ := p256(t, func(i *ecInfo, _ *ecKey) { i.Algorithm.Curve = nil })
	unknownCurve, _ := p256(t, func(i *ecInfo, _ *ecKey) { i.Algorithm.Curve = asn1.ObjectIdentifier{1, 2, 3, 4} })
	zero, _ := p256(t, func(_ *ecInfo, k *ecKey) { k.Key = make([]byte, 32) })
	numberless, _ := p256(t, func(_ *ecInfo, k *ecKey) { k.Key = nil })
	return map[string][]byte{
		"P-384": newKnown(t, hsm.P384Sign).material, "secp256k1": newKnown(t, hsm.Secp256k1Sign).material, "Ed25519": edwardsInfo,
		"the public key": good.public, "SEC 1": sec1, "the number alone": private.Bytes(), "end cut off": good.material[:len(good.material)-1],
		"noise": random(100), "one byte": {0x30}, "zeros": make([]byte, 67), "named as RSA": wrongName.material, "no curve": nameless.material,
		"a curve that is none": unknownCurve.material, "the number 0": zero.material, "no number": numberless.material,
		"text": []byte("-----BEGIN PRIVATE KEY-----"),
	}
}

// testImportWrongKeys has material that is no key of the kind.
func (s *suite) testImportWrongKeys(t *testing.T) {
	for name, material := range notP256(t) {
		for _, kind := range []hsm.KeyKind{hsm.P256Sign, hsm.P256Derive} {
			for _, wrap := range s.routesOf(t, kind) {
				s.requireNotImported(t, string(kind)+": "+name, s.importAs(t, kind, wrap, material), hsm.WrongMaterial)
			}
		}
	}
	for kind, h := range importHMACs {
		for _, wrap := range s.routesOf(t, kind) {
			for _, size := range []int{1, 16, h.size - 4, h.size - 1, h.size + 1, h.size + 4, h.size + 8, 100} {
				s.requireNotImported(t, fmt.Sprintf("%s: %d bytes", kind, size), s.importAs(t, kind, wrap, random(size)), hsm.WrongMaterial)
			}
			ending := s.mustImport(t, s.importAs(t, kind, wrap, append(random(h.size-1), 0))) // which is no shorter for it
			require.NoError(t, s.token.DestroyKey(t.Context(), ending.Key))
		}
	}
	s.testImportWrongRSA(t)
	require.NoError(t, s.token.Check(t.Context()))
}

func (s *suite) testImportWrongRSA(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	good := known{kind: hsm.RSA2048Sign}
	good.encode(t, private, &private.PublicKey)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	short := known{}
	short.encode(t, small, &small.PublicKey)
	curve, _ := p256(t)
	another, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	mixed := bytes.Replace(good.material, private.N.Bytes(), another.N.Bytes(), 1) // the modulus of another key
	for name, material := range map[string][]byte{
		"1024 bits": short.material, "PKCS#1": x509.MarshalPKCS1PrivateKey(private), "a curve": curve.material, "the public key": good.public,
		"end cut off": good.material[:len(good.material)-1], "noise": random(1216), "another modulus": mixed,
	} {
		for _, kind := range []hsm.KeyKind{hsm.RSA2048Sign, hsm.RSA2048Decrypt} {
			for _, wrap := range s.routesOf(t, kind) {
				s.requireNotImported(t, string(kind)+": "+name, s.importAs(t, kind, wrap, material), hsm.WrongMaterial)
			}
		}
	}
	for _, wrap := range s.routesOf(t, hsm.RSA3072Sign) {
		s.requireNotImported(t, "2048 bits", s.importAs(t, hsm.RSA3072Sign, wrap, good.material), hsm.WrongMaterial)
	}
	for _, wrap := range []hsm.ImportWrap{hsm.OAEPSHA1, hsm.OAEPSHA256} { // in which no RSA key fits
		s.requireNotImported(t, "a way that there is not", s.importAs(t, hsm.RSA2048Sign, wrap, random(32)), hsm.Unsupported)
	}
}

// testImportSpoiltKeys has encrypted keys that are not what they should be.
func (s *suite) testImportSpoiltKeys(t *testing.T) {
	for _, kind := range []hsm.KeyKind{hsm.P256Sign, hsm.Ed25519Sign, hsm.HMAC224, hsm.RSA2048Sign} {
		key := newKnown(t, kind)
		for _, wrap := range s.routesOf(t, kind) {
			good := s.importAs(t, kind, wrap, key.material)
			for name, material := range spoilt(good.Material, importBits[hsm.RSA2048Import]/8) {
				r := good
				r.Material = material
				s.requireNotImported(t, string(kind)+": "+name, r, hsm.BadInput)
			}
			made := s.mustImport(t, good)
			require.Equal(t, key.fingerprint([]byte("owner")), made.Fingerprint)
			require.NoError(t, s.token.DestroyKey(t.Context(), made.Key))
		}
	}
}
