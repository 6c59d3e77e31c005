package hsmtest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/publickey"
)

// specs gives the key spec of the public key of every kind of pair that signs or agrees.
var specs = map[hsm.KeyKind]string{
	hsm.RSA2048Sign: "RSA_2048", hsm.RSA3072Sign: "RSA_3072", hsm.RSA4096Sign: "RSA_4096",
	hsm.RSA2048Decrypt: "RSA_2048", hsm.RSA3072Decrypt: "RSA_3072", hsm.RSA4096Decrypt: "RSA_4096",
	hsm.P256Sign: "ECC_NIST_P256", hsm.P384Sign: "ECC_NIST_P384", hsm.P521Sign: "ECC_NIST_P521",
	hsm.Secp256k1Sign: "ECC_SECG_P256K1", hsm.Ed25519Sign: "ECC_NIST_EDWARDS25519",
	hsm.P256Derive: "ECC_NIST_P256", hsm.P384Derive: "ECC_NIST_P384", hsm.P521Derive: "ECC_NIST_P521",
}

// macSizes gives the algorithm of every kind of key that makes MACs, and their length.
var macSizes = map[hsm.KeyKind]struct {
	algorithm hsm.Algorithm
	size      int
}{
	hsm.HMAC224: {hsm.HMACWithSHA224, 28}, hsm.HMAC256: {hsm.HMACWithSHA256, 32},
	hsm.HMAC384: {hsm.HMACWithSHA384, 48}, hsm.HMAC512: {hsm.HMACWithSHA512, 64},
}

var agreements = map[hsm.KeyKind]ecdh.Curve{hsm.P256Derive: ecdh.P256(), hsm.P384Derive: ecdh.P384(), hsm.P521Derive: ecdh.P521()}

// kinds gives the kinds to test.
func (s *suite) kinds() []hsm.KeyKind {
	if s.cfg.Kinds != nil {
		return s.cfg.Kinds
	}
	return append(slices.Sorted(maps.Keys(specs)), slices.Sorted(maps.Keys(macSizes))...)
}

// support demands that a kind is supported.
func (s *suite) support(t *testing.T, kind hsm.KeyKind) hsm.Support {
	t.Helper()
	support, err := s.token.Support(t.Context(), kind)
	require.NoError(t, err)
	require.NotEmpty(t, support.Algorithms, kind)
	return support
}

// key gives the key of a kind, in the home under test, that no test destroys.
func (s *suite) key(t *testing.T, kind hsm.KeyKind) hsm.KeyRef {
	t.Helper()
	if s.made == nil {
		s.made = map[hsm.KeyKind]hsm.KeyRef{}
	}
	if _, ok := s.made[kind]; !ok {
		s.made[kind] = s.request(t, hsm.KeyRequest{Kind: kind, Label: "suite", WrapUnder: s.domain})
	}
	return s.made[kind]
}

// use has a key do all that its kind can, and checks the results with Go.
func (s *suite) use(ctx context.Context, support hsm.Support, ref hsm.KeyRef) error {
	for a := range support.Algorithms {
		var err error
		switch {
		case a == hsm.ECDH:
			err = s.agree(ctx, ref)
		case macSizes[ref.Kind].size > 0:
			err = s.mac(ctx, ref)
		case strings.HasPrefix(string(a), "RSAES"): // decrypts
		default:
			err = s.sign(ctx, ref, a)
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", ref.Kind, a, err)
		}
	}
	return nil
}

func (s *suite) sign(ctx context.Context, ref hsm.KeyRef, a hsm.Algorithm) error {
	public, err := publickey.Parse(ref.Public)
	if err != nil {
		return err
	}
	algorithm, known := publickey.Signing(string(a))
	if !known {
		return fmt.Errorf("unknown algorithm %s", a)
	}
	signed := publickey.Signed{Algorithm: string(a), Type: publickey.Digest, Message: random(algorithm.Hash.Size())}
	w := hsm.Signing{Key: ref, Algorithm: a, Input: signed.Message}
	switch a { //nolint:exhaustive // the others sign a digest
	case hsm.Ed25519:
		signed.Type, signed.Message = publickey.Raw, random(hsm.MaxMessage)
		w.Input = signed.Message
	case hsm.Ed25519ph:
		digest := sha512.Sum512(signed.Message)
		w.Input = digest[:]
	}
	before := bytes.Clone(w.Input)
	if signed.Signature, err = s.token.Sign(ctx, w); err != nil {
		return err
	}
	if !bytes.Equal(before, w.Input) {
		return errors.New("the input was changed")
	}
	return public.Verify(signed)
}

