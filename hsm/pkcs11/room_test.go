package pkcs11

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/hsm/hsmtest"
)

// TestAbandonedKeyIsDestroyed has the caller of GenerateKey leave while the token makes the key.
func TestAbandonedKeyIsDestroyed(t *testing.T) {
	r := newRig(t, options{})
	domain := r.generate(hsm.KeyRequest{Kind: hsm.AES256Wrap})
	for _, under := range []hsm.KeyID{"", domain.ID} {
		r.fault.Set("C_GenerateKey delay_ms=200")
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err := r.token.GenerateKey(ctx, hsm.KeyRequest{Kind: hsm.AES256, WrapUnder: under})
		cancel()
		require.Equal(t, hsm.Busy, hsm.ClassOf(err))
		r.fault.Clear()
		r.eventually(func() bool { // Objects waits behind the abandoned task in the slow lane
			objects, err := r.token.Objects(t.Context())
			return err == nil && len(objects) == 1
		})
	}
}

// TestPairsHoldUpNoKey has many callers ask for key pairs, which take long, before somebody asks for a key.
func TestPairsHoldUpNoKey(t *testing.T) {
	r := newRig(t, options{})
	_, err := r.token.ImportRoutes(t.Context(), hsm.AES256)
	require.NoError(t, err)
	const pairs = 6
	before := r.fault.Calls("C_GenerateKeyPair")
	r.fault.Set("C_GenerateKeyPair hang=1")
	var group sync.WaitGroup
	for range pairs {
		group.Go(func() {
			if _, err := r.token.GenerateKey(t.Context(), hsm.KeyRequest{Kind: hsm.RSA2048Import}); err != nil {
				t.Errorf("making a pair: %v", err)
			}
		})
	}
	r.eventually(func() bool { return r.token.Usage().Waiting == pairs-1 })
	made := make(chan int, 1)
	go func() {
		_, err := r.token.GenerateKey(t.Context(), hsm.KeyRequest{Kind: hsm.AES256})
		if err != nil {
			t.Errorf("making a key: %v", err)
		}
		made <- r.fault.Calls("C_GenerateKeyPair")
	}()
	r.eventually(func() bool { return r.token.Usage().Waiting == pairs })
	r.fault.Clear()
	require.Less(t, <-made, before+pairs, "the key waited for all of them")
	group.Wait()
}

// TestMissHoldsUpNoRequest has a caller use a key that is not in the index, which has to wait until a key pair is made: that
// is no matter of the others.
func TestMissHoldsUpNoRequest(t *testing.T) {
	for home, ref := range map[string]hsm.KeyRef{
		"object":  {ID: "00000000000000000000000000000000", Kind: hsm.AES256},
		"wrapped": {ID: "00000000000000000000000000000001", Kind: hsm.AES256, Wrapped: make([]byte, 40), WrapFormat: hsm.WrapKWP, WrappedBy: "00000000000000000000000000000002"},
	} {
		t.Run(home, func(t *testing.T) {
			r := newRig(t, options{})
			_, err := r.token.ImportRoutes(t.Context(), hsm.AES256)
			require.NoError(t, err)
			hot := r.generate(hsm.KeyRequest{Kind: hsm.AES256})
			before := r.fault.Calls("C_GenerateKeyPair")
			r.fault.Set("C_GenerateKeyPair hang=1")
			made := make(chan error, 1)
			go func() {
				_, err := r.token.GenerateKey(t.Context(), hsm.KeyRequest{Kind: hsm.RSA2048Import})
				made <- err
			}()
			r.eventually(func() bool { return r.fault.Calls("C_GenerateKeyPair") > before })
			missed := make(chan error, 1)
			go func() {
				_, err := r.token.Encrypt(t.Context(), hsm.Sealing{Key: ref}, []byte("text"))
				missed <- err
			}()
			r.eventually(func() bool { return r.token.Usage().Waiting == 1 })
			require.NoError(t, r.roundTrip(hot))
			r.fault.Clear()
			require.NoError(t, <-made)
			require.Equal(t, hsm.KeyMissing, hsm.ClassOf(<-missed))
		})
	}
}

// TestPairsAwaitTheirTurnInTime has callers leave, and the token go, while they wait for the pair of another.
func TestPairsAwaitTheirTurnInTime(t *testing.T) {
	r := newRig(t, options{})
	_, err := r.token.ImportRoutes(t.Context(), hsm.AES256)
	require.NoError(t, err)
	e := r.token.epoch.Load()
	e.pairs <- struct{}{}
	request := hsm.KeyRequest{Kind: hsm.RSA2048Import}
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	ask := func(ctx context.Context) { _, err := r.token.GenerateKey(ctx, request); failed <- err }
	go ask(ctx)
	r.eventually(func() bool { return r.token.Usage().Waiting == 1 })
	cancel()
	require.Equal(t, hsm.Busy, hsm.ClassOf(<-failed))
	go ask(t.Context())
	r.eventually(func() bool { return r.token.Usage().Waiting == 1 })
	e.lose()
	require.Equal(t, hsm.TokenGone, hsm.ClassOf(<-failed))
	r.healed()
	r.generate(request) // whoever had the turn took it along
	require.Zero(t, r.token.Usage().Waiting)
}

