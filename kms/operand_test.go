package kms

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
)

// failingToken fails whatever is done with other than symmetric keys, and keeps what it gave out before it did.
type failingToken struct {
	soundToken
	err  error
	gave *[]byte
}

func (f failingToken) Sign(context.Context, hsm.Signing) ([]byte, error) { return nil, f.err }

func (f failingToken) MAC(context.Context, hsm.KeyRef, hsm.Algorithm, []byte) ([]byte, error) {
	return f.give(), f.err
}

func (f failingToken) DeriveSecret(context.Context, hsm.KeyRef, []byte) ([]byte, error) {
	return nil, f.err
}

func (f failingToken) GenerateDataPair(context.Context, hsm.KeyKind) (hsm.DataPair, error) {
	return hsm.DataPair{Private: f.give(), Public: []byte("public")}, nil
}

func (f failingToken) Encrypt(context.Context, hsm.Sealing, []byte) (hsm.Sealed, error) {
	return hsm.Sealed{IV: [hsm.IVSize]byte{1}, Data: make([]byte, 32+hsm.TagSize)}, f.err
}

func (f failingToken) Decrypt(context.Context, hsm.Opening) ([]byte, error) { return nil, f.err }

func (f failingToken) ReEncrypt(context.Context, hsm.Opening, hsm.Sealing) (hsm.Sealed, error) {
	return hsm.Sealed{}, f.err
}

func (f failingToken) give() []byte {
	if f.gave == nil {
		return nil
	}
	*f.gave = bytes.Repeat([]byte{0xAA}, 32)
	return *f.gave
}

// TestOperandTokenFailures pins what a caller learns of a failure of the token, by operation and class.
func TestOperandTokenFailures(t *testing.T) {
	const unavailable = "The request was rejected because the key is not available. Try again later."
	const timeout = "The system timed out while trying to fulfill the request."
	rsa := `"EncryptionAlgorithm":"RSAES_OAEP_SHA_1"`
	for _, test := range []struct {
		operation, body string
		spec            KeySpec
		usage           KeyUsage
		// bad and long are the answers to BadInput and TooLong.
		bad, long       ErrorType
		badText, longer string
	}{
		{"Sign", `"Message":"dGV4dA==","SigningAlgorithm":"ED25519_SHA_512"`, "ECC_NIST_EDWARDS25519", SignVerify, InternalError, InternalError, "", ""},
		{"GenerateMac", `"Message":"dGV4dA==","MacAlgorithm":"HMAC_SHA_256"`, "HMAC_256", GenerateVerifyMac, InternalError, InternalError, "", ""},
		{"VerifyMac", `"Message":"dGV4dA==","MacAlgorithm":"HMAC_SHA_256","Mac":"dGV4dA=="`, "HMAC_256", GenerateVerifyMac, InternalError, InternalError, "", ""},
		{"DeriveSharedSecret", `"KeyAgreementAlgorithm":"ECDH","PublicKey":"` + peerKey + `"`, "ECC_NIST_P256", KeyAgreement, Validation, InternalError, "", ""},
		{"Encrypt", `"Plaintext":"dGV4dA==",` + rsa, "RSA_2048", EncryptDecrypt, InternalError, Validation, "",
			"Algorithm RSAES_OAEP_SHA_1 and key spec RSA_2048 cannot encrypt data larger than 214 bytes."},
		{"Decrypt", `"CiphertextBlob":"dGV4dA==",` + rsa, "RSA_3072", EncryptDecrypt, InvalidCiphertext, InternalError, "", ""},
	} {
		for class, want := range map[hsm.Class]struct {
			code ErrorType
			text string
		}{
			hsm.BadInput: {test.bad, test.badText}, hsm.TooLong: {test.long, test.longer}, hsm.KeyMissing: {KeyUnavailable, unavailable},
			hsm.TokenGone: {KeyUnavailable, unavailable}, hsm.Busy: {DependencyTimeout, timeout}, hsm.Unsupported: {InternalError, ""},
			hsm.Failed: {InternalError, ""},
		} {
			s := newService(t, failingToken{err: &hsm.Error{Class: class}})
			put(t, s, newTestKey(firstKey, ofSpec(test.spec, test.usage)))
			_, err := invoke(t, s, test.operation, withFirstKey(test.body))
			require.Equal(t, want.code, TypeOf(err), "%s %s: %v", test.operation, class, err)
			if want.code != InternalError {
				requireError[Empty](t, nil, err, want.code, want.text)
			}
			require.Empty(t, s.meter.fresh, "a use that failed is none")
		}
	}
}

