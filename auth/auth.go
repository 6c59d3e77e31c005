// Package auth answers who is calling: it verifies the AWS Signature Version 4 of an HTTP request and gives the
// principal whose access key made it.
//
// The client writes the request in a canonical form (method, path, query, the headers it chose, the hash of the body),
// hashes it, and signs the hash together with a date and a scope (day, Region, service) under a key derived from its
// secret. The Authorization header carries the access key ID, the scope, the names of the signed headers and the
// signature. The verifier does the same with the request that arrived and compares. The derivation needs the secret,
// which is expensive to get; the derived key is good for a day, so it is cached.
//
// Only signatures in the Authorization header are known: KMS clients make no presigned URLs. The algorithm is published in
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html. One step of it is left out:
// a path is not normalised ("/a/../b" is signed as it stands), because this service has the one path "/" and two
// different request lines should not share a signature.
//
// What a signature protects: the method, the path, the query, the Host, the date, the body and every x-amz-* header,
// x-amz-target above all. Every other header is protected only when the client chose to sign it. Content-Type is such a
// header (AWS SDK for PHP leaves it out), so a caller of this package must not let an unsigned header change what a
// request means.
package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"time"

	"hsmkms/policy"
)

const (
	defaultSkew          = 5 * time.Minute
	defaultCacheSize     = 4096
	defaultSecretTimeout = 10 * time.Second
)

// Credential is what an access key ID stands for.
type Credential struct {
	// Caller is the identity that a valid signature proves. It must not be nil.
	Caller *policy.Caller
	// Version changes whenever the secret of the access key does. Signing keys are cached under it, so that a signature
	// with the old secret fails at once.
	Version string
	// Session says that the credentials are temporary: a request must carry the session token that has the SHA-256 Token, and
	// Expires must lie ahead.
	Session bool
	Token   [sha256.Size]byte
	Expires time.Time
}

// Config says whose signatures a Verifier accepts. All functions are called from many goroutines at once.
type Config struct {
	// Regions reports whether a service is served in a Region. It must accept a bounded number of Regions, since a cached
	// signing key belongs to one of them. Required.
	Regions func(service, region string) bool
	// Credential looks an access key up; it is called once for each request, so it should be cheap. The result
	// (_, false, nil) says that there is no such key, or that it may not be used now. Required.
	Credential func(ctx context.Context, accessKeyID string) (Credential, bool, error)
	// Secret gives the secret access key. It may be slow: it is called only when no signing key is cached, once for all
	// requests that wait for it. The secret must be at least as new as the Version that Credential gave before. The slice
	// passes to the Verifier, which wipes it. The context is not cancelled when a request is, but ends after
	// SecretTimeout. It runs in a goroutine of its own, where a panic would end the process. Required.
	Secret func(ctx context.Context, accessKeyID string) ([]byte, error)
	// SecretTimeout limits one call of Secret. Zero means 10 seconds.
	SecretTimeout time.Duration
	// Clock tells the time. Nil means time.Now.
	Clock func() time.Time
	// Skew is how far the date of a request may lie from the time of Clock, in both directions. Zero means 5 minutes.
	Skew time.Duration
	// CacheSize is how many signing keys are held, 32 bytes each: one for each access key, Region, service and day in use.
	// Zero means 4096.
	CacheSize int
}

// Identity is what a verified request proves about its sender.
type Identity struct {
	// Caller is the Caller of the Credential that signed; it is shared and must not be changed.
	Caller *policy.Caller
	// Region is the Region that the request was signed for, and so the one that it is meant for; Service likewise.
	Region  string
	Service string
}

// Verifier verifies signatures. It is safe for concurrent use.
type Verifier struct {
	config Config
	keys   *keyCache
}

// New makes a Verifier. It fails when a required field of the Config is missing or a number is negative.
func New(config Config) (*Verifier, error) {
	if config.Regions == nil || config.Credential == nil || config.Secret == nil {
		return nil, errors.New("auth needs Regions, a credential lookup and a secret lookup")
	}
	if config.Skew < 0 || config.SecretTimeout < 0 || config.CacheSize < 0 {
		return nil, errors.New("auth needs a skew, a secret timeout and a cache size of at least zero")
	}
	if config.Clock == nil {
		config.Clock = time.Now
	}
	if config.Skew == 0 {
		config.Skew = defaultSkew
	}
	if config.SecretTimeout == 0 {
		config.SecretTimeout = defaultSecretTimeout
	}
	if config.CacheSize == 0 {
		config.CacheSize = defaultCacheSize
	}
	keys, err := newKeyCache(config)
	if err != nil {
		return nil, fmt.Errorf("making the cache of signing keys: %w", err)
	}
	return &Verifier{config: config, keys: keys}, nil
}

