package audit

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// written makes a trail in two files and gives its directory.
func written(t *testing.T, key *testKey) string {
	t.Helper()
	dir := t.TempDir()
	trail := open(t, Config{Dir: dir, Signer: key.signer(), FileSize: 12_000})
	record(t, trail, 0, 12)
	closeTrail(t, trail)
	require.Len(t, paths(t, dir), 2)
	return dir
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	_, err = file.WriteString(text)
	require.NoError(t, err)
	require.NoError(t, file.Close())
}

// TestTornLines leaves at the end of a trail what a process that was killed, or a power loss, may leave.
func TestTornLines(t *testing.T) {
	key := newTestKey(t)
	for name, torn := range map[string]string{
		"a brace": "{", "half a line": `{"eventVersion":"1.11","userIdent`, "zeros": strings.Repeat("\x00", 5000), "lines": "{}\nx\n{",
		"a line too long": strings.Repeat("x", MaxLine+5) + "\n" + strings.Repeat("y", 2*MaxLine),
	} {
		t.Run(name, func(t *testing.T) {
			dir := written(t, key)
			last := paths(t, dir)[1]
			appendTo(t, last, torn)
			require.NotEmpty(t, verify(t, key, dir).Problems, "nobody has recovered it yet")

			trail := open(t, Config{Dir: dir, Signer: key.signer()})
			record(t, trail, 12, 14)
			closeTrail(t, trail)
			report := verify(t, key, dir)
			require.Empty(t, report.Problems)
			require.Len(t, report.Notes, 1)
			require.Contains(t, report.Notes[0].What, fmt.Sprintf("%d bytes of a torn line", len(torn)))
			require.Equal(t, uint64(14), report.Calls)
			require.Equal(t, report.Last, report.Records, "without a gap")

			set := filepath.Join(dir, fmt.Sprintf("audit-%016d-1.torn", report.Notes[0].Sequence))
			kept, err := os.ReadFile(set)
			require.NoError(t, err)
			require.Equal(t, torn, string(kept))
			require.NoError(t, os.WriteFile(set, []byte("something else"), 0o600))
			require.Contains(t, verify(t, key, dir).Problems[0].What, "torn was altered")
			require.NoError(t, os.Remove(set))
			report = verify(t, key, dir)
			require.Empty(t, report.Problems)
			require.Contains(t, report.Notes[1].What, "not beside the trail")
		})
	}
}

// TestEveryPlaceToBeTorn cuts the file off all over its last two lines, as a process that is killed does.
func TestEveryPlaceToBeTorn(t *testing.T) {
	key, dir := newTestKey(t), t.TempDir()
	trail := open(t, Config{Dir: dir, Signer: key.signer()})
	record(t, trail, 0, 2)
	text, err := os.ReadFile(paths(t, dir)[0])
	require.NoError(t, err)
	all := strings.SplitAfter(string(text), "\n")
	for size := len(text) - len(all[len(all)-2]) - len(all[len(all)-3]); size < len(text); size += 61 {
		dir := t.TempDir()
		path := filepath.Join(dir, fileName(1))
		require.NoError(t, os.WriteFile(path, text[:size], 0o600))
		trail := open(t, Config{Dir: dir, Signer: key.signer()})
		record(t, trail, 2, 3)
		closeTrail(t, trail)
		report := verify(t, key, dir)
		require.Empty(t, report.Problems, size)
		require.Equal(t, report.Last, report.Records)
	}
}

// TestCrashesWhileRecovering runs the steps of setting aside up to each point, and then the whole again.
func TestCrashesWhileRecovering(t *testing.T) {
	key := newTestKey(t)
	const torn = `{"half`
	next := uint64(0)
	prepare := func(t *testing.T) (dir, last string) {
		dir = written(t, key)
		last = paths(t, dir)[1]
		next = verify(t, key, dir).Last + 1
		appendTo(t, last, torn)
		return dir, last
	}
	for name, crash := range map[string]func(t *testing.T, dir, last string){
		"copying": func(t *testing.T, dir, _ string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("audit-%016d-1.torn.new", next)), []byte(torn[:2]), 0o600))
		},
		"copied": func(t *testing.T, dir, _ string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("audit-%016d-1.torn", next)), []byte(torn), 0o600))
		},
		"cut": func(t *testing.T, dir, _ string) {
			_, err := recoverDir(dir)
			require.NoError(t, err)
		},
		"writing the first record": func(t *testing.T, dir, last string) {
			_, err := recoverDir(dir)
			require.NoError(t, err)
			appendTo(t, last, `{"eventVersion":"1.11","eventTime"`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, last := prepare(t)
			crash(t, dir, last)
			trail := open(t, Config{Dir: dir, Signer: key.signer()})
			closeTrail(t, trail)
			report := verify(t, key, dir)
			require.Empty(t, report.Problems)
			require.NotEmpty(t, report.Notes)
			kept, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("audit-%016d-1.torn", next)))
			require.NoError(t, err)
			require.Equal(t, torn, string(kept), "what was torn first is kept and recorded")
			require.Equal(t, next, report.Notes[0].Sequence)
		})
	}
}

