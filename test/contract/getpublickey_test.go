package contract

import (
	"crypto/x509"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// TestGetPublicKey gets the public keys of every spec and usage: in the one form that Go and openssl write too.
func TestGetPublicKey(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for _, spec := range pairSpecs {
			id := sharedKey(t, s, spec.spec, spec.usage)
			answer := accept(t, s, "GetPublicKey", object(t, "KeyId", id))
			want := members{
				"KeyId": kmstest.KeyARN(id), "KeySpec": spec.spec, "CustomerMasterKeySpec": spec.spec, "KeyUsage": spec.usage,
				algorithmMember[spec.usage]: spec.algorithms,
			}
			der := requireMembers(t, answer, want, "PublicKey")["PublicKey"]
			if spec.spec != "ECC_SECG_P256K1" {
				public, err := x509.ParsePKIXPublicKey(der)
				require.NoError(t, err)
				again, err := x509.MarshalPKIXPublicKey(public)
				require.NoError(t, err)
				require.Equal(t, again, der)
			}
			again, err := openssl(t, map[string][]byte{"public": der}, "pkey", "-pubin", "-inform", "DER", "-in", "public", "-pubout", "-outform", "DER")
			require.NoError(t, err)
			require.Equal(t, der, again)
			require.Equal(t, answer, accept(t, s, "GetPublicKey", object(t, "KeyId", id)))
		}
	})
}

// TestGetPublicKeyOfNone asks for the public keys of keys that have none.
func TestGetPublicKeyOfNone(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for spec, usage := range map[string]string{"SYMMETRIC_DEFAULT": "ENCRYPT_DECRYPT", "HMAC_256": "GENERATE_VERIFY_MAC"} {
			id := sharedKey(t, s, spec, usage)
			s.Post(t, "GetPublicKey", object(t, "KeyId", id)).RequireRefusal(t, "UnsupportedOperationException",
				kmstest.KeyARN(id)+" key spec is "+spec+" which is not valid for this operation.")
		}
	})
}

func TestGetPublicKeySDK(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := sharedKey(t, s, "RSA_2048", "ENCRYPT_DECRYPT")
		alias := newAlias(t, s, id)
		out, err := s.Client().GetPublicKey(t.Context(), &kms.GetPublicKeyInput{KeyId: &alias})
		require.NoError(t, err)
		require.Equal(t, kmstest.KeyARN(id), *out.KeyId)
		require.Equal(t, publicDER(t, s, id), out.PublicKey)
		require.Empty(t, out.SigningAlgorithms)
		require.Len(t, out.EncryptionAlgorithms, 2)
	})
}

func TestGetPublicKeyMembers(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := newKeyOf(t, s, "ECC_NIST_P256", "SIGN_VERIFY")
		q := request{"GetPublicKey", members{"KeyId": id}}
		alias := newAlias(t, s, id)
		for _, name := range []string{kmstest.KeyARN(id), alias, kmstest.AliasARN(alias)} {
			q.with("KeyId", name).requireSuccess(t, s)
		}
		requireKeyNames(t, s, "GetPublicKey", "keyId", true, func(name string) string { return `{"KeyId":` + name + `}` })
		q.without("KeyId").requireRefusal(t, s, "ValidationException", missing("keyId"))
		setEnabled(t, s, id, false)
		q.requireRefusal(t, s, "DisabledException", kmstest.KeyARN(id)+" is disabled.")
		q.with("GrantTokens", []string{"token"}).requireRefusal(t, s, "InvalidGrantTokenException", textGrantToken)
	})
}
