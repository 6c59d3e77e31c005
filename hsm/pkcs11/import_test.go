package pkcs11

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"
	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/hsm/hsmtest"
)

// material gives 32 random bytes.
func material() []byte {
	b := make([]byte, aesKeySize)
	_, _ = rand.Read(b) // never fails
	return b
}

// importOf asks for the import of fresh material.
func (r *rig) importOf(under hsm.KeyRef, wrap hsm.ImportWrap) hsm.ImportRequest {
	r.t.Helper()
	return hsm.ImportRequest{Under: under, Wrap: wrap, Material: hsmtest.EncryptMaterial(r.t, under.Public, wrap, material()), Kind: hsm.AES256}
}

// TestImportRoutes pins what SoftHSM can do, alone and behind a module that can do more or less. The suite, which takes
// the routes as they come, would not notice one that is lost.
func TestImportRoutes(t *testing.T) {
	type routes = map[hsm.ImportWrap]hsm.Route
	r := newModule(t, options{})
	for name, c := range map[string]struct {
		rules        []string
		with, strict routes
		edwards      []hsm.ImportWrap // of Ed25519, if not all of them: SoftHSM does not unwrap it
	}{
		"SoftHSM": {
			with:   routes{hsm.OAEPSHA1: hsm.OnToken, hsm.RSAAESSHA1: hsm.OnToken, hsm.OAEPSHA256: hsm.InProcess, hsm.RSAAESSHA256: hsm.InProcess},
			strict: routes{hsm.OAEPSHA1: hsm.OnToken, hsm.RSAAESSHA1: hsm.OnToken},
		},
		"OAEP with SHA-256": {
			rules:  []string{"C_UnwrapKey emulate=oaep_sha256"},
			with:   routes{hsm.OAEPSHA1: hsm.OnToken, hsm.RSAAESSHA1: hsm.OnToken, hsm.OAEPSHA256: hsm.OnToken, hsm.RSAAESSHA256: hsm.OnToken},
			strict: routes{hsm.OAEPSHA1: hsm.OnToken, hsm.RSAAESSHA1: hsm.OnToken, hsm.OAEPSHA256: hsm.OnToken, hsm.RSAAESSHA256: hsm.OnToken},
		},
		"takes any length for an AES-256 key": { // which makes 31 bytes another key than the caller's
			rules:  []string{"C_UnwrapKey emulate=oaep_fills"},
			with:   routes{hsm.OAEPSHA1: hsm.OnToken, hsm.RSAAESSHA1: hsm.OnToken, hsm.OAEPSHA256: hsm.InProcess, hsm.RSAAESSHA256: hsm.InProcess},
			strict: routes{hsm.OAEPSHA1: hsm.OnToken, hsm.RSAAESSHA1: hsm.OnToken},
		},
		"no AES-KWP": {
			rules:   []string{"C_UnwrapKey emulate=wrap_pkcs7"},
			with:    routes{hsm.OAEPSHA1: hsm.OnToken, hsm.OAEPSHA256: hsm.InProcess},
			strict:  routes{hsm.OAEPSHA1: hsm.OnToken},
			edwards: []hsm.ImportWrap{hsm.OAEPSHA1, hsm.OAEPSHA256},
		},
		"AES-KWP by its own name": {
			rules:  []string{"C_UnwrapKey emulate=wrap_kwp"},
			with:   routes{hsm.OAEPSHA1: hsm.OnToken, hsm.RSAAESSHA1: hsm.OnToken, hsm.OAEPSHA256: hsm.InProcess, hsm.RSAAESSHA256: hsm.InProcess},
			strict: routes{hsm.OAEPSHA1: hsm.OnToken, hsm.RSAAESSHA1: hsm.OnToken},
		},
		"no bare RSA": {
			rules:   []string{"C_DecryptInit rv=0x70"},
			with:    routes{hsm.OAEPSHA1: hsm.OnToken, hsm.RSAAESSHA1: hsm.OnToken},
			strict:  routes{hsm.OAEPSHA1: hsm.OnToken, hsm.RSAAESSHA1: hsm.OnToken},
			edwards: []hsm.ImportWrap{hsm.RSAAESSHA1},
		},
		"takes no keys": {
			rules:   []string{"C_CreateObject rv=0x54"},
			with:    routes{hsm.OAEPSHA1: hsm.OnToken, hsm.RSAAESSHA1: hsm.OnToken},
			strict:  routes{hsm.OAEPSHA1: hsm.OnToken, hsm.RSAAESSHA1: hsm.OnToken},
			edwards: []hsm.ImportWrap{},
		},
		"no key pairs":  {rules: []string{"C_GenerateKeyPair rv=0x70"}, with: routes{}, strict: routes{}, edwards: []hsm.ImportWrap{}},
		"no wrapping":   {rules: []string{"C_WrapKey rv=0x70"}, with: routes{}, strict: routes{}, edwards: []hsm.ImportWrap{}},
		"unwraps badly": {rules: []string{"C_EncryptInit rv=0x70"}, with: routes{}, strict: routes{}, edwards: []hsm.ImportWrap{hsm.OAEPSHA1, hsm.OAEPSHA256}},
	} {
		t.Run(name, func(t *testing.T) {
			r.fault.Set(c.rules...)
			defer r.fault.Clear()
			for strict, want := range map[bool]routes{false: c.with, true: c.strict} {
				r.open(options{strict: strict})
				got, err := r.token.ImportRoutes(t.Context(), hsm.AES256)
				require.NoError(t, err)
				require.Equal(t, want, got, "strict %v", strict)
				edwards := routes{}
				for _, wrap := range c.edwards {
					edwards[wrap] = hsm.InProcess
				}
				if c.edwards == nil {
					edwards = routes{hsm.OAEPSHA1: hsm.InProcess, hsm.RSAAESSHA1: hsm.InProcess, hsm.OAEPSHA256: hsm.InProcess, hsm.RSAAESSHA256: hsm.InProcess}
				}
				if strict {
					clear(edwards)
				}
				got, err = r.token.ImportRoutes(t.Context(), hsm.Ed25519Sign)
				require.NoError(t, err)
				require.Equal(t, edwards, got, "strict %v", strict)
				require.Empty(t, r.allObjects())
				if len(want) == 0 && name != "unwraps badly" { // for AES keys alone, that is
					_, err := r.token.GenerateKey(t.Context(), hsm.KeyRequest{Kind: hsm.RSA2048Import})
					require.Equal(t, hsm.Unsupported, hsm.ClassOf(err))
					require.Empty(t, r.allObjects())
				}
			}
		})
	}
}

