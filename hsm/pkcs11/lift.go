package pkcs11

import (
	"crypto/elliptic"
	"math/big"
)

// weierstrass is a curve y² = x³ + ax + b over the integers modulo p, with a base point.
type weierstrass struct{ p, a, b, x, y *big.Int }

func weierstrassOf(c elliptic.Curve) weierstrass {
	p := c.Params()
	return weierstrass{p.P, big.NewInt(-3), p.B, p.Gx, p.Gy} // FIPS 186-5, section 6.1.1, and SP 800-186, section 3.2.1
}

// weierstrassCurves has the curves by their key specs.
var weierstrassCurves = map[string]weierstrass{
	"ECC_NIST_P256": weierstrassOf(elliptic.P256()),
	"ECC_NIST_P384": weierstrassOf(elliptic.P384()),
	"ECC_NIST_P521": weierstrassOf(elliptic.P521()),
	"ECC_SECG_P256K1": { // SEC 2, section 2.4.1
		fromHex("fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f"), new(big.Int), big.NewInt(7),
		fromHex("79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"),
		fromHex("483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8"),
	},
}

func fromHex(s string) *big.Int {
	n, ok := new(big.Int).SetString(s, 16)
	if !ok {
		panic("not hexadecimal: " + s)
	}
	return n
}

// base gives the base point, uncompressed.
func (c weierstrass) base() []byte { return c.point(c.x, c.y) }

// point encodes a point uncompressed; SEC 1, section 2.3.3.
func (c weierstrass) point(x, y *big.Int) []byte {
	size := (c.p.BitLen() + 7) / 8
	b := make([]byte, 1+2*size)
	b[0] = 4
	x.FillBytes(b[1 : 1+size])
	y.FillBytes(b[1+size:])
	return b
}

// lift gives the two points with an x coordinate, uncompressed, if there are any.
func (c weierstrass) lift(coordinate []byte) [][]byte {
	x := new(big.Int).SetBytes(coordinate)
	if x.Cmp(c.p) >= 0 {
		return nil
	}
	square := new(big.Int).Mul(x, x)
	square.Add(square, c.a).Mul(square, x).Add(square, c.b).Mod(square, c.p)
	y := square.ModSqrt(square, c.p)
	if y == nil || y.Sign() == 0 {
		return nil
	}
	return [][]byte{c.point(x, y), c.point(x, new(big.Int).Sub(c.p, y))}
}
