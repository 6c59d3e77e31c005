package contract

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"net/http"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// agreers are the curves of the specs that agree on secrets.
var agreers = map[string]ecdh.Curve{"ECC_NIST_P256": ecdh.P256(), "ECC_NIST_P384": ecdh.P384(), "ECC_NIST_P521": ecdh.P521()}

// newPeer makes a key pair outside, and gives its public key in DER too.
func newPeer(t testing.TB, curve ecdh.Curve) (*ecdh.PrivateKey, []byte) {
	t.Helper()
	private, err := curve.GenerateKey(rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKIXPublicKey(private.PublicKey())
	require.NoError(t, err)
	return private, der
}

// newDerive is a request of DeriveSharedSecret that succeeds.
func newDerive(t *testing.T, s *kmstest.Server) (request, string) {
	id := newKeyOf(t, s, "ECC_NIST_P256", "KEY_AGREEMENT")
	_, public := newPeer(t, ecdh.P256())
	return request{"DeriveSharedSecret", members{"KeyId": id, "KeyAgreementAlgorithm": "ECDH", "PublicKey": public}}, id
}

// TestDeriveSharedSecret agrees on secrets with Go, with openssl and with another key of the server.
func TestDeriveSharedSecret(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		for spec, curve := range agreers {
			id, other := sharedKey(t, s, spec, "KEY_AGREEMENT"), newKeyOf(t, s, spec, "KEY_AGREEMENT")
			q := request{"DeriveSharedSecret", members{"KeyId": id, "KeyAgreementAlgorithm": "ECDH"}}
			want := members{"KeyId": kmstest.KeyARN(id), "KeyAgreementAlgorithm": "ECDH", "KeyOrigin": "AWS_KMS"}
			for range 3 {
				peer, public := newPeer(t, curve)
				secret := requireMembers(t, q.with("PublicKey", public).requireSuccess(t, s), want, "SharedSecret")["SharedSecret"]
				expected, err := peer.ECDH(ecdhKey(t, s, id))
				require.NoError(t, err)
				require.Equal(t, expected, secret)
				require.Equal(t, secret, secretInOpenSSL(t, peer, publicDER(t, s, id)))
			}
			here := q.with("PublicKey", publicDER(t, s, other)).requireSuccess(t, s)["SharedSecret"]
			there := q.with("KeyId", other).with("PublicKey", publicDER(t, s, id)).requireSuccess(t, s)["SharedSecret"]
			require.Equal(t, here, there)
			q.with("PublicKey", publicDER(t, s, id)).requireSuccess(t, s) // with itself
		}
	})
}

// secretInOpenSSL agrees on a secret with the openssl command.
func secretInOpenSSL(t *testing.T, private *ecdh.PrivateKey, public []byte) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	secret, err := openssl(t, map[string][]byte{"private": der, "public": public},
		"pkeyutl", "-derive", "-keyform", "DER", "-inkey", "private", "-peerform", "DER", "-peerkey", "public")
	require.NoError(t, err)
	return secret
}

// TestDeriveSharedSecretBadKeys gives public keys that cannot be read: a ValidationException with an empty text.
func TestDeriveSharedSecretBadKeys(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, _ := newDerive(t, s)
		good := q.body["PublicKey"].([]byte)
		flipped, infinity := bytes.Clone(good), bytes.Clone(good)
		flipped[len(flipped)-1] ^= 1 // not on the curve
		clear(infinity[len(infinity)-64:])
		compressed := compress(t, good)
		for name, public := range map[string][]byte{
			"rubbish": []byte("rubbish"), "one byte": {0}, "cut": good[:len(good)-1], "a byte too many": append(bytes.Clone(good), 0),
			"without header": good[26:], "off the curve": flipped, "all zeros": infinity, "compressed": compressed, "the longest": make([]byte, 8192),
		} {
			for _, dry := range []bool{false, true} {
				answer := q.with("PublicKey", public).with("DryRun", dry).send(t, s)
				require.Equal(t, http.StatusBadRequest, answer.Status)
				require.Equal(t, members{"__type": "ValidationException", "message": ""}, answer.JSON(t), name)
			}
		}
		const at = "Value at 'publicKey'"
		q.with("PublicKey", []byte{}).requireRefusal(t, s, "ValidationException", invalid(at, "have length greater than or equal to 1"))
		q.with("PublicKey", make([]byte, 8193)).requireRefusal(t, s, "ValidationException", invalid(at, "have length less than or equal to 8192"))
		q.without("PublicKey").requireRefusal(t, s, "ValidationException", invalid(at, "not be null"))
	})
}

