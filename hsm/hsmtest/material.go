package hsmtest

import (
	"crypto/aes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"hash"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
)

// EncryptMaterial encrypts key material for an import, as a caller of the AWS API does. public is a DER
// SubjectPublicKeyInfo.
func EncryptMaterial(t testing.TB, public []byte, wrap hsm.ImportWrap, material []byte) []byte {
	t.Helper()
	if wrap == hsm.OAEPSHA1 || wrap == hsm.OAEPSHA256 {
		return encryptOAEP(t, public, wrap, material)
	}
	key := random(32)
	return append(encryptOAEP(t, public, wrap, key), wrapKWP(t, key, material)...)
}

func encryptOAEP(t testing.TB, public []byte, wrap hsm.ImportWrap, plaintext []byte) []byte {
	t.Helper()
	parsed, err := x509.ParsePKIXPublicKey(public)
	require.NoError(t, err)
	key, ok := parsed.(*rsa.PublicKey)
	require.True(t, ok)
	hashes := map[hsm.ImportWrap]func() hash.Hash{
		hsm.OAEPSHA1: sha1.New, hsm.RSAAESSHA1: sha1.New, hsm.OAEPSHA256: sha256.New, hsm.RSAAESSHA256: sha256.New,
	}
	ciphertext, err := rsa.EncryptOAEP(hashes[wrap](), rand.Reader, key, plaintext, nil)
	require.NoError(t, err)
	return ciphertext
}

// wrapKWP is AES Key Wrap with Padding, RFC 5649, section 4.1.
func wrapKWP(t testing.TB, key, material []byte) []byte {
	t.Helper()
	block, err := aes.NewCipher(key)
	require.NoError(t, err)
	out := binary.BigEndian.AppendUint32([]byte{0xa6, 0x59, 0x59, 0xa6}, uint32(len(material)))
	out = append(out, material...)
	out = append(out, make([]byte, -len(material)&7)...)
	n := len(out)/8 - 1
	if n == 1 {
		block.Encrypt(out, out)
		return out
	}
	var b [16]byte
	for j := range 6 {
		for i := 1; i <= n; i++ {
			copy(b[:8], out)
			copy(b[8:], out[8*i:])
			block.Encrypt(b[:], b[:])
			binary.BigEndian.PutUint64(out, binary.BigEndian.Uint64(b[:8])^uint64(n*j+i))
			copy(out[8*i:], b[8:])
		}
	}
	return out
}
