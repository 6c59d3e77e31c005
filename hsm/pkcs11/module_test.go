package pkcs11

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	p11 "github.com/miekg/pkcs11"
	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/hsm/hsmtest"
)

// TestOpenModuleRefused has libraries that cannot be worked with. The error must name the library.
func TestOpenModuleRefused(t *testing.T) {
	list := "#include <stdlib.h>\nunsigned long C_GetFunctionList(void **list) { *list = calloc(1, 4096); return 0; }\n"
	for name, c := range map[string]struct{ source, text string }{
		"no C_GetFunctionList":      {"int other;\n", "not a PKCS#11 module"},
		"C_GetFunctionList refuses": {"unsigned long C_GetFunctionList(void **list) { return 5; }\n", "no usable C_GetFunctionList"},
		"a new instance each time":  {list, "separate instance"},
	} {
		t.Run(name, func(t *testing.T) {
			source, library := filepath.Join(t.TempDir(), "module.c"), filepath.Join(t.TempDir(), "module.so")
			require.NoError(t, os.WriteFile(source, []byte(c.source), 0o600))
			out, err := exec.Command("cc", "-shared", "-fPIC", "-o", library, source).CombinedOutput()
			require.NoError(t, err, "%s", out)
			_, err = OpenModule(ModuleConfig{Path: library})
			require.ErrorContains(t, err, c.text)
			require.ErrorContains(t, err, library)
		})
	}
	for name, path := range map[string]string{"no file": filepath.Join(t.TempDir(), "none.so"), "no library": "module_test.go"} {
		_, err := OpenModule(ModuleConfig{Path: path})
		require.ErrorContains(t, err, path, name)
	}
}

func TestOpenModuleFails(t *testing.T) {
	fault := hsmtest.NewFault(t, newSoft(t))
	fault.Set("C_Initialize rv=0x5 count=1")
	_, err := OpenModule(ModuleConfig{Path: fault.Module})
	require.Equal(t, hsm.Failed, hsm.ClassOf(err), "%v", err)
	require.ErrorContains(t, err, fault.Module)
	m, err := OpenModule(ModuleConfig{Path: fault.Module})
	require.NoError(t, err)
	fault.Set("C_Finalize rv=0x190 when=after") // gone already, which is what Close wants
	require.NoError(t, m.Close())
	require.NoError(t, m.Close())
	require.Equal(t, 1, fault.Calls("C_Finalize"))
}

// TestAfterClose must not crash: a request may be late.
func TestAfterClose(t *testing.T) {
	r := newRig(t, options{})
	ref := r.generate(hsm.KeyRequest{Kind: hsm.AES256})
	o := r.seal(ref, []byte("data"))
	require.NoError(t, r.module.Close())
	for method, request := range r.requests(ref, o) {
		require.Equal(t, hsm.TokenGone, hsm.ClassOf(request(t.Context())), method)
	}
	_, err := r.module.Tokens()
	require.Equal(t, hsm.TokenGone, hsm.ClassOf(err))
	_, err = r.module.OpenToken(options{}.token())
	require.Equal(t, hsm.TokenGone, hsm.ClassOf(err))
}

func TestTokens(t *testing.T) {
	r := newModule(t, options{})
	infos, err := r.module.Tokens()
	require.NoError(t, err)
	require.Len(t, infos, 2) // SoftHSM always has one more
	for _, i := range infos {
		require.Equal(t, i.Label == label, i.Initialized)
		require.Contains(t, i.Manufacturer, "SoftHSM")
		require.Zero(t, i.MaxSessions)
	}
	_, err = r.module.OpenToken(TokenConfig{Label: "unknown", PIN: pin})
	require.Equal(t, hsm.TokenGone, hsm.ClassOf(err))
	require.ErrorContains(t, err, "unknown")
	_, err = r.module.OpenToken(TokenConfig{Label: label, Serial: "1234", PIN: pin})
	require.Equal(t, hsm.TokenGone, hsm.ClassOf(err))
	_, err = r.module.OpenToken(TokenConfig{PIN: pin})
	require.Equal(t, hsm.TokenGone, hsm.ClassOf(err), "the token that is not initialised")
	require.Zero(t, r.fault.Calls("C_Login"))

	r.fault.Set("C_GetTokenInfo rv=0xE0 count=1") // that token went away meanwhile
	infos, err = r.module.Tokens()
	require.NoError(t, err)
	require.Len(t, infos, 1)
}

func TestInitToken(t *testing.T) {
	r := newModule(t, options{})
	so, user := []byte(hsmtest.SOPIN), []byte(hsmtest.PIN)
	require.NoError(t, r.module.InitToken("made here", so, user))
	token, err := r.module.OpenToken(TokenConfig{Label: "made here", PIN: pin})
	require.NoError(t, err)
	_, err = token.GenerateKey(t.Context(), hsm.KeyRequest{Kind: hsm.AES256})
	require.NoError(t, err)
	for _, taken := range []string{label, "made here"} {
		initialised := r.fault.Calls("C_InitToken")
		require.ErrorContains(t, r.module.InitToken(taken, so, user), "exists already")
		require.Equal(t, initialised, r.fault.Calls("C_InitToken"))
	}
	require.NoError(t, token.Check(t.Context()))
}

