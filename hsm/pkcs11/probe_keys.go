package pkcs11

import (
	"errors"
	"fmt"
	"io"

	p11 "github.com/miekg/pkcs11"
)

// probeName is the label of throw-away keys, and probeLabel their CKA_LABEL.
const (
	probeName  = "probe"
	probeLabel = labelPrefix + probeName
)

// errNoKnownKey says that the token neither takes a secret key nor shows one, so that Go has nothing to compare with.
var errNoKnownKey = errors.New("not compared with Go: the token neither takes nor shows the value of a key")

// flags gives boolean attributes: true for those in set. The false ones come second, because some makes refuse to hear of
// what a kind of key cannot have.
func flags(all []uint, set ...uint) (must, may []*p11.Attribute) {
	for _, kind := range all {
		on := false
		for _, s := range set {
			on = on || s == kind
		}
		if on {
			must = append(must, p11.NewAttribute(kind, true))
		} else {
			may = append(may, p11.NewAttribute(kind, false))
		}
	}
	return must, may
}

// refusedTemplate tells whether a token took offence at an attribute.
func refusedTemplate(err error) bool {
	return isCode(err, p11.CKR_ATTRIBUTE_TYPE_INVALID, p11.CKR_ATTRIBUTE_VALUE_INVALID, p11.CKR_TEMPLATE_INCONSISTENT,
		p11.CKR_TEMPLATE_INCOMPLETE, p11.CKR_ARGUMENTS_BAD)
}

// withFallback makes an object with all attributes, or without the optional ones if the token refuses them.
func withFallback(must, may []*p11.Attribute, f func([]*p11.Attribute) error) error {
	err := f(append(must[:len(must):len(must)], may...))
	if refusedTemplate(err) {
		err = f(must)
	}
	return err
}

// secretUses are the attributes that say what a secret key may do.
var secretUses = []uint{p11.CKA_ENCRYPT, p11.CKA_DECRYPT, p11.CKA_WRAP, p11.CKA_UNWRAP, p11.CKA_SIGN, p11.CKA_VERIFY, p11.CKA_DERIVE}

// secret describes a throw-away secret key. It is a session object like all of them.
type secret struct {
	keyType uint
	size    int // in bytes
	uses    []uint
	// readable keys show their value; others are sensitive.
	readable, extractable bool
}

func (k secret) attributes() (must, may []*p11.Attribute) {
	must, may = flags(secretUses, k.uses...)
	return append(must,
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY),
		p11.NewAttribute(p11.CKA_KEY_TYPE, k.keyType),
		p11.NewAttribute(p11.CKA_TOKEN, false),
		p11.NewAttribute(p11.CKA_PRIVATE, true),
		p11.NewAttribute(p11.CKA_SENSITIVE, !k.readable),
		p11.NewAttribute(p11.CKA_EXTRACTABLE, k.extractable || k.readable),
		p11.NewAttribute(p11.CKA_LABEL, probeLabel)), may
}

// generateSecret makes a key on the token.
func (p *prober) generateSecret(k secret) (p11.ObjectHandle, error) {
	mechanism := uint(p11.CKM_GENERIC_SECRET_KEY_GEN)
	if k.keyType == p11.CKK_AES {
		mechanism = p11.CKM_AES_KEY_GEN
	}
	must, may := k.attributes()
	return p.object("C_GenerateKey", append(must, p11.NewAttribute(p11.CKA_VALUE_LEN, k.size)), may,
		func(attributes []*p11.Attribute) (p11.ObjectHandle, error) {
			return p.m.ctx.GenerateKey(p.anchor.handle, mechanismOf(mechanism, nil), attributes)
		})
}

// known makes a key of which the value is known: one made here and taken by the token or, where it takes none, one made
// and shown by it. The error is errNoKnownKey if it does neither.
func (p *prober) known(k secret) (p11.ObjectHandle, []byte, error) {
	value, err := p.random(k.size)
	if err != nil {
		return 0, nil, err
	}
	k.extractable = true
	if handle, err := p.create(k, value); err == nil {
		return handle, value, nil
	}
	k.readable = true
	handle, err := p.generateSecret(k)
	if err != nil {
		return 0, nil, errNoKnownKey
	}
	if value = p.anchor.attribute(handle, p11.CKA_VALUE); len(value) != k.size {
		return 0, nil, errNoKnownKey
	}
	return handle, value, nil
}

func (p *prober) create(k secret, value []byte) (p11.ObjectHandle, error) {
	must, may := k.attributes()
	return p.object("C_CreateObject", append(must, p11.NewAttribute(p11.CKA_VALUE, value)), may,
		func(attributes []*p11.Attribute) (p11.ObjectHandle, error) {
			return p.m.ctx.CreateObject(p.anchor.handle, attributes)
		})
}

