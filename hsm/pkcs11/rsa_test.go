package pkcs11

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/hsm/hsmtest"
)

// importKnown makes a key of a private key that the test has.
func (r *rig) importKnown(kind hsm.KeyKind, key any) hsm.KeyRef {
	r.t.Helper()
	material, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(r.t, err)
	under := r.generate(hsm.KeyRequest{Kind: hsm.RSA2048Import})
	made, err := r.token.ImportKey(r.t.Context(), hsm.ImportRequest{
		Under: under, Wrap: hsm.RSAAESSHA1, Kind: kind, Material: hsmtest.EncryptMaterial(r.t, under.Public, hsm.RSAAESSHA1, material),
	})
	require.NoError(r.t, err)
	require.NoError(r.t, r.token.DestroyKey(r.t.Context(), under))
	return made.Key
}

// probes are ciphertexts, made of encoded messages, each with another thing wrong. Manger's attack tells those apart that
// decrypt to a first byte of 0 from the others.
func probes(t *testing.T, key *rsa.PrivateKey, h rsaHash) map[string][]byte {
	t.Helper()
	size, n := key.Size(), h.hash.Size()
	block := make([]byte, size-1-n)
	copy(block, h.hash.New().Sum(nil))
	ciphertext := func(em []byte) []byte {
		c := new(big.Int).Exp(new(big.Int).SetBytes(em), big.NewInt(int64(key.E)), key.N)
		return c.FillBytes(make([]byte, size))
	}
	encoded := func(first byte, change func(db []byte)) []byte {
		db := slices.Clone(block)
		db[len(db)-9] = 1
		change(db)
		return ciphertext(encodeOAEP(first, db, h))
	}
	keep := func([]byte) {}
	noise := make([]byte, size-2)
	_, _ = rand.Read(noise) // never fails
	modulus := key.N.FillBytes(make([]byte, size))
	beyond := new(big.Int).Add(key.N, big.NewInt(12345)).FillBytes(make([]byte, size))
	return map[string][]byte{
		"first byte not 0":           encoded(1, keep),
		"first byte 0, noise":        ciphertext(append([]byte{0, noise[0]}, noise...)),
		"first byte not 0, noise":    ciphertext(append([]byte{1, 0}, noise...)),
		"another label":              encoded(0, func(db []byte) { db[0] ^= 1 }),
		"no 1 at all":                encoded(0, func(db []byte) { clear(db[n:]) }),
		"a 2 in the padding":         encoded(0, func(db []byte) { db[n+3] = 2 }),
		"a 2 in front of all":        encoded(0, func(db []byte) { db[n] = 2 }),
		"first byte and label wrong": encoded(1, func(db []byte) { db[1] ^= 1 }),
		"0":                          make([]byte, size),
		"too short":                  noise,
		"too long":                   make([]byte, size+1),
		"none":                       nil,
		"the modulus":                modulus,
		"beyond the modulus":         beyond,
	}
}

// TestOAEPTellsNothing demands the same error after the same calls, whatever is wrong with a ciphertext, on both routes. How
// long it took is printed.
func TestOAEPTellsNothing(t *testing.T) {
	r := newRig(t, options{})
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	ref := r.importKnown(hsm.RSA2048Decrypt, key)
	support, err := r.token.Support(t.Context(), ref.Kind)
	require.NoError(t, err)
	want := map[hsm.Algorithm]hsm.Route{hsm.OAEPWithSHA1: hsm.OnToken, hsm.OAEPWithSHA256: hsm.InProcess}
	require.Equal(t, want, support.Algorithms, "both routes are to be looked at")
	functions := []string{"C_DecryptInit", "C_Decrypt", "C_SignInit", "C_GenerateRandom", "C_OpenSession", "C_Finalize", "C_GetAttributeValue"}
	for a, h := range decrypters {
		made := map[string]bool{}
		for name, ciphertext := range probes(t, key, h) {
			o := hsm.Opening{Key: ref, Algorithm: a, Sealed: hsm.Sealed{Data: ciphertext}}
			before := r.counts(functions...)
			_, err := r.token.Decrypt(t.Context(), o)
			after := r.counts(functions...)
			require.Same(t, errOAEP, err, "%s, %s", a, name)
			for function := range after {
				after[function] -= before[function]
			}
			made[fmt.Sprint(after)] = true
			require.Len(t, made, 1, "%s, %s: other calls than of other ciphertexts", a, name)
		}
		r.printTimes(ref, a, probes(t, key, h))
	}
}

