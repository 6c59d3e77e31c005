package publickey

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"math/big"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"
)

// eachAlgorithm runs a test for each signing algorithm of each key spec.
func eachAlgorithm(t *testing.T, run func(t *testing.T, p private, a SigningAlgorithm)) {
	for _, spec := range specs {
		for _, name := range SigningOf(spec) {
			a, known := Signing(name)
			require.True(t, known)
			t.Run(spec+"/"+name, func(t *testing.T) { run(t, pair(spec), a) })
		}
	}
}

func TestVerify(t *testing.T) {
	eachAlgorithm(t, func(t *testing.T, p private, a SigningAlgorithm) {
		kind, text := message(a)
		input, err := a.Input(kind, text)
		require.NoError(t, err)
		right := Signed{Algorithm: a.Name, Type: kind, Message: text, Signature: p.sign(t, a, input)}
		require.NoError(t, p.public.Verify(right))

		again := bytes.Clone(right.Signature)
		for i := 0; i < len(again); i += 1 + len(again)/150 { // each byte, but for RSA
			again[i] ^= 0x10
			wrong := right
			wrong.Signature = again
			require.ErrorIs(t, p.public.Verify(wrong), ErrSignature, "byte %d", i)
			again[i] ^= 0x10
		}
		for _, signature := range [][]byte{nil, {}, {0}, again[:len(again)-1], append(again, 0), append([]byte{0}, again...), make([]byte, len(again))} {
			wrong := right
			wrong.Signature = signature
			require.ErrorIs(t, p.public.Verify(wrong), ErrSignature)
		}
		wrong := right
		wrong.Message = bytes.Clone(text)
		wrong.Message[0] ^= 1
		require.ErrorIs(t, p.public.Verify(wrong), ErrSignature)
		require.ErrorIs(t, another(p.public.Spec()).Verify(right), ErrSignature, "another key")
		require.Equal(t, right.Message, text)
	})
}

// another gives a public key with the algorithms of a key spec. RSA keys take long to make.
func another(spec string) *Key {
	switch spec {
	case "RSA_2048":
		return pair("RSA_3072").public
	case "RSA_3072", "RSA_4096":
		return pair("RSA_2048").public
	default:
		return generate(spec).public
	}
}

func TestVerifyTakesDigests(t *testing.T) {
	eachAlgorithm(t, func(t *testing.T, p private, a SigningAlgorithm) {
		if a.Scheme == Ed25519 || a.Scheme == Ed25519ph {
			return
		}
		text := []byte("a message")
		digest, err := a.Input(Raw, text)
		require.NoError(t, err)
		signature := p.sign(t, a, digest)
		require.NoError(t, p.public.Verify(Signed{a.Name, Digest, digest, signature}))
		require.NoError(t, p.public.Verify(Signed{a.Name, Raw, text, signature}))
		require.ErrorIs(t, p.public.Verify(Signed{a.Name, Raw, digest, signature}), ErrSignature, "hashed twice")
	})
}

func TestMessagesThatDoNotFit(t *testing.T) {
	eachAlgorithm(t, func(t *testing.T, p private, a SigningAlgorithm) {
		for _, kind := range []MessageType{Raw, Digest, "EXTERNAL_MU", "", "raw"} {
			if !a.Takes(kind) {
				require.ErrorIs(t, p.public.Verify(Signed{a.Name, kind, make([]byte, a.Hash.Size()), nil}), ErrMessageType, kind)
			}
		}
		if a.Takes(Digest) {
			for _, n := range []int{0, 20, a.Hash.Size() - 1, a.Hash.Size() + 1} {
				require.ErrorIs(t, p.public.Verify(Signed{a.Name, Digest, make([]byte, n), nil}), ErrDigestLength)
			}
		}
	})
}

func TestAlgorithmsBelongToKeys(t *testing.T) {
	for _, spec := range specs {
		for _, a := range append(slices.Clone(signing), SigningAlgorithm{Name: "SM2DSA"}, SigningAlgorithm{}) {
			err := pair(spec).public.Verify(Signed{Algorithm: a.Name, Type: Raw})
			if a.Fits(spec) {
				require.NotErrorIs(t, err, ErrAlgorithm)
			} else {
				require.ErrorIs(t, err, ErrAlgorithm, "%s %s", spec, a.Name)
			}
		}
	}
	require.Equal(t, []string{
		"RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PKCS1_V1_5_SHA_384", "RSASSA_PKCS1_V1_5_SHA_512",
		"RSASSA_PSS_SHA_256", "RSASSA_PSS_SHA_384", "RSASSA_PSS_SHA_512",
	}, SigningOf("RSA_4096"))
	for spec, names := range map[string][]string{
		specP256: {"ECDSA_SHA_256"}, specSecp256k1: {"ECDSA_SHA_256"}, specP384: {"ECDSA_SHA_384"}, specP521: {"ECDSA_SHA_512"},
		specEd25519: {"ED25519_SHA_512", "ED25519_PH_SHA_512"}, "SYMMETRIC_DEFAULT": nil, "ML_DSA_44": nil, "": nil,
	} {
		require.Equal(t, names, SigningOf(spec), spec)
		require.Nil(t, EncryptionOf(spec), spec)
	}
	require.Equal(t, []string{"RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256"}, EncryptionOf("RSA_2048"))
}

