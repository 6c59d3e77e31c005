package kms

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
)

// reEncrypt moves a ciphertext of firstKey to secondKey. Each edit changes the request.
func reEncrypt(t *testing.T, s *Service, edits ...func(*ReEncryptInput)) (*ReEncryptOutput, error) {
	t.Helper()
	in := &ReEncryptInput{CiphertextBlob: newBlob(t, firstKey), DestinationKeyId: secondKey}
	for _, edit := range edits {
		edit(in)
	}
	return s.ReEncrypt(t.Context(), newRequest("ReEncrypt"), in)
}

// stateErrors are the answers to the cryptographic use of a key that is not Enabled: type, and text behind the key's ARN.
var stateErrors = map[KeyState]struct {
	code ErrorType
	text string
}{
	DisabledState:   {Disabled, " is disabled."},
	PendingDeletion: {InvalidState, " is pending deletion."},
	PendingImport:   {InvalidState, " is pending import."},
	Creating:        {InvalidState, " is creating."},
}

// TestReEncryptKeyStates puts each key into each state in which it cannot be used. The token must not be called.
func TestReEncryptKeyStates(t *testing.T) {
	dry := func(in *ReEncryptInput) { in.DryRun = true }
	named := func(in *ReEncryptInput) { in.SourceKeyId = firstKey }
	for state, want := range stateErrors {
		t.Run(string(state), func(t *testing.T) {
			for _, test := range []struct {
				from, to KeyState
				blamed   string
			}{{state, Enabled, firstKey}, {Enabled, state, secondKey}, {state, DisabledState, firstKey}, {state, state, firstKey}} {
				s := newService(t, fakeToken{})
				put(t, s, newTestKey(firstKey, inState(test.from)), newTestKey(secondKey, inState(test.to)))
				for _, edits := range [][]func(*ReEncryptInput){nil, {named}, {dry}, {dry, named}} {
					out, err := reEncrypt(t, s, edits...)
					requireError(t, out, err, want.code, newTestKey(test.blamed).ARN()+want.text)
				}
			}
		})
	}
}

// TestReEncryptUsage re-encrypts from and to keys that are for something else.
func TestReEncryptUsage(t *testing.T) {
	mac := func(key *Key) { key.Usage, key.Spec = GenerateVerifyMac, "HMAC_256" }
	signs := func(key *Key) { key.Usage, key.Spec = SignVerify, "RSA_2048" }
	s := newService(t, fakeToken{})
	put(t, s, newTestKey(firstKey, mac), newTestKey(secondKey))
	out, err := reEncrypt(t, s)
	requireError(t, out, err, InvalidKeyUsage, newTestKey(firstKey).ARN()+" key usage is GENERATE_VERIFY_MAC which is not valid for ReEncrypt.")

	s = newService(t, fakeToken{})
	put(t, s, newTestKey(firstKey), newTestKey(secondKey, signs))
	out, err = reEncrypt(t, s)
	requireError(t, out, err, InvalidKeyUsage, newTestKey(secondKey).ARN()+" key usage is SIGN_VERIFY which is not valid for ReEncrypt.")

	put(t, s, newTestKey(secondKey, signs, inState(PendingDeletion))) // the state comes first
	out, err = reEncrypt(t, s)
	requireError(t, out, err, InvalidState, newTestKey(secondKey).ARN()+" is pending deletion.")
}

// TestReEncryptIncorrectKey names a source that is not the ciphertext's, whatever is wrong with the keys besides.
func TestReEncryptIncorrectKey(t *testing.T) {
	mac := func(key *Key) { key.Usage, key.Spec = GenerateVerifyMac, "HMAC_256" }
	for _, state := range []KeyState{Enabled, DisabledState, PendingDeletion, PendingImport} {
		s := newService(t, fakeToken{})
		put(t, s, newTestKey(firstKey, inState(state)), newTestKey(secondKey, mac, inState(state)))
		out, err := reEncrypt(t, s, func(in *ReEncryptInput) { in.SourceKeyId = secondKey })
		requireError(t, out, err, IncorrectKey, "The key ID in the request does not identify a CMK that can perform this operation.")
	}
}

