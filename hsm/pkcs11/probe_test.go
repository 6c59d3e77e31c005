package pkcs11

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
)

// probe runs Probe on the token under test.
func (r *rig) probe(scope Scope) *Capabilities {
	r.t.Helper()
	caps, err := r.module.Probe(r.t.Context(), options{}.token(), scope)
	require.NoError(r.t, err)
	return caps
}

// requireNothingLeft checks that no session is open and no object is on the token, of whatever kind.
func (r *rig) requireNothingLeft() {
	r.t.Helper()
	require.Equal(r.t, r.seen.total("C_OpenSession"), r.seen.total("C_CloseSession"))
	require.Equal(r.t, 0, r.seen.failed("C_CloseSession", hsm.SessionDead))
	require.Empty(r.t, r.allObjects())
}

// allObjects finds the token's objects and the session objects of the whole process.
func (r *rig) allObjects() []uint {
	r.t.Helper()
	info, err := r.module.find(label, "")
	require.NoError(r.t, err)
	s, err := r.module.openSession(info.Slot)
	require.NoError(r.t, err)
	defer s.close()
	require.NoError(r.t, s.login(pin))
	found, err := s.find(nil)
	require.NoError(r.t, err)
	var handles []uint
	for _, handle := range found {
		handles = append(handles, uint(handle))
	}
	return handles
}

// details gives the details of the checks that have one, by "key: name".
func (c *Capabilities) details(works bool) map[string]string {
	details := map[string]string{}
	for _, k := range c.Checks {
		if k.Works == works && (!works || k.Detail != "") {
			details[k.Key+": "+k.Name] = k.Detail
		}
	}
	return details
}

var (
	rsaAlgorithms = []string{
		"RSAES_OAEP_SHA_1", "RSASSA_PSS_SHA_256", "RSASSA_PSS_SHA_384", "RSASSA_PSS_SHA_512",
		"RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PKCS1_V1_5_SHA_384", "RSASSA_PKCS1_V1_5_SHA_512",
	}
	// softKeySpecs are what SoftHSM 2.6.1 can carry.
	softKeySpecs = []KeySpec{
		{"SYMMETRIC_DEFAULT", []string{"SYMMETRIC_DEFAULT"}},
		{"RSA_2048", rsaAlgorithms},
		{"RSA_3072", rsaAlgorithms},
		{"RSA_4096", rsaAlgorithms},
		{"ECC_NIST_P256", []string{"ECDSA_SHA_256", "ECDH"}},
		{"ECC_NIST_P384", []string{"ECDSA_SHA_384", "ECDH"}},
		{"ECC_NIST_P521", []string{"ECDSA_SHA_512", "ECDH"}},
		{"ECC_SECG_P256K1", []string{"ECDSA_SHA_256"}},
		{"ECC_NIST_EDWARDS25519", []string{"ED25519_SHA_512"}},
		{"HMAC_224", []string{"HMAC_SHA_224"}},
		{"HMAC_256", []string{"HMAC_SHA_256"}},
		{"HMAC_384", []string{"HMAC_SHA_384"}},
		{"HMAC_512", []string{"HMAC_SHA_512"}},
		{"ML_DSA_44", []string{}},
		{"ML_DSA_65", []string{}},
		{"ML_DSA_87", []string{}},
		{"SM2", []string{}},
	}
	// softWrappable are the kinds that SoftHSM 2.6.1 wraps: not Ed25519.
	softWrappable = []string{"AES_256", "GENERIC_SECRET", "RSA_2048", "ECC_NIST_P256"}
)

