package contract

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"hash"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// Encrypt, Decrypt and ReEncrypt with RSA keys.

// oaepLimits are the most bytes that fit under a key, by spec and algorithm.
var oaepLimits = map[string]map[string]int{
	"RSA_2048": {"RSAES_OAEP_SHA_1": 214, "RSAES_OAEP_SHA_256": 190},
	"RSA_3072": {"RSAES_OAEP_SHA_1": 342, "RSAES_OAEP_SHA_256": 318},
	"RSA_4096": {"RSAES_OAEP_SHA_1": 470, "RSAES_OAEP_SHA_256": 446},
}

// eachOAEP runs a test with every RSA key and algorithm, in both homes.
func eachOAEP(t *testing.T, test func(t *testing.T, s *kmstest.Server, id, spec, algorithm string, limit int)) {
	t.Helper()
	each(t, func(t *testing.T, s *kmstest.Server) {
		for spec, limits := range oaepLimits {
			id := sharedKey(t, s, spec, "ENCRYPT_DECRYPT")
			for algorithm, limit := range limits {
				t.Run(spec+" "+algorithm, func(t *testing.T) { test(t, s, id, spec, algorithm, limit) })
			}
		}
	})
}

// encryptOutside encrypts with the public key of a key, in Go.
func encryptOutside(t *testing.T, s *kmstest.Server, id, algorithm string, plaintext []byte) []byte {
	t.Helper()
	newHash := map[string]func() hash.Hash{"RSAES_OAEP_SHA_1": sha1.New, "RSAES_OAEP_SHA_256": sha256.New}[algorithm]
	blob, err := rsa.EncryptOAEP(newHash(), rand.Reader, publicKey[*rsa.PublicKey](t, s, id), plaintext, nil)
	require.NoError(t, err)
	return blob
}

// encryptInOpenSSL encrypts with the public key of a key and the openssl command.
func encryptInOpenSSL(t *testing.T, s *kmstest.Server, id, algorithm string, plaintext []byte) []byte {
	t.Helper()
	name := map[string]string{"RSAES_OAEP_SHA_1": "sha1", "RSAES_OAEP_SHA_256": "sha256"}[algorithm]
	blob, err := openssl(t, map[string][]byte{"public": publicDER(t, s, id), "plaintext": plaintext},
		"pkeyutl", "-encrypt", "-pubin", "-keyform", "DER", "-inkey", "public", "-in", "plaintext", "-pkeyopt", "rsa_padding_mode:oaep",
		"-pkeyopt", "rsa_oaep_md:"+name, "-pkeyopt", "rsa_mgf1_md:"+name)
	require.NoError(t, err)
	return blob
}

// opening is a request to decrypt what was encrypted to an RSA key.
func opening(id, algorithm string, blob []byte) request {
	return request{"Decrypt", members{"KeyId": id, "EncryptionAlgorithm": algorithm, "CiphertextBlob": blob}}
}

// requireOpens decrypts, and checks the whole answer: it has no KeyMaterialId.
func requireOpens(t *testing.T, s *kmstest.Server, id, algorithm string, blob, plaintext []byte) {
	t.Helper()
	want := members{"KeyId": kmstest.KeyARN(id), "EncryptionAlgorithm": algorithm}
	require.Equal(t, plaintext, requireMembers(t, opening(id, algorithm, blob).requireSuccess(t, s), want, "Plaintext")["Plaintext"])
}

func plaintextOf(size int) []byte { return bytes.Repeat([]byte{0, 0xFF, 'x'}, size)[:size] }

