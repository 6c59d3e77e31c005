package contract

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"hash"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// ownKey is a key of a caller's own, other than a symmetric one.
type ownKey struct {
	spec, usage string
	material    []byte
	// public is the SubjectPublicKeyInfo of a key pair.
	public []byte
	// used has the server use the key and holds the result against Go.
	used func(t *testing.T, s *kmstest.Server, id string)
}

// newExternal makes a key that waits for material of its kind.
func (k ownKey) newExternal(t *testing.T, s *kmstest.Server) string {
	t.Helper()
	out, err := s.Client().CreateKey(t.Context(), &kms.CreateKeyInput{
		Origin: types.OriginTypeExternal, KeySpec: types.KeySpec(k.spec), KeyUsage: types.KeyUsageType(k.usage),
	})
	require.NoError(t, err)
	return *out.KeyMetadata.KeyId
}

func (k *ownKey) encode(t *testing.T, private, public any) {
	t.Helper()
	var err error
	k.material, err = x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	k.public, err = x509.MarshalPKIXPublicKey(public)
	require.NoError(t, err)
}

func ownHMAC(bits int, digest func() hash.Hash) ownKey {
	k := ownKey{spec: fmt.Sprintf("HMAC_%d", bits), usage: "GENERATE_VERIFY_MAC", material: randomBytes(bits / 8)}
	k.used = func(t *testing.T, s *kmstest.Server, id string) {
		t.Helper()
		out, err := s.Client().GenerateMac(t.Context(), &kms.GenerateMacInput{
			KeyId: &id, Message: []byte("message"), MacAlgorithm: types.MacAlgorithmSpec(fmt.Sprintf("HMAC_SHA_%d", bits)),
		})
		require.NoError(t, err)
		mac := hmac.New(digest, k.material)
		mac.Write([]byte("message"))
		require.Equal(t, mac.Sum(nil), out.Mac)
	}
	return k
}

func ownRSA(t *testing.T, usage string) ownKey {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	k := ownKey{spec: "RSA_2048", usage: usage}
	k.encode(t, private, &private.PublicKey)
	k.used = func(t *testing.T, s *kmstest.Server, id string) {
		t.Helper()
		if usage == "SIGN_VERIFY" {
			digest := sha256.Sum256([]byte("message"))
			require.NoError(t, rsa.VerifyPKCS1v15(&private.PublicKey, crypto.SHA256, digest[:], signatureOf(t, s, id, "RSASSA_PKCS1_V1_5_SHA_256")))
			return
		}
		for algorithm, digest := range map[types.EncryptionAlgorithmSpec]hash.Hash{
			types.EncryptionAlgorithmSpecRsaesOaepSha1: sha1.New(), types.EncryptionAlgorithmSpecRsaesOaepSha256: sha256.New(),
		} {
			ciphertext, err := rsa.EncryptOAEP(digest, rand.Reader, &private.PublicKey, []byte("plaintext"), nil)
			require.NoError(t, err)
			out, err := s.Client().Decrypt(t.Context(), &kms.DecryptInput{KeyId: &id, CiphertextBlob: ciphertext, EncryptionAlgorithm: algorithm})
			require.NoError(t, err)
			require.Equal(t, "plaintext", string(out.Plaintext))
		}
	}
	return k
}

// signatureOf has the server sign "message".
func signatureOf(t *testing.T, s *kmstest.Server, id, algorithm string) []byte {
	t.Helper()
	out, err := s.Client().Sign(t.Context(), &kms.SignInput{KeyId: &id, Message: []byte("message"), SigningAlgorithm: types.SigningAlgorithmSpec(algorithm)})
	require.NoError(t, err)
	return out.Signature
}

