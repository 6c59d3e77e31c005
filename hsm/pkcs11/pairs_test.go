package pkcs11

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/publickey"
)

// quickKinds have a kind for each operation of keys that are not for encryption.
var quickKinds = []hsm.KeyKind{hsm.P256Sign, hsm.Ed25519Sign, hsm.HMAC256, hsm.P256Derive}

// pairHomes gives keys of a kind in both homes.
func (r *rig) pairHomes(kind hsm.KeyKind) map[string]hsm.KeyRef {
	r.t.Helper()
	domain := r.generate(hsm.KeyRequest{Kind: hsm.AES256Wrap})
	return map[string]hsm.KeyRef{
		"token":   r.generate(hsm.KeyRequest{Kind: kind}),
		"wrapped": r.generate(hsm.KeyRequest{Kind: kind, WrapUnder: domain.ID}),
	}
}

// use gives the operation of a key, with a check of its result.
func (r *rig) use(ref hsm.KeyRef) func(context.Context) error {
	r.t.Helper()
	switch kinds[ref.Kind].algorithms[0] { //nolint:exhaustive // the others sign
	case hsm.HMACWithSHA256:
		return func(ctx context.Context) error {
			_, err := r.token.MAC(ctx, ref, hsm.HMACWithSHA256, []byte("message"))
			return err
		}
	case hsm.ECDH:
		other, err := ecdh.P256().GenerateKey(rand.Reader)
		require.NoError(r.t, err)
		return func(ctx context.Context) error {
			secret, err := r.token.DeriveSecret(ctx, ref, other.PublicKey().Bytes())
			if err == nil && len(secret) != 32 {
				return fmt.Errorf("a secret of %d bytes", len(secret))
			}
			return err
		}
	default:
		return func(ctx context.Context) error { return r.signs(ctx, ref) }
	}
}

func (r *rig) signs(ctx context.Context, ref hsm.KeyRef) error {
	public, err := publicKey(ref)
	require.NoError(r.t, err)
	a := kinds[ref.Kind].algorithms[0]
	digest := make([]byte, max(signers[a].input, 32))
	signature, err := r.token.Sign(ctx, hsm.Signing{Key: ref, Algorithm: a, Input: digest})
	if err != nil {
		return err
	}
	signed := publickey.Signed{Algorithm: string(a), Type: publickey.Digest, Message: digest, Signature: signature}
	if a == hsm.Ed25519 {
		signed.Type = publickey.Raw
	}
	return public.Verify(signed)
}

// TestPairRequestsNeedNoSetup is TestRequestsNeedNoSetup of the other operations. An agreement has an object of its own.
func TestPairRequestsNeedNoSetup(t *testing.T) {
	r := newRig(t, options{})
	for _, kind := range quickKinds {
		for home, ref := range r.pairHomes(kind) {
			use, functions := r.use(ref), setup
			require.NoError(t, use(t.Context()))
			if kind == hsm.P256Derive {
				functions = []string{"C_OpenSession", "C_Login", "C_FindObjectsInit", "C_CopyObject", "C_UnwrapKey"}
			}
			before := r.counts(functions...)
			for range 200 {
				require.NoError(t, use(t.Context()))
			}
			require.Equal(t, before, r.counts(functions...), "%s %s", kind, home)
		}
	}
}

// TestPairSessionReplaced has one call fail in a way that spoils its session, or the handle. The caller must not notice.
func TestPairSessionReplaced(t *testing.T) {
	r := newRig(t, options{})
	for _, kind := range quickKinds {
		functions := []string{"C_SignInit", "C_Sign"}
		if kind == hsm.P256Derive {
			functions = []string{"C_DeriveKey", "C_GetAttributeValue"}
		}
		for home, ref := range r.pairHomes(kind) {
			use := r.use(ref)
			require.NoError(t, use(t.Context()))
			for _, function := range functions {
				for _, code := range []uint{0x30, 0xB3, 0x90} {
					r.requireReplaced(fmt.Sprintf("%s rv=0x%x count=1", function, code), fmt.Sprint(home, kind), use)
				}
			}
			r.fault.Set(functions[0] + " rv=0x82 count=1")
			require.NoError(t, use(t.Context()), "a stale handle")
			r.fault.Clear()
		}
	}
}

