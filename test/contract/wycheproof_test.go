package contract

import (
	"bytes"
	"crypto/ecdh"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
	"hsmkms/test/wycheproof"
)

// The test vectors of Project Wycheproof that begin with a secret or private key: such a key is imported, once for all cases
// that have it, and used through the API. Those that begin with a public key are run by package publickey.

// importer imports keys into the server of one home. A wrapping key is made for each of them, which takes most of the time: the
// servers of both homes work side by side, when all other tests are over.
type importer struct {
	s    *kmstest.Server
	keys map[string]string // ids by spec, usage and material
}

func newImporter(t *testing.T, home string) importer {
	t.Parallel()
	return importer{servers[home], map[string]string{}}
}

// key gives the id of a key with a material.
func (i importer) key(t *testing.T, spec, usage string, material []byte) string {
	t.Helper()
	name := spec + " " + usage + " " + string(material)
	if i.keys[name] == "" {
		id, err := i.add(t, spec, usage, material)
		require.NoError(t, err)
		i.keys[name] = id
	}
	return i.keys[name]
}

// add makes a key and imports its material.
func (i importer) add(t *testing.T, spec, usage string, material []byte) (string, error) {
	t.Helper()
	id := createKey(t, i.s, object(t, "KeySpec", spec, "KeyUsage", usage, "Origin", "EXTERNAL"))["KeyId"].(string)
	wrap := "RSA_AES_KEY_WRAP_SHA_1"
	if strings.HasPrefix(spec, "HMAC_") {
		wrap = "RSAES_OAEP_SHA_1" // HMAC keys are never wrapped by an AES key
	}
	_, err := i.s.Client().ImportKeyMaterial(t.Context(), i.s.ImportSet(t, id, wrap, "RSA_2048").Input(t, material))
	return id, err
}

// refused tells whether a request was refused in the way that is right for a bad input; any other failure fails the test.
func refused(t *testing.T, answer kmstest.Answer, codes ...string) bool {
	t.Helper()
	if answer.Status == http.StatusOK {
		return false
	}
	require.Contains(t, codes, answer.JSON(t)["__type"], answer.Body)
	return true
}

type macCase struct {
	wycheproof.Case
	Key     wycheproof.Hex `json:"key"`
	Message wycheproof.Hex `json:"msg"`
	Tag     wycheproof.Hex `json:"tag"`
}

type macGroup struct {
	KeySize int `json:"keySize"`
	TagSize int `json:"tagSize"`
}

func TestWycheproofHMAC(t *testing.T) {
	keys := newImporter(t, kmstest.HomeToken)
	wycheproof.Suite[macGroup, macCase]{
		Files: []string{"hmac_*.json"},
		LeftOut: map[string]string{
			"hmac_sha1_*":    "SHA-1, which the API does not have for HMAC",
			"hmac_sha3_*":    "SHA-3, which the API does not have",
			"hmac_sha512_2*": "SHA-512/224 and SHA-512/256, which the API does not have",
			"hmac_sm3_*":     "SM3, which the API does not have for HMAC",
		},
		Group: func(_ *testing.T, file string, g macGroup) func(*testing.T, macCase) wycheproof.Outcome {
			spec := "HMAC_" + strings.TrimSuffix(strings.TrimPrefix(file, "hmac_sha"), "_test.json")
			mac := macAlgorithms[spec]
			return func(t *testing.T, c macCase) wycheproof.Outcome {
				switch {
				case len(c.Key) != mac.size:
					return wycheproof.LeftOut("a key that is not as long as the hash, as keys of the API are")
				case len(c.Message) == 0:
					return wycheproof.LeftOut("an empty message, which the API does not take")
				}
				id := keys.key(t, spec, "GENERATE_VERIFY_MAC", c.Key)
				made := blobOf(t, accept(t, keys.s, "GenerateMac", object(t, "KeyId", id, "MacAlgorithm", mac.algorithm, "Message", []byte(c.Message))), "Mac")
				if 8*mac.size != g.TagSize { // the API does not shorten MACs
					return wycheproof.Took(bytes.HasPrefix(made, c.Tag))
				}
				answer := keys.s.Post(t, "VerifyMac", object(t, "KeyId", id, "MacAlgorithm", mac.algorithm, "Message", []byte(c.Message), "Mac", []byte(c.Tag)))
				took := !refused(t, answer, "KMSInvalidMacException")
				require.Equal(t, took, bytes.Equal(made, c.Tag))
				return wycheproof.Took(took)
			}
		},
	}.Run(t)
}

