// Package hsm is the contract between hsmkms and a hardware security module: what the service asks of a token, in
// terms of keys and ciphertext. It knows nothing of PKCS#11 handles, sessions or slots: names cross this contract,
// handles do not, for a handle dies with its session. hsm/pkcs11 implements it on any PKCS#11 module;
// hsm/hsmtest holds the rules that an implementation must pass.
package hsm

import "context"

// Sizes of AES-GCM as hsmkms uses it, in bytes. Every implementation enforces them, because tokens do not: some
// accept an empty IV or a tag of no length (NIST SP 800-38D, section 5.2.1).
const (
	IVSize  = 12
	TagSize = 16
)

// MaxPlaintext is the largest plaintext that a token is asked to encrypt, in bytes. It leaves room above the 4096
// bytes of the AWS API for what an RSA ciphertext may hold when it is re-encrypted.
const MaxPlaintext = 6144

// KeyID names key material: the CKA_ID of its object, 32 lower-case hexadecimal digits (16 random bytes). It is never
// used again for other material.
type KeyID string

// KeyRef is all that is needed to use key material, and safe to keep in a database: the name of an object on the
// token, or key material that the token itself has wrapped under one of its own keys.
type KeyRef struct {
	ID   KeyID   `json:"id"`
	Kind KeyKind `json:"kind"`
	// Wrapped is the key material as C_WrapKey gave it; empty for a persistent object of the token.
	Wrapped []byte `json:"wrapped,omitempty"`
	// WrappedBy names the token object under which it is wrapped.
	WrappedBy KeyID `json:"wrappedBy,omitempty"`
	// WrapFormat tells how it is wrapped, because CKM_AES_KEY_WRAP_PAD means two things in the field.
	WrapFormat WrapFormat `json:"wrapFormat,omitempty"`
	// Proof is a block of zeros that an AES256 key encrypted when it was made: the IV, the ciphertext and the tag, with an
	// AAD of zeros. A token that still opens it is sound, which is how a forged ciphertext is told from a broken token
	// without spending an encryption.
	Proof []byte `json:"proof,omitempty"`
	// Public is the public key of a key pair, a DER SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7).
	Public []byte `json:"public,omitempty"`
}

// WrapFormat is an algorithm for wrapping keys.
type WrapFormat string

// The formats in the field.
const (
	// WrapKWP is AES Key Wrap with Padding, RFC 5649.
	WrapKWP WrapFormat = "AES-KWP"
	// WrapPKCS7 is PKCS#7 padding followed by AES Key Wrap, RFC 3394.
	WrapPKCS7 WrapFormat = "AES-KW-PKCS7"
)

// KeyKind says what a key is and what it may do on the token.
type KeyKind string

// The kinds of keys.
const (
	// AES256 encrypts and decrypts with AES-GCM.
	AES256 KeyKind = "AES_256"
	// AES256Wrap wraps and unwraps other keys and nothing else.
	AES256Wrap KeyKind = "AES_256_WRAP"
	// RSA2048Import, RSA3072Import and RSA4096Import are RSA key pairs that key material is imported under, and nothing
	// else. They are always persistent objects.
	RSA2048Import KeyKind = "RSA_2048_IMPORT"
	RSA3072Import KeyKind = "RSA_3072_IMPORT"
	RSA4096Import KeyKind = "RSA_4096_IMPORT"

	// Key pairs that decrypt what was encrypted to their public key.
	RSA2048Decrypt KeyKind = "RSA_2048_DECRYPT"
	RSA3072Decrypt KeyKind = "RSA_3072_DECRYPT"
	RSA4096Decrypt KeyKind = "RSA_4096_DECRYPT"
	// Key pairs that sign.
	RSA2048Sign   KeyKind = "RSA_2048_SIGN"
	RSA3072Sign   KeyKind = "RSA_3072_SIGN"
	RSA4096Sign   KeyKind = "RSA_4096_SIGN"
	P256Sign      KeyKind = "P256_SIGN"
	P384Sign      KeyKind = "P384_SIGN"
	P521Sign      KeyKind = "P521_SIGN"
	Secp256k1Sign KeyKind = "SECP256K1_SIGN"
	Ed25519Sign   KeyKind = "ED25519_SIGN"
	MLDSA44Sign   KeyKind = "ML_DSA_44_SIGN"
	MLDSA65Sign   KeyKind = "ML_DSA_65_SIGN"
	MLDSA87Sign   KeyKind = "ML_DSA_87_SIGN"
	// Key pairs that agree on secrets.
	P256Derive KeyKind = "P256_DERIVE"
	P384Derive KeyKind = "P384_DERIVE"
	P521Derive KeyKind = "P521_DERIVE"
	// Keys of 28, 32, 48 and 64 bytes that make MACs.
	HMAC224 KeyKind = "HMAC_224"
	HMAC256 KeyKind = "HMAC_256"
	HMAC384 KeyKind = "HMAC_384"
	HMAC512 KeyKind = "HMAC_512"
)

