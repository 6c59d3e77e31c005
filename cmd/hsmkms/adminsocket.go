package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"hsmkms/audit"
	"hsmkms/iam"
)

// The admin socket is where an operator makes accounts while the server runs: HTTP over a Unix socket that only the server's
// own user may open.
//
//	GET  /accounts                  the ids of all accounts
//	POST /accounts/<id>             makes an account
//	POST /accounts/<id>/root-key    gives its root user a new access key in the place of those it has
//
// Answers are JSON: a list of ids, a rootKey, or an adminError with a status other than 200.

// rootKey is a new access key of a root user.
type rootKey struct {
	AccessKeyID     string
	SecretAccessKey []byte // in base64, as JSON has bytes
}

// keep copies a key out of iam, which wipes its own.
func (k *rootKey) keep(made iam.RootKey) error {
	k.AccessKeyID, k.SecretAccessKey = made.ID, bytes.Clone(made.Secret)
	return nil
}

type adminError struct{ Error string }

// adminTimeout bounds the work for one request on the admin socket.
const adminTimeout = 30 * time.Second

// listenAdminSocket makes the admin socket. It is refused in a folder in which others could put one in its place.
func listenAdminSocket(ctx context.Context, path string) (net.Listener, error) {
	if err := checkSocketFolder(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("making the admin socket: %w", err)
	}
	if err := removeStaleSocket(ctx, path); err != nil {
		return nil, fmt.Errorf("making the admin socket: %w", err)
	}
	// The mode is right from the first moment. Other files that are made in the next microseconds are the stricter for it.
	old := syscall.Umask(0o177)
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "unix", path)
	syscall.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("making the admin socket: %w", err)
	}
	return userOnly{listener, os.Geteuid()}, nil
}

// checkSocketFolder refuses a folder that others than the server's user and root may write to.
func checkSocketFolder(folder string) error {
	info, err := os.Stat(folder)
	if err != nil {
		return err
	}
	owner := int(info.Sys().(*syscall.Stat_t).Uid)
	if info.Mode().Perm()&0o022 != 0 || owner != 0 && owner != os.Geteuid() {
		return fmt.Errorf("others may write to %s: it must belong to the server's user and be writable for it alone", folder)
	}
	return nil
}

// removeStaleSocket removes a socket that a server which was killed left behind, and nothing else.
func removeStaleSocket(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is there, and no socket", path)
	}
	var dialer net.Dialer
	if connection, err := dialer.DialContext(ctx, "unix", path); err == nil {
		return joinClose(fmt.Errorf("another server listens on %s", path), connection.Close)
	}
	return os.Remove(path)
}

// userOnly closes connections of other users than one, root included, whatever the mode of the socket has become.
type userOnly struct {
	net.Listener
	user int
}

// Accept implements net.Listener.
func (l userOnly) Accept() (net.Conn, error) {
	for {
		connection, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if checkPeer(connection, l.user) == nil {
			return connection, nil
		}
		_ = connection.Close() // there is nothing that could be lost
	}
}

// checkPeer checks that the process at the other end of a Unix socket belongs to a user, as the kernel says.
func checkPeer(connection net.Conn, user int) error {
	unix, ok := connection.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("%T is no Unix socket", connection)
	}
	raw, err := unix.SyscallConn()
	if err != nil {
		return err
	}
	var peer *syscall.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		peer, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("asking who is at the other end: %w", err)
	}
	if int(peer.Uid) != user {
		return fmt.Errorf("the other end belongs to user %d, not to %d", peer.Uid, user)
	}
	return nil
}

// adminHandler answers on the admin socket.
type adminHandler struct {
	identities *iam.Service
	dev        *devConfig   // nil for none
	trail      *audit.Trail // nil for none
	log        *slog.Logger
}

func newAdminHandler(h *adminHandler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /accounts", h.list)
	mux.HandleFunc("POST /accounts/{id}", h.create)
	mux.HandleFunc("POST /accounts/{id}/root-key", h.rotate)
	return http.TimeoutHandler(mux, adminTimeout, "")
}

func (h *adminHandler) list(w http.ResponseWriter, r *http.Request) {
	ids, err := h.identities.Accounts(r.Context())
	h.answer(w, append([]string{}, ids...), err)
}

