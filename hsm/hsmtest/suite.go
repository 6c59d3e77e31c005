package hsmtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
)

// CacheKeys is the number of keys that a token under test should at most hold ready, so that the suite, which uses more,
// has keys loaded again and again.
const CacheKeys = 4

// Config says how the suite gets at the token under test.
type Config struct {
	// Open opens the token, which need not be empty. It is called once.
	Open func(t *testing.T) hsm.Token
	// Reopen closes the token and opens it as a new process would, without any handle of the old one.
	Reopen func(t *testing.T) hsm.Token
	// Attributes reads, by another way than the token under test, every object that has the CKA_ID and is visible now,
	// session objects included.
	Attributes func(t *testing.T, id hsm.KeyID) []Attributes
	// Count gives, by another way than the token under test, the number of all objects visible now, session objects
	// included.
	Count func(t *testing.T) int
	// ImportKinds are the kinds of key pairs to import under; empty means all of them. Large ones take seconds to make.
	ImportKinds []hsm.KeyKind
	// Kinds are the kinds of key pairs and HMAC keys to test; empty means all but those of ML-DSA. Large RSA keys take seconds
	// to make. Those of 256 bits, HMAC256, Ed25519Sign, P384Derive and RSA2048Sign must be among them.
	Kinds []hsm.KeyKind
	// Wrapped has the keys made under a domain key of the token; otherwise they are objects of the token.
	Wrapped bool
}

// Attributes are what an object on the token says about itself.
type Attributes struct {
	// Token, Sensitive and Extractable are CKA_TOKEN, CKA_SENSITIVE and CKA_EXTRACTABLE.
	Token, Sensitive, Extractable bool
	// ValueReadable tells that CKA_VALUE, or any number of a private key, was given out.
	ValueReadable bool
}

// suite is one run.
type suite struct {
	cfg   Config
	token hsm.Token
	// domain is the key under which the others are wrapped; empty for objects of the token.
	domain hsm.KeyID
	// first and second are keys that no test destroys.
	first, second hsm.KeyRef
	// pairs are the key pairs to import under, made at first need.
	pairs map[hsm.KeyKind]hsm.KeyRef
	// decrypters are the key pairs that decrypt, likewise.
	decrypters map[hsm.KeyRequest]hsm.KeyRef
	// made are the other keys that no test destroys, by kind, made at first need.
	made map[hsm.KeyKind]hsm.KeyRef
}

// Run checks that a token keeps the contract of hsm.Token, in one home of key material. It leaves keys behind.
func Run(t *testing.T, cfg Config) {
	s := &suite{cfg: cfg, token: cfg.Open(t), decrypters: map[hsm.KeyRequest]hsm.KeyRef{}}
	if cfg.Wrapped {
		s.domain = s.request(t, hsm.KeyRequest{Kind: hsm.AES256Wrap, Label: "domain"}).ID
	}
	s.first, s.second = s.generate(t), s.generate(t)
	for _, c := range []struct {
		name string
		test func(*suite, *testing.T)
	}{
		{"RoundTrips", (*suite).testRoundTrips},
		{"Sizes", (*suite).testSizes},
		{"Tampering", (*suite).testTampering},
		{"FreshIV", (*suite).testFreshIV},
		{"BuffersInStructs", (*suite).testBuffersInStructs},
		{"BuffersOfCaller", (*suite).testBuffersOfCaller},
		{"ReEncrypt", (*suite).testReEncrypt},
		{"ReEncryptHomes", (*suite).testReEncryptHomes},
		{"ReEncryptSource", (*suite).testReEncryptSource},
		{"ReEncryptDestination", (*suite).testReEncryptDestination},
		{"OAEP", (*suite).testOAEP},
		{"OAEPBadInput", (*suite).testOAEPBadInput},
		{"OAEPReEncrypt", (*suite).testOAEPReEncrypt},
		{"OAEPRefused", (*suite).testOAEPRefused},
		{"GenerateKey", (*suite).testGenerateKey},
		{"GenerateKeyRefused", (*suite).testGenerateKeyRefused},
		{"WrappingKey", (*suite).testWrappingKey},
		{"KeyMissing", (*suite).testKeyMissing},
		{"DestroyKey", (*suite).testDestroyKey},
		{"AlteredReference", (*suite).testAlteredReference},
		{"NoKeyByteReadable", (*suite).testNoKeyByteReadable},
		{"Objects", (*suite).testObjects},
		{"Random", (*suite).testRandom},
		{"ImportRoutes", (*suite).testImportRoutes},
		{"ImportPairs", (*suite).testImportPairs},
		{"ImportKey", (*suite).testImportKey},
		{"ImportFingerprint", (*suite).testImportFingerprint},
		{"ImportWrongMaterial", (*suite).testImportWrongMaterial},
		{"ImportBadInput", (*suite).testImportBadInput},
		{"ImportRefused", (*suite).testImportRefused},
		{"ImportKinds", (*suite).testImportKinds},
		{"ImportForms", (*suite).testImportForms},
		{"ImportEdwardsForms", (*suite).testImportEdwardsForms},
		{"ImportWrongKeys", (*suite).testImportWrongKeys},
		{"ImportSpoiltKeys", (*suite).testImportSpoiltKeys},
		{"Support", (*suite).testSupport},
		{"Pairs", (*suite).testPairs},
		{"PairsReopened", (*suite).testPairsReopened},
		{"PairsDestroyed", (*suite).testPairsDestroyed},
		{"SignRefused", (*suite).testSignRefused},
		{"MACRefused", (*suite).testMACRefused},
		{"PointsRefused", (*suite).testPointsRefused},
		{"DataPairs", (*suite).testDataPairs},
		{"PairsConcurrency", (*suite).testPairsConcurrency},
		{"PairDestroyedInUse", (*suite).testPairDestroyedInUse},
		{"EndedContext", (*suite).testEndedContext},
		{"Concurrency", (*suite).testConcurrency},
		{"DestroyInUse", (*suite).testDestroyInUse},
		{"Reopen", (*suite).testReopen},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(s, t) })
	}
}