type ecdhCase struct {
	wycheproof.Case
	Public  wycheproof.Hex `json:"public"`
	Private wycheproof.Hex `json:"private"`
	Shared  wycheproof.Hex `json:"shared"`
}

type ecdhGroup struct {
	Curve string `json:"curve"`
}

var wycheproofCurves = map[string]struct {
	spec string
	ecdh.Curve
	oid  asn1.ObjectIdentifier
	size int
}{
	"secp256r1": {"ECC_NIST_P256", ecdh.P256(), asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}, 32},
	"secp384r1": {"ECC_NIST_P384", ecdh.P384(), asn1.ObjectIdentifier{1, 3, 132, 0, 34}, 48},
	"secp521r1": {"ECC_NIST_P521", ecdh.P521(), asn1.ObjectIdentifier{1, 3, 132, 0, 35}, 66},
}

func TestWycheproofECDH(t *testing.T) {
	const encodings = "a form of the key that the API requires: it takes the one encoding that it gives"
	no := wycheproof.Decision{Accepted: false, Reason: encodings}
	keys := newImporter(t, kmstest.HomeWrapped)
	wycheproof.Suite[ecdhGroup, ecdhCase]{
		Files: []string{"ecdh_*.json"},
		LeftOut: map[string]string{
			"ecdh_brainpool*":   "curves that the API does not have",
			"ecdh_secp224*":     "curves that the API does not have",
			"ecdh_secp256k1*":   "a curve that the API has for signatures only",
			"ecdh_sect*":        "curves that the API does not have",
			"ecdh_*_pem_*":      "the cases of the files without _pem, in another encoding",
			"ecdh_*_webcrypto*": "the cases of the files without _webcrypto, in another encoding",
		},
		Acceptable: map[string]wycheproof.Decision{
			"CompressedPublic": no, "InvalidAsn": no, "UnnamedCurve": no,
		},
		Group: func(_ *testing.T, file string, g ecdhGroup) func(*testing.T, ecdhCase) wycheproof.Outcome {
			curve := wycheproofCurves[g.Curve]
			return func(t *testing.T, c ecdhCase) wycheproof.Outcome {
				scalar := new(big.Int).SetBytes(c.Private).FillBytes(make([]byte, curve.size))
				private, err := curve.NewPrivateKey(scalar)
				require.NoError(t, err)
				material, err := x509.MarshalPKCS8PrivateKey(private)
				require.NoError(t, err)
				id, public := keys.key(t, curve.spec, "KEY_AGREEMENT", material), []byte(c.Public)
				if strings.Contains(file, "_ecpoint_") {
					public = marshalPoint(t, curve.oid, public)
				}
				answer := keys.s.Post(t, "DeriveSharedSecret", object(t, "KeyId", id, "KeyAgreementAlgorithm", "ECDH", "PublicKey", public))
				if len(public) == 0 || refused(t, answer, "ValidationException") {
					return wycheproof.Took(false)
				}
				return wycheproof.Took(bytes.Equal(c.Shared, blobOf(t, answer.JSON(t), "SharedSecret")))
			}
		},
	}.Run(t)
}

// marshalPoint makes a SubjectPublicKeyInfo of a point, whatever that is.
func marshalPoint(t *testing.T, curve asn1.ObjectIdentifier, point []byte) []byte {
	t.Helper()
	type algorithm struct{ Algorithm, Curve asn1.ObjectIdentifier }
	der, err := asn1.Marshal(struct {
		Algorithm algorithm
		Key       asn1.BitString
	}{algorithm{asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}, curve}, asn1.BitString{Bytes: point, BitLength: 8 * len(point)}})
	require.NoError(t, err)
	return der
}

type rsaGroup struct {
	Private wycheproof.Hex `json:"privateKeyPkcs8"`
	Key     struct {
		Exponent wycheproof.Hex `json:"publicExponent"`
	} `json:"privateKey"`
	Size int    `json:"keySize"`
	Hash string `json:"sha"`
	MGF  string `json:"mgfSha"`
}

// spec gives the key spec of the group; false for sizes that the API does not have.
func (g rsaGroup) spec() (string, bool) {
	spec, known := map[int]string{2048: "RSA_2048", 3072: "RSA_3072", 4096: "RSA_4096"}[g.Size]
	return spec, known
}

