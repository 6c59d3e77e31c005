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

// usableWith is usable for an action that has an algorithm.
func usableWith(r *Request, a action, key *Key, algorithm EncryptionAlgorithm) error {
	if err := usable(r, a, key); err != nil {
		return err
	}
	return checkAlgorithm(key, algorithm)
}

// checkAlgorithm fails for an algorithm that the key does not have; none given means the symmetric one.
func checkAlgorithm(key *Key, algorithm EncryptionAlgorithm) error {
	if algorithm == "" {
		algorithm = AlgorithmSymmetric
	}
	for _, a := range specs[key.Spec].encryption {
		if a == algorithm {
			return nil
		}
	}
	return Errorf(InvalidKeyUsage, "Algorithm %s is incompatible with key spec %s.", algorithm, key.Spec)
}

// sealing says how to encrypt under the key's current material, and with which header.
func sealing(key *Key, context map[string]string) (hsm.Sealing, ciphertext.Header, error) {
	material := key.current()
	if material == nil || !material.present() {
		return hsm.Sealing{}, ciphertext.Header{}, noMaterial(key)
	}
	header := ciphertext.Header{KeyID: key.ID}
	if n, err := hex.Decode(header.Material[:], []byte(material.ID)); err != nil || n != len(header.Material) {
		return hsm.Sealing{}, header, fmt.Errorf("key %s has a material with a malformed id", key.ID)
	}
	aad, err := header.AAD(context)
	return hsm.Sealing{Key: material.Ref, AAD: aad}, header, err
}

// opening says how to decrypt a blob of the key. A blob that names a material which the key never had is forged.
func opening(key *Key, blob ciphertext.Blob, context map[string]string) (hsm.Opening, *Material, error) {
	material := key.material(hex.EncodeToString(blob.Material[:]))
	if material == nil {
		return hsm.Opening{}, nil, errBadCiphertext(errors.New("unknown key material"))
	}
	if !material.present() {
		return hsm.Opening{}, nil, noMaterial(key)
	}
	aad, err := blob.AAD(context)
	o := hsm.Opening{Key: material.Ref, AAD: aad, Sealed: hsm.Sealed{IV: blob.IV, Data: blob.Data}}
	return o, material, err
}

// marshal makes the blob of what the token encrypted.
func marshal(header ciphertext.Header, sealed hsm.Sealed) ([]byte, error) {
	raw, err := ciphertext.Marshal(ciphertext.Blob{Header: header, IV: sealed.IV, Data: sealed.Data})
	if err != nil {
		return nil, fmt.Errorf("writing a ciphertext: %w", err)
	}
	return raw, nil
}

// openError translates a failure to decrypt.
func openError(err error) error {
	if hsm.ClassOf(err) == hsm.BadInput {
		return errBadCiphertext(err)
	}
	return TokenError(err)
}
