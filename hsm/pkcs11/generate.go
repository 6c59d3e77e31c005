package pkcs11

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// aesKeySize is CKA_VALUE_LEN of an AES-256 key, in bytes.
const aesKeySize = 32

// ckmAESKeyWrapKWP is CKM_AES_KEY_WRAP_KWP of PKCS#11 3.0, which the binding's 2.40 headers lack.
const ckmAESKeyWrapKWP = 0x210B

// GenerateKey implements hsm.Token.
func (t *Token) GenerateKey(ctx context.Context, r hsm.KeyRequest) (hsm.KeyRef, error) {
	if err := checkKind(r); err != nil {
		return hsm.KeyRef{}, err
	}
	ref, id, err := t.name(r.Kind)
	if err != nil {
		return hsm.KeyRef{}, err
	}
	if importBits[r.Kind] > 0 {
		return t.makePair(ctx, ref, id, r.Label)
	}
	return t.makeKey(ctx, r.WrapUnder == "", func(s *session) (hsm.KeyRef, error) { return s.generateProven(ref, id, r) })
}

// makePair makes a key pair when it is its turn.
func (t *Token) makePair(ctx context.Context, ref hsm.KeyRef, id []byte, label string) (hsm.KeyRef, error) {
	w, err := t.importWays(ctx)
	if err != nil {
		return hsm.KeyRef{}, err
	}
	e := t.epoch.Load()
	if e == nil {
		return hsm.KeyRef{}, t.outage()
	}
	over, err := e.turn(ctx)
	if err != nil {
		return hsm.KeyRef{}, err
	}
	defer over()
	return t.makeKey(ctx, true, func(s *session) (hsm.KeyRef, error) { return s.generatePair(w, ref, id, label) })
}

// makeKey has the slow lane make a key.
func (t *Token) makeKey(ctx context.Context, once bool, generate func(*session) (hsm.KeyRef, error)) (hsm.KeyRef, error) {
	return do(ctx, t, &task[hsm.KeyRef]{
		once: once,
		slow: true,
		f:    generate,
		// A key whose maker has gone is nobody's. If it can't be destroyed it is an orphan, which Objects reports.
		discard: func(s *session, made hsm.KeyRef) { _ = s.keys.destroy(s, made) },
	})
}

// checkKind refuses kinds of keys that there are not, and homes that they do not have.
func checkKind(r hsm.KeyRequest) error {
	if r.Kind != hsm.AES256 && r.Kind != hsm.AES256Wrap && importBits[r.Kind] == 0 {
		return &hsm.Error{Class: hsm.Unsupported, Cause: fmt.Errorf("unknown kind of key %q", r.Kind)}
	}
	if r.Kind != hsm.AES256 && r.WrapUnder != "" {
		return &hsm.Error{Class: hsm.Unsupported, Cause: fmt.Errorf("a key of the kind %s must be an object of the token", r.Kind)}
	}
	return nil
}

// name gives a reference to a key that is still to be made, and its CKA_ID.
func (t *Token) name(kind hsm.KeyKind) (hsm.KeyRef, []byte, error) {
	id := make([]byte, keyIDSize)
	if _, err := io.ReadFull(t.cfg.Rand, id); err != nil {
		return hsm.KeyRef{}, nil, &hsm.Error{Class: hsm.Failed, Cause: fmt.Errorf("naming key: %w", err)}
	}
	return hsm.KeyRef{ID: hsm.KeyID(hex.EncodeToString(id)), Kind: kind}, id, nil
}

func (s *session) generateProven(ref hsm.KeyRef, id []byte, r hsm.KeyRequest) (hsm.KeyRef, error) {
	made, err := s.generate(ref, id, r)
	if err != nil {
		return hsm.KeyRef{}, err
	}
	if made.Proof, err = s.prove(made); err != nil {
		_ = s.keys.destroy(s, made)
		return hsm.KeyRef{}, fmt.Errorf("testing a new key: %w", err)
	}
	return made, nil
}

func (s *session) generate(ref hsm.KeyRef, id []byte, r hsm.KeyRequest) (made hsm.KeyRef, err error) {
	if r.WrapUnder == "" {
		return s.generateObject(ref, id, r)
	}
	err = s.keys.anew(func() error {
		made, err = s.generateWrapped(ref, id, r)
		return err
	}, r.WrapUnder)
	return made, err
}

func (s *session) generateObject(ref hsm.KeyRef, id []byte, r hsm.KeyRequest) (hsm.KeyRef, error) {
	s.keys.objectsMu.Lock()
	defer s.keys.objectsMu.Unlock()
	handle, err := s.generateKey(template{kind: r.Kind, id: id, label: r.Label, persistent: true})
	if err != nil {
		return hsm.KeyRef{}, err
	}
	s.keys.know(ref.ID, handle)
	return ref, nil
}

