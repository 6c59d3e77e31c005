package pkcs11

import "math/big"

// Parameters of secp256k1, SEC 2, section 2.4.1: y² = x³ + 7 over the integers modulo kP.
var (
	kP = fromHex("fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f")
	kN = fromHex("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141")
	kG = &kPoint{
		fromHex("79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"),
		fromHex("483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8"),
	}
)

func fromHex(s string) *big.Int {
	n, ok := new(big.Int).SetString(s, 16)
	if !ok {
		panic("not hexadecimal: " + s)
	}
	return n
}

// kPoint is a point of secp256k1; nil is the point at infinity.
type kPoint struct{ x, y *big.Int }

// verifySecp256k1 is ECDSA verification, SEC 1, section 4.1.4, on the one curve of the AWS API that the standard library
// lacks. It is slow and not of constant time, which is no matter for the public values of a self-test.
func verifySecp256k1(point, digest []byte, r, s *big.Int) bool {
	if len(point) != 65 || point[0] != 4 {
		return false
	}
	q := &kPoint{new(big.Int).SetBytes(point[1:33]), new(big.Int).SetBytes(point[33:])}
	if !q.onCurve() || !inRange(r) || !inRange(s) || len(digest) != 32 {
		return false
	}
	w := new(big.Int).ModInverse(s, kN)
	u1 := new(big.Int).Mul(new(big.Int).SetBytes(digest), w)
	u2 := new(big.Int).Mul(r, w)
	sum := kG.times(u1.Mod(u1, kN)).plus(q.times(u2.Mod(u2, kN)))
	return sum != nil && new(big.Int).Mod(sum.x, kN).Cmp(r) == 0
}

func inRange(n *big.Int) bool { return n.Sign() > 0 && n.Cmp(kN) < 0 }

func (a *kPoint) onCurve() bool {
	if a.x.Cmp(kP) >= 0 || a.y.Cmp(kP) >= 0 {
		return false
	}
	left := new(big.Int).Mul(a.y, a.y)
	right := new(big.Int).Exp(a.x, big.NewInt(3), kP)
	left.Sub(left, right.Add(right, big.NewInt(7)))
	return left.Mod(left, kP).Sign() == 0
}

// plus adds two points by the group law, SEC 1, section 2.2.1.
func (a *kPoint) plus(b *kPoint) *kPoint {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	slope, under := new(big.Int), new(big.Int)
	if a.x.Cmp(b.x) == 0 {
		if a.y.Cmp(b.y) != 0 {
			return nil // opposite points; the curve has none with y = 0
		}
		slope.Mul(slope.Mul(a.x, a.x), big.NewInt(3))
		under.Lsh(a.y, 1)
	} else {
		slope.Sub(b.y, a.y)
		under.Sub(b.x, a.x)
	}
	slope.Mul(slope, under.ModInverse(under.Mod(under, kP), kP))
	x := new(big.Int).Mul(slope, slope)
	x.Mod(x.Sub(x.Sub(x, a.x), b.x), kP)
	y := new(big.Int).Sub(a.x, x)
	y.Mod(y.Sub(y.Mul(y, slope), a.y), kP)
	return &kPoint{x, y}
}

func (a *kPoint) times(n *big.Int) *kPoint {
	var sum *kPoint
	for i := n.BitLen() - 1; i >= 0; i-- {
		sum = sum.plus(sum)
		if n.Bit(i) == 1 {
			sum = sum.plus(a)
		}
	}
	return sum
}
