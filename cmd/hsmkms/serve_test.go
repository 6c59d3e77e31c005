package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/stretchr/testify/require"

	"hsmkms/api"
	"hsmkms/audit"
	"hsmkms/hsm"
	"hsmkms/iam"
	"hsmkms/kms"
	"hsmkms/policy"
	"hsmkms/store/bolt"
)

// plainToken encrypts nothing and costs nothing: what a benchmark on it measures is everything but the token.
type plainToken struct{ hsm.Token }

func (plainToken) GenerateKey(context.Context, hsm.KeyRequest) (hsm.KeyRef, error) {
	return hsm.KeyRef{ID: "00", Kind: hsm.AES256}, nil
}

func (plainToken) Encrypt(_ context.Context, _ hsm.Sealing, plaintext []byte) (hsm.Sealed, error) {
	return hsm.Sealed{Data: append(bytes.Clone(plaintext), make([]byte, hsm.TagSize)...)}, nil
}

func (plainToken) Decrypt(_ context.Context, o hsm.Opening) ([]byte, error) {
	return bytes.Clone(o.Sealed.Data[:len(o.Sealed.Data)-hsm.TagSize]), nil
}

func (plainToken) ReEncrypt(_ context.Context, o hsm.Opening, _ hsm.Sealing) (hsm.Sealed, error) {
	return o.Sealed, nil
}

// sink takes the log as a file would.
type sink struct{}

func (sink) Write(line []byte) (int, error) { return len(line), nil }

// BenchmarkHandler is the cost of a request without the token and the network: signature, decoding, authorization, audit trail,
// encoding, metrics and log. It is one client: the trail has each record to write by itself.
func BenchmarkHandler(b *testing.B) {
	st, err := bolt.Open(bolt.Config{Path: filepath.Join(b.TempDir(), "db")})
	require.NoError(b, err)
	defer func() { require.NoError(b, st.Close()) }()
	service, err := kms.New(kms.Config{Store: st, Regions: map[string]kms.Region{"us-east-1": {Token: plainToken{}}}})
	require.NoError(b, err)
	defer service.Close()
	identities, err := iam.New(iam.Config{Store: st, Vault: hsm.Vault{Token: plainToken{}}})
	require.NoError(b, err)
	var access aws.Credentials
	require.NoError(b, identities.CreateAccount(b.Context(), "111122223333", func(key iam.RootKey) error {
		access = aws.Credentials{AccessKeyID: key.ID, SecretAccessKey: string(key.Secret)}
		return nil
	}))
	cfg := &config{Regions: map[string]regionConfig{"us-east-1": {}}, RequestTimeout: 10 * time.Second}
	trail, err := audit.New(b.Context(), audit.Config{Dir: filepath.Join(b.TempDir(), "audit")})
	require.NoError(b, err)
	defer func() { require.NoError(b, trail.Close(b.Context())) }()
	handler, err := newHandler(cfg, service, identities, trail, api.NewMetrics(), slog.New(slog.NewJSONHandler(sink{}, nil)))
	require.NoError(b, err)

	r := &kms.Request{Region: "us-east-1", Operation: "CreateKey", Caller: &policy.Caller{Principal: policy.Principal{
		Type: policy.Root, Account: "111122223333", ARN: "arn:aws:iam::111122223333:root",
	}}}
	key, err := service.CreateKey(b.Context(), r, &kms.CreateKeyInput{})
	require.NoError(b, err)
	encrypted, err := service.Encrypt(b.Context(), r, &kms.EncryptInput{KeyId: key.KeyMetadata.KeyId, Plaintext: make([]byte, 64)})
	require.NoError(b, err)
	blob := base64.StdEncoding.EncodeToString(encrypted.CiphertextBlob)
	encryptionContext := `{"purpose":"bench","tenant":"blue"}`
	for operation, body := range map[string]string{
		"Encrypt": `{"KeyId":"` + key.KeyMetadata.KeyId + `","Plaintext":"` + base64.StdEncoding.EncodeToString(make([]byte, 64)) + `","EncryptionContext":` + encryptionContext + `}`,
		"Decrypt": `{"CiphertextBlob":"` + blob + `","EncryptionContext":` + encryptionContext + `}`,
		"ReEncrypt": `{"CiphertextBlob":"` + blob + `","SourceEncryptionContext":` + encryptionContext + `,"DestinationKeyId":"` +
			key.KeyMetadata.KeyId + `","DestinationEncryptionContext":` + encryptionContext + `}`,
	} {
		b.Run(operation, func(b *testing.B) { benchmarkRequest(b, handler, access, operation, body) })
	}
}

func benchmarkRequest(b *testing.B, handler http.Handler, access aws.Credentials, operation, body string) {
	r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "http://127.0.0.1:8600/", http.NoBody)
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "TrentService."+operation)
	r.ContentLength = int64(len(body))
	digest := sha256.Sum256([]byte(body))
	require.NoError(b, v4.NewSigner().SignHTTP(b.Context(), access, r, hex.EncodeToString(digest[:]), "kms", "us-east-1", time.Now()))
	b.ReportAllocs()
	for b.Loop() {
		r.Body = io.NopCloser(bytes.NewReader([]byte(body)))
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
	}
}
