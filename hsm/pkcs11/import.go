package pkcs11

import (
	"bytes"
	"context"
	"crypto/rsa"
	"errors"
	"fmt"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// maxTransported bounds material under an AES key, in bytes, so that no caller has the token work on megabytes.
const maxTransported = 8192

// ImportKey implements hsm.Token.
func (t *Token) ImportKey(ctx context.Context, r hsm.ImportRequest) (hsm.Imported, error) {
	trial := importKinds[r.Kind]
	if trial == "" {
		return hsm.Imported{}, &hsm.Error{Class: hsm.Unsupported, Cause: fmt.Errorf("material for a key of the kind %q is not imported", r.Kind)}
	}
	public, err := publicOf(r.Under)
	if err != nil {
		return hsm.Imported{}, err
	}
	w, err := t.importWays(ctx)
	if err != nil {
		return hsm.Imported{}, err
	}
	path, ok := w.paths[trial][r.Wrap]
	if !ok {
		return hsm.Imported{}, &hsm.Error{Class: hsm.Unsupported, Cause: fmt.Errorf("the token has no way, or may not take one, of importing what is encrypted by %q", r.Wrap)}
	}
	if err := checkMaterial(r, public); err != nil {
		return hsm.Imported{}, err
	}
	able, err := t.carries(ctx, r.Kind)
	if err != nil {
		return hsm.Imported{}, err
	}
	if kinds[r.Kind].proven() && !able.Wraps {
		r.WrapUnder = ""
	}
	ref, id, err := t.name(r.Kind)
	if err != nil {
		return hsm.Imported{}, err
	}
	i := &importing{request: r, ways: w, via: way{r.Wrap, path}, able: able, public: public, ref: ref, id: id}
	i.task = task[hsm.Imported]{
		slow:    true,
		f:       i.run,
		discard: func(s *session, made hsm.Imported) { _ = s.keys.destroy(s, made.Key) },
	}
	return do(ctx, t, &i.task)
}

// carries gives what the token was seen to do with keys of a kind, and fails if that is nothing.
func (t *Token) carries(ctx context.Context, kind hsm.KeyKind) (ability, error) {
	if !kinds[kind].proven() {
		return ability{}, nil
	}
	able, err := t.ability(ctx, kind)
	if err == nil && len(able.Algorithms) == 0 {
		err = &hsm.Error{Class: hsm.Unsupported, Cause: fmt.Errorf("the token cannot carry keys of the kind %s", kind)}
	}
	return able, err
}

// checkMaterial refuses what cannot be decrypted by its length or, as a number, by its size.
func checkMaterial(r hsm.ImportRequest, public *rsa.PublicKey) error {
	rest := len(r.Material) - public.Size()
	bad := rest != 0
	if transported(r.Wrap) { // RFC 5649: two blocks of 8 bytes at least
		bad = rest < 16 || rest%8 != 0 || rest > maxTransported
	}
	if bad {
		return &hsm.Error{Class: hsm.BadInput, Cause: errors.New("encrypted material of a length that it cannot have")}
	}
	if bytes.Compare(r.Material[:public.Size()], public.N.FillBytes(make([]byte, public.Size()))) >= 0 {
		return &hsm.Error{Class: hsm.BadInput, Cause: errors.New("encrypted material that is not below the modulus")}
	}
	return nil
}

// importing is one call of ImportKey.
type importing struct {
	request hsm.ImportRequest
	ways    *ways
	via     way
	able    ability
	public  *rsa.PublicKey
	ref     hsm.KeyRef
	id      []byte
	task    task[hsm.Imported]
}

// run is the task: the making of the key, its proof and its fingerprint.
func (i *importing) run(s *session) (hsm.Imported, error) {
	var made hsm.KeyRef
	var evidence []byte
	err := s.keys.anew(func() (err error) {
		made, evidence, err = i.make(s)
		return err
	}, i.request.Under.ID, i.request.WrapUnder)
	if err != nil {
		return hsm.Imported{}, fmt.Errorf("importing key: %w", err)
	}
	if made.Proof, err = i.prove(s, made, evidence); err != nil {
		_ = s.keys.destroy(s, made)
		return hsm.Imported{}, fmt.Errorf("testing an imported key: %w", err)
	}
	return hsm.Imported{Key: made, Fingerprint: fingerprint(i.request.Nonce, evidence)}, nil
}

func (i *importing) make(s *session) (made hsm.KeyRef, evidence []byte, err error) {
	under, err := s.keys.object(s, i.request.Under.ID)
	if err != nil {
		return made, nil, fmt.Errorf("finding the key that the material is encrypted to: %w", err)
	}
	var domain p11.ObjectHandle
	if i.request.WrapUnder != "" {
		if domain, err = s.keys.object(s, i.request.WrapUnder); err != nil {
			return made, nil, fmt.Errorf("finding the wrapping key: %w", err)
		}
	}
	s.keys.objectsMu.Lock() // a search would not bear session objects that come and go
	defer s.keys.objectsMu.Unlock()
	l, err := s.newLanding(i.ways, under, i.public)
	defer l.clear()
	if err != nil {
		return made, nil, err
	}
	carrier, err := l.carrier(i.via, i.ref.Kind, i.request.Material)
	if err != nil {
		return made, nil, l.verdict(i.via, i.ref.Kind, err, hsm.BadInput)
	}
	found, err := l.inspect(i.ref.Kind, carrier, i.request.Nonce)
	if err != nil {
		return made, nil, l.verdict(i.via, i.ref.Kind, err, hsm.WrongMaterial)
	}
	made, err = i.settle(l, domain, carrier, found)
	if hsm.ClassOf(err) == hsm.BadInput {
		err = reclassed(err, hsm.Failed) // the material was seen to be good
	}
	return made, found.evidence, err
}

// settle makes the key of material that has proved to be one: an object of the token, or material wrapped under domain. SoftHSM
// fills up with zeros what it wraps, which does not change what an HMAC key does (RFC 2104, section 2).
func (i *importing) settle(l *landing, domain, carrier p11.ObjectHandle, found identity) (hsm.KeyRef, error) {
	s, ref := l.s, i.ref
	ref.Public = found.public
	if i.request.WrapUnder != "" {
		var err error
		ref.WrappedBy = i.request.WrapUnder
		ref.WrapFormat, ref.Wrapped, err = s.wrap(domain, carrier)
		return ref, err
	}
	i.task.once = true // from here on there may be an object
	t := template{kind: ref.Kind, form: i.able.form, id: i.id, label: i.request.Label, persistent: true}
	handle, err := l.final(t, found)
	if err != nil {
		return ref, err
	}
	s.keys.know(ref.ID, handle)
	return ref, nil
}

// prove sees that the key, as it will be used, does what it is for and is the one that was inspected, and gives its
// KeyRef.Proof.
func (i *importing) prove(s *session, made hsm.KeyRef, evidence []byte) ([]byte, error) {
	proof, err := s.prove(i.able, made)
	if err != nil {
		return nil, err
	}
	key, err := s.keys.acquire(s, made)
	if err != nil {
		return nil, err
	}
	defer s.keys.release(key)
	again, err := s.evidence(key, made.Kind, made.Public, i.request.Nonce)
	if err == nil && !bytes.Equal(again, evidence) {
		err = &hsm.Error{Class: hsm.Failed, Cause: errors.New("the key is not that of the material")}
	}
	return proof, err
}
