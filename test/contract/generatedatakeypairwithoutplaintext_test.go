package contract

import (
	"testing"

	"hsmkms/test/kmstest"
)

// TestGenerateDataKeyPairWithoutPlaintext makes key pairs of every spec: the private key is in the ciphertext alone.
func TestGenerateDataKeyPairWithoutPlaintext(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewKey(t)
		for _, spec := range pairsOf(t) {
			if spec == "RSA_3072" || spec == "RSA_4096" {
				continue // they take long to make
			}
			q := request{blindDataKeyPair, members{"KeyId": id, "KeyPairSpec": spec, "EncryptionContext": members{"purpose": "test"}}}
			want := members{"KeyId": kmstest.KeyARN(id), "KeyMaterialId": currentMaterial(t, s, id), "KeyPairSpec": spec}
			blobs := requireMembers(t, q.requireSuccess(t, s), want, "PrivateKeyCiphertextBlob", "PublicKey")
			requireHeader(t, blobs["PrivateKeyCiphertextBlob"], id, currentMaterial(t, s, id))
			requirePair(t, spec, s.Decrypt(t, blobs["PrivateKeyCiphertextBlob"], map[string]string{"purpose": "test"}), blobs["PublicKey"])
		}
	})
}

func TestGenerateDataKeyPairWithoutPlaintextMembers(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) { testDataKeyPairMembers(t, s, blindDataKeyPair) })
}
