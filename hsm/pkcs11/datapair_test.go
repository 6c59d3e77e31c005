package pkcs11

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/publickey"
)

// dataKinds are the kinds of data key pairs, the slow ones left out.
var dataKinds = []hsm.KeyKind{hsm.RSA2048Sign, hsm.P256Sign, hsm.P384Sign, hsm.P521Sign, hsm.Secp256k1Sign, hsm.Ed25519Sign}

// requireDataPair demands that Go and OpenSSL read the private key and find the public one to belong to it.
func requireDataPair(t *testing.T, kind hsm.KeyKind, pair hsm.DataPair) {
	t.Helper()
	public, err := publickey.Parse(pair.Public)
	require.NoError(t, err)
	require.Equal(t, kinds[kind].spec, public.Spec())
	if kind != hsm.Secp256k1Sign { // which Go does not know
		private, err := x509.ParsePKCS8PrivateKey(pair.Private)
		require.NoError(t, err)
		again, err := x509.MarshalPKCS8PrivateKey(private)
		require.NoError(t, err)
		require.Equal(t, again, pair.Private, "%s: another encoding", kind)
		der, err := x509.MarshalPKIXPublicKey(private.(crypto.Signer).Public())
		require.NoError(t, err)
		require.Equal(t, der, pair.Public)
	}
	file := filepath.Join(t.TempDir(), "key.der")
	require.NoError(t, os.WriteFile(file, pair.Private, 0o600))
	out, err := exec.Command("openssl", "pkey", "-inform", "DER", "-in", file, "-check", "-noout").CombinedOutput()
	require.NoError(t, err, "%s: %s", kind, out)
	out, err = exec.Command("openssl", "pkey", "-inform", "DER", "-in", file, "-pubout", "-outform", "DER").Output()
	require.NoError(t, err)
	require.Equal(t, pair.Public, out, "%s", kind)
}

// TestDataPairs makes pairs in every way that SoftHSM, or a make that can do less, has.
func TestDataPairs(t *testing.T) {
	r := newRig(t, options{})
	w := newWitness(t, r.soft)
	defer w.close()
	for _, kind := range dataKinds {
		before := len(w.find())
		first, err := r.token.GenerateDataPair(t.Context(), kind)
		require.NoError(t, err, kind)
		requireDataPair(t, kind, first)
		second, err := r.token.GenerateDataPair(t.Context(), kind)
		require.NoError(t, err, kind)
		requireDataPair(t, kind, second)
		require.NotEqual(t, first, second)
		require.Len(t, w.find(), before, "%s: something was left on the token", kind)
		way, _ := r.token.dataWays.Load(kind)
		require.Equal(t, map[bool]string{true: "wrapped", false: "read"}[kind != hsm.Ed25519Sign], dataWays[way.(int)].name)
	}
	for _, kind := range []hsm.KeyKind{hsm.AES256, hsm.HMAC256, hsm.RSA2048Decrypt, hsm.RSA2048Import, hsm.P256Derive, hsm.MLDSA44Sign, "DES", ""} {
		_, err := r.token.GenerateDataPair(t.Context(), kind)
		require.Equal(t, hsm.Unsupported, hsm.ClassOf(err), "%s: %v", kind, err)
	}
}

// TestDataPairsOfPoorTokens has tokens that give keys out in other ways, or not at all.
func TestDataPairsOfPoorTokens(t *testing.T) {
	for name, c := range map[string]struct {
		rule, way string
		strict    bool
		kinds     []hsm.KeyKind
	}{
		"no known key": {"C_CreateObject rv=0x54", "read", true, []hsm.KeyKind{hsm.P256Sign, hsm.P521Sign, hsm.Secp256k1Sign, hsm.Ed25519Sign}},
		"KWP":          {"C_WrapKey emulate=wrap_kwp", "wrapped", true, []hsm.KeyKind{hsm.RSA2048Sign, hsm.P384Sign}},
		"no pairs":     {"C_GenerateKeyPair rv=0x70", "in_process", false, []hsm.KeyKind{hsm.RSA2048Sign, hsm.P256Sign, hsm.P384Sign, hsm.Ed25519Sign}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, options{strict: c.strict})
			r.fault.Set(c.rule)
			for _, kind := range c.kinds {
				pair, err := r.token.GenerateDataPair(t.Context(), kind)
				require.NoError(t, err, kind)
				requireDataPair(t, kind, pair)
				way, _ := r.token.dataWays.Load(kind)
				require.Equal(t, c.way, dataWays[way.(int)].name)
			}
		})
	}
	t.Run("strict", func(t *testing.T) {
		r := newRig(t, options{strict: true})
		r.fault.Set("C_GenerateKeyPair rv=0x70")
		_, err := r.token.GenerateDataPair(t.Context(), hsm.P256Sign)
		require.Equal(t, hsm.Unsupported, hsm.ClassOf(err), "%v", err)
	})
}

