package publickey

import (
	"crypto"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/test/wycheproof"
)

// Names of hashes in the vectors. Those that are missing have no algorithm in the AWS API.
var hashes = map[string]crypto.Hash{"SHA-256": crypto.SHA256, "SHA-384": crypto.SHA384, "SHA-512": crypto.SHA512}

// signed is a case of verification.
type signed struct {
	wycheproof.Case
	Message   wycheproof.Hex `json:"msg"`
	Signature wycheproof.Hex `json:"sig"`
}

// group is a group of cases of verification.
type group struct {
	DER       wycheproof.Hex `json:"publicKeyDer"`
	PublicKey struct {
		Modulus  wycheproof.Hex `json:"modulus"`
		Exponent wycheproof.Hex `json:"publicExponent"`
		Point    wycheproof.Hex `json:"uncompressed"`
		Edwards  wycheproof.Hex `json:"pk"`
	} `json:"publicKey"`
	Hash string `json:"sha"`
	MGF  string `json:"mgfSha"`
	Salt int    `json:"sLen"`
}

type suite = wycheproof.Suite[group, signed]

type check = func(t *testing.T, c signed) wycheproof.Outcome

func leave(reason string) check {
	return func(*testing.T, signed) wycheproof.Outcome { return wycheproof.LeftOut(reason) }
}

// key parses the key of a group and makes it of its parts too.
func (g group) key(t *testing.T) *Key {
	t.Helper()
	key, err := Parse(g.DER)
	require.NoError(t, err)
	require.Equal(t, []byte(g.DER), key.Marshal())
	require.Equal(t, key, g.ofParts(t))
	return key
}

func (g group) ofParts(t *testing.T) *Key {
	t.Helper()
	if g.PublicKey.Modulus != nil {
		key, err := FromModulus(g.PublicKey.Modulus, g.PublicKey.Exponent)
		require.NoError(t, err)
		return key
	}
	for _, c := range curves {
		if key, err := FromPoint(c.spec, g.PublicKey.Point); err == nil {
			return key
		}
	}
	key, err := FromPoint(specEd25519, g.PublicKey.Edwards)
	require.NoError(t, err)
	return key
}

// verify runs a case through Verify, both raw and as a digest; with a hash that the AWS API does not have for the curve,
// through what is under it, while Verify refuses.
func verify(t *testing.T, key *Key, a SigningAlgorithm, message, signature []byte) wycheproof.Outcome {
	t.Helper()
	digest, err := a.Input(Raw, message)
	require.NoError(t, err)
	err = key.Verify(Signed{Algorithm: a.Name, Type: Raw, Message: message, Signature: signature})
	if !a.Fits(key.Spec()) {
		require.ErrorIs(t, err, ErrAlgorithm)
		return wycheproof.Took(key.verifies(a, digest, signature))
	}
	if err != nil {
		require.ErrorIs(t, err, ErrSignature)
	}
	if a.Takes(Digest) {
		require.Equal(t, err, key.Verify(Signed{Algorithm: a.Name, Type: Digest, Message: digest, Signature: signature}))
	}
	return wycheproof.Took(err == nil)
}

func algorithmOf(t *testing.T, scheme Scheme, hash crypto.Hash) SigningAlgorithm {
	t.Helper()
	for _, a := range signing {
		if a.Scheme == scheme && a.Hash == hash {
			return a
		}
	}
	require.Fail(t, "no algorithm", "%d with %s", scheme, hash)
	return SigningAlgorithm{}
}

func TestWycheproofECDSA(t *testing.T) {
	suite{
		Files: []string{"ecdsa_*.json"},
		LeftOut: map[string]string{
			"ecdsa_brainpool*": "curves that AWS KMS does not have",
			"ecdsa_secp1*":     "curves that AWS KMS does not have",
			"ecdsa_secp224*":   "curves that AWS KMS does not have",
			"ecdsa_*_sha3_*":   "SHA-3, which AWS KMS does not have",
			"ecdsa_*_shake*":   "SHAKE, which AWS KMS does not have for ECDSA",
			"ecdsa_*_p1363_*":  "in the form of IEEE P1363: see TestWycheproofP1363",
		},
		Group: func(t *testing.T, file string, g group) check {
			key, a := g.key(t), algorithmOf(t, ECDSA, hashes[g.Hash])
			return func(t *testing.T, c signed) wycheproof.Outcome {
				outcome := verify(t, key, a, c.Message, c.Signature)
				if strings.Contains(file, "_bitcoin_") && c.Result == "invalid" && strings.HasSuffix(c.Comment, "ignature malleability") {
					require.Equal(t, wycheproof.Took(true), outcome)
					return wycheproof.LeftOut("Bitcoin's rule about s, which is not AWS's: accepted")
				}
				return outcome
			}
		},
	}.Run(t)
}

