package pkcs11

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// aesKeySize is CKA_VALUE_LEN of an AES-256 key, in bytes.
const aesKeySize = 32

// GenerateKey implements hsm.Token.
func (t *Token) GenerateKey(ctx context.Context, r hsm.KeyRequest) (hsm.KeyRef, error) {
	k, err := checkKind(r)
	if err != nil {
		return hsm.KeyRef{}, err
	}
	ref, id, err := t.name(r.Kind)
	if err != nil {
		return hsm.KeyRef{}, err
	}
	if importBits[r.Kind] > 0 {
		return t.makeImportPair(ctx, ref, id, r.Label)
	}
	var a ability
	if k.proven() {
		if a, err = t.ability(ctx, r.Kind); err != nil {
			return hsm.KeyRef{}, err
		}
		if len(a.Algorithms) == 0 {
			return hsm.KeyRef{}, &hsm.Error{Class: hsm.Unsupported, Cause: fmt.Errorf("the token cannot carry keys of the kind %s", r.Kind)}
		}
		if !a.Wraps {
			r.WrapUnder = ""
		}
	}
	return inTurn(ctx, t, k.slow(), func() (hsm.KeyRef, error) {
		return t.makeKey(ctx, r.WrapUnder == "", func(s *session) (hsm.KeyRef, error) { return s.generateProven(a, ref, id, r) })
	})
}

// makeImportPair makes a key pair that material is imported under.
func (t *Token) makeImportPair(ctx context.Context, ref hsm.KeyRef, id []byte, label string) (hsm.KeyRef, error) {
	w, err := t.importWays(ctx)
	if err != nil {
		return hsm.KeyRef{}, err
	}
	return inTurn(ctx, t, true, func() (hsm.KeyRef, error) {
		return t.makeKey(ctx, true, func(s *session) (hsm.KeyRef, error) { return s.generateImportPair(w, ref, id, label) })
	})
}

// inTurn calls f, and if that is slow, when it is its turn; see epoch.turn.
func inTurn[T any](ctx context.Context, t *Token, slow bool, f func() (T, error)) (T, error) {
	if !slow {
		return f()
	}
	var none T
	e := t.epoch.Load()
	if e == nil {
		return none, t.outage()
	}
	over, err := e.turn(ctx)
	if err != nil {
		return none, err
	}
	defer over()
	return f()
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
func checkKind(r hsm.KeyRequest) (kind, error) {
	k := kinds[r.Kind]
	if !k.generated() {
		return k, &hsm.Error{Class: hsm.Unsupported, Cause: fmt.Errorf("unknown kind of key %q", r.Kind)}
	}
	if (r.Kind == hsm.AES256Wrap || importBits[r.Kind] > 0) && r.WrapUnder != "" {
		return k, &hsm.Error{Class: hsm.Unsupported, Cause: fmt.Errorf("a key of the kind %s must be an object of the token", r.Kind)}
	}
	return k, nil
}

// name gives a reference to a key that is still to be made, and its CKA_ID.
func (t *Token) name(kind hsm.KeyKind) (hsm.KeyRef, []byte, error) {
	id := make([]byte, keyIDSize)
	if _, err := io.ReadFull(t.cfg.Rand, id); err != nil {
		return hsm.KeyRef{}, nil, &hsm.Error{Class: hsm.Failed, Cause: fmt.Errorf("naming key: %w", err)}
	}
	return hsm.KeyRef{ID: hsm.KeyID(hex.EncodeToString(id)), Kind: kind}, id, nil
}

func (s *session) generateProven(a ability, ref hsm.KeyRef, id []byte, r hsm.KeyRequest) (hsm.KeyRef, error) {
	made, err := s.generate(a, ref, id, r)
	if err != nil {
		return hsm.KeyRef{}, err
	}
	if made.Proof, err = s.prove(a, made); err != nil {
		_ = s.keys.destroy(s, made)
		return hsm.KeyRef{}, fmt.Errorf("testing a new key: %w", err)
	}
	return made, nil
}

func (s *session) generate(a ability, ref hsm.KeyRef, id []byte, r hsm.KeyRequest) (made hsm.KeyRef, err error) {
	t := template{kind: r.Kind, form: a.form, id: id, label: r.Label, persistent: r.WrapUnder == "", extractable: r.WrapUnder != ""}
	if t.persistent {
		return s.generateObject(t, ref)
	}
	err = s.keys.anew(func() error {
		made, err = s.generateWrapped(t, ref, r.WrapUnder)
		return err
	}, r.WrapUnder)
	return made, err
}

func (s *session) generateObject(t template, ref hsm.KeyRef) (hsm.KeyRef, error) {
	s.keys.objectsMu.Lock()
	defer s.keys.objectsMu.Unlock()
	handle, public, err := s.makeOne(t)
	if err != nil {
		return hsm.KeyRef{}, err
	}
	ref.Public = public
	s.keys.know(ref.ID, handle)
	return ref, nil
}

func (s *session) generateWrapped(t template, ref hsm.KeyRef, under hsm.KeyID) (hsm.KeyRef, error) {
	domain, err := s.keys.object(s, under)
	if err != nil {
		return hsm.KeyRef{}, fmt.Errorf("finding the wrapping key: %w", err)
	}
	s.keys.objectsMu.Lock() // a search would not bear a session object that comes or goes
	defer s.keys.objectsMu.Unlock()
	handle, public, err := s.makeOne(t)
	if err != nil {
		return hsm.KeyRef{}, err
	}
	defer func() { _ = s.destroy(handle) }() // a session object: gone with the session at the latest
	ref.Public, ref.WrappedBy = public, under
	ref.WrapFormat, ref.Wrapped, err = s.wrap(domain, handle)
	return ref, err
}

// makeOne makes a key of any kind; of a key pair it gives the private key and, in DER, the public one. The caller holds
// objectsMu.
func (s *session) makeOne(t template) (p11.ObjectHandle, []byte, error) {
	if !kinds[t.kind].pair() {
		handle, err := s.generateKey(t)
		return handle, nil, err
	}
	return s.makePair(t)
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

// generateKey makes a secret key.
func (s *session) generateKey(t template) (p11.ObjectHandle, error) {
	var handle p11.ObjectHandle
	k := kinds[t.kind]
	err := t.make(func(attributes []*p11.Attribute) error {
		attributes = append(attributes, p11.NewAttribute(p11.CKA_VALUE_LEN, k.size))
		return s.m.call("C_GenerateKey", func() (err error) {
			handle, err = s.m.ctx.GenerateKey(s.handle, mechanismOf(k.forms[t.form].mechanism, nil), attributes)
			return err
		})
	})
	if err != nil {
		return 0, fmt.Errorf("generating key: %w", err)
	}
	return handle, nil
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