func ownSigner(t *testing.T, spec string, curve elliptic.Curve, digest crypto.Hash) ownKey {
	t.Helper()
	private, err := ecdsa.GenerateKey(curve, rand.Reader)
	require.NoError(t, err)
	k := ownKey{spec: spec, usage: "SIGN_VERIFY"}
	k.encode(t, private, &private.PublicKey)
	k.used = func(t *testing.T, s *kmstest.Server, id string) {
		t.Helper()
		h := digest.New()
		h.Write([]byte("message"))
		require.True(t, ecdsa.VerifyASN1(&private.PublicKey, h.Sum(nil), signatureOf(t, s, id, fmt.Sprintf("ECDSA_SHA_%d", 8*digest.Size()))))
	}
	return k
}

func ownEd25519(t *testing.T) ownKey {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	k := ownKey{spec: "ECC_NIST_EDWARDS25519", usage: "SIGN_VERIFY"}
	k.encode(t, private, public)
	k.used = func(t *testing.T, s *kmstest.Server, id string) {
		t.Helper()
		require.Equal(t, ed25519.Sign(private, []byte("message")), signatureOf(t, s, id, "ED25519_SHA_512"))
	}
	return k
}

// oneAsymmetricKey is the PKCS#8 of version 2, RFC 5958, of a key of Ed25519, with the public key given.
func oneAsymmetricKey(private, public []byte) []byte {
	material := append(bytes.Clone(private), append([]byte{0x81, 33, 0}, public[len(public)-ed25519.PublicKeySize:]...)...)
	material[1], material[4] = byte(len(material)-2), 1
	return material
}

func ownAgreement(t *testing.T) ownKey {
	t.Helper()
	private, err := ecdh.P384().GenerateKey(rand.Reader)
	require.NoError(t, err)
	k := ownKey{spec: "ECC_NIST_P384", usage: "KEY_AGREEMENT"}
	k.encode(t, private, private.PublicKey())
	k.used = func(t *testing.T, s *kmstest.Server, id string) {
		t.Helper()
		other, err := ecdh.P384().GenerateKey(rand.Reader)
		require.NoError(t, err)
		public, err := x509.MarshalPKIXPublicKey(other.PublicKey())
		require.NoError(t, err)
		want, err := private.ECDH(other.PublicKey())
		require.NoError(t, err)
		out, err := s.Client().DeriveSharedSecret(t.Context(), &kms.DeriveSharedSecretInput{
			KeyId: &id, PublicKey: public, KeyAgreementAlgorithm: types.KeyAgreementAlgorithmSpecEcdh,
		})
		require.NoError(t, err)
		require.Equal(t, want, out.SharedSecret)
		require.Equal(t, types.OriginTypeExternal, out.KeyOrigin)
	}
	return k
}

// ownSecp256k1 is a key that OpenSSL made. What it signs is verified by the server: the standard library cannot.
func ownSecp256k1() ownKey {
	point := fromHex("0407d39456eb27a031b1c395a02c36e9e740bea0c0fe169f4e94f71c70701e7ea5317397a7f6687c38a04585248716d7535a13827948a2b2b0c7dcc8b049f0eea9")
	k := ownKey{
		spec: "ECC_SECG_P256K1", usage: "SIGN_VERIFY", public: append(fromHex("3056301006072a8648ce3d020106052b8104000a034200"), point...),
		material: append(fromHex("308184020100301006072a8648ce3d020106052b8104000a046d306b0201010420e17463d29025962cf14ba6c97c3f111427c6a8c4b9867605c7816c4540d70be9a144034200"), point...),
	}
	k.used = func(t *testing.T, s *kmstest.Server, id string) {
		t.Helper()
		_, err := s.Client().Verify(t.Context(), &kms.VerifyInput{
			KeyId: &id, Message: []byte("message"), SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256, Signature: signatureOf(t, s, id, "ECDSA_SHA_256"),
		})
		require.NoError(t, err)
	}
	return k
}

func fromHex(text string) []byte {
	var b []byte
	_, _ = fmt.Sscanf(text, "%x", &b) // constants of this file
	return b
}