func TestTablesHaveEveryAlgorithmOfAWS(t *testing.T) {
	for _, name := range types.SigningAlgorithmSpec("").Values() {
		a, known := Signing(string(name))
		require.Equal(t, name != types.SigningAlgorithmSpecSm2dsa && name != types.SigningAlgorithmSpecMlDsaShake256, known, name)
		if known {
			require.NotEmpty(t, a.MessageTypes)
			require.Subset(t, specs, a.KeySpecs)
			require.True(t, a.Hash.Available())
		}
		if a.Scheme == PSS {
			require.Equal(t, a.Hash.Size(), a.Salt)
		} else {
			require.Zero(t, a.Salt)
		}
	}
	for _, name := range types.EncryptionAlgorithmSpec("").Values() {
		_, known := Encryption(string(name))
		require.Equal(t, name != types.EncryptionAlgorithmSpecSymmetricDefault && name != types.EncryptionAlgorithmSpecSm2pke, known, name)
	}
	require.ElementsMatch(t, []types.MessageType{types.MessageType(Raw), types.MessageType(Digest), types.MessageTypeExternalMu},
		types.MessageType("").Values())
}

func TestPSSSaltIsAsLongAsTheHash(t *testing.T) {
	digest := sha256.Sum256([]byte("a message"))
	p := pair("RSA_2048")
	for _, salt := range []int{1, 20, 31, 32, 33, 222} { // Wycheproof has those without salt
		signature, err := rsa.SignPSS(rand.Reader, p.rsa, crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: salt})
		require.NoError(t, err)
		err = p.public.Verify(Signed{"RSASSA_PSS_SHA_256", Digest, digest[:], signature})
		if salt == 32 {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, ErrSignature, "%d", salt)
		}
	}
}

