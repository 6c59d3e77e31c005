package kms

import (
	"context"

	"hsmkms/hsm"
	"hsmkms/kms/ciphertext"
)

// sealTarget is what a request says of the key to encrypt under.
type sealTarget struct {
	keyID       string
	algorithm   EncryptionAlgorithm
	context     map[string]string
	grantTokens []string
	// same is as in openTarget.
	same *bool
}

// destination is a key that the caller may encrypt under.
type destination struct {
	region  Region
	key     *Key
	sealing hsm.Sealing
	header  ciphertext.Header
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
	key, err := s.authorize(ctx, r, a, t.keyID, cryptographicAsked(t.algorithm, t.context, t.grantTokens, t.same))
	if err != nil {
		return nil, err
	}
	if err := usableWith(r, a, key, t.algorithm); err != nil {
		return nil, err
	}
	to := &destination{region: region, key: key, meter: s.meter, request: r}
	to.sealing, to.header, err = sealing(key, t.context)
	return to, err
}

// seal encrypts a plaintext, which stays the caller's. It is a use of the key.
func (d *destination) seal(ctx context.Context, plaintext []byte) ([]byte, error) {
	if err := d.meter.take(ctx, d.key, d.key.current()); err != nil {
		return nil, err
	}
	sealed, err := d.region.Token.Encrypt(ctx, d.sealing, plaintext)
	if err != nil {
		return nil, TokenError(d.meter.s.lost(ctx, d.key, d.sealing.Key, err))
	}
	blob, err := marshal(d.header, sealed)
	if err != nil {
		return nil, err
	}
	d.meter.used(d.request, d.key)
	return blob, nil
}