func (s *session) generateWrapped(ref hsm.KeyRef, id []byte, r hsm.KeyRequest) (hsm.KeyRef, error) {
	domain, err := s.keys.object(s, r.WrapUnder)
	if err != nil {
		return hsm.KeyRef{}, fmt.Errorf("finding the wrapping key: %w", err)
	}
	s.keys.objectsMu.Lock() // a search would not bear a session object that comes or goes
	defer s.keys.objectsMu.Unlock()
	handle, err := s.generateKey(template{kind: r.Kind, id: id, label: r.Label, extractable: true})
	if err != nil {
		return hsm.KeyRef{}, err
	}
	defer func() { _ = s.destroy(handle) }() // a session object: gone with the session at the latest
	ref.WrappedBy = r.WrapUnder
	ref.WrapFormat, ref.Wrapped, err = s.wrap(domain, handle)
	return ref, err
}

// prove shows that the key does what it is for, and gives the KeyRef.Proof of one that encrypts. SoftHSM can leave a key
// that is found but has no value.
func (s *session) prove(ref hsm.KeyRef) ([]byte, error) {
	if ref.Kind == hsm.AES256Wrap {
		return nil, s.proveWrap(ref)
	}
	key, err := s.keys.acquire(s, ref)
	if err != nil {
		return nil, err
	}
	defer s.keys.release(key)
	return s.makeProof(key)
}

func (s *session) proveWrap(ref hsm.KeyRef) error {
	object, err := s.keys.object(s, ref.ID)
	if err != nil {
		return err
	}
	s.keys.objectsMu.Lock()
	defer s.keys.objectsMu.Unlock()
	handle, err := s.generateKey(template{kind: hsm.AES256, extractable: true})
	if err != nil {
		return err
	}
	defer func() { _ = s.destroy(handle) }()
	_, _, err = s.wrap(object, handle)
	return err
}

// DestroyKey implements hsm.Token.
func (t *Token) DestroyKey(ctx context.Context, ref hsm.KeyRef) error {
	_, err := do(ctx, t, &task[struct{}]{slow: true, f: func(s *session) (struct{}, error) {
		return struct{}{}, s.keys.destroy(s, ref)
	}})
	return err
}

func (k *keys) destroy(s *session, ref hsm.KeyRef) error {
	if len(ref.Wrapped) > 0 {
		k.forget(ref.ID)
		return nil
	}
	err := k.anew(func() error { return k.destroyObject(s, ref.ID) }, ref.ID)
	if hsm.ClassOf(err) == hsm.KeyMissing {
		return nil
	}
	return err
}

// destroyObject destroys first and forgets then, so that no use in between can load the key again.
func (k *keys) destroyObject(s *session, id hsm.KeyID) error {
	object, err := k.object(s, id)
	if err != nil {
		return err
	}
	k.objectsMu.Lock()
	defer k.objectsMu.Unlock()
	err = s.destroy(object)
	k.forget(id)
	return err
}

// Kinds of keys that live on the token for the time of an import.
const (
	// kindCarrier is imported material until it is seen to be an AES-256 key. It may only encrypt.
	kindCarrier hsm.KeyKind = "carrier"
	// kindUntyped is imported material that makes no AES key. It may do nothing.
	kindUntyped hsm.KeyKind = "untyped"
	// kindTransport is the AES key over imported material. It may only unwrap.
	kindTransport hsm.KeyKind = "transport"
)

// template describes a secret key object.
type template struct {
	kind        hsm.KeyKind
	id          []byte
	label       string
	persistent  bool
	extractable bool
	unlabelled  bool // without a label, nobody takes it for one of ours
}

// flag is a boolean attribute or one that is a number.
type flag = [2]uint

func boolean(kind uint, on bool) flag {
	if on {
		return flag{kind, 1}
	}
	return flag{kind, 0}
}

// numbers gives the attributes that are numbers.
func (t template) numbers() []flag {
	keyType := uint(p11.CKK_AES)
	if t.kind == kindUntyped {
		keyType = p11.CKK_GENERIC_SECRET // which may have any length
	}
	return []flag{{p11.CKA_CLASS, p11.CKO_SECRET_KEY}, {p11.CKA_KEY_TYPE, keyType}}
}

// booleans gives every boolean attribute, because the defaults differ between makes (NSS and opencryptoki make keys
// extractable); those that some makes do not know may be left out.
func (t template) booleans() (must, may []flag) {
	crypts, wraps := t.kind == hsm.AES256, t.kind == hsm.AES256Wrap
	must = []flag{
		boolean(p11.CKA_TOKEN, t.persistent),
		boolean(p11.CKA_PRIVATE, true),
		boolean(p11.CKA_SENSITIVE, true),
		boolean(p11.CKA_EXTRACTABLE, t.extractable),
		boolean(p11.CKA_ENCRYPT, crypts || t.kind == kindCarrier),
		boolean(p11.CKA_DECRYPT, crypts),
		boolean(p11.CKA_WRAP, wraps),
		boolean(p11.CKA_UNWRAP, wraps || t.kind == kindTransport),
	}
	may = []flag{boolean(p11.CKA_SIGN, false), boolean(p11.CKA_VERIFY, false), boolean(p11.CKA_DERIVE, false)}
	return must, may
}

