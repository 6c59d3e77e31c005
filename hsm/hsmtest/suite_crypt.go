package hsmtest

import (
	"bytes"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
)

// sizes are those of plaintexts, in bytes: the edges of what is allowed, one below a block of AES and some between.
var sizes = []int{1, 5, 15, 64, 4096, hsm.MaxPlaintext}

func (s *suite) testRoundTrips(t *testing.T) {
	for _, size := range sizes {
		plaintext, w := random(size), hsm.Sealing{Key: s.first, AAD: randomAAD()}
		o := s.seal(t, w, plaintext)
		require.Len(t, o.Sealed.Data, size+hsm.TagSize)
		require.False(t, size > 4 && bytes.Contains(o.Sealed.Data, plaintext), "the plaintext is in the ciphertext")
		s.requireOpens(t, o, plaintext)
		w2 := hsm.Sealing{Key: s.second, AAD: randomAAD()}
		again, err := s.token.ReEncrypt(t.Context(), o, w2)
		require.NoError(t, err)
		require.Len(t, again.Data, size+hsm.TagSize)
		s.requireOpens(t, hsm.Opening{Key: w2.Key, AAD: w2.AAD, Sealed: again}, plaintext)
	}
	s.requireOpens(t, s.seal(t, hsm.Sealing{Key: s.first}, []byte("an AAD of zeros")), []byte("an AAD of zeros"))
}

// testSizes has the sizes that are out of bounds.
func (s *suite) testSizes(t *testing.T) {
	for _, plaintext := range [][]byte{nil, {}, make([]byte, hsm.MaxPlaintext+1), make([]byte, 1<<20)} {
		_, err := s.token.Encrypt(t.Context(), hsm.Sealing{Key: s.first}, plaintext)
		requireClass(t, err, hsm.BadInput)
	}
	for _, size := range []int{0, 1, hsm.TagSize - 1, hsm.TagSize, hsm.MaxPlaintext + hsm.TagSize + 1, 1 << 20} {
		o := hsm.Opening{Key: s.first, Sealed: hsm.Sealed{IV: [hsm.IVSize]byte{1}, Data: make([]byte, size)}}
		_, err := s.token.Decrypt(t.Context(), o)
		requireClass(t, err, hsm.BadInput)
		_, err = s.token.ReEncrypt(t.Context(), o, hsm.Sealing{Key: s.second})
		requireSource(t, err, true, hsm.BadInput)
	}
}

// tampered gives copies of o each of which has another thing wrong, of kinds that a token must find.
func tampered(o hsm.Opening) map[string]hsm.Opening {
	forged := map[string]hsm.Opening{}
	alter := func(name string, change func(*hsm.Opening)) {
		c := o
		c.Sealed.Data = slices.Clone(o.Sealed.Data)
		change(&c)
		forged[name] = c
	}
	end := len(o.Sealed.Data)
	alter("first byte", func(c *hsm.Opening) { c.Sealed.Data[0] ^= 1 })
	alter("last byte of the ciphertext", func(c *hsm.Opening) { c.Sealed.Data[end-hsm.TagSize-1] ^= 0x80 })
	alter("first byte of the tag", func(c *hsm.Opening) { c.Sealed.Data[end-hsm.TagSize] ^= 1 })
	alter("last byte of the tag", func(c *hsm.Opening) { c.Sealed.Data[end-1] ^= 1 })
	alter("tag of zeros", func(c *hsm.Opening) { clear(c.Sealed.Data[end-hsm.TagSize:]) })
	alter("end cut off", func(c *hsm.Opening) { c.Sealed.Data = c.Sealed.Data[:end-1] })
	alter("begin cut off", func(c *hsm.Opening) { c.Sealed.Data = c.Sealed.Data[1:] })
	alter("byte appended", func(c *hsm.Opening) { c.Sealed.Data = append(c.Sealed.Data, 0) })
	alter("first byte of the IV", func(c *hsm.Opening) { c.Sealed.IV[0] ^= 1 })
	alter("last byte of the IV", func(c *hsm.Opening) { c.Sealed.IV[hsm.IVSize-1] ^= 1 })
	alter("IV of zeros", func(c *hsm.Opening) { clear(c.Sealed.IV[:]) })
	alter("first byte of the AAD", func(c *hsm.Opening) { c.AAD[0] ^= 1 })
	alter("last byte of the AAD", func(c *hsm.Opening) { c.AAD[len(c.AAD)-1] ^= 1 })
	return forged
}

func (s *suite) testTampering(t *testing.T) {
	for _, size := range []int{2, 64, hsm.MaxPlaintext - 1} {
		plaintext := random(size)
		o := s.seal(t, hsm.Sealing{Key: s.first, AAD: randomAAD()}, plaintext)
		forged := tampered(o)
		other := o
		other.Key = s.second
		forged["another key"] = other
		for name, c := range forged {
			got, err := s.token.Decrypt(t.Context(), c)
			require.Error(t, err, name)
			requireClass(t, err, hsm.BadInput)
			require.Nil(t, got, name)
			sealed, err := s.token.ReEncrypt(t.Context(), c, hsm.Sealing{Key: s.second})
			require.Error(t, err, name)
			requireSource(t, err, true, hsm.BadInput)
			require.Zero(t, sealed, name)
		}
		s.requireOpens(t, o, plaintext) // and none of it harmed the token or the ciphertext
	}
}

