package kms

import "slices"

// The enumerations of the AWS API that keys are described with.
type (
	// KeySpec is the type of a key.
	KeySpec string
	// KeyUsage is what a key is for.
	KeyUsage string
	// Origin is where key material comes from.
	Origin string
	// EncryptionAlgorithm is an algorithm of Encrypt and Decrypt.
	EncryptionAlgorithm string
)

// The values of the enumerations that this package acts on.
const (
	SymmetricDefault KeySpec = "SYMMETRIC_DEFAULT"

	EncryptDecrypt    KeyUsage = "ENCRYPT_DECRYPT"
	SignVerify        KeyUsage = "SIGN_VERIFY"
	GenerateVerifyMac KeyUsage = "GENERATE_VERIFY_MAC"
	KeyAgreement      KeyUsage = "KEY_AGREEMENT"

	OriginKMS      Origin = "AWS_KMS"
	OriginExternal Origin = "EXTERNAL"
	OriginCloudHSM Origin = "AWS_CLOUDHSM"
	OriginXKS      Origin = "EXTERNAL_KEY_STORE"

	AlgorithmSymmetric EncryptionAlgorithm = "SYMMETRIC_DEFAULT"
)

// spec says what a key of a KeySpec may be used for.
type spec struct {
	usages []KeyUsage
	// encryption are its encryption algorithms, in AWS's order.
	encryption []EncryptionAlgorithm
	// served tells whether this server makes such keys.
	served bool
}

// specs has a row for every KeySpec of the published model.
var specs = map[KeySpec]spec{
	SymmetricDefault:        {usages: []KeyUsage{EncryptDecrypt}, encryption: []EncryptionAlgorithm{AlgorithmSymmetric}, served: true},
	"RSA_2048":              {usages: []KeyUsage{EncryptDecrypt, SignVerify}},
	"RSA_3072":              {usages: []KeyUsage{EncryptDecrypt, SignVerify}},
	"RSA_4096":              {usages: []KeyUsage{EncryptDecrypt, SignVerify}},
	"ECC_NIST_P256":         {usages: []KeyUsage{SignVerify, KeyAgreement}},
	"ECC_NIST_P384":         {usages: []KeyUsage{SignVerify, KeyAgreement}},
	"ECC_NIST_P521":         {usages: []KeyUsage{SignVerify, KeyAgreement}},
	"ECC_SECG_P256K1":       {usages: []KeyUsage{SignVerify}},
	"ECC_NIST_EDWARDS25519": {usages: []KeyUsage{SignVerify}},
	"HMAC_224":              {usages: []KeyUsage{GenerateVerifyMac}},
	"HMAC_256":              {usages: []KeyUsage{GenerateVerifyMac}},
	"HMAC_384":              {usages: []KeyUsage{GenerateVerifyMac}},
	"HMAC_512":              {usages: []KeyUsage{GenerateVerifyMac}},
	"ML_DSA_44":             {usages: []KeyUsage{SignVerify}},
	"ML_DSA_65":             {usages: []KeyUsage{SignVerify}},
	"ML_DSA_87":             {usages: []KeyUsage{SignVerify}},
	"SM2":                   {usages: []KeyUsage{EncryptDecrypt, SignVerify, KeyAgreement}},
}

func (s spec) allows(u KeyUsage) bool { return slices.Contains(s.usages, u) }