// TestRSAEncrypt encrypts here and outside; both decrypt here.
func TestRSAEncrypt(t *testing.T) {
	eachOAEP(t, func(t *testing.T, s *kmstest.Server, id, spec, algorithm string, limit int) {
		var bits int
		_, err := fmt.Sscanf(spec, "RSA_%d", &bits)
		require.NoError(t, err)
		for _, size := range []int{1, 2, 32, limit - 1, limit} {
			plaintext := plaintextOf(size)
			q := request{"Encrypt", members{"KeyId": id, "Plaintext": plaintext, "EncryptionAlgorithm": algorithm}}
			want := members{"KeyId": kmstest.KeyARN(id), "EncryptionAlgorithm": algorithm}
			blob := requireMembers(t, q.requireSuccess(t, s), want, "CiphertextBlob")["CiphertextBlob"]
			require.Len(t, blob, bits/8, "the bare ciphertext")
			require.NotEqual(t, blob, blobOf(t, q.requireSuccess(t, s), "CiphertextBlob"))
			requireOpens(t, s, id, algorithm, blob, plaintext)
			requireOpens(t, s, id, algorithm, encryptOutside(t, s, id, algorithm, plaintext), plaintext)
		}
		requireOpens(t, s, id, algorithm, encryptInOpenSSL(t, s, id, algorithm, plaintextOf(limit)), plaintextOf(limit))
	})
}

// TestRSAEncryptLimits encrypts what does not fit.
func TestRSAEncryptLimits(t *testing.T) {
	eachOAEP(t, func(t *testing.T, s *kmstest.Server, id, spec, algorithm string, limit int) {
		q := request{"Encrypt", members{"KeyId": id, "EncryptionAlgorithm": algorithm}}
		text := fmt.Sprintf("Algorithm %s and key spec %s cannot encrypt data larger than %d bytes.", algorithm, spec, limit)
		for _, size := range []int{limit + 1, 4096} {
			q.with("Plaintext", plaintextOf(size)).requireRefusal(t, s, "ValidationException", text)
			q.with("Plaintext", plaintextOf(size)).with("DryRun", true).requireRefusal(t, s, "ValidationException", text)
		}
		q.with("Plaintext", plaintextOf(4097)).requireRefusal(t, s, "ValidationException", invalid("Value at 'plaintext'", "have length less than or equal to 4096"))
		// What is in a ciphertext of a symmetric key is as long as can be told from it.
		for size, fits := range map[int]bool{limit: true, limit + 1: false} {
			q := request{"ReEncrypt", members{
				"CiphertextBlob": s.Encrypt(t, s.NewKey(t), plaintextOf(size), nil), "DestinationKeyId": id, "DestinationEncryptionAlgorithm": algorithm,
			}}
			if fits {
				q.requireSuccess(t, s)
			} else {
				q.requireRefusal(t, s, "ValidationException", text)
				q.with("DryRun", true).requireRefusal(t, s, "ValidationException", text)
			}
		}
	})
}

// TestRSADecryptForgeries decrypts what was not encrypted to the key with the algorithm: one answer to all of it.
func TestRSADecryptForgeries(t *testing.T) {
	eachOAEP(t, func(t *testing.T, s *kmstest.Server, id, _, algorithm string, _ int) {
		blob := encryptOutside(t, s, id, algorithm, []byte("plaintext"))
		other := map[string]string{"RSAES_OAEP_SHA_1": "RSAES_OAEP_SHA_256", "RSAES_OAEP_SHA_256": "RSAES_OAEP_SHA_1"}[algorithm]
		first, last := bytes.Clone(blob), bytes.Clone(blob)
		first[1] ^= 1
		last[len(last)-1] ^= 1
		modulus := publicKey[*rsa.PublicKey](t, s, id).N.Bytes()
		for name, forged := range map[string][]byte{
			"the first byte": first, "the last byte": last, "cut": blob[1:], "cut behind": blob[:len(blob)-1], "longer": append(bytes.Clone(blob), 0),
			"a zero in front": append([]byte{0}, blob...), "zeros": make([]byte, len(blob)), "one": append(make([]byte, len(blob)-1), 1),
			"one byte": {1}, "the modulus": modulus, "more than the modulus": bytes.Repeat([]byte{0xFF}, len(blob)), "the longest": make([]byte, 6144),
			"of the other algorithm": encryptOutside(t, s, id, other, []byte("plaintext")),
			"of a symmetric key":     s.Encrypt(t, sharedKey(t, s, "SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT"), []byte("plaintext"), nil),
		} {
			t.Run(name, func(t *testing.T) {
				opening(id, algorithm, forged).requireRefusal(t, s, "InvalidCiphertextException", "")
				opening(id, algorithm, forged).with("DryRun", true).requireRefusal(t, s, "InvalidCiphertextException", "")
				moving(t, s, id, algorithm, forged).requireRefusal(t, s, "InvalidCiphertextException", "")
			})
		}
		requireOpens(t, s, id, algorithm, blob, []byte("plaintext"))
	})
}

