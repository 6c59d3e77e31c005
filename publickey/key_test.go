package publickey

import (
	"bytes"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestKeysAreWhatGoMakesOfThem(t *testing.T) {
	for _, spec := range specs {
		key := pair(spec).public
		require.Equal(t, spec, key.Spec())
		again, err := Parse(key.Marshal())
		require.NoError(t, err)
		require.Equal(t, key, again)
		if spec == specSecp256k1 {
			continue // which Go does not have; Wycheproof has its encoding
		}
		public, err := x509.ParsePKIXPublicKey(key.Marshal())
		require.NoError(t, err)
		require.Equal(t, key.public, public)
	}
}

func TestKeysShareNoMemory(t *testing.T) {
	for _, spec := range specs {
		der := pair(spec).public.Marshal()
		key, err := Parse(der)
		require.NoError(t, err)
		clear(der)
		clear(key.Marshal())
		clear(key.Point())
		require.Equal(t, pair(spec).public, key)
	}
}

// kP is the modulus of secp256k1, SEC 2, section 2.4.1.
var kP, _ = new(big.Int).SetString("fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f", 16)

// badPoints gives what FromPoint must refuse for a key spec, by what is wrong with it.
func badPoints(spec string) map[string][]byte {
	point := pair(spec).public.Point()
	n := len(point) / 2
	with := func(first byte, rest []byte) []byte { return append([]byte{first}, rest...) }
	off := bytes.Clone(point)
	off[len(off)-1] ^= 1
	modulus := kP
	switch spec {
	case specP256:
		modulus = elliptic.P256().Params().P
	case specP384:
		modulus = elliptic.P384().Params().P
	case specP521:
		modulus = elliptic.P521().Params().P
	}
	return map[string][]byte{
		"empty":        {},
		"at infinity":  {0},
		"zeros":        make([]byte, len(point)),
		"compressed":   with(2+point[len(point)-1]&1, point[1:n+1]),
		"hybrid":       with(6+point[len(point)-1]&1, point[1:]),
		"truncated":    point[:len(point)-1],
		"longer":       append(bytes.Clone(point), 0),
		"off curve":    off,
		"origin":       with(4, make([]byte, 2*n)),
		"x of modulus": with(4, append(modulus.FillBytes(make([]byte, n)), point[n+1:]...)),
	}
}

func TestPointsAreOnTheirCurve(t *testing.T) {
	for _, c := range curves {
		for name, point := range badPoints(c.spec) {
			_, err := c.key(point)
			require.Error(t, err, "%s %s", c.spec, name)
			_, err = FromPoint(c.spec, point)
			require.Error(t, err, "%s %s", c.spec, name)
			der := strings.Replace(string(pair(c.spec).public.Marshal()), string(pair(c.spec).public.Point()), string(point), 1)
			_, err = Parse([]byte(der))
			require.Error(t, err, "%s %s", c.spec, name)
		}
	}
}

func TestEd25519PointsAreOnTheirCurve(t *testing.T) {
	encode := func(y *big.Int, odd byte) []byte {
		b := y.FillBytes(make([]byte, 32))
		slices.Reverse(b)
		b[31] |= odd << 7
		return b
	}
	for name, point := range map[string][]byte{
		"empty":              {},
		"truncated":          pair(specEd25519).public.Point()[:31],
		"longer":             append(pair(specEd25519).public.Point(), 0),
		"no x for y = 2":     encode(big.NewInt(2), 0),
		"y = 1 with odd x":   encode(one, 1),
		"y = -1 with odd x":  encode(new(big.Int).Sub(edP, one), 1),
		"y of modulus":       encode(edP, 0),
		"y of modulus and 1": encode(new(big.Int).Add(edP, one), 0),
	} {
		_, err := newEd25519(point)
		require.Error(t, err, name)
	}
	for name, point := range map[string][]byte{
		"y = 1":      encode(one, 0),
		"y = 3, odd": encode(big.NewInt(3), 1),
	} {
		_, err := newEd25519(point)
		require.NoError(t, err, name)
	}
}

func TestFromPoint(t *testing.T) {
	for _, spec := range specs {
		key := pair(spec).public
		point := key.Point()
		if strings.HasPrefix(spec, "RSA") {
			require.Nil(t, point)
			_, err := FromPoint(spec, make([]byte, 65))
			require.Error(t, err)
			continue
		}
		octets, err := asn1.Marshal(point)
		require.NoError(t, err)
		bits, err := asn1.Marshal(asn1.BitString{Bytes: point, BitLength: 8 * len(point)})
		require.NoError(t, err)
		for name, value := range map[string][]byte{"bare": point, "OCTET STRING": octets, "BIT STRING": bits} {
			got, err := FromPoint(spec, value)
			require.NoError(t, err, "%s %s", spec, name)
			require.Equal(t, key, got, "%s %s", spec, name)
		}
		uneven, err := asn1.Marshal(asn1.BitString{Bytes: point, BitLength: 8*len(point) - 1})
		require.NoError(t, err)
		for name, value := range map[string][]byte{
			"nothing": nil, "trailing byte": append(octets, 0), "truncated": octets[:len(octets)-1], "BIT STRING of other bits": uneven,
		} {
			_, err := FromPoint(spec, value)
			require.Error(t, err, "%s %s", spec, name)
		}
	}
}

func TestFromModulus(t *testing.T) {
	public := pair("RSA_3072").public.public.(*rsa.PublicKey)
	for _, zeros := range [][]byte{nil, {0}, {0, 0, 0}} {
		key, err := FromModulus(append(zeros, public.N.Bytes()...), append(zeros, 1, 0, 1))
		require.NoError(t, err)
		require.Equal(t, pair("RSA_3072").public, key)
	}

	modulus := func(bits uint, low int64) []byte {
		n := new(big.Int).Lsh(one, bits-1)
		return n.Add(n, big.NewInt(low)).Bytes()
	}
	for name, test := range map[string]struct{ modulus, exponent []byte }{
		"no modulus":           {nil, []byte{3}},
		"1024 bits":            {modulus(1024, 1), []byte{3}},
		"2047 bits":            {modulus(2047, 1), []byte{3}},
		"2049 bits":            {modulus(2049, 1), []byte{3}},
		"8192 bits":            {modulus(8192, 1), []byte{3}},
		"even modulus":         {modulus(2048, 2), []byte{3}},
		"no exponent":          {modulus(2048, 1), nil},
		"exponent of 1":        {modulus(2048, 1), []byte{1}},
		"even exponent":        {modulus(2048, 1), []byte{1, 0, 0}},
		"exponent of 32 bits":  {modulus(2048, 1), []byte{0x80, 0, 0, 1}},
		"exponent of 130 bits": {modulus(2048, 1), append([]byte{2}, make([]byte, 16)...)},
	} {
		_, err := FromModulus(test.modulus, test.exponent)
		require.Error(t, err, name)
	}
	for _, exponent := range [][]byte{{3}, {1, 0, 1}, {0x7f, 0xff, 0xff, 0xff}} {
		key, err := FromModulus(modulus(2048, 1), exponent)
		require.NoError(t, err)
		_, err = Parse(key.Marshal())
		require.NoError(t, err)
	}
}

// spki builds a SubjectPublicKeyInfo of parts, which need not be right.
func spki(t *testing.T, algorithm asn1.ObjectIdentifier, parameters, bits []byte, unused int) []byte {
	t.Helper()
	identifier, err := asn1.Marshal(algorithm)
	require.NoError(t, err)
	inner, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: append(identifier, parameters...)})
	require.NoError(t, err)
	key, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagBitString, Bytes: append([]byte{byte(unused)}, bits...)})
	require.NoError(t, err)
	whole, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: append(inner, key...)})
	require.NoError(t, err)
	return whole
}

