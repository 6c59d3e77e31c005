package kms

import (
	"cmp"
	"context"

	"hsmkms/hsm"
	"hsmkms/policy"
)

// GenerateDataKeyPairInput is the input of GenerateDataKeyPair.
type GenerateDataKeyPairInput struct {
	EncryptionContext map[string]string
	KeyId             string
	KeyPairSpec       KeySpec
	GrantTokens       []string
	Recipient         *RecipientInfo
	DryRun            bool
}

// GenerateDataKeyPairOutput is the output of GenerateDataKeyPair.
type GenerateDataKeyPairOutput struct {
	CiphertextForRecipient   []byte  `json:",omitempty"`
	KeyId                    string  `json:",omitempty"`
	KeyMaterialId            string  `json:",omitempty"`
	KeyPairSpec              KeySpec `json:",omitempty"`
	PrivateKeyCiphertextBlob []byte  `json:",omitempty"`
	PrivateKeyPlaintext      []byte  `json:",omitempty"`
	PublicKey                []byte  `json:",omitempty"`
}

// GenerateDataKeyPair makes a key pair for use outside of the service and gives it out: the public key, a DER
// SubjectPublicKeyInfo, and the private key, a DER PrivateKeyInfo (PKCS#8), in plaintext and encrypted under the key.
func (s *Service) GenerateDataKeyPair(ctx context.Context, r *Request, in *GenerateDataKeyPairInput) (*GenerateDataKeyPairOutput, error) {
	if err := checkRecipient(in.Recipient); err != nil {
		return nil, err
	}
	to, err := s.destination(ctx, r, actionGenerateDataKeyPair, &sealTarget{in.KeyId, hsm.SymmetricDefault, in.EncryptionContext, in.GrantTokens, []given{text(policy.KeyDataKeyPairSpec, in.KeyPairSpec)}})
	if err != nil {
		return nil, err
	}
	pair, blob, err := to.dataPair(ctx, in.KeyPairSpec, in.DryRun)
	if err != nil {
		return nil, err
	}
	return &GenerateDataKeyPairOutput{
		KeyId: to.key.ARN(), KeyMaterialId: to.key.current().ID, KeyPairSpec: in.KeyPairSpec,
		PrivateKeyCiphertextBlob: blob, PrivateKeyPlaintext: pair.Private, PublicKey: pair.Public,
	}, nil
}

// GenerateDataKeyPairWithoutPlaintextInput is the input of GenerateDataKeyPairWithoutPlaintext.
type GenerateDataKeyPairWithoutPlaintextInput struct {
	EncryptionContext map[string]string
	KeyId             string
	KeyPairSpec       KeySpec
	GrantTokens       []string
	DryRun            bool
}

// GenerateDataKeyPairWithoutPlaintextOutput is the output of GenerateDataKeyPairWithoutPlaintext.
type GenerateDataKeyPairWithoutPlaintextOutput struct {
	KeyId                    string  `json:",omitempty"`
	KeyMaterialId            string  `json:",omitempty"`
	KeyPairSpec              KeySpec `json:",omitempty"`
	PrivateKeyCiphertextBlob []byte  `json:",omitempty"`
	PublicKey                []byte  `json:",omitempty"`
}

// GenerateDataKeyPairWithoutPlaintext is GenerateDataKeyPair for a private key that is needed later: its plaintext is wiped.
func (s *Service) GenerateDataKeyPairWithoutPlaintext(ctx context.Context, r *Request, in *GenerateDataKeyPairWithoutPlaintextInput) (*GenerateDataKeyPairWithoutPlaintextOutput, error) {
	to, err := s.destination(ctx, r, actionGenerateDataKeyPairBlind, &sealTarget{in.KeyId, hsm.SymmetricDefault, in.EncryptionContext, in.GrantTokens, []given{text(policy.KeyDataKeyPairSpec, in.KeyPairSpec)}})
	if err != nil {
		return nil, err
	}
	pair, blob, err := to.dataPair(ctx, in.KeyPairSpec, in.DryRun)
	clear(pair.Private)
	if err != nil {
		return nil, err
	}
	return &GenerateDataKeyPairWithoutPlaintextOutput{
		KeyId: to.key.ARN(), KeyMaterialId: to.key.current().ID, KeyPairSpec: in.KeyPairSpec,
		PrivateKeyCiphertextBlob: blob, PublicKey: pair.Public,
	}, nil
}

// dataPair makes a key pair and encrypts its private key. The caller wipes that.
func (d *destination) dataPair(ctx context.Context, spec KeySpec, dry bool) (hsm.DataPair, []byte, error) {
	p, _ := purposeOf(spec, SignVerify) // every spec of a data key pair has it
	if p.kind == "" {
		return hsm.DataPair{}, nil, Errorf(UnsupportedOperation, "KeyPairSpec %s is not supported.", spec)
	}
	if dry {
		return hsm.DataPair{}, nil, cmp.Or(pairError(spec, d.region.Token.TryDataPair(ctx, p.kind)), dryRun())
	}
	pair, err := d.region.Token.GenerateDataPair(ctx, p.kind)
	if err != nil {
		return hsm.DataPair{}, nil, pairError(spec, err)
	}
	blob, err := d.seal(ctx, pair.Private)
	if err != nil {
		clear(pair.Private)
		return hsm.DataPair{}, nil, err
	}
	return pair, blob, nil
}

// pairError translates what a token says of data key pairs.
func pairError(spec KeySpec, err error) error {
	if hsm.ClassOf(err) == hsm.Unsupported {
		return &Error{Type: UnsupportedOperation, Message: "KeyPairSpec " + string(spec) + " is not supported by the HSM token of this Region.", Cause: err}
	}
	return TokenError(err)
}