func TestFilesWithoutRecords(t *testing.T) {
	key := newTestKey(t)
	for name, text := range map[string]string{"empty": "", "torn": "{"} {
		t.Run(name, func(t *testing.T) {
			dir := written(t, key)
			next := verify(t, key, dir).Last + 1
			require.NoError(t, os.WriteFile(filepath.Join(dir, fileName(next)), []byte(text), 0o600))
			trail := open(t, Config{Dir: dir, Signer: key.signer()})
			record(t, trail, 12, 14)
			closeTrail(t, trail)
			report := verify(t, key, dir)
			require.Empty(t, report.Problems)
			require.Equal(t, uint64(14), report.Calls)
			require.Equal(t, 2, report.Files)
		})
		t.Run(name+" alone", func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, fileName(1)), []byte(text), 0o600))
			trail := open(t, Config{Dir: dir, Signer: key.signer()})
			record(t, trail, 0, 1)
			closeTrail(t, trail)
			require.Empty(t, verify(t, key, dir).Problems)
		})
	}
}

// TestDamageIsSetAsideAndReported alters a record in the middle of the last file: the server starts, nothing is thrown
// away, and Verify never calls it good.
func TestDamageIsSetAsideAndReported(t *testing.T) {
	key, dir := newTestKey(t), t.TempDir()
	trail := open(t, Config{Dir: dir, Signer: key.signer()})
	record(t, trail, 0, 10)
	closeTrail(t, trail)
	all := lines(t, dir)
	broken := append([]string(nil), all...)
	broken[5] = strings.Replace(broken[5], "192.0.2.17", "192.0.2.18", 1)
	require.NotEqual(t, all, broken)
	require.NoError(t, os.WriteFile(paths(t, dir)[0], []byte(strings.Join(broken, "\n")+"\n"), 0o600))

	trail = open(t, Config{Dir: dir, Signer: key.signer()})
	record(t, trail, 10, 11)
	closeTrail(t, trail)
	require.Equal(t, all[:5], lines(t, dir)[:5])
	kept, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("audit-%016d-1.torn", 6)))
	require.NoError(t, err)
	require.Equal(t, strings.Join(broken[5:], "\n")+"\n", string(kept))
	report := verify(t, key, dir)
	require.Len(t, report.Problems, 1)
	require.Contains(t, report.Problems[0].What, fmt.Sprintf("%d whole records before it were set aside", len(all)-6))
	require.Equal(t, uint64(6), report.Problems[0].Sequence)
}

func TestTheTrailIsFoundInOlderFiles(t *testing.T) {
	dir, clock := t.TempDir(), newTestClock()
	trail := open(t, Config{Dir: dir, FileSize: 3000, Clock: clock.now}) // without checkpoints
	id := trail.id
	record(t, trail, 0, 20)
	require.NoError(t, trail.files.lock.Close()) // as if the process were killed
	again := open(t, Config{Dir: dir, FileSize: 3000, Clock: clock.now})
	require.Equal(t, id, again.id)
	closeTrail(t, again)
	for _, path := range paths(t, dir)[:3] {
		require.NoError(t, os.Remove(path))
	}
	last := paths(t, dir)
	text, err := os.ReadFile(last[0])
	require.NoError(t, err)
	other := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(other, filepath.Base(last[0])), text, 0o600))
	_, err = New(t.Context(), Config{Dir: other})
	require.ErrorContains(t, err, "says which trail this is")
}

func TestKilledProcessesAreNoted(t *testing.T) {
	key, dir := newTestKey(t), t.TempDir()
	trail := open(t, Config{Dir: dir, Signer: key.signer(), CheckpointEvery: time.Hour})
	waitSigned(t, trail, 1)
	record(t, trail, 0, 5)
	require.NoError(t, trail.files.lock.Close())
	trail.files.lock = nil
	again := open(t, Config{Dir: dir, Signer: key.signer()})
	closeTrail(t, again)
	report := verify(t, key, dir)
	require.Empty(t, report.Problems)
	require.Contains(t, report.Notes[0].What, "was killed; its records after 1, the last that it signed")
}
