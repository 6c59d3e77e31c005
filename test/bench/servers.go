package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"
)

// servers are the processes and what is needed to speak to them.
type servers struct {
	o       options
	dir     string
	running []*exec.Cmd
	// floor is what the others are compared with; checked is a floor with signatures and a trail.
	floor, checked, hsmkms *target
}

// all gives the servers in the order of the table's columns.
func (s *servers) all() []*target { return []*target{s.floor, s.checked, s.hsmkms} }

// start makes a token and a server in a temporary folder, and the floors in others.
func start(ctx context.Context, o options) (_ *servers, err error) {
	s := &servers{o: o}
	if s.dir, err = os.MkdirTemp("", "hsmkms-bench-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	if s.hsmkms, err = s.startServer(ctx); err != nil {
		return nil, err
	}
	if s.floor, err = s.startFloor(ctx, "floor"); err != nil {
		return nil, err
	}
	s.checked, err = s.startFloor(ctx, "floor with checks", "-checked")
	return s, err
}

// stop ends the processes that were started and removes the folder.
func (s *servers) stop() {
	for _, cmd := range s.running {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
	_ = os.RemoveAll(s.dir)
}

// startServer runs the development server, as `make run` does, with its log in a file.
func (s *servers) startServer(ctx context.Context) (*target, error) {
	dir := filepath.Join(s.dir, "dev")
	if out, err := exec.CommandContext(ctx, "make", "build").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building: %w: %s", err, out)
	}
	log, err := os.Create(filepath.Join(s.dir, "server.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command("softhsm-config/run-dev.sh")
	cmd.Env = append(os.Environ(), "DEV_DIR="+dir, "LISTEN=127.0.0.1:0", "LISTEN_ADMIN=127.0.0.1:0", "KEY_HOME="+s.o.home,
		fmt.Sprintf("TOKEN_SESSIONS=%d", s.o.sessions), "AUDIT_SYNC="+s.o.sync)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s.running = append(s.running, cmd)
	env, err := waitForEnv(ctx, filepath.Join(dir, "aws.env"))
	if err != nil {
		text, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("starting server: %w: %s", err, text)
	}
	return newTarget("hsmkms", cmd.Process.Pid, env["AWS_ENDPOINT_URL_KMS"], env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"]), nil
}

// waitForEnv reads the export lines that the server writes when it answers.
func waitForEnv(ctx context.Context, path string) (map[string]string, error) {
	for range 3000 {
		text, err := os.ReadFile(path)
		if err == nil {
			env := map[string]string{}
			for line := range strings.Lines(string(text)) {
				name, value, _ := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "export ")), "=")
				env[name] = value
			}
			return env, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil, errors.New("the server did not answer within 30 seconds")
}

// startFloor runs the floor, which prints its address when it answers.
func (s *servers) startFloor(ctx context.Context, name string, args ...string) (*target, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args = append([]string{"floor", "-home", s.o.home, fmt.Sprintf("-sessions=%d", s.o.sessions), "-sync", s.o.sync}, args...)
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s.running = append(s.running, cmd)
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("starting floor: %w", err)
	}
	return newTarget(name, cmd.Process.Pid, "http://"+strings.TrimSpace(address), floorAccessKey, floorSecret), nil
}

// profile starts a CPU profile of this process if path is set.
func profile(path string) (stop func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, err
	}
	return func() { pprof.StopCPUProfile(); _ = file.Close() }, nil
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps of strings and bytes can always be encoded
	}
	return b
}
