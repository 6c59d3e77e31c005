package main

import (
	"context"
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
	token *pkcs11.Token
	under hsm.KeyID
	keys  map[string]hsm.KeyRef
}

// message holds the members of all requests and answers that the floor knows.
type message struct {
	KeyId            string                  `json:",omitempty"`
	DestinationKeyId string                  `json:",omitempty"`
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
	var in message
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		http.Error(w, "{}", http.StatusBadRequest)
		return
	}
	out, err := f.run(r.Context(), strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "TrentService."), in)
	if err != nil {
		http.Error(w, "{}", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	_ = json.NewEncoder(w).Encode(out)
}

func (f *floorServer) run(ctx context.Context, op string, in message) (out message, err error) {
	switch op {
	case "CreateKey":
		ref, err := f.token.GenerateKey(ctx, hsm.KeyRequest{Kind: hsm.AES256, WrapUnder: f.under})
		f.keys[string(ref.ID)] = ref
		return message{KeyMetadata: &struct{ KeyId string }{string(ref.ID)}}, err
	case "Encrypt":
		out.CiphertextBlob, err = f.seal(ctx, in.KeyId, in.Plaintext)
	case "Decrypt":
		out.Plaintext, err = f.open(ctx, in.CiphertextBlob)
	case "ReEncrypt":
		var plaintext []byte
		if plaintext, err = f.open(ctx, in.CiphertextBlob); err == nil {
			out.CiphertextBlob, err = f.seal(ctx, in.DestinationKeyId, plaintext)
		}
	case "GenerateDataKey":
		out.Plaintext = make([]byte, 32)
		if err = f.token.Random(ctx, out.Plaintext); err == nil {
			out.CiphertextBlob, err = f.seal(ctx, in.KeyId, out.Plaintext)
		}
	}
	return out, err
}

// idSize is the length of a key id in a floor's ciphertext, in bytes.
const idSize = 32

func (f *floorServer) seal(ctx context.Context, key string, plaintext []byte) ([]byte, error) {
	sealed, err := f.token.Encrypt(ctx, hsm.Sealing{Key: f.keys[key]}, plaintext)
	return append(append([]byte(key), sealed.IV[:]...), sealed.Data...), err
}

func (f *floorServer) open(ctx context.Context, blob []byte) ([]byte, error) {
	if len(blob) < idSize+hsm.IVSize {
		return nil, errors.New("too short")
	}
	return f.token.Decrypt(ctx, hsm.Opening{Key: f.keys[string(blob[:idSize])],
		Sealed: hsm.Sealed{IV: [hsm.IVSize]byte(blob[idSize:]), Data: blob[idSize+hsm.IVSize:]}})
}
