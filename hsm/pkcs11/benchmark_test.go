package pkcs11

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/hsm/hsmtest"
)

// BenchmarkToken measures one caller and many, in both homes of key material, on the number of sessions that is best
// for SoftHSM and on as many as an HSM has.
func BenchmarkToken(b *testing.B) {
	soft := newSoft(b)
	m, err := OpenModule(ModuleConfig{Path: soft.Module})
	require.NoError(b, err)
	defer func() { require.NoError(b, m.Close()) }()
	for profile, sessions := range map[string]int{"softhsm": 0, "sessions=8": 8} {
		p, err := LookupProfile("softhsm")
		require.NoError(b, err)
		if sessions > 0 {
			p.Sessions = sessions
		}
		token, err := m.OpenToken(TokenConfig{Label: label, PIN: pin, Profile: p})
		require.NoError(b, err)
		domain, err := token.GenerateKey(b.Context(), hsm.KeyRequest{Kind: hsm.AES256Wrap})
		require.NoError(b, err)
		for home, under := range map[string]hsm.KeyID{"token": "", "wrapped": domain.ID} {
			ref, err := token.GenerateKey(b.Context(), hsm.KeyRequest{Kind: hsm.AES256, WrapUnder: under})
			require.NoError(b, err)
			b.Run(profile+"/"+home, func(b *testing.B) { benchmarkKey(b, token, ref) })
		}
	}
}

func benchmarkKey(b *testing.B, token *Token, ref hsm.KeyRef) {
	w, plaintext := hsm.Sealing{Key: ref}, make([]byte, 64)
	sealed, err := token.Encrypt(b.Context(), w, plaintext)
	require.NoError(b, err)
	o := hsm.Opening{Key: ref, Sealed: sealed}
	for name, f := range map[string]func(context.Context) error{
		"Encrypt":   func(ctx context.Context) error { _, err := token.Encrypt(ctx, w, plaintext); return err },
		"Decrypt":   func(ctx context.Context) error { _, err := token.Decrypt(ctx, o); return err },
		"ReEncrypt": func(ctx context.Context) error { _, err := token.ReEncrypt(ctx, o, w); return err },
	} {
		ctx := context.Background() // what a context with parents costs is not the token's
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := f(ctx); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"Parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := f(ctx); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkImportKey measures the import of key material in every way that SoftHSM has, the fallbacks included.
func BenchmarkImportKey(b *testing.B) {
	soft := newSoft(b)
	m, err := OpenModule(ModuleConfig{Path: soft.Module})
	require.NoError(b, err)
	defer func() { require.NoError(b, m.Close()) }()
	token, err := m.OpenToken(options{}.token())
	require.NoError(b, err)
	routes, err := token.ImportRoutes(b.Context(), hsm.AES256)
	require.NoError(b, err)
	domain, err := token.GenerateKey(b.Context(), hsm.KeyRequest{Kind: hsm.AES256Wrap})
	require.NoError(b, err)
	for _, kind := range []hsm.KeyKind{hsm.RSA2048Import, hsm.RSA4096Import} {
		under, err := token.GenerateKey(b.Context(), hsm.KeyRequest{Kind: kind})
		require.NoError(b, err)
		for wrap, route := range routes {
			r := hsm.ImportRequest{Under: under, Wrap: wrap, Kind: hsm.AES256, WrapUnder: domain.ID}
			r.Material = hsmtest.EncryptMaterial(b, under.Public, wrap, material())
			b.Run(string(kind)+"/"+string(wrap)+"/"+string(route), func(b *testing.B) {
				for b.Loop() {
					made, err := token.ImportKey(b.Context(), r)
					require.NoError(b, err)
					require.NoError(b, token.DestroyKey(b.Context(), made.Key))
				}
			})
		}
	}
}

// BenchmarkPairs measures signatures, MACs and agreements, beside the bare calls of the token on the same key.
func BenchmarkPairs(b *testing.B) {
	soft := newSoft(b)
	m, err := OpenModule(ModuleConfig{Path: soft.Module})
	require.NoError(b, err)
	defer func() { require.NoError(b, m.Close()) }()
	p, err := LookupProfile("softhsm")
	require.NoError(b, err)
	token, err := m.OpenToken(TokenConfig{Label: label, PIN: pin, Profile: p})
	require.NoError(b, err)
	other, err := ecdh.P256().GenerateKey(rand.Reader)
	require.NoError(b, err)
	point, digest := other.PublicKey().Bytes(), make([]byte, 32)
	sign := func(a hsm.Algorithm) func(context.Context, hsm.KeyRef) error {
		return func(ctx context.Context, ref hsm.KeyRef) error {
			_, err := token.Sign(ctx, hsm.Signing{Key: ref, Algorithm: a, Input: digest})
			return err
		}
	}
	bareSign := func(a hsm.Algorithm) func(*session, *loadedKey, hsm.KeyRef) error {
		return func(s *session, key *loadedKey, ref hsm.KeyRef) error {
			_, err := s.sign(key, hsm.Signing{Key: ref, Algorithm: a, Input: digest})
			return err
		}
	}
	for _, c := range []struct {
		kind hsm.KeyKind
		call func(context.Context, hsm.KeyRef) error
		bare func(*session, *loadedKey, hsm.KeyRef) error
	}{
		{hsm.RSA2048Sign, sign(hsm.PSSWithSHA256), bareSign(hsm.PSSWithSHA256)},
		{hsm.P256Sign, sign(hsm.ECDSAWithSHA256), bareSign(hsm.ECDSAWithSHA256)},
		{hsm.Ed25519Sign, sign(hsm.Ed25519), bareSign(hsm.Ed25519)},
		{hsm.HMAC256, func(ctx context.Context, ref hsm.KeyRef) error {
			_, err := token.MAC(ctx, ref, hsm.HMACWithSHA256, digest)
			return err
		}, func(s *session, key *loadedKey, ref hsm.KeyRef) error {
			_, err := s.mac(key, ref.Kind, digest)
			return err
		}},
		{hsm.P256Derive, func(ctx context.Context, ref hsm.KeyRef) error {
			_, err := token.DeriveSecret(ctx, ref, point)
			return err
		},
			func(s *session, key *loadedKey, ref hsm.KeyRef) error {
				_, err := s.derive(key, ref.Kind, point)
				return err
			}},
	} {
		ref, err := token.GenerateKey(b.Context(), hsm.KeyRequest{Kind: c.kind})
		require.NoError(b, err)
		ctx := context.Background()
		b.Run(string(c.kind)+"/request", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				require.NoError(b, c.call(ctx, ref))
			}
		})
		b.Run(string(c.kind)+"/bare", func(b *testing.B) {
			_, err := do(ctx, token, &task[struct{}]{f: func(s *session) (struct{}, error) {
				return struct{}{}, s.withKey(ref, func(key *loadedKey) error {
					for b.Loop() {
						if err := c.bare(s, key, ref); err != nil {
							return err
						}
					}
					return nil
				})
			}})
			require.NoError(b, err)
		})
	}
}
