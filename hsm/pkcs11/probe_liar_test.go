package pkcs11

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/asn1"
	"testing"

	p11 "github.com/miekg/pkcs11"
	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
)

// prober opens a prober on the token under test, past the search for the IV mode.
func (r *rig) prober() *prober {
	r.t.Helper()
	info, err := r.module.find(label, "")
	require.NoError(r.t, err)
	p := &prober{ctx: r.t.Context(), m: r.module, rand: rand.Reader, caps: &Capabilities{Token: info, GCM: GCM{IV: IVCaller}}}
	require.NoError(r.t, p.open(options{}.token()))
	p.work.keys.token.cfg.Profile.IV = IVCaller
	r.t.Cleanup(p.close)
	return p
}

func (p *prober) mustPair(t *testing.T, s template) pair {
	t.Helper()
	made, err := p.generatePair(s)
	require.NoError(t, err)
	return made
}

func (p *prober) mustSecret(t *testing.T, k secret) p11.ObjectHandle {
	t.Helper()
	handle, err := p.generateSecret(k)
	require.NoError(t, err)
	return handle
}

// TestProbeNoticesWrongResults gives the checks keys that do not belong together, so that the token reports success and the
// result is wrong.
func TestProbeNoticesWrongResults(t *testing.T) {
	r := newModule(t, options{})
	p := r.prober()
	mixed := func(s template) pair {
		return pair{public: p.mustPair(t, s).public, private: p.mustPair(t, s).private}
	}
	rsaPair, ed := mixed(rsaSpec(2048)), pair{}
	for _, half := range []*p11.ObjectHandle{&ed.public, &ed.private} {
		made, err := p.generateEd25519(ed25519Template)
		require.NoError(t, err)
		*half = made.public
		if half == &ed.private {
			*half = made.private
		}
	}
	k := &rsaKeys{bits: 2048, pairs: pairs{p11.CKA_SIGN: rsaPair, p11.CKA_DECRYPT: rsaPair, p11.CKA_UNWRAP: rsaPair}}
	tests := map[string]check{
		"PKCS1":          k.pkcs1(rsaSHA256),
		"PSS":            k.pss(rsaSHA256),
		"raw RSA":        k.raw,
		"OAEP":           k.oaep(rsaSHA1),
		"OAEP unwrap":    k.unwraps(rsaSHA1, k.oaepWrapped),
		"wrapped RSA":    func(p *prober) (string, error) { return "", p.signsRSA(rsaPair) },
		"Ed25519":        func(p *prober) (string, error) { return "", p.signsEd25519(ed) },
		"Ed25519ph":      func(p *prober) (string, error) { return "", p.signsEd25519ph(ed) },
		"another length": (&rsaKeys{bits: 3072, pairs: k.pairs}).pkcs1(rsaSHA256),
		"no such use":    (&rsaKeys{bits: 2048, pairs: pairs{}}).pkcs1(rsaSHA256),
	}
	for _, c := range curves {
		made := mixed(c.spec())
		tests[c.keySpec] = c.signs(pairs{p11.CKA_SIGN: made})
		if c.ecdh != nil {
			tests["ECDH "+c.keySpec] = c.agrees(pairs{p11.CKA_DERIVE: made})
		}
	}
	for name, test := range tests {
		_, err := test(p)
		require.Error(t, err, name)
		require.NoError(t, p.renew(), name)
	}
}

// TestProbeNoticesOtherSecrets does the same with secret keys.
func TestProbeNoticesOtherSecrets(t *testing.T) {
	r := newModule(t, options{})
	p := r.prober()
	aesKey := secret{keyType: p11.CKK_AES, size: aesKeySize, uses: []uint{p11.CKA_ENCRYPT, p11.CKA_DECRYPT}, extractable: true}
	macKey := secret{keyType: p11.CKK_GENERIC_SECRET, size: 32, uses: []uint{p11.CKA_SIGN}}
	a, b := p.mustSecret(t, aesKey), p.mustSecret(t, aesKey)
	require.NoError(t, p.sameAES(a, a))
	require.Error(t, p.sameAES(a, b))
	require.ErrorIs(t, p.encryptsAsGo(a, make([]byte, aesKeySize)), errWrongResult)

	c, d := p.mustSecret(t, macKey), p.mustSecret(t, macKey)
	require.NoError(t, p.sameMAC(c, c))
	require.ErrorIs(t, p.sameMAC(c, d), errWrongResult)

	_, err := (&aesKeys{key: loadedKey{handle: a}}).copy(p)
	require.ErrorContains(t, err, "extractable")
	p.caps.GCM.IV = ""
	require.ErrorIs(t, p.sameAES(a, a), errNotTried)
	require.ErrorIs(t, p.encryptsAsGo(a, make([]byte, aesKeySize)), errNotTried)
}