// moving is a request to move what was encrypted to an RSA key to a symmetric one.
func moving(t *testing.T, s *kmstest.Server, id, algorithm string, blob []byte) request {
	t.Helper()
	return request{"ReEncrypt", members{
		"SourceKeyId": id, "SourceEncryptionAlgorithm": algorithm, "CiphertextBlob": blob,
		"DestinationKeyId": sharedKey(t, s, "SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT"),
	}}
}

// TestRSADecryptNeedsKeyAndAlgorithm leaves out what a bare ciphertext does not say.
func TestRSADecryptNeedsKeyAndAlgorithm(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := sharedKey(t, s, "RSA_2048", "ENCRYPT_DECRYPT")
		blob := encryptOutside(t, s, id, "RSAES_OAEP_SHA_256", []byte("plaintext"))
		decrypt, move := opening(id, "RSAES_OAEP_SHA_256", blob), moving(t, s, id, "RSAES_OAEP_SHA_256", blob)
		decrypt.requireSuccess(t, s)
		move.requireSuccess(t, s)
		decrypt.without("KeyId").requireRefusal(t, s, "ValidationException", missing("keyId"))
		move.without("SourceKeyId").requireRefusal(t, s, "ValidationException", missing("sourceKeyId"))
		for _, none := range []any{nil, "SYMMETRIC_DEFAULT"} { // then it is no ciphertext at all
			decrypt.with("EncryptionAlgorithm", none).requireRefusal(t, s, "InvalidCiphertextException", "")
			move.with("SourceEncryptionAlgorithm", none).requireRefusal(t, s, "InvalidCiphertextException", "")
			decrypt.without("KeyId").with("EncryptionAlgorithm", none).requireRefusal(t, s, "InvalidCiphertextException", "")
		}
		// A ciphertext of a symmetric key says whose it is.
		symmetric := s.Encrypt(t, s.NewKey(t), []byte("plaintext"), nil)
		decrypt.with("CiphertextBlob", symmetric).without("EncryptionAlgorithm").requireRefusal(t, s, "IncorrectKeyException", textIncorrectKey)
		move.with("CiphertextBlob", symmetric).without("SourceEncryptionAlgorithm").requireRefusal(t, s, "IncorrectKeyException", textIncorrectKey)
		const incompatible = "Algorithm SYMMETRIC_DEFAULT is incompatible with key spec RSA_2048."
		request{"Encrypt", members{"KeyId": id, "Plaintext": []byte("x")}}.requireRefusal(t, s, "InvalidKeyUsageException", incompatible)
		move.without("DestinationEncryptionAlgorithm").with("DestinationKeyId", id).requireRefusal(t, s, "InvalidKeyUsageException", incompatible)
		for _, operation := range []string{"GenerateDataKey", blindDataKey} {
			request{operation, members{"KeyId": id, "KeySpec": "AES_256"}}.requireRefusal(t, s, "InvalidKeyUsageException", incompatible)
		}
		decrypt.with("EncryptionAlgorithm", "SM2PKE").requireRefusal(t, s, "InvalidKeyUsageException", "Algorithm SM2PKE is incompatible with key spec RSA_2048.")
		// A dry run that does not look at the ciphertext needs both as well.
		blind := decrypt.without("CiphertextBlob").with("DryRun", true).with("DryRunModifiers", []string{"IGNORE_CIPHERTEXT"})
		blind.requireRefusal(t, s, "DryRunOperationException", textDryRun)
		blind.without("EncryptionAlgorithm").requireRefusal(t, s, "InvalidKeyUsageException", incompatible)
	})
}

