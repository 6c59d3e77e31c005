package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
)

// setup are the functions that belong to an epoch, not to a request.
var setup = []string{
	"C_Initialize", "C_Finalize", "C_GetSlotList", "C_GetTokenInfo", "C_OpenSession", "C_CloseSession", "C_GetSessionInfo",
	"C_Login", "C_Logout", "C_FindObjectsInit", "C_FindObjects", "C_FindObjectsFinal", "C_GetAttributeValue", "C_CopyObject",
	"C_UnwrapKey", "C_DestroyObject", "C_GenerateKey", "C_WrapKey",
}

// TestRequestsNeedNoSetup counts calls from both sides of the module's interface.
func TestRequestsNeedNoSetup(t *testing.T) {
	r := newRig(t, options{})
	for home, ref := range r.homes() {
		o := r.seal(ref, []byte("data"))
		before := r.counts(setup...)
		observed := map[string]int{}
		for _, f := range setup {
			observed[f] = r.seen.total(f)
		}
		for range 1000 {
			_, err := r.token.ReEncrypt(t.Context(), o, hsm.Sealing{Key: ref})
			require.NoError(t, err)
		}
		require.Equal(t, before, r.counts(setup...), home)
		for _, f := range setup {
			require.Equal(t, observed[f], r.seen.total(f), "%s %s", home, f)
		}
	}
	require.GreaterOrEqual(t, r.fault.Calls("C_Encrypt"), 2000)
}

// TestObserve compares what Observe is told with what the module saw.
func TestObserve(t *testing.T) {
	r := newRig(t, options{})
	for _, ref := range r.homes() {
		o := r.seal(ref, []byte("data"))
		r.requireOpens(o, []byte("data"))
		o.AAD[0] = 1
		_, err := r.token.Decrypt(t.Context(), o)
		require.Equal(t, hsm.BadInput, hsm.ClassOf(err))
		require.NoError(t, r.token.DestroyKey(t.Context(), ref))
	}
	r.objects()
	require.NoError(t, r.token.Check(t.Context()))
	for _, f := range append(slices.Clone(setup), "C_Encrypt", "C_Decrypt", "C_GenerateRandom") {
		if f == "C_WrapKey" || f == "C_FindObjects" || f == "C_GetAttributeValue" || f == "C_GetSlotList" {
			continue // the binding calls them several times
		}
		require.Equal(t, r.fault.Calls(f), r.seen.total(f), f)
	}
	require.Equal(t, 2, r.seen.failed("C_Decrypt", hsm.BadInput), "forgeries must not look like a broken token")
	require.Zero(t, r.seen.failed("C_Decrypt", hsm.Failed))
}

// TestSessionReplaced has one call fail in a way that spoils its session. The caller must not notice.
func TestSessionReplaced(t *testing.T) {
	r := newRig(t, options{})
	codes := []uint{0x30, 0x32, 0xB0, 0xB3, 0x90, 0x91, 0xE0, 0x101}
	functions := map[string][]string{
		"C_EncryptInit": {"Encrypt", "ReEncrypt"}, "C_Encrypt": {"Encrypt", "ReEncrypt"},
		"C_DecryptInit": {"Decrypt", "ReEncrypt"}, "C_Decrypt": {"Decrypt", "ReEncrypt"},
		"C_GenerateRandom": {"Random", "Check"},
	}
	for home, ref := range r.homes() {
		o := r.seal(ref, []byte("data"))
		for function, methods := range functions {
			for _, method := range methods {
				for _, code := range codes {
					r.requireReplaced(fmt.Sprintf("%s rv=0x%x count=1", function, code), home+" "+method, r.requests(ref, o)[method])
				}
			}
		}
	}
}