// TestProbeOtherSpellings has a token that wants the second of two ways to say a thing.
func TestProbeOtherSpellings(t *testing.T) {
	r := newModule(t, options{})
	p := r.prober()

	r.fault.Set("C_GenerateKeyPair rv=0x70 count=1")
	made, err := p.generateEd25519(ed25519Template)
	require.NoError(t, err, "the curve by its OID")
	require.NoError(t, p.signsEd25519(made))

	r.fault.Set("C_GenerateKeyPair rv=0xd1")
	_, err = pairs{}.generate(p, curves[0].spec())
	require.Equal(t, "C_GenerateKeyPair 0xd1", describe(err))
	_, err = p.unwrap(nil, 0, nil, nil, nil)
	require.ErrorContains(t, err, "empty")
}

// TestProbeDerives has the token agree with Go, in both spellings of a point, and refuse what is no point.
func TestProbeDerives(t *testing.T) {
	r := newModule(t, options{})
	p := r.prober()
	made := p.mustPair(t, curves[0].spec())
	other, err := ecdh.P256().GenerateKey(rand.Reader)
	require.NoError(t, err)
	key, err := p.ecKey(made.public, "ECC_NIST_P256")
	require.NoError(t, err)
	public, err := ecdh.P256().NewPublicKey(key.Point())
	require.NoError(t, err)
	want, err := other.ECDH(public)
	require.NoError(t, err)
	bare := other.PublicKey().Bytes()
	der, err := asn1.Marshal(bare)
	require.NoError(t, err)
	for _, spelling := range [][]byte{bare, der} {
		_, err = p.derives(made.private, spelling, want)
		require.NoError(t, err)
		_, err = p.derives(made.private, spelling, make([]byte, 32))
		require.ErrorIs(t, err, errWrongResult)
	}
	_, err = p.derives(made.private, bare[:64], want)
	require.Equal(t, "C_DeriveKey 0x5", describe(err))
}

// TestProbeMACWithoutKnownKey lets the token vouch for itself where it leaves no other way.
func TestProbeMACWithoutKnownKey(t *testing.T) {
	r := newModule(t, options{})
	p := r.prober()
	h := macHashes[1]
	k := secret{keyType: p11.CKK_GENERIC_SECRET, size: 32, uses: []uint{p11.CKA_SIGN, p11.CKA_VERIFY}}
	generated := p.mustSecret(t, k)
	r.fault.Set("C_CreateObject rv=0x63", "C_GenerateKey rv=0xd1")
	detail, err := h.macs(p, k, generated)
	require.NoError(t, err)
	require.Equal(t, errNoKnownKey.Error(), detail)
	for _, function := range []string{"C_SignInit", "C_Sign"} {
		r.fault.Set(function + " rv=0x70")
		_, err := h.macs(p, k, generated)
		require.Equal(t, function+" 0x70", describe(err))
		r.fault.Clear()
		require.NoError(t, p.renew())
	}
	signs := k
	signs.uses = []uint{p11.CKA_SIGN}
	_, err = h.macs(p, signs, p.mustSecret(t, signs))
	require.Equal(t, "C_VerifyInit 0x68", describe(err))
	err = p.verify(mechanismOf(h.mechanism, nil), generated, []byte("message"), make([]byte, 32))
	require.Equal(t, "C_Verify 0xc0", describe(err))
	wrong := h
	wrong.hash = macHashes[2].hash
	_, err = wrong.macs(p, k, generated)
	require.ErrorIs(t, err, errWrongResult)
}

// TestProbeNoticesForgeries has a token that accepts what it should refuse, or fails for another reason.
func TestProbeNoticesForgeries(t *testing.T) {
	r := newModule(t, options{})
	p := r.prober()
	k := &aesKeys{}
	_, err := k.generate(p)
	require.NoError(t, err)
	alter := func(o *hsm.Opening) { o.AAD[0] ^= 1 }
	detail, err := k.refuses(alter)(p)
	require.NoError(t, err)
	require.Equal(t, "C_Decrypt 0x5", detail)

	_, err = k.refuses(func(*hsm.Opening) {})(p)
	require.ErrorContains(t, err, "accepted")
	r.fault.Set("C_Decrypt rv=0x70")
	_, err = k.refuses(alter)(p)
	require.Equal(t, "C_Decrypt 0x70", describe(err), "a refusal for want of the mechanism proves nothing")
}

// TestProbeNoticesLostKeys ends the probing when the session is lost that holds the keys, for every result would be wrong.
func TestProbeNoticesLostKeys(t *testing.T) {
	r := newModule(t, options{})
	p := r.prober()
	require.NoError(t, p.renew())
	require.NoError(t, p.m.ctx.CloseSession(p.anchor.handle))
	require.Equal(t, hsm.SessionDead, hsm.ClassOf(p.renew()))
}
