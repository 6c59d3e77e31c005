package pkcs11

import (
	"encoding/hex"
	"testing"

	p11 "github.com/miekg/pkcs11"
	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
)

// TestKindsHaveOneUse reads the table: a key that signs and decrypts could be made to do one by asking for the other.
func TestKindsHaveOneUse(t *testing.T) {
	pairs := map[uint]uint{p11.CKA_ENCRYPT: p11.CKA_DECRYPT, p11.CKA_WRAP: p11.CKA_UNWRAP, p11.CKA_UNWRAP: p11.CKA_DECRYPT}
	for name, k := range kinds {
		if k.temporary {
			require.LessOrEqual(t, len(k.uses), 1, name)
			continue
		}
		require.NotEmpty(t, k.uses, name)
		if len(k.uses) > 1 {
			require.Equal(t, []uint{k.uses[0], pairs[k.uses[0]]}, k.uses, name)
		}
		require.NotZero(t, k.size, name)
		for _, a := range k.algorithms {
			signs, macs := signers[a].mechanism != 0, macs[a] != 0
			require.Equal(t, k.uses[0] == p11.CKA_SIGN, signs || macs, "%s %s", name, a)
		}
	}
}

// TestTemplates has the attributes of every kind: each exactly once, none that gives a key away.
func TestTemplates(t *testing.T) {
	for name, k := range kinds {
		for form := range k.forms {
			must, may := template{kind: name, form: form, id: []byte{1}}.booleans()
			said := map[uint]uint{}
			for _, f := range append(must, may...) {
				require.NotContains(t, said, f[0], name)
				said[f[0]] = f[1]
			}
			require.Equal(t, uint(1), said[p11.CKA_SENSITIVE], name)
			require.Equal(t, uint(1), said[p11.CKA_PRIVATE], name)
			require.Zero(t, said[p11.CKA_EXTRACTABLE], name)
			for _, use := range k.uses {
				require.Equal(t, uint(1), said[use], name)
				delete(said, use)
			}
			for _, use := range secretUses {
				require.Zero(t, said[use], name)
			}
			require.LessOrEqual(t, len(must)+len(may)+len((template{kind: name}).numbers()), 24, "see MAX_ATTRIBUTES")
		}
	}
}

func TestCheckWrapped(t *testing.T) {
	for _, c := range []struct {
		kind hsm.KeyKind
		size int
		fits bool
	}{
		{hsm.AES256, 40, true}, {hsm.AES256, 32, false}, {hsm.AES256, 1224, false}, {hsm.HMAC224, 40, true}, {hsm.HMAC224, 80, false},
		{hsm.HMAC512, 72, true}, {hsm.HMAC512, 40, false}, {hsm.P256Sign, 80, true}, {hsm.P256Sign, 24, false}, {hsm.P256Sign, 1224, false},
		{hsm.RSA2048Sign, 1224, true}, {hsm.RSA4096Decrypt, 2384, true}, {hsm.RSA2048Sign, 2384, false}, {hsm.RSA4096Sign, 80, false},
		{hsm.RSA2048Sign, 1225, false}, {"DES", 40, false},
	} {
		err := checkWrapped(hsm.KeyRef{Kind: c.kind, Wrapped: make([]byte, c.size), WrapFormat: hsm.WrapKWP})
		require.Equal(t, c.fits, err == nil, "%s of %d bytes: %v", c.kind, c.size, err)
	}
}

// TestMLDSAPublic compares with the beginnings of the example keys of RFC 9881, appendix C.3. No token here makes such keys.
func TestMLDSAPublic(t *testing.T) {
	for spec, want := range map[string]struct {
		size  int
		begin string
	}{
		"ML_DSA_44": {1312, "30820532300b06096086480165030403110382052100"},
		"ML_DSA_65": {1952, "308207b2300b0609608648016503040312038207a100"},
		"ML_DSA_87": {2592, "30820a32300b060960864801650304031303820a2100"},
	} {
		der, err := mldsaPublic(spec, make([]byte, want.size))
		require.NoError(t, err)
		require.Equal(t, want.begin, hex.EncodeToString(der[:22]))
		_, err = mldsaPublic(spec, make([]byte, want.size-1))
		require.Error(t, err)
		require.Len(t, der, 22+want.size)
	}
	r := newRig(t, options{})
	for _, kind := range []hsm.KeyKind{hsm.MLDSA44Sign, hsm.MLDSA65Sign, hsm.MLDSA87Sign} {
		support, err := r.token.Support(t.Context(), kind)
		require.NoError(t, err)
		require.Empty(t, support.Algorithms)
		_, err = r.token.GenerateKey(t.Context(), hsm.KeyRequest{Kind: kind})
		require.Equal(t, hsm.Unsupported, hsm.ClassOf(err), "%v", err)
	}
}
