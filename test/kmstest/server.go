// Package kmstest runs the real server, as a process on loopback with a SoftHSM token and a store of its own, for tests
// that speak to it as its users do.
package kmstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm/hsmtest"
)

// The account and Region of every server.
const (
	Account = "111122223333"
	Region  = "us-east-1"
)

// The homes of key material.
const (
	HomeToken   = "token"
	HomeWrapped = "wrapped"
)

// Options change the server's configuration. The zero value is the usual one.
type Options struct {
	// Home of new keys; empty means HomeToken.
	Home string
	// Module is the PKCS#11 module that serve loads; empty means SoftHSM itself. init always uses SoftHSM.
	Module string
	// Env is added to the environment of serve.
	Env []string
	// Settings are lines for the Region's settings in the configuration, such as "sessions: 2".
	Settings []string
	// Top are lines for the configuration itself, such as "request_timeout: 1s".
	Top []string
	// Day is how long a day of a waiting or rotation period lasts, such as "10ms"; empty means 24 hours.
	Day string
	// NoAudit runs a server without an audit trail, for tests in which it could not write one, or too much of one.
	NoAudit bool
	// AdminSocket opens one, for NewAccount. Cleanup removes it.
	AdminSocket bool
	// NoRace runs a server without the race detector even when the test has it: for measuring the server's memory,
	// which the detector multiplies.
	NoRace bool
}

// Server is a server process.
type Server struct {
	// Endpoint is the URL of the API, Admin that of /livez, /readyz and /metrics.
	Endpoint, Admin string
	// AccessKeyID and Secret are the root access key of Account.
	AccessKeyID, Secret string
	// Dir holds the configuration, the token and the store.
	Dir string

	options Options
	binary  string
	module  string
	socket  string // of AdminSocket
	cmd     *exec.Cmd
	exited  chan struct{} // closed when cmd has ended
	err     error         // of cmd, after exited
	log     *syncBuffer
}

// syncBuffer collects the log of the process.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// Binary builds hsmkms once for the test process, with the race detector if the test has it, and gives its path.
var Binary = build(raceFlag)

// plainBinary is Binary for Options.NoRace.
var plainBinary = build("-race=false")

// buildDir is where the binaries are.
var buildDir = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "hsmkms-test-") })

func build(race string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		root, err := Root()
		if err != nil {
			return "", err
		}
		dir, err := buildDir()
		if err != nil {
			return "", err
		}
		path := filepath.Join(dir, "hsmkms"+race)
		cmd := exec.Command("go", "build", race, "-o", path, "./cmd/hsmkms")
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("building hsmkms: %w: %s", err, out)
		}
		return path, nil
	})
}

// Cleanup removes what was built. Call it at the end of TestMain.
func Cleanup() {
	if dir, err := buildDir(); err == nil {
		_ = os.RemoveAll(dir)
	}
}

// Root gives the folder of the module.
func Root() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("finding the module: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}

// Start makes a token, a store and an account, starts a server on them, and stops it when the test ends.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := Make(t.TempDir(), hsmtest.ModulePath(t), o)
	require.NoError(t, err)
	require.NoError(t, s.Run())
	t.Cleanup(func() {
		_ = s.Stop()
		require.NotContains(t, s.Log(), "DATA RACE")
	})
	return s
}

// Make makes a token, a store and an account in dir, without starting the server. It is for servers that outlive a test.
func Make(dir, module string, o Options) (*Server, error) {
	executable := Binary
	if o.NoRace {
		executable = plainBinary
	}
	binary, err := executable()
	if err != nil {
		return nil, err
	}
	s := &Server{Dir: dir, options: o, binary: binary, module: module, log: &syncBuffer{}}
	if s.options.Home == "" {
		s.options.Home = HomeToken
	}
	if o.AdminSocket {
		if s.socket, err = newSocket(); err != nil {
			return nil, err
		}
	}
	if err := s.prepare(); err != nil {
		return nil, fmt.Errorf("preparing server: %w", err)
	}
	return s, nil
}

