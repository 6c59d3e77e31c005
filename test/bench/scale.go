package main

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// few is the number of keys of the server that a large one is compared with.
const few = 10

// samples is how many requests there are, each at a key chosen at random.
const samples = 30_000

// scaled is a server with a number of keys.
type scaled struct {
	*target
	dir  string
	cmd  *exec.Cmd
	ids  []string
	took time.Duration // to start
}

// scale compares a server with a great many keys with one that has ten, and prints what depends on the number.
func scale(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "hsmkms-scale-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if out, err := exec.CommandContext(ctx, "make", "build").CombinedOutput(); err != nil {
		return fmt.Errorf("building: %w: %s", err, out)
	}
	var servers []*scaled
	defer func() {
		for _, s := range servers {
			_ = s.stop()
		}
	}()
	for _, keys := range []int{few, o.keys} {
		s := &scaled{dir: filepath.Join(dir, fmt.Sprint("keys", keys))}
		servers = append(servers, s)
		if err := s.fill(ctx, o, keys); err != nil {
			return fmt.Errorf("making %d keys: %w", keys, err)
		}
	}
	return report(ctx, o, servers[0], servers[1])
}

// fill makes a server with keys and starts it anew.
func (s *scaled) fill(ctx context.Context, o options, keys int) error {
	if err := s.start(o, "softhsm-config/run-dev.sh"); err != nil {
		return err
	}
	if err := s.answer(ctx); err != nil {
		return err
	}
	start := time.Now()
	if err := s.createKeys(ctx, o, keys); err != nil {
		return err
	}
	fmt.Printf("made %d keys in %v\n", keys, time.Since(start).Round(time.Millisecond))
	if err := s.list(ctx); err != nil {
		return err
	}
	if err := s.stop(); err != nil {
		return err
	}
	start = time.Now()
	if err := s.start(o, "bin/hsmkms", "serve", "--config", filepath.Join(s.dir, "hsmkms.yaml")); err != nil {
		return err
	}
	if err := s.answer(ctx); err != nil {
		return err
	}
	s.took = time.Since(start)
	return nil
}

// start starts a process of the server.
func (s *scaled) start(o options, name string, args ...string) error {
	s.cmd = exec.Command(name, args...)
	s.cmd.Env = append(os.Environ(), "DEV_DIR="+s.dir, "LISTEN=127.0.0.1:0", "LISTEN_ADMIN=127.0.0.1:0", "KEY_HOME="+o.home)
	return s.cmd.Start()
}

// answer waits until the server answers a request.
func (s *scaled) answer(ctx context.Context) error {
	env, err := waitForEnv(ctx, filepath.Join(s.dir, "aws.env"))
	if err != nil {
		return err
	}
	s.target = newTarget("hsmkms", s.cmd.Process.Pid, env["AWS_ENDPOINT_URL_KMS"], env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"])
	_, err = s.call(ctx, "ListKeys", map[string]any{"Limit": 1})
	return err
}

func (s *scaled) stop() error {
	if s.cmd == nil {
		return nil
	}
	cmd := s.cmd
	s.cmd = nil
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return cmd.Wait()
}

// createKeys sends one signed request again and again, and signs it anew before it is too old.
func (s *scaled) createKeys(ctx context.Context, o options, keys int) error {
	const batch = 10_000
	for made := 0; made < keys; made += batch {
		wires, err := s.sign(ctx, "CreateKey", [][]byte{[]byte("{}")})
		if err != nil {
			return err
		}
		if err := s.exchangeAll(ctx, o, slices.Repeat(wires, min(batch, keys-made))); err != nil {
			return err
		}
	}
	return nil
}

// exchangeAll sends each request once, over all connections.
func (s *scaled) exchangeAll(ctx context.Context, o options, wires [][]byte) error {
	var next atomic.Int64
	var group errgroup.Group
	for range o.connections {
		group.Go(func() error {
			return s.exchange(ctx, func() []byte {
				if i := int(next.Add(1)); i <= len(wires) {
					return wires[i-1]
				}
				return nil
			})
		})
	}
	return group.Wait()
}

// exchange sends the requests that next gives over one connection, until it gives nil.
func (s *scaled) exchange(ctx context.Context, next func() []byte) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		return err
	}
	defer conn.Close()
	reader := bufio.NewReader(conn)
	for wire := next(); wire != nil; wire = next() {
		if _, err := conn.Write(wire); err != nil {
			return err
		}
		if err := readAnswer(reader); err != nil {
			return err
		}
	}
	return nil
}

// list reads the ids of all keys.
func (s *scaled) list(ctx context.Context) error {
	marker := ""
	for {
		page, err := s.page(ctx, marker)
		if err != nil {
			return err
		}
		for _, key := range page["Keys"].([]any) {
			s.ids = append(s.ids, key.(map[string]any)["KeyId"].(string))
		}
		if page["Truncated"] != true {
			return nil
		}
		marker = page["NextMarker"].(string)
	}
}

func (s *scaled) page(ctx context.Context, marker string) (map[string]any, error) {
	in := map[string]any{"Limit": 1000}
	if marker != "" {
		in["Marker"] = marker
	}
	return s.call(ctx, "ListKeys", in)
}

