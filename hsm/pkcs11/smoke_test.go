package pkcs11

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/hsm/hsmtest"
)

func TestSmoke(t *testing.T) {
	soft := hsmtest.New(t)
	soft.Token(t, "one")
	m, err := OpenModule(ModuleConfig{Path: soft.Module})
	require.NoError(t, err)
	p, _ := LookupProfile("softhsm")
	tok, err := m.OpenToken(TokenConfig{Label: "one", PIN: func() ([]byte, error) { return []byte(hsmtest.PIN), nil }, Profile: p})
	require.NoError(t, err)
	ctx := context.Background()
	dom, err := tok.GenerateKey(ctx, hsm.KeyRequest{Kind: hsm.AES256Wrap, Label: "domain"})
	require.NoError(t, err)
	for _, under := range []hsm.KeyID{"", dom.ID} {
		ref, err := tok.GenerateKey(ctx, hsm.KeyRequest{Kind: hsm.AES256, Label: "x", WrapUnder: under})
		require.NoError(t, err)
		sealed, err := tok.Encrypt(ctx, hsm.Sealing{Key: ref}, []byte("hello"))
		require.NoError(t, err)
		pt, err := tok.Decrypt(ctx, hsm.Opening{Key: ref, Sealed: sealed})
		require.NoError(t, err)
		require.Equal(t, "hello", string(pt))
		sealed.Data[0] ^= 1
		_, err = tok.Decrypt(ctx, hsm.Opening{Key: ref, Sealed: sealed})
		require.Equal(t, hsm.BadInput, hsm.ClassOf(err), "%v", err)
	}
	objs, err := tok.Objects(ctx)
	require.NoError(t, err)
	require.Len(t, objs, 2)
	require.NoError(t, m.Close())
}

func BenchmarkReEncrypt(b *testing.B) {
	soft := hsmtest.New(b)
	soft.Token(b, "one")
	m, _ := OpenModule(ModuleConfig{Path: soft.Module})
	p, _ := LookupProfile("softhsm")
	tok, err := m.OpenToken(TokenConfig{Label: "one", PIN: func() ([]byte, error) { return []byte(hsmtest.PIN), nil }, Profile: p})
	require.NoError(b, err)
	ctx := context.Background()
	ref, _ := tok.GenerateKey(ctx, hsm.KeyRequest{Kind: hsm.AES256, Label: "x"})
	sealed, _ := tok.Encrypt(ctx, hsm.Sealing{Key: ref}, []byte("hello0123456789hello0123456789"))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := tok.ReEncrypt(ctx, hsm.Opening{Key: ref, Sealed: sealed}, hsm.Sealing{Key: ref}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.StopTimer()
	m.Close()
}
