package kms

import (
	"context"

	"hsmkms/hsm"
	"hsmkms/policy"
	"hsmkms/publickey"
)

// DeriveSharedSecretInput is the input of DeriveSharedSecret.
type DeriveSharedSecretInput struct {
	KeyId                 string
	KeyAgreementAlgorithm hsm.Algorithm
	PublicKey             []byte
	GrantTokens           []string
	DryRun                bool
	Recipient             *RecipientInfo
}

// DeriveSharedSecretOutput is the output of DeriveSharedSecret.
type DeriveSharedSecretOutput struct {
	CiphertextForRecipient []byte        `json:",omitempty"`
	KeyAgreementAlgorithm  hsm.Algorithm `json:",omitempty"`
	KeyId                  string        `json:",omitempty"`
	KeyOrigin              Origin        `json:",omitempty"`
	SharedSecret           []byte        `json:",omitempty"`
}

// DeriveSharedSecret agrees on a secret with the owner of another key pair on the curve of the key: the x coordinate of
// ECDH, to which no key derivation function is applied. It is computed on the token.
func (s *Service) DeriveSharedSecret(ctx context.Context, r *Request, in *DeriveSharedSecretInput) (*DeriveSharedSecretOutput, error) {
	if err := checkRecipient(in.Recipient); err != nil {
		return nil, err
	}
	with, err := s.operand(ctx, r, actionDeriveSharedSecret, &operandTarget{
		keyID: in.KeyId, algorithm: in.KeyAgreementAlgorithm, condition: policy.KeyKeyAgreementAlgorithm, grantTokens: in.GrantTokens,
	})
	if err != nil {
		return nil, err
	}
	peer, err := publickey.Parse(in.PublicKey)
	if err != nil {
		return nil, errBadPublicKey(err)
	}
	if peer.Spec() != string(with.key.Spec) {
		return nil, Errorf(Validation, "The public key is not compatible with key spec %s.", with.key.Spec)
	}
	if in.DryRun {
		return nil, dryRun()
	}
	secret, err := with.token.DeriveSecret(ctx, with.ref, peer.Point())
	if hsm.ClassOf(err) == hsm.BadInput {
		return nil, errBadPublicKey(err)
	}
	if err != nil {
		return nil, TokenError(s.lost(ctx, with.key, with.ref, err))
	}
	s.meter.used(r, with.key)
	return &DeriveSharedSecretOutput{
		KeyAgreementAlgorithm: in.KeyAgreementAlgorithm, KeyId: with.key.ARN(), KeyOrigin: with.key.Origin, SharedSecret: secret,
	}, nil
}

// errBadPublicKey is AWS's answer to a public key that cannot be read: a ValidationException with an empty text.
func errBadPublicKey(cause error) error { return &Error{Type: Validation, Cause: cause} }
