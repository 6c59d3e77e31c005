package pkcs11

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/rsa"
	_ "crypto/sha1" // for the names of hashes
	_ "crypto/sha256"
	_ "crypto/sha512"
	"errors"
	"fmt"
	"math/big"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// rsaHash is a hash as RSA uses it.
type rsaHash struct {
	name      string
	hash      crypto.Hash
	mechanism uint
	mgf       uint
	// prefix of the DigestInfo, RFC 8017, section 9.2, note 1; not needed for SHA-1.
	prefix []byte
}

var (
	rsaSHA1   = rsaHash{"SHA_1", crypto.SHA1, p11.CKM_SHA_1, p11.CKG_MGF1_SHA1, nil}
	rsaSHA256 = rsaHash{"SHA_256", crypto.SHA256, p11.CKM_SHA256, p11.CKG_MGF1_SHA256, digestInfo(1, 32)}
	rsaSHA384 = rsaHash{"SHA_384", crypto.SHA384, p11.CKM_SHA384, p11.CKG_MGF1_SHA384, digestInfo(2, 48)}
	rsaSHA512 = rsaHash{"SHA_512", crypto.SHA512, p11.CKM_SHA512, p11.CKG_MGF1_SHA512, digestInfo(3, 64)}
)

// digestInfo is the DER of a DigestInfo up to the digest of n bytes; hash is the last arc of 2.16.840.1.101.3.4.2.
func digestInfo(hash, n byte) []byte {
	return []byte{0x30, 17 + n, 0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, hash, 5, 0, 4, n}
}

// rsaKeys are the throw-away keys of one size.
type rsaKeys struct {
	bits  int
	pairs pairs
}

func rsaSpec(bits int) template {
	kind := map[int]hsm.KeyKind{2048: hsm.RSA2048Sign, 3072: hsm.RSA3072Sign, 4096: hsm.RSA4096Sign}[bits]
	return template{kind: kind, label: probeName, uses: []uint{p11.CKA_SIGN, p11.CKA_DECRYPT, p11.CKA_UNWRAP}}
}

func rsaGroup(bits int) group {
	k := &rsaKeys{bits: bits, pairs: pairs{}}
	g := group{
		key:      fmt.Sprintf("RSA_%d", bits),
		generate: func(p *prober) (string, error) { return k.pairs.generate(p, rsaSpec(bits)) },
		extras: []step{
			{"raw decryption (CKM_RSA_X_509)", k.raw},
			{"unwrap RSAES_OAEP_SHA_1", k.unwraps(rsaSHA1, k.oaepWrapped)},
			{"unwrap RSAES_OAEP_SHA_256", k.unwraps(rsaSHA256, k.oaepWrapped)},
			{"unwrap RSA_AES_KEY_WRAP_SHA_1", k.unwraps(rsaSHA1, k.rsaAESWrapped)},
			{"unwrap RSA_AES_KEY_WRAP_SHA_256", k.unwraps(rsaSHA256, k.rsaAESWrapped)},
		},
		algorithms: []step{
			{"RSAES_OAEP_SHA_1", k.oaep(rsaSHA1)},
			{"RSAES_OAEP_SHA_256", k.oaep(rsaSHA256)},
		},
	}
	hashes := []rsaHash{rsaSHA256, rsaSHA384, rsaSHA512}
	for _, h := range hashes {
		g.algorithms = append(g.algorithms, step{"RSASSA_PSS_" + h.name, k.pss(h)})
	}
	for _, h := range hashes {
		g.algorithms = append(g.algorithms, step{"RSASSA_PKCS1_V1_5_" + h.name, k.pkcs1(h)})
	}
	return g
}

// use gives the key for a use, with its public half for Go.
func (k *rsaKeys) use(p *prober, use uint) (pair, *rsa.PublicKey, error) {
	made, err := k.pairs.of(use)
	if err != nil {
		return pair{}, nil, err
	}
	public, err := p.rsaPublic(made.public)
	if err == nil && public.N.BitLen() != k.bits {
		err = fmt.Errorf("the modulus has %d bits", public.N.BitLen())
	}
	return made, public, err
}

