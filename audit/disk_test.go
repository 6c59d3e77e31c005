package audit

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// inChild runs a test in a process of its own, because the limit is one of the process and would hit the testing package
// too. It is true where nothing is left to do.
func inChild(t *testing.T) bool {
	t.Helper()
	const mark = "HSMKMS_AUDIT_CHILD"
	if os.Getenv(mark) != "" {
		return false
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), mark+"=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "--- PASS: "+t.Name())
	return true
}

// limitFiles has all writes of this process fail that go beyond so many bytes of a file, as on a full disk: the system
// writes what fits and lets the rest fail with EFBIG. The function that it gives lifts the limit.
func limitFiles(t *testing.T, size uint64) (lift func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before))
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: size, Max: before.Max}))
	lift = sync.OnceFunc(func() { require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before)) })
	t.Cleanup(lift)
	return lift
}

// TestDiskFull lets writes fail within a line, at its border and before it, has calls refused meanwhile, and looks that
// the trail goes on without a gap when there is room again, or after the process was killed in that state.
func TestDiskFull(t *testing.T) {
	if inChild(t) {
		return
	}
	for name, room := range map[string]int64{"at once": 0, "after a byte": 1, "within a line": 500, "after some lines": 4000} {
		for _, killed := range []bool{false, true} {
			t.Run(name, func(t *testing.T) { fillDisk(t, room, killed) })
		}
	}
}

func fillDisk(t *testing.T, room int64, killed bool) {
	key, dir := newTestKey(t), t.TempDir()
	trail := open(t, Config{Dir: dir})
	record(t, trail, 0, 3)
	lift := limitFiles(t, uint64(fileSize(t, dir)+room))
	n := 3
	for trail.Record(t.Context(), reEncrypt(n)) == nil {
		n++
	}
	size := fileSize(t, dir)
	for range 10 {
		require.ErrorIs(t, trail.Record(t.Context(), reEncrypt(n)), syscall.EFBIG)
	}
	require.ErrorIs(t, trail.Status().Failure, syscall.EFBIG)
	require.Equal(t, size, fileSize(t, dir), "what was partly written is taken back")
	requireAll(t, dir, n)
	if killed {
		require.NoError(t, trail.files.lock.Close())
		trail.files.lock = nil
	}
	lift()
	if killed {
		trail = open(t, Config{Dir: dir, Signer: key.signer()})
	}
	record(t, trail, n, n+3)
	require.NoError(t, trail.Status().Failure)
	closeTrail(t, trail)
	requireAll(t, dir, n+3)
	report := verifyWith(t, VerifyOptions{}, dir)
	require.Empty(t, report.Problems)
	require.Equal(t, report.Last, report.Records)
}

func fileSize(t *testing.T, dir string) int64 {
	t.Helper()
	all := paths(t, dir)
	info, err := os.Stat(all[len(all)-1])
	require.NoError(t, err)
	return info.Size()
}

// TestShortRecordsAreNoSign has room for short records and not for a long one: a short one does not show that records can be written
// again, or whoever chooses the length of a call would choose not to be recorded.
func TestShortRecordsAreNoSign(t *testing.T) {
	if inChild(t) {
		return
	}
	dir := t.TempDir()
	trail := open(t, Config{Dir: dir})
	record(t, trail, 0, 3)
	long := reEncrypt(3)
	long.RequestParameters = Parameters{{"description", Text(strings.Repeat("x", 8000))}}
	lift := limitFiles(t, uint64(fileSize(t, dir)+6000))
	for range 3 {
		require.ErrorIs(t, trail.Record(t.Context(), long), syscall.EFBIG)
		require.ErrorIs(t, trail.Record(t.Context(), reEncrypt(3)), syscall.EFBIG)
		require.ErrorIs(t, trail.Refuses(), syscall.EFBIG)
	}
	requireAll(t, dir, 3)
	lift()
	record(t, trail, 3, 4)
	require.NoError(t, trail.Refuses())
	require.NoError(t, trail.Record(t.Context(), long))
	closeTrail(t, trail)
	require.Empty(t, verifyWith(t, VerifyOptions{}, dir).Problems)
}