// ownKeys gives keys of every kind, and the ways in which they are to be imported.
func ownKeys(t *testing.T) []struct {
	ownKey
	ways [][2]string
} {
	t.Helper()
	type row = struct {
		ownKey
		ways [][2]string
	}
	return []row{
		{ownHMAC(224, sha256.New224), [][2]string{{"RSAES_OAEP_SHA_1", "RSA_2048"}, {"RSAES_OAEP_SHA_256", "RSA_2048"}}},
		{ownHMAC(256, sha256.New), [][2]string{{"RSAES_OAEP_SHA_256", "RSA_3072"}}},
		{ownHMAC(384, sha512.New384), [][2]string{{"RSAES_OAEP_SHA_1", "RSA_2048"}}},
		{ownHMAC(512, sha512.New), [][2]string{{"RSAES_OAEP_SHA_256", "RSA_2048"}}},
		{ownRSA(t, "ENCRYPT_DECRYPT"), [][2]string{{"RSA_AES_KEY_WRAP_SHA_256", "RSA_2048"}, {"RSA_AES_KEY_WRAP_SHA_1", "RSA_2048"}}},
		{ownRSA(t, "SIGN_VERIFY"), [][2]string{{"RSA_AES_KEY_WRAP_SHA_1", "RSA_2048"}}},
		{ownSigner(t, "ECC_NIST_P256", elliptic.P256(), crypto.SHA256), [][2]string{{"RSAES_OAEP_SHA_1", "RSA_2048"}, {"RSA_AES_KEY_WRAP_SHA_256", "RSA_2048"}}},
		{ownAgreement(t), [][2]string{{"RSAES_OAEP_SHA_256", "RSA_3072"}}},
		{ownSigner(t, "ECC_NIST_P521", elliptic.P521(), crypto.SHA512), [][2]string{{"RSAES_OAEP_SHA_256", "RSA_3072"}, {"RSA_AES_KEY_WRAP_SHA_1", "RSA_2048"}}},
		{ownSecp256k1(), [][2]string{{"RSAES_OAEP_SHA_256", "RSA_2048"}}},
		{ownEd25519(t), [][2]string{
			{"RSAES_OAEP_SHA_256", "RSA_2048"}, {"RSAES_OAEP_SHA_1", "RSA_2048"}, {"RSA_AES_KEY_WRAP_SHA_256", "RSA_3072"}, {"RSA_AES_KEY_WRAP_SHA_1", "RSA_2048"},
		}},
	}
}

// TestImportAsymmetricKeys imports keys of every kind, deletes their material and imports it again. Answers have no id of the
// material, and GetPublicKey gives the public key as it is.
func TestImportAsymmetricKeys(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for _, own := range ownKeys(t) {
			id := own.newExternal(t, s)
			for _, way := range append(own.ways, own.ways[0]) {
				metadata := metadataOf(t, s, id)
				require.Equal(t, "PendingImport", metadata["KeyState"], own.spec)
				require.NotContains(t, metadata, "ExpirationModel")
				set := s.ImportSet(t, id, way[0], way[1])
				require.Equal(t, members{"KeyId": kmstest.KeyARN(id)}, newImport(t, set, own.material).requireSuccess(t, s), own.spec)
				metadata = metadataOf(t, s, id)
				require.Equal(t, "Enabled", metadata["KeyState"])
				require.Equal(t, doesNotExpire, metadata["ExpirationModel"])
				require.NotContains(t, metadata, "CurrentKeyMaterialId")
				if own.public != nil {
					out, err := s.Client().GetPublicKey(t.Context(), &kms.GetPublicKeyInput{KeyId: &id})
					require.NoError(t, err)
					require.Equal(t, own.public, out.PublicKey, "%s, %s", own.spec, way)
				}
				own.used(t, s, id)
				require.Equal(t, members{"KeyId": kmstest.KeyARN(id)}, accept(t, s, "DeleteImportedKeyMaterial", object(t, "KeyId", id)))
			}
		}
	})
}