// Signatures of tokens are in this form.
func TestWycheproofP1363(t *testing.T) {
	suite{
		Files: []string{"ecdsa_*_p1363_*.json"},
		LeftOut: map[string]string{
			"ecdsa_brainpool*_p1363_*": "curves that AWS KMS does not have",
			"ecdsa_secp1*_p1363_*":     "curves that AWS KMS does not have",
			"ecdsa_secp224*_p1363_*":   "curves that AWS KMS does not have",
			"ecdsa_*_shake*_p1363_*":   "SHAKE, which AWS KMS does not have for ECDSA",
		},
		Group: func(t *testing.T, _ string, g group) check {
			key, a := g.key(t), algorithmOf(t, ECDSA, hashes[g.Hash])
			return func(t *testing.T, c signed) wycheproof.Outcome {
				signature, err := key.ECDSASignature(c.Signature)
				if err != nil {
					return wycheproof.Took(false)
				}
				return verify(t, key, a, c.Message, signature)
			}
		},
	}.Run(t)
}

func TestWycheproofPSS(t *testing.T) {
	suite{
		Files: []string{"rsa_pss_*.json"},
		LeftOut: map[string]string{
			"rsa_pss_*_sha1_*":           "SHA-1, which AWS KMS does not have for signatures",
			"rsa_pss_*_sha512_2*":        "SHA-512/224 and SHA-512/256, which AWS KMS does not have",
			"rsa_pss_*_shake*":           "SHAKE, which AWS KMS does not have for RSA",
			"rsa_pss_*_mgf1_0_*":         "salt of another length than the hash",
			"rsa_pss_*_mgf1sha*":         "MGF1 of another hash",
			"rsa_pss_*_sha512_mgf1_32_*": "salt of another length than the hash",
		},
		Group: func(t *testing.T, file string, g group) check {
			if hashes[g.Hash] == 0 {
				return leave("hashes that AWS KMS does not have for signatures")
			}
			a := algorithmOf(t, PSS, hashes[g.Hash])
			key := g.pssKey(t, file)
			return func(t *testing.T, c signed) wycheproof.Outcome {
				outcome := verify(t, key, a, c.Message, c.Signature)
				if g.MGF != g.Hash || g.Salt != a.Salt {
					require.Equal(t, wycheproof.Took(false), outcome, "case %d", c.ID)
					return wycheproof.LeftOut("salt or MGF1 of another hash: refused")
				}
				return outcome
			}
		},
	}.Run(t)
}

// pssKey makes keys of their parts whose SubjectPublicKeyInfo is of another algorithm, id-RSASSA-PSS with parameters (RFC
// 4055), which Parse refuses.
func (g group) pssKey(t *testing.T, file string) *Key {
	t.Helper()
	if _, err := Parse(g.DER); err == nil {
		return g.key(t)
	}
	require.Contains(t, file, "_params_")
	return g.ofParts(t)
}

func TestWycheproofPKCS1(t *testing.T) {
	suite{
		Files: []string{"rsa_signature_*.json"},
		LeftOut: map[string]string{
			"rsa_signature_*_sha224_*":  "SHA-224, which AWS KMS does not have for signatures",
			"rsa_signature_*_sha3_*":    "SHA-3, which AWS KMS does not have",
			"rsa_signature_*_sha512_2*": "SHA-512/224 and SHA-512/256, which AWS KMS does not have",
			"rsa_signature_8192_*":      "a key size that AWS KMS does not have",
		},
		Acceptable: map[string]wycheproof.Decision{
			"MissingNull": {Accepted: false, Reason: "RFC 8017, appendix A.2.4, has signers put the NULL, and verifiers may insist on it"},
		},
		Group: func(t *testing.T, _ string, g group) check {
			key, a := g.key(t), algorithmOf(t, PKCS1v15, hashes[g.Hash])
			return func(t *testing.T, c signed) wycheproof.Outcome { return verify(t, key, a, c.Message, c.Signature) }
		},
	}.Run(t)
}

func TestWycheproofEd25519(t *testing.T) {
	suite{
		Files: []string{"ed*.json"},
		LeftOut: map[string]string{
			"ed448*": "a curve that AWS KMS does not have",
		},
		Group: func(t *testing.T, _ string, g group) check {
			key, a := g.key(t), algorithmOf(t, Ed25519, crypto.SHA512)
			return func(t *testing.T, c signed) wycheproof.Outcome { return verify(t, key, a, c.Message, c.Signature) }
		},
	}.Run(t)
}