func (r *rig) requireReplaced(rule, name string, request func(context.Context) error) {
	r.t.Helper()
	before := r.counts("C_CloseSession", "C_OpenSession", "C_Login", "C_Initialize", "C_FindObjectsInit")
	r.fault.Set(rule)
	require.NoError(r.t, request(r.t.Context()), "%s: %s", name, rule)
	r.fault.Clear()
	before["C_CloseSession"]++
	before["C_OpenSession"]++
	require.Equal(r.t, before, r.counts("C_CloseSession", "C_OpenSession", "C_Login", "C_Initialize", "C_FindObjectsInit"), "%s: %s", name, rule)
}

// TestForgeryIsNoFault has forged ciphertexts, which SoftHSM answers with CKR_GENERAL_ERROR and nShield with
// CKR_FUNCTION_FAILED.
func TestForgeryIsNoFault(t *testing.T) {
	r := newRig(t, options{})
	for home, ref := range r.homes() {
		o := r.seal(ref, []byte("data"))
		forged := o
		forged.AAD[0] = 1
		for _, rule := range []string{"", "C_Decrypt rv=0x6 when=after count=1"} {
			before := r.counts(setup...)
			for range 50 {
				r.fault.Set(rule)
				_, err := r.token.Decrypt(t.Context(), forged)
				require.Equal(t, hsm.BadInput, hsm.ClassOf(err), "%s: %v", home, err)
				_, err = r.token.ReEncrypt(t.Context(), forged, hsm.Sealing{Key: ref})
				require.Equal(t, hsm.BadInput, hsm.ClassOf(err), "%s: %v", home, err)
			}
			r.fault.Clear()
			require.Equal(t, before, r.counts(setup...), home)
		}
		r.requireOpens(o, []byte("data"))
	}
}

// TestUnspecificFault has a token that answers everything with CKR_GENERAL_ERROR, which must not pass for a forgery.
func TestUnspecificFault(t *testing.T) {
	r := newRig(t, options{})
	ref := r.homes()["token"]
	o := r.seal(ref, []byte("data"))
	for _, rule := range []string{"C_Decrypt rv=0x5", "C_Decrypt rv=0x6"} {
		r.fault.Set(rule)
		_, err := r.token.Decrypt(t.Context(), o)
		require.Equal(t, hsm.TokenGone, hsm.ClassOf(err), "%v", err)
		r.fault.Clear()
		r.healed()
		r.requireOpens(o, []byte("data"))
	}
}

// TestStaleHandle has handles that the token does not know any more. They must be looked up anew.
func TestStaleHandle(t *testing.T) {
	r := newRig(t, options{profile: Profile{KeyCache: 1}})
	homes := r.homes()
	another := r.generate(hsm.KeyRequest{Kind: hsm.AES256})
	domain := homes["wrapped"].WrappedBy
	for _, c := range []struct{ home, rule string }{
		{"token", "C_EncryptInit rv=0x60 count=1"},
		{"token", "C_DecryptInit rv=0x60 count=1"},
		{"token", "C_EncryptInit rv=0x82 count=1"},
		{"token", "C_CopyObject rv=0x82 count=1"},
		{"wrapped", "C_EncryptInit rv=0x60 count=1"},
		{"wrapped", "C_DecryptInit rv=0x82 count=1"},
		{"wrapped", "C_UnwrapKey rv=0xF0 count=1"},
		{"wrapped", "C_UnwrapKey rv=0x82 count=1"},
	} {
		o := r.seal(homes[c.home], []byte("data"))
		r.seal(another, []byte("evicts the key from the cache of one"))
		searched := r.fault.Calls("C_FindObjectsInit")
		r.fault.Set(c.rule)
		_, err := r.token.ReEncrypt(t.Context(), o, hsm.Sealing{Key: o.Key})
		require.NoError(t, err, c.rule)
		require.Greater(t, r.fault.Calls("C_FindObjectsInit"), searched, c.rule)
	}
	for _, rule := range []string{"C_WrapKey rv=0x113 count=1", "C_WrapKey rv=0x82 count=1"} {
		r.fault.Set(rule)
		r.generate(hsm.KeyRequest{Kind: hsm.AES256, WrapUnder: domain})
	}
	r.fault.Set("C_DestroyObject rv=0x82 count=1")
	require.NoError(t, r.token.DestroyKey(t.Context(), another))
	require.Len(t, r.objects(), 2, "DestroyKey forgot the object instead of destroying it")
}