// printTimes shows the quartiles of the time that refusals take.
func (r *rig) printTimes(ref hsm.KeyRef, a hsm.Algorithm, ciphertexts map[string][]byte) {
	r.t.Helper()
	times := map[string][]time.Duration{}
	for range 40 {
		for name, ciphertext := range ciphertexts {
			start := time.Now()
			_, err := r.token.Decrypt(r.t.Context(), hsm.Opening{Key: ref, Algorithm: a, Sealed: hsm.Sealed{Data: ciphertext}})
			times[name] = append(times[name], time.Since(start))
			require.Error(r.t, err)
		}
	}
	for name, all := range times {
		slices.Sort(all)
		r.t.Logf("%s, %-26s %v %v %v", a, name, all[len(all)/4], all[len(all)/2], all[3*len(all)/4])
	}
}

// TestOAEPJudged has the token answer decryptions with codes that may mean anything. A token that works decides for a bad
// ciphertext, and is never opened anew for it; one that does not is recognised.
func TestOAEPJudged(t *testing.T) {
	r := newRig(t, options{})
	ref := r.generate(hsm.KeyRequest{Kind: hsm.RSA2048Decrypt})
	for a := range decrypters {
		o := r.sealTo(hsm.Sealing{Key: ref, Algorithm: a}, []byte("plaintext"))
		opened := r.fault.Calls("C_OpenSession")
		for _, code := range []uint{0x5, 0x6, 0x7, 0x40, 0x41, 0x20, 0x21, 0x70, 0x80000001} {
			r.fault.Set(fmt.Sprintf("C_Decrypt rv=0x%x count=1 when=after", code))
			_, err := r.token.Decrypt(t.Context(), o)
			require.Same(t, errOAEP, err, "0x%x", code)
			_, err = r.token.ReEncrypt(t.Context(), o, hsm.Sealing{Key: ref, Algorithm: a})
			require.NoError(t, err)
		}
		require.Equal(t, opened, r.fault.Calls("C_OpenSession"))
		for code, class := range map[uint]hsm.Class{0x5: hsm.TokenGone, 0x6: hsm.TokenGone, 0x30: hsm.TokenGone, 0x40: hsm.Failed, 0x70: hsm.Failed} {
			r.fault.Set(fmt.Sprintf("C_Decrypt rv=0x%x when=after", code))
			_, err := r.token.Decrypt(t.Context(), o)
			require.Equal(t, class, hsm.ClassOf(err), "0x%x: %v", code, err)
			_, err = r.token.ReEncrypt(t.Context(), o, hsm.Sealing{Key: ref, Algorithm: a})
			require.Error(t, err)
			r.fault.Clear()
			r.healed()
		}
		r.requireOpens(o, []byte("plaintext"))
	}
}

// sealTo encrypts as is said.
func (r *rig) sealTo(w hsm.Sealing, plaintext []byte) hsm.Opening {
	r.t.Helper()
	sealed, err := r.token.Encrypt(r.t.Context(), w, plaintext)
	require.NoError(r.t, err)
	return hsm.Opening{Key: w.Key, Algorithm: w.Algorithm, AAD: w.AAD, Sealed: sealed}
}

// TestOAEPStrict has no ciphertext decrypted whose padding the process would have to undo.
func TestOAEPStrict(t *testing.T) {
	r := newRig(t, options{strict: true})
	ref := r.generate(hsm.KeyRequest{Kind: hsm.RSA2048Decrypt})
	support, err := r.token.Support(t.Context(), ref.Kind)
	require.NoError(t, err)
	require.Equal(t, map[hsm.Algorithm]hsm.Route{hsm.OAEPWithSHA1: hsm.OnToken}, support.Algorithms)
	r.requireOpens(r.sealTo(hsm.Sealing{Key: ref, Algorithm: hsm.OAEPWithSHA1}, []byte("plaintext")), []byte("plaintext"))
	o := r.sealTo(hsm.Sealing{Key: ref, Algorithm: hsm.OAEPWithSHA256}, []byte("plaintext"))
	decrypted := r.fault.Calls("C_Decrypt")
	_, err = r.token.Decrypt(t.Context(), o)
	require.Equal(t, hsm.Unsupported, hsm.ClassOf(err))
	_, err = r.token.ReEncrypt(t.Context(), o, hsm.Sealing{Key: ref, Algorithm: hsm.OAEPWithSHA1})
	require.Equal(t, hsm.Unsupported, hsm.ClassOf(err))
	var e *hsm.Error
	require.ErrorAs(t, err, &e)
	require.True(t, e.Source)
	require.Equal(t, decrypted, r.fault.Calls("C_Decrypt"))
}

