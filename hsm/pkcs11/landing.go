package pkcs11

import (
	"crypto/aes"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"time"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// landing is where imported material arrives: session objects of one session, all of which clear destroys. The material
// comes as a carrier, an extractable key whose length or form is still to be seen. It is wrapped under the gate, a throw-away
// key, to become the key that was asked for; see value for those that are not.
type landing struct {
	s      *session
	ways   *ways
	under  p11.ObjectHandle
	public *rsa.PublicKey
	gate   p11.ObjectHandle
	made   []p11.ObjectHandle
	// value is the part of the scratch that is a private key of Edwards form, if the process has seen it: the key is made of
	// it once more, for tokens may not wrap such keys.
	value []byte
}

// newLanding makes the gate. The caller holds objectsMu and clears the landing in any case, error or not.
func (s *session) newLanding(w *ways, under p11.ObjectHandle, public *rsa.PublicKey) (*landing, error) {
	l := &landing{s: s, ways: w, under: under, public: public}
	var err error
	l.gate, err = l.keep(s.generateKey(template{kind: hsm.AES256Wrap, label: "import"}))
	return l, err
}

// keep remembers an object to destroy.
func (l *landing) keep(object p11.ObjectHandle, err error) (p11.ObjectHandle, error) {
	if err == nil {
		l.made = append(l.made, object)
	}
	return object, err
}

// clear destroys what the landing has made, and wipes what it has decrypted. What can't be destroyed goes with the session.
func (l *landing) clear() {
	if l == nil {
		return
	}
	clear(l.s.scratch)
	l.value = nil
	for _, object := range l.made {
		_ = l.s.destroy(object)
	}
	l.made = nil
}

// carrier decrypts material on one of its routes. A token may refuse to make a key of a kind of what is none; what it makes a
// key without a type of was decrypted all the same.
func (l *landing) carrier(via way, kind hsm.KeyKind, material []byte) (p11.ObjectHandle, error) {
	l.value = nil
	carrier, err := l.decrypt(via, l.s.carrierOf(kind), material)
	if (via.route == hsm.OnToken || transported(via.wrap)) && !via.read && undecided(err) {
		if _, other := l.decrypt(via, template{kind: kindUntyped, label: "import"}, material); other == nil {
			return 0, errMaterial
		}
	}
	return carrier, err
}

// decrypt makes an object of material.
func (l *landing) decrypt(via way, t template, material []byte) (p11.ObjectHandle, error) {
	if !transported(via.wrap) {
		return l.undoOAEP(via, t, material)
	}
	n := l.public.Size()
	key, err := l.undoOAEP(via, template{kind: kindTransport, label: "import"}, material[:n])
	if err != nil {
		return 0, err
	}
	if via.read {
		return l.readAndCreate(t, key, material[n:])
	}
	return l.keep(l.s.unwrapAs(t, mechanismOf(l.ways.kwp, nil), key, material[n:]))
}

// readAndCreate makes an object of material that is wrapped under key, by way of the process: the token unwraps it as a secret
// that may be read. So the process needs neither the AES key nor its schedule, which nobody could wipe.
func (l *landing) readAndCreate(t template, key p11.ObjectHandle, wrapped []byte) (p11.ObjectHandle, error) {
	secret, err := l.keep(l.s.unwrapAs(template{kind: kindUntyped, label: "import", readable: true}, mechanismOf(l.ways.kwp, nil), key, wrapped))
	if err != nil {
		return 0, err
	}
	if len(wrapped) > len(l.s.scratch) {
		return 0, errMaterial
	}
	var n int
	err = twice(func() (err error) { // what was unwrapped is not spoilt, and must not pass for it by chance
		n, err = l.s.readUpTo(secret, p11.CKA_VALUE, l.s.scratch)
		return err
	})
	if err != nil {
		return 0, err
	}
	return l.create(t, l.s.scratch[:n])
}

// undoOAEP makes an object of what is encrypted to the key pair. What the process has to decrypt stays in scratch.
func (l *landing) undoOAEP(via way, t template, ciphertext []byte) (p11.ObjectHandle, error) {
	h := oaepHashes[via.wrap]
	if via.route == hsm.OnToken {
		return l.keep(l.s.unwrapAs(t, mechanismOf(p11.CKM_RSA_PKCS_OAEP, h.oaepParams()), l.under, ciphertext))
	}
	n, err := l.s.decryptRaw(l.under, ciphertext, l.s.scratch)
	if err != nil {
		return 0, err
	}
	value, err := decodeOAEP(l.s.scratch[:n], h.hash)
	if err != nil {
		return 0, err
	}
	return l.create(t, value)
}

// create makes an object of decrypted material, which is in scratch.
func (l *landing) create(t template, material []byte) (p11.ObjectHandle, error) {
	value, err := keyValue(t.kind, material)
	if err != nil {
		return 0, err
	}
	if kinds[t.kind].edwards() {
		l.value = value
	}
	return l.keep(l.s.create(t, value))
}

// final makes the key, as t describes it, of a carrier that was inspected.
func (l *landing) final(t template, found identity) (p11.ObjectHandle, error) {
	if l.value != nil {
		return l.s.create(t, l.value)
	}
	return l.s.unwrapAs(t, mechanismOf(l.ways.wrap, nil), l.gate, found.wrapped)
}

// keyValue gives CKA_VALUE of a key of a kind: a part of its material.
func keyValue(kind hsm.KeyKind, material []byte) ([]byte, error) {
	k := kinds[kind]
	switch {
	case kind == kindTransport: // of which the token looks at the length
		return material, nil
	case k.pair():
		return privateNumber(k, material)
	case len(material) != k.size:
		return nil, errMaterial
	default:
		return material, nil
	}
}

// errMaterial says that decrypted material is no key of the kind that was asked for.
var errMaterial = &hsm.Error{Class: hsm.WrongMaterial, Cause: errors.New("key material of the wrong length or form")}

// verdict decides what a failure with a caller's material means, for codes say little (SoftHSM has CKR_GENERAL_ERROR for
// most): if the token imports a key of ours in the same way, the material is to blame, and the failure is of the class that
// is given. It is asked whatever the code, so that the time taken does not tell codes apart.
func (l *landing) verdict(via way, kind hsm.KeyKind, err error, class hsm.Class) error {
	if !undecided(err) {
		return err
	}
	test := l.rehearse(via, kind)
	switch {
	case test == nil:
		return reclassed(err, class)
	case vague(test) || suspect(test):
		return &hsm.Error{Class: hsm.TokenGone, Cause: test}
	default:
		return &hsm.Error{Class: hsm.Failed, Cause: test}
	}
}

// undecided tells whether a failure may be due to the material as well as to the token.
func undecided(err error) bool {
	switch hsm.ClassOf(err) {
	case hsm.BadInput, hsm.Unsupported, hsm.Failed:
		return true
	default:
		return false
	}
}

// decryptRaw is the bare RSA operation. out gets as many bytes as the modulus has, and is the caller's to wipe.
func (s *session) decryptRaw(key p11.ObjectHandle, in, out []byte) (int, error) {
	start := time.Now()
	n, function, rv := s.m.direct.decryptBare(bare{session: s.handle, key: key, mechanism: p11.CKM_RSA_X_509, in: in, out: out})
	if err := s.observe(function, rv, start); err != nil {
		return 0, err
	}
	if n != len(in) {
		return 0, &hsm.Error{Class: hsm.Failed, Function: function, Cause: fmt.Errorf("%d bytes from an RSA operation of %d", n, len(in))}
	}
	return n, nil
}

// create makes an object of key bytes, which are the caller's to wipe.
func (s *session) create(t template, value []byte) (p11.ObjectHandle, error) {
	if len(value) == 0 {
		return 0, &hsm.Error{Class: hsm.BadInput, Cause: errors.New("a key of no length")}
	}
	must, may := t.booleans()
	create := func(booleans []flag) (p11.ObjectHandle, error) {
		start := time.Now()
		handle, rv := s.m.direct.create(creation{session: s.handle, numbers: t.numbers(), booleans: booleans, texts: t.texts(), value: value})
		return handle, s.observe("C_CreateObject", rv, start)
	}
	handle, err := create(append(must[:len(must):len(must)], may...))
	if refusedTemplate(err) {
		handle, err = create(must)
	}
	return handle, err
}

// encryptECB encrypts whole blocks, each by itself.
func (s *session) encryptECB(key p11.ObjectHandle, blocks []byte) ([]byte, error) {
	out := make([]byte, len(blocks)+aes.BlockSize) // some modules ask for room for padding
	start := time.Now()
	n, function, rv := s.m.direct.encryptBare(bare{session: s.handle, key: key, mechanism: p11.CKM_AES_ECB, in: blocks, out: out})
	if err := s.observe(function, rv, start); err != nil {
		return nil, err
	}
	if n != len(blocks) {
		return nil, &hsm.Error{Class: hsm.Failed, Function: function, Cause: fmt.Errorf("%d bytes from %d in CKM_AES_ECB", n, len(blocks))}
	}
	return out[:n], nil
}

// encryptTo encrypts material as a caller does who imports it.
func encryptTo(public *rsa.PublicKey, wrap hsm.ImportWrap, material []byte) ([]byte, error) {
	h := oaepHashes[wrap]
	if !transported(wrap) {
		return rsa.EncryptOAEP(h.hash.New(), rand.Reader, public, material, nil)
	}
	key := make([]byte, aesKeySize)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	encrypted, err := rsa.EncryptOAEP(h.hash.New(), rand.Reader, public, key, nil)
	return append(encrypted, keyWrapPadded(block, material)...), err
}
