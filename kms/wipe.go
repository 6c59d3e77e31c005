package kms

// Inputs and outputs that hold plaintext have a Wipe method, which whoever decoded or encoded them calls when they are
// done with it. It overwrites the plaintext with zeros.

// Wipe overwrites the plaintext.
func (in *EncryptInput) Wipe() { clear(in.Plaintext) }

// Wipe overwrites the message.
func (in *SignInput) Wipe() { clear(in.Message) }

// Wipe overwrites the message.
func (in *VerifyInput) Wipe() { clear(in.Message) }

// Wipe overwrites the message.
func (in *GenerateMacInput) Wipe() { clear(in.Message) }

// Wipe overwrites the message.
func (in *VerifyMacInput) Wipe() { clear(in.Message) }

// Wipe overwrites the plaintext.
func (out *DecryptOutput) Wipe() { clear(out.Plaintext) }

// Wipe overwrites the data key.
func (out *GenerateDataKeyOutput) Wipe() { clear(out.Plaintext) }

// Wipe overwrites the random bytes.
func (out *GenerateRandomOutput) Wipe() { clear(out.Plaintext) }

// Wipe overwrites the private key.
func (out *GenerateDataKeyPairOutput) Wipe() { clear(out.PrivateKeyPlaintext) }

// Wipe overwrites the secret.
func (out *DeriveSharedSecretOutput) Wipe() { clear(out.SharedSecret) }
