package kms

import (
	"context"
	"errors"

	"hsmkms/hsm"
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
	same, err := s.sameKey(ctx, r, in)
	if err != nil {
		return nil, err
	}
	from, err := s.source(ctx, r, actionReEncryptFrom, &openTarget{
		keyID: in.SourceKeyId, member: "sourceKeyId", blob: in.CiphertextBlob, algorithm: in.SourceEncryptionAlgorithm,
		context: in.SourceEncryptionContext, grantTokens: in.GrantTokens, same: &same, blind: blind(in.DryRun, in.DryRunModifiers),
	})
	if err != nil {
		return nil, err
	}
	to, err := s.destination(ctx, r, actionReEncryptTo, &sealTarget{in.DestinationKeyId, in.DestinationEncryptionAlgorithm,
		in.DestinationEncryptionContext, in.GrantTokens, &same})
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
	s.meter.used(r, from.key)
	s.meter.used(r, to.key)
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

// sameKey tells whether source and destination are one key, as far as that can be known before anything is decided.
func (s *Service) sameKey(ctx context.Context, r *Request, in *ReEncryptInput) (bool, error) {
	var ids [2]string
	for i, identifier := range []string{in.SourceKeyId, in.DestinationKeyId} {
		name, err := parseKeyName(r, identifier)
		if err != nil {
			continue // which is found out, and answered, when the key is looked for
		}
		if ids[i] = name.id; name.alias != "" {
			alias, found, err := s.aliases.Get(ctx, aliasRecords(name.account, name.region)+name.alias)
			if err != nil {
				return false, err
			}
			if found {
				ids[i] = alias.KeyID
			}
		}
	}
	if blob, err := parseBlob(in.CiphertextBlob); in.SourceKeyId == "" && err == nil {
		ids[0] = blob.KeyID
	}
	return ids[0] != "" && ids[0] == ids[1], nil
}

// reEncrypt moves the ciphertext under the destination's key.
func (f *source) reEncrypt(ctx context.Context, to *destination) ([]byte, error) {
	if err := to.meter.take(ctx, to.key, to.key.current()); err != nil {
		return nil, err
	}
	sealed, err := f.region.Token.ReEncrypt(ctx, f.opening, to.sealing)
	var failure *hsm.Error
	if errors.As(err, &failure) && failure.Source {
		to.meter.untaken(to.key, to.key.current(), failure)
		return nil, openError(to.meter.s.lost(ctx, f.key, f.opening.Key, err))
	}
	if err != nil {
		return nil, TokenError(to.meter.s.lost(ctx, to.key, to.sealing.Key, err))
	}
	return marshal(to.header, sealed)
}
