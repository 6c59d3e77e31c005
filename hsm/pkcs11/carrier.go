package pkcs11

import (
	"bytes"
	"crypto/aes"
	"crypto/sha256"
	"encoding/binary"
	"math/big"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
	"hsmkms/publickey"
)

// importKinds are the kinds whose material is imported, each with the one that is tried out for it: a carrier does the same
// for kinds that differ in their use.
var importKinds = map[hsm.KeyKind]hsm.KeyKind{
	hsm.AES256:         hsm.AES256,
	hsm.HMAC224:        hsm.HMAC224,
	hsm.HMAC256:        hsm.HMAC256,
	hsm.HMAC384:        hsm.HMAC384,
	hsm.HMAC512:        hsm.HMAC512,
	hsm.P256Sign:       hsm.P256Sign,
	hsm.P256Derive:     hsm.P256Sign,
	hsm.P384Sign:       hsm.P384Sign,
	hsm.P384Derive:     hsm.P384Sign,
	hsm.P521Sign:       hsm.P521Sign,
	hsm.P521Derive:     hsm.P521Sign,
	hsm.Secp256k1Sign:  hsm.Secp256k1Sign,
	hsm.Ed25519Sign:    hsm.Ed25519Sign,
	hsm.RSA2048Sign:    hsm.RSA2048Sign,
	hsm.RSA2048Decrypt: hsm.RSA2048Sign,
	hsm.RSA3072Sign:    hsm.RSA3072Sign,
	hsm.RSA3072Decrypt: hsm.RSA3072Sign,
	hsm.RSA4096Sign:    hsm.RSA4096Sign,
	hsm.RSA4096Decrypt: hsm.RSA4096Sign,
}

// carrierOf describes the carrier of material for a key of a kind. It may do what shows which key it is.
func (s *session) carrierOf(kind hsm.KeyKind) template {
	if kind == hsm.AES256 {
		return template{kind: kindCarrier, label: "import", extractable: true}
	}
	t := template{kind: kind, form: s.keys.token.form(kind), uses: []uint{p11.CKA_SIGN}, label: "import", extractable: true}
	if kinds[kind].keyType() == p11.CKK_EC {
		t.uses = append(t.uses, p11.CKA_DERIVE)
	}
	return t
}

// identity is what was found out of a carrier.
type identity struct {
	// wrapped is the key under the gate; empty if it is made of landing.value.
	wrapped []byte
	// public is the public key of a key pair, in DER.
	public []byte
	// evidence is what no other key gives; see session.evidence.
	evidence []byte
}

// inspect sees whether the carrier holds a key of the kind, and which. The token is not asked for more than it needs to be:
// it may say of a key what it was told of it.
func (l *landing) inspect(kind hsm.KeyKind, carrier p11.ObjectHandle, nonce []byte) (found identity, err error) {
	if l.value == nil {
		if found.wrapped, err = l.s.wrapWith(l.ways.wrap, l.gate, carrier); err != nil {
			return found, err
		}
	}
	switch kinds[kind].keyType() {
	case p11.CKK_AES:
		err = l.inspectAES(carrier, found.wrapped)
	case p11.CKK_RSA:
		found.public, err = l.s.identifyRSA(kind, carrier)
	case p11.CKK_EC:
		found.public, err = l.s.identifyEC(kind, carrier)
	case ckkECEdwards:
		found.public, err = l.identifyEdwards(kind, carrier)
	default:
		err = l.s.inspectHMAC(kind, carrier)
	}
	if err == nil {
		found.evidence, err = l.s.evidence(&loadedKey{handle: carrier}, kind, found.public, nonce)
	}
	return found, err
}

// someBlock is encrypted to see whether a key works. That it is not all zeros matters: their encryption is the hash key of
// AES-GCM.
var someBlock = [aes.BlockSize]byte{1}

// inspectAES sees whether the carrier holds an AES-256 key.
//
// The length of a key is not to be had by asking: SoftHSM answers 0. Wrapped under the gate it has the right length for 25 to
// 32 bytes (RFC 5649) or 32 to 39 (PKCS#7), and of these only 32 make a key that AES works with. It must be the carrier that
// is tried: SoftHSM fills up with zeros what it wraps.
func (l *landing) inspectAES(carrier p11.ObjectHandle, wrapped []byte) error {
	if len(wrapped) != l.ways.size {
		return errMaterial
	}
	_, err := l.s.encryptECB(carrier, someBlock[:])
	return err
}