// TestImportAsymmetricExpires imports a key that expires, and again.
func TestImportAsymmetricExpires(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for algorithm, own := range map[types.SigningAlgorithmSpec]ownKey{
			types.SigningAlgorithmSpecEcdsaSha256: ownSigner(t, "ECC_NIST_P256", elliptic.P256(), crypto.SHA256), types.SigningAlgorithmSpecEd25519Sha512: ownEd25519(t),
		} {
			id := own.newExternal(t, s)
			set, until := s.ImportSet(t, id, "RSAES_OAEP_SHA_256", "RSA_2048"), time.Now().Add(3*time.Second)
			_, err := s.Client().ImportKeyMaterial(t.Context(), set.Input(t, own.material, func(in *kms.ImportKeyMaterialInput) {
				in.ExpirationModel, in.ValidTo = types.ExpirationModelTypeKeyMaterialExpires, &until
			}))
			require.NoError(t, err)
			require.Equal(t, "KEY_MATERIAL_EXPIRES", metadataOf(t, s, id)["ExpirationModel"])
			require.Eventually(t, func() bool { return metadataOf(t, s, id)["KeyState"] == "PendingImport" }, waitLimit, waitStep)
			_, err = s.Client().Sign(t.Context(), &kms.SignInput{KeyId: &id, Message: []byte("message"), SigningAlgorithm: algorithm})
			require.ErrorContains(t, err, "is pending import.")
			newImport(t, set, own.material).requireSuccess(t, s)
			own.used(t, s, id)
		}
	})
}

// TestImportAsymmetricRefusals has material that is none of the key, or not the key's.
func TestImportAsymmetricRefusals(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		own, other := ownSigner(t, "ECC_NIST_P256", elliptic.P256(), crypto.SHA256), ownSigner(t, "ECC_NIST_P256", elliptic.P256(), crypto.SHA256)
		p384, mac := ownSigner(t, "ECC_NIST_P384", elliptic.P384(), crypto.SHA384), ownHMAC(224, sha256.New224)
		wrongName := slices.Clone(own.material)
		oid, err := asn1.Marshal(asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7})
		require.NoError(t, err)
		wrongName[bytes.Index(wrongName, oid)+len(oid)-1] ^= 1
		id, macID := own.newExternal(t, s), mac.newExternal(t, s)
		for _, algorithm := range []string{"RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256"} {
			set, macSet := s.ImportSet(t, id, algorithm, "RSA_2048"), s.ImportSet(t, macID, algorithm, "RSA_2048")
			for name, q := range map[string]request{
				"another curve": newImport(t, set, p384.material), "the public key": newImport(t, set, own.public), "a secret": newImport(t, set, randomBytes(32)),
				"the end cut off": newImport(t, set, own.material[:len(own.material)-1]), "a wrong OID": newImport(t, set, wrongName),
				"27 bytes": newImport(t, macSet, randomBytes(27)), "29 bytes": newImport(t, macSet, randomBytes(29)), "32 bytes": newImport(t, macSet, randomBytes(32)),
			} {
				t.Log(algorithm, name)
				q.requireRefusal(t, s, "IncorrectKeyMaterialException", invalidMaterial)
			}
			for _, member := range []string{"ImportType", "KeyMaterialId", "KeyMaterialDescription"} {
				value := map[string]string{"ImportType": "NEW_KEY_MATERIAL", "KeyMaterialId": fmt.Sprintf("%064d", 1), "KeyMaterialDescription": "text"}[member]
				newImport(t, set, own.material).with(member, value).requireRefusal(t, s, "ValidationException",
					"ImportType, KeyMaterialId and KeyMaterialDescription are only valid for symmetric encryption KMS keys.")
			}
		}
		requireOneMaterial(t, s, own, other)
	})
}

