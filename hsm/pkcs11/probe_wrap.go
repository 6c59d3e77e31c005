package pkcs11

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"slices"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// wrapMechanism is a mechanism for wrapping keys with an AES key.
type wrapMechanism struct {
	name string
	code uint
}

var wrapMechanisms = []wrapMechanism{
	{"CKM_AES_KEY_WRAP", p11.CKM_AES_KEY_WRAP},
	{"CKM_AES_KEY_WRAP_PAD", p11.CKM_AES_KEY_WRAP_PAD},
	{"CKM_AES_KEY_WRAP_KWP", ckmAESKeyWrapKWP},
}

// wrapKeys are the throw-away keys of the checks of wrapping.
type wrapKeys struct {
	under p11.ObjectHandle
	// known is a wrapping key of known value; 0 if the token has none.
	known p11.ObjectHandle
	value []byte
}

func wrapGroup(targets []*target) group {
	k := &wrapKeys{}
	g := group{key: string(hsm.AES256Wrap), generate: k.generate}
	for _, m := range wrapMechanisms {
		for _, t := range targets {
			g.extras = append(g.extras, step{m.name + " of " + t.name, k.wraps(m, t)})
		}
	}
	return g
}

func (k *wrapKeys) generate(p *prober) (_ string, err error) {
	for _, m := range wrapMechanisms {
		p.caps.Wraps = append(p.caps.Wraps, Wrap{Mechanism: m.name})
	}
	if k.under, err = p.anchor.generateKey(template{kind: hsm.AES256Wrap, label: "probe"}); err != nil {
		return "", err
	}
	p.keep(k.under)
	k.known, k.value, err = p.known(secret{keyType: p11.CKK_AES, size: aesKeySize, uses: []uint{p11.CKA_WRAP, p11.CKA_UNWRAP}})
	if err != nil {
		return err.Error(), nil //nolint:nilerr // a token that neither takes nor shows keys is only not compared
	}
	return "", nil
}

// wraps checks that a key comes back when it is wrapped and unwrapped.
func (k *wrapKeys) wraps(m wrapMechanism, t *target) check {
	return func(p *prober) (string, error) {
		if err := t.make(p); err != nil {
			return "", err
		}
		wrapped, err := p.wrap(m.code, k.under, t.handle)
		if err != nil {
			return "", err
		}
		must, may := t.template()
		unwrapped, err := p.unwrap(mechanismOf(m.code, nil), k.under, wrapped, must, may)
		if err != nil {
			return "", err
		}
		if err := t.same(unwrapped); err != nil {
			return "", fmt.Errorf("unwrapped to another key: %s", describe(err))
		}
		return k.record(p, m, t, wrapped)
	}
}

// record notes what a mechanism was seen to wrap and, from the 32-byte AES key, its format.
func (k *wrapKeys) record(p *prober, m wrapMechanism, t *target, wrapped []byte) (string, error) {
	i := slices.IndexFunc(p.caps.Wraps, func(w Wrap) bool { return w.Mechanism == m.name })
	w := &p.caps.Wraps[i]
	detail := fmt.Sprintf("%d bytes", len(wrapped))
	if t.name == string(hsm.AES256) {
		f, err := wrapFormatOf(m, wrapped)
		if err != nil {
			return "", err
		}
		remark, err := k.prove(p, m, f)
		if err != nil {
			return "", err
		}
		w.Bytes, w.Format = len(wrapped), f.name
		detail += ", " + string(f.name) + remark
	}
	w.Kinds = append(w.Kinds, t.name)
	return detail, nil
}

// wrapKW is AES Key Wrap without padding, RFC 3394, which no KeyRef has.
const wrapKW hsm.WrapFormat = "AES-KW"

// wrapFormat is an algorithm for wrapping keys.
type wrapFormat struct {
	name hsm.WrapFormat
	wrap func(block cipher.Block, key []byte) []byte
}

// wrapFormatOf tells what a mechanism does from a wrapped 32-byte key.
func wrapFormatOf(m wrapMechanism, wrapped []byte) (wrapFormat, error) {
	if m.code == p11.CKM_AES_KEY_WRAP {
		return wrapFormat{wrapKW, keyWrap}, nil
	}
	format, err := formatOf(wrapped)
	switch {
	case err != nil:
		return wrapFormat{}, err
	case format == hsm.WrapKWP:
		return wrapFormat{format, keyWrapPadded}, nil
	default:
		return wrapFormat{format, keyWrapPKCS7}, nil
	}
}

// prove compares the wrapping of a known key under a known key with Go's.
func (k *wrapKeys) prove(p *prober, m wrapMechanism, f wrapFormat) (string, error) {
	const unproven = " by its length"
	if k.known == 0 {
		return unproven, nil
	}
	handle, value, err := p.known(secret{keyType: p11.CKK_AES, size: aesKeySize, uses: []uint{p11.CKA_ENCRYPT}})
	if err != nil {
		return unproven, nil //nolint:nilerr // likewise
	}
	block, err := aes.NewCipher(k.value)
	if err != nil {
		return "", fmt.Errorf("using the token's key: %w", err)
	}
	wrapped, err := p.wrap(m.code, k.known, handle)
	if err != nil {
		return "", err
	}
	if !bytes.Equal(wrapped, f.wrap(block, value)) {
		return "", fmt.Errorf("not %s as its length says", f.name)
	}
	return "", nil
}

// target is a kind of key to wrap.
type target struct {
	name string
	// generate makes an extractable key and gives the test of whether another one is the same key.
	generate func(p *prober) (p11.ObjectHandle, func(other p11.ObjectHandle) error, error)
	// template of the unwrapped key.
	template func() (must, may []*p11.Attribute)

	handle p11.ObjectHandle
	same   func(p11.ObjectHandle) error
	err    error
}

