package publickey

import (
	"crypto/ed25519"
	"math/big"
	"slices"
)

// Parameters of edwards25519, -x² + y² = 1 + dx²y² modulo edP; RFC 8032, section 5.1.
var (
	one = big.NewInt(1)
	edP = new(big.Int).Sub(new(big.Int).Lsh(one, 255), big.NewInt(19))
	edD = func() *big.Int {
		d := new(big.Int).ModInverse(big.NewInt(121666), edP)
		return d.Mod(d.Mul(d, big.NewInt(-121665)), edP)
	}()
)

// onEdwards25519 tells whether there is a point with an encoding, RFC 8032, section 5.1.3. crypto/ed25519 finds out only when
// it verifies, and takes values of y beyond the modulus.
func onEdwards25519(point []byte) bool {
	if len(point) != ed25519.PublicKeySize {
		return false
	}
	encoded := slices.Clone(point)
	slices.Reverse(encoded)
	odd := encoded[0]&0x80 != 0
	encoded[0] &^= 0x80
	y := new(big.Int).SetBytes(encoded)
	if y.Cmp(edP) >= 0 {
		return false
	}
	// x² = u/v, where v is never zero, so that x exists if uv is a square.
	y.Mul(y, y)
	u := new(big.Int).Sub(y, one)
	v := y.Mul(y, edD)
	v.Add(v, one)
	square := u.Mod(u.Mul(u, v), edP)
	if square.Sign() == 0 {
		return !odd // x = 0, which has one encoding
	}
	return big.Jacobi(square, edP) == 1
}
