package publickey

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"sync"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	secp256k1ecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"github.com/stretchr/testify/require"
)

// specs are the key specs of this package.
var specs = []string{"RSA_2048", "RSA_3072", "RSA_4096", specP256, specP384, specP521, specSecp256k1, specEd25519}

// private is a key pair made by Go or the library.
type private struct {
	public *Key
	// sign makes a signature of what Input gives.
	sign func(tb testing.TB, a SigningAlgorithm, input []byte) []byte
	rsa  *rsa.PrivateKey
}

var privates = func() map[string]func() private {
	all := map[string]func() private{}
	for _, spec := range specs {
		all[spec] = sync.OnceValue(func() private { return generate(spec) })
	}
	return all
}()

// pair gives the one key pair of a key spec.
func pair(spec string) private { return privates[spec]() }

func generate(spec string) private {
	switch spec {
	case specSecp256k1:
		return generateSecp256k1()
	case specEd25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return goPair(key, err)
	case specP256:
		return goPair(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	case specP384:
		return goPair(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	case specP521:
		return goPair(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
	default:
		return goPair(rsa.GenerateKey(rand.Reader, rsaBits[spec]))
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func goPair[K crypto.Signer](key K, err error) private {
	if err != nil {
		panic(err)
	}
	p := private{public: must(Parse(must(x509.MarshalPKIXPublicKey(key.Public()))))}
	p.rsa, _ = any(key).(*rsa.PrivateKey)
	p.sign = func(tb testing.TB, a SigningAlgorithm, input []byte) []byte {
		tb.Helper()
		signature, err := key.Sign(rand.Reader, input, options(a))
		require.NoError(tb, err)
		return signature
	}
	return p
}

func options(a SigningAlgorithm) crypto.SignerOpts {
	switch a.Scheme {
	case PSS:
		return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: a.Hash}
	case Ed25519:
		return crypto.Hash(0)
	default:
		return a.Hash
	}
}

func generateSecp256k1() private {
	key := must(secp256k1.GeneratePrivateKey())
	return private{
		public: must(FromPoint(specSecp256k1, key.PubKey().SerializeUncompressed())),
		sign: func(_ testing.TB, _ SigningAlgorithm, input []byte) []byte {
			return secp256k1ecdsa.Sign(key, input).Serialize()
		},
	}
}

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(s)
	require.NoError(tb, err)
	return b
}

// message gives a message of a type that an algorithm takes.
func message(a SigningAlgorithm) (MessageType, []byte) {
	if a.Takes(Raw) {
		return Raw, []byte("a message")
	}
	return Digest, fmt.Appendf(nil, "%*d", a.Hash.Size(), 1)
}