// softFailures are what SoftHSM 2.6.1 cannot do, and how it says so.
func softFailures() map[string]string {
	const notTried = "not tried: it needs what failed before"
	failures := map[string]string{
		"AES_256_WRAP: CKM_AES_KEY_WRAP of ECC_NIST_EDWARDS25519":     "C_WrapKey 0x69",
		"AES_256_WRAP: CKM_AES_KEY_WRAP_PAD of ECC_NIST_EDWARDS25519": "C_WrapKey 0x69",
		"ECC_NIST_EDWARDS25519: ED25519_PH_SHA_512":                   "the token signs pure Ed25519 instead",
		"SM2: generate": "not tried: PKCS#11 has no standard mechanism for it",
		"SM2: SM2DSA":   notTried,
		"SM2: SM2PKE":   notTried,
	}
	for _, kind := range append(slices.Clone(softWrappable), "ECC_NIST_EDWARDS25519") {
		failures["AES_256_WRAP: CKM_AES_KEY_WRAP_KWP of "+kind] = "C_WrapKey 0x70"
	}
	for _, key := range []string{"RSA_2048", "RSA_3072", "RSA_4096"} {
		failures[key+": RSAES_OAEP_SHA_256"] = "C_DecryptInit 0x7"
		failures[key+": unwrap RSAES_OAEP_SHA_256"] = "C_UnwrapKey 0x7"
		failures[key+": unwrap RSA_AES_KEY_WRAP_SHA_1"] = "C_UnwrapKey 0x70"
		failures[key+": unwrap RSA_AES_KEY_WRAP_SHA_256"] = "C_UnwrapKey 0x70"
	}
	for _, key := range []string{"ML_DSA_44", "ML_DSA_65", "ML_DSA_87"} {
		failures[key+": generate"] = "C_GenerateKeyPair 0x70"
		failures[key+": ML_DSA_SHAKE_256"] = notTried
	}
	return failures
}

func TestProbeAll(t *testing.T) {
	r := newModule(t, options{})
	caps := r.probe(ProbeAll)
	require.Equal(t, label, caps.Token.Label)
	require.Equal(t, Limits{MinPIN: 4, MaxPIN: 255}, caps.Limits)
	require.Equal(t, GCM{IV: IVCaller, Forged: "C_Decrypt 0x5", MaxPlaintext: hsm.MaxPlaintext}, caps.GCM)
	require.True(t, caps.Copy)
	require.Equal(t, []Wrap{
		{"CKM_AES_KEY_WRAP", 40, "AES-KW", softWrappable},
		{"CKM_AES_KEY_WRAP_PAD", 40, hsm.WrapKWP, softWrappable},
		{Mechanism: "CKM_AES_KEY_WRAP_KWP"},
	}, caps.Wraps)
	require.Equal(t, softKeySpecs, caps.KeySpecs)
	require.Equal(t, softFailures(), caps.details(false))

	remarks := caps.details(true)
	for key, detail := range remarks {
		if strings.Contains(key, "_WRAP of RSA_2048") || strings.Contains(key, "_PAD of RSA_2048") {
			require.Regexp(t, "^12[0-9]{2} bytes$", detail) // the length of the PKCS#8 varies
			delete(remarks, key)
		}
	}
	require.Equal(t, map[string]string{
		"SYMMETRIC_DEFAULT: IV mode of AES-GCM":                "caller",
		"SYMMETRIC_DEFAULT: altered tag refused":               "C_Decrypt 0x5",
		"SYMMETRIC_DEFAULT: altered ciphertext refused":        "C_Decrypt 0x5",
		"SYMMETRIC_DEFAULT: altered AAD refused":               "C_Decrypt 0x5",
		"SYMMETRIC_DEFAULT: altered IV refused":                "C_Decrypt 0x5",
		"AES_256_WRAP: CKM_AES_KEY_WRAP of AES_256":            "40 bytes, AES-KW",
		"AES_256_WRAP: CKM_AES_KEY_WRAP of GENERIC_SECRET":     "40 bytes",
		"AES_256_WRAP: CKM_AES_KEY_WRAP of ECC_NIST_P256":      "80 bytes",
		"AES_256_WRAP: CKM_AES_KEY_WRAP_PAD of AES_256":        "40 bytes, AES-KWP",
		"AES_256_WRAP: CKM_AES_KEY_WRAP_PAD of GENERIC_SECRET": "40 bytes",
		"AES_256_WRAP: CKM_AES_KEY_WRAP_PAD of ECC_NIST_P256":  "80 bytes",
	}, remarks)
	require.Len(t, caps.Checks, 99)
	r.requireNothingLeft()
}

