package pkcs11

import (
	"crypto"
	"crypto/aes"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
	"hsmkms/publickey"
)

// sample is material of which it is known what key it is. evidence is what the key gives for no nonce; see identity.
type sample struct{ material, evidence []byte }

// newSample makes up material for a key of a kind.
func newSample(kind hsm.KeyKind) (sample, error) {
	k := kinds[kind]
	switch k.keyType() {
	case p11.CKK_RSA:
		return rsaSample(k.size)
	case p11.CKK_EC:
		return ecSample(k)
	case ckkECEdwards:
		return edwardsSample()
	}
	material, err := randomBytes(k.size)
	if err != nil {
		return sample{}, err
	}
	blocks := evidenceText(nil)
	if kind != hsm.AES256 {
		mac := hmac.New(hmacHashes[kind].New, material)
		mac.Write(blocks[:])
		return sample{material, mac.Sum(nil)}, nil
	}
	block, err := aes.NewCipher(material)
	if err != nil {
		return sample{}, err
	}
	for at := 0; at < len(blocks); at += aes.BlockSize {
		block.Encrypt(blocks[at:], blocks[at:])
	}
	return sample{material, blocks[:]}, nil
}

var hmacHashes = map[hsm.KeyKind]crypto.Hash{
	hsm.HMAC224: crypto.SHA224, hsm.HMAC256: crypto.SHA256, hsm.HMAC384: crypto.SHA384, hsm.HMAC512: crypto.SHA512,
}

// primes are a pair of primes by the size of their product in bits: 15 and 13 times the power of 2 that leaves them half as
// long, plus these. Who has to try RSA keys can do without new ones, whose making takes seconds: they are known to all, and
// never used for anything else.
var primes = map[int][2]int64{2048: {1627, 1125}, 3072: {1637, 321}, 4096: {2857, 435}}

func rsaSample(bits int) (sample, error) {
	prime := func(i int, lead int64) *big.Int {
		p := new(big.Int).Lsh(big.NewInt(lead), uint(bits/2-4))
		return p.Add(p, big.NewInt(primes[bits][i]))
	}
	p, q, one := prime(0, 15), prime(1, 13), big.NewInt(1)
	phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	key := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 65537},
		D:         new(big.Int).ModInverse(big.NewInt(65537), phi),
		Primes:    []*big.Int{p, q},
	}
	key.Precompute()
	material, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return sample{}, fmt.Errorf("encoding an RSA key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	return sample{material, public}, err
}

// pkcs8 is a PrivateKeyInfo, RFC 5208, section 5.
type pkcs8 struct {
	Version   int
	Algorithm struct{ Algorithm, Curve asn1.ObjectIdentifier }
	Key       []byte
}

// ecPrivateKey is an ECPrivateKey, RFC 5915, in its shortest form.
type ecPrivateKey struct {
	Version int
	Key     []byte
}

func ecSample(k kind) (sample, error) {
	number, point, err := ecNumber(k)
	if err != nil {
		return sample{}, fmt.Errorf("making a private key: %w", err)
	}
	public, err := publickey.FromPoint(k.spec, point)
	if err != nil {
		return sample{}, err
	}
	info := pkcs8{}
	info.Algorithm.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	if _, err := asn1.Unmarshal(k.curve(), &info.Algorithm.Curve); err != nil {
		return sample{}, fmt.Errorf("naming the curve: %w", err)
	}
	if info.Key, err = asn1.Marshal(ecPrivateKey{1, number}); err != nil {
		return sample{}, fmt.Errorf("encoding a private key: %w", err)
	}
	material, err := asn1.Marshal(info)
	if err != nil {
		return sample{}, fmt.Errorf("encoding a private key: %w", err)
	}
	return sample{material, public.Marshal()}, nil
}

// ecNumber gives a private key and its point.
func ecNumber(k kind) (number, point []byte, err error) {
	curve := map[string]ecdh.Curve{"ECC_NIST_P256": ecdh.P256(), "ECC_NIST_P384": ecdh.P384(), "ECC_NIST_P521": ecdh.P521()}[k.spec]
	if curve != nil {
		key, err := curve.GenerateKey(rand.Reader)
		if err != nil {
			return nil, nil, err
		}
		return key.Bytes(), key.PublicKey().Bytes(), nil
	}
	return secp256k1Number.Bytes(), weierstrassCurves[k.spec].point(secp256k1Point[0], secp256k1Point[1]), nil
}

// The key that is used on secp256k1, which the standard library lacks: a fixed one, like the primes.
var (
	secp256k1Number = fromHex("e17463d29025962cf14ba6c97c3f111427c6a8c4b9867605c7816c4540d70be9")
	secp256k1Point  = [2]*big.Int{
		fromHex("07d39456eb27a031b1c395a02c36e9e740bea0c0fe169f4e94f71c70701e7ea5"),
		fromHex("317397a7f6687c38a04585248716d7535a13827948a2b2b0c7dcc8b049f0eea9"),
	}
)
