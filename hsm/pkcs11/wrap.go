package pkcs11

import (
	"errors"
	"fmt"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// ckmAESKeyWrapKWP is CKM_AES_KEY_WRAP_KWP of PKCS#11 3.0, which the binding's 2.40 headers lack.
const ckmAESKeyWrapKWP = 0x210B

// wrapping is a mechanism with what it was seen to do.
type wrapping struct {
	format    hsm.WrapFormat
	mechanism uint
}

// wrap wraps an extractable key under another and tells the format. The caller holds objectsMu or anchorMu.
func (s *session) wrap(under, key p11.ObjectHandle) (hsm.WrapFormat, []byte, error) {
	w, err := s.wrapping(under)
	if err != nil {
		return "", nil, err
	}
	wrapped, err := s.wrapWith(w.mechanism, under, key)
	if err != nil {
		return "", nil, fmt.Errorf("wrapping key: %w", err)
	}
	return w.format, wrapped, nil
}

// wrapping gives the mechanism that this token wraps with, trying it out on a throw-away key at first need: the format is
// told by the length of 32 bytes when they are wrapped. The caller holds objectsMu or anchorMu.
func (s *session) wrapping(under p11.ObjectHandle) (wrapping, error) {
	if known := s.keys.wrapping(); known.mechanism != 0 {
		return known, nil
	}
	key, err := s.generateKey(template{kind: hsm.AES256, extractable: true})
	if err != nil {
		return wrapping{}, err
	}
	defer func() { _ = s.destroy(key) }()
	var first error
	for _, mechanism := range []uint{p11.CKM_AES_KEY_WRAP_PAD, ckmAESKeyWrapKWP} {
		var wrapped []byte
		err := twice(func() (err error) {
			wrapped, err = s.wrapWith(mechanism, under, key)
			return err
		})
		if err == nil {
			format, err := formatOf(wrapped)
			if err != nil {
				return wrapping{}, err
			}
			return s.keys.learn(wrapping{format, mechanism}), nil
		}
		if first == nil {
			first = err
		}
	}
	return wrapping{}, fmt.Errorf("wrapping key: %w", first)
}

func (s *session) wrapWith(mechanism uint, under, key p11.ObjectHandle) (wrapped []byte, err error) {
	err = s.m.call("C_WrapKey", func() (err error) {
		wrapped, err = s.m.ctx.WrapKey(s.handle, mechanismOf(mechanism, nil), under, key)
		return err
	})
	return wrapped, err
}

// formatOf tells the two meanings of CKM_AES_KEY_WRAP_PAD apart by the length of a wrapped 32-byte key.
func formatOf(wrapped []byte) (hsm.WrapFormat, error) {
	switch len(wrapped) {
	case aesKeySize + 8:
		return hsm.WrapKWP, nil
	case aesKeySize + 16:
		return hsm.WrapPKCS7, nil
	default:
		return "", &hsm.Error{Class: hsm.Unsupported, Function: "C_WrapKey", Cause: fmt.Errorf("a wrapped 32-byte key of %d bytes", len(wrapped))}
	}
}

// checkWrapped refuses wrapped material of a length that a key of its kind cannot have, for SoftHSM would unwrap anything as
// a secret key.
func checkWrapped(ref hsm.KeyRef) error {
	k, known := kinds[ref.Kind]
	least, most := k.size+8, k.size+24 // of a secret key, in both formats
	if k.pair() {
		// A PrivateKeyInfo, PKCS#8: of an elliptic curve at least the number, with the public key and names twice three times
		// as much; of RSA nine numbers, which are as long as the modulus or half of it.
		least, most = k.size/8+8, 5*k.size/8+256
	}
	fits := len(ref.Wrapped) >= least && len(ref.Wrapped) <= most && len(ref.Wrapped)%8 == 0
	if k.forms != nil && k.forms[0].keyType == p11.CKK_AES {
		format, err := formatOf(ref.Wrapped)
		fits = err == nil && format == ref.WrapFormat
	}
	if !known || !fits || ref.WrapFormat == "" {
		return &hsm.Error{Class: hsm.Unsupported, Cause: fmt.Errorf(
			"%d bytes of a wrapped key of the kind %q in the format %q", len(ref.Wrapped), ref.Kind, ref.WrapFormat)}
	}
	return nil
}

func (k *keys) wrapping() wrapping {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.wraps
}

func (k *keys) learn(w wrapping) wrapping {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wraps = w
	return w
}

// mechanism gives the mechanism that this token has for a format. The caller holds anchorMu.
func (k *keys) mechanism(format hsm.WrapFormat, under p11.ObjectHandle) (uint, error) {
	w, err := k.anchor.wrapping(under)
	if err != nil {
		return 0, err
	}
	if w.format != format {
		return 0, &hsm.Error{Class: hsm.Unsupported, Cause: fmt.Errorf("the token cannot unwrap the format %s", format)}
	}
	return w.mechanism, nil
}

// unwrap makes a sensitive, non-extractable session object of wrapped key material. It has no label, which SoftHSM would
// take its time to encrypt.
func (s *session) unwrap(mechanism uint, under p11.ObjectHandle, ref hsm.KeyRef) (p11.ObjectHandle, error) {
	id, err := ckaID(ref.ID)
	if err != nil {
		return 0, err
	}
	t := template{kind: ref.Kind, form: s.keys.token.form(ref.Kind), id: id, unlabelled: true}
	handle, err := s.unwrapAs(t, mechanismOf(mechanism, nil), under, ref.Wrapped)
	if hsm.ClassOf(err) == hsm.BadInput {
		err = reclassed(err, hsm.Failed) // what is spoilt came from the store, not from a caller
	}
	if err != nil {
		return 0, fmt.Errorf("unwrapping key: %w", err)
	}
	return handle, nil
}

// unwrapAs makes an object of a wrapped key.
func (s *session) unwrapAs(t template, mechanism []*p11.Mechanism, under p11.ObjectHandle, wrapped []byte) (p11.ObjectHandle, error) {
	if len(wrapped) == 0 { // which the binding does not survive
		return 0, &hsm.Error{Class: hsm.BadInput, Cause: errors.New("the wrapped key is empty")}
	}
	var handle p11.ObjectHandle
	err := t.make(func(attributes []*p11.Attribute) error {
		return s.m.call("C_UnwrapKey", func() (err error) {
			handle, err = s.m.ctx.UnwrapKey(s.handle, mechanism, under, wrapped, attributes)
			return err
		})
	})
	return handle, err
}