// TestStrictOnToken refuses what would pass through the process, and gives keys no use for it.
func TestStrictOnToken(t *testing.T) {
	r := newRig(t, options{strict: true})
	under := r.generate(hsm.KeyRequest{Kind: hsm.RSA2048Import})
	w := newWitness(t, r.soft)
	defer w.close()
	raw, err := ckaID(under.ID)
	require.NoError(t, err)
	private := w.find(p11.NewAttribute(p11.CKA_ID, raw))
	require.Len(t, private, 1)
	require.True(t, w.boolean(private[0], p11.CKA_UNWRAP))
	require.False(t, w.boolean(private[0], p11.CKA_DECRYPT))
	for wrap, class := range map[hsm.ImportWrap]hsm.Class{
		hsm.OAEPSHA1: "", hsm.RSAAESSHA1: "", hsm.OAEPSHA256: hsm.Unsupported, hsm.RSAAESSHA256: hsm.Unsupported,
	} {
		_, err := r.token.ImportKey(t.Context(), r.importOf(under, wrap))
		require.Equal(t, class, hsm.ClassOf(err), "%s: %v", wrap, err)
	}
	require.Zero(t, r.fault.Calls("C_CreateObject"))
}

// TestImportPairIsClosed reads what a private key may do and show.
func TestImportPairIsClosed(t *testing.T) {
	r := newRig(t, options{})
	under := r.generate(hsm.KeyRequest{Kind: hsm.RSA2048Import, Label: "pair"})
	w := newWitness(t, r.soft)
	defer w.close()
	require.Len(t, w.find(), 1)
	raw, err := ckaID(under.ID)
	require.NoError(t, err)
	private := w.find(p11.NewAttribute(p11.CKA_ID, raw))
	require.Len(t, private, 1)
	for kind, want := range map[uint]bool{
		p11.CKA_TOKEN: true, p11.CKA_PRIVATE: true, p11.CKA_SENSITIVE: true, p11.CKA_EXTRACTABLE: false, p11.CKA_UNWRAP: true,
		p11.CKA_DECRYPT: true, p11.CKA_SIGN: false, p11.CKA_DERIVE: false, p11.CKA_ALWAYS_SENSITIVE: true, p11.CKA_NEVER_EXTRACTABLE: true,
	} {
		require.Equal(t, want, w.boolean(private[0], kind), "0x%x", kind)
	}
	for _, kind := range []uint{p11.CKA_PRIVATE_EXPONENT, p11.CKA_PRIME_1, p11.CKA_PRIME_2, p11.CKA_EXPONENT_1, p11.CKA_COEFFICIENT} {
		_, err := w.ctx.GetAttributeValue(w.session, private[0], []*p11.Attribute{p11.NewAttribute(kind, nil)})
		require.ErrorIs(t, err, p11.Error(p11.CKR_ATTRIBUTE_SENSITIVE), "0x%x", kind)
	}
}