// TestSearchHoldsUpNoKey has a search of a second and more, during which keys are used for the first time.
func TestSearchHoldsUpNoKey(t *testing.T) {
	r := newRig(t, options{})
	homes := r.homes()
	for range 8 {
		r.generate(hsm.KeyRequest{Kind: hsm.AES256})
	}
	keys := r.token.epoch.Load().keys
	for _, ref := range homes {
		keys.mu.Lock()
		keys.loaded.Remove(ref.ID)
		keys.mu.Unlock()
	}
	r.fault.Set("C_GetAttributeValue delay_ms=50")
	before := r.fault.Calls("C_GetAttributeValue")
	searched := make(chan error, 1)
	go func() { _, err := r.token.Objects(t.Context()); searched <- err }()
	r.eventually(func() bool { return r.fault.Calls("C_GetAttributeValue") > before })
	for home, ref := range homes {
		_, err := r.token.Encrypt(t.Context(), hsm.Sealing{Key: ref}, []byte(home))
		require.NoError(t, err)
	}
	require.Empty(t, searched, "the search was over before the keys were served")
	r.fault.Clear()
	require.NoError(t, <-searched)
}

// TestSearchBesideLoading lists objects while session objects come and go, which SoftHSM answers with nonsense unless
// they take turns.
func TestSearchBesideLoading(t *testing.T) {
	r := newRig(t, options{profile: Profile{Sessions: 4, KeyCache: 2}})
	var refs []hsm.KeyRef
	for range 6 {
		refs = append(refs, r.generate(hsm.KeyRequest{Kind: hsm.AES256}))
	}
	stop := make(chan struct{})
	var group sync.WaitGroup
	for i := range 3 {
		group.Go(func() {
			for n := i; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := r.token.Encrypt(t.Context(), hsm.Sealing{Key: refs[n%len(refs)]}, []byte("x")); err != nil {
					t.Errorf("encrypting: %v", err)
					return
				}
			}
		})
	}
	for range 200 {
		objects, err := r.token.Objects(t.Context())
		require.NoError(t, err)
		require.Len(t, objects, len(refs))
	}
	close(stop)
	group.Wait()
}

// TestVagueAnchor has only the session that owns the session objects fail, with a code that says nothing.
func TestVagueAnchor(t *testing.T) {
	r := newRig(t, options{})
	ref := r.homes()["token"]
	keys := r.token.epoch.Load().keys
	keys.forget(ref.ID)
	keys.anchorMu.Lock()
	require.NoError(t, r.module.ctx.CloseSession(keys.anchor.handle))
	keys.anchorMu.Unlock()
	r.fault.Set("C_CopyObject rv=0x6 count=1", "C_FindObjectsInit rv=0x6 count=1")
	_, err := r.token.Encrypt(t.Context(), hsm.Sealing{Key: ref}, []byte("x"))
	require.Equal(t, hsm.TokenGone, hsm.ClassOf(err))
	r.healed()
	_, err = r.token.Encrypt(t.Context(), hsm.Sealing{Key: ref}, []byte("x"))
	require.NoError(t, err)
}

// TestFullTokenMakesRoom has a token with room for fewer session objects than the cache has places.
func TestFullTokenMakesRoom(t *testing.T) {
	r := newRig(t, options{})
	domain := r.generate(hsm.KeyRequest{Kind: hsm.AES256Wrap})
	first := r.generate(hsm.KeyRequest{Kind: hsm.AES256, WrapUnder: domain.ID})
	destroyed := r.fault.Calls("C_DestroyObject")
	second := r.generate(hsm.KeyRequest{Kind: hsm.AES256, WrapUnder: domain.ID})
	r.token.epoch.Load().keys.forget(second.ID)
	r.fault.Set("C_UnwrapKey rv=0x31 count=1")
	o := r.seal(second, []byte("second"))
	require.Greater(t, r.fault.Calls("C_DestroyObject"), destroyed)
	r.requireOpens(o, []byte("second"))
	r.requireOpens(r.seal(first, []byte("first")), []byte("first"))

	r.token.epoch.Load().keys.forget(first.ID)
	r.fault.Set("C_UnwrapKey rv=0x31")
	_, err := r.token.Encrypt(t.Context(), hsm.Sealing{Key: first}, []byte("x"))
	require.Equal(t, hsm.TokenFull, hsm.ClassOf(err), "there is an end to making room")
}

// TestTokenWithoutPIN finishes a token whose maker died between C_InitToken and C_InitPIN.
func TestTokenWithoutPIN(t *testing.T) {
	soft := hsmtest.New(t)
	module, err := OpenModule(ModuleConfig{Path: soft.Module})
	require.NoError(t, err)
	defer func() { require.NoError(t, module.Close()) }()
	infos, err := module.Tokens()
	require.NoError(t, err)
	require.NoError(t, module.ctx.InitToken(infos[0].Slot, hsmtest.SOPIN, label))
	infos, err = module.Tokens()
	require.NoError(t, err)
	require.True(t, infos[0].Initialized)
	require.False(t, infos[0].PINSet)

	require.NoError(t, module.InitToken(label, []byte(hsmtest.SOPIN), []byte(hsmtest.PIN)))
	token, err := module.OpenToken(options{}.token())
	require.NoError(t, err)
	require.NoError(t, token.Check(t.Context()))
	infos, err = module.Tokens()
	require.NoError(t, err)
	require.True(t, infos[0].PINSet)
	require.ErrorContains(t, module.InitToken(label, []byte(hsmtest.SOPIN), []byte(hsmtest.PIN)), "exists already")
}