func TestParseTakesOneEncoding(t *testing.T) {
	public := pair("RSA_2048").public.public.(*rsa.PublicKey)
	numbers, err := asn1.Marshal(*public)
	require.NoError(t, err)
	negative, err := asn1.Marshal(rsaPublicKey{new(big.Int).Neg(public.N), public.E})
	require.NoError(t, err)
	three, err := asn1.Marshal(struct {
		N    *big.Int
		E, X int
	}{public.N, public.E, 1})
	require.NoError(t, err)
	name, err := asn1.Marshal(curves[0].oid)
	require.NoError(t, err)
	p224, err := asn1.Marshal(asn1.ObjectIdentifier{1, 3, 132, 0, 33})
	require.NoError(t, err)
	point, edwards := pair(specP256).public.Point(), pair(specEd25519).public.Point()
	null := asn1.NullBytes
	pss := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	ecdh := asn1.ObjectIdentifier{1, 3, 132, 1, 12}

	require.Equal(t, pair("RSA_2048").public.Marshal(), spki(t, oidRSA, null, numbers, 0))
	require.Equal(t, pair(specP256).public.Marshal(), spki(t, oidEC, name, point, 0))
	require.Equal(t, pair(specEd25519).public.Marshal(), spki(t, oidEd25519, nil, edwards, 0))
	for name, der := range map[string][]byte{
		"RSA without NULL":           spki(t, oidRSA, nil, numbers, 0),
		"RSA with something else":    spki(t, oidRSA, name, numbers, 0),
		"RSA, bits unused":           spki(t, oidRSA, null, numbers, 1),
		"RSA, trailing byte":         spki(t, oidRSA, null, append(numbers, 0), 0),
		"RSA, another number":        spki(t, oidRSA, null, three, 0),
		"RSA, negative":              spki(t, oidRSA, null, negative, 0),
		"RSA, no numbers":            spki(t, oidRSA, null, nil, 0),
		"RSASSA-PSS":                 spki(t, pss, null, numbers, 0),
		"EC without a name":          spki(t, oidEC, nil, point, 0),
		"EC with NULL":               spki(t, oidEC, null, point, 0),
		"EC with two names":          spki(t, oidEC, append(bytes.Clone(name), name...), point, 0),
		"EC, name of another curve":  spki(t, oidEC, p224, point, 0),
		"EC, DER in the bits":        spki(t, oidEC, name, append([]byte{4, 65}, point...), 0),
		"EC, bits unused":            spki(t, oidEC, name, point, 1),
		"id-ecDH":                    spki(t, ecdh, name, point, 0),
		"Ed25519 with NULL":          spki(t, oidEd25519, null, edwards, 0),
		"Ed25519, DER in the bits":   spki(t, oidEd25519, nil, append([]byte{4, 32}, edwards...), 0),
		"Ed25519, RSA's identifier":  spki(t, oidRSA, nil, edwards, 0),
		"unused bits without a byte": {0x30, 12, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 1, 7},
	} {
		_, err := Parse(der)
		require.Error(t, err, name)
	}
	for _, spec := range specs {
		der := pair(spec).public.Marshal()
		for n := range der {
			_, err := Parse(der[:n])
			require.Error(t, err, "%s, %d bytes", spec, n)
		}
		_, err := Parse(append(der, 0))
		require.ErrorContains(t, err, "other bytes")
	}
	long := append([]byte{0x30, 0x81}, pair(specEd25519).public.Marshal()[1:]...)
	_, err = Parse(long)
	require.Error(t, err, "a length that is longer than it need be")
}
