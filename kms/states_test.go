package kms

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// cryptographicOperations are those with one key, each as a call on firstKey.
func cryptographicOperations(t *testing.T) map[string]func(s *Service, r *Request) error {
	size := int32(32)
	return map[string]func(s *Service, r *Request) error{
		"Encrypt": func(s *Service, r *Request) error {
			out, err := s.Encrypt(t.Context(), r, &EncryptInput{KeyId: firstKey, Plaintext: []byte("plaintext")})
			require.Nil(t, out)
			return err
		},
		"Decrypt": func(s *Service, r *Request) error {
			out, err := s.Decrypt(t.Context(), r, &DecryptInput{CiphertextBlob: newBlob(t, firstKey)})
			require.Nil(t, out)
			return err
		},
		"GenerateDataKey": func(s *Service, r *Request) error {
			out, err := s.GenerateDataKey(t.Context(), r, &GenerateDataKeyInput{KeyId: firstKey, NumberOfBytes: &size})
			require.Nil(t, out)
			return err
		},
		"GenerateDataKeyWithoutPlaintext": func(s *Service, r *Request) error {
			out, err := s.GenerateDataKeyWithoutPlaintext(t.Context(), r, &GenerateDataKeyWithoutPlaintextInput{KeyId: firstKey, NumberOfBytes: &size})
			require.Nil(t, out)
			return err
		},
	}
}

// TestKeyStatesOfCryptographicOperations uses a key in every state in which it cannot be used. The token must not be
// called. For ReEncrypt, with its two keys, see TestReEncryptKeyStates.
func TestKeyStatesOfCryptographicOperations(t *testing.T) {
	for operation, call := range cryptographicOperations(t) {
		for state, want := range stateErrors {
			t.Run(operation+" "+string(state), func(t *testing.T) {
				s := newService(t, fakeToken{})
				put(t, s, newTestKey(firstKey, inState(state)))
				err := call(s, newRequest(operation))
				requireError[Empty](t, nil, err, want.code, newTestKey(firstKey).ARN()+want.text)
			})
		}
	}
}

// TestUsageOfCryptographicOperations uses a key that is for something else.
func TestUsageOfCryptographicOperations(t *testing.T) {
	for operation, call := range cryptographicOperations(t) {
		for usage, spec := range map[KeyUsage]KeySpec{SignVerify: "RSA_2048", GenerateVerifyMac: "HMAC_256", KeyAgreement: "ECC_NIST_P256"} {
			s := newService(t, fakeToken{})
			put(t, s, newTestKey(firstKey, func(key *Key) { key.Usage, key.Spec = usage, spec }))
			err := call(s, newRequest(operation))
			requireError[Empty](t, nil, err, InvalidKeyUsage, newTestKey(firstKey).ARN()+" key usage is "+string(usage)+" which is not valid for "+operation+".")
		}
	}
}

// TestStateRulesAreWhole holds every row of the table of states to having a rule for every state.
func TestStateRulesAreWhole(t *testing.T) {
	for name, rules := range map[string]stateRules{"cryptographic": cryptographic, "anyState": anyState, "notDying": notDying, "toggling": toggling} {
		for _, state := range []KeyState{Enabled, DisabledState, PendingDeletion, PendingImport} {
			require.Contains(t, rules, state, name)
		}
		require.NoError(t, rules.check(newTestKey(firstKey)))
		require.Equal(t, InvalidState, TypeOf(rules.check(newTestKey(firstKey, inState("Creating")))), "a state without a rule")
	}
}
