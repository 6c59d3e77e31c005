package publickey

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzParse looks for keys with two encodings, and for those that crypto/x509 sees otherwise.
func FuzzParse(f *testing.F) {
	for _, spec := range specs {
		f.Add(pair(spec).public.Marshal())
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		key, err := Parse(der)
		public, goErr := x509.ParsePKIXPublicKey(der)
		if err != nil {
			require.False(t, goErr == nil && ours(t, public, der), "only Go takes %x", der)
			return
		}
		require.Equal(t, der, key.Marshal())
		if key.Spec() != specSecp256k1 {
			require.NoError(t, goErr)
			require.Equal(t, public, key.public)
		}
	})
}

// ours tells whether Parse is to take what Go made of der.
func ours(t *testing.T, public any, der []byte) bool {
	t.Helper()
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		return key.Curve != elliptic.P224() && canonical(t, public, der)
	case *rsa.PublicKey:
		_, err := FromModulus(key.N.Bytes(), []byte{byte(key.E >> 24), byte(key.E >> 16), byte(key.E >> 8), byte(key.E)})
		return key.E < 1<<maxExponentBits && err == nil && canonical(t, public, der)
	case ed25519.PublicKey:
		return onEdwards25519(key) && canonical(t, public, der)
	default:
		return false
	}
}

func canonical(t *testing.T, public any, der []byte) bool {
	t.Helper()
	again, err := x509.MarshalPKIXPublicKey(public)
	require.NoError(t, err)
	return string(again) == string(der)
}

// FuzzECDSASignature holds our reader of signatures against the one in crypto/ecdsa, and looks for signatures that secp256k1
// takes in two forms.
func FuzzECDSASignature(f *testing.F) {
	digest := sha256.Sum256([]byte("a message"))
	a, _ := Signing("ECDSA_SHA_256")
	var signatures [][]byte
	for _, spec := range []string{specP256, specSecp256k1} {
		signatures = append(signatures, pair(spec).sign(f, a, digest[:]))
		f.Add(signatures[len(signatures)-1])
	}
	for _, s := range [][]byte{nil, {0x30, 0}, {0x30, 6, 2, 1, 1, 2, 1, 1}, {0x30, 0x80, 2, 1, 1, 2, 1, 1, 0, 0}, append(signatures[0], 0)} {
		f.Add(s)
	}
	nist := pair(specP256).public.public.(*ecdsa.PublicKey)
	f.Fuzz(func(t *testing.T, signature []byte) {
		parsed, ok := parseECDSA(signature)
		require.Equal(t, ecdsa.VerifyASN1(nist, digest[:], signature), ok && ecdsa.Verify(nist, digest[:], parsed.R, parsed.S))

		koblitz := pair(specSecp256k1).public
		if koblitz.Verify(Signed{a.Name, Digest, digest[:], signature}) == nil {
			require.True(t, ok)
			was, _ := parseECDSA(signatures[1])
			require.Equal(t, was.R, parsed.R)
		}
	})
}
