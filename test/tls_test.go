package test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/hsm/hsmtest"
	"hsmkms/test/kmstest"
)

// authority signs certificates.
type authority struct {
	key    *ecdsa.PrivateKey
	roots  *x509.CertPool
	cert   *x509.Certificate
	serial int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	a := &authority{key: key, roots: x509.NewCertPool(), serial: 1}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, key.Public(), key)
	require.NoError(t, err)
	a.cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	a.roots.AddCert(a.cert)
	return a
}

// certify writes a certificate for the server with a public key into a file, in one step, and gives its serial number.
func (a *authority) certify(t *testing.T, public any, path string) int64 {
	t.Helper()
	a.serial++
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(a.serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"kms.test"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.cert, public, a.key)
	require.NoError(t, err)
	writePEM(t, path, "CERTIFICATE", der)
	return a.serial
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

func (a *authority) clientConfig(version uint16) *tls.Config {
	return &tls.Config{RootCAs: a.roots, ServerName: "kms.test", MinVersion: version, MaxVersion: version}
}

// requireServes speaks TLS of both versions with the server, as an AWS SDK does, and gives the serial number of its certificate.
func (a *authority) requireServes(t *testing.T, s *kmstest.Server) int64 {
	t.Helper()
	require.True(t, strings.HasPrefix(s.Endpoint, "https://"), s.Endpoint)
	var serial int64
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		transport := &http.Transport{TLSClientConfig: a.clientConfig(version), ForceAttemptHTTP2: true}
		client := kms.New(s.Client().Options(), func(o *kms.Options) { o.HTTPClient = &http.Client{Transport: transport} })
		_, err := client.ListKeys(t.Context(), &kms.ListKeysInput{})
		transport.CloseIdleConnections()
		require.NoError(t, err)
		conn, err := tls.Dial("tcp", strings.TrimPrefix(s.Endpoint, "https://"), a.clientConfig(version))
		require.NoError(t, err)
		serial = conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
		require.NoError(t, conn.Close())
	}
	return serial
}

// eventuallyServes waits until the server shows a certificate: it looks for new files once a second.
func (a *authority) eventuallyServes(t *testing.T, s *kmstest.Server, serial int64) {
	t.Helper()
	require.Eventually(t, func() bool { return a.requireServes(t, s) == serial }, time.Minute, 100*time.Millisecond)
}

// makeTLS makes a server that is not running yet, with a certificate file that does not exist yet.
func makeTLS(t *testing.T, settings string) (s *kmstest.Server, certificate string) {
	t.Helper()
	dir := t.TempDir()
	certificate = filepath.Join(dir, "certificate.pem")
	s, err := kmstest.Make(dir, hsmtest.ModulePath(t), kmstest.Options{Top: []string{"tls: {certificate_file: " + certificate + ", " + settings + "}"}})
	require.NoError(t, err)
	return s, certificate
}

func start(t *testing.T, s *kmstest.Server) {
	t.Helper()
	require.NoError(t, s.Run())
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
}

// request has `hsmkms tls csr` make a certificate request and gives it, its signature verified.
func request(t *testing.T, s *kmstest.Server, arguments ...string) *x509.CertificateRequest {
	t.Helper()
	out, problem, err := run(t, append([]string{"tls", "csr", "--config", s.Config(), "--dns", "kms.test"}, arguments...)...)
	require.NoError(t, err, problem)
	block, rest := pem.Decode([]byte(out))
	require.NotNil(t, block)
	require.Empty(t, rest)
	require.Equal(t, "CERTIFICATE REQUEST", block.Type)
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	require.NoError(t, err)
	require.NoError(t, csr.CheckSignature())
	require.Equal(t, []string{"kms.test"}, csr.DNSNames)
	return csr
}