// TestPairUnspecificFault has codes that can mean anything. The token is re-opened only if nothing else works either: whoever
// can cause such a code by what he sends could have it re-opened at will.
func TestPairUnspecificFault(t *testing.T) {
	r := newRig(t, options{})
	for _, kind := range quickKinds {
		ref := r.generate(hsm.KeyRequest{Kind: kind})
		use := r.use(ref)
		logins := r.fault.Calls("C_Login")
		for _, code := range []string{"0x5", "0x6"} {
			r.fault.Set("C_Sign rv="+code, "C_DeriveKey rv="+code)
			for range 5 {
				err := use(t.Context())
				require.Equal(t, hsm.Failed, hsm.ClassOf(err), "%v", err)
			}
			r.fault.Clear()
			require.NoError(t, use(t.Context()))
		}
		require.Equal(t, logins, r.fault.Calls("C_Login"))
		r.fault.Set("C_Sign rv=0x5", "C_DeriveKey rv=0x5", "C_GenerateRandom rv=0x5")
		err := use(t.Context())
		require.True(t, suspect(err), "%v", err)
		r.fault.Clear()
		r.healed()
		require.NoError(t, use(t.Context()))
		require.Greater(t, r.fault.Calls("C_Login"), logins)
	}
}

// TestPairHang has an operation that does not return.
func TestPairHang(t *testing.T) {
	r := newRig(t, options{drain: 20 * time.Millisecond})
	for _, kind := range quickKinds {
		use, cold := r.use(r.generate(hsm.KeyRequest{Kind: kind})), r.generate(hsm.KeyRequest{Kind: hsm.AES256})
		r.fault.Set("C_Sign hang=1", "C_DeriveKey hang=1")
		requireBusy(t, use(soon(t)))
		require.NoError(t, r.token.Check(t.Context()), "the other session serves on")
		require.NotEmpty(t, r.objects(), "a search waits for nothing that hangs")
		r.requireOpens(r.seal(cold, []byte("data")), []byte("data"))
		require.NoError(t, r.token.DestroyKey(t.Context(), cold))
		r.fault.Clear()
		require.NoError(t, use(t.Context()))
	}
}

// TestSupportOfUnluckyToken has a token that fails for a moment, and one that is lost, while it is tried out.
func TestSupportOfUnluckyToken(t *testing.T) {
	r := newRig(t, options{})
	for kind, rule := range map[hsm.KeyKind]string{
		hsm.P256Sign: "C_SignInit rv=0x6 count=1", hsm.P384Sign: "C_GenerateKeyPair rv=0x6 count=1", hsm.P521Sign: "C_WrapKey rv=0x6 count=1",
		hsm.HMAC256: "C_Sign rv=0x5 count=1", hsm.HMAC384: "C_GenerateKey rv=0x6 count=1", hsm.P256Derive: "C_DeriveKey rv=0x6 count=2",
		hsm.P384Derive: "C_UnwrapKey rv=0x6 count=1",
	} {
		r.fault.Set(rule)
		support, err := r.token.Support(t.Context(), kind)
		require.NoError(t, err)
		want := hsm.Support{Algorithms: map[hsm.Algorithm]hsm.Route{kinds[kind].algorithms[0]: hsm.OnToken}, Wraps: true}
		require.Equal(t, want, support, "%s: %s", kind, rule)
	}
	for _, rule := range []string{"C_Sign rv=0x30", "C_GenerateKeyPair rv=0x30", "C_Sign rv=0x5", "C_WrapKey rv=0x32"} {
		r.fault.Set(rule, "C_GenerateRandom rv=0x5")
		_, err := r.token.Support(t.Context(), hsm.Secp256k1Sign)
		require.True(t, suspect(err), "%s: %v", rule, err)
		_, err = r.token.GenerateKey(t.Context(), hsm.KeyRequest{Kind: hsm.Secp256k1Sign})
		require.True(t, suspect(err), "%s: %v", rule, err)
		r.fault.Clear()
		r.healed()
	}
	support, err := r.token.Support(t.Context(), hsm.Secp256k1Sign)
	require.NoError(t, err)
	require.NotEmpty(t, support.Algorithms)
}

// TestSupportOnce asks for it from many sides.
func TestSupportOnce(t *testing.T) {
	r := newRig(t, options{})
	done := make(chan error)
	for range 8 {
		go func() {
			_, err := r.token.Support(t.Context(), hsm.P256Sign)
			done <- err
		}()
	}
	for range 8 {
		require.NoError(t, <-done)
	}
	require.Equal(t, 1, r.fault.Calls("C_GenerateKeyPair"))
}

