package kms

import (
	"context"
	"fmt"

	"hsmkms/hsm"
	"hsmkms/kms/ciphertext"
	"hsmkms/publickey"
)

// sealTarget is what a request says of the key to encrypt under.
type sealTarget struct {
	keyID       string
	algorithm   hsm.Algorithm
	context     map[string]string
	grantTokens []string
	// values are as in openTarget.
	values []given
}

// destination is a key that the caller may encrypt under.
type destination struct {
	region  Region
	key     *Key
	sealing hsm.Sealing
	header  ciphertext.Header // of a symmetric key
	meter   *meter
	request *Request
}

// destination finds the key and decides whether the caller may encrypt under it.
func (s *Service) destination(ctx context.Context, r *Request, a action, t *sealTarget) (*destination, error) {
	if err := checkContext(t.context); err != nil {
		return nil, err
	}
	region, err := s.region(r)
	if err != nil {
		return nil, err
	}
	key, err := s.authorize(ctx, r, a, t.keyID, asked{context: t.context, tokens: t.grantTokens, algorithm: t.algorithm, values: t.values})
	if err != nil {
		return nil, err
	}
	if err := s.able(ctx, r, a, key, t.algorithm); err != nil {
		return nil, err
	}
	if err := checkContextFor(key, t.context); err != nil {
		return nil, err
	}
	to := &destination{region: region, key: key, meter: s.meter, request: r}
	to.sealing, to.header, err = sealing(key, t.algorithm, t.context)
	return to, err
}

// seal encrypts a plaintext, which stays the caller's. It is a use of the key.
func (d *destination) seal(ctx context.Context, plaintext []byte) ([]byte, error) {
	if err := d.meter.take(ctx, d.key, d.key.current()); err != nil {
		return nil, err
	}
	sealed, err := d.region.Token.Encrypt(ctx, d.sealing, plaintext)
	if err != nil {
		return nil, d.sealError(ctx, err)
	}
	blob, err := d.marshal(sealed)
	if err != nil {
		return nil, err
	}
	d.meter.used(d.request, d.key)
	d.request.worked("keyMaterialId", d.key, d.key.current())
	return blob, nil
}

// marshal makes the blob of what the token encrypted. That of a key pair is the bare ciphertext.
func (d *destination) marshal(sealed hsm.Sealed) ([]byte, error) {
	if !d.key.symmetric() {
		return sealed.Data, nil
	}
	raw, err := ciphertext.Marshal(ciphertext.Blob{Header: d.header, IV: sealed.IV, Data: sealed.Data})
	if err != nil {
		return nil, fmt.Errorf("writing a ciphertext: %w", err)
	}
	return raw, nil
}

// fits fails for a plaintext that is too long for the key and the algorithm. Symmetric keys take whatever the wire does.
func (d *destination) fits(size int) error {
	if d.key.symmetric() || size <= d.longest() {
		return nil
	}
	return d.tooLong(nil)
}

// longest is how many bytes the key pair can encrypt.
func (d *destination) longest() int {
	algorithm, _ := publickey.Encryption(string(d.sealing.Algorithm)) // the table of specs has no other
	return algorithm.MaxPlaintext(string(d.key.Spec))
}

func (d *destination) tooLong(cause error) error {
	e := Errorf(Validation, "Algorithm %s and key spec %s cannot encrypt data larger than %d bytes.", d.sealing.Algorithm, d.key.Spec, d.longest())
	e.Cause = cause
	return e
}

// sealError translates a failure to encrypt. That a plaintext is too long can be news: what is in the ciphertext of a key pair
// is known to the token alone.
func (d *destination) sealError(ctx context.Context, err error) error {
	if hsm.ClassOf(err) == hsm.TooLong && !d.key.symmetric() {
		return d.tooLong(err)
	}
	return TokenError(d.meter.s.lost(ctx, d.key, d.sealing.Key, err))
}
