package kms

import (
	"context"

	"hsmkms/hsm"
)

// GetPublicKeyInput is the input of GetPublicKey.
type GetPublicKeyInput struct {
	KeyId       string
	GrantTokens []string
}

// GetPublicKeyOutput is the output of GetPublicKey.
type GetPublicKeyOutput struct {
	CustomerMasterKeySpec  KeySpec         `json:",omitempty"`
	EncryptionAlgorithms   []hsm.Algorithm `json:",omitempty"`
	KeyAgreementAlgorithms []hsm.Algorithm `json:",omitempty"`
	KeyId                  string          `json:",omitempty"`
	KeySpec                KeySpec         `json:",omitempty"`
	KeyUsage               KeyUsage        `json:",omitempty"`
	PublicKey              []byte          `json:",omitempty"`
	SigningAlgorithms      []hsm.Algorithm `json:",omitempty"`
}

// GetPublicKey gives the public key of a key pair, a DER SubjectPublicKeyInfo. It is not a use of the key.
func (s *Service) GetPublicKey(ctx context.Context, r *Request, in *GetPublicKeyInput) (*GetPublicKeyOutput, error) {
	key, err := s.authorize(ctx, r, actionGetPublicKey, in.KeyId, asked{tokens: in.GrantTokens})
	if err != nil {
		return nil, err
	}
	if err := usable(r, actionGetPublicKey, key); err != nil {
		return nil, err
	}
	if !key.keyPair() {
		return nil, Errorf(UnsupportedOperation, "%s key spec is %s which is not valid for this operation.", key.ARN(), key.Spec)
	}
	material := key.current()
	if material == nil || !material.present() {
		return nil, noMaterial(key)
	}
	return &GetPublicKeyOutput{
		CustomerMasterKeySpec: key.Spec, KeySpec: key.Spec, KeyId: key.ARN(), KeyUsage: key.Usage, PublicKey: material.Ref.Public,
		EncryptionAlgorithms: key.algorithms(EncryptDecrypt), KeyAgreementAlgorithms: key.algorithms(KeyAgreement),
		SigningAlgorithms: key.algorithms(SignVerify),
	}, nil
}