// make makes the key at first need. One that cannot be made is not tried again.
func (t *target) make(p *prober) error {
	if t.handle == 0 && t.err == nil {
		t.handle, t.same, t.err = t.generate(p)
	}
	return t.err
}

// secretTargets are the secret keys to wrap.
func secretTargets() []*target {
	aesKey := secret{keyType: p11.CKK_AES, size: aesKeySize, uses: []uint{p11.CKA_ENCRYPT, p11.CKA_DECRYPT}, extractable: true}
	generic := secret{keyType: p11.CKK_GENERIC_SECRET, size: 32, uses: []uint{p11.CKA_SIGN}, extractable: true}
	return []*target{
		{name: string(hsm.AES256), template: aesKey.unwrapped, generate: func(p *prober) (p11.ObjectHandle, func(p11.ObjectHandle) error, error) {
			handle, err := p.generateSecret(aesKey)
			return handle, func(other p11.ObjectHandle) error { return p.sameAES(handle, other) }, err
		}},
		{name: "GENERIC_SECRET", template: generic.unwrapped, generate: func(p *prober) (p11.ObjectHandle, func(p11.ObjectHandle) error, error) {
			handle, err := p.generateSecret(generic)
			return handle, func(other p11.ObjectHandle) error { return p.sameMAC(handle, other) }, err
		}},
	}
}

// unwrapped gives the template of a key to be unwrapped.
func (k secret) unwrapped() (must, may []*p11.Attribute) {
	k.extractable = false
	return k.attributes()
}

// sameAES checks that one key decrypts what the other encrypted.
func (p *prober) sameAES(a, b p11.ObjectHandle) error {
	if p.caps.GCM.IV == "" {
		return errNotTried
	}
	o, plaintext, err := p.seal(loadedKey{handle: a}, 64)
	if err != nil {
		return err
	}
	return p.opens(loadedKey{handle: b}, o, plaintext)
}

// sameMAC checks that two keys make the same MAC.
func (p *prober) sameMAC(a, b p11.ObjectHandle) error {
	message, err := p.random(64)
	if err != nil {
		return err
	}
	first, err := p.sign(mechanismOf(p11.CKM_SHA256_HMAC, nil), a, message)
	if err != nil {
		return err
	}
	second, err := p.sign(mechanismOf(p11.CKM_SHA256_HMAC, nil), b, message)
	if err == nil && !bytes.Equal(first, second) {
		err = errWrongResult
	}
	return err
}

// privateTargets are the private keys to wrap.
func privateTargets() []*target {
	uses := []uint{p11.CKA_SIGN}
	rsaKey, ecKey := rsaSpec(2048), curves[0].spec()
	rsaKey.uses, ecKey.uses = uses, uses
	edKey := ed25519Template
	rsaKey.extractable, ecKey.extractable, edKey.extractable = true, true, true
	return []*target{
		{name: "RSA_2048", template: rsaKey.unwrapped, generate: func(p *prober) (p11.ObjectHandle, func(p11.ObjectHandle) error, error) {
			made, err := p.generatePair(rsaKey)
			return made.private, func(other p11.ObjectHandle) error { return p.signsRSA(pair{made.public, other}) }, err
		}},
		{name: curves[0].keySpec, template: ecKey.unwrapped, generate: func(p *prober) (p11.ObjectHandle, func(p11.ObjectHandle) error, error) {
			made, err := p.generatePair(ecKey)
			return made.private, func(other p11.ObjectHandle) error { return p.signsECDSA(curves[0], pair{made.public, other}) }, err
		}},
		{name: ed25519Spec, template: edKey.unwrapped, generate: func(p *prober) (p11.ObjectHandle, func(p11.ObjectHandle) error, error) {
			made, err := p.generateEd25519(edKey)
			return made.private, func(other p11.ObjectHandle) error { return p.signsEd25519(pair{made.public, other}) }, err
		}},
	}
}

// unwrapped gives the template of a private key to be unwrapped.
func (t template) unwrapped() (must, may []*p11.Attribute) {
	t.extractable = false
	return t.attributes()
}

// keyWrap is AES Key Wrap, RFC 3394, section 2.2.1, of a key of a multiple of 8 bytes.
func keyWrap(block cipher.Block, key []byte) []byte {
	return keyWrapIV(block, 0xa6a6a6a6a6a6a6a6, key)
}

// keyWrapPadded is AES Key Wrap with Padding, RFC 5649, section 4.1, of a key of more than 8 bytes.
func keyWrapPadded(block cipher.Block, key []byte) []byte {
	padded := append(slices.Clone(key), make([]byte, -len(key)&7)...)
	return keyWrapIV(block, 0xa65959a6<<32|uint64(len(key)), padded)
}

// keyWrapPKCS7 is what some modules make of CKM_AES_KEY_WRAP_PAD.
func keyWrapPKCS7(block cipher.Block, key []byte) []byte {
	n := 8 - len(key)%8
	return keyWrap(block, append(slices.Clone(key), bytes.Repeat([]byte{byte(n)}, n)...))
}

func keyWrapIV(block cipher.Block, iv uint64, key []byte) []byte {
	out := append(binary.BigEndian.AppendUint64(nil, iv), key...)
	n := len(key) / 8
	var b [16]byte
	for t := 1; t <= 6*n; t++ {
		r := out[8*((t-1)%n+1):][:8]
		copy(b[:8], out)
		copy(b[8:], r)
		block.Encrypt(b[:], b[:])
		binary.BigEndian.PutUint64(out, binary.BigEndian.Uint64(b[:8])^uint64(t))
		copy(r, b[8:])
	}
	return out
}
