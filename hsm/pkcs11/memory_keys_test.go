package pkcs11

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/hsm/hsmtest"
)

// TestImportedKeysWiped imports keys that pass through the process, and looks at the buffer that they pass through: when the
// object is made the key must be there, or the test would look at the wrong memory, and afterwards no byte may be.
func TestImportedKeysWiped(t *testing.T) {
	r := newRig(t, options{})
	under := r.generate(hsm.KeyRequest{Kind: hsm.RSA2048Import})
	var scratch, secret []byte
	_, err := do(t.Context(), r.token, &task[struct{}]{slow: true, f: func(s *session) (struct{}, error) { scratch = s.scratch; return struct{}{}, nil }})
	require.NoError(t, err)
	seen, observe := 0, r.module.cfg.Observe
	r.module.cfg.Observe = func(function string, class hsm.Class, took time.Duration) {
		if function == "C_CreateObject" && bytes.Contains(scratch, secret) {
			seen++
		}
		observe(function, class, took)
	}
	for _, kind := range []hsm.KeyKind{hsm.P256Sign, hsm.P521Derive, hsm.Secp256k1Sign, hsm.Ed25519Sign, hsm.HMAC224, hsm.HMAC512} {
		_, err := r.token.Support(t.Context(), kind)
		require.NoError(t, err)
		key, err := newSample(kind)
		require.NoError(t, err)
		if secret = key.material; kinds[kind].pair() {
			secret, err = privateNumber(kinds[kind], key.material)
			require.NoError(t, err)
		}
		good := hsm.ImportRequest{
			Under: under, Wrap: hsm.OAEPSHA256, Kind: kind, Material: hsmtest.EncryptMaterial(t, under.Public, hsm.OAEPSHA256, key.material),
		}
		for name, change := range map[string]func(*hsm.ImportRequest){
			"good":           func(*hsm.ImportRequest) {},
			"another kind":   func(r *hsm.ImportRequest) { r.Kind = hsm.P384Sign },
			"another length": func(r *hsm.ImportRequest) { r.Kind = hsm.HMAC256 },
			"spoilt":         func(r *hsm.ImportRequest) { r.Material = append([]byte{0}, r.Material[1:]...) },
		} {
			request := good
			change(&request)
			_, err := r.token.ImportKey(t.Context(), request)
			require.Equal(t, name == "good", err == nil, "%s, %s: %v", kind, name, err)
			_, err = do(t.Context(), r.token, &task[struct{}]{slow: true, f: func(*session) (struct{}, error) { return struct{}{}, nil }})
			require.NoError(t, err)
			require.True(t, bytes.Equal(make([]byte, scratchSize), scratch), "%s, %s", kind, name)
		}
		require.Positive(t, seen, kind)
		seen = 0
	}
}

// TestStrictImportsOfKeys has keys of every kind imported in the ways that leave them on the token, and in no other.
func TestStrictImportsOfKeys(t *testing.T) {
	r := newRig(t, options{strict: true})
	under := r.generate(hsm.KeyRequest{Kind: hsm.RSA2048Import})
	for kind, trial := range importKinds {
		routes, err := r.token.ImportRoutes(t.Context(), kind)
		require.NoError(t, err)
		want := map[hsm.ImportWrap]hsm.Route{hsm.OAEPSHA1: hsm.OnToken, hsm.RSAAESSHA1: hsm.OnToken}
		if kinds[kind].slow() { // RSA, which does not fit
			delete(want, hsm.OAEPSHA1)
		}
		if kinds[kind].edwards() { // which SoftHSM does not unwrap
			clear(want)
		}
		require.Equal(t, want, routes, kind)
		if kind != trial || kinds[kind].size > 2048 {
			continue // the same again, or slow
		}
		for _, wrap := range []hsm.ImportWrap{hsm.OAEPSHA1, hsm.RSAAESSHA1, hsm.OAEPSHA256, hsm.RSAAESSHA256} {
			key, err := newSample(kind)
			require.NoError(t, err)
			material := key.material
			if _, open := want[wrap]; !open && kinds[kind].slow() {
				material = material[:32] // or Go would not encrypt it
			}
			_, err = r.token.ImportKey(t.Context(), hsm.ImportRequest{
				Under: under, Wrap: wrap, Kind: kind, Material: hsmtest.EncryptMaterial(t, under.Public, wrap, material),
			})
			if _, open := want[wrap]; open {
				require.NoError(t, err, "%s, %s", kind, wrap)
			} else {
				require.Equal(t, hsm.Unsupported, hsm.ClassOf(err), "%s, %s: %v", kind, wrap, err)
			}
		}
	}
	require.Zero(t, r.fault.Calls("C_CreateObject"))
}