// requireOneMaterial demands that a key that was imported as one is never another.
func requireOneMaterial(t *testing.T, s *kmstest.Server, own, other ownKey) {
	t.Helper()
	id := own.newExternal(t, s)
	set := s.ImportSet(t, id, "RSAES_OAEP_SHA_1", "RSA_2048")
	newImport(t, set, own.material).requireSuccess(t, s)
	newImport(t, set, other.material).requireRefusal(t, s, "IncorrectKeyMaterialException", unlikeMaterial)
	own.used(t, s, id)
	accept(t, s, "DeleteImportedKeyMaterial", object(t, "KeyId", id))
	newImport(t, set, other.material).requireRefusal(t, s, "IncorrectKeyMaterialException", unlikeMaterial)
	newImport(t, set, own.material).requireSuccess(t, s)
	own.used(t, s, id)
}

// TestImportEd25519 imports version 2 of PKCS#8, and again as version 1; the public key in it must be that of the seed.
func TestImportEd25519(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		own, other := ownEd25519(t), ownEd25519(t)
		id, p256 := own.newExternal(t, s), ownSigner(t, "ECC_NIST_P256", elliptic.P256(), crypto.SHA256)
		set := s.ImportSet(t, id, "RSA_AES_KEY_WRAP_SHA_256", "RSA_2048")
		for _, material := range [][]byte{
			oneAsymmetricKey(own.material, other.public), p256.material, own.public, own.material[16:], own.material[:47], append(bytes.Clone(own.material), 0),
		} {
			newImport(t, set, material).requireRefusal(t, s, "IncorrectKeyMaterialException", invalidMaterial)
		}
		newImport(t, set, oneAsymmetricKey(own.material, own.public)).requireSuccess(t, s)
		own.used(t, s, id)
		newImport(t, set, own.material).requireSuccess(t, s)
		own.used(t, s, id)
		requireOneMaterial(t, s, own, other)
	})
}

// TestParametersForAsymmetricKeys asks for ways that keys of a spec do not have.
func TestParametersForAsymmetricKeys(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for _, row := range []struct{ spec, usage, algorithm, wrappingKey, text string }{
			{"RSA_2048", "SIGN_VERIFY", "RSAES_OAEP_SHA_256", "RSA_4096", "WrappingAlgorithm RSAES_OAEP_SHA_256 is not supported for KeySpec RSA_2048."},
			{"RSA_4096", "ENCRYPT_DECRYPT", "RSAES_OAEP_SHA_1", "RSA_4096", "WrappingAlgorithm RSAES_OAEP_SHA_1 is not supported for KeySpec RSA_4096."},
			{"HMAC_512", "GENERATE_VERIFY_MAC", "RSA_AES_KEY_WRAP_SHA_256", "RSA_2048", "WrappingAlgorithm RSA_AES_KEY_WRAP_SHA_256 is not supported for KeySpec HMAC_512."},
			{"ECC_NIST_P256", "SIGN_VERIFY", "RSAES_PKCS1_V1_5", "RSA_2048", "WrappingAlgorithm RSAES_PKCS1_V1_5 is not supported for KeySpec ECC_NIST_P256."},
			{"ECC_NIST_P521", "SIGN_VERIFY", "RSAES_OAEP_SHA_1", "RSA_2048", "WrappingAlgorithm RSAES_OAEP_SHA_1 with WrappingKeySpec RSA_2048 is not supported for KeySpec ECC_NIST_P521."},
			{"ECC_NIST_P521", "KEY_AGREEMENT", "RSAES_OAEP_SHA_256", "RSA_2048", "WrappingAlgorithm RSAES_OAEP_SHA_256 with WrappingKeySpec RSA_2048 is not supported for KeySpec ECC_NIST_P521."},
		} {
			q := request{"GetParametersForImport", members{
				"KeyId": ownKey{spec: row.spec, usage: row.usage}.newExternal(t, s), "WrappingAlgorithm": row.algorithm, "WrappingKeySpec": row.wrappingKey,
			}}
			q.requireRefusal(t, s, "UnsupportedOperationException", row.text)
		}
	})
}