// TestAllHandlesStale logs the user out and in again behind the token's back, which makes all handles void.
func TestAllHandlesStale(t *testing.T) {
	r := newRig(t, options{})
	again := func() {
		w := newWitness(t, r.soft)
		require.NoError(t, w.ctx.Logout(w.session))
		require.NoError(t, w.ctx.Login(w.session, 1, "test-user-pin"))
		w.close()
	}
	for _, ref := range r.homes() {
		o := r.seal(ref, []byte("data"))
		again()
		r.requireOpens(o, []byte("data"))
		again()
		r.seal(ref, []byte("data"))
		again()
		require.NoError(t, r.token.DestroyKey(t.Context(), ref))
	}
	require.Len(t, r.objects(), 1, "only the domain key is left")
	require.Equal(t, 1, r.fault.Calls("C_Login"))
}

func TestCopyObjectUnsupported(t *testing.T) {
	r := newRig(t, options{})
	for i, code := range []string{"0x54", "0x31", "0x6", "0x13"} {
		r.fault.Set("C_CopyObject rv=" + code)
		ref := r.generate(hsm.KeyRequest{Kind: hsm.AES256})
		r.requireOpens(r.seal(ref, []byte("data")), []byte("data"))
		require.Equal(t, 1+i, r.fault.Calls("C_CopyObject"), "asked for again")
	}
}

// TestOptionalAttributes has a token that does not know some attributes.
func TestOptionalAttributes(t *testing.T) {
	r := newRig(t, options{})
	for _, code := range []uint{0x12, 0x13, 0xD1, 0x7} {
		r.fault.Set(fmt.Sprintf("C_GenerateKey rv=0x%x count=1", code))
		r.requireOpens(r.seal(r.generate(hsm.KeyRequest{Kind: hsm.AES256}), []byte("data")), []byte("data"))
	}
}

// TestOrphan loses the answer to a C_GenerateKey that was carried out.
func TestOrphan(t *testing.T) {
	r := newRig(t, options{})
	r.fault.Set("C_GenerateKey rv=0x32 when=after")
	_, err := r.token.GenerateKey(t.Context(), hsm.KeyRequest{Kind: hsm.AES256, Label: "orphan"})
	require.Equal(t, hsm.TokenGone, hsm.ClassOf(err))
	require.Equal(t, 1, r.fault.Calls("C_GenerateKey"), "a key was generated again")
	r.fault.Clear()
	r.healed()
	objects := r.objects()
	require.Len(t, objects, 1)
	require.Equal(t, "orphan", objects[0].Label)
	require.NoError(t, r.token.DestroyKey(t.Context(), hsm.KeyRef{ID: objects[0].ID, Kind: hsm.AES256}))
	require.Empty(t, r.objects())
}

// TestUselessKeyDestroyed makes keys that fail their first test.
func TestUselessKeyDestroyed(t *testing.T) {
	r := newRig(t, options{})
	domain := r.generate(hsm.KeyRequest{Kind: hsm.AES256Wrap}).ID
	for _, c := range []struct {
		rule    string
		request hsm.KeyRequest
	}{
		{"C_EncryptInit rv=0x70", hsm.KeyRequest{Kind: hsm.AES256}},
		{"C_Encrypt rv=0x6", hsm.KeyRequest{Kind: hsm.AES256}},
		{"C_Decrypt rv=0x6", hsm.KeyRequest{Kind: hsm.AES256}},
		{"C_EncryptInit rv=0x68", hsm.KeyRequest{Kind: hsm.AES256, WrapUnder: domain}},
		{"C_UnwrapKey rv=0x70", hsm.KeyRequest{Kind: hsm.AES256, WrapUnder: domain}},
		{"C_WrapKey rv=0x70", hsm.KeyRequest{Kind: hsm.AES256, WrapUnder: domain}},
		{"C_WrapKey rv=0x70", hsm.KeyRequest{Kind: hsm.AES256Wrap}},
	} {
		r.fault.Set(c.rule)
		ref, err := r.token.GenerateKey(t.Context(), c.request)
		require.Error(t, err, c.rule)
		require.Zero(t, ref)
		r.fault.Clear()
		require.Equal(t, []hsm.Object{{ID: domain}}, r.objects(), "%s", c.rule)
	}
}

