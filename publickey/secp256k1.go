package publickey

import (
	"errors"
	"math/big"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// parseSecp256k1 narrows the library's parser, which takes compressed and hybrid points too.
func parseSecp256k1(point []byte) (any, error) {
	if len(point) != secp256k1.PubKeyBytesLenUncompressed || point[0] != secp256k1.PubKeyFormatUncompressed {
		return nil, errors.New("not an uncompressed point")
	}
	return secp256k1.ParsePubKey(point)
}

// verifySecp256k1 is ECDSA verification, SEC 1, section 4.1.4. It takes either value of s, as AWS does: signatures of HSMs are
// not normalised as those of Bitcoin are.
func verifySecp256k1(public *secp256k1.PublicKey, digest, signature []byte) bool {
	parsed, ok := parseECDSA(signature)
	if !ok {
		return false
	}
	r, rInRange := scalarSecp256k1(parsed.R)
	s, sInRange := scalarSecp256k1(parsed.S)
	return rInRange && sInRange && ecdsa.NewSignature(r, s).Verify(digest, public)
}

// scalarSecp256k1 converts a number, and tells whether it is positive and below the order of the curve.
func scalarSecp256k1(n *big.Int) (*secp256k1.ModNScalar, bool) {
	var scalar secp256k1.ModNScalar
	if n.Sign() <= 0 || n.BitLen() > 256 {
		return nil, false
	}
	beyond := scalar.SetByteSlice(n.Bytes())
	return &scalar, !beyond
}