// request makes a key.
func (s *suite) request(t *testing.T, r hsm.KeyRequest) hsm.KeyRef {
	t.Helper()
	ref, err := s.token.GenerateKey(t.Context(), r)
	require.NoError(t, err)
	return ref
}

// generate makes a key for encryption in the home under test.
func (s *suite) generate(t *testing.T) hsm.KeyRef {
	t.Helper()
	return s.request(t, hsm.KeyRequest{Kind: hsm.AES256, Label: "suite", WrapUnder: s.domain})
}

// seal encrypts and fails the test if that fails.
func (s *suite) seal(t *testing.T, w hsm.Sealing, plaintext []byte) hsm.Opening {
	t.Helper()
	sealed, err := s.token.Encrypt(t.Context(), w, plaintext)
	require.NoError(t, err)
	return hsm.Opening{Key: w.Key, Algorithm: w.Algorithm, AAD: w.AAD, Sealed: sealed}
}

// requireOpens demands that o holds the plaintext.
func (s *suite) requireOpens(t *testing.T, o hsm.Opening, plaintext []byte) {
	t.Helper()
	got, err := s.token.Decrypt(t.Context(), o)
	require.NoError(t, err)
	require.True(t, bytes.Equal(plaintext, got), "the plaintext is another one")
}

// requireClass demands a failure of one of the classes, as an *hsm.Error.
func requireClass(t *testing.T, err error, classes ...hsm.Class) {
	t.Helper()
	var e *hsm.Error
	require.ErrorAs(t, err, &e)
	require.Contains(t, classes, e.Class, "%v", err)
}

// requireSource demands a failure of a ReEncrypt, on the side that is told.
func requireSource(t *testing.T, err error, source bool, classes ...hsm.Class) {
	t.Helper()
	requireClass(t, err, classes...)
	var e *hsm.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, source, e.Source, "%v", err)
}

// random gives n random bytes.
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// randomAAD gives an AAD that no other call has.
func randomAAD() hsm.AAD { return hsm.AAD(random(len(hsm.AAD{}))) }

// unknownKey is the name of a key that nobody has.
func unknownKey() hsm.KeyID { return hsm.KeyID(hex.EncodeToString(random(16))) }

// missing gives a reference, in the home under test, to a key that the token does not have.
func (s *suite) missing() hsm.KeyRef {
	ref := s.first
	ref.ID = unknownKey()
	if s.domain != "" {
		ref.WrappedBy = unknownKey()
	}
	return ref
}