// Kinds gives the kinds of keys that Support tells of, those first that are quickly tried.
func Kinds() []KeyKind {
	return []KeyKind{
		AES256, HMAC224, HMAC256, HMAC384, HMAC512, P256Sign, P384Sign, P521Sign, Secp256k1Sign, Ed25519Sign, P256Derive, P384Derive, P521Derive,
		MLDSA44Sign, MLDSA65Sign, MLDSA87Sign,
		RSA2048Decrypt, RSA2048Sign, RSA3072Decrypt, RSA3072Sign, RSA4096Decrypt, RSA4096Sign,
	}
}

// Algorithm is what a key does, by its name in the AWS API.
type Algorithm string

// The algorithms. OAEP uses its hash for MGF1 too, and no label; PSS likewise, with a salt as long as the hash.
const (
	SymmetricDefault Algorithm = "SYMMETRIC_DEFAULT"  // AES-256-GCM; the empty Algorithm means it too
	OAEPWithSHA1     Algorithm = "RSAES_OAEP_SHA_1"   //nolint:gosec // the name of an algorithm
	OAEPWithSHA256   Algorithm = "RSAES_OAEP_SHA_256" //nolint:gosec // likewise

	PSSWithSHA256   Algorithm = "RSASSA_PSS_SHA_256"
	PSSWithSHA384   Algorithm = "RSASSA_PSS_SHA_384"
	PSSWithSHA512   Algorithm = "RSASSA_PSS_SHA_512"
	PKCS1WithSHA256 Algorithm = "RSASSA_PKCS1_V1_5_SHA_256"
	PKCS1WithSHA384 Algorithm = "RSASSA_PKCS1_V1_5_SHA_384"
	PKCS1WithSHA512 Algorithm = "RSASSA_PKCS1_V1_5_SHA_512"
	ECDSAWithSHA256 Algorithm = "ECDSA_SHA_256"
	ECDSAWithSHA384 Algorithm = "ECDSA_SHA_384"
	ECDSAWithSHA512 Algorithm = "ECDSA_SHA_512"
	Ed25519         Algorithm = "ED25519_SHA_512"
	Ed25519ph       Algorithm = "ED25519_PH_SHA_512"
	MLDSA           Algorithm = "ML_DSA_SHAKE_256"

	HMACWithSHA224 Algorithm = "HMAC_SHA_224"
	HMACWithSHA256 Algorithm = "HMAC_SHA_256"
	HMACWithSHA384 Algorithm = "HMAC_SHA_384"
	HMACWithSHA512 Algorithm = "HMAC_SHA_512"

	ECDH Algorithm = "ECDH"
)

// Support is what a token was seen to do with keys of a kind, not what its mechanism list says.
type Support struct {
	// Algorithms are those that it carries out, each with its route: InProcess when the token does the operation with the
	// private key alone and the process the rest, with the plaintext passing through it.
	Algorithms map[Algorithm]Route
	// Wraps tells whether such keys can live outside the token, wrapped. Where they cannot, GenerateKey and ImportKey make an
	// object of the token even when WrapUnder is set.
	Wraps bool
}