// TestImportRoutesOnce has many callers ask at once, some of which do not wait.
func TestImportRoutesOnce(t *testing.T) {
	r := newRig(t, options{})
	r.fault.Set("C_GenerateKeyPair hang=1")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := r.token.ImportRoutes(ctx, hsm.AES256)
	require.Equal(t, hsm.Busy, hsm.ClassOf(err))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			routes, err := r.token.ImportRoutes(t.Context(), hsm.AES256)
			if err != nil || len(routes) != 4 {
				t.Errorf("%v, %v", routes, err)
			}
		})
	}
	r.fault.Clear()
	group.Wait()
	require.Equal(t, 1, r.fault.Calls("C_GenerateKeyPair"))
	r.token.epoch.Load().lose() // which does not change what the token can do
	r.healed()
	_, err = r.token.ImportRoutes(t.Context(), hsm.AES256)
	require.NoError(t, err)
	require.Equal(t, 1, r.fault.Calls("C_GenerateKeyPair"))
}

// TestImportRoutesOfLostToken has the token fail while it is tried, which must not be taken for what it can do.
func TestImportRoutesOfLostToken(t *testing.T) {
	r := newRig(t, options{})
	for _, rule := range []string{
		"C_GenerateKey rv=0x30", "C_WrapKey rv=0x30", "C_GenerateKeyPair rv=0x30", "C_GetAttributeValue rv=0x30", "C_UnwrapKey rv=0x30",
		"C_EncryptInit rv=0xE0", "C_Encrypt rv=0xB3", "C_DecryptInit rv=0x30", "C_Decrypt rv=0x30", "C_CreateObject rv=0x31",
		"C_UnwrapKey rv=0x82", "* rv=0x5",
	} {
		r.token.ways.Store(nil)
		r.fault.Set(rule)
		_, err := r.token.ImportRoutes(t.Context(), hsm.AES256)
		require.Error(t, err, rule)
		require.NotContains(t, []hsm.Class{hsm.Unsupported, hsm.BadInput, hsm.WrongMaterial}, hsm.ClassOf(err), "%s: %v", rule, err)
		r.fault.Clear()
		r.healed()
		routes, err := r.token.ImportRoutes(t.Context(), hsm.AES256)
		require.NoError(t, err, rule)
		require.Len(t, routes, 4, rule)
		require.Empty(t, r.allObjects(), rule)
	}
}

// TestImportRoutesAfterHiccup has one call fail once, with a code that says nothing of the token: that must not send material
// through the process until the next start.
func TestImportRoutesAfterHiccup(t *testing.T) {
	r := newRig(t, options{})
	want, err := r.token.ImportRoutes(t.Context(), hsm.AES256)
	require.NoError(t, err)
	edwards, err := r.token.ImportRoutes(t.Context(), hsm.Ed25519Sign)
	require.NoError(t, err)
	require.Len(t, edwards, 4)
	for _, function := range []string{
		"C_GenerateKey", "C_WrapKey", "C_GenerateKeyPair", "C_UnwrapKey", "C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt", "C_CreateObject",
	} {
		for skip, codes := range [][]uint{{0x2}, {0x5}, {0x2}} {
			for _, code := range codes {
				r.token.epoch.Load().lose() // the calls that failed may have left an operation behind
				r.healed()
				rule := fmt.Sprintf("%s rv=0x%x skip=%d count=1", function, code, skip)
				r.token.ways.Store(nil)
				r.fault.Set(rule)
				got, err := r.token.ImportRoutes(t.Context(), hsm.AES256)
				require.NoError(t, err, rule)
				require.Equal(t, want, got, rule)
				got, err = r.token.ImportRoutes(t.Context(), hsm.Ed25519Sign)
				require.NoError(t, err, rule)
				require.Equal(t, edwards, got, rule)
				require.Empty(t, r.allObjects(), rule)
			}
		}
	}
}