type rsaCase struct {
	wycheproof.Case
	Message    wycheproof.Hex `json:"msg"`
	Ciphertext wycheproof.Hex `json:"ct"`
	Label      wycheproof.Hex `json:"label"`
	Signature  wycheproof.Hex `json:"sig"`
}

func TestWycheproofOAEP(t *testing.T) {
	keys := newImporter(t, kmstest.HomeWrapped)
	leave := func(reason string) func(*testing.T, rsaCase) wycheproof.Outcome {
		return func(*testing.T, rsaCase) wycheproof.Outcome { return wycheproof.LeftOut(reason) }
	}
	const hashes = "hashes that the API does not have together for OAEP"
	wycheproof.Suite[rsaGroup, rsaCase]{
		Files: []string{"rsa_oaep_*.json"},
		LeftOut: map[string]string{
			"rsa_oaep_*_sha224_*": hashes, "rsa_oaep_*_sha384_*": hashes, "rsa_oaep_*_sha512_*": hashes, "rsa_oaep_*_sha256_mgf1sha1_*": hashes,
		},
		Group: func(_ *testing.T, _ string, g rsaGroup) func(*testing.T, rsaCase) wycheproof.Outcome {
			algorithm := map[string]string{"SHA-1": "RSAES_OAEP_SHA_1", "SHA-256": "RSAES_OAEP_SHA_256"}[g.Hash]
			spec, known := g.spec()
			switch {
			case algorithm == "" || g.MGF != g.Hash:
				return leave(hashes)
			case !known:
				return leave("a key size that the API does not have")
			}
			return func(t *testing.T, c rsaCase) wycheproof.Outcome {
				if len(c.Label) > 0 {
					return wycheproof.LeftOut("a label, which the API does not have")
				}
				answer := opening(keys.key(t, spec, "ENCRYPT_DECRYPT", g.Private), algorithm, c.Ciphertext).send(t, keys.s)
				if len(c.Ciphertext) == 0 || refused(t, answer, "InvalidCiphertextException") {
					return wycheproof.Took(false)
				}
				if len(c.Message) == 0 {
					require.NotContains(t, answer.JSON(t), "Plaintext")
					return wycheproof.Took(true)
				}
				return wycheproof.Took(bytes.Equal(c.Message, blobOf(t, answer.JSON(t), "Plaintext")))
			}
		},
	}.Run(t)
}

// TestWycheproofSigning signs with PKCS #1 v1.5, which has one signature for each message. Cases that Wycheproof calls
// acceptable are with hashes that are too weak.
func TestWycheproofSigning(t *testing.T) {
	keys := newImporter(t, kmstest.HomeWrapped)
	wycheproof.Suite[rsaGroup, rsaCase]{
		Files: []string{"rsa_pkcs1_*_sig_gen_*.json"},
		LeftOut: map[string]string{
			"rsa_pkcs1_1*": "key sizes that the API does not have",
		},
		Group: func(t *testing.T, _ string, g rsaGroup) func(*testing.T, rsaCase) wycheproof.Outcome {
			algorithm := map[string]string{
				"SHA-256": "RSASSA_PKCS1_V1_5_SHA_256", "SHA-384": "RSASSA_PKCS1_V1_5_SHA_384", "SHA-512": "RSASSA_PKCS1_V1_5_SHA_512",
			}[g.Hash]
			spec, known := g.spec()
			require.True(t, known)
			return func(t *testing.T, c rsaCase) wycheproof.Outcome {
				switch {
				case algorithm == "":
					return wycheproof.LeftOut("hashes that the API does not have for signatures")
				case len(c.Message) == 0:
					return wycheproof.LeftOut("an empty message, which the API does not take")
				case bytes.Equal(g.Key.Exponent, []byte{3}):
					_, err := keys.add(t, spec, "SIGN_VERIFY", g.Private)
					kmstest.RequireError(t, err, "IncorrectKeyMaterialException", "The key material in the request is invalid for this KMS key.")
					return wycheproof.LeftOut("a public exponent of 3, which is not imported: FIPS 186-5, section 5.1")
				}
				id := keys.key(t, spec, "SIGN_VERIFY", g.Private)
				q := request{"Sign", members{"KeyId": id, "SigningAlgorithm": algorithm, "Message": []byte(c.Message)}}
				return wycheproof.Took(bytes.Equal(c.Signature, blobOf(t, q.requireSuccess(t, keys.s), "Signature")))
			}
		},
	}.Run(t)
}
