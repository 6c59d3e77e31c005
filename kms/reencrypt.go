package kms

import (
	"context"
	"errors"

	"hsmkms/hsm"
	"hsmkms/policy"
)

// ReEncryptInput is the input of ReEncrypt.
type ReEncryptInput struct {
	CiphertextBlob                 []byte
	SourceKeyId                    string
	SourceEncryptionAlgorithm      hsm.Algorithm
	SourceEncryptionContext        map[string]string
	DestinationKeyId               string
	DestinationEncryptionAlgorithm hsm.Algorithm
	DestinationEncryptionContext   map[string]string
	GrantTokens                    []string
	DryRun                         bool
	DryRunModifiers                []string
}

// ReEncryptOutput is the output of ReEncrypt.
type ReEncryptOutput struct {
	CiphertextBlob                 []byte        `json:",omitempty"`
	DestinationEncryptionAlgorithm hsm.Algorithm `json:",omitempty"`
	DestinationKeyMaterialId       string        `json:",omitempty"`
	KeyId                          string        `json:",omitempty"`
	SourceEncryptionAlgorithm      hsm.Algorithm `json:",omitempty"`
	SourceKeyId                    string        `json:",omitempty"`
	SourceKeyMaterialId            string        `json:",omitempty"`
}

// ReEncrypt decrypts a ciphertext under its source key and encrypts the plaintext under the destination key, in one
// visit to the token. The plaintext is seen by the token room alone, which wipes it on every path.
//
// The source is judged before the destination, each for its own permission, state and algorithm.
func (s *Service) ReEncrypt(ctx context.Context, r *Request, in *ReEncryptInput) (*ReEncryptOutput, error) {
	chosen(&in.SourceEncryptionAlgorithm)
	chosen(&in.DestinationEncryptionAlgorithm)
	from, to, err := s.ends(ctx, r, in)
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
	r.worked("sourceKeyMaterialId", from.key, from.material)
	r.worked("destinationKeyMaterialId", to.key, to.key.current())
	return &ReEncryptOutput{
		CiphertextBlob:                 blob,
		KeyId:                          to.key.ARN(),
		DestinationEncryptionAlgorithm: to.sealing.Algorithm,
		DestinationKeyMaterialId:       to.key.shownID(to.key.current()),
		SourceKeyId:                    from.key.ARN(),
		SourceEncryptionAlgorithm:      from.opening.Algorithm,
		SourceKeyMaterialId:            from.key.shownID(from.material),
	}, nil
}

// ends finds and judges source and destination. Whether they are one key is a condition of both judgements, and so must be
// known before; if an alias is moved meanwhile, they are judged anew.
func (s *Service) ends(ctx context.Context, r *Request, in *ReEncryptInput) (from *source, to *destination, err error) {
	for ctx.Err() == nil {
		r.Keys = nil
		same, err := s.sameKey(ctx, r, in)
		if err != nil {
			return nil, nil, err
		}
		values := []given{{policy.KeyReEncryptOnSameKey, policy.Flag(same)}}
		from, err = s.source(ctx, r, actionReEncryptFrom, &openTarget{
			keyID: in.SourceKeyId, member: "sourceKeyId", blob: in.CiphertextBlob, algorithm: in.SourceEncryptionAlgorithm,
			context: in.SourceEncryptionContext, grantTokens: in.GrantTokens, values: values, blind: blind(in.DryRun, in.DryRunModifiers),
		})
		if err != nil {
			return nil, nil, err
		}
		to, err = s.destination(ctx, r, actionReEncryptTo, &sealTarget{in.DestinationKeyId, in.DestinationEncryptionAlgorithm,
			in.DestinationEncryptionContext, in.GrantTokens, values})
		if err != nil {
			return nil, nil, err
		}
		if same == (from.key.ID == to.key.ID) {
			return from, to, nil
		}
	}
	return nil, nil, ctx.Err()
}

// sameKey tells whether source and destination are one key, as far as that can be known, and told, before anything is decided. A key
// that is named by an alias of another account is none.
func (s *Service) sameKey(ctx context.Context, r *Request, in *ReEncryptInput) (bool, error) {
	var ids [2]string
	for i, identifier := range []string{in.SourceKeyId, in.DestinationKeyId} {
		if identifier == "" {
			continue
		}
		name, err := parseKeyName(r, identifier)
		if err != nil {
			continue // which is found out, and answered, when the key is looked for
		}
		if ids[i] = name.id; name.alias != "" {
			if name.account != r.Caller.Account {
				continue // where it points is not for other accounts to find out
			}
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
	if errors.As(err, &failure) && f.blamed(failure) {
		to.meter.untaken(to.key, to.key.current(), failure)
		return nil, openError(to.meter.s.lost(ctx, f.key, f.opening.Key, err))
	}
	if err != nil {
		return nil, to.sealError(ctx, err)
	}
	return to.marshal(sealed)
}

// blamed tells whether a failure is the source's. The destination's symmetric key does not encrypt nothing at all, which is what
// a key pair may have decrypted: that is a bad ciphertext as well.
func (f *source) blamed(failure *hsm.Error) bool {
	return failure.Source || !f.key.symmetric() && failure.Class == hsm.BadInput
}