func (s *suite) mac(ctx context.Context, ref hsm.KeyRef) error {
	kind, message := macSizes[ref.Kind], random(hsm.MaxMessage)
	first, err := s.token.MAC(ctx, ref, kind.algorithm, message)
	if err != nil {
		return err
	}
	second, err := s.token.MAC(ctx, ref, kind.algorithm, message)
	if err != nil {
		return err
	}
	other, err := s.token.MAC(ctx, ref, kind.algorithm, message[:1])
	if err != nil {
		return err
	}
	if len(first) != kind.size || !bytes.Equal(first, second) || bytes.Equal(first, other) {
		return fmt.Errorf("MACs %x, %x and, of another message, %x", first, second, other)
	}
	return nil
}

func (s *suite) agree(ctx context.Context, ref hsm.KeyRef) error {
	public, err := publickey.Parse(ref.Public)
	if err != nil {
		return err
	}
	curve := agreements[ref.Kind]
	ours, err := curve.NewPublicKey(public.Point())
	if err != nil {
		return err
	}
	other, err := curve.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	want, err := other.ECDH(ours)
	if err != nil {
		return err
	}
	got, err := s.token.DeriveSecret(ctx, ref, other.PublicKey().Bytes())
	if err == nil && !bytes.Equal(got, want) {
		err = errors.New("another secret than Go's")
	}
	return err
}

func (s *suite) testSupport(t *testing.T) {
	for _, kind := range s.kinds() {
		first := s.support(t, kind)
		kept := maps.Clone(first.Algorithms)
		clear(first.Algorithms) // it is the caller's
		count := s.cfg.Count(t)
		again := s.support(t, kind)
		require.Equal(t, kept, again.Algorithms)
		require.Equal(t, count, s.cfg.Count(t), "%s: something was left, or made again", kind)
		for a, route := range kept {
			require.True(t, route == hsm.OnToken || route == hsm.InProcess && strings.HasPrefix(string(a), "RSAES"), "%s %s", kind, a)
		}
	}
	support, err := s.token.Support(t.Context(), hsm.AES256)
	require.NoError(t, err)
	require.Equal(t, hsm.Support{Algorithms: map[hsm.Algorithm]hsm.Route{hsm.SymmetricDefault: hsm.OnToken}, Wraps: true}, support)
	for _, kind := range []hsm.KeyKind{"", "DES"} {
		support, err := s.token.Support(t.Context(), kind)
		require.NoError(t, err)
		require.Empty(t, support.Algorithms)
	}
}

// testPairs makes a key of every kind, which must work at once, and looks at what is on the token.
func (s *suite) testPairs(t *testing.T) {
	for _, kind := range s.kinds() {
		support, ref := s.support(t, kind), s.key(t, kind)
		require.NoError(t, s.use(t.Context(), support, ref))
		require.Equal(t, kind, ref.Kind)
		require.Empty(t, ref.Proof)
		require.Equal(t, specs[kind] == "", ref.Public == nil)
		if specs[kind] != "" {
			public, err := publickey.Parse(ref.Public)
			require.NoError(t, err)
			require.Equal(t, specs[kind], public.Spec())
		}
		persistent := s.domain == "" || !support.Wraps
		require.Equal(t, persistent, len(ref.Wrapped) == 0)
		if !persistent {
			require.Equal(t, s.domain, ref.WrappedBy)
			require.Contains(t, []hsm.WrapFormat{hsm.WrapKWP, hsm.WrapPKCS7}, ref.WrapFormat)
		}
		objects := 0
		for _, a := range s.cfg.Attributes(t, ref.ID) {
			require.Equal(t, Attributes{Token: a.Token, Sensitive: true}, a, "%s", kind)
			if a.Token {
				objects++
			}
		}
		require.Equal(t, map[bool]int{true: 1}[persistent], objects)
		listed, err := s.token.Objects(t.Context())
		require.NoError(t, err)
		require.Equal(t, persistent, slices.Contains(listed, hsm.Object{ID: ref.ID, Label: "suite"}))
	}
	another := s.request(t, hsm.KeyRequest{Kind: hsm.P256Sign, WrapUnder: s.domain})
	require.NotEqual(t, another.Public, s.key(t, hsm.P256Sign).Public)
}