// TestContinueLosesNoMoreThanItMust has room for short records and not for a long one, which alone is lost.
func TestContinueLosesNoMoreThanItMust(t *testing.T) {
	if inChild(t) {
		return
	}
	dir := t.TempDir()
	trail := open(t, Config{Dir: dir, OnFailure: Continue})
	record(t, trail, 0, 3)
	long := reEncrypt(3)
	long.RequestParameters = Parameters{{"description", Text(strings.Repeat("x", 8000))}}
	limitFiles(t, uint64(fileSize(t, dir)+6000))
	require.NoError(t, trail.Record(t.Context(), long))
	record(t, trail, 3, 5)
	require.Equal(t, uint64(1), trail.Status().Lost)
	require.NoError(t, trail.Status().Failure)
	requireAll(t, dir, 5)
}

func TestDiskFullWithContinue(t *testing.T) {
	if inChild(t) {
		return
	}
	var log strings.Builder
	clock, dir := newTestClock(), t.TempDir()
	trail := open(t, Config{Dir: dir, OnFailure: Continue, Clock: clock.now, Log: slog.New(slog.NewTextHandler(&log, nil))})
	record(t, trail, 0, 1)
	lift := limitFiles(t, uint64(fileSize(t, dir)))
	record(t, trail, 1, 6)
	require.Equal(t, uint64(5), trail.Status().Lost)
	require.ErrorIs(t, trail.Status().Failure, syscall.EFBIG)
	lift()
	record(t, trail, 6, 7)
	closeTrail(t, trail)
	report := verifyWith(t, VerifyOptions{}, dir)
	require.Empty(t, report.Problems)
	require.Equal(t, uint64(2), report.Calls)
	require.Equal(t, "5 records of calls could not be written from 2026-11-25T12:00:00Z to 2026-11-25T12:00:00Z, and on_failure is continue", report.Notes[0].What)
	require.Equal(t, 1, strings.Count(log.String(), "records cannot be written and are lost"), "it is logged once")
	require.Equal(t, 1, strings.Count(log.String(), "records are written again"))
}

// TestNoNewFile has the directory disappear when a new file is due.
func TestNoNewFile(t *testing.T) {
	dir := t.TempDir() + "/audit"
	trail := open(t, Config{Dir: dir, FileSize: 2500})
	record(t, trail, 0, 1)
	require.NoError(t, os.Rename(dir, dir+".away"))
	n := 1
	for trail.Record(t.Context(), reEncrypt(n)) == nil {
		n++
	}
	require.ErrorIs(t, trail.Record(t.Context(), reEncrypt(n)), os.ErrNotExist)
	require.NoError(t, os.Rename(dir+".away", dir))
	record(t, trail, n, n+5)
	closeTrail(t, trail)
	requireAll(t, dir, n+5)
	require.Empty(t, verifyWith(t, VerifyOptions{}, dir).Problems)
}

// TestFailedFlush closes the file under the trail, so that every flush fails.
func TestFailedFlush(t *testing.T) {
	dir := t.TempDir()
	trail := open(t, Config{Dir: dir, Sync: SyncAlways})
	record(t, trail, 0, 1)
	sound := trail.files.current.Load()
	broken, err := os.Open(sound.Name()) // cannot be written to
	require.NoError(t, err)
	trail.files.current.Store(broken)
	require.ErrorIs(t, trail.Record(t.Context(), reEncrypt(1)), syscall.EBADF)
	require.ErrorIs(t, trail.Record(t.Context(), reEncrypt(1)), syscall.EINVAL, "nor can it be cut")
	trail.files.current.Store(sound)
	require.NoError(t, broken.Close())
	record(t, trail, 1, 3)
	trail.files.failed.Store(true) // as flush does
	record(t, trail, 3, 4)
	require.False(t, trail.files.failed.Load())
	require.NoError(t, trail.Close(context.Background()))
	requireAll(t, dir, 4)
	require.Empty(t, verifyWith(t, VerifyOptions{}, dir).Problems)
}
