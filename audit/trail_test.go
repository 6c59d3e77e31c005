package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTrail(t *testing.T) {
	key, dir := newTestKey(t), filepath.Join(t.TempDir(), "audit")
	trail := open(t, Config{Dir: dir, Signer: key.signer()})
	v := reEncrypt(1)
	v.EventTime = time.Time{}
	require.NoError(t, trail.Record(t.Context(), v))
	require.NotEmpty(t, v.Recipients[0].EventID, "the caller can know the id")
	require.Equal(t, accountA, v.Recipients[0].AccountID)
	require.WithinDuration(t, time.Now(), v.EventTime, time.Minute)
	across := reEncrypt(2)
	across.Recipients = []Recipient{{AccountID: accountA}, {AccountID: accountB, EventID: "made-outside"}}
	require.NoError(t, trail.Record(t.Context(), across))
	closeTrail(t, trail)
	closeTrail(t, trail)
	require.ErrorIs(t, trail.Record(t.Context(), reEncrypt(3)), ErrClosed)

	var kinds []string
	for _, text := range lines(t, dir) {
		var fields struct {
			EventName, EventID, EventVersion, EventTime string
			RecipientAccountID                          string `json:"recipientAccountId"`
		}
		require.NoError(t, json.Unmarshal([]byte(text), &fields))
		require.Equal(t, "1.11", fields.EventVersion)
		kinds = append(kinds, fields.EventName+" "+fields.RecipientAccountID)
		if fields.RecipientAccountID == accountB {
			require.Equal(t, "made-outside", fields.EventID)
		}
	}
	require.Equal(t, "StartAuditTrail ", kinds[0])
	require.Subset(t, kinds, []string{"ReEncrypt " + accountA, "ReEncrypt " + accountB})
	require.Equal(t, []string{"StopAuditTrail ", "SignAuditTrail "}, kinds[len(kinds)-2:])

	report := verify(t, key, dir)
	require.Empty(t, report.Problems)
	require.Empty(t, report.Notes)
	require.Equal(t, uint64(3), report.Calls)
	require.Equal(t, report.Records, report.Last)
	require.Equal(t, uint64(1), report.Starts)
	require.Equal(t, trail.Status().Signed.String(), report.Signed)
	require.Equal(t, report.Last-1, trail.Status().Signed.Sequence, "all but the last checkpoint is signed")

	info, err := os.Stat(filepath.Join(dir, "audit-0000000000000001.jsonl"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	info, err = os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
}

func TestOneProcessWrites(t *testing.T) {
	dir := t.TempDir()
	trail := open(t, Config{Dir: dir})
	_, err := New(t.Context(), Config{Dir: dir})
	require.ErrorIs(t, err, ErrInUse)
	closeTrail(t, trail)
	open(t, Config{Dir: dir})

	_, err = New(t.Context(), Config{})
	require.ErrorContains(t, err, "neither a directory nor a sink")
	for _, cfg := range []Config{{Sync: -2}, {FileSize: -1}, {CheckpointEvery: -1}} {
		cfg.Dir = t.TempDir()
		_, err = New(t.Context(), cfg)
		require.ErrorContains(t, err, "negative")
	}
	_, err = New(t.Context(), Config{Dir: filepath.Join(dir, "none", "below")})
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = New(t.Context(), Config{Dir: t.TempDir(), Signer: Signer{Sign: newTestKey(t).signer().Sign, PublicKey: []byte("x")}})
	require.ErrorContains(t, err, "public key")
}

func TestTheChainGoesOnAfterARestart(t *testing.T) {
	key, dir := newTestKey(t), t.TempDir()
	for i := range 3 {
		trail := open(t, Config{Dir: dir, Signer: key.signer()})
		record(t, trail, 10*i, 10*i+10)
		closeTrail(t, trail)
	}
	require.Len(t, paths(t, dir), 1)
	report := verify(t, key, dir)
	require.Empty(t, report.Problems)
	require.Empty(t, report.Notes)
	require.Equal(t, uint64(30), report.Calls)
	require.Equal(t, uint64(3), report.Starts)
}

func TestFilesBeginBySizeAndByDay(t *testing.T) {
	key, dir, clock := newTestKey(t), t.TempDir(), newTestClock()
	trail := open(t, Config{Dir: dir, Signer: key.signer(), FileSize: 5000, Clock: clock.now})
	record(t, trail, 0, 20)
	bySize := len(paths(t, dir))
	require.GreaterOrEqual(t, bySize, 5)
	for _, path := range paths(t, dir) {
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.LessOrEqual(t, info.Size(), int64(5000))
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		first, err := parseLine([]byte(strings.Split(string(text), "\n")[0]))
		require.NoError(t, err)
		require.Equal(t, fileName(first.Sequence), filepath.Base(path))
	}
	clock.advance(24 * time.Hour)
	record(t, trail, 20, 21)
	record(t, trail, 21, 22)
	require.Len(t, paths(t, dir), bySize+1)
	closeTrail(t, trail)
	clock.advance(24 * time.Hour)
	trail = open(t, Config{Dir: dir, Signer: key.signer(), FileSize: 5000, Clock: clock.now})
	closeTrail(t, trail)
	report := verify(t, key, dir)
	require.Empty(t, report.Problems)
	require.Equal(t, uint64(22), report.Calls)
	require.Greater(t, report.Files, bySize+1)
}

// TestManyAtOnce has many callers at a time, and looks that each call that returned is in the trail once.
func TestManyAtOnce(t *testing.T) {
	for name, sync := range map[string]time.Duration{"1s": time.Second, "always": SyncAlways} {
		t.Run(name, func(t *testing.T) { manyAtOnce(t, sync) })
	}
}

func manyAtOnce(t *testing.T, every time.Duration) {
	const callers, each = 32, 50
	key, dir := newTestKey(t), t.TempDir()
	trail := open(t, Config{Dir: dir, Sync: every, Signer: key.signer(), CheckpointRecords: 100, FileSize: 200_000})
	var group sync.WaitGroup
	for c := range callers {
		group.Go(func() {
			for i := range each {
				if err := trail.Record(t.Context(), reEncrypt(c*each+i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	requireAll(t, dir, callers*each)
	closeTrail(t, trail)
	report := verify(t, key, dir)
	require.Empty(t, report.Problems)
	require.Equal(t, uint64(callers*each), report.Calls)
	require.GreaterOrEqual(t, report.Checkpoints, uint64(2))
}

// requireAll checks that the calls with the numbers below n are in the trail, each once, and no others.
func requireAll(t *testing.T, dir string, n int) {
	t.Helper()
	seen := map[string]int{}
	for _, text := range lines(t, dir) {
		var fields struct{ RequestID string }
		require.NoError(t, json.Unmarshal([]byte(text), &fields))
		if fields.RequestID != "" {
			seen[fields.RequestID]++
		}
	}
	require.Len(t, seen, n)
	for i := range n {
		require.Equal(t, 1, seen[fmt.Sprintf("request-%d", i)], i)
	}
}

func TestRecordsWhileClosing(t *testing.T) {
	key, dir := newTestKey(t), t.TempDir()
	trail := open(t, Config{Dir: dir, Signer: key.signer()})
	var group sync.WaitGroup
	var mu sync.Mutex
	written := 0
	for range 16 {
		group.Go(func() {
			for {
				err := trail.Record(t.Context(), reEncrypt(0))
				if err != nil {
					if !errors.Is(err, ErrClosed) {
						t.Error(err)
					}
					return
				}
				mu.Lock()
				written++
				mu.Unlock()
			}
		})
	}
	time.Sleep(20 * time.Millisecond)
	closeTrail(t, trail)
	group.Wait()
	report := verify(t, key, dir)
	require.Empty(t, report.Problems)
	require.Equal(t, uint64(written), report.Calls)
}

func TestRemovedFileIsNoticed(t *testing.T) {
	key, dir := newTestKey(t), t.TempDir()
	trail := open(t, Config{Dir: dir, Signer: key.signer(), Sync: 10 * time.Millisecond})
	record(t, trail, 0, 3)
	require.NoError(t, os.Rename(paths(t, dir)[0], filepath.Join(dir, "moved")))
	require.Eventually(t, trail.files.gone.Load, 20*time.Second, time.Millisecond)
	record(t, trail, 3, 6)
	closeTrail(t, trail)
	report := verify(t, key, dir)
	require.Contains(t, report.Problems[0].What, " missing")
	require.Equal(t, uint64(3), report.Calls)

	require.NoError(t, os.Rename(filepath.Join(dir, "moved"), filepath.Join(dir, fileName(1))))
	require.Empty(t, verify(t, key, dir).Problems)
}

func TestCheckpointsAreLateWhileTheTokenIsDown(t *testing.T) {
	key, dir := newTestKey(t), t.TempDir()
	down := errors.New("token is down")
	key.fail.Store(&down)
	trail := open(t, Config{Dir: dir, Signer: key.signer(), CheckpointRecords: 1, CheckpointEvery: time.Millisecond})
	record(t, trail, 0, 5)
	require.Zero(t, trail.Status().Signed)
	require.NoError(t, trail.Status().Failure)
	key.fail.Store(nil)
	waitSigned(t, trail, 6)
	record(t, trail, 5, 6)
	waitSigned(t, trail, 8)
	key.fail.Store(&down)
	closeTrail(t, trail)
	report := verify(t, key, dir)
	require.Empty(t, report.Problems)
	require.Contains(t, report.Notes[0].What, "vouched for by no signature yet")
}

func TestIdleTrailsAreSignedOnce(t *testing.T) {
	key := newTestKey(t)
	trail := open(t, Config{Dir: t.TempDir(), Signer: key.signer(), CheckpointEvery: time.Millisecond})
	waitSigned(t, trail, 1)
	signed := key.signed.Load()
	time.Sleep(30 * time.Millisecond)
	require.Equal(t, signed, key.signed.Load())
}

func TestSignaturesOfAnotherKeyAreRefused(t *testing.T) {
	key, other, dir := newTestKey(t), newTestKey(t), t.TempDir()
	trail := open(t, Config{Dir: dir, Signer: Signer{Sign: other.signer().Sign, PublicKey: key.public}})
	require.Eventually(t, func() bool { return other.signed.Load() > 0 }, 20*time.Second, time.Millisecond)
	closeTrail(t, trail)
	require.NotContains(t, strings.Join(lines(t, dir), "\n"), `"checkpoint"`)
}

func TestClosingIsBoundedWhenTheTokenHangs(t *testing.T) {
	key := newTestKey(t)
	hang := make(chan struct{})
	defer close(hang)
	trail := open(t, Config{Dir: t.TempDir(), Signer: Signer{PublicKey: key.public, Sign: func(context.Context, []byte) ([]byte, error) {
		<-hang
		return nil, errors.New("too late")
	}}})
	record(t, trail, 0, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, trail.Close(ctx), context.DeadlineExceeded)
}

// TestCloseWhileCallersWrite has what was acknowledged in the trail, once, and nothing else.
func TestCloseWhileCallersWrite(t *testing.T) {
	for round := range 10 {
		key, dir := newTestKey(t), t.TempDir()
		trail := open(t, Config{Dir: dir, Signer: key.signer(), CheckpointRecords: 10, CheckpointEvery: time.Millisecond, FileSize: 20_000})
		var acknowledged sync.Map
		var callers sync.WaitGroup
		for caller := range 8 {
			callers.Go(func() {
				for i := 0; ; i++ {
					v := reEncrypt(0)
					v.RequestID = fmt.Sprintf("%d-%d-%d", round, caller, i)
					if err := trail.Record(context.Background(), v); err != nil {
						assert.ErrorIs(t, err, ErrClosed)
						return
					}
					acknowledged.Store(v.RequestID, true)
				}
			})
		}
		time.Sleep(5 * time.Millisecond)
		closeTrail(t, trail)
		callers.Wait()
		text := strings.Join(lines(t, dir), "\n")
		count := 0
		for id := range acknowledged.Range {
			count++
			require.Equal(t, 1, strings.Count(text, `"requestID":"`+id.(string)+`"`))
		}
		require.Equal(t, count, strings.Count(text, `"requestID":`), "not acknowledged but written")
		require.Empty(t, verify(t, key, dir).Problems)
	}
}

// TestNothingBehindTheEnd has a caller come when the last record was written.
func TestNothingBehindTheEnd(t *testing.T) {
	trail := open(t, Config{Dir: t.TempDir()})
	closeTrail(t, trail)
	p := trail.marked(&mark{Stop: &stopMark{}})
	require.False(t, trail.writer.tryCommit(p), "it came past the look at closing")
}
