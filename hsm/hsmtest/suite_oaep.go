package hsmtest

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"hash"
	"maps"
	"math/big"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
)

// oaepHashes has the hash of each algorithm of RSAES-OAEP.
var oaepHashes = map[hsm.Algorithm]func() hash.Hash{hsm.OAEPWithSHA1: sha1.New, hsm.OAEPWithSHA256: sha256.New}

// longestOAEP is how many bytes fit; RFC 8017, section 7.1.1.
func longestOAEP(modulus int, a hsm.Algorithm) int { return modulus - 2*oaepHashes[a]().Size() - 2 }

// decrypting gives a key pair that decrypts, with its public key, and the algorithms that the token has for it. It is the same
// one for each label.
func (s *suite) decrypting(t *testing.T, kind hsm.KeyKind, label string) (hsm.KeyRef, *rsa.PublicKey, []hsm.Algorithm) {
	t.Helper()
	support, err := s.token.Support(t.Context(), kind)
	require.NoError(t, err)
	require.NotEmpty(t, support.Algorithms)
	r := hsm.KeyRequest{Kind: kind, Label: label, WrapUnder: s.domain}
	if _, ok := s.decrypters[r]; !ok {
		s.decrypters[r] = s.request(t, r)
	}
	ref := s.decrypters[r]
	parsed, err := x509.ParsePKIXPublicKey(ref.Public)
	require.NoError(t, err)
	public, ok := parsed.(*rsa.PublicKey)
	require.True(t, ok)
	return ref, public, slices.Sorted(maps.Keys(support.Algorithms))
}

// decryptKinds gives the kinds to test. Large ones take seconds to make.
func (s *suite) decryptKinds() []hsm.KeyKind {
	if s.cfg.ImportKinds != nil {
		return []hsm.KeyKind{hsm.RSA2048Decrypt}
	}
	return []hsm.KeyKind{hsm.RSA2048Decrypt, hsm.RSA3072Decrypt, hsm.RSA4096Decrypt}
}

// testOAEP decrypts what Go encrypted and what the token encrypted, of every length that matters.
func (s *suite) testOAEP(t *testing.T) {
	for _, kind := range s.decryptKinds() {
		ref, public, algorithms := s.decrypting(t, kind, "one")
		for _, a := range algorithms {
			longest := longestOAEP(public.Size(), a)
			w := hsm.Sealing{Key: ref, Algorithm: a}
			for _, size := range []int{0, 1, 31, longest - 1, longest} {
				plaintext := random(size)
				data, err := rsa.EncryptOAEP(oaepHashes[a](), rand.Reader, public, plaintext, nil)
				require.NoError(t, err)
				s.requireDecrypts(t, hsm.Opening{Key: ref, Algorithm: a, Sealed: hsm.Sealed{Data: data}}, plaintext)

				first, err := s.token.Encrypt(t.Context(), w, plaintext)
				require.NoError(t, err)
				require.Zero(t, first.IV)
				require.Len(t, first.Data, public.Size())
				s.requireDecrypts(t, hsm.Opening{Key: ref, Algorithm: a, Sealed: first}, plaintext)
				second, err := s.token.Encrypt(t.Context(), w, plaintext)
				require.NoError(t, err)
				require.NotEqual(t, first, second)
			}
			for _, size := range []int{longest + 1, public.Size(), hsm.MaxPlaintext, hsm.MaxPlaintext + 1} {
				_, err := s.token.Encrypt(t.Context(), w, make([]byte, size))
				requireClass(t, err, hsm.TooLong)
			}
		}
	}
}

// requireDecrypts demands a plaintext that is never nil.
func (s *suite) requireDecrypts(t *testing.T, o hsm.Opening, plaintext []byte) {
	t.Helper()
	got, err := s.token.Decrypt(t.Context(), o)
	require.NoError(t, err)
	require.NotNil(t, got)
	require.True(t, bytes.Equal(plaintext, got), "the plaintext is another one")
}

