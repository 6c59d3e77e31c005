package hsm

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"time"
)

// Signer is a crypto.Signer whose private key stays on a token. It is safe for concurrent use.
type Signer struct {
	token   Token
	key     KeyRef
	public  crypto.PublicKey
	timeout time.Duration
}

// NewSigner makes a Signer of a key pair that signs: RSA, or on a curve of NIST. A signature that takes longer than the timeout
// fails, since crypto.Signer has no context.
func NewSigner(token Token, key KeyRef, timeout time.Duration) (*Signer, error) {
	public, err := x509.ParsePKIXPublicKey(key.Public)
	if err != nil {
		return nil, fmt.Errorf("reading the public key of %s: %w", key.ID, err)
	}
	switch public.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey:
		return &Signer{token: token, key: key, public: public, timeout: timeout}, nil
	default:
		return nil, fmt.Errorf("a %T is not for signing here", public)
	}
}

// Public gives the public key.
func (s *Signer) Public() crypto.PublicKey { return s.public }

// Sign signs a digest by SHA-256, SHA-384 or SHA-512. RSA signs in the form of PKCS #1 v1.5, or, with rsa.PSSOptions, in that of
// PSS with a salt as long as the hash. The token is the source of randomness.
func (s *Signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	return s.SignDigest(ctx, digest, opts)
}

// SignDigest is Sign for as long as ctx allows, whatever the timeout.
func (s *Signer) SignDigest(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	algorithm, err := s.algorithm(opts)
	if err != nil {
		return nil, err
	}
	if len(digest) != opts.HashFunc().Size() {
		return nil, fmt.Errorf("a digest of %d bytes is none by %s", len(digest), opts.HashFunc())
	}
	return s.token.Sign(ctx, Signing{Key: s.key, Algorithm: algorithm, Input: digest})
}

// The algorithms of a Signer, by hash.
var (
	pssAlgorithms   = map[crypto.Hash]Algorithm{crypto.SHA256: PSSWithSHA256, crypto.SHA384: PSSWithSHA384, crypto.SHA512: PSSWithSHA512}
	pkcs1Algorithms = map[crypto.Hash]Algorithm{crypto.SHA256: PKCS1WithSHA256, crypto.SHA384: PKCS1WithSHA384, crypto.SHA512: PKCS1WithSHA512}
	ecdsaAlgorithms = map[crypto.Hash]Algorithm{crypto.SHA256: ECDSAWithSHA256, crypto.SHA384: ECDSAWithSHA384, crypto.SHA512: ECDSAWithSHA512}
)

func (s *Signer) algorithm(opts crypto.SignerOpts) (Algorithm, error) {
	table := pkcs1Algorithms
	if _, ok := s.public.(*ecdsa.PublicKey); ok {
		table = ecdsaAlgorithms
	} else if pss, ok := opts.(*rsa.PSSOptions); ok {
		table = pssAlgorithms
		if pss.SaltLength != rsa.PSSSaltLengthEqualsHash && pss.SaltLength != opts.HashFunc().Size() {
			return "", errors.New("the salt of PSS must be as long as the hash")
		}
	}
	algorithm, ok := table[opts.HashFunc()]
	if !ok {
		return "", fmt.Errorf("the token does not sign digests by %s", opts.HashFunc())
	}
	return algorithm, nil
}
