package contract

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// newParameters is a request for parameters of the quickest kind.
func newParameters(t *testing.T, s *kmstest.Server) request {
	t.Helper()
	return request{"GetParametersForImport", members{
		"KeyId": s.NewExternalKey(t), "WrappingAlgorithm": "RSAES_OAEP_SHA_256", "WrappingKeySpec": "RSA_2048",
	}}
}

// TestGetParametersForImport asks in every algorithm and for every size of wrapping key. Each answer is another one.
func TestGetParametersForImport(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q := newParameters(t, s)
		id := q.body["KeyId"].(string)
		seen := map[string]bool{}
		for _, test := range []struct {
			algorithm, spec string
			bits            int
		}{
			{"RSAES_OAEP_SHA_1", "RSA_2048", 2048},
			{"RSAES_OAEP_SHA_256", "RSA_3072", 3072},
			{"RSA_AES_KEY_WRAP_SHA_1", "RSA_4096", 4096},
			{"RSA_AES_KEY_WRAP_SHA_256", "RSA_2048", 2048},
			{"RSA_AES_KEY_WRAP_SHA_256", "RSA_2048", 2048},
		} {
			before := time.Now().UnixMilli()
			answer := q.with("KeyId", kmstest.KeyARN(id)).with("WrappingAlgorithm", test.algorithm).with("WrappingKeySpec", test.spec).requireSuccess(t, s)
			after := time.Now().UnixMilli()
			blobs := requireMembers(t, answer, members{"KeyId": kmstest.KeyARN(id), "ParametersValidTo": answer["ParametersValidTo"]}, "ImportToken", "PublicKey")
			require.LessOrEqual(t, len(blobs["ImportToken"]), 6144)
			public, err := x509.ParsePKIXPublicKey(blobs["PublicKey"])
			require.NoError(t, err)
			require.Equal(t, test.bits, public.(*rsa.PublicKey).N.BitLen())
			require.Equal(t, 65537, public.(*rsa.PublicKey).E)
			until := int64(answer["ParametersValidTo"].(float64)*1000 + 0.5)
			require.GreaterOrEqual(t, until, before+24*60*60*1000)
			require.LessOrEqual(t, until, after+24*60*60*1000)
			for _, blob := range blobs {
				require.False(t, seen[string(blob)])
				seen[string(blob)] = true
			}
		}
		_, state := keyState(t, s, id)
		require.Equal(t, "PendingImport", state)
	})
}

func TestGetParametersForImportSDK(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id := s.NewExternalKey(t)
		out, err := s.Client().GetParametersForImport(t.Context(), &kms.GetParametersForImportInput{
			KeyId: &id, WrappingAlgorithm: types.AlgorithmSpecRsaesOaepSha256, WrappingKeySpec: types.WrappingKeySpecRsa2048,
		})
		require.NoError(t, err)
		require.Equal(t, kmstest.KeyARN(id), *out.KeyId)
		require.WithinDuration(t, time.Now().Add(24*time.Hour), *out.ParametersValidTo, waitLimit)
	})
}

// TestGetParametersForImportStates asks in every state that an EXTERNAL key can be in.
func TestGetParametersForImportStates(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q := newParameters(t, s)
		id := q.body["KeyId"].(string)
		s.Import(t, s.ImportSet(t, id, "RSAES_OAEP_SHA_1", "RSA_2048"), randomBytes(32))
		q.requireSuccess(t, s)
		setEnabled(t, s, id, false)
		q.requireSuccess(t, s)
		accept(t, s, "ScheduleKeyDeletion", object(t, "KeyId", id))
		q.requireRefusal(t, s, "KMSInvalidStateException", kmstest.KeyARN(id)+" is pending deletion.")
	})
}

