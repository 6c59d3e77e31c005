package kms

import (
	"context"
	"errors"
	"slices"

	"hsmkms/hsm"
	"hsmkms/kms/ciphertext"
)

// ReEncryptInput is the input of ReEncrypt.
type ReEncryptInput struct {
	CiphertextBlob                 []byte
	SourceKeyId                    string
	SourceEncryptionAlgorithm      EncryptionAlgorithm
	SourceEncryptionContext        map[string]string
	DestinationKeyId               string
	DestinationEncryptionAlgorithm EncryptionAlgorithm
	DestinationEncryptionContext   map[string]string
	GrantTokens                    []string
	DryRun                         bool
	DryRunModifiers                []string
}

// ReEncryptOutput is the output of ReEncrypt.
type ReEncryptOutput struct {
	CiphertextBlob                 []byte              `json:",omitempty"`
	DestinationEncryptionAlgorithm EncryptionAlgorithm `json:",omitempty"`
	DestinationKeyMaterialId       string              `json:",omitempty"`
	KeyId                          string              `json:",omitempty"`
	SourceEncryptionAlgorithm      EncryptionAlgorithm `json:",omitempty"`
	SourceKeyId                    string              `json:",omitempty"`
	SourceKeyMaterialId            string              `json:",omitempty"`
}

// ReEncrypt decrypts a ciphertext under its source key and encrypts the plaintext under the destination key, in one
// visit to the token. The plaintext is seen by the token room alone, which wipes it on every path.
//
// The source is judged before the destination, each for its own permission, state and algorithm.
func (s *Service) ReEncrypt(ctx context.Context, r *Request, in *ReEncryptInput) (*ReEncryptOutput, error) {
	from, err := s.source(ctx, r, actionReEncryptFrom, &openTarget{
		keyID: in.SourceKeyId, member: "sourceKeyId", blob: in.CiphertextBlob, algorithm: in.SourceEncryptionAlgorithm,
		context: in.SourceEncryptionContext, grantTokens: in.GrantTokens, blind: blind(in.DryRun, in.DryRunModifiers),
	})
	if err != nil {
		return nil, err
	}
	to, err := s.destination(ctx, r, actionReEncryptTo, &sealTarget{in.DestinationKeyId, in.DestinationEncryptionAlgorithm,
		in.DestinationEncryptionContext, in.GrantTokens})
	if err != nil {
		return nil, err
	}
	if from.material == nil {
		return nil, dryRun()
	}
	blob, err := from.reEncrypt(ctx, to)
	if err != nil {
		return nil, err
	}
	if in.DryRun {
		return nil, dryRun()
	}
	return &ReEncryptOutput{
		CiphertextBlob:                 blob,
		KeyId:                          to.key.ARN(),
		DestinationEncryptionAlgorithm: AlgorithmSymmetric,
		DestinationKeyMaterialId:       to.key.current().ID,
		SourceKeyId:                    from.key.ARN(),
		SourceEncryptionAlgorithm:      AlgorithmSymmetric,
		SourceKeyMaterialId:            from.material.ID,
	}, nil
}

// openTarget is what a request says of a ciphertext to open.
type openTarget struct {
	keyID       string
	member      string // the member of the request that keyID came from
	blob        []byte
	algorithm   EncryptionAlgorithm
	context     map[string]string
	grantTokens []string
	// blind asks for a judgement without looking at the ciphertext.
	blind bool
}

// source is a ciphertext that the caller may open, with the key that opens it.
type source struct {
	region  Region
	key     *Key
	opening hsm.Opening
	// material is nil when the ciphertext was not looked at.
	material *Material
}