// TestIncompleteList has the token fail in the middle of listing: a list with gaps would pass for keys lost.
func TestIncompleteList(t *testing.T) {
	r := newRig(t, options{})
	for range 3 {
		r.generate(hsm.KeyRequest{Kind: hsm.AES256})
	}
	for _, rule := range []string{
		"C_GetAttributeValue rv=0x30 skip=4 count=1", "C_GetAttributeValue rv=0x5 skip=4 count=1", "C_FindObjects rv=0x30 count=1",
		"C_FindObjectsInit rv=0x5 count=1", "C_FindObjects rv=0x5 skip=1 count=1",
	} {
		r.fault.Set(rule)
		objects, err := r.token.Objects(t.Context())
		if err == nil { // it was tried again
			require.Len(t, objects, 3, rule)
		}
		r.fault.Clear()
		r.healed()
		require.Len(t, r.objects(), 3, rule)
	}
}

// TestSpoiltWrapping has codes of C_UnwrapKey that would be a caller's fault if a C_Decrypt had returned them.
func TestSpoiltWrapping(t *testing.T) {
	r := newRig(t, options{})
	ref := r.homes()["wrapped"]
	for _, code := range []uint{0x20, 0x21, 0x40, 0x41, 0x110, 0x112, 0x5} {
		require.NoError(t, r.token.DestroyKey(t.Context(), ref)) // forgets it
		r.fault.Set(fmt.Sprintf("C_UnwrapKey rv=0x%x", code))
		_, err := r.token.Encrypt(t.Context(), hsm.Sealing{Key: ref}, []byte("data"))
		require.Equal(t, hsm.Failed, hsm.ClassOf(err), "%v", err)
		r.fault.Clear()
	}
}

// TestFaultsUnderLoad has sessions and the token lost again and again while requests go on.
func TestFaultsUnderLoad(t *testing.T) {
	r := newRig(t, options{profile: Profile{Sessions: 4, KeyCache: 2}})
	homes := []hsm.KeyRef{}
	for range 2 {
		for _, ref := range r.homes() {
			homes = append(homes, ref)
		}
	}
	r.fault.Set("C_Encrypt rv=0xB3 every=37", "C_DecryptInit rv=0x30 every=41", "C_OpenSession rv=0x30 every=5", "C_CopyObject rv=0x30 every=43")
	var group sync.WaitGroup
	failures := make(chan error, 8)
	for g := range cap(failures) {
		group.Go(func() {
			for i := range 150 {
				switch err := r.roundTrip(homes[(g+i)%len(homes)]); hsm.ClassOf(err) {
				case "", hsm.SessionDead:
				case hsm.TokenGone:
					time.Sleep(time.Millisecond) // or all requests were made while the token is down
				default:
					failures <- err
					return
				}
			}
		})
	}
	group.Wait()
	close(failures)
	for err := range failures {
		require.NoError(t, err)
	}
	r.fault.Clear()
	r.healed()
	require.Greater(t, r.fault.Calls("C_Login"), 1, "the token was never lost")
	for _, ref := range homes {
		require.NoError(t, r.roundTrip(ref))
	}
}

func (r *rig) roundTrip(ref hsm.KeyRef) error {
	sealed, err := r.token.Encrypt(r.t.Context(), hsm.Sealing{Key: ref}, []byte(ref.ID))
	if err != nil {
		return err
	}
	got, err := r.token.Decrypt(r.t.Context(), hsm.Opening{Key: ref, Sealed: sealed})
	if err != nil {
		return err
	}
	if string(got) != string(ref.ID) {
		return errors.New("the plaintext is another one")
	}
	return nil
}
