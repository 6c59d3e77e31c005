package kms

import (
	"encoding/hex"
	"errors"
	"fmt"

	"hsmkms/hsm"
	"hsmkms/kms/ciphertext"
)

// maxContext is the largest encryption context: the bytes of all its keys and values.
const maxContext = 8192

// errBadCiphertext is AWS's answer to a ciphertext, or an encryption context, that does not belong: without text.
func errBadCiphertext(cause error) error { return &Error{Type: InvalidCiphertext, Cause: cause} }

// parseBlob reads a symmetric ciphertext.
func parseBlob(raw []byte) (ciphertext.Blob, error) {
	blob, err := ciphertext.Parse(raw)
	if err != nil {
		return blob, errBadCiphertext(err)
	}
	return blob, nil
}

// checkContext fails for an encryption context beyond the limit.
func checkContext(context map[string]string) error {
	total := 0
	for key, value := range context {
		total += len(key) + len(value)
	}
	if total > maxContext {
		return Errorf(Validation, "The encryption context is too long: its keys and values take %d bytes, and at most %d are allowed.", total, maxContext)
	}
	return nil
}

// checkContextFor fails for an encryption context that the key has no use for: only symmetric encryption can bind to one.
func checkContextFor(key *Key, context map[string]string) error {
	if len(context) > 0 && !key.symmetric() {
		return Errorf(Validation, "An encryption context must not be specified for key spec %s.", key.Spec)
	}
	return nil
}

// sealing says how to encrypt under the key's current material and, for a symmetric key, with which header.
func sealing(key *Key, algorithm hsm.Algorithm, context map[string]string) (hsm.Sealing, ciphertext.Header, error) {
	material := key.current()
	if material == nil || !material.present() {
		return hsm.Sealing{}, ciphertext.Header{}, noMaterial(key)
	}
	if !key.symmetric() {
		return hsm.Sealing{Key: material.Ref, Algorithm: algorithm}, ciphertext.Header{}, nil
	}
	header := ciphertext.Header{KeyID: key.ID}
	if n, err := hex.Decode(header.Material[:], []byte(material.ID)); err != nil || n != len(header.Material) {
		return hsm.Sealing{}, header, fmt.Errorf("key %s has a material with a malformed id", key.ID)
	}
	aad, err := header.AAD(context)
	return hsm.Sealing{Key: material.Ref, Algorithm: algorithm, AAD: aad}, header, err
}

// opening says how to decrypt a blob of a symmetric key. A blob that names a material which the key never had is forged.
func opening(key *Key, blob ciphertext.Blob, context map[string]string) (hsm.Opening, *Material, error) {
	var id [2 * ciphertext.MaterialSize]byte
	hex.Encode(id[:], blob.Material[:])
	material := key.material(string(id[:]))
	if material == nil {
		return hsm.Opening{}, nil, errBadCiphertext(errors.New("unknown key material"))
	}
	if !material.present() {
		return hsm.Opening{}, nil, noMaterial(key)
	}
	aad, err := blob.AAD(context)
	o := hsm.Opening{Key: material.Ref, Algorithm: hsm.SymmetricDefault, AAD: aad, Sealed: hsm.Sealed{IV: blob.IV, Data: blob.Data}}
	return o, material, err
}

// openingPair says how to decrypt what was encrypted to the public key of a key pair: a bare ciphertext.
func openingPair(key *Key, raw []byte, algorithm hsm.Algorithm) (hsm.Opening, *Material, error) {
	material := key.current()
	if material == nil || !material.present() {
		return hsm.Opening{}, nil, noMaterial(key)
	}
	return hsm.Opening{Key: material.Ref, Algorithm: algorithm, Sealed: hsm.Sealed{Data: raw}}, material, nil
}

// openError translates a failure to decrypt.
func openError(err error) error {
	if hsm.ClassOf(err) == hsm.BadInput {
		return errBadCiphertext(err)
	}
	return TokenError(err)
}