func TestGetParametersForImportRefusals(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		q := newParameters(t, s)
		made := s.Calls(t)["C_GenerateKeyPair"]
		requireKeyNames(t, s, "GetParametersForImport", "keyId", false, func(name string) string {
			return `{"KeyId":` + name + `,"WrappingAlgorithm":"RSAES_OAEP_SHA_1","WrappingKeySpec":"RSA_2048"}`
		})
		for _, member := range []string{"KeyId", "WrappingAlgorithm", "WrappingKeySpec"} {
			q.without(member).requireRefusal(t, s, "ValidationException", missing(lowerCamel(member)))
			q.with(member, 7).requireRefusal(t, s, "SerializationException", "NUMBER_VALUE can not be converted to a String")
		}
		q.with("WrappingAlgorithm", "RSAES").requireRefusal(t, s, "ValidationException", violated("RSAES", "wrappingAlgorithm", enumText(t, "AlgorithmSpec")))
		q.with("WrappingKeySpec", "RSA_1024").requireRefusal(t, s, "ValidationException", violated("RSA_1024", "wrappingKeySpec", enumText(t, "WrappingKeySpec")))
		for _, algorithm := range []string{"RSAES_PKCS1_V1_5", "SM2PKE"} {
			q.with("WrappingAlgorithm", algorithm).requireRefusal(t, s, "UnsupportedOperationException",
				"WrappingAlgorithm "+algorithm+" is not supported for KeySpec SYMMETRIC_DEFAULT.")
		}
		q.with("WrappingKeySpec", "SM2").requireRefusal(t, s, "UnsupportedOperationException", "WrappingKeySpec SM2 is not supported.")
		ours := s.NewKey(t)
		q.with("KeyId", ours).requireRefusal(t, s, "UnsupportedOperationException", kmstest.KeyARN(ours)+" origin is AWS_KMS which is not valid for this operation.")
		require.Equal(t, made, s.Calls(t)["C_GenerateKeyPair"])
	})
}

// TestImportSetsAreBounded makes one import set too many for a key: the oldest cannot be used any more, the others can.
func TestImportSetsAreBounded(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		id, material := s.NewExternalKey(t), randomBytes(32)
		var sets []kmstest.ImportSet
		for range 10 {
			sets = append(sets, s.ImportSet(t, id, "RSAES_OAEP_SHA_1", "RSA_2048"))
		}
		before := destroyed(s)
		sets = append(sets, s.ImportSet(t, id, "RSAES_OAEP_SHA_1", "RSA_2048"))
		require.Eventually(t, func() bool { return destroyed(s) > before }, waitLimit, waitStep)
		_, err := s.Client().ImportKeyMaterial(t.Context(), sets[0].Input(t, material))
		kmstest.RequireError(t, err, "ExpiredImportTokenException", "The specified import token is expired.")
		s.Import(t, sets[1], material)
		s.Import(t, sets[10], material)
	})
}

// TestStrictOnToken asks a server that must not see key material for ways in which its token, SoftHSM, cannot decrypt.
func TestStrictOnToken(t *testing.T) {
	for home := range servers {
		s := kmstest.Start(t, kmstest.Options{Home: home, Settings: []string{"strict_on_token: true"}})
		q := newParameters(t, s)
		for _, algorithm := range []string{"RSAES_OAEP_SHA_256", "RSA_AES_KEY_WRAP_SHA_256"} {
			q.with("WrappingAlgorithm", algorithm).requireRefusal(t, s, "UnsupportedOperationException",
				"WrappingAlgorithm "+algorithm+" is not supported by the HSM token of this Region.")
		}
		id := q.body["KeyId"].(string)
		for _, algorithm := range []string{"RSAES_OAEP_SHA_1", "RSA_AES_KEY_WRAP_SHA_1"} {
			key := s.NewExternalKey(t)
			s.Import(t, s.ImportSet(t, key, algorithm, "RSA_2048"), randomBytes(32))
			require.Equal(t, "hello", string(s.Decrypt(t, s.Encrypt(t, key, []byte("hello"), nil), nil)))
		}
		_, state := keyState(t, s, id)
		require.Equal(t, "PendingImport", state)
	}
}

// TestParametersAreNotLogged looks for import token and wrapping key in the log.
func TestParametersAreNotLogged(t *testing.T) {
	each(t, func(t *testing.T, s *kmstest.Server) {
		answer := newParameters(t, s).send(t, s)
		require.Equal(t, http.StatusOK, answer.Status)
		token := answer.JSON(t)["ImportToken"].(string)
		_, err := base64.StdEncoding.DecodeString(token)
		require.NoError(t, err)
		require.NotContains(t, logOf(t, s, []kmstest.Answer{answer}), strings.TrimRight(token, "="))
	})
}
