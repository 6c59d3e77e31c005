package audit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// testSink takes records, fails, or hangs while it is locked.
type testSink struct {
	mu      sync.Mutex
	taken   []string
	failure error
	some    int // records taken before the failure
}

func (s *testSink) Write(records [][]byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != nil {
		records = records[:min(s.some, len(records))]
	}
	for _, record := range records {
		s.taken = append(s.taken, string(record))
	}
	return len(records), s.failure
}

func (s *testSink) Close() error { return nil }

func (s *testSink) set(failure error, some int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure, s.some = failure, some
}

func (s *testSink) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.taken...)
}

var errSink = errors.New("sink is down")

func TestSinksGetWhatTheFilesHave(t *testing.T) {
	dir, sink := t.TempDir(), &testSink{}
	var out bytes.Buffer
	trail := open(t, Config{Dir: dir, Sinks: []Sink{sink, NewStream(&out)}})
	record(t, trail, 0, 50)
	closeTrail(t, trail)
	require.Equal(t, lines(t, dir), sink.all())
	require.Equal(t, strings.Join(lines(t, dir), "\n")+"\n", out.String())
}

func TestATrailWithoutFiles(t *testing.T) {
	key, path := newTestKey(t), filepath.Join(t.TempDir(), "collected")
	out, err := os.Create(path)
	require.NoError(t, err)
	trail := open(t, Config{Sinks: []Sink{NewStream(out)}, Signer: key.signer()})
	record(t, trail, 0, 50)
	closeTrail(t, trail)
	report := verify(t, key, path)
	require.Empty(t, report.Problems)
	require.Equal(t, uint64(50), report.Calls)
}

func TestSlowSinksHoldUpCalls(t *testing.T) {
	sink := &testSink{}
	trail := open(t, Config{Dir: t.TempDir(), Sinks: []Sink{sink}})
	sink.mu.Lock()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, trail.Record(ctx, reEncrypt(0)), context.DeadlineExceeded)
	done := make(chan error, 1)
	go func() { done <- trail.Record(t.Context(), reEncrypt(1)) }()
	select {
	case err := <-done:
		t.Fatal("it did not wait", err)
	case <-time.After(20 * time.Millisecond):
	}
	sink.mu.Unlock()
	require.NoError(t, <-done)
	require.Len(t, sink.all(), 3, "the start and both calls")
}

// TestSlowTrailRefuses has a sink hang. As long as a call that was not recorded in time is the last that is known, the trail says
// that it refuses.
func TestSlowTrailRefuses(t *testing.T) {
	sink := &testSink{}
	trail := open(t, Config{Dir: t.TempDir(), Sinks: []Sink{sink}, Patience: 20 * time.Millisecond})
	require.NoError(t, trail.Refuses())
	sink.mu.Lock()
	for i := range 3 {
		require.ErrorIs(t, trail.Record(t.Context(), reEncrypt(i)), context.DeadlineExceeded)
		require.ErrorIs(t, trail.Refuses(), ErrSlow)
	}
	sink.mu.Unlock()
	require.Eventually(t, func() bool { return trail.Record(t.Context(), reEncrypt(3)) == nil && trail.Refuses() == nil }, 10*time.Second, time.Millisecond)
	closeTrail(t, trail)
	require.ErrorIs(t, trail.Refuses(), ErrClosed)
}

// TestDeliver waits as long as its context allows, and says what went wrong also when calls would go on.
func TestDeliver(t *testing.T) {
	sink := &testSink{}
	trail := open(t, Config{Sinks: []Sink{sink}, Patience: time.Millisecond, OnFailure: Continue})
	require.NoError(t, trail.Deliver(t.Context(), reEncrypt(0)))
	sink.mu.Lock()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, trail.Deliver(ctx, reEncrypt(1)), context.DeadlineExceeded)
	require.Error(t, ctx.Err(), "its patience is its context's")
	sink.mu.Unlock()

	dir := t.TempDir()
	trail = open(t, Config{Dir: dir, FileSize: 1, OnFailure: Continue})
	require.NoError(t, os.Rename(dir, dir+".away"))
	require.ErrorIs(t, trail.Deliver(t.Context(), reEncrypt(1)), os.ErrNotExist)
	require.Zero(t, trail.Status().Lost)
	require.NoError(t, trail.Record(t.Context(), reEncrypt(1)))
	require.Equal(t, uint64(1), trail.Status().Lost)
	require.NoError(t, os.Rename(dir+".away", dir))
	require.NoError(t, trail.Deliver(t.Context(), reEncrypt(1)))
}