// KeyRequest asks for new key material.
type KeyRequest struct {
	Kind KeyKind
	// Label is for the eyes of operators who list the token's objects; it need not be unique.
	Label string
	// WrapUnder, when set, asks for material that lives outside the token, wrapped under that AES256Wrap key of the
	// token. Empty asks for a persistent, sensitive, non-extractable object.
	WrapUnder KeyID
}

// ImportWrap is how key material is encrypted on its way to the token.
type ImportWrap string

// The ways of encrypting key material, by their names in the AWS API. OAEP uses its hash for MGF1 too, and no label
// (RFC 8017, section 7.1). The last two are CKM_RSA_AES_KEY_WRAP: an AES-256 key under OAEP, followed by the material under
// that key in AES-KWP (RFC 5649).
const (
	OAEPSHA1     ImportWrap = "RSAES_OAEP_SHA_1"
	OAEPSHA256   ImportWrap = "RSAES_OAEP_SHA_256"
	RSAAESSHA1   ImportWrap = "RSA_AES_KEY_WRAP_SHA_1"
	RSAAESSHA256 ImportWrap = "RSA_AES_KEY_WRAP_SHA_256"
)

// Route is the way that plaintext or imported material takes.
type Route string

// The routes.
const (
	// OnToken means that the token decrypts the material with C_UnwrapKey. No byte of it is seen by the process.
	OnToken Route = "on_token"
	// InProcess means that the token cannot undo the padding, so the process does; of imported material it hands what was
	// wrapped (the material, or the AES key over it) to the token with C_CreateObject. It is wiped.
	InProcess Route = "in_process"
)

// ImportRequest asks for a key of imported material.
type ImportRequest struct {
	// Under is the key pair, of one of the Import kinds, that the material is encrypted to.
	Under KeyRef
	Wrap  ImportWrap
	// Material is the encrypted material.
	Material []byte
	// Kind, Label and WrapUnder are of the new key, as in KeyRequest.
	Kind      KeyKind
	Label     string
	WrapUnder KeyID
	// Nonce makes the key's fingerprint another one for each owner.
	Nonce []byte
}

// Imported is a key of imported material.
type Imported struct {
	Key KeyRef
	// Fingerprint is the same for the same material and nonce, on any token, and tells nothing of the material to who
	// cannot guess it.
	Fingerprint [32]byte
}

// AAD is the additional authenticated data of an AES-GCM operation: always a digest, so that it is never empty and
// never beyond what a token takes.
type AAD [32]byte

// Sealed is a plaintext encrypted with AES-256-GCM.
type Sealed struct {
	IV [IVSize]byte
	// Data is the ciphertext followed by the tag of TagSize bytes.
	Data []byte
}

// Sealing says under which key, and bound to what, a plaintext is to be encrypted.
type Sealing struct {
	Key KeyRef
	// Algorithm is SymmetricDefault or, for a key pair, one of OAEP, which binds nothing: AAD then means nothing, and of the
	// Sealed there is Data alone. The public key is used in the process.
	Algorithm Algorithm
	AAD       AAD
}

// Opening says what is to be decrypted, and under which key.
type Opening struct {
	Key KeyRef
	// Algorithm is as in Sealing.
	Algorithm Algorithm
	AAD       AAD
	Sealed    Sealed
}

// MaxMessage is the longest message that is signed or authenticated whole, in bytes: the AWS API has no longer ones.
const MaxMessage = 4096

// Signing says what is to be signed.
type Signing struct {
	Key       KeyRef
	Algorithm Algorithm
	// Input is the digest of the message by the hash of the algorithm; for Ed25519 the message itself; for Ed25519ph its
	// SHA-512; for MLDSA the message.
	Input []byte
}

// DataPair is a key pair for use outside of the token.
type DataPair struct {
	// Private is the private key, a DER PrivateKeyInfo (PKCS#8, RFC 5958), which the caller wipes.
	Private []byte
	// Public is the public key, a DER SubjectPublicKeyInfo.
	Public []byte
}

// Object is a persistent object that hsmkms made on the token.
type Object struct {
	ID    KeyID
	Label string
}

