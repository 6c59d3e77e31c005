package kms

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/publickey"
)

// enum gives the values of an enumeration of the published model.
func enum(t *testing.T, shape string) []string {
	t.Helper()
	text, err := os.ReadFile("../api/model/kms-2014-11-01.json")
	require.NoError(t, err)
	var model struct {
		Shapes map[string]struct{ Enum []string }
	}
	require.NoError(t, json.Unmarshal(text, &model))
	require.NotEmpty(t, model.Shapes[shape].Enum, shape)
	return model.Shapes[shape].Enum
}

// TestSpecsAreThoseOfTheModel holds the table to the published model: it has every spec, and every algorithm but those of
// SM2, and no other.
func TestSpecsAreThoseOfTheModel(t *testing.T) {
	var names []string
	for spec := range specs {
		names = append(names, string(spec))
	}
	require.ElementsMatch(t, enum(t, "KeySpec"), names)

	algorithms, kinds := map[KeyUsage][]string{}, map[hsm.KeyKind]bool{}
	for spec, purposes := range specs {
		for _, p := range purposes {
			require.Equal(t, spec == "SM2", p.kind == "", spec)
			require.Equal(t, spec == "SM2", len(p.algorithms) == 0, spec)
			require.False(t, p.kind != "" && kinds[p.kind], "two rows with the kind %s", p.kind)
			kinds[p.kind] = true
			for _, algorithm := range p.algorithms {
				algorithms[p.usage] = append(algorithms[p.usage], string(algorithm))
			}
		}
	}
	for shape, usage := range map[string]KeyUsage{
		"EncryptionAlgorithmSpec": EncryptDecrypt, "SigningAlgorithmSpec": SignVerify, "MacAlgorithmSpec": GenerateVerifyMac,
		"KeyAgreementAlgorithmSpec": KeyAgreement,
	} {
		want := slices.DeleteFunc(enum(t, shape), func(name string) bool { return strings.HasPrefix(name, "SM2") })
		slices.Sort(algorithms[usage])
		require.ElementsMatch(t, want, slices.Compact(algorithms[usage]))
	}
}

// TestSpecsFitTheirPublicKeys holds the table to what the package publickey can verify and encrypt, which is all but ML-DSA.
func TestSpecsFitTheirPublicKeys(t *testing.T) {
	for spec, purposes := range specs {
		for _, p := range purposes {
			var want []string
			switch {
			case spec == SymmetricDefault || spec == "SM2" || strings.HasPrefix(string(spec), "ML_DSA"):
				continue
			case p.usage == EncryptDecrypt:
				want = publickey.EncryptionOf(string(spec))
			case p.usage == SignVerify:
				want = publickey.SigningOf(string(spec))
			default:
				continue
			}
			require.NotEmpty(t, want, spec)
			got := make([]string, len(p.algorithms))
			for i, algorithm := range p.algorithms {
				got[i] = string(algorithm)
			}
			require.Equal(t, want, got, spec)
		}
	}
}

// narrowToken carries out what its table says.
type narrowToken struct {
	soundToken
	support map[hsm.KeyKind][]hsm.Algorithm
	err     error
}

func (n narrowToken) Support(_ context.Context, kind hsm.KeyKind) (hsm.Support, error) {
	support := hsm.Support{Algorithms: map[hsm.Algorithm]hsm.Route{}}
	for _, algorithm := range n.support[kind] {
		support.Algorithms[algorithm] = hsm.OnToken
	}
	return support, n.err
}