// source finds the key of a ciphertext and decides whether the caller may open it, in AWS's order: the key must exist,
// the caller be allowed, the key be the ciphertext's, and its state and usage fit.
func (s *Service) source(ctx context.Context, r *Request, a action, t *openTarget) (*source, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	region, err := s.region(r)
	if err != nil {
		return nil, err
	}
	key, blob, err := s.sourceKey(ctx, r, a, t)
	if err != nil {
		return nil, err
	}
	if err := usableWith(r, a, key, t.algorithm); err != nil {
		return nil, err
	}
	from := &source{region: region, key: key}
	if t.blind {
		return from, nil
	}
	from.opening, from.material, err = opening(key, blob, t.context)
	return from, err
}

func (t *openTarget) check() error {
	if t.blob == nil && !t.blind {
		return Errorf(Validation, "1 validation error detected: Value at 'ciphertextBlob' failed to satisfy constraint: Member must not be null")
	}
	if t.keyID == "" && t.blind {
		return Errorf(Validation, "1 validation error detected: Value at '%s' failed to satisfy constraint: Member must not be null", t.member)
	}
	if err := checkGrantTokens(t.grantTokens); err != nil {
		return err
	}
	return checkContext(t.context)
}

// sourceKey finds the key by the request, or by the ciphertext if the request does not name it.
func (s *Service) sourceKey(ctx context.Context, r *Request, a action, t *openTarget) (key *Key, blob ciphertext.Blob, err error) {
	if t.keyID != "" {
		if key, err = s.authorize(ctx, r, a, t.keyID); err != nil || t.blind {
			return key, blob, err
		}
	}
	if blob, err = parseBlob(t.blob); err != nil {
		return nil, blob, err
	}
	if key == nil {
		key, err = s.authorizeID(ctx, r, a, blob.KeyID)
		return key, blob, err
	}
	if key.ID != blob.KeyID {
		return nil, blob, Errorf(IncorrectKey, "The key ID in the request does not identify a CMK that can perform this operation.")
	}
	return key, blob, nil
}

// blind tells whether a dry run shall not look at the ciphertext. The modifier means nothing without DryRun.
func blind(dryRun bool, modifiers []string) bool {
	return dryRun && slices.Contains(modifiers, "IGNORE_CIPHERTEXT")
}

// sealTarget is what a request says of the key to encrypt under.
type sealTarget struct {
	keyID       string
	algorithm   EncryptionAlgorithm
	context     map[string]string
	grantTokens []string
}

// destination is a key that the caller may encrypt under.
type destination struct {
	region  Region
	key     *Key
	sealing hsm.Sealing
	header  ciphertext.Header
}

// destination finds the key and decides whether the caller may encrypt under it.
func (s *Service) destination(ctx context.Context, r *Request, a action, t *sealTarget) (*destination, error) {
	if err := checkGrantTokens(t.grantTokens); err != nil {
		return nil, err
	}
	if err := checkContext(t.context); err != nil {
		return nil, err
	}
	region, err := s.region(r)
	if err != nil {
		return nil, err
	}
	key, err := s.authorize(ctx, r, a, t.keyID)
	if err != nil {
		return nil, err
	}
	if err := usableWith(r, a, key, t.algorithm); err != nil {
		return nil, err
	}
	to := &destination{region: region, key: key}
	to.sealing, to.header, err = sealing(key, t.context)
	return to, err
}

// seal encrypts a plaintext, which stays the caller's.
func (d *destination) seal(ctx context.Context, plaintext []byte) ([]byte, error) {
	sealed, err := d.region.Token.Encrypt(ctx, d.sealing, plaintext)
	if err != nil {
		return nil, TokenError(err)
	}
	return marshal(d.header, sealed)
}

// reEncrypt moves the ciphertext under the destination's key.
func (f *source) reEncrypt(ctx context.Context, to *destination) ([]byte, error) {
	sealed, err := f.region.Token.ReEncrypt(ctx, f.opening, to.sealing)
	var failure *hsm.Error
	if errors.As(err, &failure) && failure.Source {
		return nil, openError(err)
	}
	if err != nil {
		return nil, TokenError(err)
	}
	return marshal(to.header, sealed)
}
