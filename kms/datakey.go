package kms

import "context"

// GenerateDataKeyInput is the input of GenerateDataKey.
type GenerateDataKeyInput struct {
	KeyId             string
	KeySpec           string
	NumberOfBytes     *int32
	EncryptionContext map[string]string
	GrantTokens       []string
	Recipient         *RecipientInfo
	DryRun            bool
}

// GenerateDataKeyOutput is the output of GenerateDataKey.
type GenerateDataKeyOutput struct {
	CiphertextBlob         []byte `json:",omitempty"`
	CiphertextForRecipient []byte `json:",omitempty"`
	KeyId                  string `json:",omitempty"`
	KeyMaterialId          string `json:",omitempty"`
	Plaintext              []byte `json:",omitempty"`
}

// GenerateDataKey makes a data key of 1 to 1024 random bytes from the token's generator and gives it out in plaintext and
// encrypted under the key.
func (s *Service) GenerateDataKey(ctx context.Context, r *Request, in *GenerateDataKeyInput) (*GenerateDataKeyOutput, error) {
	if err := checkRecipient(in.Recipient); err != nil {
		return nil, err
	}
	size, err := dataKeySize(in.KeySpec, in.NumberOfBytes)
	if err != nil {
		return nil, err
	}
	to, err := s.destination(ctx, r, actionGenerateDataKey, &sealTarget{in.KeyId, AlgorithmSymmetric, in.EncryptionContext, in.GrantTokens})
	if err != nil {
		return nil, err
	}
	plaintext, blob, err := to.dataKey(ctx, size, in.DryRun)
	if err != nil {
		return nil, err
	}
	return &GenerateDataKeyOutput{CiphertextBlob: blob, KeyId: to.key.ARN(), KeyMaterialId: to.key.current().ID, Plaintext: plaintext}, nil
}

// GenerateDataKeyWithoutPlaintextInput is the input of GenerateDataKeyWithoutPlaintext.
type GenerateDataKeyWithoutPlaintextInput struct {
	KeyId             string
	KeySpec           string
	NumberOfBytes     *int32
	EncryptionContext map[string]string
	GrantTokens       []string
	DryRun            bool
}

// GenerateDataKeyWithoutPlaintextOutput is the output of GenerateDataKeyWithoutPlaintext.
type GenerateDataKeyWithoutPlaintextOutput struct {
	CiphertextBlob []byte `json:",omitempty"`
	KeyId          string `json:",omitempty"`
	KeyMaterialId  string `json:",omitempty"`
}

// GenerateDataKeyWithoutPlaintext is GenerateDataKey for a key that is needed later: the plaintext is wiped.
func (s *Service) GenerateDataKeyWithoutPlaintext(ctx context.Context, r *Request, in *GenerateDataKeyWithoutPlaintextInput) (*GenerateDataKeyWithoutPlaintextOutput, error) {
	size, err := dataKeySize(in.KeySpec, in.NumberOfBytes)
	if err != nil {
		return nil, err
	}
	to, err := s.destination(ctx, r, actionGenerateDataKeyBlind, &sealTarget{in.KeyId, AlgorithmSymmetric, in.EncryptionContext, in.GrantTokens})
	if err != nil {
		return nil, err
	}
	plaintext, blob, err := to.dataKey(ctx, size, in.DryRun)
	clear(plaintext)
	if err != nil {
		return nil, err
	}
	return &GenerateDataKeyWithoutPlaintextOutput{CiphertextBlob: blob, KeyId: to.key.ARN(), KeyMaterialId: to.key.current().ID}, nil
}

// dataKeySizes are the lengths of the DataKeySpecs in bytes.
var dataKeySizes = map[string]int{"AES_128": 16, "AES_256": 32}

// dataKeySize gives the length of the data key that a request asks for, in one of two ways.
func dataKeySize(spec string, bytes *int32) (int, error) {
	if (spec == "") == (bytes == nil) {
		return 0, Errorf(Validation, "Please specify either number of bytes or key spec.")
	}
	if bytes != nil {
		return int(*bytes), nil
	}
	return dataKeySizes[spec], nil
}

// dataKey makes a data key and encrypts it. The caller wipes the plaintext.
func (d *destination) dataKey(ctx context.Context, size int, dry bool) (plaintext, blob []byte, err error) {
	if dry {
		return nil, nil, dryRun()
	}
	plaintext = make([]byte, size)
	if err := d.region.Token.Random(ctx, plaintext); err != nil {
		clear(plaintext)
		return nil, nil, TokenError(err)
	}
	if blob, err = d.seal(ctx, plaintext); err != nil {
		clear(plaintext)
		return nil, nil, err
	}
	return plaintext, blob, nil
}

// GenerateRandomInput is the input of GenerateRandom.
type GenerateRandomInput struct {
	NumberOfBytes    *int32
	CustomKeyStoreId string
	Recipient        *RecipientInfo
}

// GenerateRandomOutput is the output of GenerateRandom.
type GenerateRandomOutput struct {
	CiphertextForRecipient []byte `json:",omitempty"`
	Plaintext              []byte `json:",omitempty"`
}

// GenerateRandom gives 1 to 1024 bytes from the token's generator.
func (s *Service) GenerateRandom(ctx context.Context, r *Request, in *GenerateRandomInput) (*GenerateRandomOutput, error) {
	if err := permitAccount(r, "GenerateRandom"); err != nil {
		return nil, err
	}
	if in.NumberOfBytes == nil {
		return nil, Errorf(Validation, "NumberOfBytes is required.")
	}
	if err := checkRecipient(in.Recipient); err != nil {
		return nil, err
	}
	if err := checkCustomKeyStore(in.CustomKeyStoreId); err != nil {
		return nil, err
	}
	region, err := s.region(r)
	if err != nil {
		return nil, err
	}
	plaintext := make([]byte, *in.NumberOfBytes)
	if err := region.Token.Random(ctx, plaintext); err != nil {
		clear(plaintext)
		return nil, TokenError(err)
	}
	return &GenerateRandomOutput{Plaintext: plaintext}, nil
}

// checkCustomKeyStore refuses the id of a custom key store: there are none.
func checkCustomKeyStore(id string) error {
	if id != "" {
		return Errorf(CustomKeyStoreNotFound, "The custom key store %s does not exist.", id)
	}
	return nil
}