// TestImportFault has a token fail in the middle of imports of good material: that must not pass for bad material, nor may
// anything stay behind.
func TestImportFault(t *testing.T) {
	r := newRig(t, options{})
	under := r.generate(hsm.KeyRequest{Kind: hsm.RSA2048Import})
	domain := r.generate(hsm.KeyRequest{Kind: hsm.AES256Wrap}).ID
	before := r.allObjects()
	for _, c := range []struct {
		rule    string
		classes []hsm.Class
	}{
		{"C_UnwrapKey rv=0x30", []hsm.Class{hsm.TokenGone}},
		{"C_UnwrapKey rv=0x5", []hsm.Class{hsm.TokenGone}},
		{"C_UnwrapKey rv=0x6", []hsm.Class{hsm.TokenGone}},
		{"C_UnwrapKey rv=0x112", []hsm.Class{hsm.Failed}},
		{"C_UnwrapKey rv=0x70", []hsm.Class{hsm.Failed}},
		{"C_WrapKey rv=0x5", []hsm.Class{hsm.TokenGone}},
		{"C_WrapKey rv=0x69", []hsm.Class{hsm.Failed}},
		{"C_Encrypt rv=0x5", []hsm.Class{hsm.TokenGone}},
		{"C_EncryptInit rv=0x70", []hsm.Class{hsm.Failed}},
		{"C_GenerateKey rv=0x31", []hsm.Class{hsm.TokenFull}},
		{"C_UnwrapKey rv=0x31", []hsm.Class{hsm.TokenFull}},
	} {
		for _, wrap := range []hsm.ImportWrap{hsm.OAEPSHA1, hsm.RSAAESSHA256} {
			for _, home := range []hsm.KeyID{"", domain} {
				request := r.importOf(under, wrap)
				request.WrapUnder = home
				r.fault.Set(c.rule)
				_, err := r.token.ImportKey(t.Context(), request)
				r.fault.Clear()
				require.Contains(t, c.classes, hsm.ClassOf(err), "%s, %s: %v", c.rule, wrap, err)
				r.healed()
				require.Len(t, r.allObjects(), len(before), "%s, %s", c.rule, wrap)
			}
		}
	}
	for _, rule := range []string{"C_Decrypt rv=0x5", "C_Decrypt rv=0x30", "C_CreateObject rv=0x30"} {
		r.fault.Set(rule)
		_, err := r.token.ImportKey(t.Context(), r.importOf(under, hsm.OAEPSHA256))
		require.Equal(t, hsm.TokenGone, hsm.ClassOf(err), "%s: %v", rule, err)
		r.fault.Clear()
		r.healed()
		require.Len(t, r.allObjects(), len(before), rule)
	}
}