// newSocket gives the path of a socket, which has little room.
func newSocket() (string, error) {
	dir, err := buildDir()
	if err != nil {
		return "", err
	}
	if dir, err = os.MkdirTemp(dir, ""); err != nil {
		return "", err
	}
	return filepath.Join(dir, "s"), nil
}

func (s *Server) path(name string) string { return filepath.Join(s.Dir, name) }

// Config is the path of the configuration.
func (s *Server) Config() string { return s.path("hsmkms.yaml") }

func (s *Server) prepare() error {
	if err := os.Mkdir(s.path("tokens"), 0o700); err != nil {
		return err
	}
	softhsm := "directories.tokendir = " + s.path("tokens") + "\nobjectstore.backend = file\nlog.level = ERROR\n"
	for name, text := range map[string]string{"softhsm2.conf": softhsm, "pin": hsmtest.PIN + "\n", "so-pin": hsmtest.SOPIN + "\n"} {
		if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	if err := s.writeConfig(s.module); err != nil {
		return err
	}
	cmd := exec.Command(s.binary, "init", "--config", s.Config(), "--new-token", "--account", Account, "--credentials-file", s.path("credentials"))
	cmd.Env = environ()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	if s.options.Module != "" {
		return s.writeConfig(s.options.Module)
	}
	return nil
}

// environ is the environment of hsmkms: a data race ends it, and so cannot go unnoticed, and the detector does not wait
// when it ends by itself.
func environ() []string { return append(os.Environ(), "GORACE=halt_on_error=1 atexit_sleep_ms=0") }

func (s *Server) writeConfig(module string) error {
	text := fmt.Sprintf(`listen: 127.0.0.1:0
admin_listen: 127.0.0.1:0
log_level: debug
store: {path: %[1]s/hsmkms.db}
module:
  path: %[2]s
  environment: {SOFTHSM2_CONF: %[1]s/softhsm2.conf}
regions:
  %[3]s:
    token_label: kmstest
    pin_file: %[1]s/pin
    so_pin_file: %[1]s/so-pin
    profile: softhsm
    home: %[4]s
`, s.Dir, module, Region, s.options.Home)
	for _, line := range s.options.Settings {
		text += "    " + line + "\n"
	}
	text += "dev: {credentials_file: " + s.path("credentials") + ", env_file: " + s.path("aws.env")
	if s.options.Day != "" {
		text += ", day: " + s.options.Day
	}
	text += "}\n"
	if !s.options.NoAudit {
		text += "audit: {path: " + s.path("audit") + ", file_size: 1GiB}\n"
	}
	if s.socket != "" {
		text += "admin_socket: " + s.socket + "\n"
	}
	text += strings.Join(s.options.top(), "\n") + "\n"
	return os.WriteFile(s.Config(), []byte(text), 0o600)
}

// patience is how long requests may take, unless a test is about just that: on a busy machine a token can need more than the
// usual 10 s for a key pair of 4096 bits.
const patience = "request_timeout: 50s"

// top gives the lines for the configuration itself.
func (o Options) top() []string {
	if slices.ContainsFunc(o.Top, func(line string) bool { return strings.HasPrefix(line, "request_timeout:") }) {
		return o.Top
	}
	return append(slices.Clone(o.Top), patience)
}

// Run starts the process, if it isn't running, and waits until it answers.
func (s *Server) Run() error {
	s.log = &syncBuffer{}
	s.cmd = exec.Command(s.binary, "serve", "--config", s.Config())
	s.cmd.Env = append(environ(), s.options.Env...)
	s.cmd.Stderr = s.log
	if err := s.cmd.Start(); err != nil {
		return err
	}
	cmd, exited := s.cmd, make(chan struct{})
	s.exited = exited
	go func() { s.err = cmd.Wait(); close(exited) }() // ends with the process
	for range 1200 {
		select {
		case <-s.exited:
			return fmt.Errorf("server ended: %w: %s", s.err, s.Log())
		case <-time.After(25 * time.Millisecond):
		}
		if s.readEnv() == nil {
			return nil
		}
	}
	return errors.Join(fmt.Errorf("the server does not answer: %s", s.Log()), s.Kill())
}

var listening = regexp.MustCompile(`"adminListen":"([^"]+)"`)

// readEnv learns the addresses and the access key once the server has written them.
func (s *Server) readEnv() error {
	text, err := os.ReadFile(s.path("aws.env"))
	if err != nil {
		return err
	}
	admin := listening.FindStringSubmatch(s.Log())
	if admin == nil {
		return errors.New("no address in the log yet")
	}
	s.Admin = "http://" + admin[1]
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "export ")), "=")
		switch name {
		case "AWS_ACCESS_KEY_ID":
			s.AccessKeyID = value
		case "AWS_SECRET_ACCESS_KEY":
			s.Secret = value
		case "AWS_ENDPOINT_URL_KMS":
			s.Endpoint = value
		}
	}
	return nil
}

