package pkcs11

import (
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/hsm/hsmtest"
)

// TestSuite runs on SoftHSM, and on what SoftHSM looks like behind a module that behaves as other makes of HSM do.
func TestSuite(t *testing.T) {
	small := []hsm.KeyKind{hsm.RSA2048Import} // the others take seconds to make
	quick := []hsm.KeyKind{
		hsm.RSA2048Sign, hsm.RSA2048Decrypt, hsm.P256Sign, hsm.P521Sign, hsm.Secp256k1Sign, hsm.Ed25519Sign, hsm.P256Derive, hsm.P384Derive,
		hsm.HMAC224, hsm.HMAC256, hsm.HMAC512,
	}
	for _, c := range []struct {
		name    string
		profile Profile
		rules   []string
		kinds   []hsm.KeyKind
	}{
		{"SoftHSM", Profile{}, nil, nil},
		{"IVInPlace-TokenHandles-OAEPSHA256", Profile{IV: IVInPlace, TokenHandles: true},
			[]string{"C_Encrypt emulate=iv_in_place", "C_UnwrapKey emulate=oaep_sha256"}, small},
		{"IVAppended-WrapPKCS7", Profile{IV: IVAppended}, []string{"C_Encrypt emulate=iv_appended", "C_WrapKey emulate=wrap_pkcs7"}, small},
		{"WrapKWP-NoCopyObject", Profile{}, []string{"C_WrapKey emulate=wrap_kwp", "C_CopyObject rv=0x54"}, small},
	} {
		for home, wrapped := range map[string]bool{"Token": false, "Wrapped": true} {
			t.Run(c.name+"/"+home, func(t *testing.T) {
				h := &host{soft: newSoft(t), profile: c.profile}
				h.path = h.soft.Module
				h.profile.Sessions, h.profile.KeyCache = 4, hsmtest.CacheKeys
				if c.rules != nil {
					fault := hsmtest.NewFault(t, h.soft)
					fault.Set(c.rules...)
					h.path = fault.Module
				}
				t.Cleanup(func() { require.NoError(t, h.module.Close()) })
				hsmtest.Run(t, hsmtest.Config{
					Open: h.open, Reopen: h.reopen, Attributes: h.attributes, Count: h.count, Wrapped: wrapped, ImportKinds: c.kinds,
					Kinds: map[bool][]hsm.KeyKind{true: quick}[c.kinds != nil],
				})
			})
		}
	}
}

// host has the token under test.
type host struct {
	soft    hsmtest.SoftHSM
	path    string
	profile Profile
	module  *Module
}

func (h *host) open(t *testing.T) hsm.Token {
	t.Helper()
	module, err := OpenModule(ModuleConfig{Path: h.path})
	require.NoError(t, err)
	h.module = module
	token, err := h.module.OpenToken(TokenConfig{Label: label, PIN: pin, Profile: h.profile})
	require.NoError(t, err)
	return token
}

func (h *host) reopen(t *testing.T) hsm.Token {
	t.Helper()
	require.NoError(t, h.module.Close())
	return h.open(t)
}

func (h *host) attributes(t *testing.T, id hsm.KeyID) []hsmtest.Attributes {
	t.Helper()
	w := newWitness(t, h.soft)
	defer w.close()
	return w.attributes(id)
}

func (h *host) count(t *testing.T) int {
	t.Helper()
	w := newWitness(t, h.soft)
	defer w.close()
	return len(w.find())
}
