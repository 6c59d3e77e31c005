package kms

import (
	"cmp"
	"context"

	"hsmkms/hsm"
)

// RecipientInfo asks for an answer encrypted to an enclave. It is refused wherever it is given.
type RecipientInfo struct {
	AttestationDocument    []byte
	KeyEncryptionAlgorithm string
}

// EncryptInput is the input of Encrypt.
type EncryptInput struct {
	KeyId               string
	Plaintext           []byte
	EncryptionAlgorithm hsm.Algorithm
	EncryptionContext   map[string]string
	GrantTokens         []string
	DryRun              bool
}

// EncryptOutput is the output of Encrypt.
type EncryptOutput struct {
	CiphertextBlob      []byte        `json:",omitempty"`
	EncryptionAlgorithm hsm.Algorithm `json:",omitempty"`
	KeyId               string        `json:",omitempty"`
}

// Encrypt encrypts 1 to 4096 bytes on the token, or as many as fit under an RSA key.
func (s *Service) Encrypt(ctx context.Context, r *Request, in *EncryptInput) (*EncryptOutput, error) {
	chosen(&in.EncryptionAlgorithm)
	to, err := s.destination(ctx, r, actionEncrypt, &sealTarget{in.KeyId, in.EncryptionAlgorithm, in.EncryptionContext, in.GrantTokens, nil})
	if err != nil {
		return nil, err
	}
	if err := to.fits(len(in.Plaintext)); err != nil {
		return nil, err
	}
	if in.DryRun {
		return nil, dryRun()
	}
	blob, err := to.seal(ctx, in.Plaintext)
	if err != nil {
		return nil, err
	}
	return &EncryptOutput{CiphertextBlob: blob, EncryptionAlgorithm: to.sealing.Algorithm, KeyId: to.key.ARN()}, nil
}

// chosen puts the algorithm that a request means, if it names none, into its input, where the audit trail finds it.
func chosen(algorithm *hsm.Algorithm) { *algorithm = cmp.Or(*algorithm, hsm.SymmetricDefault) }

// DecryptInput is the input of Decrypt.
type DecryptInput struct {
	CiphertextBlob      []byte
	KeyId               string
	EncryptionAlgorithm hsm.Algorithm
	EncryptionContext   map[string]string
	GrantTokens         []string
	Recipient           *RecipientInfo
	DryRun              bool
	DryRunModifiers     []string
}

// DecryptOutput is the output of Decrypt.
type DecryptOutput struct {
	CiphertextForRecipient []byte        `json:",omitempty"`
	EncryptionAlgorithm    hsm.Algorithm `json:",omitempty"`
	KeyId                  string        `json:",omitempty"`
	KeyMaterialId          string        `json:",omitempty"`
	Plaintext              []byte        `json:",omitempty"`
}

// Decrypt decrypts on the token. The key is found from the ciphertext; a KeyId must name the same one.
func (s *Service) Decrypt(ctx context.Context, r *Request, in *DecryptInput) (*DecryptOutput, error) {
	chosen(&in.EncryptionAlgorithm)
	if err := checkRecipient(in.Recipient); err != nil {
		return nil, err
	}
	from, err := s.source(ctx, r, actionDecrypt, &openTarget{
		keyID: in.KeyId, member: "keyId", blob: in.CiphertextBlob, algorithm: in.EncryptionAlgorithm, context: in.EncryptionContext,
		grantTokens: in.GrantTokens, blind: blind(in.DryRun, in.DryRunModifiers),
	})
	if err != nil {
		return nil, err
	}
	if from.material == nil {
		return nil, dryRun()
	}
	plaintext, err := from.region.Token.Decrypt(ctx, from.opening)
	if err != nil {
		return nil, openError(s.lost(ctx, from.key, from.opening.Key, err))
	}
	if in.DryRun {
		clear(plaintext)
		return nil, dryRun()
	}
	s.meter.used(r, from.key)
	r.worked("keyMaterialId", from.key, from.material)
	return &DecryptOutput{
		EncryptionAlgorithm: from.opening.Algorithm, KeyId: from.key.ARN(), KeyMaterialId: from.key.shownID(from.material), Plaintext: plaintext,
	}, nil
}