// rsaPublic reads a public key.
func (p *prober) rsaPublic(object p11.ObjectHandle) (*rsa.PublicKey, error) {
	n := new(big.Int).SetBytes(p.anchor.attribute(object, p11.CKA_MODULUS))
	e := new(big.Int).SetBytes(p.anchor.attribute(object, p11.CKA_PUBLIC_EXPONENT))
	if n.Sign() == 0 || e.BitLen() < 2 || e.BitLen() > 31 {
		return nil, errors.New("the public key cannot be read")
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}

// digest gives the hash of a random message.
func (p *prober) digest(h crypto.Hash) ([]byte, error) {
	message, err := p.random(64)
	if err != nil {
		return nil, err
	}
	f := h.New()
	f.Write(message)
	return f.Sum(nil), nil
}

func (k *rsaKeys) pkcs1(h rsaHash) check {
	return func(p *prober) (string, error) {
		made, public, err := k.use(p, p11.CKA_SIGN)
		if err != nil {
			return "", err
		}
		return "", p.signsPKCS1(h, made.private, public)
	}
}

func (p *prober) signsPKCS1(h rsaHash, private p11.ObjectHandle, public *rsa.PublicKey) error {
	digest, err := p.digest(h.hash)
	if err != nil {
		return err
	}
	signature, err := p.sign(mechanismOf(p11.CKM_RSA_PKCS, nil), private, append(h.prefix[:len(h.prefix):len(h.prefix)], digest...))
	if err != nil {
		return err
	}
	if rsa.VerifyPKCS1v15(public, h.hash, digest, signature) != nil {
		return errUnverified
	}
	return nil
}

// signsRSA checks that a private key belongs to a public one.
func (p *prober) signsRSA(made pair) error {
	public, err := p.rsaPublic(made.public)
	if err != nil {
		return err
	}
	return p.signsPKCS1(rsaSHA256, made.private, public)
}

// pss checks signatures with a salt as long as the digest, as the AWS API has them.
func (k *rsaKeys) pss(h rsaHash) check {
	return func(p *prober) (string, error) {
		made, public, err := k.use(p, p11.CKA_SIGN)
		if err != nil {
			return "", err
		}
		digest, err := p.digest(h.hash)
		if err != nil {
			return "", err
		}
		params := p11.NewPSSParams(h.mechanism, h.mgf, uint(h.hash.Size()))
		signature, err := p.sign(mechanismOf(p11.CKM_RSA_PKCS_PSS, params), made.private, digest)
		if err != nil {
			return "", err
		}
		if rsa.VerifyPSS(public, h.hash, digest, signature, &rsa.PSSOptions{SaltLength: h.hash.Size()}) != nil {
			return "", errUnverified
		}
		return "", nil
	}
}

func (h rsaHash) oaepParams() *p11.OAEPParams {
	return p11.NewOAEPParams(h.mechanism, h.mgf, p11.CKZ_DATA_SPECIFIED, nil)
}

// oaep checks that the token decrypts what Go encrypted.
func (k *rsaKeys) oaep(h rsaHash) check {
	return func(p *prober) (string, error) {
		made, public, err := k.use(p, p11.CKA_DECRYPT)
		if err != nil {
			return "", err
		}
		plaintext, err := p.random(32)
		if err != nil {
			return "", err
		}
		ciphertext, err := rsa.EncryptOAEP(h.hash.New(), p.rand, public, plaintext, nil)
		if err != nil {
			return "", fmt.Errorf("encrypting in Go: %w", err)
		}
		got, err := p.decrypt(mechanismOf(p11.CKM_RSA_PKCS_OAEP, h.oaepParams()), made.private, ciphertext)
		if err == nil && !bytes.Equal(got, plaintext) {
			err = errWrongResult
		}
		return "", err
	}
}

// raw checks the bare RSA operation, from which RSAES_OAEP_SHA_256 can be had in this process on a token that lacks it.
// The result must be as long as the modulus, zeros in front included.
func (k *rsaKeys) raw(p *prober) (string, error) {
	made, public, err := k.use(p, p11.CKA_DECRYPT)
	if err != nil {
		return "", err
	}
	plaintext, err := p.random(public.Size())
	if err != nil {
		return "", err
	}
	plaintext[0], plaintext[1] = 0, 0
	c := new(big.Int).Exp(new(big.Int).SetBytes(plaintext), big.NewInt(int64(public.E)), public.N)
	got, err := p.decrypt(mechanismOf(p11.CKM_RSA_X_509, nil), made.private, c.FillBytes(make([]byte, public.Size())))
	if err == nil && !bytes.Equal(got, plaintext) {
		err = errWrongResult
	}
	return "", err
}

// rsaWrapped wraps a key in Go, as a caller does who imports one, and gives the mechanism that unwraps it.
type rsaWrapped func(p *prober, h rsaHash, public *rsa.PublicKey, key []byte) ([]*p11.Mechanism, []byte, error)

func (k *rsaKeys) oaepWrapped(p *prober, h rsaHash, public *rsa.PublicKey, key []byte) ([]*p11.Mechanism, []byte, error) {
	wrapped, err := rsa.EncryptOAEP(h.hash.New(), p.rand, public, key, nil)
	return mechanismOf(p11.CKM_RSA_PKCS_OAEP, h.oaepParams()), wrapped, err
}

func (k *rsaKeys) rsaAESWrapped(p *prober, h rsaHash, public *rsa.PublicKey, key []byte) ([]*p11.Mechanism, []byte, error) {
	ephemeral, err := p.random(aesKeySize)
	if err != nil {
		return nil, nil, err
	}
	block, err := aes.NewCipher(ephemeral)
	if err != nil {
		return nil, nil, err
	}
	_, wrapped, err := k.oaepWrapped(p, h, public, ephemeral)
	params := &p11.RSAAESKeyWrapParams{AESKeyBits: 8 * aesKeySize, OAEPParams: *h.oaepParams()}
	return mechanismOf(p11.CKM_RSA_AES_KEY_WRAP, params), append(wrapped, keyWrapPadded(block, key)...), err
}

// unwraps checks that a key that was wrapped in Go arrives on the token: Go decrypts what it encrypts.
func (k *rsaKeys) unwraps(h rsaHash, wrap rsaWrapped) check {
	return func(p *prober) (string, error) {
		made, public, err := k.use(p, p11.CKA_UNWRAP)
		if err != nil {
			return "", err
		}
		key, err := p.random(aesKeySize)
		if err != nil {
			return "", err
		}
		mechanism, wrapped, err := wrap(p, h, public, key)
		if err != nil {
			return "", fmt.Errorf("wrapping in Go: %w", err)
		}
		must, may := secret{keyType: p11.CKK_AES, uses: []uint{p11.CKA_ENCRYPT, p11.CKA_DECRYPT}}.unwrapped()
		handle, err := p.unwrap(mechanism, made.private, wrapped, must, may)
		if err != nil {
			return "", err
		}
		return "", p.encryptsAsGo(handle, key)
	}
}