// TestImportStep has each single call of an import fail once, with every kind of code, in every way and both homes.
func TestImportStep(t *testing.T) {
	r := newRig(t, options{})
	under := r.generate(hsm.KeyRequest{Kind: hsm.RSA2048Import})
	domain := r.generate(hsm.KeyRequest{Kind: hsm.AES256Wrap}).ID
	loaded := r.generate(hsm.KeyRequest{Kind: hsm.AES256, WrapUnder: domain}) // and with it a copy of the wrapping key
	require.NoError(t, r.roundTrip(loaded))
	require.NoError(t, r.token.DestroyKey(t.Context(), loaded))
	before := r.allObjects()
	functions := []string{"C_GenerateKey", "C_UnwrapKey", "C_WrapKey", "C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt", "C_CreateObject", "C_CopyObject"}
	for _, wrap := range []hsm.ImportWrap{hsm.OAEPSHA1, hsm.RSAAESSHA256} {
		for _, home := range []hsm.KeyID{"", domain} {
			for _, function := range functions {
				for _, code := range []uint{0x5, 0x30, 0x82, 0xB3} {
					for skip := range 3 {
						request := r.importOf(under, wrap)
						request.WrapUnder = home
						rule := fmt.Sprintf("%s rv=0x%x skip=%d count=1", function, code, skip)
						r.fault.Set(rule)
						made, err := r.token.ImportKey(t.Context(), request)
						r.fault.Clear()
						r.healed()
						if err == nil {
							require.NoError(t, r.roundTrip(made.Key), rule)
							require.NoError(t, r.token.DestroyKey(t.Context(), made.Key), rule)
						} else {
							require.Zero(t, made)
							require.NotEqual(t, hsm.Unsupported, hsm.ClassOf(err), rule)
						}
						require.LessOrEqual(t, len(r.allObjects()), len(before), "%s, %s: %v", rule, wrap, err) // the copy may have gone
						require.Len(t, r.objects(), 2, "%s, %s: %v", rule, wrap, err)
					}
				}
			}
		}
	}
}

// TestImportNotRepeated loses the answer to the call that made the persistent object: it is not made twice.
func TestImportNotRepeated(t *testing.T) {
	r := newRig(t, options{})
	under := r.generate(hsm.KeyRequest{Kind: hsm.RSA2048Import})
	unwraps := r.fault.Calls("C_UnwrapKey")
	r.fault.Set("C_UnwrapKey rv=0x32 when=after skip=1")
	request := r.importOf(under, hsm.OAEPSHA1)
	request.Label = "orphan"
	_, err := r.token.ImportKey(t.Context(), request)
	require.Equal(t, hsm.TokenGone, hsm.ClassOf(err))
	require.Equal(t, unwraps+2, r.fault.Calls("C_UnwrapKey"))
	r.fault.Clear()
	r.healed()
	require.Len(t, r.objects(), 2)

	r.fault.Set("C_UnwrapKey rv=0x30 count=1") // but before that, it may be
	_, err = r.token.ImportKey(t.Context(), r.importOf(under, hsm.OAEPSHA1))
	require.NoError(t, err)
	require.Len(t, r.objects(), 3)

	key, err := newSample(hsm.Ed25519Sign) // of which the object is created
	require.NoError(t, err)
	_, err = r.token.Support(t.Context(), hsm.Ed25519Sign)
	require.NoError(t, err)
	creations := r.fault.Calls("C_CreateObject")
	r.fault.Set("C_CreateObject rv=0x32 when=after skip=1")
	_, err = r.token.ImportKey(t.Context(), hsm.ImportRequest{
		Under: under, Wrap: hsm.OAEPSHA1, Kind: hsm.Ed25519Sign, Label: "orphan", Material: hsmtest.EncryptMaterial(t, under.Public, hsm.OAEPSHA1, key.material),
	})
	require.Equal(t, hsm.TokenGone, hsm.ClassOf(err))
	require.Equal(t, creations+2, r.fault.Calls("C_CreateObject"))
	r.fault.Clear()
	r.healed()
	require.Len(t, r.objects(), 4)
}

// TestAbandonedImportIsDestroyed has the caller leave while the token works.
func TestAbandonedImportIsDestroyed(t *testing.T) {
	r := newRig(t, options{})
	under := r.generate(hsm.KeyRequest{Kind: hsm.RSA2048Import})
	request := r.importOf(under, hsm.OAEPSHA1)
	before, begun := r.allObjects(), r.fault.Calls("C_UnwrapKey")
	r.fault.Set("C_UnwrapKey hang=1")
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() { _, err := r.token.ImportKey(ctx, request); failed <- err }()
	r.eventually(func() bool { return r.fault.Calls("C_UnwrapKey") > begun })
	cancel()
	require.Equal(t, hsm.Busy, hsm.ClassOf(<-failed))
	r.fault.Clear()
	require.Len(t, r.objects(), 1) // waits behind it in the slow lane
	require.Len(t, r.allObjects(), len(before))
}