// kN is the order of secp256k1, SEC 2, section 2.4.1.
var kN, _ = new(big.Int).SetString("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16)

func TestSecp256k1KnownAnswer(t *testing.T) {
	// The private key is 1, so that the public key is the base point; signed by RFC 6979 over SHA-256.
	key, err := FromPoint(specSecp256k1, unhex(t, "0479be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"+
		"483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8"))
	require.NoError(t, err)
	r := new(big.Int).SetBytes(unhex(t, "934b1ea10a4b3c1757e2b0c017d0b6143ce3c9a7e6a4a49860d7a6ab210ee3d8"))
	s := new(big.Int).SetBytes(unhex(t, "2442ce9d2b916064108014783e923ec36b49743e2ffa1c4496f01a512aafd9e5"))
	verify := func(r, s *big.Int) error {
		signature, err := asn1.Marshal(ecdsaSignature{r, s})
		require.NoError(t, err)
		return key.Verify(Signed{"ECDSA_SHA_256", Raw, []byte("Satoshi Nakamoto"), signature})
	}
	require.NoError(t, verify(r, s))
	require.NoError(t, verify(r, new(big.Int).Sub(kN, s)), "either value of s is valid ECDSA")
	for name, err := range map[string]error{
		"r beyond n": verify(new(big.Int).Add(r, kN), s),
		"s beyond n": verify(r, new(big.Int).Add(s, kN)),
		"negative r": verify(new(big.Int).Sub(r, kN), s),
		"negative s": verify(r, new(big.Int).Neg(s)),
		"zero r":     verify(new(big.Int), s),
		"zero s":     verify(r, new(big.Int)),
		"huge r":     verify(new(big.Int).Add(r, new(big.Int).Lsh(kN, 64)), s),
	} {
		require.ErrorIs(t, err, ErrSignature, name)
	}
}

func TestEd25519phKnownAnswer(t *testing.T) {
	// RFC 8032, section 7.3. Its message is no digest, so that it is given to what is under Verify.
	key, err := FromPoint(specEd25519, unhex(t, "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf"))
	require.NoError(t, err)
	prehash := sha512.Sum512([]byte("abc"))
	signature := unhex(t, "98a70222f0b8121aa9d30f813d683f809e462b469c7ff87639499bb94e6dae41"+
		"31f85042463c2a355a2003d062adf5aaa10b8c61e636062aaad11c2a26083406")
	for name, want := range map[string]bool{"ED25519_PH_SHA_512": true, "ED25519_SHA_512": false} {
		a, _ := Signing(name)
		require.Equal(t, want, key.verifies(a, prehash[:], signature))
	}
}

// An HSM signs digest of digest: AWS hashes the digest that it is given once more.
func TestEd25519phHashesTheDigest(t *testing.T) {
	p := pair(specEd25519)
	a, _ := Signing("ED25519_PH_SHA_512")
	digest := sha512.Sum512([]byte("a message"))
	twice := sha512.Sum512(digest[:])
	require.NoError(t, p.public.Verify(Signed{a.Name, Digest, digest[:], p.sign(t, a, twice[:])}))
	require.ErrorIs(t, p.public.Verify(Signed{a.Name, Digest, digest[:], p.sign(t, a, digest[:])}), ErrSignature)
}

func TestECDSASignature(t *testing.T) {
	for _, c := range curves {
		p := pair(c.spec)
		a, _ := Signing(SigningOf(c.spec)[0])
		digest, err := a.Input(Raw, []byte("a message"))
		require.NoError(t, err)
		der := p.sign(t, a, digest)
		parsed, ok := parseECDSA(der)
		require.True(t, ok)
		raw := append(parsed.R.FillBytes(make([]byte, c.size)), parsed.S.FillBytes(make([]byte, c.size))...)
		got, err := p.public.ECDSASignature(raw)
		require.NoError(t, err)
		require.Equal(t, der, got)
		for _, bad := range [][]byte{nil, raw[1:], append(raw, 0), der} {
			_, err := p.public.ECDSASignature(bad)
			require.Error(t, err)
		}
		zeros, err := p.public.ECDSASignature(make([]byte, 2*c.size))
		require.NoError(t, err)
		require.ErrorIs(t, p.public.Verify(Signed{a.Name, Digest, digest, zeros}), ErrSignature)
	}
	for _, spec := range []string{"RSA_2048", specEd25519} {
		_, err := pair(spec).public.ECDSASignature(make([]byte, 64))
		require.ErrorIs(t, err, ErrAlgorithm)
	}
}

func TestParseECDSA(t *testing.T) {
	for name, der := range map[string]string{
		"empty":            "",
		"no numbers":       "3000",
		"one number":       "3003020101",
		"three numbers":    "3009020101020101020101",
		"trailing byte":    "300602010102010100",
		"trailing inside":  "30080201010201010000",
		"indefinite":       "30800201010201010000",
		"longer length":    "308106020101020101",
		"padded number":    "300702020001020101",
		"empty number":     "30050200020101",
		"a set":            "3106020101020101",
		"octets":           "3006040101020101",
		"length of number": "3006020201020101",
	} {
		_, ok := parseECDSA(unhex(t, der))
		require.False(t, ok, name)
	}
	parsed, ok := parseECDSA(unhex(t, "3006020101020102"))
	require.True(t, ok)
	require.Equal(t, ecdsaSignature{big.NewInt(1), big.NewInt(2)}, parsed)
}

func TestEncrypt(t *testing.T) {
	longest := map[string][]int{"RSA_2048": {214, 190}, "RSA_3072": {342, 318}, "RSA_4096": {470, 446}}
	for spec, lengths := range longest {
		p := pair(spec)
		for i, name := range EncryptionOf(spec) {
			a, known := Encryption(name)
			require.True(t, known)
			require.Equal(t, lengths[i], a.MaxPlaintext(spec))
			for _, n := range []int{0, 1, 32, lengths[i]} {
				plaintext := bytes.Repeat([]byte{7}, n)
				ciphertext, err := p.public.Encrypt(name, plaintext)
				require.NoError(t, err)
				require.Len(t, ciphertext, rsaBits[spec]/8)
				got, err := rsa.DecryptOAEP(a.Hash.New(), nil, p.rsa, ciphertext, nil)
				require.NoError(t, err)
				require.True(t, bytes.Equal(plaintext, got))
				again, err := p.public.Encrypt(name, plaintext)
				require.NoError(t, err)
				require.NotEqual(t, ciphertext, again)
			}
			_, err := p.public.Encrypt(name, make([]byte, lengths[i]+1))
			require.ErrorIs(t, err, ErrPlaintextLength)
		}
		for _, name := range []string{"", "SYMMETRIC_DEFAULT", "SM2PKE", "RSASSA_PSS_SHA_256"} {
			_, err := p.public.Encrypt(name, nil)
			require.ErrorIs(t, err, ErrAlgorithm, name)
		}
	}
	_, err := pair(specP256).public.Encrypt("RSAES_OAEP_SHA_1", nil)
	require.ErrorIs(t, err, ErrAlgorithm)
	for _, a := range encryption {
		require.Zero(t, a.MaxPlaintext(specP256))
	}
}

func TestVerifiesRefusesAKeyThatIsNone(t *testing.T) {
	require.False(t, new(Key).verifies(SigningAlgorithm{}, nil, nil))
}
