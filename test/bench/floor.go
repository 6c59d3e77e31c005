package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"hsmkms/hsm"
	"hsmkms/hsm/pkcs11"
)

// floorServer is the least that a server with the same token calls can be.
type floorServer struct {
	token  *pkcs11.Token
	under  hsm.KeyID
	keys   map[string]hsm.KeyRef
	checks *checks // nil for the bare floor
}

// message holds the members of all requests and answers that the floor knows.
type message struct {
	KeyId            string `json:",omitempty"`
	DestinationKeyId string `json:",omitempty"`
	KeySpec          string `json:",omitempty"`
	KeyUsage         string `json:",omitempty"`
	SourceKeyId      string `json:",omitempty"`
	// The algorithms are of the keys, of which each does one thing.
	SigningAlgorithm hsm.Algorithm           `json:",omitempty"`
	Message          []byte                  `json:",omitempty"`
	Signature        []byte                  `json:",omitempty"`
	Mac              []byte                  `json:",omitempty"`
	Plaintext        []byte                  `json:",omitempty"`
	CiphertextBlob   []byte                  `json:",omitempty"`
	KeyMetadata      *struct{ KeyId string } `json:",omitempty"`
}

// serveFloor runs the floor on a token of its own until SIGTERM.
func serveFloor(ctx context.Context, o options) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "hsmkms-floor-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	token, closeModule, err := floorToken(dir, o)
	if err != nil {
		return err
	}
	defer closeModule()
	f := &floorServer{token: token, keys: map[string]hsm.KeyRef{}}
	if o.home == "wrapped" {
		domain, err := token.GenerateKey(ctx, hsm.KeyRequest{Kind: hsm.AES256Wrap, Label: "floor"})
		if err != nil {
			return err
		}
		f.under = domain.ID
	}
	if o.checked {
		if f.checks, err = newChecks(ctx, dir, o.sync); err != nil {
			return err
		}
		defer f.checks.close(ctx)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: f, ReadHeaderTimeout: 10 * time.Second}
	go func() { <-ctx.Done(); _ = server.Close() }()
	fmt.Println(listener.Addr())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// floorToken makes a SoftHSM token in dir and opens it with the profile that the server has.
func floorToken(dir string, o options) (*pkcs11.Token, func(), error) {
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+dir+"\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600); err != nil {
		return nil, nil, err
	}
	if err := os.Setenv("SOFTHSM2_CONF", conf); err != nil {
		return nil, nil, err
	}
	path, err := exec.Command("softhsm-config/install-deps.sh", "--module").Output()
	if err != nil {
		return nil, nil, fmt.Errorf("finding SoftHSM: %w", err)
	}
	module, err := pkcs11.OpenModule(pkcs11.ModuleConfig{Path: strings.TrimSpace(string(path))})
	if err != nil {
		return nil, nil, err
	}
	closeModule := func() { _ = module.Close() }
	if err := module.InitToken("floor", []byte("floor-so"), []byte("floor-pin")); err != nil {
		closeModule()
		return nil, nil, err
	}
	profile, err := pkcs11.LookupProfile("softhsm")
	if o.sessions > 0 {
		profile.Sessions = o.sessions
	}
	if err != nil {
		closeModule()
		return nil, nil, err
	}
	token, err := module.OpenToken(pkcs11.TokenConfig{Label: "floor", Profile: profile, PIN: func() ([]byte, error) { return []byte("floor-pin"), nil }})
	return token, closeModule, err
}

func (f *floorServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out, err := f.answer(r)
	if err != nil {
		http.Error(w, "{}", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	_ = json.NewEncoder(w).Encode(out)
}

func (f *floorServer) answer(r *http.Request) (out message, err error) {
	if f.checks != nil {
		if err := f.checks.verify(r); err != nil {
			return out, err
		}
	}
	var in message
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		return out, err
	}
	op := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "TrentService.")
	if out, err = f.run(r.Context(), op, in); err != nil || f.checks == nil {
		return out, err
	}
	return out, f.checks.record(r, op, &in)
}