// TestReEncryptTooLong moves a plaintext between key pairs that the destination cannot take: the token alone can tell.
func TestReEncryptTooLong(t *testing.T) {
	for algorithm, longest := range map[hsm.Algorithm]string{hsm.OAEPWithSHA1: "342", hsm.OAEPWithSHA256: "318"} {
		s := newService(t, failingToken{err: &hsm.Error{Class: hsm.TooLong}})
		put(t, s, newTestKey(firstKey, ofSpec("RSA_4096", EncryptDecrypt)), newTestKey(secondKey, ofSpec("RSA_3072", EncryptDecrypt)))
		out, err := reEncrypt(t, s, func(in *ReEncryptInput) {
			in.SourceKeyId, in.SourceEncryptionAlgorithm, in.DestinationEncryptionAlgorithm = firstKey, hsm.OAEPWithSHA1, algorithm
		})
		requireError(t, out, err, Validation, "Algorithm "+string(algorithm)+" and key spec RSA_3072 cannot encrypt data larger than "+longest+" bytes.")
	}
}

// TestReEncryptNothing moves an empty plaintext of a key pair, which the token does not encrypt under a symmetric key: it is
// refused, and not counted.
func TestReEncryptNothing(t *testing.T) {
	s := newService(t, failingToken{err: &hsm.Error{Class: hsm.BadInput}}, func(cfg *Config) { cfg.Budget = 2 })
	put(t, s, newTestKey(firstKey, ofSpec("RSA_2048", EncryptDecrypt)), newTestKey(secondKey))
	for range 10 {
		out, err := reEncrypt(t, s, func(in *ReEncryptInput) {
			in.SourceKeyId, in.SourceEncryptionAlgorithm = firstKey, hsm.OAEPWithSHA1
		})
		requireError(t, out, err, InvalidCiphertext, "")
	}
}

// TestOperandMaterialLostMeanwhile has a key's material go after the request was judged.
func TestOperandMaterialLostMeanwhile(t *testing.T) {
	s := newService(t, failingToken{err: &hsm.Error{Class: hsm.KeyMissing}})
	key := newTestKey(firstKey, ofSpec("HMAC_256", GenerateVerifyMac))
	put(t, s, key)
	with, err := s.operand(t.Context(), newRequest("GenerateMac"), actionGenerateMac, &operandTarget{keyID: firstKey, algorithm: hsm.HMACWithSHA256})
	require.NoError(t, err)
	put(t, s, newTestKey(firstKey, ofSpec("HMAC_256", GenerateVerifyMac), inState(PendingImport)))
	mac, err := s.mac(t.Context(), with, hsm.HMACWithSHA256, []byte("text"))
	require.Nil(t, mac)
	requireError[Empty](t, nil, err, InvalidState, key.ARN()+" is pending import.")
}

// TestVerifyMacWipes has a MAC verified that is wrong: the right one is no more.
func TestVerifyMacWipes(t *testing.T) {
	var gave []byte
	s := newService(t, failingToken{gave: &gave})
	put(t, s, newTestKey(firstKey, ofSpec("HMAC_256", GenerateVerifyMac)))
	for _, mac := range [][]byte{make([]byte, 32), bytes.Repeat([]byte{0xAA}, 31), bytes.Repeat([]byte{0xAA}, 33)} {
		gave = nil
		out, err := s.VerifyMac(t.Context(), newRequest("VerifyMac"), &VerifyMacInput{
			KeyId: firstKey, Message: []byte("text"), MacAlgorithm: hsm.HMACWithSHA256, Mac: mac,
		})
		requireError(t, out, err, InvalidMac, "")
		require.Equal(t, make([]byte, 32), gave)
	}
}

// TestGenerateDataKeyPairWipes wipes the private key when there is no answer to put it into, and when the answer is done with.
func TestGenerateDataKeyPairWipes(t *testing.T) {
	var gave []byte
	in := &GenerateDataKeyPairInput{KeyId: firstKey, KeyPairSpec: "ECC_NIST_P256"}
	blind := &GenerateDataKeyPairWithoutPlaintextInput{KeyId: firstKey, KeyPairSpec: "ECC_NIST_P256"}
	for _, failure := range []error{nil, &hsm.Error{Class: hsm.Busy}} {
		s := newService(t, failingToken{gave: &gave, err: failure})
		put(t, s, newTestKey(firstKey))
		out, err := s.GenerateDataKeyPair(t.Context(), newRequest("GenerateDataKeyPair"), in)
		require.Equal(t, failure != nil, err != nil)
		if err == nil {
			require.Equal(t, bytes.Repeat([]byte{0xAA}, 32), out.PrivateKeyPlaintext)
			out.Wipe()
		}
		require.Equal(t, make([]byte, 32), gave)
		gave = nil
		_, err = s.GenerateDataKeyPairWithoutPlaintext(t.Context(), newRequest("GenerateDataKeyPairWithoutPlaintext"), blind)
		require.Equal(t, failure != nil, err != nil)
		require.Equal(t, make([]byte, 32), gave)
	}
}

// pairless makes no data key pairs.
type pairless struct {
	soundToken
	err error
}

func (p pairless) GenerateDataPair(context.Context, hsm.KeyKind) (hsm.DataPair, error) {
	return hsm.DataPair{}, p.err
}