// TestRSAEncryptionContext gives encryption contexts, which key pairs cannot bind to.
func TestRSAEncryptionContext(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := sharedKey(t, s, "RSA_2048", "ENCRYPT_DECRYPT")
		blob := encryptOutside(t, s, id, "RSAES_OAEP_SHA_1", []byte("plaintext"))
		to := moving(t, s, id, "RSAES_OAEP_SHA_1", blob).with("DestinationKeyId", id).with("DestinationEncryptionAlgorithm", "RSAES_OAEP_SHA_256")
		for member, q := range map[string]request{
			"EncryptionContext":            opening(id, "RSAES_OAEP_SHA_1", blob),
			"SourceEncryptionContext":      to,
			"DestinationEncryptionContext": to,
		} {
			q.with(member, members{}).requireSuccess(t, s)
			q.with(member, members{"a": "b"}).requireRefusal(t, s, "ValidationException", "An encryption context must not be specified for key spec RSA_2048.")
		}
		encrypt := request{"Encrypt", members{"KeyId": id, "Plaintext": []byte("x"), "EncryptionAlgorithm": "RSAES_OAEP_SHA_1", "EncryptionContext": members{"a": "b"}}}
		encrypt.requireRefusal(t, s, "ValidationException", "An encryption context must not be specified for key spec RSA_2048.")
	})
}

// TestRSAReEncrypt moves plaintexts from every sort of key to every other, and to themselves.
func TestRSAReEncrypt(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		type end struct{ id, algorithm string }
		ends := []end{{s.NewKey(t), "SYMMETRIC_DEFAULT"}, {newMultiRegionKey(t, s), "SYMMETRIC_DEFAULT"}}
		for spec, limits := range oaepLimits {
			for algorithm := range limits {
				ends = append(ends, end{sharedKey(t, s, spec, "ENCRYPT_DECRYPT"), algorithm})
			}
		}
		for _, from := range ends {
			for _, to := range ends {
				plaintext := plaintextOf(100)
				encrypt := request{"Encrypt", members{"KeyId": from.id, "Plaintext": plaintext, "EncryptionAlgorithm": from.algorithm}}
				q := request{"ReEncrypt", members{
					"CiphertextBlob": encrypt.requireSuccess(t, s)["CiphertextBlob"], "SourceKeyId": from.id, "SourceEncryptionAlgorithm": from.algorithm,
					"DestinationKeyId": to.id, "DestinationEncryptionAlgorithm": to.algorithm,
				}}
				want := members{
					"SourceKeyId": kmstest.KeyARN(from.id), "SourceEncryptionAlgorithm": from.algorithm,
					"KeyId": kmstest.KeyARN(to.id), "DestinationEncryptionAlgorithm": to.algorithm,
				}
				for member, e := range map[string]end{"SourceKeyMaterialId": from, "DestinationKeyMaterialId": to} {
					if e.algorithm == "SYMMETRIC_DEFAULT" {
						want[member] = currentMaterial(t, s, e.id)
					}
				}
				blob := requireMembers(t, q.requireSuccess(t, s), want, "CiphertextBlob")["CiphertextBlob"]
				decrypted := opening(to.id, to.algorithm, blob).requireSuccess(t, s)
				require.Equal(t, plaintext, blobOf(t, decrypted, "Plaintext"))
				q.with("DryRun", true).requireRefusal(t, s, "DryRunOperationException", textDryRun)
			}
		}
	})
}

