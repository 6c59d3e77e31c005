package pkcs11

import (
	"fmt"
	"time"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// decrypters gives the hash of each algorithm of RSAES-OAEP.
var decrypters = map[hsm.Algorithm]rsaHash{hsm.OAEPWithSHA1: rsaSHA1, hsm.OAEPWithSHA256: rsaSHA256}

// decryptOAEP decrypts on a route into out, which has room for the ciphertext and is the caller's to wipe. It gives the length
// of the plaintext. The ciphertext is as long as the modulus and, as a number, below it.
func (s *session) decryptOAEP(key *loadedKey, a hsm.Algorithm, route hsm.Route, ciphertext, out []byte) (int, error) {
	h := decrypters[a]
	if route == hsm.InProcess {
		n, err := s.decryptRaw(key.handle, ciphertext, out)
		if err != nil {
			return 0, err
		}
		plaintext, err := decodeOAEP(out[:n], h.hash)
		return copy(out, plaintext), err
	}
	op := bare{session: s.handle, key: key.handle, mechanism: p11.CKM_RSA_PKCS_OAEP, parameter: oaepParameter(h), in: ciphertext, out: out}
	start := time.Now()
	n, function, rv := s.m.direct.decryptBare(op)
	if err := s.observe(function, rv, start); err != nil {
		return 0, err
	}
	if n > len(ciphertext)-2*h.hash.Size()-2 {
		return 0, &hsm.Error{Class: hsm.Failed, Function: function, Cause: fmt.Errorf("%d bytes from a ciphertext of %d", n, len(ciphertext))}
	}
	return n, nil
}

// oaepParameter is a CK_RSA_PKCS_OAEP_PARAMS without a label.
func oaepParameter(h rsaHash) []byte { return ulongs(h.mechanism, h.mgf, p11.CKZ_DATA_SPECIFIED, 0, 0) }
