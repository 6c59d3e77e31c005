package publickey

import (
	"crypto"
	_ "crypto/sha1" // for the hashes of the tables
	_ "crypto/sha256"
	_ "crypto/sha512"
	"fmt"
	"slices"
)

// Scheme is what an algorithm does with a key.
type Scheme int

// The schemes.
const (
	// PSS is RSASSA-PSS, RFC 8017, section 8.1, with a salt as long as the hash and MGF1 of the same hash.
	PSS Scheme = iota + 1
	// PKCS1v15 is RSASSA-PKCS1-v1_5, RFC 8017, section 8.2.
	PKCS1v15
	// ECDSA has signatures in DER (RFC 3279, section 2.2.3), with either of the two values of s.
	ECDSA
	// Ed25519 is the pure variant, RFC 8032, section 5.1.
	Ed25519
	// Ed25519ph is the prehashed variant without a context, RFC 8032, section 5.1.
	Ed25519ph
)

// MessageType says what the Message of a request is.
type MessageType string

// The types of messages. EXTERNAL_MU belongs to ML-DSA, which this package does not have.
const (
	Raw    MessageType = "RAW"
	Digest MessageType = "DIGEST"
)

// SigningAlgorithm is an algorithm of Sign and Verify.
type SigningAlgorithm struct {
	// Name is the AWS API's.
	Name   string
	Scheme Scheme
	// Hash is what a raw message is hashed with, and what a digest is as long as. Ed25519 and Ed25519ph have it inside.
	Hash crypto.Hash
	// Salt is the length in bytes of the salt of PSS; 0 for the other schemes.
	Salt int
	// KeySpecs are the keys that have the algorithm.
	KeySpecs []string
	// MessageTypes are the types of messages that it takes.
	MessageTypes []MessageType
}

var (
	rsaSpecs = []string{"RSA_2048", "RSA_3072", "RSA_4096"}
	rsaBits  = map[string]int{"RSA_2048": 2048, "RSA_3072": 3072, "RSA_4096": 4096}
	either   = []MessageType{Raw, Digest}
)

// signing has every signing algorithm of the AWS API but SM2DSA and ML_DSA_SHAKE_256, in the order in which AWS lists those
// of a key. Which message types the two of Ed25519 take is in the description of Sign's MessageType.
var signing = []SigningAlgorithm{
	{"RSASSA_PKCS1_V1_5_SHA_256", PKCS1v15, crypto.SHA256, 0, rsaSpecs, either},
	{"RSASSA_PKCS1_V1_5_SHA_384", PKCS1v15, crypto.SHA384, 0, rsaSpecs, either},
	{"RSASSA_PKCS1_V1_5_SHA_512", PKCS1v15, crypto.SHA512, 0, rsaSpecs, either},
	{"RSASSA_PSS_SHA_256", PSS, crypto.SHA256, 32, rsaSpecs, either},
	{"RSASSA_PSS_SHA_384", PSS, crypto.SHA384, 48, rsaSpecs, either},
	{"RSASSA_PSS_SHA_512", PSS, crypto.SHA512, 64, rsaSpecs, either},
	{"ECDSA_SHA_256", ECDSA, crypto.SHA256, 0, []string{specP256, specSecp256k1}, either},
	{"ECDSA_SHA_384", ECDSA, crypto.SHA384, 0, []string{specP384}, either},
	{"ECDSA_SHA_512", ECDSA, crypto.SHA512, 0, []string{specP521}, either},
	{"ED25519_SHA_512", Ed25519, crypto.SHA512, 0, []string{specEd25519}, []MessageType{Raw}},
	{"ED25519_PH_SHA_512", Ed25519ph, crypto.SHA512, 0, []string{specEd25519}, []MessageType{Digest}},
}

// Signing finds a signing algorithm by its name. The slices of what it gives belong to the table.
func Signing(name string) (SigningAlgorithm, bool) {
	i := slices.IndexFunc(signing, func(a SigningAlgorithm) bool { return a.Name == name })
	if i < 0 {
		return SigningAlgorithm{}, false
	}
	return signing[i], true
}

// SigningOf gives the names of the signing algorithms of a key spec, in AWS's order.
func SigningOf(keySpec string) []string {
	var names []string
	for _, a := range signing {
		if a.Fits(keySpec) {
			names = append(names, a.Name)
		}
	}
	return names
}

// Fits tells whether keys of a key spec have the algorithm.
func (a SigningAlgorithm) Fits(keySpec string) bool { return slices.Contains(a.KeySpecs, keySpec) }

// Takes tells whether the algorithm takes messages of a type.
func (a SigningAlgorithm) Takes(t MessageType) bool { return slices.Contains(a.MessageTypes, t) }

// Input gives what the private key is applied to: the digest for RSA and ECDSA, the message itself for Ed25519, and for
// Ed25519ph the SHA-512 of the message, because AWS hashes the digest that it is given once more (a signer that does this
// by itself is to be given the message). The result may be message itself. Input fails with ErrMessageType and
// ErrDigestLength.
func (a SigningAlgorithm) Input(t MessageType, message []byte) ([]byte, error) {
	switch {
	case !a.Takes(t):
		return nil, fmt.Errorf("%w: %s for %s", ErrMessageType, t, a.Name)
	case t == Digest && len(message) != a.Hash.Size():
		return nil, fmt.Errorf("%w: %d bytes for %s", ErrDigestLength, len(message), a.Name)
	case a.Scheme == Ed25519, t == Digest && a.Scheme != Ed25519ph:
		return message, nil
	}
	h := a.Hash.New()
	h.Write(message)
	return h.Sum(nil), nil
}

// EncryptionAlgorithm is an algorithm of Encrypt and Decrypt with RSA keys: RSAES-OAEP, RFC 8017, section 7.1, with MGF1 of
// the same hash and no label.
type EncryptionAlgorithm struct {
	// Name is the AWS API's.
	Name string
	Hash crypto.Hash
}

// encryption has every encryption algorithm of the AWS API for asymmetric keys but SM2PKE, in AWS's order.
var encryption = []EncryptionAlgorithm{
	{"RSAES_OAEP_SHA_1", crypto.SHA1},
	{"RSAES_OAEP_SHA_256", crypto.SHA256},
}

// Encryption finds an encryption algorithm by its name.
func Encryption(name string) (EncryptionAlgorithm, bool) {
	i := slices.IndexFunc(encryption, func(a EncryptionAlgorithm) bool { return a.Name == name })
	if i < 0 {
		return EncryptionAlgorithm{}, false
	}
	return encryption[i], true
}

// EncryptionOf gives the names of the encryption algorithms of a key spec, in AWS's order.
func EncryptionOf(keySpec string) []string {
	var names []string
	for _, a := range encryption {
		if a.MaxPlaintext(keySpec) > 0 {
			names = append(names, a.Name)
		}
	}
	return names
}

// MaxPlaintext is the length in bytes of the longest plaintext that fits under a key of a key spec, RFC 8017, section 7.1.1;
// 0 if the key spec does not have the algorithm.
func (a EncryptionAlgorithm) MaxPlaintext(keySpec string) int {
	return max(0, rsaBits[keySpec]/8-2*a.Hash.Size()-2)
}
