package kms

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
)

// watch is a token that gives out data keys and plaintexts of 0xAA, keeps the memory in which they are, and fails to
// encrypt with err.
type watch struct {
	memory    []byte // what the token filled or gave
	encrypted []byte // a copy of what it was to encrypt
	err       error
}

func (w *watch) token() fakeToken {
	return fakeToken{
		random: func(b []byte) error {
			w.memory = b
			copy(b, bytes.Repeat([]byte{0xAA}, len(b)))
			return nil
		},
		decrypt: func() ([]byte, error) {
			w.memory = bytes.Repeat([]byte{0xAA}, 32)
			return w.memory, nil
		},
		encrypt: func(plaintext []byte) (hsm.Sealed, error) {
			w.encrypted = bytes.Clone(plaintext)
			return hsm.Sealed{Data: make([]byte, len(plaintext)+hsm.TagSize)}, w.err
		},
	}
}

// requireWiped checks that the token had a secret in its hands and that nothing of it is left.
func (w *watch) requireWiped(t *testing.T) {
	t.Helper()
	require.Len(t, w.memory, 32)
	require.Equal(t, make([]byte, 32), w.memory)
}

func TestGenerateDataKeyWithoutPlaintextWipes(t *testing.T) {
	in := &GenerateDataKeyWithoutPlaintextInput{KeyId: firstKey, KeySpec: "AES_256"}
	for _, failure := range []error{nil, &hsm.Error{Class: hsm.Busy}} {
		w := &watch{err: failure}
		s := newService(t, w.token())
		put(t, s, newTestKey(firstKey))
		_, err := s.GenerateDataKeyWithoutPlaintext(t.Context(), newRequest("GenerateDataKeyWithoutPlaintext"), in)
		require.Equal(t, failure != nil, err != nil)
		require.Equal(t, bytes.Repeat([]byte{0xAA}, 32), w.encrypted, "wiped before it was encrypted")
		w.requireWiped(t)
	}
}

// TestGenerateDataKeyWipes wipes the data key when there is no answer to put it into, and when the answer is done with.
func TestGenerateDataKeyWipes(t *testing.T) {
	in := &GenerateDataKeyInput{KeyId: firstKey, KeySpec: "AES_256"}
	w := &watch{err: &hsm.Error{Class: hsm.Busy}}
	s := newService(t, w.token())
	put(t, s, newTestKey(firstKey))
	out, err := s.GenerateDataKey(t.Context(), newRequest("GenerateDataKey"), in)
	requireError(t, out, err, DependencyTimeout, "The system timed out while trying to fulfill the request.")
	w.requireWiped(t)

	w.err = nil
	out, err = s.GenerateDataKey(t.Context(), newRequest("GenerateDataKey"), in)
	require.NoError(t, err)
	require.Equal(t, bytes.Repeat([]byte{0xAA}, 32), out.Plaintext)
	out.Wipe()
	w.requireWiped(t)
}

// TestDecryptWipes wipes the plaintext of a dry run, and that of an answer that is done with.
func TestDecryptWipes(t *testing.T) {
	w := &watch{}
	s := newService(t, w.token())
	put(t, s, newTestKey(firstKey))
	in := &DecryptInput{CiphertextBlob: newBlob(t, firstKey), DryRun: true}
	out, err := s.Decrypt(t.Context(), newRequest("Decrypt"), in)
	requireError(t, out, err, DryRunOperation, "The request would have succeeded, but the DryRun option is set.")
	w.requireWiped(t)

	in.DryRun = false
	out, err = s.Decrypt(t.Context(), newRequest("Decrypt"), in)
	require.NoError(t, err)
	require.Equal(t, bytes.Repeat([]byte{0xAA}, 32), out.Plaintext)
	out.Wipe()
	w.requireWiped(t)
}

// TestRandomFails leaves nothing of a generator that failed half way.
func TestRandomFails(t *testing.T) {
	w := &watch{}
	token := w.token()
	fill := token.random
	token.random = func(b []byte) error {
		if err := fill(b); err != nil {
			return err
		}
		return &hsm.Error{Class: hsm.SessionDead}
	}
	s := newService(t, token)
	put(t, s, newTestKey(firstKey))
	size := int32(32)
	random, err := s.GenerateRandom(t.Context(), newRequest("GenerateRandom"), &GenerateRandomInput{NumberOfBytes: &size})
	requireError(t, random, err, KeyUnavailable, "The request was rejected because the key is not available. Try again later.")
	w.requireWiped(t)
	key, err := s.GenerateDataKey(t.Context(), newRequest("GenerateDataKey"), &GenerateDataKeyInput{KeyId: firstKey, NumberOfBytes: &size})
	requireError(t, key, err, KeyUnavailable, "The request was rejected because the key is not available. Try again later.")
	w.requireWiped(t)
}

// TestDryRunsAskNothingOfTheToken lists the dry runs that are answered from what the service knows.
func TestDryRunsAskNothingOfTheToken(t *testing.T) {
	const text = "The request would have succeeded, but the DryRun option is set."
	s := newService(t, fakeToken{})
	put(t, s, newTestKey(firstKey))
	ignore := []string{"IGNORE_CIPHERTEXT"}
	encrypted, err := s.Encrypt(t.Context(), newRequest("Encrypt"), &EncryptInput{KeyId: firstKey, Plaintext: []byte("p"), DryRun: true})
	requireError(t, encrypted, err, DryRunOperation, text)
	key, err := s.GenerateDataKey(t.Context(), newRequest("GenerateDataKey"), &GenerateDataKeyInput{KeyId: firstKey, KeySpec: "AES_128", DryRun: true})
	requireError(t, key, err, DryRunOperation, text)
	blind, err := s.GenerateDataKeyWithoutPlaintext(t.Context(), newRequest("GenerateDataKeyWithoutPlaintext"),
		&GenerateDataKeyWithoutPlaintextInput{KeyId: firstKey, KeySpec: "AES_128", DryRun: true})
	requireError(t, blind, err, DryRunOperation, text)
	decrypted, err := s.Decrypt(t.Context(), newRequest("Decrypt"), &DecryptInput{KeyId: firstKey, DryRun: true, DryRunModifiers: ignore})
	requireError(t, decrypted, err, DryRunOperation, text)
	moved, err := s.ReEncrypt(t.Context(), newRequest("ReEncrypt"),
		&ReEncryptInput{SourceKeyId: firstKey, DestinationKeyId: firstKey, DryRun: true, DryRunModifiers: ignore})
	requireError(t, moved, err, DryRunOperation, text)
}