// testPairsReopened demands that keys of every kind outlive the process, and that a wrapped one is loaded again and again.
func (s *suite) testPairsReopened(t *testing.T) {
	s.token = s.cfg.Reopen(t)
	for range 2 {
		for _, kind := range s.kinds() {
			ref := s.key(t, kind)
			switch {
			case agreements[kind] != nil:
				require.NoError(t, s.agree(t.Context(), ref))
			case macSizes[kind].size > 0:
				require.NoError(t, s.mac(t.Context(), ref))
			case strings.HasSuffix(string(kind), "SIGN"):
				require.NoError(t, s.sign(t.Context(), ref, hsm.Algorithm(publickey.SigningOf(specs[kind])[0])))
			}
		}
	}
}

func (s *suite) testPairsDestroyed(t *testing.T) {
	for _, kind := range []hsm.KeyKind{hsm.P256Sign, hsm.Ed25519Sign, hsm.P384Derive, hsm.HMAC256} {
		ref := s.request(t, hsm.KeyRequest{Kind: kind, WrapUnder: s.domain})
		support := s.support(t, kind)
		require.NoError(t, s.use(t.Context(), support, ref))
		require.NoError(t, s.token.DestroyKey(t.Context(), ref))
		require.Empty(t, s.cfg.Attributes(t, ref.ID))
		err := s.use(t.Context(), support, ref)
		if len(ref.Wrapped) > 0 {
			require.NoError(t, err)
		} else {
			require.Equal(t, hsm.KeyMissing, hsm.ClassOf(err), "%v", err)
		}
		require.NoError(t, s.token.DestroyKey(t.Context(), ref))
	}
}

// testSignRefused has what does not fit the key. None of it may reach the token, for which it could look like a fault of its
// own.
func (s *suite) testSignRefused(t *testing.T) {
	for name, c := range map[string]struct {
		kind  hsm.KeyKind
		a     hsm.Algorithm
		size  int
		class hsm.Class
	}{
		"no algorithm":            {hsm.P256Sign, "", 32, hsm.Unsupported},
		"algorithm of MACs":       {hsm.P256Sign, hsm.HMACWithSHA256, 32, hsm.Unsupported},
		"algorithm of RSA":        {hsm.P256Sign, hsm.PSSWithSHA256, 32, hsm.Unsupported},
		"hash of another curve":   {hsm.P256Sign, hsm.ECDSAWithSHA384, 48, hsm.Unsupported},
		"key of MACs":             {hsm.HMAC256, hsm.HMACWithSHA256, 32, hsm.Unsupported},
		"key that agrees":         {hsm.P256Derive, hsm.ECDSAWithSHA256, 32, hsm.Unsupported},
		"short digest":            {hsm.P256Sign, hsm.ECDSAWithSHA256, 31, hsm.BadInput},
		"long digest":             {hsm.P256Sign, hsm.ECDSAWithSHA256, 33, hsm.BadInput},
		"no digest":               {hsm.P256Sign, hsm.ECDSAWithSHA256, 0, hsm.BadInput},
		"short digest for RSA":    {hsm.RSA2048Sign, hsm.PSSWithSHA512, 32, hsm.BadInput},
		"long digest for PKCS#1":  {hsm.RSA2048Sign, hsm.PKCS1WithSHA256, 64, hsm.BadInput},
		"no message":              {hsm.Ed25519Sign, hsm.Ed25519, 0, hsm.BadInput},
		"message that is too big": {hsm.Ed25519Sign, hsm.Ed25519, hsm.MaxMessage + 1, hsm.BadInput},
	} {
		_, err := s.token.Sign(t.Context(), hsm.Signing{Key: s.key(t, c.kind), Algorithm: c.a, Input: random(c.size)})
		require.Equal(t, c.class, hsm.ClassOf(err), "%s: %v", name, err)
	}
	_, err := s.token.Sign(t.Context(), hsm.Signing{Key: s.first, Algorithm: hsm.ECDSAWithSHA256, Input: random(32)})
	requireClass(t, err, hsm.Unsupported)
	s.testOtherKind(t)
}