func (f *floorServer) run(ctx context.Context, op string, in message) (out message, err error) {
	switch op {
	case "CreateKey":
		request := hsm.KeyRequest{Kind: floorKinds[in.KeySpec+in.KeyUsage], WrapUnder: f.under}
		ref, err := f.token.GenerateKey(ctx, request)
		f.keys[string(ref.ID)] = ref
		return message{KeyMetadata: &struct{ KeyId string }{string(ref.ID)}}, err
	case "Encrypt":
		out.CiphertextBlob, err = f.seal(ctx, in.KeyId, in.Plaintext)
	case "Decrypt":
		out.Plaintext, err = f.open(ctx, in.KeyId, in.CiphertextBlob)
	case "ReEncrypt":
		var plaintext []byte
		if plaintext, err = f.open(ctx, in.SourceKeyId, in.CiphertextBlob); err == nil {
			out.CiphertextBlob, err = f.seal(ctx, in.DestinationKeyId, plaintext)
		}
	case "GenerateDataKey":
		out.Plaintext = make([]byte, 32)
		if err = f.token.Random(ctx, out.Plaintext); err == nil {
			out.CiphertextBlob, err = f.seal(ctx, in.KeyId, out.Plaintext)
		}
	case "Sign":
		out.Signature, err = f.sign(ctx, in)
	case "GenerateMac":
		out.Mac, err = f.token.MAC(ctx, f.keys[in.KeyId], hsm.HMACWithSHA256, in.Message)
	}
	return out, err
}

// floorKinds are the kinds of keys by KeySpec and KeyUsage.
var floorKinds = map[string]hsm.KeyKind{
	"": hsm.AES256, "RSA_2048ENCRYPT_DECRYPT": hsm.RSA2048Decrypt, "RSA_2048SIGN_VERIFY": hsm.RSA2048Sign,
	"ECC_NIST_P256SIGN_VERIFY": hsm.P256Sign, "ECC_NIST_EDWARDS25519SIGN_VERIFY": hsm.Ed25519Sign, "HMAC_256GENERATE_VERIFY_MAC": hsm.HMAC256,
}

func (f *floorServer) sign(ctx context.Context, in message) ([]byte, error) {
	input := in.Message
	if in.SigningAlgorithm != hsm.Ed25519 {
		digest := sha256.Sum256(in.Message)
		input = digest[:]
	}
	return f.token.Sign(ctx, hsm.Signing{Key: f.keys[in.KeyId], Algorithm: in.SigningAlgorithm, Input: input})
}

// idSize is the length of a key id in a floor's ciphertext, in bytes.
const idSize = 32

func (f *floorServer) seal(ctx context.Context, key string, plaintext []byte) ([]byte, error) {
	ref := f.keys[key]
	if ref.Kind == hsm.RSA2048Decrypt {
		sealed, err := f.token.Encrypt(ctx, hsm.Sealing{Key: ref, Algorithm: oaep}, plaintext)
		return sealed.Data, err
	}
	sealed, err := f.token.Encrypt(ctx, hsm.Sealing{Key: ref}, plaintext)
	return append(append([]byte(key), sealed.IV[:]...), sealed.Data...), err
}

// open decrypts a ciphertext, under the key that it names or, if it is of a key pair, under key.
func (f *floorServer) open(ctx context.Context, key string, blob []byte) ([]byte, error) {
	if ref := f.keys[key]; ref.Kind == hsm.RSA2048Decrypt {
		return f.token.Decrypt(ctx, hsm.Opening{Key: ref, Algorithm: oaep, Sealed: hsm.Sealed{Data: blob}})
	}
	if len(blob) < idSize+hsm.IVSize {
		return nil, errors.New("too short")
	}
	return f.token.Decrypt(ctx, hsm.Opening{Key: f.keys[string(blob[:idSize])],
		Sealed: hsm.Sealed{IV: [hsm.IVSize]byte(blob[idSize:]), Data: blob[idSize+hsm.IVSize:]}})
}