// TestProbeAES looks at the smaller scope: the same results for it, and no key pair.
func TestProbeAES(t *testing.T) {
	r := newModule(t, options{})
	caps := r.probe(ProbeAES)
	require.Equal(t, ProbeAES, caps.Scope)
	require.Equal(t, GCM{IV: IVCaller, Forged: "C_Decrypt 0x5", MaxPlaintext: hsm.MaxPlaintext}, caps.GCM)
	require.Equal(t, softKeySpecs[:1], caps.KeySpecs)
	require.Equal(t, []Wrap{
		{"CKM_AES_KEY_WRAP", 40, "AES-KW", softWrappable[:2]},
		{"CKM_AES_KEY_WRAP_PAD", 40, hsm.WrapKWP, softWrappable[:2]},
		{Mechanism: "CKM_AES_KEY_WRAP_KWP"},
	}, caps.Wraps)
	require.Zero(t, r.seen.total("C_GenerateKeyPair"))
	// The session's end would hide a key that was not destroyed.
	made := r.seen.failed("C_GenerateKey", "") + r.seen.failed("C_CreateObject", "") + r.seen.failed("C_UnwrapKey", "") + r.seen.failed("C_CopyObject", "")
	require.Equal(t, made, r.seen.failed("C_DestroyObject", ""))
	require.NotZero(t, made)
	r.requireNothingLeft()
}

// TestProbeBesideTraffic probes a token that serves requests.
func TestProbeBesideTraffic(t *testing.T) {
	r := newRig(t, options{profile: Profile{Sessions: 4}})
	ref := r.generate(hsm.KeyRequest{Kind: hsm.AES256})
	alone := r.probe(ProbeAES)
	before := r.allObjects()

	ctx, stop := context.WithCancel(t.Context())
	failures := make(chan error, 4)
	var traffic sync.WaitGroup
	for range cap(failures) {
		traffic.Go(func() {
			for ctx.Err() == nil {
				if err := r.useOnce(ref); err != nil {
					failures <- err
					return
				}
			}
		})
	}
	for range 20 {
		require.Equal(t, alone, r.probe(ProbeAES))
	}
	stop()
	traffic.Wait()
	require.Empty(t, failures)
	require.ElementsMatch(t, before, r.allObjects())
	require.NoError(t, r.token.Check(t.Context()))
}

// useOnce encrypts, decrypts and has a forgery refused.
func (r *rig) useOnce(ref hsm.KeyRef) error {
	sealed, err := r.token.Encrypt(r.t.Context(), hsm.Sealing{Key: ref}, []byte("data"))
	if err != nil {
		return err
	}
	o := hsm.Opening{Key: ref, Sealed: sealed}
	if _, err := r.token.Decrypt(r.t.Context(), o); err != nil {
		return err
	}
	o.AAD[0] ^= 1
	if _, err := r.token.Decrypt(r.t.Context(), o); hsm.ClassOf(err) != hsm.BadInput {
		return fmt.Errorf("forgery: %w", err)
	}
	return nil
}

