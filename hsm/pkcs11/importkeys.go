package pkcs11

import (
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// importBits gives the size of the modulus of the kinds of key pairs that material is imported under.
var importBits = map[hsm.KeyKind]int{hsm.RSA2048Import: 2048, hsm.RSA3072Import: 3072, hsm.RSA4096Import: 4096}

// generateImportPair makes a key pair that material can be imported under in every way that the token has.
func (s *session) generateImportPair(w *ways, ref hsm.KeyRef, id []byte, label string) (hsm.KeyRef, error) {
	uses := w.uses()
	if len(uses) == 0 {
		return hsm.KeyRef{}, &hsm.Error{Class: hsm.Unsupported, Cause: errors.New("the token has no way of importing key material")}
	}
	s.keys.objectsMu.Lock()
	defer s.keys.objectsMu.Unlock()
	private, public, err := s.makePair(template{kind: ref.Kind, id: id, label: label, persistent: true, uses: uses})
	if err != nil {
		return hsm.KeyRef{}, err
	}
	ref.Public = public
	if err := s.proveImportPair(w, private, ref); err != nil {
		_ = s.destroy(private)
		return hsm.KeyRef{}, fmt.Errorf("testing a new key pair: %w", err)
	}
	s.keys.know(ref.ID, private)
	return ref, nil
}

// proveImportPair imports something under a new key pair, once for each way of decrypting that imports make use of.
func (s *session) proveImportPair(w *ways, private p11.ObjectHandle, ref hsm.KeyRef) error {
	public, err := publicOf(ref)
	if err != nil {
		return err
	}
	l, err := s.newLanding(w, private, public)
	defer l.clear()
	if err != nil {
		return err
	}
	for _, wrap := range []hsm.ImportWrap{hsm.OAEPSHA1, hsm.OAEPSHA256} {
		for _, kind := range slices.Sorted(maps.Keys(w.paths)) { // hsm.AES256 is the first
			path, ok := w.paths[kind][wrap]
			if !ok {
				continue
			}
			if err := l.rehearse(way{wrap, path}, kind); err != nil {
				return err
			}
			break
		}
	}
	return nil
}

// publicOf gives the public key of a reference to a key pair that material is imported under.
func publicOf(ref hsm.KeyRef) (*rsa.PublicKey, error) {
	bits := importBits[ref.Kind]
	if bits == 0 {
		return nil, &hsm.Error{Class: hsm.Unsupported, Cause: fmt.Errorf("nothing is imported under a key of the kind %q", ref.Kind)}
	}
	parsed, err := x509.ParsePKIXPublicKey(ref.Public)
	if err != nil {
		return nil, &hsm.Error{Class: hsm.Failed, Cause: fmt.Errorf("reading the public key of %s: %w", ref.ID, err)}
	}
	public, ok := parsed.(*rsa.PublicKey)
	if !ok || public.N.BitLen() != bits {
		return nil, &hsm.Error{Class: hsm.Failed, Cause: fmt.Errorf("the public key of %s is none of the kind %s", ref.ID, ref.Kind)}
	}
	return public, nil
}