// stopping is a clock that can be stopped: who asks then is told so, and waits.
type stopping struct {
	stopped atomic.Pointer[chan struct{}]
	asked   chan struct{}
}

func (c *stopping) now() time.Time {
	if stopped := c.stopped.Load(); stopped != nil {
		c.asked <- struct{}{}
		<-*stopped
	}
	return time.Now()
}

// stop stops the clock. It runs again with the function that is returned.
func (c *stopping) stop() (run func()) {
	stopped := make(chan struct{})
	c.stopped.Store(&stopped)
	return func() { c.stopped.Store(nil); close(stopped) }
}

// TestDeliverDoesNotWrite has a write hang, where callers may write themselves: who records is in the write, and so comes back when it
// ends; who delivers is not, and comes back when the context ends. The record is in the trail all the same.
func TestDeliverDoesNotWrite(t *testing.T) {
	clock := &stopping{asked: make(chan struct{}, 10)}
	trail := open(t, Config{Dir: t.TempDir(), Clock: clock.now})
	for i, test := range []struct {
		enter  func(context.Context, *Event) error
		writes bool
	}{{trail.Record, true}, {trail.Deliver, false}} {
		run := clock.stop()
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() { result <- test.enter(ctx, reEncrypt(i)) }()
		<-clock.asked // by the write
		cancel()
		if test.writes {
			time.Sleep(10 * time.Millisecond)
			require.Empty(t, result)
		} else {
			select {
			case err := <-result:
				require.ErrorIs(t, err, context.Canceled)
			case <-time.After(10 * time.Second):
				t.Error("it is in the write")
			}
		}
		run()
		if test.writes {
			require.NoError(t, <-result)
		}
		require.Eventually(t, func() bool { return trail.Status().Last.Sequence == uint64(i+2) }, 10*time.Second, time.Millisecond)
	}
}