// Stop sends SIGTERM and waits for the end; the error tells of an exit status other than 0.
func (s *Server) Stop() error { return s.end(syscall.SIGTERM) }

// Kill sends SIGKILL and waits for the end.
func (s *Server) Kill() error {
	_ = s.end(syscall.SIGKILL)
	return nil
}

func (s *Server) end(signal syscall.Signal) error {
	select {
	case <-s.exited:
		return s.err
	default:
	}
	if err := s.cmd.Process.Signal(signal); err != nil {
		return err
	}
	select {
	case <-s.exited:
		return s.err
	case <-time.After(time.Minute):
		_ = s.cmd.Process.Kill()
		<-s.exited
		return fmt.Errorf("the server did not end within a minute of %v: %s", signal, s.Log())
	}
}

// Wait waits for the process to end by itself, at most a minute, and gives what Stop would.
func (s *Server) Wait() error {
	select {
	case <-s.exited:
		return s.err
	case <-time.After(time.Minute):
		return fmt.Errorf("the server did not end by itself: %s", s.Log())
	}
}

// Terminate sends SIGTERM and does not wait; see Wait.
func (s *Server) Terminate() error { return s.cmd.Process.Signal(syscall.SIGTERM) }

// PID is the id of the process.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Log gives the log of the process since it was started. Lines come up to 100 ms late.
func (s *Server) Log() string { return s.log.String() }

// AwaitTrials waits until the server, which was just started, has tried out what its token can do: from then on it calls the token
// for its clients and its schedule only.
func (s *Server) AwaitTrials(t testing.TB) {
	t.Helper()
	require.Eventually(t, func() bool {
		return strings.Contains(s.Log(), `"msg":"keys of the token"`) && strings.Contains(s.Log(), `"msg":"importing key material"`)
	}, 2*time.Minute, 20*time.Millisecond, "the token is still being tried out")
}

// AdminGet asks the administrative listener.
func (s *Server) AdminGet(t testing.TB, path string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, s.Admin+path, http.NoBody)
	require.NoError(t, err)
	answer, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer answer.Body.Close()
	var text bytes.Buffer
	_, err = text.ReadFrom(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, text.String()
}

// Calls gives, from /metrics, how often each function of the PKCS#11 module was called, whatever came of it.
func (s *Server) Calls(t testing.TB) map[string]int {
	t.Helper()
	_, text := s.AdminGet(t, "/metrics")
	calls := map[string]int{}
	for _, match := range callLine.FindAllStringSubmatch(text, -1) {
		var n float64
		_, err := fmt.Sscan(match[2], &n)
		require.NoError(t, err)
		calls[match[1]] += int(n)
	}
	require.NotEmpty(t, calls)
	return calls
}

var callLine = regexp.MustCompile(`(?m)^hsmkms_token_calls_total\{class="[^"]*",function="([^"]+)"\} (\S+)$`)
