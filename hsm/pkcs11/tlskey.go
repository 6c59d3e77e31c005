package pkcs11

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ThalesGroup/crypto11"
	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// RequestCertificate signs a certificate request (PKCS #10, DER) with the key pair of a label on a token, after making the
// pair if there is none; made tells which. The private key is a persistent, sensitive, non-extractable object that may sign
// and do nothing else. It is made and used by crypto11, which opens the module by itself: no Module of it may be open in this
// process. cfg needs Label, Serial and PIN; the PIN is in memory, unwiped, until the process ends.
//
// kind is one of the RSA kinds that sign, P256Sign or P384Sign; it matters for a new pair only.
func RequestCertificate(path string, cfg TokenConfig, label string, kind hsm.KeyKind, template *x509.CertificateRequest) (request []byte, made bool, err error) {
	if strings.HasPrefix(label, labelPrefix) {
		return nil, false, fmt.Errorf("a label that begins with %s is for the service's own keys", labelPrefix)
	}
	pin, err := cfg.PIN()
	if err != nil {
		return nil, false, fmt.Errorf("reading PIN: %w", err)
	}
	defer clear(pin)
	theirs := &crypto11.Config{Path: path, Pin: string(pin), MaxSessions: 2}
	if theirs.TokenLabel = cfg.Label; cfg.Serial != "" { // which crypto11 takes one of
		theirs.TokenLabel, theirs.TokenSerial = "", cfg.Serial
	}
	client, err := crypto11.Configure(theirs)
	if err != nil {
		return nil, false, fmt.Errorf("opening token %q: %w", cfg.Label, err)
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	signers, err := client.FindKeyPairs(nil, []byte(label))
	switch {
	case err != nil:
		return nil, false, fmt.Errorf("looking for key pair %q: %w", label, err)
	case len(signers) > 1:
		return nil, false, fmt.Errorf("looking for key pair %q: there are %d of this label", label, len(signers))
	case len(signers) == 0:
		made = true
		signer, err := makeSigner(client, label, kind)
		if err != nil {
			return nil, false, fmt.Errorf("making key pair %q: %w", label, err)
		}
		signers = append(signers, signer)
	}
	if request, err = x509.CreateCertificateRequest(rand.Reader, template, signers[0]); err != nil {
		return nil, made, fmt.Errorf("signing certificate request: %w", err)
	}
	return request, made, nil
}

// signerCurves are the curves of the kinds of key pairs that TLS works with.
var signerCurves = map[hsm.KeyKind]elliptic.Curve{hsm.P256Sign: elliptic.P256(), hsm.P384Sign: elliptic.P384()}

// signerBits are the sizes of the RSA kinds.
var signerBits = map[hsm.KeyKind]int{hsm.RSA2048Sign: 2048, hsm.RSA3072Sign: 3072, hsm.RSA4096Sign: 4096}

func makeSigner(client *crypto11.Context, label string, kind hsm.KeyKind) (crypto11.Signer, error) {
	id := make([]byte, keyIDSize)
	if _, err := io.ReadFull(rand.Reader, id); err != nil {
		return nil, err
	}
	private, err := crypto11.NewAttributeSetWithIDAndLabel(id, []byte(label))
	if err != nil {
		return nil, err
	}
	public := private.Copy()
	for attribute, on := range map[crypto11.AttributeType]bool{
		crypto11.CkaPrivate: true, crypto11.CkaDecrypt: false, crypto11.CkaUnwrap: false, crypto11.CkaDerive: false,
	} {
		if err := private.Set(attribute, on); err != nil {
			return nil, err
		}
	}
	if curve := signerCurves[kind]; curve != nil {
		return client.GenerateECDSAKeyPairWithAttributes(public, private, curve)
	}
	if bits := signerBits[kind]; bits > 0 {
		return client.GenerateRSAKeyPairWithAttributes(public, private, bits)
	}
	return nil, fmt.Errorf("a key pair of the kind %q is not for TLS", kind)
}

// Signer gives the signer of a key pair that RequestCertificate made. It is found on the token by the label of its private key,
// which must be the only one of this label, and proved by a signature to be that of the public key, which the caller knows
// from a certificate. timeout is that of hsm.NewSigner.
func (t *Token) Signer(ctx context.Context, label string, public crypto.PublicKey, timeout time.Duration) (*hsm.Signer, error) {
	kind, err := signerKind(public)
	if err != nil {
		return nil, err
	}
	ref := hsm.KeyRef{Kind: kind}
	if ref.Public, err = x509.MarshalPKIXPublicKey(public); err != nil {
		return nil, fmt.Errorf("writing public key: %w", err)
	}
	ref.ID, err = do(ctx, t, &task[hsm.KeyID]{slow: true, f: func(s *session) (hsm.KeyID, error) { return s.keys.labelled(s, label) }})
	if err != nil {
		return nil, fmt.Errorf("looking for key pair %q: %w", label, err)
	}
	signer, err := hsm.NewSigner(t, ref, timeout)
	if err != nil {
		return nil, err
	}
	return signer, proveSigner(signer)
}

// labelled gives the CKA_ID of the private key of a label.
func (k *keys) labelled(s *session, label string) (hsm.KeyID, error) {
	k.objectsMu.Lock()
	defer k.objectsMu.Unlock()
	k.anchorMu.Lock()
	defer k.anchorMu.Unlock()
	found, err := s.find([]*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY), p11.NewAttribute(p11.CKA_TOKEN, true), p11.NewAttribute(p11.CKA_LABEL, label),
	})
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", &hsm.Error{Class: hsm.KeyMissing, Cause: fmt.Errorf("%d private keys have the label", len(found))}
	}
	raw, err := s.read(found[0], p11.CKA_ID)
	if err != nil {
		return "", err
	}
	if len(raw) != keyIDSize {
		return "", &hsm.Error{Class: hsm.Unsupported, Cause: fmt.Errorf("a CKA_ID of %d bytes: make the key pair with `hsmkms tls csr`", len(raw))}
	}
	id := hsm.KeyID(hex.EncodeToString(raw))
	k.know(id, found[0])
	return id, nil
}

// proveSigner has a digest signed and verifies the signature.
func proveSigner(signer *hsm.Signer) error {
	hash := crypto.SHA256
	if key, ok := signer.Public().(*ecdsa.PublicKey); ok && key.Curve == elliptic.P384() {
		hash = crypto.SHA384
	}
	digest := make([]byte, hash.Size())
	signature, err := signer.Sign(nil, digest, hash)
	if err != nil {
		return fmt.Errorf("signing with the key pair: %w", err)
	}
	sound := false
	switch key := signer.Public().(type) {
	case *rsa.PublicKey:
		sound = rsa.VerifyPKCS1v15(key, hash, digest, signature) == nil
	case *ecdsa.PublicKey:
		sound = ecdsa.VerifyASN1(key, digest, signature)
	}
	if !sound {
		return &hsm.Error{Class: hsm.WrongMaterial, Cause: errors.New("the private key on the token is not that of the certificate")}
	}
	return nil
}

func signerKind(public crypto.PublicKey) (hsm.KeyKind, error) {
	switch key := public.(type) {
	case *rsa.PublicKey:
		for kind, bits := range signerBits {
			if bits == key.N.BitLen() {
				return kind, nil
			}
		}
	case *ecdsa.PublicKey:
		for kind, curve := range signerCurves {
			if curve == key.Curve {
				return kind, nil
			}
		}
	}
	return "", fmt.Errorf("a %T of this size is not for TLS here", public)
}
