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
// comes as a carrier, an extractable AES key of whatever length. It is wrapped under the gate, a throw-away key, to find out
// its length and to become the key that was asked for.
type landing struct {
	s      *session
	ways   *ways
	under  p11.ObjectHandle
	public *rsa.PublicKey
	gate   p11.ObjectHandle
	made   []p11.ObjectHandle
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

// clear destroys what the landing has made. What can't be destroyed goes with the session.
func (l *landing) clear() {
	if l == nil {
		return
	}
	for _, object := range l.made {
		_ = l.s.destroy(object)
	}
	l.made = nil
}

// carrier decrypts material on one of its routes. A token may refuse to make an AES key of a length that AES has not; what it
// makes a key without a type of was decrypted all the same.
func (l *landing) carrier(via way, material []byte) (p11.ObjectHandle, error) {
	carrier, err := l.decrypt(via, template{kind: kindCarrier, label: "import", extractable: true}, material)
	if via.route == hsm.OnToken && undecided(err) {
		if _, other := l.decrypt(via, template{kind: kindUntyped, label: "import"}, material); other == nil {
			return 0, errLength
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
	return l.keep(l.s.unwrapAs(t, mechanismOf(l.ways.kwp, nil), key, material[n:]))
}

// undoOAEP makes an object of what is encrypted to the key pair.
func (l *landing) undoOAEP(via way, t template, ciphertext []byte) (p11.ObjectHandle, error) {
	h := oaepHashes[via.wrap]
	if via.route == hsm.OnToken {
		return l.keep(l.s.unwrapAs(t, mechanismOf(p11.CKM_RSA_PKCS_OAEP, h.oaepParams()), l.under, ciphertext))
	}
	defer clear(l.s.scratch)
	n, err := l.s.decryptRaw(l.under, ciphertext, l.s.scratch)
	if err != nil {
		return 0, err
	}
	value, err := decodeOAEP(l.s.scratch[:n], h.hash)
	if err != nil {
		return 0, err
	}
	if t.kind == kindCarrier && len(value) != aesKeySize {
		return 0, errLength
	}
	return l.keep(l.s.create(t, value))
}

// errLength says that decrypted material is no AES-256 key.
var errLength = &hsm.Error{Class: hsm.WrongMaterial, Cause: errors.New("key material of another length than 32 bytes")}

// someBlock is encrypted to see whether a key works. That it is not all zeros matters: their encryption is the hash key of
// AES-GCM.
var someBlock = [aes.BlockSize]byte{1}

// inspect sees whether the carrier holds an AES-256 key, and gives it wrapped under the gate.
//
// The length of a key is not to be had by asking: SoftHSM answers 0. Wrapped under the gate it has the right length for 25 to
// 32 bytes (RFC 5649) or 32 to 39 (PKCS#7), and of these only 32 make a key that AES works with. It must be the carrier that
// is tried: SoftHSM fills up with zeros what it wraps.
func (l *landing) inspect(carrier p11.ObjectHandle) ([]byte, error) {
	wrapped, err := l.s.wrapWith(l.ways.wrap, l.gate, carrier)
	if err != nil {
		return nil, err
	}
	if len(wrapped) != l.ways.size {
		return nil, errLength
	}
	_, err = l.s.encryptECB(carrier, someBlock[:])
	return wrapped, err
}

// verdict decides what a failure with a caller's material means, for codes say little (SoftHSM has CKR_GENERAL_ERROR for
// most): if the token imports a key of ours in the same way, the material is to blame, and the failure is of the class that
// is given. It is asked whatever the code, so that the time taken does not tell codes apart.
func (l *landing) verdict(via way, err error, class hsm.Class) error {
	if !undecided(err) {
		return err
	}
	test := l.rehearse(via)
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

// create makes a session object of key bytes, which are the caller's to wipe.
func (s *session) create(t template, value []byte) (p11.ObjectHandle, error) {
	if len(value) == 0 {
		return 0, &hsm.Error{Class: hsm.BadInput, Cause: errors.New("a key of no length")}
	}
	must, may := t.booleans()
	create := func(booleans []flag) (p11.ObjectHandle, error) {
		start := time.Now()
		handle, rv := s.m.direct.create(creation{session: s.handle, numbers: t.numbers(), booleans: booleans, value: value})
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