// Verify checks the signature of r, which must be for one of some services, and gives its sender. The request must be as
// net/http's server made it, and body the whole of its body, undecoded; r.Body is not read.
//
// A request at fault gives an *Error. Any other error is internal: a lookup failed, or ctx ended while waiting for one.
func (v *Verifier) Verify(ctx context.Context, r *http.Request, body []byte, services []string) (Identity, error) {
	s, err := parseSigned(r)
	if err != nil {
		return Identity{}, err
	}
	if err := v.checkClaims(r, &s, services); err != nil {
		return Identity{}, err
	}
	credential, err := v.credential(ctx, s.accessKeyID)
	if err != nil {
		return Identity{}, err
	}
	if err := checkToken(r.Header, &credential, v.config.Clock()); err != nil {
		return Identity{}, err
	}
	id := keyID{accessKeyID: s.accessKeyID, version: credential.Version, date: s.day, region: s.region, service: s.service}
	key, err := v.keys.get(ctx, id)
	if err != nil {
		return Identity{}, fmt.Errorf("getting the signing key: %w", err)
	}
	defer clear(key[:])
	if !signatureMatches(r, body, &s, &key) {
		return Identity{}, mismatch()
	}
	return Identity{Caller: credential.Caller, Region: s.region, Service: s.service}, nil
}

// checkClaims checks all that needs no secret. It comes before the lookups, so that what a stranger can make up (dates,
// Regions) never costs a call of Secret.
func (v *Verifier) checkClaims(r *http.Request, s *signed, services []string) error {
	if err := checkScope(s, &v.config, services); err != nil {
		return err
	}
	if err := checkSkew(s.time, v.config.Clock(), v.config.Skew); err != nil {
		return err
	}
	return checkSignedHeaders(r.Header, s.headers)
}

// checkToken holds the session token of a request to the credential, which without a session has none.
func checkToken(header http.Header, credential *Credential, now time.Time) error {
	given := header["X-Amz-Security-Token"]
	if !credential.Session {
		if given != nil {
			return unrecognizedClient()
		}
		return nil
	}
	if len(given) != 1 {
		return unrecognizedClient()
	}
	digest := sha256.Sum256([]byte(given[0]))
	if subtle.ConstantTimeCompare(digest[:], credential.Token[:]) != 1 {
		return unrecognizedClient()
	}
	if !now.Before(credential.Expires) {
		return expiredToken()
	}
	return nil
}

// credential looks the access key up. That the error tells an unknown key from a wrong signature is AWS's way; hence no
// pains are taken to make the two alike in time.
func (v *Verifier) credential(ctx context.Context, accessKeyID string) (Credential, error) {
	if !validAccessKeyID(accessKeyID) {
		return Credential{}, unrecognizedClient()
	}
	credential, ok, err := v.config.Credential(ctx, accessKeyID)
	if err != nil {
		return Credential{}, fmt.Errorf("looking up the access key: %w", err)
	}
	if !ok {
		return Credential{}, unrecognizedClient()
	}
	if credential.Caller == nil {
		return Credential{}, errors.New("the access key has no caller")
	}
	return credential, nil
}

// signatureMatches reports whether the signature in s is that of the request under key.
func signatureMatches(r *http.Request, body []byte, s *signed, key *signingKey) bool {
	var scratch [2048]byte // on the stack; most requests fit, for the others append moves to the heap
	canonical, ok := appendCanonicalRequest(scratch[:0], r, s.headers, body)
	if !ok {
		return false
	}
	digest := sha256.Sum256(canonical)
	want := key.sign(appendStringToSign(nil, s, &digest))
	// Comparing the hexadecimal form refuses wrong lengths, capitals and other characters in the same step.
	return subtle.ConstantTimeCompare(want[:], []byte(s.signature)) == 1
}