// testOtherKind has references that claim another kind than the key has: the token must hold to the use of the key.
func (s *suite) testOtherKind(t *testing.T) {
	for _, c := range []struct{ real, claimed hsm.KeyKind }{{hsm.P256Derive, hsm.P256Sign}, {hsm.P256Sign, hsm.P256Derive}} {
		ref := s.key(t, c.real)
		if len(ref.Wrapped) > 0 {
			continue // its use is decided when it is loaded
		}
		ref.Kind = c.claimed
		if c.claimed == hsm.P256Sign {
			_, err := s.token.Sign(t.Context(), hsm.Signing{Key: ref, Algorithm: hsm.ECDSAWithSHA256, Input: random(32)})
			requireClass(t, err, hsm.Failed, hsm.Unsupported)
		} else {
			requireClass(t, s.agree(t.Context(), ref), hsm.Failed, hsm.Unsupported)
		}
	}
	ref := s.key(t, hsm.P256Sign)
	ref.ID = unknownKey()
	if len(ref.Wrapped) > 0 {
		ref.WrappedBy = unknownKey()
	}
	requireClass(t, s.sign(t.Context(), ref, hsm.ECDSAWithSHA256), hsm.KeyMissing)
}

func (s *suite) testMACRefused(t *testing.T) {
	ref := s.key(t, hsm.HMAC256)
	for name, c := range map[string]struct {
		ref   hsm.KeyRef
		a     hsm.Algorithm
		size  int
		class hsm.Class
	}{
		"another hash":    {ref, hsm.HMACWithSHA384, 10, hsm.Unsupported},
		"no algorithm":    {ref, "", 10, hsm.Unsupported},
		"a key pair":      {s.key(t, hsm.P256Sign), hsm.HMACWithSHA256, 10, hsm.Unsupported},
		"a symmetric key": {s.first, hsm.HMACWithSHA256, 10, hsm.Unsupported},
		"no message":      {ref, hsm.HMACWithSHA256, 0, hsm.BadInput},
		"too big":         {ref, hsm.HMACWithSHA256, hsm.MaxMessage + 1, hsm.BadInput},
	} {
		_, err := s.token.MAC(t.Context(), c.ref, c.a, random(c.size))
		require.Equal(t, c.class, hsm.ClassOf(err), "%s: %v", name, err)
	}
}

// testPointsRefused has points with which a private key could be found out, or a token be taken for broken.
func (s *suite) testPointsRefused(t *testing.T) {
	for kind, curve := range agreements {
		if !slices.Contains(s.kinds(), kind) {
			continue
		}
		ref := s.key(t, kind)
		other, err := curve.GenerateKey(rand.Reader)
		require.NoError(t, err)
		good := other.PublicKey().Bytes()
		off, compressed := bytes.Clone(good), bytes.Clone(good[:1+len(good)/2])
		off[len(off)-1] ^= 1
		compressed[0] = 2 + good[len(good)-1]&1
		beyond := append([]byte{4}, bytes.Repeat([]byte{0xff}, len(good)-1)...)
		for name, point := range map[string][]byte{
			"none": nil, "empty": {}, "infinity": {0}, "zeros": make([]byte, len(good)), "off the curve": off, "compressed": compressed,
			"short": good[:len(good)-1], "long": append(bytes.Clone(good), 0), "beyond the field": beyond,
		} {
			_, err := s.token.DeriveSecret(t.Context(), ref, point)
			require.Equal(t, hsm.BadInput, hsm.ClassOf(err), "%s %s: %v", kind, name, err)
		}
		require.NoError(t, s.agree(t.Context(), ref))
	}
	for _, ref := range []hsm.KeyRef{s.key(t, hsm.P256Sign), s.first, {}} {
		_, err := s.token.DeriveSecret(t.Context(), ref, make([]byte, 65))
		requireClass(t, err, hsm.Unsupported)
	}
}

