package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"golang.org/x/sync/errgroup"
)

// target is a server under load.
type target struct {
	name        string
	url         string
	credentials aws.Credentials
	pid         int
}

func newTarget(name string, pid int, url, id, secret string) *target {
	return &target{name: name, pid: pid, url: url, credentials: aws.Credentials{AccessKeyID: id, SecretAccessKey: secret}}
}

// cpuTime is what the target's process has used of the processors until now, in steps of a tick of 10 ms.
func (t *target) cpuTime() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", t.pid)) // proc_pid_stat(5)
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	var ticks int64
	for _, field := range fields[11:13] { // utime and stime
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// request makes a signed request of an operation.
func (t *target) request(ctx context.Context, op string, body []byte) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url+"/", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "TrentService."+op)
	digest := sha256.Sum256(body)
	err = v4.NewSigner().SignHTTP(ctx, t.credentials, r, hex.EncodeToString(digest[:]), "kms", "us-east-1", time.Now())
	return r, err
}

// call makes one request and reads the answer.
func (t *target) call(ctx context.Context, op string, in map[string]any) (map[string]any, error) {
	r, err := t.request(ctx, op, mustJSON(in))
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	out := map[string]any{}
	if err := json.NewDecoder(answer.Body).Decode(&out); err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %v", answer.Status, out)
	}
	return out, nil
}

// sign makes of the bodies requests as bytes of the wire. They are good for five minutes.
func (t *target) sign(ctx context.Context, op string, bodies [][]byte) ([][]byte, error) {
	var all [][]byte
	for _, body := range bodies {
		r, err := t.request(ctx, op, body)
		if err != nil {
			return nil, err
		}
		var wire bytes.Buffer
		if err := r.Write(&wire); err != nil {
			return nil, err
		}
		all = append(all, wire.Bytes())
	}
	return all, nil
}

// result is one round.
type result struct {
	rate     float64
	p50, p99 time.Duration
	cpu      time.Duration // of the target's process, for one request
}

// round drives the target with signed requests over the connections, each sending its next request when it has the
// answer to the last. The client writes bytes made before and reads no more of an answer than it must, so that the
// machine's two cores work for the servers as much as they can.
func (t *target) round(ctx context.Context, o options, op string, bodies [][]byte) (result, error) {
	wires, err := t.sign(ctx, op, bodies)
	if err != nil {
		return result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, o.round)
	defer cancel()
	latencies := make([][]time.Duration, o.connections)
	var group errgroup.Group
	cpu, err := t.cpuTime()
	if err != nil {
		return result{}, err
	}
	start := time.Now()
	for i := range o.connections {
		group.Go(func() error {
			var err error
			latencies[i], err = t.connection(ctx, wires, i*len(wires)/o.connections)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return result{}, err
	}
	took := time.Since(start)
	cpuAfter, err := t.cpuTime()
	if err != nil {
		return result{}, err
	}
	all := slices.Concat(latencies...)
	slices.Sort(all)
	if len(all) == 0 {
		return result{}, fmt.Errorf("no request was answered")
	}
	return result{
		rate: float64(len(all)) / took.Seconds(), p50: all[len(all)/2], p99: all[len(all)*99/100],
		cpu: (cpuAfter - cpu) / time.Duration(len(all)),
	}, nil
}

func (t *target) connection(ctx context.Context, wires [][]byte, first int) ([]time.Duration, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", strings.TrimPrefix(t.url, "http://"))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	reader := bufio.NewReader(conn)
	latencies := make([]time.Duration, 0, 1<<16)
	for i := first; ctx.Err() == nil; i++ {
		start := time.Now()
		if _, err := conn.Write(wires[i%len(wires)]); err != nil {
			return nil, err
		}
		if err := readAnswer(reader); err != nil {
			return nil, err
		}
		latencies = append(latencies, time.Since(start))
	}
	return latencies, nil
}

// readAnswer reads one answer and fails unless its status is 200.
func readAnswer(r *bufio.Reader) error {
	status, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	ok := bytes.HasPrefix(status, []byte("HTTP/1.1 200"))
	length := -1
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			break
		}
		if value, found := bytes.CutPrefix(line, []byte("Content-Length: ")); found {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return err
			}
		}
	}
	if ok {
		_, err = r.Discard(length)
		return err
	}
	body, _ := io.ReadAll(io.LimitReader(r, int64(length)))
	return fmt.Errorf("an answer other than 200: %s", body)
}

// compare runs the rounds of a row on all servers in turns and gives the line of the table.
func (s *servers) compare(ctx context.Context, r row) (string, error) {
	all := s.all()
	results := make([][]result, len(all))
	bodies := make([][][]byte, len(all))
	for i, t := range all {
		var err error
		if bodies[i], err = t.bodies(ctx, r, 256, s.o.payload); err != nil {
			return "", fmt.Errorf("%s: %w", t.name, err)
		}
	}
	for round := range s.o.rounds + 1 {
		for i, t := range all {
			result, err := t.round(ctx, s.o, r.operation, bodies[i])
			if err != nil {
				return "", fmt.Errorf("%s: %w", t.name, err)
			}
			if round > 0 { // the first is to warm up
				results[i] = append(results[i], result)
			}
		}
	}
	line := fmt.Sprintf("%-18s", r.name)
	for i := range all {
		line += " " + median(results[i]).String()
		if i > 0 {
			line += ratio(results[i], results[0])
		}
	}
	return line, nil
}

// ratio gives the median of the rounds' rates in relation to the floor's, and the worst and the best.
func ratio(ours, floor []result) string {
	var ratios []float64
	for i := range ours {
		ratios = append(ratios, ours[i].rate/floor[i].rate)
	}
	slices.Sort(ratios)
	return fmt.Sprintf("   %-4.2f (%.2f to %.2f)", ratios[len(ratios)/2], ratios[0], ratios[len(ratios)-1])
}

func (r result) String() string {
	return fmt.Sprintf("%10.0f %7d %7d %7.1f", r.rate, r.p50.Microseconds(), r.p99.Microseconds(), float64(r.cpu.Nanoseconds())/1000)
}

// median gives the round with the median rate.
func median(rounds []result) result {
	rounds = slices.Clone(rounds)
	slices.SortFunc(rounds, func(a, b result) int { return int(a.rate - b.rate) })
	return rounds[len(rounds)/2]
}