// Token is one PKCS#11 token with its keys. All methods are safe for concurrent use, keep the deadline of ctx even
// when the token hangs, and fail with an *Error. An implementation never shows key bytes to the process.
//
// A method that fails because ctx ended may still be running on the token; the buffers handed to it belong to it until
// it ends, so the caller must not use their memory for other things (to wipe them is harmless).
type Token interface {
	// GenerateKey makes key material on the token and proves that it works before it returns. A failure leaves no
	// reference behind, but may leave an object that Objects reports.
	GenerateKey(ctx context.Context, r KeyRequest) (KeyRef, error)

	// Support tells what the token does with keys of a kind; without any algorithm, it cannot carry such keys. It is found
	// out with throw-away session keys: that may take seconds at the first call, and is answered from memory later.
	Support(ctx context.Context, kind KeyKind) (Support, error)

	// ImportRoutes tells which route material for a key of a kind takes that is encrypted in each way; a way that the token
	// does not have is not in the map. It may take seconds at the first call and is answered from memory later.
	ImportRoutes(ctx context.Context, kind KeyKind) (map[ImportWrap]Route, error)

	// ImportKey makes a key of imported material and proves that it works before it returns. Material that cannot be
	// decrypted gives the class BadInput, material of the wrong length or form WrongMaterial, and a way that the token
	// does not have, or may not take, Unsupported.
	ImportKey(ctx context.Context, r ImportRequest) (Imported, error)

	// DestroyKey destroys the key's object on the token; for wrapped material it only forgets the unwrapped copy. It
	// is no error if there is none.
	DestroyKey(ctx context.Context, key KeyRef) error

	// Encrypt encrypts 1 to MaxPlaintext bytes with a fresh IV, or under a key pair. What its algorithm cannot take gives the
	// class TooLong.
	Encrypt(ctx context.Context, s Sealing, plaintext []byte) (Sealed, error)

	// Decrypt returns the plaintext, which the caller must wipe. A ciphertext, IV or AAD that does not belong to the
	// key gives the class BadInput.
	Decrypt(ctx context.Context, o Opening) ([]byte, error)

	// ReEncrypt decrypts and encrypts in one visit to the token. The plaintext does not outlive the call and is wiped
	// on every path; a public key of the destination is used in the process, by a library that keeps traces of what it
	// encrypts. Failures of the source are marked by Error.Source.
	ReEncrypt(ctx context.Context, o Opening, s Sealing) (Sealed, error)

	// Sign signs, and gives the signature in the form of the AWS API: ECDSA in DER, the others as the algorithm has it.
	Sign(ctx context.Context, s Signing) ([]byte, error)

	// MAC authenticates a message of up to MaxMessage bytes.
	MAC(ctx context.Context, key KeyRef, algorithm Algorithm, message []byte) ([]byte, error)

	// DeriveSecret agrees on a secret with the owner of another key on the same curve, whose point is given uncompressed (SEC 1,
	// section 2.3.3): the x coordinate of the product (NIST SP 800-56A, section 5.7.1.2), which the caller wipes. A point that
	// is not on the curve gives the class BadInput.
	DeriveSecret(ctx context.Context, key KeyRef, point []byte) ([]byte, error)

	// GenerateDataPair makes a key pair of one of the kinds that sign and gives it out. Nothing of it stays on the token.
	GenerateDataPair(ctx context.Context, kind KeyKind) (DataPair, error)

	// TryDataPair fails with the class Unsupported if GenerateDataPair would for that kind. It is found out by making a pair, at
	// most one of 2048 bits for RSA, and answered from memory once that went well.
	TryDataPair(ctx context.Context, kind KeyKind) error

	// Random fills b from the token's generator.
	Random(ctx context.Context, b []byte) error

	// Objects lists the persistent objects that hsmkms made on this token, for comparison with what the store knows.
	Objects(ctx context.Context) ([]Object, error)

	// Check fails when the token cannot be used. It is cheap, but it is a visit to the token.
	Check(ctx context.Context) error
}
