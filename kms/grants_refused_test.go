package kms

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestGrantOperationsFitTheKey asks for grants for every operation of the model with a key of every kind.
func TestGrantOperationsFitTheKey(t *testing.T) {
	always := []string{"CreateGrant", "DescribeKey", "RetireGrant"}
	for _, test := range []struct {
		spec  KeySpec
		usage KeyUsage
		fits  []string
	}{
		{SymmetricDefault, EncryptDecrypt, []string{
			"Encrypt", "Decrypt", "ReEncryptFrom", "ReEncryptTo", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "GenerateDataKeyPair", "GenerateDataKeyPairWithoutPlaintext",
		}},
		{"RSA_2048", EncryptDecrypt, []string{"Encrypt", "Decrypt", "ReEncryptFrom", "ReEncryptTo", "GetPublicKey"}},
		{"RSA_2048", SignVerify, []string{"Sign", "Verify", "GetPublicKey"}},
		{"ECC_NIST_P256", SignVerify, []string{"Sign", "Verify", "GetPublicKey"}},
		{"ML_DSA_44", SignVerify, []string{"Sign", "Verify", "GetPublicKey"}},
		{"ECC_NIST_P256", KeyAgreement, []string{"DeriveSharedSecret", "GetPublicKey"}},
		{"HMAC_256", GenerateVerifyMac, []string{"GenerateMac", "VerifyMac"}},
	} {
		s := newGrantService(t)
		put(t, s, newTestKey(firstKey, func(k *Key) { k.Spec, k.Usage = test.spec, test.usage }))
		for _, operation := range enum(t, "GrantOperation") {
			in := &CreateGrantInput{KeyId: firstKey, GranteePrincipal: rootARN(otherAccount), Operations: []string{"DescribeKey", operation}}
			if slices.Contains(test.fits, operation) || slices.Contains(always, operation) {
				createGrant(t, s, in)
				continue
			}
			out, err := s.CreateGrant(t.Context(), newRequest("CreateGrant"), in)
			requireError(t, out, err, Validation,
				fmt.Sprintf("The operation %s is not valid for a grant for a KMS key of KeySpec %s and KeyUsage %s.", operation, test.spec, test.usage))
		}
	}
}

// TestConstraintsAreBounded makes grants with the largest constraints there may be, and with larger ones. Characters count, not bytes.
func TestConstraintsAreBounded(t *testing.T) {
	s := newGrantService(t)
	put(t, s, newTestKey(firstKey))
	pairs := func(n int) map[string]string {
		m := map[string]string{}
		for i := range n {
			m[fmt.Sprint("key", i)] = "x"
		}
		return m
	}
	for _, test := range []struct {
		constraint map[string]string
		fits       bool
	}{
		{map[string]string{"key": strings.Repeat("x", 381)}, true},
		{map[string]string{"key": strings.Repeat("x", 382)}, false},
		{map[string]string{strings.Repeat("x", 381): "key"}, true},
		{map[string]string{strings.Repeat("x", 382): "key"}, false},
		{map[string]string{"a": strings.Repeat("x", 191), "b": strings.Repeat("y", 191)}, true},
		{map[string]string{"a": strings.Repeat("x", 191), "b": strings.Repeat("y", 192)}, false},
		{map[string]string{"käy": strings.Repeat("ß", 381)}, true},
		{pairs(8), true},
		{pairs(9), false},
	} {
		for name, constraints := range map[string]*GrantConstraints{
			"EncryptionContextEquals": {EncryptionContextEquals: test.constraint}, "EncryptionContextSubset": {EncryptionContextSubset: test.constraint},
		} {
			in := &CreateGrantInput{KeyId: firstKey, GranteePrincipal: rootARN(otherAccount), Operations: []string{"Encrypt"}, Constraints: constraints}
			out, err := s.CreateGrant(t.Context(), newRequest("CreateGrant"), in)
			if test.fits {
				require.NoError(t, err, "%v", test.constraint)
				continue
			}
			requireError(t, out, err, Validation, "The grant constraint "+name+" may have 8 pairs of 384 characters in all.")
		}
	}
}

// TestGrantTokensRetireInTheirRegion retires a grant by its token in another Region, where it is none, and in its own.
func TestGrantTokensRetireInTheirRegion(t *testing.T) {
	s := newGrantService(t, func(c *Config) { c.Regions["eu-west-1"] = Region{Token: vaultToken{}} })
	put(t, s, newTestKey(firstKey))
	made := createGrant(t, s, &CreateGrantInput{KeyId: firstKey, GranteePrincipal: userRequest("", "u").Caller.ARN, Operations: []string{"DescribeKey"}})
	there := newRequest("RetireGrant")
	there.Region = "eu-west-1"
	for _, dry := range []bool{true, false} {
		out, err := s.RetireGrant(t.Context(), there, &RetireGrantInput{GrantToken: made.GrantToken, DryRun: dry})
		requireError(t, out, err, InvalidGrantToken, "The specified grant token is not valid.")
	}
	require.NoError(t, describe(t, s, "u"))
	_, err := s.RetireGrant(t.Context(), newRequest("RetireGrant"), &RetireGrantInput{GrantToken: made.GrantToken})
	require.NoError(t, err)
	require.Equal(t, AccessDenied, TypeOf(describe(t, s, "u")))
}

// TestDryRunOfCreateGrantLooksAtTheKey has CreateGrant refuse what it would refuse without DryRun, too.
func TestDryRunOfCreateGrantLooksAtTheKey(t *testing.T) {
	for state, want := range map[KeyState]ErrorType{Enabled: DryRunOperation, DisabledState: Disabled, PendingDeletion: InvalidState, PendingImport: InvalidState} {
		s := newGrantService(t)
		put(t, s, newTestKey(firstKey, inState(state)))
		in := &CreateGrantInput{KeyId: firstKey, GranteePrincipal: rootARN(otherAccount), Operations: []string{"Encrypt"}, DryRun: true}
		_, err := s.CreateGrant(t.Context(), newRequest("CreateGrant"), in)
		require.Equal(t, want, TypeOf(err), state)
		in.Operations = []string{"Sign"}
		_, err = s.CreateGrant(t.Context(), newRequest("CreateGrant"), in)
		require.Equal(t, Validation, TypeOf(err), state)
		requireNoGrantRecords(t, s)
	}
}