// TestProbeOtherMakes probes what the fault module makes of SoftHSM.
func TestProbeOtherMakes(t *testing.T) {
	r := newModule(t, options{})
	tests := map[string]struct {
		rules []string
		mode  IVMode
		wraps []hsm.WrapFormat
		// failures that SoftHSM does not have
		failures map[string]string
	}{
		"IV in place": {rules: []string{"* emulate=iv_in_place"}, mode: IVInPlace, wraps: []hsm.WrapFormat{"AES-KW", hsm.WrapKWP, ""}},
		"IV appended": {rules: []string{"* emulate=iv_appended"}, mode: IVAppended, wraps: []hsm.WrapFormat{"AES-KW", hsm.WrapKWP, ""}},
		"KWP under its own name": {
			rules: []string{"* emulate=wrap_kwp"}, mode: IVCaller, wraps: []hsm.WrapFormat{"AES-KW", "", hsm.WrapKWP},
		},
		// The fault module imitates PKCS#7 padding by its length only, which must be noticed.
		"a length that lies": {
			rules: []string{"* emulate=wrap_pkcs7"}, mode: IVCaller, wraps: []hsm.WrapFormat{"AES-KW", "", ""},
			failures: map[string]string{"AES_256_WRAP: CKM_AES_KEY_WRAP_PAD of AES_256": "not AES-KW-PKCS7 as its length says"},
		},
		"no copies": {
			rules: []string{"C_CopyObject rv=0x54"}, mode: IVCaller, wraps: []hsm.WrapFormat{"AES-KW", hsm.WrapKWP, ""},
			failures: map[string]string{"SYMMETRIC_DEFAULT: C_CopyObject": "C_CopyObject 0x54"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r.fault.Set(test.rules...)
			defer r.fault.Clear()
			caps := r.probe(ProbeAES)
			require.Equal(t, test.mode, caps.GCM.IV)
			require.Equal(t, softKeySpecs[:1], caps.KeySpecs)
			require.Equal(t, name != "no copies", caps.Copy)
			var formats []hsm.WrapFormat
			for _, w := range caps.Wraps {
				formats = append(formats, w.Format)
			}
			require.Equal(t, test.wraps, formats)
			failures := caps.details(false)
			maps.DeleteFunc(failures, func(_, detail string) bool { return detail == "C_WrapKey 0x70" })
			if test.failures == nil {
				test.failures = map[string]string{}
			}
			require.Equal(t, test.failures, failures)
			r.requireNothingLeft()
		})
	}
}

// TestProbeWithoutKnownKey has a token that neither takes nor shows a secret key, as in FIPS mode.
func TestProbeWithoutKnownKey(t *testing.T) {
	r := newModule(t, options{})
	r.fault.Set("C_CreateObject rv=0x63", "C_GetAttributeValue rv=0x11")
	caps := r.probe(ProbeAES)
	require.Equal(t, softKeySpecs[:1], caps.KeySpecs, "what cannot be compared is not wrong")
	require.Equal(t, errNoKnownKey.Error(), caps.details(false)["SYMMETRIC_DEFAULT: AES-GCM equals Go's"])
	require.Equal(t, "40 bytes, AES-KWP by its length", caps.details(true)["AES_256_WRAP: CKM_AES_KEY_WRAP_PAD of AES_256"])

	r.fault.Set("C_CreateObject rv=0x63")
	caps = r.probe(ProbeAES)
	require.NotContains(t, caps.details(false), "SYMMETRIC_DEFAULT: AES-GCM equals Go's")
	require.Equal(t, "40 bytes, AES-KWP", caps.details(true)["AES_256_WRAP: CKM_AES_KEY_WRAP_PAD of AES_256"])
	r.requireNothingLeft()
}

// TestProbeBrokenGCM has no KeySpec for a token on which AES-GCM does not work.
func TestProbeBrokenGCM(t *testing.T) {
	r := newModule(t, options{})
	for rule, detail := range map[string]string{
		"C_EncryptInit rv=0x70": "caller: C_EncryptInit 0x70; in_place: C_EncryptInit 0x70; appended: C_EncryptInit 0x70",
		"C_Decrypt rv=0x6":      "caller: C_Decrypt 0x6; in_place: ",
	} {
		r.fault.Set(rule)
		caps := r.probe(ProbeAES)
		require.Equal(t, GCM{}, caps.GCM, rule)
		require.Equal(t, []KeySpec{{"SYMMETRIC_DEFAULT", []string{}}}, caps.KeySpecs, rule)
		failures := caps.details(false)
		require.True(t, strings.HasPrefix(failures["SYMMETRIC_DEFAULT: IV mode of AES-GCM"], detail), failures)
		require.Equal(t, errNotTried.Error(), failures["SYMMETRIC_DEFAULT: altered tag refused"], rule)
	}
	r.fault.Clear()
	r.requireNothingLeft()
}