// testOAEPBadInput demands one and the same error, whatever is wrong with a ciphertext.
func (s *suite) testOAEPBadInput(t *testing.T) {
	ref, public, algorithms := s.decrypting(t, hsm.RSA2048Decrypt, "one")
	other, _, _ := s.decrypting(t, hsm.RSA2048Decrypt, "another")
	for _, a := range algorithms {
		o := s.seal(t, hsm.Sealing{Key: ref, Algorithm: a}, []byte("plaintext"))
		texts := map[string]bool{}
		requireBad := func(name string, o hsm.Opening) {
			got, err := s.token.Decrypt(t.Context(), o)
			require.Error(t, err, name)
			requireClass(t, err, hsm.BadInput)
			require.Nil(t, got, name)
			texts[err.Error()] = true
			sealed, err := s.token.ReEncrypt(t.Context(), o, hsm.Sealing{Key: s.first})
			requireSource(t, err, true, hsm.BadInput)
			require.Zero(t, sealed, name)
			texts[err.Error()] = true
		}
		for name, data := range spoiltOAEP(t, public, o.Sealed.Data) {
			c := o
			c.Sealed.Data = data
			requireBad(name, c)
		}
		foreign := o
		foreign.Key = other
		requireBad("another key", foreign)
		for _, claimed := range algorithms {
			if claimed != a {
				c := o
				c.Algorithm = claimed
				requireBad("encrypted by "+string(a), c)
			}
		}
		require.Len(t, texts, 1, "the error tells what is wrong: %v", texts)
		o.AAD, o.Sealed.IV = randomAAD(), [hsm.IVSize]byte{1} // which are not of RSA
		s.requireDecrypts(t, o, []byte("plaintext"))
	}
	require.NoError(t, s.token.Check(t.Context()))
}

// spoiltOAEP gives ciphertexts each of which has another thing wrong.
func spoiltOAEP(t *testing.T, public *rsa.PublicKey, good []byte) map[string][]byte {
	t.Helper()
	number := func(n *big.Int) []byte { return n.FillBytes(make([]byte, public.Size())) }
	one := big.NewInt(1)
	labelled, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, public, []byte("plaintext"), []byte("label"))
	require.NoError(t, err)
	raw := func(begin ...byte) []byte { // what decrypts to this
		m := new(big.Int).SetBytes(append(begin, random(public.Size()-len(begin))...))
		return number(m.Exp(m, big.NewInt(int64(public.E)), public.N))
	}
	all := map[string][]byte{
		"nil": nil, "empty": {}, "one byte": {1}, "end cut off": good[:len(good)-1], "begin cut off": good[1:], "half": good[:len(good)/2],
		"a byte appended": append(slices.Clone(good), 0), "zero in front": append([]byte{0}, good...), "twice": slices.Repeat(good, 2),
		"a megabyte": make([]byte, 1<<20), "0": number(new(big.Int)), "1": number(one), "the modulus": number(public.N),
		"the modulus less 1": number(new(big.Int).Sub(public.N, one)), "the modulus and 1": number(new(big.Int).Add(public.N, one)),
		"ones": slices.Repeat([]byte{0xff}, len(good)), "a label": labelled,
		"begins with 0": raw(0), "begins with 0, 0": raw(0, 0), "begins with 1": raw(1), "begins with 0, 2": raw(0, 2),
	}
	for _, i := range []int{0, 1, len(good) / 2, len(good) - 1} {
		tampered := slices.Clone(good)
		tampered[i] ^= 1
		all[fmt.Sprintf("byte %d", i)] = tampered
	}
	return all
}

// testOAEPReEncrypt goes between AES and RSA in all four directions.
func (s *suite) testOAEPReEncrypt(t *testing.T) {
	ref, public, algorithms := s.decrypting(t, hsm.RSA2048Decrypt, "one")
	other, _, _ := s.decrypting(t, hsm.RSA2048Decrypt, "another")
	for _, a := range algorithms {
		for _, b := range algorithms {
			for _, plaintext := range [][]byte{[]byte("x"), random(longestOAEP(public.Size(), hsm.OAEPWithSHA256))} {
				o := s.seal(t, hsm.Sealing{Key: s.first, AAD: randomAAD()}, plaintext)
				for _, w := range []hsm.Sealing{
					{Key: ref, Algorithm: a}, {Key: other, Algorithm: b}, {Key: other, Algorithm: a}, {Key: s.second, AAD: randomAAD(), Algorithm: hsm.SymmetricDefault}, {Key: ref, Algorithm: b},
				} {
					sealed, err := s.token.ReEncrypt(t.Context(), o, w)
					require.NoError(t, err)
					o = hsm.Opening{Key: w.Key, Algorithm: w.Algorithm, AAD: w.AAD, Sealed: sealed}
					s.requireDecrypts(t, o, plaintext)
				}
			}
		}
		s.testOAEPReEncryptBounds(t, hsm.Sealing{Key: ref, Algorithm: a}, hsm.Sealing{Key: other, Algorithm: a}, longestOAEP(public.Size(), a))
	}
}

