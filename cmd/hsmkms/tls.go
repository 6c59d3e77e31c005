package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// tlsConfig is how the API is served over TLS.
type tlsConfig struct {
	// CertificateFile has the certificate and those of the authorities between it and a root, in PEM.
	CertificateFile string `yaml:"certificate_file"`
	// KeyFile has the private key in PEM; TokenKey is the label of one that stays in the token of TokenRegion.
	KeyFile     string `yaml:"key_file"`
	TokenKey    string `yaml:"token_key"`
	TokenRegion string `yaml:"token_region"`
}

func (c *tlsConfig) check(regions map[string]regionConfig) error {
	switch {
	case c.CertificateFile == "":
		return errors.New("certificate_file is missing")
	case (c.KeyFile == "") == (c.TokenKey == ""):
		return errors.New("either key_file or token_key must be set")
	case c.TokenKey == "" && c.TokenRegion != "":
		return errors.New("token_region is for token_key")
	case c.TokenKey == "":
		return nil
	}
	_, err := chooseRegion(regions, c.TokenRegion)
	return err
}

// reloadEvery is how often, at most, the files of a certificate are looked at.
const reloadEvery = time.Second

// certificates gives the certificate for each TLS connection. It follows changes of its files: whoever renews a certificate
// writes the files and needs no restart.
type certificates struct {
	cfg  *tlsConfig
	load func() (*tls.Certificate, error)
	log  *slog.Logger

	current atomic.Pointer[tls.Certificate]
	// mu is held by who looks after the files, which may take as long as the token does. Others do not wait for it.
	mu sync.Mutex
	// seen is what the files were when they were last loaded, and looked when they were last looked at.
	seen   string
	looked time.Time
}

// newCertificates loads the certificate for the first time.
func newCertificates(ctx context.Context, cfg *config, rooms *rooms, log *slog.Logger) (*certificates, error) {
	c := &certificates{cfg: cfg.TLS, log: log}
	c.load = func() (*tls.Certificate, error) { return loadPair(cfg.TLS) }
	if cfg.TLS.TokenKey != "" {
		region, err := chooseRegion(cfg.Regions, cfg.TLS.TokenRegion)
		if err != nil {
			return nil, err
		}
		token := rooms.pkcs11[region]
		c.load = func() (*tls.Certificate, error) {
			return loadTokenPair(cfg.TLS, func(public crypto.PublicKey) (crypto.Signer, error) {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.RequestTimeout)
				defer cancel()
				return token.Signer(ctx, cfg.TLS.TokenKey, public, cfg.RequestTimeout)
			})
		}
	}
	seen, err := c.look()
	if err != nil {
		return nil, fmt.Errorf("looking for the TLS certificate: %w", err)
	}
	first, err := c.load()
	if err != nil {
		return nil, fmt.Errorf("loading the TLS certificate: %w", err)
	}
	c.current.Store(first)
	c.seen, c.looked = seen, time.Now()
	return c, nil
}

// get implements tls.Config.GetCertificate. While new files are being loaded, or can't be, the old certificate stays.
func (c *certificates) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c.mu.TryLock() {
		defer c.mu.Unlock()
		c.refresh()
	}
	return c.current.Load(), nil
}

// refresh loads the files again if they are other ones now. It is called with mu held.
func (c *certificates) refresh() {
	if time.Since(c.looked) < reloadEvery {
		return
	}
	defer func() { c.looked = time.Now() }()
	seen, err := c.look()
	if err == nil && seen == c.seen {
		return
	}
	var fresh *tls.Certificate
	if err == nil {
		fresh, err = c.load()
	}
	if err != nil {
		c.log.Error("loading a new TLS certificate; the one before it stays in use", "error", err)
		return
	}
	c.seen = seen
	c.current.Store(fresh)
	c.log.Info("loaded a new TLS certificate", "serial", fresh.Leaf.SerialNumber.String(), "notAfter", fresh.Leaf.NotAfter)
}

// look tells what would show that the files are other ones now.
func (c *certificates) look() (string, error) {
	seen := ""
	for _, path := range []string{c.cfg.CertificateFile, c.cfg.KeyFile} {
		if path == "" {
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			return "", err
		}
		seen += fmt.Sprintf("%d %d ", info.ModTime().UnixNano(), info.Size())
	}
	return seen, nil
}

// loadPair reads certificate and key from files.
func loadPair(cfg *tlsConfig) (*tls.Certificate, error) {
	chain, err := os.ReadFile(cfg.CertificateFile)
	if err != nil {
		return nil, err
	}
	key, err := readSecret(cfg.KeyFile)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	pair, err := tls.X509KeyPair(chain, key)
	return &pair, err
}

// loadTokenPair reads the certificate from its file and finds the key to it on the token.
func loadTokenPair(cfg *tlsConfig, find func(crypto.PublicKey) (crypto.Signer, error)) (*tls.Certificate, error) {
	text, err := os.ReadFile(cfg.CertificateFile)
	if err != nil {
		return nil, err
	}
	pair := &tls.Certificate{}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			pair.Certificate = append(pair.Certificate, block.Bytes)
		}
	}
	if len(pair.Certificate) == 0 {
		return nil, fmt.Errorf("%s has no certificate in PEM", cfg.CertificateFile)
	}
	if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
		return nil, fmt.Errorf("reading %s: %w", cfg.CertificateFile, err)
	}
	if pair.PrivateKey, err = find(pair.Leaf.PublicKey); err != nil {
		return nil, err
	}
	pair.SupportedSignatureAlgorithms = signatureSchemes(pair.Leaf.PublicKey)
	return pair, nil
}

// signatureSchemes are those that a key of the token makes: on a curve only those with the hash of its size, as the AWS API has
// them.
func signatureSchemes(public crypto.PublicKey) []tls.SignatureScheme {
	key, ok := public.(*ecdsa.PublicKey)
	switch {
	case ok && key.Curve == elliptic.P384():
		return []tls.SignatureScheme{tls.ECDSAWithP384AndSHA384}
	case ok:
		return []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}
	default:
		return []tls.SignatureScheme{
			tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PSSWithSHA512, tls.PKCS1WithSHA256, tls.PKCS1WithSHA384, tls.PKCS1WithSHA512,
		}
	}
}
