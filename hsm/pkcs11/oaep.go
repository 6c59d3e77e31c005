package pkcs11

import (
	"crypto"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"hash"

	"hsmkms/hsm"
)

// errOAEP is the only answer to a block that is not OAEP. Whoever could tell apart what is wrong with it could decrypt with
// the key by asking (J. Manger, "A Chosen Ciphertext Attack on RSA Optimal Asymmetric Encryption Padding (OAEP) as
// Standardized in PKCS #1 v2.0", CRYPTO 2001).
var errOAEP = &hsm.Error{Class: hsm.BadInput, Cause: errors.New("not the padding of RSAES-OAEP")}

// decodeOAEP undoes the padding of RSAES-OAEP without a label in place (RFC 8017, section 7.1.2, step 3) and gives the part
// of em that is the message. em is as long as the modulus. Time and memory accesses depend on lengths alone: those of em,
// and of the message of a block that is right.
func decodeOAEP(em []byte, h crypto.Hash) ([]byte, error) {
	if len(em) < 2*h.Size()+2 {
		return nil, errOAEP
	}
	state := h.New()
	lHash := state.Sum(nil)
	seed, db := em[1:1+h.Size()], em[1+h.Size():]
	maskMGF1(seed, state, db)
	maskMGF1(db, state, seed)
	wipeHash(state)

	rest := db[h.Size():]
	looking, index, bad := 1, 0, 0
	for i, b := range rest {
		zero, one := subtle.ConstantTimeByteEq(b, 0), subtle.ConstantTimeByteEq(b, 1)
		index = subtle.ConstantTimeSelect(looking&one, i, index)
		bad |= looking & (zero ^ 1) & (one ^ 1)
		looking &= one ^ 1
	}
	good := subtle.ConstantTimeByteEq(em[0], 0) & subtle.ConstantTimeCompare(db[:h.Size()], lHash) & (bad ^ 1) & (looking ^ 1)
	if good != 1 {
		return nil, errOAEP
	}
	return rest[index+1:], nil
}

// maskMGF1 XORs MGF1 of seed (RFC 8017, appendix B.2.1) into b.
func maskMGF1(b []byte, h hash.Hash, seed []byte) {
	mask := make([]byte, 0, h.Size())
	var counter [4]byte
	for n := uint32(0); len(b) > 0; n++ {
		binary.BigEndian.PutUint32(counter[:], n)
		h.Reset()
		h.Write(seed)
		h.Write(counter[:])
		mask = h.Sum(mask[:0])
		b = b[subtle.XORBytes(b, b, mask):]
	}
	clear(mask)
}

// wipeHash overwrites the block that a hash keeps of its input, which Reset leaves in memory.
func wipeHash(h hash.Hash) {
	zeros := make([]byte, h.BlockSize())
	h.Reset()
	h.Write(zeros[1:]) // a whole block at once would be hashed where it is
	h.Write(zeros[:1])
	h.Reset()
}
