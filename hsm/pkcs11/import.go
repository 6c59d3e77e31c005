package pkcs11

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// maxTransported bounds material under an AES key, in bytes, so that no caller has the token work on megabytes.
const maxTransported = 8192

// ImportKey implements hsm.Token.
func (t *Token) ImportKey(ctx context.Context, r hsm.ImportRequest) (hsm.Imported, error) {
	if r.Kind != hsm.AES256 {
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
	route, ok := w.routes[r.Wrap]
	if !ok {
		return hsm.Imported{}, &hsm.Error{Class: hsm.Unsupported, Cause: fmt.Errorf("the token has no way, or may not take one, of importing what is encrypted by %q", r.Wrap)}
	}
	if err := checkMaterial(r, public); err != nil {
		return hsm.Imported{}, err
	}
	ref, id, err := t.name(r.Kind)
	if err != nil {
		return hsm.Imported{}, err
	}
	i := &importing{request: r, ways: w, via: way{r.Wrap, route}, public: public, ref: ref, id: id}
	i.task = task[hsm.Imported]{
		slow:    true,
		f:       i.run,
		discard: func(s *session, made hsm.Imported) { _ = s.keys.destroy(s, made.Key) },
	}
	return do(ctx, t, &i.task)
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
	public  *rsa.PublicKey
	ref     hsm.KeyRef
	id      []byte
	task    task[hsm.Imported]
}

// run is the task: the making of the key, its proof and its fingerprint.
func (i *importing) run(s *session) (hsm.Imported, error) {
	var made hsm.Imported
	err := s.keys.anew(func() (err error) {
		made.Key, err = i.make(s)
		return err
	}, i.request.Under.ID, i.request.WrapUnder)
	if err != nil {
		return hsm.Imported{}, fmt.Errorf("importing key: %w", err)
	}
	made.Key.Proof, made.Fingerprint, err = s.proveImported(made.Key, i.request.Nonce)
	if err != nil {
		_ = s.keys.destroy(s, made.Key)
		return hsm.Imported{}, fmt.Errorf("testing an imported key: %w", err)
	}
	return made, nil
}

func (i *importing) make(s *session) (hsm.KeyRef, error) {
	under, err := s.keys.object(s, i.request.Under.ID)
	if err != nil {
		return hsm.KeyRef{}, fmt.Errorf("finding the key that the material is encrypted to: %w", err)
	}
	var domain p11.ObjectHandle
	if i.request.WrapUnder != "" {
		if domain, err = s.keys.object(s, i.request.WrapUnder); err != nil {
			return hsm.KeyRef{}, fmt.Errorf("finding the wrapping key: %w", err)
		}
	}
	s.keys.objectsMu.Lock() // a search would not bear session objects that come and go
	defer s.keys.objectsMu.Unlock()
	l, err := s.newLanding(i.ways, under, i.public)
	defer l.clear()
	if err != nil {
		return hsm.KeyRef{}, err
	}
	carrier, err := l.carrier(i.via, i.request.Material)
	if err != nil {
		return hsm.KeyRef{}, l.verdict(i.via, err, hsm.BadInput)
	}
	wrapped, err := l.inspect(carrier)
	if err != nil {
		return hsm.KeyRef{}, l.verdict(i.via, err, hsm.WrongMaterial)
	}
	ref, err := i.settle(l, domain, carrier, wrapped)
	if hsm.ClassOf(err) == hsm.BadInput {
		err = reclassed(err, hsm.Failed) // the material was seen to be good
	}
	return ref, err
}

// settle makes the key of material that has proved to be one: an object of the token, or material wrapped under domain.
func (i *importing) settle(l *landing, domain, carrier p11.ObjectHandle, wrapped []byte) (hsm.KeyRef, error) {
	s, ref := l.s, i.ref
	if i.request.WrapUnder != "" {
		var err error
		ref.WrappedBy = i.request.WrapUnder
		ref.WrapFormat, ref.Wrapped, err = s.wrap(domain, carrier)
		return ref, err
	}
	i.task.once = true // from here on there may be an object
	t := template{kind: ref.Kind, id: i.id, label: i.request.Label, persistent: true}
	handle, err := s.unwrapAs(t, mechanismOf(l.ways.wrap, nil), l.gate, wrapped)
	if err != nil {
		return ref, err
	}
	s.keys.know(ref.ID, handle)
	return ref, nil
}

// proveImported gives the proof and the fingerprint of an imported key, from the key as it will be used.
func (s *session) proveImported(ref hsm.KeyRef, nonce []byte) (proof []byte, fingerprint [32]byte, err error) {
	key, err := s.keys.acquire(s, ref)
	if err != nil {
		return nil, fingerprint, err
	}
	defer s.keys.release(key)
	if proof, err = s.makeProof(key); err != nil {
		return nil, fingerprint, err
	}
	fingerprint, err = s.fingerprint(key, nonce)
	return proof, fingerprint, err
}

// fingerprintPrefix begins what is hashed for a fingerprint.
const fingerprintPrefix = "hsmkms key material fingerprint"

// fingerprint is SHA-256 over the prefix, the nonce with its length as 8 bytes before it, and the encryption of the two
// blocks SHA-256(prefix || 0 || nonce), each by itself.
//
// It tells nothing of a key that cannot be guessed: AES under such a key is a random permutation to who looks at its results,
// and they are hashed. Nor does it weaken AES-GCM under the key: its inputs there are the block of zeros and counter blocks,
// one of which a block of a hash is with a probability of 2^-128 for each, and even then the result is seen only hashed. Who guesses a key can find his guess confirmed, as by any ciphertext with a known plaintext.
func (s *session) fingerprint(key *loadedKey, nonce []byte) ([32]byte, error) {
	blocks := sha256.Sum256(append([]byte(fingerprintPrefix+"\x00"), nonce...))
	encrypted, err := s.encryptECB(key.handle, blocks[:])
	if err != nil {
		return [32]byte{}, err
	}
	text := binary.BigEndian.AppendUint64([]byte(fingerprintPrefix), uint64(len(nonce)))
	return sha256.Sum256(append(append(text, nonce...), encrypted...)), nil
}