// TestTryDataPair holds what is told of pairs to what becomes of them, with tokens that make few of them or none.
func TestTryDataPair(t *testing.T) {
	all := append([]hsm.KeyKind{hsm.RSA4096Sign, hsm.AES256, hsm.RSA3072Decrypt, hsm.P256Derive, hsm.MLDSA44Sign, ""}, dataKinds...)
	for name, c := range map[string]struct {
		rules  []string
		strict bool
		can    []hsm.KeyKind
	}{
		"sound":                   {nil, true, []hsm.KeyKind{hsm.RSA2048Sign, hsm.RSA4096Sign, hsm.P256Sign, hsm.P384Sign, hsm.P521Sign, hsm.Secp256k1Sign, hsm.Ed25519Sign}},
		"no pairs":                {[]string{"C_GenerateKeyPair rv=0x70"}, false, []hsm.KeyKind{hsm.RSA2048Sign, hsm.RSA4096Sign, hsm.P256Sign, hsm.P384Sign, hsm.P521Sign, hsm.Ed25519Sign}},
		"no pairs, strict":        {[]string{"C_GenerateKeyPair rv=0x70", "C_UnwrapKey rv=0x70"}, true, nil},
		"no known key, strict":    {[]string{"C_CreateObject rv=0x54"}, true, []hsm.KeyKind{hsm.P256Sign, hsm.P384Sign, hsm.P521Sign, hsm.Secp256k1Sign, hsm.Ed25519Sign}},
		"nothing wraps, strict":   {[]string{"C_WrapKey rv=0x70"}, true, []hsm.KeyKind{hsm.P256Sign, hsm.P384Sign, hsm.P521Sign, hsm.Secp256k1Sign, hsm.Ed25519Sign}},
		"nothing is read, strict": {[]string{"C_WrapKey rv=0x70", "C_GetAttributeValue rv=0x11"}, true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, options{strict: c.strict})
			w := newWitness(t, r.soft)
			defer w.close()
			before := len(w.find())
			r.fault.Set(c.rules...)
			for _, kind := range all {
				err := r.token.TryDataPair(t.Context(), kind)
				require.Equal(t, slices.Contains(c.can, kind), err == nil, "%s: %v", kind, err)
				require.True(t, err == nil || hsm.ClassOf(err) == hsm.Unsupported, "%s: %v", kind, err)
				if kind != hsm.RSA4096Sign { // which takes long
					_, made := r.token.GenerateDataPair(t.Context(), kind)
					require.Equal(t, hsm.ClassOf(err), hsm.ClassOf(made), "%s: %v", kind, made)
				}
			}
			require.Len(t, w.find(), before, "something was left on the token")
		})
	}
}

// TestDataPairOfLostToken must not change the way for good.
func TestDataPairOfLostToken(t *testing.T) {
	r := newRig(t, options{})
	_, err := r.token.Support(t.Context(), hsm.P256Sign)
	require.NoError(t, err)
	r.fault.Set("C_WrapKey rv=0x30")
	_, err = r.token.GenerateDataPair(t.Context(), hsm.P256Sign)
	require.Equal(t, hsm.TokenGone, hsm.ClassOf(err), "%v", err)
	r.fault.Clear()
	r.healed()
	_, err = r.token.GenerateDataPair(t.Context(), hsm.P256Sign)
	require.NoError(t, err)
	way, _ := r.token.dataWays.Load(hsm.P256Sign)
	require.Zero(t, way)
}

func TestKeyUnwrap(t *testing.T) {
	block, err := aes.NewCipher(bytes.Repeat([]byte{7}, 32))
	require.NoError(t, err)
	for n := 16; n < 90; n++ {
		key := bytes.Repeat([]byte{byte(n)}, n)
		for format, wrapped := range map[hsm.WrapFormat][]byte{hsm.WrapKWP: keyWrapPadded(block, key), hsm.WrapPKCS7: keyWrapPKCS7(block, key)} {
			for i := range wrapped {
				bad := bytes.Clone(wrapped)
				bad[i] ^= 1
				got, err := keyUnwrap(block, format, bad)
				require.False(t, err == nil && bytes.Equal(key, got), fmt.Sprint(format, n, i))
				if format == hsm.WrapKWP {
					require.Error(t, err)
				}
			}
			got, err := keyUnwrap(block, format, wrapped)
			require.NoError(t, err)
			require.Equal(t, key, got)
		}
	}
	for _, size := range []int{0, 8, 16, 25} {
		_, err := keyUnwrap(block, hsm.WrapKWP, make([]byte, size))
		require.Error(t, err)
	}
}