// TestEncryptToPublicKeyWithoutToken needs the token for nothing.
func TestEncryptToPublicKeyWithoutToken(t *testing.T) {
	r := newRig(t, options{})
	ref := r.generate(hsm.KeyRequest{Kind: hsm.RSA2048Decrypt})
	w := hsm.Sealing{Key: ref, Algorithm: hsm.OAEPWithSHA1}
	r.fault.Set("* rv=0x30")
	require.Error(t, r.token.Check(t.Context()))
	o := r.sealTo(w, []byte("plaintext"))
	r.fault.Clear()
	r.healed()
	r.requireOpens(o, []byte("plaintext"))
}

// TestScratchWipedOfRSA looks at the scratch after every way out of a decryption with RSA. While an IV is made for the
// encryption that follows, the plaintext must be there, or the test would look at the wrong memory.
func TestScratchWipedOfRSA(t *testing.T) {
	plaintext := bytes.Repeat([]byte("plaintext "), 15)
	var scratch []byte
	seen, panics := 0, false
	r := newRig(t, options{profile: Profile{Sessions: 1}, rand: reader(func(b []byte) (int, error) {
		if bytes.Contains(scratch, plaintext) {
			seen++
			if panics {
				panic("in the middle of a ReEncrypt")
			}
		}
		return rand.Read(b)
	})})
	symmetric, ref := r.generate(hsm.KeyRequest{Kind: hsm.AES256}), r.generate(hsm.KeyRequest{Kind: hsm.RSA2048Decrypt})
	requireWiped := func(name string, times int) {
		t.Helper()
		_, err := do(t.Context(), r.token, &task[struct{}]{f: func(s *session) (struct{}, error) { scratch = s.scratch; return struct{}{}, nil }})
		require.NoError(t, err)
		require.True(t, bytes.Equal(make([]byte, scratchSize), scratch), name)
		require.Equal(t, times, seen, name)
		seen = 0
	}
	requireWiped("before", 0)
	for a := range decrypters {
		o := r.sealTo(hsm.Sealing{Key: ref, Algorithm: a}, plaintext)
		reEncrypt := func(w hsm.Sealing) error { _, err := r.token.ReEncrypt(t.Context(), o, w); return err }
		r.requireOpens(o, plaintext)
		requireWiped("Decrypt", 0)
		require.NoError(t, reEncrypt(hsm.Sealing{Key: symmetric}))
		requireWiped("ReEncrypt", 1)
		require.NoError(t, reEncrypt(hsm.Sealing{Key: ref, Algorithm: hsm.OAEPWithSHA1}))
		requireWiped("ReEncrypt to a public key", 0)
		require.Equal(t, hsm.KeyMissing, hsm.ClassOf(reEncrypt(hsm.Sealing{Key: hsm.KeyRef{ID: "00112233445566778899aabbccddeeff", Kind: hsm.AES256}})))
		requireWiped("a destination that is missing", 0)
		r.fault.Set("C_EncryptInit rv=0x70")
		require.Equal(t, hsm.Unsupported, hsm.ClassOf(reEncrypt(hsm.Sealing{Key: symmetric})))
		requireWiped("a destination that fails", 1)
		r.fault.Set("C_Decrypt rv=0x5 when=after count=1")
		require.Equal(t, hsm.BadInput, hsm.ClassOf(reEncrypt(hsm.Sealing{Key: symmetric})))
		requireWiped("a plaintext that was given with an error", 0)
		r.fault.Clear()
		panics = true
		require.Equal(t, hsm.Failed, hsm.ClassOf(reEncrypt(hsm.Sealing{Key: symmetric})))
		panics = false
		requireWiped("a panic", 1)
		o.Sealed.Data[3] ^= 1
		require.Equal(t, hsm.BadInput, hsm.ClassOf(reEncrypt(hsm.Sealing{Key: symmetric})))
		requireWiped("a forgery", 0)
	}
}