// TestReEncryptOtherAccounts re-encrypts from and to keys of another account, and of another Region. It must not be told
// from the answer whether there are such keys.
func TestReEncryptOtherAccounts(t *testing.T) {
	const unreachable = "The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are not allowed to access."
	foreign := func(key *Key) { key.Account, key.Policy = otherAccount, defaultPolicy(otherAccount) }
	remote := func(key *Key) { key.Region = "eu-west-1" }
	for _, edit := range []func(*Key){foreign, remote} {
		s := newService(t, fakeToken{})
		there := newTestKey(firstKey, edit)
		put(t, s, there, newTestKey(secondKey, edit))
		out, err := reEncrypt(t, s)
		requireError(t, out, err, AccessDenied, unreachable)
		out, err = reEncrypt(t, s, func(in *ReEncryptInput) { in.SourceKeyId = firstKey })
		requireError(t, out, err, NotFound, "Key '"+newTestKey(firstKey).ARN()+"' does not exist")
		put(t, s, newTestKey(firstKey))
		out, err = reEncrypt(t, s)
		requireError(t, out, err, NotFound, "Key '"+newTestKey(secondKey).ARN()+"' does not exist")
	}
	s := newService(t, fakeToken{})
	arn := newTestKey(firstKey, foreign).ARN()
	for _, keys := range [][]*Key{nil, {newTestKey(firstKey, foreign)}} {
		put(t, s, keys...)
		out, err := reEncrypt(t, s, func(in *ReEncryptInput) { in.SourceKeyId = arn })
		requireError(t, out, err, AccessDenied, "User: arn:aws:iam::"+testAccount+":root is not authorized to perform: kms:ReEncryptFrom on resource: "+arn+
			" because the resource does not exist in this Region, no resource-based policies allow access, or a resource-based policy explicitly denies access")
	}
}

// TestReEncryptTokenFailures pins what a caller learns of a failure of the token, by its class and side.
func TestReEncryptTokenFailures(t *testing.T) {
	const unavailable = "The request was rejected because the key is not available. Try again later."
	const timeout = "The system timed out while trying to fulfill the request."
	for _, test := range []struct {
		class   hsm.Class
		source  bool
		code    ErrorType
		message string
	}{
		{hsm.BadInput, true, InvalidCiphertext, ""},
		{hsm.BadInput, false, InternalError, ""},
		{hsm.KeyMissing, true, KeyUnavailable, unavailable},
		{hsm.KeyMissing, false, KeyUnavailable, unavailable},
		{hsm.SessionDead, true, KeyUnavailable, unavailable},
		{hsm.TokenGone, false, KeyUnavailable, unavailable},
		{hsm.LoginFailed, false, KeyUnavailable, unavailable},
		{hsm.Busy, true, DependencyTimeout, timeout},
		{hsm.Busy, false, DependencyTimeout, timeout},
		{hsm.Unsupported, true, InternalError, ""},
		{hsm.Failed, false, InternalError, ""},
	} {
		cause := &hsm.Error{Class: test.class, Source: test.source, Function: "C_Decrypt", Code: 5}
		s := newService(t, fakeToken{reEncrypt: func(hsm.Opening, hsm.Sealing) (hsm.Sealed, error) { return hsm.Sealed{}, cause }})
		put(t, s, newTestKey(firstKey), newTestKey(secondKey))
		for _, dry := range []bool{false, true} {
			out, err := reEncrypt(t, s, func(in *ReEncryptInput) { in.DryRun = dry })
			require.Nil(t, out)
			require.ErrorIs(t, err, cause, "the operator must learn the cause")
			require.Equal(t, test.code, TypeOf(err))
			if test.code != InternalError {
				requireError(t, out, err, test.code, test.message)
			}
		}
	}
	odd := errors.New("no error of a token")
	s := newService(t, fakeToken{reEncrypt: func(hsm.Opening, hsm.Sealing) (hsm.Sealed, error) { return hsm.Sealed{}, odd }})
	put(t, s, newTestKey(firstKey), newTestKey(secondKey))
	_, err := reEncrypt(t, s)
	require.Equal(t, InternalError, TypeOf(err))
}

// TestReEncryptMaterials re-encrypts a ciphertext of a former material: it opens with that one and is sealed with the
// destination's last, and the answer says so.
func TestReEncryptMaterials(t *testing.T) {
	var opened, sealed hsm.KeyRef
	s := newService(t, fakeToken{reEncrypt: func(o hsm.Opening, to hsm.Sealing) (hsm.Sealed, error) {
		opened, sealed = o.Key, to.Key
		return hsm.Sealed{Data: make([]byte, 40)}, nil
	}})
	newer := newTestKey(secondKey).Materials[0]
	key := newTestKey(firstKey, func(key *Key) { key.Materials = append(key.Materials, newer) })
	put(t, s, key)
	out, err := reEncrypt(t, s, func(in *ReEncryptInput) { in.DestinationKeyId = firstKey })
	require.NoError(t, err)
	require.Equal(t, key.Materials[0].ID, out.SourceKeyMaterialId)
	require.Equal(t, key.Materials[1].ID, out.DestinationKeyMaterialId)
	require.Equal(t, key.Materials[0].Ref, opened)
	require.Equal(t, key.Materials[1].Ref, sealed)
}