// TestTLSKeyInToken has the server's TLS key made in the token and used there, for each kind of key, and renews the certificate
// under a running server.
func TestTLSKeyInToken(t *testing.T) {
	for _, spec := range []string{"ECC_NIST_P256", "ECC_NIST_P384", "RSA_2048"} {
		t.Run(spec, func(t *testing.T) {
			ca := newAuthority(t)
			s, certificate := makeTLS(t, "token_key: server")
			csr := request(t, s, "--label", "server", "--key-spec", spec, "--common-name", "kms", "--ip", "127.0.0.1")
			require.Equal(t, "kms", csr.Subject.CommonName)
			require.Len(t, csr.IPAddresses, 1)
			require.Equal(t, csr.PublicKey, request(t, s, "--label", "server").PublicKey, "a key that exists is used again")

			first := ca.certify(t, csr.PublicKey, certificate)
			start(t, s)
			require.Equal(t, first, ca.requireServes(t, s))
			require.Equal(t, 0, orphans(t, s), "the key of the server is none of the service's")

			ca.eventuallyServes(t, s, ca.certify(t, csr.PublicKey, certificate))
			stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			require.NoError(t, err)
			good := ca.serial
			ca.certify(t, stranger.Public(), certificate)
			require.Eventually(t, func() bool {
				return ca.requireServes(t, s) == good && strings.Contains(s.Log(), "the one before it stays in use")
			}, time.Minute, 100*time.Millisecond, "a certificate of another key was loaded")
		})
	}
}

func orphans(t *testing.T, s *kmstest.Server) int {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(s.Log(), `"msg":"compared token and store"`) }, time.Minute, 50*time.Millisecond)
	_, metrics := s.AdminGet(t, "/metrics")
	require.Contains(t, metrics, "hsmkms_token_orphans{region=\"us-east-1\"} ")
	if strings.Contains(metrics, "hsmkms_token_orphans{region=\"us-east-1\"} 0\n") {
		return 0
	}
	return 1
}

// TestTLSKeyInFile serves with a key in a file and replaces certificate and key under the running server.
func TestTLSKeyInFile(t *testing.T) {
	ca := newAuthority(t)
	keyFile := filepath.Join(t.TempDir(), "key.pem")
	s, certificate := makeTLS(t, "key_file: "+keyFile)
	renew := func() int64 {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		der, err := x509.MarshalPKCS8PrivateKey(key)
		require.NoError(t, err)
		writePEM(t, keyFile, "PRIVATE KEY", der)
		return ca.certify(t, key.Public(), certificate)
	}
	require.ErrorContains(t, s.Run(), "TLS certificate", "it starts without a certificate")
	renew()
	require.NoError(t, os.Chmod(keyFile, 0o644))
	require.ErrorContains(t, s.Run(), "can be read by others")
	serial := renew()
	start(t, s)
	require.Equal(t, serial, ca.requireServes(t, s))
	ca.eventuallyServes(t, s, renew())
	require.NoError(t, os.Remove(certificate))
	require.Eventually(t, func() bool {
		return ca.requireServes(t, s) == ca.serial && strings.Contains(s.Log(), "the one before it stays in use")
	}, time.Minute, 100*time.Millisecond)
}

// TestTLSRefused gives the commands and the configuration what they can't take.
func TestTLSRefused(t *testing.T) {
	s, certificate := makeTLS(t, "token_key: server")
	for _, arguments := range [][]string{
		{"--dns", "kms.test"}, {"--label", "server"}, {"--label", "", "--dns", "kms.test"}, {"--label", "server", "--ip", "nowhere"},
		{"--label", "hsmkms/server", "--dns", "kms.test"}, {"--label", "server", "--dns", "kms.test", "--key-spec", "SM2"},
		{"--label", "server", "--dns", "kms.test", "--region", "eu-west-9"},
	} {
		_, problem, err := run(t, append([]string{"tls", "csr", "--config", s.Config()}, arguments...)...)
		require.Error(t, err, arguments)
		require.NotEmpty(t, problem)
	}
	newAuthority(t).certify(t, &newAuthority(t).key.PublicKey, certificate)
	require.ErrorContains(t, s.Run(), "0 private keys have the label")
}