// TestSupportOfPoorToken has tokens that can do less than SoftHSM, and SoftHSM itself, which signs Ed25519 when it is asked for
// Ed25519ph.
func TestSupportOfPoorToken(t *testing.T) {
	for name, c := range map[string]struct {
		rules  []string
		strict bool
		kind   hsm.KeyKind
		want   hsm.Support
	}{
		"SoftHSM":      {nil, false, hsm.Ed25519Sign, hsm.Support{Algorithms: map[hsm.Algorithm]hsm.Route{hsm.Ed25519: hsm.OnToken}}},
		"no mechanism": {[]string{"C_GenerateKeyPair rv=0x70"}, false, hsm.P256Sign, hsm.Support{Algorithms: map[hsm.Algorithm]hsm.Route{}}},
		"nothing leaves": {[]string{"C_WrapKey rv=0x6A"}, false, hsm.P256Sign,
			hsm.Support{Algorithms: map[hsm.Algorithm]hsm.Route{hsm.ECDSAWithSHA256: hsm.OnToken}}},
		"nothing comes back": {[]string{"C_UnwrapKey rv=0x6"}, false, hsm.HMAC512,
			hsm.Support{Algorithms: map[hsm.Algorithm]hsm.Route{hsm.HMACWithSHA512: hsm.OnToken}}},
		"strict": {nil, true, hsm.RSA2048Decrypt, hsm.Support{Algorithms: map[hsm.Algorithm]hsm.Route{hsm.OAEPWithSHA1: hsm.OnToken}, Wraps: true}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, options{strict: c.strict})
			domain := r.generate(hsm.KeyRequest{Kind: hsm.AES256Wrap})
			r.fault.Set(c.rules...)
			support, err := r.token.Support(t.Context(), c.kind)
			require.NoError(t, err)
			if len(c.want.Algorithms) == 0 {
				require.Empty(t, support.Algorithms)
				_, err := r.token.GenerateKey(t.Context(), hsm.KeyRequest{Kind: c.kind})
				require.Equal(t, hsm.Unsupported, hsm.ClassOf(err), "%v", err)
				return
			}
			require.Equal(t, c.want, support)
			ref := r.generate(hsm.KeyRequest{Kind: c.kind, WrapUnder: domain.ID})
			require.Equal(t, c.want.Wraps, len(ref.Wrapped) > 0)
			if c.kind == hsm.Ed25519Sign {
				_, err := r.token.Sign(t.Context(), hsm.Signing{Key: ref, Algorithm: hsm.Ed25519ph, Input: make([]byte, 64)})
				require.Equal(t, hsm.Unsupported, hsm.ClassOf(err), "%v", err)
			}
		})
	}
}

// TestOtherForm has a token that knows Ed25519 by its OID alone.
func TestOtherForm(t *testing.T) {
	r := newRig(t, options{})
	r.fault.Set("C_GenerateKeyPair rv=0x13 count=8") // twice, with and without what is optional, extractable and not
	ref := r.generate(hsm.KeyRequest{Kind: hsm.Ed25519Sign})
	require.Equal(t, 1, r.token.form(hsm.Ed25519Sign))
	require.NoError(t, r.signs(t.Context(), ref))
}

// TestUselessPairDestroyed makes keys that fail their first test, and keys whose maker does not learn of them.
func TestUselessPairDestroyed(t *testing.T) {
	r := newRig(t, options{})
	domain := r.generate(hsm.KeyRequest{Kind: hsm.AES256Wrap}).ID
	for _, kind := range quickKinds {
		_, err := r.token.Support(t.Context(), kind)
		require.NoError(t, err)
		for _, under := range []hsm.KeyID{"", domain} {
			r.fault.Set("C_Sign rv=0x6", "C_DeriveKey rv=0x6")
			ref, err := r.token.GenerateKey(t.Context(), hsm.KeyRequest{Kind: kind, WrapUnder: under})
			require.Error(t, err)
			require.Zero(t, ref)
			r.fault.Clear()
			require.Equal(t, []hsm.Object{{ID: domain}}, r.objects(), "%s", kind)
		}
	}
	r.fault.Set("C_Sign hang=1")
	_, err := r.token.GenerateKey(soon(t), hsm.KeyRequest{Kind: hsm.P256Sign})
	requireBusy(t, err)
	r.fault.Clear()
	r.eventually(func() bool { return len(r.objects()) == 1 })
	r.fault.Set("C_GenerateKeyPair rv=0x32 when=after")
	_, err = r.token.GenerateKey(t.Context(), hsm.KeyRequest{Kind: hsm.P256Sign, Label: "orphan"})
	require.Equal(t, hsm.TokenGone, hsm.ClassOf(err))
	r.fault.Clear()
	r.healed()
	var labels []string
	for _, o := range r.objects() {
		labels = append(labels, o.Label)
	}
	require.ElementsMatch(t, []string{"", "orphan"}, labels)
}

// TestPairsLeaveNothing counts all objects of the token, those of sessions included.
func TestPairsLeaveNothing(t *testing.T) {
	r := newRig(t, options{})
	w := newWitness(t, r.soft)
	defer w.close()
	for _, kind := range quickKinds {
		_, err := r.token.Support(t.Context(), kind)
		require.NoError(t, err)
		before := len(w.find())
		for _, ref := range r.pairHomes(kind) {
			require.NoError(t, r.use(ref)(t.Context()))
			require.NoError(t, r.token.DestroyKey(t.Context(), ref))
		}
		left := map[bool]int{true: 2, false: 1}[kind != hsm.Ed25519Sign] // the domain key, and its copy if it was used
		require.Len(t, w.find(), before+left, "%s", kind)
	}
}
