package kms

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
)

// TestMaterialLostMeanwhile takes a key's material away after the request was judged and before it comes to the token.
func TestMaterialLostMeanwhile(t *testing.T) {
	arn := newTestKey(firstKey).ARN()
	for name, test := range map[string]struct {
		during func(s *Service)
		code   ErrorType
		text   string
	}{
		"nothing happened": {func(*Service) {}, KeyUnavailable, "The request was rejected because the key is not available. Try again later."},
		"the material is deleted": {func(s *Service) {
			put(t, s, newTestKey(firstKey, inState(PendingImport)))
		}, InvalidState, arn + " is pending import."},
		"the material is another object": {func(s *Service) {
			put(t, s, newTestKey(firstKey, func(key *Key) { key.Materials[0].Ref.ID = "another" }))
		}, InvalidState, arn + " is pending import."},
		"the key is disabled and lost it": {func(s *Service) {
			put(t, s, newTestKey(firstKey, inState(DisabledState), func(key *Key) { key.Materials[0].Ref = hsm.KeyRef{} }))
		}, Disabled, arn + " is disabled."},
		"the key is gone": {func(s *Service) {
			require.NoError(t, s.update(t.Context(), func(r *recorder) error { return r.remove(keyRecord(testRegion, firstKey)) }))
		}, NotFound, "Key '" + arn + "' does not exist"},
		"the key ends, and nobody has written it": {func(s *Service) {
			put(t, s, newTestKey(firstKey, inState(PendingDeletion), func(key *Key) { key.Deletion = time.Unix(1, 0) }))
		}, NotFound, "Key '" + arn + "' does not exist"},
	} {
		t.Run(name, func(t *testing.T) {
			var s *Service
			missing := func() error { test.during(s); return &hsm.Error{Class: hsm.KeyMissing} }
			source := true
			token := fakeToken{
				encrypt: func([]byte) (hsm.Sealed, error) { return hsm.Sealed{}, missing() },
				decrypt: func() ([]byte, error) { return nil, missing() },
				reEncrypt: func(hsm.Opening, hsm.Sealing) (hsm.Sealed, error) {
					test.during(s)
					return hsm.Sealed{}, &hsm.Error{Class: hsm.KeyMissing, Source: source}
				},
			}
			blob := newBlob(t, firstKey)
			fresh := func() {
				s = newService(t, token)
				put(t, s, newTestKey(firstKey), newTestKey(secondKey))
			}
			fresh()
			encrypted, err := s.Encrypt(t.Context(), newRequest("Encrypt"), &EncryptInput{KeyId: firstKey, Plaintext: []byte("p")})
			requireError(t, encrypted, err, test.code, test.text)
			fresh()
			decrypted, err := s.Decrypt(t.Context(), newRequest("Decrypt"), &DecryptInput{CiphertextBlob: blob})
			requireError(t, decrypted, err, test.code, test.text)
			fresh()
			moved, err := s.ReEncrypt(t.Context(), newRequest("ReEncrypt"), &ReEncryptInput{CiphertextBlob: blob, DestinationKeyId: secondKey})
			requireError(t, moved, err, test.code, test.text)
			fresh()
			source = false
			moved, err = s.ReEncrypt(t.Context(), newRequest("ReEncrypt"), &ReEncryptInput{CiphertextBlob: newBlob(t, secondKey), DestinationKeyId: firstKey})
			requireError(t, moved, err, test.code, test.text)
		})
	}
}