func (s *suite) testDataPairs(t *testing.T) {
	for _, kind := range s.kinds() {
		count := s.cfg.Count(t)
		tried := s.token.TryDataPair(t.Context(), kind)
		made, err := s.token.GenerateDataPair(t.Context(), kind)
		require.Equal(t, hsm.ClassOf(tried), hsm.ClassOf(err), "%s: %v", kind, tried)
		require.Equal(t, count, s.cfg.Count(t), "%s: something was left on the token", kind)
		if !strings.HasSuffix(string(kind), "_SIGN") {
			requireClass(t, err, hsm.Unsupported)
			continue
		}
		require.NoError(t, err)
		public, err := publickey.Parse(made.Public)
		require.NoError(t, err)
		require.Equal(t, specs[kind], public.Spec())
		if kind == hsm.Secp256k1Sign {
			require.True(t, bytes.HasSuffix(made.Private, public.Point()))
			continue // Go does not know the curve
		}
		private, err := x509.ParsePKCS8PrivateKey(made.Private)
		require.NoError(t, err)
		der, err := x509.MarshalPKIXPublicKey(private.(crypto.Signer).Public())
		require.NoError(t, err)
		require.Equal(t, made.Public, der)
	}
}

// testPairsConcurrency uses keys of several kinds from many goroutines, more of them than the token holds ready, while keys
// come and go and the token is searched.
func (s *suite) testPairsConcurrency(t *testing.T) {
	kinds := []hsm.KeyKind{hsm.P256Sign, hsm.P384Derive, hsm.HMAC256, hsm.Ed25519Sign, hsm.P256Derive, hsm.Secp256k1Sign}
	for _, kind := range kinds {
		s.key(t, kind)
		s.support(t, kind)
	}
	var users crowd
	for g := range 8 {
		users.start(12, func(i int) error {
			ref := s.made[kinds[(g+i)%len(kinds)]]
			support, err := s.token.Support(t.Context(), ref.Kind)
			if err != nil {
				return err
			}
			return s.use(t.Context(), support, ref)
		})
	}
	users.start(12, func(int) error { _, err := s.token.Objects(t.Context()); return err })
	users.start(12, func(i int) error {
		ref, err := s.token.GenerateKey(t.Context(), hsm.KeyRequest{Kind: kinds[i%len(kinds)], WrapUnder: s.domain})
		if err != nil {
			return err
		}
		return s.token.DestroyKey(t.Context(), ref)
	})
	require.Empty(t, users.wait())
}

// testPairDestroyedInUse is testDestroyInUse of a key that signs.
func (s *suite) testPairDestroyedInUse(t *testing.T) {
	for range 5 {
		ref := s.request(t, hsm.KeyRequest{Kind: hsm.P256Sign})
		var users crowd
		for range 4 {
			users.start(20, func(int) error { return s.sign(t.Context(), ref, hsm.ECDSAWithSHA256) })
		}
		require.NoError(t, s.token.DestroyKey(t.Context(), ref))
		requireClass(t, s.sign(t.Context(), ref, hsm.ECDSAWithSHA256), hsm.KeyMissing)
		for _, err := range users.wait() {
			requireClass(t, err, hsm.KeyMissing, hsm.Failed, hsm.Unsupported)
		}
	}
}

func publicPoint(t *testing.T, ref hsm.KeyRef) []byte {
	t.Helper()
	public, err := publickey.Parse(ref.Public)
	require.NoError(t, err)
	return public.Point()
}