// TestProbeKeyForEachUse has a token that takes no key with several uses.
func TestProbeKeyForEachUse(t *testing.T) {
	r := newModule(t, options{})
	// Three pairs are made to be wrapped; the next two attempts are for RSA_2048.
	r.fault.Set("C_GenerateKeyPair rv=0xd1 skip=3 count=2")
	caps := r.probe(ProbeAll)
	require.Equal(t, softKeySpecs, caps.KeySpecs)
	require.Equal(t, "a key for each use", caps.details(true)["RSA_2048: generate"])
	r.requireNothingLeft()
}

// TestProbeTemplateFallback has a token that refuses attributes which are not needed.
func TestProbeTemplateFallback(t *testing.T) {
	r := newModule(t, options{})
	r.fault.Set("C_GenerateKeyPair rv=0x12 every=2", "C_GenerateKey rv=0x12 every=2", "C_CreateObject rv=0x13 every=2", "C_UnwrapKey rv=0x12 every=2")
	caps := r.probe(ProbeAll)
	require.Equal(t, softKeySpecs, caps.KeySpecs)
	require.Equal(t, softFailures(), caps.details(false))
}

func TestProbeRefusedPIN(t *testing.T) {
	r := newModule(t, options{})
	cfg, asked := options{}.token(), 0
	cfg.PIN = func() ([]byte, error) { asked++; return []byte("not the PIN"), nil }
	_, err := r.module.Probe(t.Context(), cfg, ProbeAll)
	require.Equal(t, hsm.LoginFailed, hsm.ClassOf(err))
	require.Equal(t, 1, asked)
	require.Equal(t, 1, r.fault.Calls("C_Login"))
	require.Zero(t, r.seen.total("C_GenerateKey"))
	r.requireNothingLeft()
}

// TestProbeBarred does not try a PIN that the token refused to a Token of this process.
func TestProbeBarred(t *testing.T) {
	r := newRig(t, options{})
	r.module.mu.Lock()
	r.token.barred = &hsm.Error{Class: hsm.LoginFailed}
	r.module.mu.Unlock()
	logins := r.fault.Calls("C_Login")
	_, err := r.module.Probe(t.Context(), options{}.token(), ProbeAES)
	require.Equal(t, hsm.LoginFailed, hsm.ClassOf(err))
	require.Equal(t, logins, r.fault.Calls("C_Login"))
}

func TestProbeUnknownToken(t *testing.T) {
	r := newModule(t, options{})
	_, err := r.module.Probe(t.Context(), TokenConfig{Label: "none", PIN: pin}, ProbeAll)
	require.Equal(t, hsm.TokenGone, hsm.ClassOf(err))
	require.Zero(t, r.fault.Calls("C_Login"))
}

// TestProbeTokenLost tells the loss of a token from a capability that it lacks.
func TestProbeTokenLost(t *testing.T) {
	for name, rules := range map[string][]string{
		"lost at once":     {"C_OpenSession rv=0x30"},
		"lost after login": {"C_OpenSession rv=0x30 skip=1"},
		"lost on the way":  {"C_Decrypt rv=0x30", "C_GenerateRandom rv=0x30"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newModule(t, options{})
			r.fault.Set(rules...)
			_, err := r.module.Probe(t.Context(), options{}.token(), ProbeAll)
			require.Equal(t, hsm.TokenGone, hsm.ClassOf(err), "%v", err)
			require.Equal(t, r.seen.failed("C_OpenSession", ""), r.seen.total("C_CloseSession"))
			r.fault.Clear()
			require.Empty(t, r.allObjects())
		})
	}
}

// canceller is a source of randomness that ends a context after some reads.
type canceller struct {
	cancel func()
	left   int
}

func (c *canceller) Read(b []byte) (int, error) {
	if c.left--; c.left == 0 {
		c.cancel()
	}
	return rand.Read(b)
}

func TestProbeCancelled(t *testing.T) {
	r := newModule(t, options{})
	for _, reads := range []int{1, 5, 20, 40} {
		ctx, cancel := context.WithCancel(t.Context())
		cfg := options{}.token()
		cfg.Rand = &canceller{cancel, reads}
		caps, err := r.module.Probe(ctx, cfg, ProbeAll)
		require.ErrorIs(t, err, context.Canceled)
		require.Nil(t, caps)
		r.requireNothingLeft()
	}
}

