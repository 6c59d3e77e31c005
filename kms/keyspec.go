package kms

import (
	"slices"

	"hsmkms/hsm"
)

// The enumerations of the AWS API that keys are described with. Algorithms are of the type hsm.Algorithm, whose values have
// AWS's names.
type (
	// KeySpec is the type of a key.
	KeySpec string
	// KeyUsage is what a key is for.
	KeyUsage string
	// Origin is where key material comes from.
	Origin string
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
)

// purpose is what the keys of a KeySpec do in one KeyUsage.
type purpose struct {
	usage KeyUsage
	// kind is that of their material on the token; empty for what no token can be asked for.
	kind hsm.KeyKind
	// algorithms are in AWS's order.
	algorithms []hsm.Algorithm
}

var (
	rsaEncryption  = []hsm.Algorithm{hsm.OAEPWithSHA1, hsm.OAEPWithSHA256}
	rsaSigning     = []hsm.Algorithm{hsm.PKCS1WithSHA256, hsm.PKCS1WithSHA384, hsm.PKCS1WithSHA512, hsm.PSSWithSHA256, hsm.PSSWithSHA384, hsm.PSSWithSHA512}
	agreement      = []hsm.Algorithm{hsm.ECDH}
	edwardsSigning = []hsm.Algorithm{hsm.Ed25519, hsm.Ed25519ph}
	mldsaSigning   = []hsm.Algorithm{hsm.MLDSA}
)

// specs has a row for every KeySpec of the published model, with what its keys do, usage by usage. Whether the token of a
// Region can carry them is another matter: see Service.carries for whole specs and Service.supports for single algorithms.
// SM2 is not to be had: PKCS#11 has no mechanism for it, only vendors do.
var specs = map[KeySpec][]purpose{
	SymmetricDefault:        {{EncryptDecrypt, hsm.AES256, []hsm.Algorithm{hsm.SymmetricDefault}}},
	"RSA_2048":              {{EncryptDecrypt, hsm.RSA2048Decrypt, rsaEncryption}, {SignVerify, hsm.RSA2048Sign, rsaSigning}},
	"RSA_3072":              {{EncryptDecrypt, hsm.RSA3072Decrypt, rsaEncryption}, {SignVerify, hsm.RSA3072Sign, rsaSigning}},
	"RSA_4096":              {{EncryptDecrypt, hsm.RSA4096Decrypt, rsaEncryption}, {SignVerify, hsm.RSA4096Sign, rsaSigning}},
	"ECC_NIST_P256":         {{SignVerify, hsm.P256Sign, []hsm.Algorithm{hsm.ECDSAWithSHA256}}, {KeyAgreement, hsm.P256Derive, agreement}},
	"ECC_NIST_P384":         {{SignVerify, hsm.P384Sign, []hsm.Algorithm{hsm.ECDSAWithSHA384}}, {KeyAgreement, hsm.P384Derive, agreement}},
	"ECC_NIST_P521":         {{SignVerify, hsm.P521Sign, []hsm.Algorithm{hsm.ECDSAWithSHA512}}, {KeyAgreement, hsm.P521Derive, agreement}},
	"ECC_SECG_P256K1":       {{SignVerify, hsm.Secp256k1Sign, []hsm.Algorithm{hsm.ECDSAWithSHA256}}},
	"ECC_NIST_EDWARDS25519": {{SignVerify, hsm.Ed25519Sign, edwardsSigning}},
	"HMAC_224":              {{GenerateVerifyMac, hsm.HMAC224, []hsm.Algorithm{hsm.HMACWithSHA224}}},
	"HMAC_256":              {{GenerateVerifyMac, hsm.HMAC256, []hsm.Algorithm{hsm.HMACWithSHA256}}},
	"HMAC_384":              {{GenerateVerifyMac, hsm.HMAC384, []hsm.Algorithm{hsm.HMACWithSHA384}}},
	"HMAC_512":              {{GenerateVerifyMac, hsm.HMAC512, []hsm.Algorithm{hsm.HMACWithSHA512}}},
	"ML_DSA_44":             {{SignVerify, hsm.MLDSA44Sign, mldsaSigning}},
	"ML_DSA_65":             {{SignVerify, hsm.MLDSA65Sign, mldsaSigning}},
	"ML_DSA_87":             {{SignVerify, hsm.MLDSA87Sign, mldsaSigning}},
	"SM2":                   {{usage: EncryptDecrypt}, {usage: SignVerify}, {usage: KeyAgreement}},
}

// purposeOf finds what keys of a spec do in a usage; false if they are not for it.
func purposeOf(spec KeySpec, usage KeyUsage) (purpose, bool) {
	for _, p := range specs[spec] {
		if p.usage == usage {
			return p, true
		}
	}
	return purpose{}, false
}

func (k *Key) purpose() purpose {
	p, _ := purposeOf(k.Spec, k.Usage) // a key has no other
	return p
}

// algorithms gives the key's algorithms if it is for a usage, and nil else.
func (k *Key) algorithms(usage KeyUsage) []hsm.Algorithm {
	if k.Usage != usage {
		return nil
	}
	return k.purpose().algorithms
}

func (k *Key) symmetric() bool { return k.Spec == SymmetricDefault }

// keyPair tells whether the key has a public key.
func (k *Key) keyPair() bool { return !k.symmetric() && k.Usage != GenerateVerifyMac }

// checkAlgorithm fails for an algorithm that keys of the key's spec do not have in its usage.
func checkAlgorithm(key *Key, algorithm hsm.Algorithm) error {
	if slices.Contains(key.purpose().algorithms, algorithm) {
		return nil
	}
	return Errorf(InvalidKeyUsage, "Algorithm %s is incompatible with key spec %s.", algorithm, key.Spec)
}
