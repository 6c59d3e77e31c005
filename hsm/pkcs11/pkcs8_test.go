package pkcs11

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"slices"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/publickey"
)

// TestPrivateNumber reads what Go and what this package write, and gives a part of what it is given: a copy would be one more
// to wipe.
func TestPrivateNumber(t *testing.T) {
	for kind, curve := range map[hsm.KeyKind]elliptic.Curve{hsm.P256Sign: elliptic.P256(), hsm.P384Derive: elliptic.P384(), hsm.P521Sign: elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		require.NoError(t, err)
		material, err := x509.MarshalPKCS8PrivateKey(key)
		require.NoError(t, err)
		number, err := privateNumber(kinds[kind], material)
		require.NoError(t, err)
		want, err := key.Bytes()
		require.NoError(t, err)
		require.Equal(t, want, number)
		begin, at := uintptr(unsafe.Pointer(&material[0])), uintptr(unsafe.Pointer(&number[0]))
		require.True(t, at > begin && at < begin+uintptr(len(material)), "the number is a copy")
		for other := range importKinds {
			if k := kinds[other]; k.pair() && k.curve() != nil && k.spec != kinds[kind].spec {
				_, err := privateNumber(k, material)
				require.Same(t, errMaterial, err, "%s as %s", kind, other)
			}
		}
	}
	shortest, err := ecSample(kinds[hsm.Secp256k1Sign])
	require.NoError(t, err)
	number, err := privateNumber(kinds[hsm.Secp256k1Sign], shortest.material)
	require.NoError(t, err)
	require.Equal(t, secp256k1Number.Bytes(), number)
}

// TestPrivateNumberStrict demands that no byte is passed over: one more, one less or another one makes it another key, or none.
func TestPrivateNumberStrict(t *testing.T) {
	for _, kind := range []hsm.KeyKind{hsm.P256Sign, hsm.Ed25519Sign} {
		good, err := newSample(kind)
		require.NoError(t, err)
		requireStrict(t, kinds[kind], good)
	}
}

func requireStrict(t *testing.T, k kind, good sample) {
	t.Helper()
	number, err := privateNumber(k, good.material)
	require.NoError(t, err)
	number = slices.Clone(number)
	for n := range good.material {
		_, err := privateNumber(k, good.material[:n])
		require.Same(t, errMaterial, err, "the first %d bytes", n)
		for _, change := range []byte{0x01, 0x20, 0x80, 0xff} {
			other := slices.Clone(good.material)
			other[n] ^= change
			got, err := privateNumber(k, other)
			require.False(t, err == nil && slices.Equal(got, number) && n != versionAt, "byte %d, %x", n, change)
		}
	}
	for _, more := range [][]byte{{0}, {0, 0}, make([]byte, 8), good.material} {
		_, err := privateNumber(k, append(slices.Clone(good.material), more...))
		require.Same(t, errMaterial, err)
	}
	for _, none := range [][]byte{nil, {}, {0x30}, {0x30, 0}, {0x30, 0x80}, {0x30, 0x84, 0xff, 0xff, 0xff, 0xff}, good.evidence} {
		_, err := privateNumber(k, none)
		require.Same(t, errMaterial, err)
	}
}

// versionAt is where the version of a PrivateKeyInfo stands, which may be 0 or 1.
const versionAt = 4

func FuzzPrivateNumber(f *testing.F) {
	for kind := range importKinds {
		if kinds[kind].curve() != nil {
			key, err := newSample(kind)
			require.NoError(f, err)
			f.Add(key.material)
		}
	}
	f.Fuzz(func(t *testing.T, material []byte) {
		k := kinds[hsm.P521Sign]
		number, err := privateNumber(k, material)
		if err != nil {
			require.Same(t, errMaterial, err)
			require.Nil(t, number)
			return
		}
		require.Len(t, number, 66)
	})
}

// TestPrimes holds the fixed RSA keys against what Go says of keys.
func TestPrimes(t *testing.T) {
	for _, kind := range []hsm.KeyKind{hsm.RSA2048Sign, hsm.RSA3072Sign, hsm.RSA4096Sign} {
		key, err := newSample(kind)
		require.NoError(t, err)
		_, err = x509.ParsePKCS8PrivateKey(key.material) // which validates it
		require.NoError(t, err)
		public, err := publicKey(hsm.KeyRef{Kind: kind, Public: key.evidence})
		require.NoError(t, err)
		require.Equal(t, kinds[kind].spec, public.Spec())
	}
}

// TestLift finds the two points of an x coordinate, and none where there is none.
func TestLift(t *testing.T) {
	for spec, curve := range weierstrassCurves {
		size := (curve.p.BitLen() + 7) / 8
		base := curve.base()
		points := curve.lift(base[1 : 1+size])
		require.Len(t, points, 2, spec)
		require.Contains(t, points, base, spec)
		for _, point := range points {
			require.NoError(t, onCurve(spec, point), spec)
		}
		none := 0
		for range 64 {
			x := make([]byte, size)
			_, _ = rand.Read(x) // never fails
			x[0] = 0
			points := curve.lift(x)
			if len(points) == 0 {
				none++
			}
			for _, point := range points {
				require.NoError(t, onCurve(spec, point), spec)
			}
		}
		require.NotZero(t, none, spec)
		require.NotEqual(t, 64, none, spec)
		require.Empty(t, curve.lift(curve.p.Bytes()), spec)
	}
}

func onCurve(spec string, point []byte) error {
	_, err := publickey.FromPoint(spec, point)
	return err
}
