package pkcs11

import (
	"crypto"
	"crypto/aes"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"math"
	"testing"

	p11 "github.com/miekg/pkcs11"
	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

func TestKeyWrap(t *testing.T) {
	// RFC 3394, section 4, and RFC 5649, section 6.
	tests := map[string]struct {
		kek, key, wrapped string
	}{
		"RFC 3394, 4.1": {
			kek: "000102030405060708090a0b0c0d0e0f", key: "00112233445566778899aabbccddeeff",
			wrapped: "1fa68b0a8112b447aef34bd8fb5a7b829d3e862371d2cfe5",
		},
		"RFC 3394, 4.6": {
			kek:     "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
			key:     "00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f",
			wrapped: "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21",
		},
	}
	for name, test := range tests {
		block, err := aes.NewCipher(unhex(t, test.kek))
		require.NoError(t, err)
		require.Equal(t, test.wrapped, hex.EncodeToString(keyWrap(block, unhex(t, test.key))), name)
	}

	block, err := aes.NewCipher(unhex(t, "5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8"))
	require.NoError(t, err)
	require.Equal(t, "138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a",
		hex.EncodeToString(keyWrapPadded(block, unhex(t, "c37b7e6492584340bed12207808941155068f738"))), "RFC 5649, 6")

	key := unhex(t, "c37b7e6492584340bed12207808941155068f738")
	require.Equal(t, keyWrap(block, append(key[:20:20], 4, 4, 4, 4)), keyWrapPKCS7(block, key))
	require.Len(t, keyWrapPKCS7(block, make([]byte, 32)), 48)
	require.Equal(t, "c37b7e6492584340bed12207808941155068f738", hex.EncodeToString(key), "the key was changed")
}

func TestIsEd25519ph(t *testing.T) {
	private := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	public := private.Public().(ed25519.PublicKey)
	digest := sha512.Sum512([]byte("message"))
	twice := sha512.Sum512(digest[:])
	prehashed := func(digest []byte) []byte {
		signature, err := private.Sign(nil, digest, &ed25519.Options{Hash: crypto.SHA512})
		require.NoError(t, err)
		return signature
	}
	require.NoError(t, isEd25519ph(public, digest[:], prehashed(digest[:])))
	require.ErrorContains(t, isEd25519ph(public, digest[:], prehashed(twice[:])), "hashes what it is given")
	require.ErrorContains(t, isEd25519ph(public, digest[:], ed25519.Sign(private, digest[:])), "pure Ed25519")
	require.ErrorIs(t, isEd25519ph(public, digest[:], make([]byte, 64)), errUnverified)
}

func TestLargestOf(t *testing.T) {
	for _, limit := range []int{0, 1, 2, 63, 4095, 4096, 6143, 6144, 9999} {
		tries := 0
		got := largestOf(hsm.MaxPlaintext, func(n int) bool {
			require.Positive(t, n)
			require.LessOrEqual(t, n, hsm.MaxPlaintext)
			tries++
			return n <= limit
		})
		require.Equal(t, min(limit, hsm.MaxPlaintext), got)
		require.LessOrEqual(t, tries, 14)
	}
}

func TestSymmetricDefault(t *testing.T) {
	broken := errors.New("broken")
	for name, test := range map[string]struct {
		largest int
		err     error
		works   bool
	}{
		"sound":              {6144, nil, true},
		"as AWS needs":       {4096, nil, true},
		"too small":          {4095, nil, false},
		"a fault":            {6144, broken, false},
		"nothing to compare": {6144, errNoKnownKey, true},
	} {
		k := &aesKeys{}
		_, _ = k.needed(func(*prober) (string, error) { return "", test.err })(nil)
		_, err := k.symmetricDefault(&prober{caps: &Capabilities{GCM: GCM{MaxPlaintext: test.largest}}})
		require.Equal(t, test.works, err == nil, name)
	}
}

func TestWrapFormatOf(t *testing.T) {
	for _, test := range []struct {
		mechanism int
		size      int
		format    hsm.WrapFormat
	}{
		{0, 40, wrapKW}, {1, 40, hsm.WrapKWP}, {1, 48, hsm.WrapPKCS7}, {2, 40, hsm.WrapKWP}, {2, 48, hsm.WrapPKCS7}, {1, 41, ""}, {2, 32, ""},
	} {
		f, err := wrapFormatOf(wrapMechanisms[test.mechanism], make([]byte, test.size))
		require.Equal(t, test.format, f.name)
		require.Equal(t, test.format == "", err != nil)
		if err != nil {
			continue
		}
		block, err := aes.NewCipher(make([]byte, 32))
		require.NoError(t, err)
		require.Len(t, f.wrap(block, make([]byte, 32)), test.size)
	}
}

func TestLimitsOf(t *testing.T) {
	unavailable := ^uint(0)
	require.Equal(t, Limits{}, limitsOf(p11.TokenInfo{
		MaxSessionCount: unavailable, MaxRwSessionCount: unavailable - 1, TotalPublicMemory: unavailable,
		FreePublicMemory: unavailable, TotalPrivateMemory: math.MaxUint32, FreePrivateMemory: unavailable,
	}))
	zero, some, much := uint64(0), uint64(4096), uint64(5<<30)
	require.Equal(t, Limits{
		MaxSessions: 64, MaxRWSessions: 32, MinPIN: 4, MaxPIN: 8,
		TotalPublicMemory: &some, FreePublicMemory: &zero, TotalPrivateMemory: &much, FreePrivateMemory: &some,
	}, limitsOf(p11.TokenInfo{
		MaxSessionCount: 64, MaxRwSessionCount: 32, MinPinLen: 4, MaxPinLen: 8,
		TotalPublicMemory: 4096, FreePublicMemory: 0, TotalPrivateMemory: 5 << 30, FreePrivateMemory: 4096,
	}))
}

func TestDescribe(t *testing.T) {
	require.Equal(t, "C_Sign 0x70", describe(&hsm.Error{Function: "C_Sign", Code: 0x70, Cause: errors.New("more")}))
	require.Equal(t, "no module", describe(&hsm.Error{Class: hsm.Failed, Cause: errors.New("no module")}))
	require.Equal(t, "token: failed", describe(&hsm.Error{Class: hsm.Failed}))
	require.Equal(t, "plain", describe(errors.New("plain")))
}
