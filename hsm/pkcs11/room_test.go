package pkcs11

import (
	"context"
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

// TestSearchHoldsUpNoKey has a search hang while a key is used for the first time.
func TestSearchHoldsUpNoKey(t *testing.T) {
	r := newRig(t, options{})
	homes := r.homes()
	for _, ref := range homes {
		r.token.epoch.Load().keys.mu.Lock()
		r.token.epoch.Load().keys.loaded.Remove(ref.ID)
		r.token.epoch.Load().keys.mu.Unlock()
	}
	r.fault.Set("C_GetAttributeValue hang=1")
	before := r.fault.Calls("C_GetAttributeValue")
	searched := make(chan error)
	go func() { _, err := r.token.Objects(t.Context()); searched <- err }()
	r.eventually(func() bool { return r.fault.Calls("C_GetAttributeValue") > before })
	for home, ref := range homes {
		_, err := r.token.Encrypt(t.Context(), hsm.Sealing{Key: ref}, []byte(home))
		require.NoError(t, err)
	}
	r.fault.Clear()
	require.NoError(t, <-searched)
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
