package kms

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"hsmkms/hsm"
	"hsmkms/policy"
	"hsmkms/publickey"
)

// SignInput is the input of Sign.
type SignInput struct {
	KeyId            string
	Message          []byte
	MessageType      publickey.MessageType
	GrantTokens      []string
	SigningAlgorithm hsm.Algorithm
	DryRun           bool
}

// SignOutput is the output of Sign.
type SignOutput struct {
	KeyId            string        `json:",omitempty"`
	Signature        []byte        `json:",omitempty"`
	SigningAlgorithm hsm.Algorithm `json:",omitempty"`
}

// Sign signs a message of 1 to 4096 bytes, or a digest, on the token.
func (s *Service) Sign(ctx context.Context, r *Request, in *SignInput) (*SignOutput, error) {
	with, err := s.operand(ctx, r, actionSign, &operandTarget{
		keyID: in.KeyId, algorithm: in.SigningAlgorithm, condition: policy.KeySigningAlgorithm, grantTokens: in.GrantTokens,
		values: messageAsked(in.MessageType),
	})
	if err != nil {
		return nil, err
	}
	signing, err := newSigning(with.ref, in)
	if err != nil {
		return nil, err
	}
	if in.DryRun {
		return nil, dryRun()
	}
	signature, err := with.token.Sign(ctx, signing)
	if err != nil {
		return nil, TokenError(s.lost(ctx, with.key, with.ref, err))
	}
	s.meter.used(r, with.key)
	return &SignOutput{KeyId: with.key.ARN(), Signature: signature, SigningAlgorithm: in.SigningAlgorithm}, nil
}

// VerifyInput is the input of Verify.
type VerifyInput struct {
	KeyId            string
	Message          []byte
	MessageType      publickey.MessageType
	Signature        []byte
	SigningAlgorithm hsm.Algorithm
	GrantTokens      []string
	DryRun           bool
}

// VerifyOutput is the output of Verify.
type VerifyOutput struct {
	KeyId            string `json:",omitempty"`
	SignatureValid   bool
	SigningAlgorithm hsm.Algorithm `json:",omitempty"`
}

// Verify verifies a signature in the process, with the public key. SignatureValid is never false: that is an error.
func (s *Service) Verify(ctx context.Context, r *Request, in *VerifyInput) (*VerifyOutput, error) {
	with, err := s.operand(ctx, r, actionVerify, &operandTarget{
		keyID: in.KeyId, algorithm: in.SigningAlgorithm, condition: policy.KeySigningAlgorithm, grantTokens: in.GrantTokens,
		values: messageAsked(in.MessageType), public: true,
	})
	if err != nil {
		return nil, err
	}
	if err := with.verify(in); err != nil {
		return nil, err
	}
	if in.DryRun {
		return nil, dryRun()
	}
	s.meter.used(r, with.key)
	return &VerifyOutput{KeyId: with.key.ARN(), SignatureValid: true, SigningAlgorithm: in.SigningAlgorithm}, nil
}

func messageAsked(messageType publickey.MessageType) []given {
	return []given{text(policy.KeyMessageType, cmp.Or(messageType, publickey.Raw))}
}

func (o *operand) verify(in *VerifyInput) error {
	if in.SigningAlgorithm == hsm.MLDSA {
		return Errorf(UnsupportedOperation, "Verification with the algorithm %s is not supported.", in.SigningAlgorithm)
	}
	public, err := publickey.Parse(o.ref.Public)
	if err != nil {
		return fmt.Errorf("reading the public key of key %s: %w", o.key.ID, err)
	}
	messageType := cmp.Or(in.MessageType, publickey.Raw)
	err = public.Verify(publickey.Signed{
		Algorithm: string(in.SigningAlgorithm), Type: messageType, Message: in.Message, Signature: in.Signature,
	})
	if errors.Is(err, publickey.ErrSignature) {
		return &Error{Type: InvalidKeySignature, Cause: err}
	}
	return messageError(err, in.SigningAlgorithm, messageType)
}

// newSigning says what the token is to sign of a message.
func newSigning(ref hsm.KeyRef, in *SignInput) (hsm.Signing, error) {
	messageType := cmp.Or(in.MessageType, publickey.Raw)
	signing := hsm.Signing{Key: ref, Algorithm: in.SigningAlgorithm, Input: in.Message}
	var err error
	if in.SigningAlgorithm == hsm.MLDSA {
		err = checkMLDSA(messageType, in.Message)
	} else {
		a, _ := publickey.Signing(string(in.SigningAlgorithm)) // the table of specs has no other
		signing.Input, err = a.Input(messageType, in.Message)
	}
	return signing, messageError(err, in.SigningAlgorithm, messageType)
}

// externalMu is the type of a message that is a message representative of ML-DSA: FIPS 204, section 6.2.
const externalMu publickey.MessageType = "EXTERNAL_MU"

// muSize is the length of such a message in bytes.
const muSize = 64

// checkMLDSA fails as the package publickey does for other algorithms, and for what no token does.
func checkMLDSA(messageType publickey.MessageType, message []byte) error {
	switch {
	case messageType != publickey.Raw && messageType != externalMu:
		return publickey.ErrMessageType
	case messageType == externalMu && len(message) != muSize:
		return publickey.ErrDigestLength
	case messageType == externalMu: // PKCS#11 has no mechanism for it
		return Errorf(UnsupportedOperation, "MessageType EXTERNAL_MU is not supported by the HSM token of this Region.")
	}
	return nil
}

// messageError translates what is wrong with a message.
func messageError(err error, algorithm hsm.Algorithm, messageType publickey.MessageType) error {
	switch {
	case errors.Is(err, publickey.ErrMessageType):
		return Errorf(Validation, "MessageType %s is not valid for algorithm %s.", messageType, algorithm)
	case errors.Is(err, publickey.ErrDigestLength):
		return Errorf(Validation, "Digest is invalid length for algorithm %s.", algorithm)
	default:
		return err
	}
}
