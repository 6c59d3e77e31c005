package pkcs11

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"hash"
	"math/big"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// raw is the bare RSA operation of a private key.
func raw(key *rsa.PrivateKey, c []byte) []byte {
	m := new(big.Int).Exp(new(big.Int).SetBytes(c), key.D, key.N)
	return m.FillBytes(make([]byte, key.Size()))
}

// TestDecodeOAEP undoes what crypto/rsa did, for messages of every length.
func TestDecodeOAEP(t *testing.T) {
	for _, bits := range []int{2048, 3072, 4096} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		require.NoError(t, err)
		for _, h := range []rsaHash{rsaSHA1, rsaSHA256} {
			longest := bits/8 - 2*h.hash.Size() - 2
			for _, size := range []int{0, 1, 16, 31, 32, 33, longest - 1, longest} {
				for _, first := range []byte{0, 1, 7} { // what could pass for padding
					message := material()
					message = slices.Repeat(message, 16)[:size]
					if size > 0 {
						message[0] = first
					}
					c, err := rsa.EncryptOAEP(h.hash.New(), rand.Reader, &key.PublicKey, message, nil)
					require.NoError(t, err)
					got, err := decodeOAEP(raw(key, c), h.hash)
					require.NoError(t, err)
					require.Equal(t, string(message), string(got), "%d bits, %s, %d bytes", bits, h.name, size)
				}
			}
			labelled, err := rsa.EncryptOAEP(h.hash.New(), rand.Reader, &key.PublicKey, []byte("x"), []byte("label"))
			require.NoError(t, err)
			requireNotOAEP(t, "a label", raw(key, labelled), h)
		}
	}
}

// requireNotOAEP demands the one error that there is, whatever is wrong.
func requireNotOAEP(t *testing.T, name string, em []byte, h rsaHash) {
	t.Helper()
	got, err := decodeOAEP(em, h.hash)
	require.Same(t, errOAEP, err, name)
	require.Nil(t, got, name)
}

// encodeOAEP pads a data block of any form (RFC 8017, section 7.1.1, step 2), and begins with any byte.
func encodeOAEP(first byte, db []byte, h rsaHash) []byte {
	seed := make([]byte, h.hash.Size())
	_, _ = rand.Read(seed) // never fails
	db = slices.Clone(db)
	mask(db, seed, h.hash.New())
	mask(seed, db, h.hash.New())
	return append(append([]byte{first}, seed...), db...)
}

// mask is MGF1 by its definition.
func mask(b, seed []byte, h hash.Hash) {
	for i := range b {
		h.Reset()
		h.Write(seed)
		h.Write([]byte{0, 0, 0, byte(i / h.Size())})
		b[i] ^= h.Sum(nil)[i%h.Size()]
	}
}

// TestDecodeOAEPMalformed has every byte of the data block wrong in turn, and every form of it that is wrong as a whole.
func TestDecodeOAEPMalformed(t *testing.T) {
	for _, h := range []rsaHash{rsaSHA1, rsaSHA256} {
		for _, size := range []int{256, 384, 512} {
			n := size - 1 - h.hash.Size()
			hLen := h.hash.Size()
			db := make([]byte, n)
			copy(db, h.hash.New().Sum(nil))
			one := n - 33
			db[one] = 1
			copy(db[one+1:], material())
			got, err := decodeOAEP(encodeOAEP(0, db, h), h.hash)
			require.NoError(t, err)
			require.Equal(t, db[one+1:], got)

			for first := 1; first < 256; first++ {
				requireNotOAEP(t, fmt.Sprintf("first byte %d", first), encodeOAEP(byte(first), db, h), h)
			}
			for i := range one + 1 {
				for _, x := range []byte{2, 3, 0x80} {
					bad := slices.Clone(db)
					bad[i] ^= x
					requireNotOAEP(t, fmt.Sprintf("byte %d of the block", i), encodeOAEP(0, bad, h), h)
				}
			}
			requireNotOAEP(t, "no one", encodeOAEP(0, append(slices.Clone(db[:hLen]), make([]byte, n-hLen)...), h), h)
			requireNotOAEP(t, "a two alone", encodeOAEP(0, append(append(slices.Clone(db[:hLen]), make([]byte, n-hLen-1)...), 2), h), h)
			requireNotOAEP(t, "nothing but zeros", make([]byte, size), h)
			requireNotOAEP(t, "nothing but ones", slices.Repeat([]byte{0xff}, size), h)
			other := map[string]rsaHash{"SHA_1": rsaSHA256, "SHA_256": rsaSHA1}[h.name]
			requireNotOAEP(t, "another hash", encodeOAEP(0, db, h), other)
		}
		for size := range 2*h.hash.Size() + 2 {
			requireNotOAEP(t, "too short", make([]byte, size), h)
		}
	}
}

// TestWipeHash looks into the state of a hash.
func TestWipeHash(t *testing.T) {
	secret := slices.Repeat([]byte{0xa5}, 40)
	h := sha256.New()
	h.Write(secret)
	require.Contains(t, fmt.Sprint(h), "165 165 165")
	h.Reset()
	require.Contains(t, fmt.Sprint(h), "165 165 165", "Reset wipes by itself now")
	h.Write(secret)
	wipeHash(h)
	require.NotContains(t, fmt.Sprint(h), "165 165")
	require.Equal(t, sha256.New().Sum(nil), h.Sum(nil))
}

// FuzzDecodeOAEP never gives two answers, and never reads what is not there.
func FuzzDecodeOAEP(f *testing.F) {
	f.Add([]byte{}, true)
	f.Add(make([]byte, 256), false)
	f.Fuzz(func(t *testing.T, em []byte, sha1 bool) {
		h := rsaSHA256
		if sha1 {
			h = rsaSHA1
		}
		got, err := decodeOAEP(slices.Clone(em), h.hash)
		if err != nil {
			require.Same(t, errOAEP, err)
			require.Nil(t, got)
		}
	})
}