// compress gives the public key of P-256 with a compressed point.
func compress(t *testing.T, der []byte) []byte {
	t.Helper()
	var info struct {
		Algorithm asn1.RawValue
		Point     asn1.BitString
	}
	_, err := asn1.Unmarshal(der, &info)
	require.NoError(t, err)
	point := append([]byte{2 + info.Point.Bytes[64]&1}, info.Point.Bytes[1:33]...)
	info.Point = asn1.BitString{Bytes: point, BitLength: 8 * len(point)}
	compressed, err := asn1.Marshal(info)
	require.NoError(t, err)
	return compressed
}

// TestDeriveSharedSecretOtherCurves gives public keys that are in order, and not of the key's curve.
func TestDeriveSharedSecretOtherCurves(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, _ := newDerive(t, s)
		_, p384 := newPeer(t, ecdh.P384())
		for _, public := range [][]byte{
			p384, publicDER(t, s, sharedKey(t, s, "ECC_SECG_P256K1", "SIGN_VERIFY")), publicDER(t, s, sharedKey(t, s, "RSA_2048", "SIGN_VERIFY")),
			publicDER(t, s, sharedKey(t, s, "ECC_NIST_EDWARDS25519", "SIGN_VERIFY")),
		} {
			const text = "The public key is not compatible with key spec ECC_NIST_P256."
			q.with("PublicKey", public).requireRefusal(t, s, "ValidationException", text)
			q.with("PublicKey", public).with("DryRun", true).requireRefusal(t, s, "ValidationException", text)
		}
	})
}

func TestDeriveSharedSecretSDK(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := sharedKey(t, s, "ECC_NIST_P521", "KEY_AGREEMENT")
		peer, public := newPeer(t, ecdh.P521())
		in := &kms.DeriveSharedSecretInput{KeyId: &id, PublicKey: public, KeyAgreementAlgorithm: types.KeyAgreementAlgorithmSpecEcdh}
		out, err := s.Client().DeriveSharedSecret(t.Context(), in)
		require.NoError(t, err)
		expected, err := peer.ECDH(ecdhKey(t, s, id))
		require.NoError(t, err)
		require.Equal(t, expected, out.SharedSecret)
		require.Equal(t, types.OriginTypeAwsKms, out.KeyOrigin)
		in.PublicKey = []byte("rubbish")
		_, err = s.Client().DeriveSharedSecret(t.Context(), in)
		kmstest.RequireError(t, err, "ValidationException", "UnknownError") // the SDK's word for an empty text
	})
}

// TestDeriveSharedSecretMembers tests what else a request may say.
func TestDeriveSharedSecretMembers(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q, id := newDerive(t, s)
		testKeyNames(t, s, q, "KeyId", "DeriveSharedSecret")
		q.without("KeyId").requireRefusal(t, s, "ValidationException", missing("keyId"))
		testDisabled(t, s, q, id)
		testGrantTokens(t, s, q)
		testDryRun(t, s, q)
		testRecipient(t, s, q)
		testEnum(t, s, q, "KeyAgreementAlgorithm", "KeyAgreementAlgorithmSpec")
		testWrongUsage(t, s, q.with("PublicKey", []byte("rubbish")), "KEY_AGREEMENT")
	})
}