// testOAEPReEncryptBounds has plaintexts that one side can hold and the other cannot.
func (s *suite) testOAEPReEncryptBounds(t *testing.T, w, again hsm.Sealing, longest int) {
	empty := s.seal(t, w, nil)
	_, err := s.token.ReEncrypt(t.Context(), empty, hsm.Sealing{Key: s.first})
	requireSource(t, err, false, hsm.BadInput)
	sealed, err := s.token.ReEncrypt(t.Context(), empty, again)
	require.NoError(t, err)
	s.requireDecrypts(t, hsm.Opening{Key: again.Key, Algorithm: again.Algorithm, Sealed: sealed}, nil)

	long := s.seal(t, hsm.Sealing{Key: s.first}, random(longest+1))
	_, err = s.token.ReEncrypt(t.Context(), long, w)
	requireSource(t, err, false, hsm.TooLong)
	s.requireDecrypts(t, empty, nil) // and nothing is the worse for it
}

// testOAEPRefused has keys and algorithms that do not go together.
func (s *suite) testOAEPRefused(t *testing.T) {
	ref, _, algorithms := s.decrypting(t, hsm.RSA2048Decrypt, "one")
	a := algorithms[0]
	good := s.seal(t, hsm.Sealing{Key: ref, Algorithm: a}, []byte("plaintext"))
	under := s.request(t, hsm.KeyRequest{Kind: hsm.RSA2048Import, Label: "no decrypter"})
	missing, blank := ref, ref
	missing.ID, blank.Public = unknownKey(), nil
	for name, c := range map[string]struct {
		key       hsm.KeyRef
		algorithm hsm.Algorithm
		classes   []hsm.Class
	}{
		"AES with OAEP":            {s.first, a, []hsm.Class{hsm.Unsupported}},
		"RSA with AES":             {ref, hsm.SymmetricDefault, []hsm.Class{hsm.Unsupported}},
		"RSA with no algorithm":    {ref, "", []hsm.Class{hsm.Unsupported}},
		"RSA with a signature":     {ref, hsm.PSSWithSHA256, []hsm.Class{hsm.Unsupported}},
		"a pair to import under":   {under, a, []hsm.Class{hsm.Unsupported}},
		"an unknown algorithm":     {ref, "RSAES_PKCS1_V1_5", []hsm.Class{hsm.Unsupported}},
		"a key without public key": {blank, a, []hsm.Class{hsm.Failed}},
	} {
		o, w := good, hsm.Sealing{Key: c.key, Algorithm: c.algorithm}
		o.Key, o.Algorithm = c.key, c.algorithm
		_, err := s.token.Encrypt(t.Context(), w, []byte("plaintext"))
		require.Error(t, err, name)
		requireClass(t, err, c.classes...)
		_, err = s.token.Decrypt(t.Context(), o)
		require.Error(t, err, name)
		requireClass(t, err, c.classes...)
		_, err = s.token.ReEncrypt(t.Context(), o, hsm.Sealing{Key: s.first})
		requireSource(t, err, true, c.classes...)
		_, err = s.token.ReEncrypt(t.Context(), good, w)
		requireSource(t, err, false, c.classes...)
	}
	require.NoError(t, s.token.DestroyKey(t.Context(), under))
	if s.domain == "" {
		o := good
		o.Key = missing
		_, err := s.token.Decrypt(t.Context(), o)
		requireClass(t, err, hsm.KeyMissing)
	}
}