// TestTokensOfOneLabel has two tokens that only their serials tell apart.
func TestTokensOfOneLabel(t *testing.T) {
	r := newModule(t, options{})
	r.soft.Token(t, label)
	require.NoError(t, r.module.reopen(true)) // for SoftHSM to see the second token
	_, err := r.module.OpenToken(options{}.token())
	require.ErrorContains(t, err, "2 tokens have the label")
	infos, err := r.module.Tokens()
	require.NoError(t, err)
	tokens := 0
	for _, i := range infos {
		if i.Label != label {
			continue
		}
		token, err := r.module.OpenToken(TokenConfig{Label: label, Serial: i.Serial, PIN: pin})
		require.NoError(t, err)
		objects, err := token.Objects(t.Context())
		require.NoError(t, err)
		require.Empty(t, objects, "the other token's objects are seen")
		_, err = token.GenerateKey(t.Context(), hsm.KeyRequest{Kind: hsm.AES256})
		require.NoError(t, err)
		tokens++
	}
	require.Equal(t, 2, tokens)
}

func TestInitTokenFails(t *testing.T) {
	r := newModule(t, options{})
	for _, rule := range []string{
		"C_GetSlotList rv=0x30", "C_InitToken rv=0x30", "C_OpenSession rv=0x30", "C_Login rv=0x30", "C_InitPIN rv=0x30", "C_Logout rv=0x30",
	} {
		r.fault.Set(rule)
		err := r.module.InitToken("made: "+rule, []byte(hsmtest.SOPIN), []byte(hsmtest.PIN))
		require.Equal(t, hsm.TokenGone, hsm.ClassOf(err), "%s: %v", rule, err)
		require.NotContains(t, err.Error(), hsmtest.PIN)
		require.NotContains(t, err.Error(), hsmtest.SOPIN)
		r.fault.Clear()
	}
	require.Equal(t, r.fault.Calls("C_OpenSession"), r.fault.Calls("C_CloseSession")+1, "only the one that could not be opened")
}

func TestLookupProfile(t *testing.T) {
	generic, err := LookupProfile("")
	require.NoError(t, err)
	require.Equal(t, Profile{Name: "generic", Sessions: 8, IV: IVCaller, KeyCache: 4096}, generic)
	for _, name := range []string{"generic", "softhsm", "luna", "cloudhsm", "nshield"} {
		p, err := LookupProfile(name)
		require.NoError(t, err)
		require.Equal(t, name, p.Name)
		require.Positive(t, p.Sessions)
		require.Positive(t, p.KeyCache)
		require.Contains(t, emulations, p.IV)
	}
	_, err = LookupProfile("abacus")
	require.ErrorContains(t, err, "abacus")
	require.Equal(t, generic, Profile{}.complete())
	require.Equal(t, 5, Profile{Name: "luna", Sessions: 5}.complete().Sessions)
}

func TestSessionLimit(t *testing.T) {
	for limit, want := range map[uint]int{0: 0, 1: 1, 1024: 1024, ^uint(0): 0, ^uint(1): 0, 1<<20 + 1: 0} {
		require.Equal(t, want, sessionLimit(p11.TokenInfo{MaxRwSessionCount: limit}))
	}
}

func TestErrors(t *testing.T) {
	for _, code := range []uint{p11.CKR_GENERAL_ERROR, p11.CKR_FUNCTION_FAILED, 0x80000001} {
		require.Equal(t, hsm.Failed, failure("C_Decrypt", code).Class, "these say nothing")
	}
	require.NoError(t, failed("C_Sign", nil))
	require.NoError(t, result("C_Sign", p11.CKR_OK))
	plain := errors.New("plain")
	for _, err := range []error{failed("C_Sign", plain), reclassed(plain, hsm.Failed), ofSource(plain)} {
		require.Equal(t, hsm.Failed, hsm.ClassOf(err))
		require.ErrorIs(t, err, plain)
	}
	gone := failed("C_Sign", p11.Error(p11.CKR_DEVICE_ERROR))
	require.Equal(t, "token: token_gone: C_Sign returned 0x30", gone.Error())
	require.True(t, isCode(gone, 1, p11.CKR_DEVICE_ERROR))
	require.False(t, isCode(gone, 1))
	require.False(t, isCode(plain, 0))
	var e *hsm.Error
	require.ErrorAs(t, ofSource(gone), &e)
	require.True(t, e.Source)
	require.Equal(t, uint(p11.CKR_DEVICE_ERROR), e.Code)
	require.ErrorAs(t, gone, &e)
	require.False(t, e.Source, "an error that others may hold was changed")
}

func TestFormatOf(t *testing.T) {
	for size, want := range map[int]hsm.WrapFormat{40: hsm.WrapKWP, 48: hsm.WrapPKCS7} {
		got, err := formatOf(make([]byte, size))
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, size := range []int{0, 16, 32, 39, 41, 56} {
		_, err := formatOf(make([]byte, size))
		require.Equal(t, hsm.Unsupported, hsm.ClassOf(err))
	}
}
