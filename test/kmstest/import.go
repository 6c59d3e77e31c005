package kmstest

import (
	"crypto/aes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"hash"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"
)

// NewExternalKey makes a symmetric key that waits for its material and gives its id.
func (s *Server) NewExternalKey(t testing.TB) string {
	t.Helper()
	out, err := s.Client().CreateKey(t.Context(), &kms.CreateKeyInput{Origin: types.OriginTypeExternal})
	require.NoError(t, err)
	return *out.KeyMetadata.KeyId
}

// ImportSet is what GetParametersForImport gives.
type ImportSet struct {
	KeyID     string
	Algorithm string
	Token     []byte
	Public    *rsa.PublicKey
}

// ImportSet asks for the parameters of an import.
func (s *Server) ImportSet(t testing.TB, keyID, algorithm, spec string) ImportSet {
	t.Helper()
	out, err := s.Client().GetParametersForImport(t.Context(), &kms.GetParametersForImportInput{
		KeyId: &keyID, WrappingAlgorithm: types.AlgorithmSpec(algorithm), WrappingKeySpec: types.WrappingKeySpec(spec),
	})
	require.NoError(t, err)
	set, err := NewImportSet(keyID, algorithm, out)
	require.NoError(t, err)
	return set
}

// NewImportSet reads what GetParametersForImport gave for a key and an algorithm.
func NewImportSet(keyID, algorithm string, out *kms.GetParametersForImportOutput) (ImportSet, error) {
	public, err := x509.ParsePKIXPublicKey(out.PublicKey)
	if err != nil {
		return ImportSet{}, fmt.Errorf("reading public key: %w", err)
	}
	pair, ok := public.(*rsa.PublicKey)
	if !ok {
		return ImportSet{}, fmt.Errorf("the public key is a %T", public)
	}
	return ImportSet{KeyID: keyID, Algorithm: algorithm, Token: out.ImportToken, Public: pair}, nil
}

// Input is a request to import key material, which does not expire.
func (i ImportSet) Input(t testing.TB, material []byte, edits ...func(*kms.ImportKeyMaterialInput)) *kms.ImportKeyMaterialInput {
	t.Helper()
	encrypted, err := i.Wrap(material)
	require.NoError(t, err)
	in := &kms.ImportKeyMaterialInput{
		KeyId: &i.KeyID, ImportToken: i.Token, EncryptedKeyMaterial: encrypted, ExpirationModel: types.ExpirationModelTypeKeyMaterialDoesNotExpire,
	}
	for _, edit := range edits {
		edit(in)
	}
	return in
}

// Import imports key material and gives its id.
func (s *Server) Import(t testing.TB, i ImportSet, material []byte, edits ...func(*kms.ImportKeyMaterialInput)) string {
	t.Helper()
	out, err := s.Client().ImportKeyMaterial(t.Context(), i.Input(t, material, edits...))
	require.NoError(t, err)
	return *out.KeyMaterialId
}

// Wrap encrypts key material as the set's algorithm says.
func (i ImportSet) Wrap(material []byte) ([]byte, error) {
	digest := sha256.New
	if strings.HasSuffix(i.Algorithm, "_SHA_1") {
		digest = sha1.New
	}
	if strings.HasPrefix(i.Algorithm, "RSAES_OAEP_") {
		return encryptOAEP(digest, i.Public, material)
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // it never fails
	encrypted, err := encryptOAEP(digest, i.Public, key)
	if err != nil {
		return nil, err
	}
	wrapped, err := wrapPadded(key, material)
	return append(encrypted, wrapped...), err
}

func encryptOAEP(digest func() hash.Hash, public *rsa.PublicKey, secret []byte) ([]byte, error) {
	encrypted, err := rsa.EncryptOAEP(digest(), rand.Reader, public, secret, nil)
	if err != nil {
		return nil, fmt.Errorf("encrypting with OAEP: %w", err)
	}
	return encrypted, nil
}

// wrapPadded is AES Key Wrap with Padding, RFC 5649, section 4.1.
func wrapPadded(key, plaintext []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("wrapping: %w", err)
	}
	n := (len(plaintext) + 7) / 8
	out := make([]byte, 8+8*n)
	copy(out, "\xA6\x59\x59\xA6")
	binary.BigEndian.PutUint32(out[4:], uint32(len(plaintext)))
	copy(out[8:], plaintext)
	if n == 1 {
		block.Encrypt(out, out)
		return out, nil
	}
	// RFC 3394, section 2.2.1: A is the first half of b, and lies in the first eight bytes of out in between.
	b := make([]byte, 16)
	for step := range 6 * n {
		r := out[8+8*(step%n):][:8]
		copy(b, out[:8])
		copy(b[8:], r)
		block.Encrypt(b, b)
		copy(r, b[8:])
		binary.BigEndian.PutUint64(out, binary.BigEndian.Uint64(b)^uint64(step+1))
	}
	return out, nil
}