// TestProbeWithoutRandomness does not take a fault of this process for one of the token.
func TestProbeWithoutRandomness(t *testing.T) {
	r := newModule(t, options{})
	cfg := options{}.token()
	cfg.Rand = io.LimitReader(rand.Reader, 1000)
	_, err := r.module.Probe(t.Context(), cfg, ProbeAES)
	require.ErrorIs(t, err, io.EOF)
	r.requireNothingLeft()
}

func TestWriteTable(t *testing.T) {
	free := uint64(1024)
	caps := &Capabilities{
		Token:    TokenInfo{Slot: 3, Label: "one", Serial: "77", Manufacturer: "Maker", Model: "Box", Firmware: "1.2"},
		Limits:   Limits{MaxSessions: 8, MinPIN: 4, MaxPIN: 32, FreePrivateMemory: &free},
		GCM:      GCM{IV: IVInPlace, MaxPlaintext: 4096},
		Wraps:    []Wrap{{"CKM_A", 40, hsm.WrapKWP, []string{"AES_256", "RSA_2048"}}, {Mechanism: "CKM_B"}},
		KeySpecs: []KeySpec{{"SYMMETRIC_DEFAULT", []string{"SYMMETRIC_DEFAULT"}}, {"SM2", nil}},
		Checks:   []Check{{"SM2", "generate", false, "C_GenerateKeyPair 0x70"}, {"HMAC_224", "generate", true, "fine"}},
	}
	var out bytes.Buffer
	require.NoError(t, caps.WriteTable(&out))
	require.Equal(t, `token              one (serial 77, slot 3)
make               Maker Box, firmware 1.2
sessions           8, read-write unlimited or not reported
PIN length         4 to 32 bytes
free memory        public not reported, private 1024 bytes
AES-GCM IV mode    in_place
forged ciphertext  -
largest plaintext  4096 bytes
CKM_A              AES-KWP AES_256 RSA_2048
CKM_B              -

KEY SPEC           ALGORITHMS OF THE TOKEN
SYMMETRIC_DEFAULT  SYMMETRIC_DEFAULT
SM2                -

KEY       CHECK     WORKS  DETAIL
SM2       generate  no     C_GenerateKeyPair 0x70
HMAC_224  generate  yes    fine
`, out.String())
	require.ErrorIs(t, caps.WriteTable(brokenWriter{}), errBroken)
}

var errBroken = errors.New("broken")

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func TestCapabilitiesJSON(t *testing.T) {
	free := uint64(0)
	caps := Capabilities{
		Scope: ProbeAES, GCM: GCM{IV: IVCaller, Forged: "C_Decrypt 0x40", MaxPlaintext: 6144}, Copy: true,
		Limits:   Limits{MaxRWSessions: 9, FreePublicMemory: &free},
		Wraps:    []Wrap{{"CKM_A", 48, hsm.WrapPKCS7, []string{"AES_256"}}},
		KeySpecs: []KeySpec{{"SM2", []string{}}},
		Checks:   []Check{{Key: "SM2", Name: "generate", Detail: "C_GenerateKeyPair 0x70"}},
	}
	text, err := json.Marshal(caps)
	require.NoError(t, err)
	require.JSONEq(t, `{
		"token": {"slot": 0, "label": "", "serial": "", "manufacturer": "", "model": "", "firmware": "", "initialized": false, "pinSet": false},
		"limits": {"maxRwSessions": 9, "freePublicMemory": 0},
		"scope": "aes",
		"gcm": {"ivMode": "caller", "forged": "C_Decrypt 0x40", "maxPlaintext": 6144},
		"copyObject": true,
		"wraps": [{"mechanism": "CKM_A", "bytes": 48, "format": "AES-KW-PKCS7", "kinds": ["AES_256"]}],
		"keySpecs": [{"keySpec": "SM2", "algorithms": []}],
		"checks": [{"key": "SM2", "name": "generate", "works": false, "detail": "C_GenerateKeyPair 0x70"}]
	}`, string(text))
}