// object makes one object with the named function and keeps it.
func (p *prober) object(function string, must, may []*p11.Attribute, f func([]*p11.Attribute) (p11.ObjectHandle, error)) (p11.ObjectHandle, error) {
	var handle p11.ObjectHandle
	err := withFallback(must, may, func(attributes []*p11.Attribute) error {
		return p.m.call(function, func() (err error) {
			handle, err = f(attributes)
			return err
		})
	})
	if err != nil {
		return 0, err
	}
	p.keep(handle)
	return handle, nil
}

// unwrap makes an object of a wrapped key.
func (p *prober) unwrap(mechanism []*p11.Mechanism, under p11.ObjectHandle, wrapped []byte, must, may []*p11.Attribute) (p11.ObjectHandle, error) {
	if len(wrapped) == 0 {
		return 0, errors.New("the wrapped key is empty") // the binding does not survive it
	}
	return p.object("C_UnwrapKey", must, may, func(attributes []*p11.Attribute) (p11.ObjectHandle, error) {
		return p.m.ctx.UnwrapKey(p.anchor.handle, mechanism, under, wrapped, attributes)
	})
}

// pair is a key pair.
type pair struct{ public, private p11.ObjectHandle }

// generatePair makes a key pair on the token.
func (p *prober) generatePair(t template) (pair, error) {
	made, err := p.anchor.callMakePair(t)
	if err != nil {
		return pair{}, err
	}
	p.keep(made.public, made.private)
	return made, nil
}

// pairs is a key pair for each use, which is the same one where the token allows it.
type pairs map[uint]pair

// generate fills k. A token may insist that a key has one use alone (Luna without multi-function keys); it then gets a
// key for each.
func (k pairs) generate(p *prober, s template) (string, error) {
	one, err := p.generatePair(s)
	if err == nil {
		for _, use := range s.uses {
			k[use] = one
		}
		return "", nil
	}
	if !refusedTemplate(err) {
		return "", err
	}
	for _, use := range s.uses {
		single := s
		single.uses = []uint{use}
		if made, err := p.generatePair(single); err == nil {
			k[use] = made
		}
	}
	if len(k) == 0 {
		return "", err
	}
	return "a key for each use", nil
}

// of gives the key pair for a use.
func (k pairs) of(use uint) (pair, error) {
	if made, ok := k[use]; ok {
		return made, nil
	}
	return pair{}, errNotTried
}

// sign is C_SignInit and C_Sign.
func (p *prober) sign(mechanism []*p11.Mechanism, key p11.ObjectHandle, message []byte) (signature []byte, err error) {
	err = p.m.call("C_SignInit", func() error { return p.m.ctx.SignInit(p.work.handle, mechanism, key) })
	if err != nil {
		return nil, err
	}
	err = p.m.call("C_Sign", func() (err error) {
		signature, err = p.m.ctx.Sign(p.work.handle, message)
		return err
	})
	return signature, err
}

// verify is C_VerifyInit and C_Verify.
func (p *prober) verify(mechanism []*p11.Mechanism, key p11.ObjectHandle, message, signature []byte) error {
	err := p.m.call("C_VerifyInit", func() error { return p.m.ctx.VerifyInit(p.work.handle, mechanism, key) })
	if err != nil {
		return err
	}
	return p.m.call("C_Verify", func() error { return p.m.ctx.Verify(p.work.handle, message, signature) })
}

// decrypt is C_DecryptInit and C_Decrypt.
func (p *prober) decrypt(mechanism []*p11.Mechanism, key p11.ObjectHandle, ciphertext []byte) (plaintext []byte, err error) {
	err = p.m.call("C_DecryptInit", func() error { return p.m.ctx.DecryptInit(p.work.handle, mechanism, key) })
	if err != nil {
		return nil, err
	}
	err = p.m.call("C_Decrypt", func() (err error) {
		plaintext, err = p.m.ctx.Decrypt(p.work.handle, ciphertext)
		return err
	})
	return plaintext, err
}

// wrap is C_WrapKey.
func (p *prober) wrap(mechanism uint, under, key p11.ObjectHandle) (wrapped []byte, err error) {
	err = p.m.call("C_WrapKey", func() (err error) {
		wrapped, err = p.m.ctx.WrapKey(p.work.handle, mechanismOf(mechanism, nil), under, key)
		return err
	})
	return wrapped, err
}

// random gives n random bytes of this process.
func (p *prober) random(n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(p.rand, b); err != nil {
		return nil, fmt.Errorf("making random bytes: %w", err)
	}
	return b, nil
}

// mechanismOf is a mechanism as the binding wants it.
func mechanismOf(mechanism uint, parameter any) []*p11.Mechanism {
	return []*p11.Mechanism{p11.NewMechanism(mechanism, parameter)}
}
