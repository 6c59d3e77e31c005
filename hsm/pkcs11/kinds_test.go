package pkcs11

import (
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