// TestCreateKeyAsksTheToken makes keys of every spec on a token that can carry few of them.
func TestCreateKeyAsksTheToken(t *testing.T) {
	s := newService(t, narrowToken{support: map[hsm.KeyKind][]hsm.Algorithm{
		hsm.HMAC256: {hsm.HMACWithSHA256}, hsm.RSA2048Decrypt: {hsm.OAEPWithSHA1}, hsm.P256Sign: {hsm.ECDSAWithSHA256},
	}})
	carried := map[KeySpec]KeyUsage{SymmetricDefault: EncryptDecrypt, "HMAC_256": GenerateVerifyMac, "RSA_2048": EncryptDecrypt, "ECC_NIST_P256": SignVerify}
	for _, spec := range slices.Sorted(maps.Keys(specs)) {
		for _, p := range specs[spec] {
			for _, origin := range []Origin{OriginKMS, OriginExternal} {
				if _, importable := importables[spec]; origin == OriginExternal && !importable {
					continue
				}
				out, err := s.CreateKey(t.Context(), newRequest("CreateKey"), &CreateKeyInput{KeySpec: spec, KeyUsage: p.usage, Origin: origin})
				switch {
				case carried[spec] == p.usage:
					require.NoError(t, err, spec)
					require.Equal(t, p.usage, out.KeyMetadata.KeyUsage)
				case spec == "SM2":
					requireError(t, out, err, UnsupportedOperation, "KeySpec SM2 is not supported.")
				default:
					requireError(t, out, err, UnsupportedOperation,
						"KeySpec "+string(spec)+" with KeyUsage "+string(p.usage)+" is not supported by the HSM token of this Region.")
				}
			}
		}
	}
}

// TestUnsupportedAlgorithms uses algorithms that a key has and its token does not carry out, and a token that cannot tell.
func TestUnsupportedAlgorithms(t *testing.T) {
	narrow := map[hsm.KeyKind][]hsm.Algorithm{hsm.RSA2048Decrypt: {hsm.OAEPWithSHA1}, hsm.Ed25519Sign: {hsm.Ed25519}, hsm.HMAC256: nil, hsm.P256Derive: nil}
	for _, test := range []struct {
		operation, body string
		algorithm       hsm.Algorithm
		spec            KeySpec
		usage           KeyUsage
	}{
		{"Encrypt", `"Plaintext":"dGV4dA==","EncryptionAlgorithm":"RSAES_OAEP_SHA_256"`, hsm.OAEPWithSHA256, "RSA_2048", EncryptDecrypt},
		{"Decrypt", `"CiphertextBlob":"dGV4dA==","EncryptionAlgorithm":"RSAES_OAEP_SHA_256"`, hsm.OAEPWithSHA256, "RSA_2048", EncryptDecrypt},
		{"Sign", `"Message":"dGV4dA==","SigningAlgorithm":"ED25519_PH_SHA_512"`, hsm.Ed25519ph, "ECC_NIST_EDWARDS25519", SignVerify},
		{"GenerateMac", `"Message":"dGV4dA==","MacAlgorithm":"HMAC_SHA_256"`, hsm.HMACWithSHA256, "HMAC_256", GenerateVerifyMac},
		{"VerifyMac", `"Message":"dGV4dA==","MacAlgorithm":"HMAC_SHA_256","Mac":"dGV4dA=="`, hsm.HMACWithSHA256, "HMAC_256", GenerateVerifyMac},
		{"DeriveSharedSecret", `"KeyAgreementAlgorithm":"ECDH","PublicKey":"` + peerKey + `"`, hsm.ECDH, "ECC_NIST_P256", KeyAgreement},
	} {
		for _, dry := range []string{"", `,"DryRun":true`} {
			body := withFirstKey(test.body + dry)
			s := newService(t, narrowToken{support: narrow})
			put(t, s, newTestKey(firstKey, ofSpec(test.spec, test.usage)))
			_, err := invoke(t, s, test.operation, body)
			requireError[Empty](t, nil, err, UnsupportedOperation, "Algorithm "+string(test.algorithm)+" is not supported by the HSM token of this Region.")

			s = newService(t, narrowToken{err: &hsm.Error{Class: hsm.Busy}})
			put(t, s, newTestKey(firstKey, ofSpec(test.spec, test.usage)))
			_, err = invoke(t, s, test.operation, body)
			requireError[Empty](t, nil, err, DependencyTimeout, "The system timed out while trying to fulfill the request.")
		}
	}
}