// TestRSAReEncryptTooLong moves plaintexts between RSA keys, whose length shows on the token only.
func TestRSAReEncryptTooLong(t *testing.T) {
	eachOAEP(t, func(t *testing.T, s *kmstest.Server, id, spec, algorithm string, limit int) {
		if spec == "RSA_4096" && algorithm == "RSAES_OAEP_SHA_1" {
			return // nothing is longer
		}
		from := sharedKey(t, s, "RSA_4096", "ENCRYPT_DECRYPT")
		for size, fits := range map[int]bool{limit: true, limit + 1: false} {
			q := moving(t, s, from, "RSAES_OAEP_SHA_1", encryptOutside(t, s, from, "RSAES_OAEP_SHA_1", plaintextOf(size))).
				with("DestinationKeyId", id).with("DestinationEncryptionAlgorithm", algorithm)
			if fits {
				requireOpens(t, s, id, algorithm, blobOf(t, q.requireSuccess(t, s), "CiphertextBlob"), plaintextOf(size))
				continue
			}
			text := fmt.Sprintf("Algorithm %s and key spec %s cannot encrypt data larger than %d bytes.", algorithm, spec, limit)
			q.requireRefusal(t, s, "ValidationException", text)
			q.with("DryRun", true).requireRefusal(t, s, "ValidationException", text)
		}
	})
}

// TestReEncryptForgedAndTooLong moves a ciphertext that is too long for the destination, and then its forgery: who cannot encrypt under
// the source learns nothing but that.
func TestReEncryptForgedAndTooLong(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		from, to := s.NewKey(t), sharedKey(t, s, "RSA_2048", "ENCRYPT_DECRYPT")
		blob := s.Encrypt(t, from, plaintextOf(500), nil)
		q := moving(t, s, from, "SYMMETRIC_DEFAULT", blob).with("DestinationKeyId", to).with("DestinationEncryptionAlgorithm", "RSAES_OAEP_SHA_256")
		q.requireRefusal(t, s, "ValidationException", "Algorithm RSAES_OAEP_SHA_256 and key spec RSA_2048 cannot encrypt data larger than 190 bytes.")
		forged := bytes.Clone(blob)
		forged[len(forged)-1] ^= 1
		q.with("CiphertextBlob", forged).requireRefusal(t, s, "InvalidCiphertextException", "")
	})
}

// TestRSAEmptyPlaintext decrypts nothing at all, which was encrypted outside: Encrypt does not take it.
func TestRSAEmptyPlaintext(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := sharedKey(t, s, "RSA_2048", "ENCRYPT_DECRYPT")
		blob := encryptOutside(t, s, id, "RSAES_OAEP_SHA_256", nil)
		answer := opening(id, "RSAES_OAEP_SHA_256", blob).requireSuccess(t, s)
		require.Equal(t, members{"KeyId": kmstest.KeyARN(id), "EncryptionAlgorithm": "RSAES_OAEP_SHA_256"}, answer)
		to := moving(t, s, id, "RSAES_OAEP_SHA_256", blob)
		to.requireRefusal(t, s, "InvalidCiphertextException", "")
		to = to.with("DestinationKeyId", id).with("DestinationEncryptionAlgorithm", "RSAES_OAEP_SHA_1")
		moved := blobOf(t, to.requireSuccess(t, s), "CiphertextBlob")
		require.NotContains(t, opening(id, "RSAES_OAEP_SHA_1", moved).requireSuccess(t, s), "Plaintext")
	})
}

// TestRSASDK encrypts, moves and decrypts with the SDK.
func TestRSASDK(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id, to := sharedKey(t, s, "RSA_3072", "ENCRYPT_DECRYPT"), s.NewKey(t)
		encrypted, err := s.Client().Encrypt(t.Context(), &kms.EncryptInput{
			KeyId: &id, Plaintext: []byte("plaintext"), EncryptionAlgorithm: types.EncryptionAlgorithmSpecRsaesOaepSha256,
		})
		require.NoError(t, err)
		moved, err := s.Client().ReEncrypt(t.Context(), &kms.ReEncryptInput{
			CiphertextBlob: encrypted.CiphertextBlob, SourceKeyId: &id, SourceEncryptionAlgorithm: types.EncryptionAlgorithmSpecRsaesOaepSha256,
			DestinationKeyId: &to, DestinationEncryptionContext: map[string]string{"a": "b"},
		})
		require.NoError(t, err)
		require.Nil(t, moved.SourceKeyMaterialId)
		require.NotNil(t, moved.DestinationKeyMaterialId)
		require.Equal(t, "plaintext", string(s.Decrypt(t, moved.CiphertextBlob, map[string]string{"a": "b"})))
	})
}