// report prints the comparison.
func report(ctx context.Context, o options, small, large *scaled) error {
	fmt.Printf("\n%d connections, rounds of %v, home %s\n", o.connections, o.round, o.home)
	fmt.Printf("%-34s %12s %12s %8s\n", "", fmt.Sprint(few, " keys"), fmt.Sprint(o.keys, " keys"), "times")
	row := func(what string, a, b time.Duration) {
		fmt.Printf("%-34s %12v %12v %8.2f\n", what, a.Round(time.Microsecond), b.Round(time.Microsecond), float64(b)/float64(a))
	}
	row("start until the first answer", small.took, large.took)
	if err := reportMemory("at start", small, large); err != nil {
		return err
	}
	if err := large.pages(ctx); err != nil {
		return err
	}
	for _, op := range []string{"DescribeKey", "Encrypt"} {
		var cold [2]time.Duration
		for i, s := range []*scaled{small, large} {
			var err error
			if cold[i], err = s.cold(ctx, o, op); err != nil {
				return fmt.Errorf("%s: %w", op, err)
			}
		}
		row(op+" at random keys, cold", cold[0], cold[1])
		if err := large.touchAll(ctx, o, op); err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
		var times [2][]time.Duration
		for range o.rounds {
			for i, s := range []*scaled{small, large} {
				took, err := s.random(ctx, o, op)
				if err != nil {
					return fmt.Errorf("%s: %w", op, err)
				}
				times[i] = append(times[i], took)
			}
		}
		slices.Sort(times[0])
		slices.Sort(times[1])
		row(op+" at random keys, warm", times[0][len(times[0])/2], times[1][len(times[1])/2])
		if err := reportMemory("after "+op, small, large); err != nil {
			return err
		}
	}
	fmt.Printf("%-34s %8d MiB %8d MiB\n", "store file", small.storeSize()>>20, large.storeSize()>>20)
	return nil
}

// reportMemory prints how much memory the processes take.
func reportMemory(when string, small, large *scaled) error {
	a, err := small.memory()
	if err != nil {
		return err
	}
	b, err := large.memory()
	fmt.Printf("%-34s %8d MiB %8d MiB\n", "resident memory "+when, a>>10, b>>10)
	return err
}

// random drives the server with requests at random keys for a round and gives the time from one answer to the next.
func (s *scaled) random(ctx context.Context, o options, op string) (time.Duration, error) {
	result, err := s.round(ctx, o, op, s.atRandom(op))
	if err != nil {
		return 0, err
	}
	return time.Duration(float64(time.Second) / result.rate), nil
}

// cold is random with each request sent once: a round sends them again, at keys that are warm by then.
func (s *scaled) cold(ctx context.Context, o options, op string) (time.Duration, error) {
	wires, err := s.sign(ctx, op, s.atRandom(op))
	if err != nil {
		return 0, err
	}
	start := time.Now()
	err = s.exchangeAll(ctx, o, wires)
	return time.Since(start) / samples, err
}

// atRandom makes requests at keys chosen at random.
func (s *scaled) atRandom(op string) [][]byte {
	bodies := make([][]byte, samples)
	for i := range bodies {
		bodies[i] = body(op, s.ids[rand.IntN(len(s.ids))])
	}
	return bodies
}

// touchAll makes one request at every key.
func (s *scaled) touchAll(ctx context.Context, o options, op string) error {
	for ids := range slices.Chunk(s.ids, samples) {
		bodies := make([][]byte, len(ids))
		for i, id := range ids {
			bodies[i] = body(op, id)
		}
		wires, err := s.sign(ctx, op, bodies)
		if err != nil {
			return err
		}
		if err := s.exchangeAll(ctx, o, wires); err != nil {
			return err
		}
	}
	return nil
}

// body is a request at a key.
func body(op, id string) []byte {
	in := map[string]any{"KeyId": id}
	if op == "Encrypt" {
		in["Plaintext"] = []byte("thirty-two bytes of a plaintext.")
	}
	return mustJSON(in)
}

// pages prints the times of pages of ListKeys at the beginning, in the middle and at the end.
func (s *scaled) pages(ctx context.Context) error {
	first, err := s.page(ctx, "")
	if err != nil {
		return err
	}
	markers := []string{""}
	for marker, ok := first["NextMarker"].(string); ok; {
		markers = append(markers, marker)
		page, err := s.page(ctx, marker)
		if err != nil {
			return err
		}
		marker, ok = page["NextMarker"].(string)
	}
	for name, marker := range map[string]string{"first": markers[0], "middle": markers[len(markers)/2], "last": markers[len(markers)-1]} {
		const times = 50
		start := time.Now()
		for range times {
			if _, err := s.page(ctx, marker); err != nil {
				return err
			}
		}
		fmt.Printf("%-34s %12s %12v\n", "ListKeys, "+name+" page of 1000", "", (time.Since(start) / times).Round(time.Microsecond))
	}
	return nil
}

// memory is the resident memory of the process in KiB.
func (s *scaled) memory() (kib int, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	_, err = fmt.Sscan(rest, &kib)
	return kib, err
}

func (s *scaled) storeSize() int64 {
	info, err := os.Stat(filepath.Join(s.dir, "hsmkms.db"))
	if err != nil {
		return 0
	}
	return info.Size()
}