func (h *adminHandler) create(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	var key rootKey
	defer func() { clear(key.SecretAccessKey) }()
	err := h.recorded(r.Context(), "CreateAccount", id, func(ctx context.Context) error {
		return h.identities.CreateAccount(ctx, id, key.keep)
	})
	h.log.Info("created account", "account", id, "failed", err != nil)
	h.answer(w, key, err)
}

func (h *adminHandler) rotate(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	owner := ""
	if h.dev != nil { // whose key it has would not be known afterwards
		owner, _ = ownerOf(r.Context(), h.identities, h.dev.CredentialsFile)
	}
	var key rootKey
	defer func() { clear(key.SecretAccessKey) }()
	err := h.recorded(r.Context(), "RotateRootAccessKey", id, func(ctx context.Context) error {
		return h.identities.RotateRoot(ctx, id, key.keep)
	})
	h.log.Info("rotated root access key", "account", id, "failed", err != nil)
	if owner == id && (err == nil || errors.Is(err, errUnrecorded)) {
		if err := h.dev.keepRootKey(iam.RootKey{ID: key.AccessKeyID, Secret: key.SecretAccessKey}); err != nil {
			h.log.Error("keeping the new root access key", "error", err)
		}
	}
	h.answer(w, key, err)
}

// recorded makes a change to an account and records it in the audit trail, in the way of calls of the API: it is not begun while
// there can be no records, and what could not be recorded fails. The operator has no identity but that of the server's user.
func (h *adminHandler) recorded(ctx context.Context, event, account string, change func(context.Context) error) error {
	if h.trail == nil {
		return change(ctx)
	}
	if err := h.trail.Refuses(); err != nil {
		return fmt.Errorf("nothing was done, because the audit trail fails: %w", err)
	}
	if err := change(ctx); err != nil {
		return err
	}
	err := h.trail.Record(context.WithoutCancel(ctx), &audit.Event{
		UserIdentity: audit.UserIdentity{AccountID: account, InvokedBy: "admin socket"}, EventSource: audit.OwnSource, EventName: event,
		EventType: audit.ServiceEvent, ServiceEventDetails: audit.Parameters{{Name: "accountId", Value: audit.Text(account)}},
		Recipients: []audit.Recipient{{AccountID: account}},
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errUnrecorded, err)
	}
	return nil
}

// errUnrecorded says that a change was made. Of an account whose root access key is not shown, rotate-root gives another.
var errUnrecorded = errors.New("it was done, but could not be recorded in the audit trail; rotate the root access key when that works again")

// answer writes a result, or what an operator may know of an error, which is all.
func (h *adminHandler) answer(w http.ResponseWriter, result any, err error) {
	status := http.StatusOK
	switch {
	case err == nil:
	case errors.Is(err, iam.ErrNoAccount):
		status = http.StatusNotFound
	case errors.Is(err, iam.ErrAccountExists):
		status = http.StatusConflict
	case errors.Is(err, iam.ErrAccountID):
		status = http.StatusBadRequest
	default:
		status = http.StatusInternalServerError
		h.log.Error("answering on the admin socket", "error", err)
	}
	if err != nil {
		result = adminError{err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(result) // whoever asked has gone
}

// askAdmin sends a request to the server that listens on an admin socket, which must belong to our own user.
func askAdmin(ctx context.Context, socket, method, path string, result any) error {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		connection, err := dialer.DialContext(ctx, "unix", socket)
		if err != nil {
			return nil, err
		}
		if err := checkPeer(connection, os.Geteuid()); err != nil {
			return nil, joinClose(err, connection.Close)
		}
		return connection, nil
	}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, method, "http://hsmkms"+path, http.NoBody)
	if err != nil {
		return err
	}
	answer, err := (&http.Client{Transport: transport, Timeout: adminTimeout}).Do(request)
	if err != nil {
		return fmt.Errorf("asking the server at %s: %w", socket, errors.Unwrap(err))
	}
	defer answer.Body.Close()
	decoder := json.NewDecoder(io.LimitReader(answer.Body, 1<<20))
	if answer.StatusCode == http.StatusOK {
		return decoder.Decode(result)
	}
	var refused adminError
	if err := decoder.Decode(&refused); err != nil || refused.Error == "" {
		return fmt.Errorf("the server answers %s", strings.ToLower(answer.Status))
	}
	return errors.New(refused.Error)
}
