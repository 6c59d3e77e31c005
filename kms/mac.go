package kms

import (
	"context"
	"crypto/subtle"

	"hsmkms/hsm"
	"hsmkms/policy"
)

// GenerateMacInput is the input of GenerateMac.
type GenerateMacInput struct {
	Message      []byte
	KeyId        string
	MacAlgorithm hsm.Algorithm
	GrantTokens  []string
	DryRun       bool
}

// GenerateMacOutput is the output of GenerateMac.
type GenerateMacOutput struct {
	KeyId        string        `json:",omitempty"`
	Mac          []byte        `json:",omitempty"`
	MacAlgorithm hsm.Algorithm `json:",omitempty"`
}

// GenerateMac authenticates a message of 1 to 4096 bytes with HMAC (RFC 2104), on the token.
func (s *Service) GenerateMac(ctx context.Context, r *Request, in *GenerateMacInput) (*GenerateMacOutput, error) {
	with, err := s.operand(ctx, r, actionGenerateMac, &operandTarget{
		keyID: in.KeyId, algorithm: in.MacAlgorithm, condition: policy.KeyMacAlgorithm, grantTokens: in.GrantTokens,
	})
	if err != nil {
		return nil, err
	}
	if in.DryRun {
		return nil, dryRun()
	}
	mac, err := s.mac(ctx, with, in.MacAlgorithm, in.Message)
	if err != nil {
		return nil, err
	}
	s.meter.used(r, with.key)
	return &GenerateMacOutput{KeyId: with.key.ARN(), Mac: mac, MacAlgorithm: in.MacAlgorithm}, nil
}

// VerifyMacInput is the input of VerifyMac.
type VerifyMacInput struct {
	Message      []byte
	KeyId        string
	MacAlgorithm hsm.Algorithm
	Mac          []byte
	GrantTokens  []string
	DryRun       bool
}

// VerifyMacOutput is the output of VerifyMac.
type VerifyMacOutput struct {
	KeyId        string        `json:",omitempty"`
	MacAlgorithm hsm.Algorithm `json:",omitempty"`
	MacValid     bool
}

// VerifyMac makes the HMAC of a message on the token and compares it with the one that is given, in a time that does not
// depend on where they differ. MacValid is never false: that is an error.
func (s *Service) VerifyMac(ctx context.Context, r *Request, in *VerifyMacInput) (*VerifyMacOutput, error) {
	with, err := s.operand(ctx, r, actionVerifyMac, &operandTarget{
		keyID: in.KeyId, algorithm: in.MacAlgorithm, condition: policy.KeyMacAlgorithm, grantTokens: in.GrantTokens,
	})
	if err != nil {
		return nil, err
	}
	mac, err := s.mac(ctx, with, in.MacAlgorithm, in.Message)
	if err != nil {
		return nil, err
	}
	valid := subtle.ConstantTimeCompare(mac, in.Mac) == 1
	clear(mac) // who sent another one must not find the right one anywhere
	if !valid {
		return nil, &Error{Type: InvalidMac}
	}
	if in.DryRun {
		return nil, dryRun()
	}
	s.meter.used(r, with.key)
	return &VerifyMacOutput{KeyId: with.key.ARN(), MacAlgorithm: in.MacAlgorithm, MacValid: true}, nil
}

func (s *Service) mac(ctx context.Context, with *operand, algorithm hsm.Algorithm, message []byte) ([]byte, error) {
	mac, err := with.token.MAC(ctx, with.ref, algorithm, message)
	if err != nil {
		return nil, TokenError(s.lost(ctx, with.key, with.ref, err))
	}
	return mac, nil
}