func (p pairless) TryDataPair(context.Context, hsm.KeyKind) error { return p.err }

// TestDataKeyPairsOfPoorTokens holds dry runs to what the token says: they must not promise what it refuses.
func TestDataKeyPairsOfPoorTokens(t *testing.T) {
	for class, want := range map[hsm.Class]*Error{
		hsm.Unsupported: {Type: UnsupportedOperation, Message: "KeyPairSpec ECC_SECG_P256K1 is not supported by the HSM token of this Region."},
		hsm.Busy:        {Type: DependencyTimeout, Message: "The system timed out while trying to fulfill the request."},
	} {
		s := newService(t, pairless{err: &hsm.Error{Class: class}})
		put(t, s, newTestKey(firstKey))
		for _, operation := range []string{"GenerateDataKeyPair", "GenerateDataKeyPairWithoutPlaintext"} {
			for _, dry := range []string{"", `,"DryRun":true`} {
				_, err := invoke(t, s, operation, withFirstKey(`"KeyPairSpec":"ECC_SECG_P256K1"`+dry))
				requireError[Empty](t, nil, err, want.Type, want.Message)
			}
		}
	}
}

// signed keeps what it was to sign.
type signed struct {
	soundToken
	signings *[]hsm.Signing
}

func (s signed) Sign(_ context.Context, signing hsm.Signing) ([]byte, error) {
	*s.signings = append(*s.signings, signing)
	return []byte("signature"), nil
}

// TestSignMLDSA signs with keys that no token of the other tests has. Such signatures are not verified here.
func TestSignMLDSA(t *testing.T) {
	var got []hsm.Signing
	s := newService(t, signed{signings: &got})
	key := newTestKey(firstKey, ofSpec("ML_DSA_65", SignVerify))
	put(t, s, key)
	mu := bytes.Repeat([]byte{7}, 64)
	sign := func(messageType string, message []byte) error {
		_, err := invoke(t, s, "Sign", withFirstKey(`"SigningAlgorithm":"ML_DSA_SHAKE_256","MessageType":"`+messageType+
			`","Message":"`+base64.StdEncoding.EncodeToString(message)+`"`))
		return err
	}
	require.NoError(t, sign("", []byte("text")))
	require.NoError(t, sign("RAW", []byte("text")))
	ref := key.Materials[0].Ref
	require.Equal(t, []hsm.Signing{
		{Key: ref, Algorithm: hsm.MLDSA, Input: []byte("text")}, {Key: ref, Algorithm: hsm.MLDSA, Input: []byte("text")},
	}, got)
	requireError[Empty](t, nil, sign("EXTERNAL_MU", mu[1:]), Validation, "Digest is invalid length for algorithm ML_DSA_SHAKE_256.")
	requireError[Empty](t, nil, sign("DIGEST", mu), Validation, "MessageType DIGEST is not valid for algorithm ML_DSA_SHAKE_256.")
	require.Len(t, got, 2)
	_, err := invoke(t, s, "Verify", withFirstKey(`"SigningAlgorithm":"ML_DSA_SHAKE_256","Message":"dGV4dA==","Signature":"dGV4dA=="`))
	requireError[Empty](t, nil, err, UnsupportedOperation, "Verification with the algorithm ML_DSA_SHAKE_256 is not supported.")
}

// TestSignMessageRepresentative asks for what PKCS#11 has no mechanism for: no token is asked, and no dry run promises it.
func TestSignMessageRepresentative(t *testing.T) {
	var got []hsm.Signing
	s := newService(t, signed{signings: &got})
	put(t, s, newTestKey(firstKey, ofSpec("ML_DSA_65", SignVerify)))
	for _, dry := range []bool{false, true} {
		in := &SignInput{KeyId: firstKey, Message: make([]byte, 64), MessageType: externalMu, SigningAlgorithm: hsm.MLDSA, DryRun: dry}
		out, err := s.Sign(t.Context(), newRequest("Sign"), in)
		requireError(t, out, err, UnsupportedOperation, "MessageType EXTERNAL_MU is not supported by the HSM token of this Region.")
	}
	require.Empty(t, got)
}

// TestSignEd25519ph signs a digest, which is hashed once more.
func TestSignEd25519ph(t *testing.T) {
	var got []hsm.Signing
	s := newService(t, signed{signings: &got})
	put(t, s, newTestKey(firstKey, ofSpec("ECC_NIST_EDWARDS25519", SignVerify)))
	digest := bytes.Repeat([]byte{7}, 64)
	_, err := s.Sign(t.Context(), newRequest("Sign"), &SignInput{KeyId: firstKey, Message: digest, MessageType: "DIGEST", SigningAlgorithm: hsm.Ed25519ph})
	require.NoError(t, err)
	again := sha512.Sum512(digest)
	require.Len(t, got, 1)
	require.Equal(t, again[:], got[0].Input)
}