func (s *suite) testFreshIV(t *testing.T) {
	seen := map[[hsm.IVSize]byte]bool{{}: true}
	w := hsm.Sealing{Key: s.first}
	for range 200 {
		o := s.seal(t, w, []byte("the same"))
		require.False(t, seen[o.Sealed.IV], "IV %x was used before", o.Sealed.IV)
		seen[o.Sealed.IV] = true
		again, err := s.token.ReEncrypt(t.Context(), o, w)
		require.NoError(t, err)
		require.False(t, seen[again.IV], "IV %x was used before", again.IV)
		seen[again.IV] = true
	}
}

// testBuffersInStructs has buffers that lie beside pointers, which cgo will not have in memory that it passes on.
func (s *suite) testBuffersInStructs(t *testing.T) {
	record := &struct {
		self *int
		data [64]byte
	}{self: new(int)}
	require.NoError(t, s.token.Random(t.Context(), record.data[:]))
	require.NotZero(t, record.data)
	o := s.seal(t, hsm.Sealing{Key: s.first}, record.data[:40])
	s.requireOpens(t, o, record.data[:40])
	plaintext := slices.Clone(record.data[:40])
	copy(record.data[:], o.Sealed.Data)
	o.Sealed.Data = record.data[:len(o.Sealed.Data)]
	s.requireOpens(t, o, plaintext)
	require.NotNil(t, record.self)
}

// testBuffersOfCaller demands that what goes in is not changed and that what comes out is the caller's alone.
func (s *suite) testBuffersOfCaller(t *testing.T) {
	plaintext := random(100)
	kept := slices.Clone(plaintext)
	o := s.seal(t, hsm.Sealing{Key: s.first}, plaintext)
	require.Equal(t, kept, plaintext)
	data := slices.Clone(o.Sealed.Data)
	first, err := s.token.Decrypt(t.Context(), o)
	require.NoError(t, err)
	require.Equal(t, data, o.Sealed.Data)
	clear(plaintext)
	s.requireOpens(t, s.seal(t, hsm.Sealing{Key: s.first}, []byte("another")), []byte("another"))
	require.Equal(t, kept, first)
	require.Equal(t, data, o.Sealed.Data)
	clear(first)
	s.requireOpens(t, o, kept)
}

func (s *suite) testReEncrypt(t *testing.T) {
	for name, to := range map[string]hsm.KeyRef{"same key": s.first, "another key": s.second} {
		t.Run(name, func(t *testing.T) {
			o := s.seal(t, hsm.Sealing{Key: s.first, AAD: randomAAD()}, []byte("plaintext"))
			for _, aad := range []hsm.AAD{o.AAD, randomAAD()} {
				w := hsm.Sealing{Key: to, AAD: aad}
				sealed, err := s.token.ReEncrypt(t.Context(), o, w)
				require.NoError(t, err)
				require.NotEqual(t, o.Sealed, sealed)
				s.requireOpens(t, hsm.Opening{Key: to, AAD: aad, Sealed: sealed}, []byte("plaintext"))
				s.requireOpens(t, o, []byte("plaintext"))
				if aad != o.AAD {
					_, err = s.token.Decrypt(t.Context(), hsm.Opening{Key: to, AAD: o.AAD, Sealed: sealed})
					requireClass(t, err, hsm.BadInput)
				}
			}
		})
	}
}

// testReEncryptHomes goes between the two homes of key material, in both directions.
func (s *suite) testReEncryptHomes(t *testing.T) {
	domain := s.request(t, hsm.KeyRequest{Kind: hsm.AES256Wrap, Label: "other domain"}).ID
	persistent := s.request(t, hsm.KeyRequest{Kind: hsm.AES256, Label: "persistent"})
	wrapped := s.request(t, hsm.KeyRequest{Kind: hsm.AES256, Label: "wrapped", WrapUnder: domain})
	o := s.seal(t, hsm.Sealing{Key: s.first, AAD: randomAAD()}, []byte("travels"))
	for _, to := range []hsm.KeyRef{wrapped, persistent, wrapped, s.first, persistent, s.second} {
		w := hsm.Sealing{Key: to, AAD: randomAAD()}
		sealed, err := s.token.ReEncrypt(t.Context(), o, w)
		require.NoError(t, err)
		o = hsm.Opening{Key: w.Key, AAD: w.AAD, Sealed: sealed}
		s.requireOpens(t, o, []byte("travels"))
	}
}

// testReEncryptSource has failures of the decryption. That the destination is missing too must not hide them.
func (s *suite) testReEncryptSource(t *testing.T) {
	good := s.seal(t, hsm.Sealing{Key: s.first}, []byte("plaintext"))
	forged, missing := good, good
	forged.AAD[0] ^= 1
	missing.Key = s.missing()
	for _, to := range []hsm.KeyRef{s.first, s.second, s.missing()} {
		_, err := s.token.ReEncrypt(t.Context(), forged, hsm.Sealing{Key: to})
		requireSource(t, err, true, hsm.BadInput)
		_, err = s.token.ReEncrypt(t.Context(), missing, hsm.Sealing{Key: to})
		requireSource(t, err, true, hsm.KeyMissing)
	}
}

func (s *suite) testReEncryptDestination(t *testing.T) {
	o := s.seal(t, hsm.Sealing{Key: s.first}, []byte("plaintext"))
	sealed, err := s.token.ReEncrypt(t.Context(), o, hsm.Sealing{Key: s.missing()})
	requireSource(t, err, false, hsm.KeyMissing)
	require.Zero(t, sealed)
	wrapping := s.request(t, hsm.KeyRequest{Kind: hsm.AES256Wrap, Label: "no destination"})
	_, err = s.token.ReEncrypt(t.Context(), o, hsm.Sealing{Key: wrapping})
	requireSource(t, err, false, hsm.Failed, hsm.Unsupported)
	s.requireOpens(t, o, []byte("plaintext"))
}