// TestImportPairFault has the making of key pairs fail.
func TestImportPairFault(t *testing.T) {
	r := newRig(t, options{})
	_, err := r.token.ImportRoutes(t.Context(), hsm.AES256)
	require.NoError(t, err)
	for rule, class := range map[string]hsm.Class{
		"C_GenerateKeyPair rv=0x31":           hsm.TokenFull,
		"C_GenerateKeyPair rv=0x30":           hsm.TokenGone,
		"C_GetAttributeValue rv=0x5 count=1":  hsm.Failed,
		"C_GetAttributeValue rv=0x12 count=1": hsm.Failed, // the public key is not shown
		"C_UnwrapKey rv=0x70":                 hsm.Unsupported,
		"C_DecryptInit rv=0x68":               hsm.Failed,
	} {
		r.fault.Set(rule)
		ref, err := r.token.GenerateKey(t.Context(), hsm.KeyRequest{Kind: hsm.RSA2048Import})
		require.Equal(t, class, hsm.ClassOf(err), "%s: %v", rule, err)
		require.Zero(t, ref)
		r.fault.Clear()
		r.healed()
		require.Empty(t, r.allObjects(), rule)
	}
	for _, code := range []uint{0x12, 0x13, 0xD1, 0x7} { // attributes that a token does not know
		r.fault.Set(fmt.Sprintf("C_GenerateKeyPair rv=0x%x count=1", code))
		r.generate(hsm.KeyRequest{Kind: hsm.RSA2048Import})
	}
}

// TestAbandonedPairIsDestroyed has the caller of GenerateKey leave.
func TestAbandonedPairIsDestroyed(t *testing.T) {
	r := newRig(t, options{})
	_, err := r.token.ImportRoutes(t.Context(), hsm.AES256)
	require.NoError(t, err)
	begun := r.fault.Calls("C_GenerateKeyPair")
	r.fault.Set("C_GenerateKeyPair hang=1")
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() { _, err := r.token.GenerateKey(ctx, hsm.KeyRequest{Kind: hsm.RSA2048Import}); failed <- err }()
	r.eventually(func() bool { return r.fault.Calls("C_GenerateKeyPair") > begun })
	cancel()
	require.Equal(t, hsm.Busy, hsm.ClassOf(<-failed))
	r.fault.Clear()
	require.Empty(t, r.objects())
	require.Empty(t, r.allObjects())
}

// TestImportStepOfKeys has single calls fail that only the import of other keys than AES keys makes: good material must not
// pass for wrong material, and nothing may stay behind.
func TestImportStepOfKeys(t *testing.T) {
	r := newRig(t, options{})
	under := r.generate(hsm.KeyRequest{Kind: hsm.RSA2048Import})
	before := r.allObjects()
	for kind, functions := range map[hsm.KeyKind][]string{
		hsm.P256Sign: {"C_Sign", "C_GetAttributeValue"}, hsm.HMAC256: {"C_DigestKey", "C_Sign"}, hsm.Ed25519Sign: {"C_Sign", "C_GetAttributeValue"},
	} {
		wrap := hsm.OAEPSHA1
		if kind == hsm.Ed25519Sign { // the process reads what is under an AES key
			wrap = hsm.RSAAESSHA1
		}
		_, err := r.token.Support(t.Context(), kind)
		require.NoError(t, err)
		for _, function := range functions {
			for _, code := range []uint{0x5, 0x30} {
				for skip := range 2 {
					key, err := newSample(kind)
					require.NoError(t, err)
					rule := fmt.Sprintf("%s rv=0x%x skip=%d count=1", function, code, skip)
					r.fault.Set(rule)
					made, err := r.token.ImportKey(t.Context(), hsm.ImportRequest{
						Under: under, Wrap: wrap, Kind: kind, Material: hsmtest.EncryptMaterial(t, under.Public, wrap, key.material),
					})
					r.fault.Clear()
					r.healed()
					if err == nil {
						require.Equal(t, fingerprint(nil, key.evidence), made.Fingerprint, rule)
						require.NoError(t, r.token.DestroyKey(t.Context(), made.Key), rule)
					}
					require.NotEqual(t, hsm.BadInput, hsm.ClassOf(err), "%s, %s: %v", kind, rule, err)
					require.Len(t, r.allObjects(), len(before), "%s, %s: %v", kind, rule, err)
				}
			}
		}
	}
}