// attributes gives the object's attributes for the binding.
func (t template) attributes() (must, may []*p11.Attribute) {
	for _, n := range t.numbers() {
		must = append(must, p11.NewAttribute(n[0], n[1]))
	}
	mustBe, mayBe := t.booleans()
	for _, b := range mustBe {
		must = append(must, p11.NewAttribute(b[0], b[1] == 1))
	}
	for _, b := range mayBe {
		may = append(may, p11.NewAttribute(b[0], b[1] == 1))
	}
	if !t.unlabelled {
		must = append(must, p11.NewAttribute(p11.CKA_LABEL, labelPrefix+t.label))
	}
	if t.id != nil {
		must = append(must, p11.NewAttribute(p11.CKA_ID, t.id))
	}
	return must, may
}

// make calls f with all attributes, and without the optional ones if the token does not take them.
func (t template) make(f func([]*p11.Attribute) error) error {
	must, may := t.attributes()
	err := f(append(must[:len(must):len(must)], may...))
	if isCode(err, p11.CKR_ATTRIBUTE_TYPE_INVALID, p11.CKR_ATTRIBUTE_VALUE_INVALID, p11.CKR_TEMPLATE_INCONSISTENT, p11.CKR_ARGUMENTS_BAD) {
		err = f(must)
	}
	return err
}

func (s *session) generateKey(t template) (p11.ObjectHandle, error) {
	var handle p11.ObjectHandle
	mechanism := []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_KEY_GEN, nil)}
	err := t.make(func(attributes []*p11.Attribute) error {
		attributes = append(attributes, p11.NewAttribute(p11.CKA_VALUE_LEN, aesKeySize))
		return s.m.call("C_GenerateKey", func() (err error) {
			handle, err = s.m.ctx.GenerateKey(s.handle, mechanism, attributes)
			return err
		})
	})
	if err != nil {
		return 0, fmt.Errorf("generating key: %w", err)
	}
	return handle, nil
}

// wrap wraps an extractable key under another and tells the format.
func (s *session) wrap(under, key p11.ObjectHandle) (hsm.WrapFormat, []byte, error) {
	var first error
	for _, mechanism := range []uint{p11.CKM_AES_KEY_WRAP_PAD, ckmAESKeyWrapKWP} {
		wrapped, err := s.wrapWith(mechanism, under, key)
		if err == nil {
			format, err := formatOf(wrapped)
			s.keys.learn(format, mechanism)
			return format, wrapped, err
		}
		if first == nil {
			first = err
		}
	}
	return "", nil, fmt.Errorf("wrapping key: %w", first)
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

func (k *keys) learn(format hsm.WrapFormat, mechanism uint) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.wraps == nil {
		k.wraps = map[hsm.WrapFormat]uint{}
	}
	k.wraps[format] = mechanism
}

// mechanism gives the mechanism that this token has for a format, trying it out on the wrapping key at first need. The
// caller holds anchorMu.
func (k *keys) mechanism(format hsm.WrapFormat, under p11.ObjectHandle) (uint, error) {
	known := func() (uint, bool) {
		k.mu.Lock()
		defer k.mu.Unlock()
		m, ok := k.wraps[format]
		return m, ok
	}
	if m, ok := known(); ok {
		return m, nil
	}
	handle, err := k.anchor.generateKey(template{kind: hsm.AES256, extractable: true})
	if err != nil {
		return 0, err
	}
	defer func() { _ = k.anchor.destroy(handle) }()
	if _, _, err := k.anchor.wrap(under, handle); err != nil {
		return 0, err
	}
	if m, ok := known(); ok {
		return m, nil
	}
	return 0, &hsm.Error{Class: hsm.Unsupported, Cause: fmt.Errorf("the token cannot unwrap the format %s", format)}
}

// unwrap makes a sensitive, non-extractable session object of wrapped key material. It has no label, which SoftHSM would
// take its time to encrypt.
func (s *session) unwrap(mechanism uint, under p11.ObjectHandle, ref hsm.KeyRef) (p11.ObjectHandle, error) {
	id, err := ckaID(ref.ID)
	if err != nil {
		return 0, err
	}
	handle, err := s.unwrapAs(template{kind: ref.Kind, id: id, unlabelled: true}, mechanismOf(mechanism, nil), under, ref.Wrapped)
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

// copyToSession makes a session object of a persistent one, with the same protection.
func (s *session) copyToSession(object p11.ObjectHandle) (p11.ObjectHandle, error) {
	var handle p11.ObjectHandle
	err := s.m.call("C_CopyObject", func() (err error) {
		handle, err = s.m.ctx.CopyObject(s.handle, object, []*p11.Attribute{p11.NewAttribute(p11.CKA_TOKEN, false)})
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("copying key to the session: %w", err)
	}
	return handle, nil
}

func (s *session) destroy(object p11.ObjectHandle) error {
	err := s.m.call("C_DestroyObject", func() error { return s.m.ctx.DestroyObject(s.handle, object) })
	if err != nil {
		return fmt.Errorf("destroying object: %w", err)
	}
	return nil
}