// TestFullQueue has more callers wait than the queue holds; none of them waits longer than its context.
func TestFullQueue(t *testing.T) {
	sink := &testSink{}
	trail := open(t, Config{Sinks: []Sink{sink}})
	sink.mu.Lock()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var group sync.WaitGroup
	for i := range queueLength + 200 {
		group.Go(func() {
			if err := trail.Record(ctx, reEncrypt(i)); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
	}
	group.Wait()
	sink.mu.Unlock()
	require.NoError(t, trail.Record(t.Context(), reEncrypt(0)))
}

func TestFailingSinksRefuseCallsAndGetEverythingLater(t *testing.T) {
	dir, sink := t.TempDir(), &testSink{}
	trail := open(t, Config{Dir: dir, Sinks: []Sink{sink}})
	record(t, trail, 0, 5)
	sink.set(errSink, 0)
	for i := range 5 {
		require.ErrorIs(t, trail.Record(t.Context(), reEncrypt(i)), errSink)
	}
	require.ErrorIs(t, trail.Status().Failure, errSink)
	require.Len(t, lines(t, dir), 1+5+1, "only the first was written before the sink was known to fail")
	sink.set(nil, 0)
	require.Eventually(t, func() bool { return trail.Record(t.Context(), reEncrypt(5)) == nil }, 10*time.Second, time.Millisecond)
	require.NoError(t, trail.Status().Failure)
	require.Equal(t, lines(t, dir), sink.all())
}

// TestClosingWithoutASink looks that a sink that is down keeps the end of the trail out of nothing but itself.
func TestClosingWithoutASink(t *testing.T) {
	key, dir, sink := newTestKey(t), t.TempDir(), &testSink{}
	trail := open(t, Config{Dir: dir, Sinks: []Sink{sink}, Signer: key.signer()})
	record(t, trail, 0, 5)
	waitSigned(t, trail, 1) // or the checkpoint of the start would be the first to find out that the sink fails
	sink.set(errSink, 0)
	require.ErrorIs(t, trail.Record(t.Context(), reEncrypt(5)), errSink)
	closeTrail(t, trail)
	report := verify(t, key, dir)
	require.Empty(t, report.Problems)
	require.Empty(t, report.Notes)
	require.Equal(t, uint64(6), report.Calls)
}

func TestSinksThatTakeSome(t *testing.T) {
	sink := &testSink{}
	f := &feed{sink: sink, clock: time.Now}
	sink.set(errSink, 2)
	_, err := f.deliver([][]byte{[]byte("a"), []byte("b"), []byte("c"), []byte("d"), []byte("e")})
	require.ErrorIs(t, err, errSink)
	require.ErrorIs(t, f.flush(), errSink, "it is left alone for a while")
	require.Equal(t, []string{"a", "b"}, sink.all())
	f.failed = time.Time{}
	require.ErrorIs(t, f.flush(), errSink)
	require.Equal(t, 2*shortestRetry, f.pause)
	sink.set(nil, 0)
	f.failed = time.Time{}
	require.NoError(t, f.flush())
	require.Equal(t, []string{"a", "b", "c", "d", "e"}, sink.all())
	require.Zero(t, f.size)
	require.NoError(t, f.flush())
}

func TestFailingSinksWithContinue(t *testing.T) {
	key, dir, sink := newTestKey(t), t.TempDir(), &testSink{}
	sink.set(errSink, 0)
	trail := open(t, Config{Dir: dir, Sinks: []Sink{sink}, OnFailure: Continue, Signer: key.signer()})
	record(t, trail, 0, 5)
	require.Empty(t, sink.all())
	sink.set(nil, 0)
	require.Eventually(t, func() bool { return len(sink.all()) >= 6 }, 10*time.Second, time.Millisecond, "no record is needed for that")
	closeTrail(t, trail)
	require.Equal(t, lines(t, dir), sink.all())
	require.Empty(t, verify(t, key, dir).Problems)
}

func TestBacklogIsBounded(t *testing.T) {
	f := &feed{sink: &testSink{failure: errSink}, clock: time.Now, keep: true}
	records := make([][]byte, 40)
	for i := range records {
		records[i] = make([]byte, 1<<20)
	}
	dropped, err := f.deliver(records)
	require.ErrorIs(t, err, errSink)
	require.Equal(t, 40-maxBacklog>>20, dropped)
	dropped, _ = f.deliver(records[:1])
	require.Equal(t, 1, dropped)
	require.Equal(t, maxBacklog, f.size)
}

// shortWriter takes so many bytes, and then fails until it gets more room.
type shortWriter struct {
	bytes.Buffer
	room int
}

func (w *shortWriter) Write(p []byte) (int, error) {
	if len(p) <= w.room {
		w.room -= len(p)
		return w.Buffer.Write(p)
	}
	n, _ := w.Buffer.Write(p[:w.room])
	w.room = 0
	return n, io.ErrClosedPipe
}

// TestStreamKeepsLinesWhole fails a stream at every byte.
func TestStreamKeepsLinesWhole(t *testing.T) {
	records := [][]byte{[]byte("one"), []byte("two"), []byte("three")}
	const want = "one\ntwo\nthree\n"
	for room := range len(want) {
		w := &shortWriter{room: room}
		s := NewStream(w)
		taken, err := s.Write(records)
		require.ErrorIs(t, err, io.ErrClosedPipe)
		require.Equal(t, strings.Count(want[:room], "\n"), taken)
		left := records[taken:]
		w.room = 1
		taken, err = s.Write(left)
		for w.room = len(want); err != nil; {
			left = left[taken:]
			taken, err = s.Write(left)
		}
		require.Len(t, left, taken)
		require.Equal(t, want, w.String(), room)
	}
}

// message is what each syslog message looks like: RFC 5424, section 6.
var message = regexp.MustCompile(`^<110>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z some-host hsmkms ` + strconv.Itoa(os.Getpid()) + ` audit - (\{.*\})$`)

func requireMessage(t *testing.T, want string, got []byte) {
	t.Helper()
	match := message.FindSubmatch(got)
	require.NotNil(t, match, "%s", got)
	require.Equal(t, want, string(match[1]))
}

func newSyslog(t *testing.T, address string) *Syslog {
	t.Helper()
	s, err := NewSyslog(SyslogConfig{Address: address, Hostname: "some-host"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func TestSyslogDatagrams(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "log")
	for network, address := range map[string]string{"unixgram": socket, "udp": "127.0.0.1:0"} {
		t.Run(network, func(t *testing.T) {
			receiver, err := (&net.ListenConfig{}).ListenPacket(t.Context(), network, address)
			require.NoError(t, err)
			defer func() { _ = receiver.Close() }()
			dir := t.TempDir()
			sink := newSyslog(t, strings.TrimSuffix(network, "gram")+":"+receiver.LocalAddr().String())
			trail := open(t, Config{Dir: dir, Sinks: []Sink{sink}})
			record(t, trail, 0, 3)
			buf := make([]byte, 1<<17)
			for _, want := range lines(t, dir) {
				n, _, err := receiver.ReadFrom(buf)
				require.NoError(t, err)
				requireMessage(t, want, buf[:n])
			}
			long := reEncrypt(4)
			long.RequestParameters = Parameters{{"policy", Text(strings.Repeat("p", 90_000))}}
			if network == "udp" {
				require.NoError(t, trail.Record(t.Context(), long))
				n, _, err := receiver.ReadFrom(buf)
				require.NoError(t, err)
				last := trail.Status().Last
				all := lines(t, dir)
				requireMessage(t, fmt.Sprintf(`{"omitted":true,"originalSize":%d,"sequence":%d,"hash":"%s"}`, len(all[len(all)-1]), last.Sequence, last.Hash), buf[:n])
			}
		})
	}
}

// readCounted reads a message with its length before it: RFC 6587, section 3.4.1.
func readCounted(t *testing.T, r *bufio.Reader) []byte {
	t.Helper()
	head, err := r.ReadString(' ')
	require.NoError(t, err)
	length, err := strconv.Atoi(strings.TrimSpace(head))
	require.NoError(t, err)
	text := make([]byte, length)
	_, err = io.ReadFull(r, text)
	require.NoError(t, err)
	return text
}

func TestSyslogStreams(t *testing.T) {
	for network, address := range map[string]string{"unix": filepath.Join(t.TempDir(), "log"), "tcp": "127.0.0.1:0"} {
		t.Run(network, func(t *testing.T) {
			listener, err := (&net.ListenConfig{}).Listen(t.Context(), network, address)
			require.NoError(t, err)
			defer func() { _ = listener.Close() }()
			dir := t.TempDir()
			trail := open(t, Config{Dir: dir, Sinks: []Sink{newSyslog(t, network+":"+listener.Addr().String())}})
			record(t, trail, 0, 3)
			conn, err := listener.Accept()
			require.NoError(t, err)
			r := bufio.NewReader(conn)
			all := lines(t, dir)
			for _, want := range all {
				requireMessage(t, want, readCounted(t, r))
			}
			require.NoError(t, conn.Close())
			time.Sleep(50 * time.Millisecond) // what is sent before the sender knows is lost with a stream

			// After the receiver has gone it connects again, and nothing is missing.
			var again net.Conn
			accepted := make(chan struct{})
			go func() {
				defer close(accepted)
				again, err = listener.Accept()
			}()
			for i := 3; ; i++ {
				_ = trail.Record(t.Context(), reEncrypt(i)) // fails until the connection is new
				select {
				case <-accepted:
				case <-time.After(time.Millisecond):
					continue
				}
				break
			}
			require.NoError(t, err)
			require.Eventually(t, func() bool { return trail.Record(t.Context(), reEncrypt(0)) == nil }, 10*time.Second, time.Millisecond)
			r = bufio.NewReader(again)
			all = lines(t, dir)[len(all):]
			for _, want := range all {
				requireMessage(t, want, readCounted(t, r))
			}
			require.NoError(t, again.Close())
		})
	}
}

func TestSyslogThatIsNotThere(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "log")
	_, err := New(t.Context(), Config{Dir: t.TempDir(), Sinks: []Sink{newSyslog(t, "unix:"+socket)}})
	require.ErrorContains(t, err, "connecting to syslog")
	for _, address := range []string{"udp:nowhere", "tcp:", "unix:", "/dev/log", "http://x:1", "udp"} {
		_, err := NewSyslog(SyslogConfig{Address: address})
		require.ErrorContains(t, err, "is not unix:/path", address)
	}
	require.Equal(t, "-", syslogName(" \n"))
	require.Equal(t, "ab", syslogName("a b\x00"))
}