func (s *suite) testRandom(t *testing.T) {
	require.NoError(t, s.token.Random(t.Context(), nil))
	for _, size := range []int{1, 16, 32, 1024, 4096} {
		a, b := make([]byte, size), make([]byte, size)
		require.NoError(t, s.token.Random(t.Context(), a))
		require.NoError(t, s.token.Random(t.Context(), b))
		if size > 1 {
			require.NotEqual(t, a, b)
			require.NotEqual(t, make([]byte, size), a)
			require.False(t, size >= 1024 && bytes.Contains(a, make([]byte, 16)), "a part was not filled")
		}
	}
}

// testEndedContext demands that nothing is begun for a caller who has gone, and that the reason can be told.
func (s *suite) testEndedContext(t *testing.T) {
	s.pair(t, hsm.RSA2048Import) // or it would be made in between
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancelLate := context.WithTimeout(t.Context(), -1)
	defer cancelLate()
	before, err := s.token.Objects(t.Context())
	require.NoError(t, err)
	o := s.seal(t, hsm.Sealing{Key: s.first}, []byte("data"))
	for range 20 { // a token that leaves it to chance should not pass by luck
		for _, ctx := range []context.Context{cancelled, late} {
			for name, call := range s.calls(t, o) {
				err := call(ctx)
				requireClass(t, err, hsm.Busy)
				require.ErrorIs(t, err, ctx.Err(), name)
			}
		}
	}
	after, err := s.token.Objects(t.Context())
	require.NoError(t, err)
	require.ElementsMatch(t, before, after)
	s.requireOpens(t, o, []byte("data"))
}

// calls gives one call of each method.
func (s *suite) calls(t *testing.T, o hsm.Opening) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"GenerateKey": func(ctx context.Context) error {
			_, err := s.token.GenerateKey(ctx, hsm.KeyRequest{Kind: hsm.AES256, WrapUnder: s.domain})
			return err
		},
		"ImportRoutes": func(ctx context.Context) error {
			_, err := s.token.ImportRoutes(ctx, hsm.AES256)
			return err
		},
		"ImportKey": func(ctx context.Context) error {
			r := s.importOf(t, hsm.RSA2048Import, s.routes(t)[0], random(32))
			_, err := s.token.ImportKey(ctx, r)
			return err
		},
		"DestroyKey": func(ctx context.Context) error { return s.token.DestroyKey(ctx, o.Key) },
		"Encrypt": func(ctx context.Context) error {
			_, err := s.token.Encrypt(ctx, hsm.Sealing{Key: o.Key}, []byte("data"))
			return err
		},
		"Decrypt": func(ctx context.Context) error {
			_, err := s.token.Decrypt(ctx, o)
			return err
		},
		"ReEncrypt": func(ctx context.Context) error {
			_, err := s.token.ReEncrypt(ctx, o, hsm.Sealing{Key: s.second})
			return err
		},
		"Support": func(ctx context.Context) error {
			_, err := s.token.Support(ctx, hsm.P256Sign)
			return err
		},
		"GenerateKey of a pair": func(ctx context.Context) error {
			_, err := s.token.GenerateKey(ctx, hsm.KeyRequest{Kind: hsm.RSA2048Sign, WrapUnder: s.domain})
			return err
		},
		"Sign": func(ctx context.Context) error {
			_, err := s.token.Sign(ctx, hsm.Signing{Key: s.key(t, hsm.P256Sign), Algorithm: hsm.ECDSAWithSHA256, Input: random(32)})
			return err
		},
		"MAC": func(ctx context.Context) error {
			_, err := s.token.MAC(ctx, s.key(t, hsm.HMAC256), hsm.HMACWithSHA256, []byte("message"))
			return err
		},
		"DeriveSecret": func(ctx context.Context) error {
			_, err := s.token.DeriveSecret(ctx, s.key(t, hsm.P256Derive), publicPoint(t, s.key(t, hsm.P256Derive)))
			return err
		},
		"GenerateDataPair": func(ctx context.Context) error {
			_, err := s.token.GenerateDataPair(ctx, hsm.P256Sign)
			return err
		},
		"Random": func(ctx context.Context) error { return s.token.Random(ctx, make([]byte, 8)) },
		"Objects": func(ctx context.Context) error {
			_, err := s.token.Objects(ctx)
			return err
		},
		"Check": s.token.Check,
	}
}