// TestRSAMembers tests what else a request about an RSA key may say.
func TestRSAMembers(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := newKeyOf(t, s, "RSA_2048", "ENCRYPT_DECRYPT")
		blob := encryptOutside(t, s, id, "RSAES_OAEP_SHA_1", []byte("plaintext"))
		encrypt := request{"Encrypt", members{"KeyId": id, "Plaintext": []byte("x"), "EncryptionAlgorithm": "RSAES_OAEP_SHA_1"}}
		for _, q := range []request{encrypt, opening(id, "RSAES_OAEP_SHA_1", blob)} {
			testKeyNames(t, s, q, "KeyId", q.operation)
			testDisabled(t, s, q, id)
			testGrantTokens(t, s, q)
			testDryRun(t, s, q)
			testWrongUsage(t, s, q, "ENCRYPT_DECRYPT")
		}
		move := moving(t, s, id, "RSAES_OAEP_SHA_1", blob)
		testKeyNames(t, s, move, "SourceKeyId", "ReEncryptFrom")
		testDisabled(t, s, move, id)
		signs := sharedKey(t, s, "RSA_2048", "SIGN_VERIFY")
		move.with("SourceKeyId", signs).requireRefusal(t, s, "InvalidKeyUsageException", kmstest.KeyARN(signs)+" key usage is SIGN_VERIFY which is not valid for ReEncrypt.")
		move.with("DestinationKeyId", signs).requireRefusal(t, s, "InvalidKeyUsageException", kmstest.KeyARN(signs)+" key usage is SIGN_VERIFY which is not valid for ReEncrypt.")
	})
}

// TestRSAStrict has a server that keeps all plaintext on the token: what SoftHSM can do in part only is refused, Encrypt
// included.
func TestRSAStrict(t *testing.T) {
	for home := range servers {
		t.Run(home, func(t *testing.T) {
			s := kmstest.Start(t, kmstest.Options{Home: home, Settings: []string{"strict_on_token: true"}, Top: []string{slowKeys}})
			id := newKeyOf(t, s, "RSA_2048", "ENCRYPT_DECRYPT")
			requireOpens(t, s, id, "RSAES_OAEP_SHA_1", encryptOutside(t, s, id, "RSAES_OAEP_SHA_1", []byte("x")), []byte("x"))
			const text = "Algorithm RSAES_OAEP_SHA_256 is not supported by the HSM token of this Region."
			blob := encryptOutside(t, s, id, "RSAES_OAEP_SHA_256", []byte("x"))
			encrypt := request{"Encrypt", members{"KeyId": id, "Plaintext": []byte("x"), "EncryptionAlgorithm": "RSAES_OAEP_SHA_256"}}
			move := moving(t, s, id, "RSAES_OAEP_SHA_1", blob)
			for _, q := range []request{
				encrypt, opening(id, "RSAES_OAEP_SHA_256", blob), move.with("SourceEncryptionAlgorithm", "RSAES_OAEP_SHA_256"),
				move.with("DestinationKeyId", id).with("DestinationEncryptionAlgorithm", "RSAES_OAEP_SHA_256"),
			} {
				q.requireRefusal(t, s, "UnsupportedOperationException", text)
				q.with("DryRun", true).requireRefusal(t, s, "UnsupportedOperationException", text)
			}
			require.NotContains(t, strings.ToLower(s.Log()), "panic")
		})
	}
}