// inspectHMAC sees whether the carrier is as long as it must be.
func (s *session) inspectHMAC(kind hsm.KeyKind, carrier p11.ObjectHandle) error {
	fits, err := s.hasLength(carrier, kinds[kind].size)
	if err == nil && !fits {
		err = errMaterial
	}
	return err
}

// leastExponent is that of an RSA key, FIPS 186-5, section 5.1.
var leastExponent = big.NewInt(65537)

// identifyRSA gives the public key, which a private key of RSA shows, and sees that the two belong together.
func (s *session) identifyRSA(kind hsm.KeyKind, carrier p11.ObjectHandle) ([]byte, error) {
	modulus, err := s.read(carrier, p11.CKA_MODULUS)
	if err != nil {
		return nil, err
	}
	exponent, err := s.read(carrier, p11.CKA_PUBLIC_EXPONENT)
	if err != nil {
		return nil, err
	}
	public, err := publickey.FromModulus(modulus, exponent)
	if err != nil || public.Spec() != kinds[kind].spec || new(big.Int).SetBytes(exponent).Cmp(leastExponent) < 0 {
		return nil, errMaterial
	}
	ref := hsm.KeyRef{Kind: kind, Public: public.Marshal()}
	return ref.Public, s.rehearseSignature(&loadedKey{handle: carrier}, ref, hsm.PKCS1WithSHA256)
}

// identifyEC finds the public key, which a private key on an elliptic curve does not show: it agrees on a secret with the
// owner of the number 1, whose public key is the base point, which gives the x coordinate of its own. Of the two points that
// have it, one verifies its signatures.
func (s *session) identifyEC(kind hsm.KeyKind, carrier p11.ObjectHandle) ([]byte, error) {
	k, key := kinds[kind], &loadedKey{handle: carrier}
	params, err := s.read(carrier, p11.CKA_EC_PARAMS)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(params, k.curve()) {
		return nil, errMaterial
	}
	curve := weierstrassCurves[k.spec]
	x, err := s.derive(key, kind, curve.base())
	if err != nil {
		return nil, err
	}
	err = errMaterial // of the number 0, which has no point
	for _, point := range curve.lift(x) {
		var public *publickey.Key
		if public, err = publickey.FromPoint(k.spec, point); err != nil {
			return nil, &hsm.Error{Class: hsm.Failed, Function: "C_DeriveKey", Cause: err}
		}
		ref := hsm.KeyRef{Kind: kind, Public: public.Marshal()}
		if err = s.rehearseSignature(key, ref, ecdsaOf[k.spec]); err == nil || suspect(err) {
			return ref.Public, err
		}
	}
	return nil, err
}

// ecdsaOf gives the algorithm in which keys on a curve sign.
var ecdsaOf = map[string]hsm.Algorithm{
	"ECC_NIST_P256": hsm.ECDSAWithSHA256, "ECC_NIST_P384": hsm.ECDSAWithSHA384, "ECC_NIST_P521": hsm.ECDSAWithSHA512,
	"ECC_SECG_P256K1": hsm.ECDSAWithSHA256,
}

// fingerprintPrefix begins what is hashed for a fingerprint.
const fingerprintPrefix = "hsmkms key material fingerprint"

// evidenceText is what a key is to give evidence with.
func evidenceText(nonce []byte) [32]byte {
	return sha256.Sum256(append([]byte(fingerprintPrefix+"\x00"), nonce...))
}

// evidence gives what no other key does: for evidenceText, the encryption of its two blocks, each by itself, or its MAC; or
// else the public key.
//
// It tells nothing of a key that cannot be guessed: AES under such a key is a random permutation to who looks at its results,
// and they are hashed. Nor does it weaken AES-GCM under the key: its inputs there are the block of zeros and counter blocks,
// one of which a block of a hash is with a probability of 2^-128 for each, and even then the result is seen only hashed. A MAC
// is hashed too, or it would be one of a message that nobody asked for. Who guesses a key can find his guess confirmed, as by
// any ciphertext with a known plaintext.
func (s *session) evidence(key *loadedKey, kind hsm.KeyKind, public, nonce []byte) ([]byte, error) {
	blocks := evidenceText(nonce)
	switch {
	case kind == hsm.AES256:
		return s.encryptECB(key.handle, blocks[:])
	case kinds[kind].pair():
		return public, nil
	default:
		return s.mac(key, kind, blocks[:])
	}
}

// fingerprint is SHA-256 over the prefix, the nonce with its length as 8 bytes before it, and the evidence.
func fingerprint(nonce, evidence []byte) [32]byte {
	text := binary.BigEndian.AppendUint64([]byte(fingerprintPrefix), uint64(len(nonce)))
	return sha256.Sum256(append(append(text, nonce...), evidence...))
}
