package audit

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// evidence is a trail of several files, with checkpoints in the middle and at the end, that tests tamper with.
type evidence struct {
	key   *testKey
	files [][]string // lines without newlines
	names []string
}

func newEvidence(t *testing.T, key *testKey) *evidence {
	t.Helper()
	dir, clock := t.TempDir(), newTestClock()
	e := &evidence{key: key}
	for i := range 3 {
		trail := open(t, Config{Dir: dir, Signer: key.signer(), FileSize: 6000, Clock: clock.now, CheckpointRecords: 3, CheckpointEvery: time.Hour})
		waitSigned(t, trail, 1)
		for j := range 6 {
			before := trail.Status().Last.Sequence
			record(t, trail, 10*i+j, 10*i+j+1)
			if j == 2 { // the third call, for which a checkpoint is due
				waitSigned(t, trail, before+1)
			}
		}
		closeTrail(t, trail)
	}
	for _, path := range paths(t, dir) {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		e.files = append(e.files, strings.Split(strings.TrimSuffix(string(text), "\n"), "\n"))
		e.names = append(e.names, filepath.Base(path))
	}
	require.Greater(t, len(e.files), 3)
	require.Empty(t, verify(t, key, dir).Problems)
	require.Empty(t, verify(t, key, dir).Notes)
	return e
}

func (e *evidence) clone() *evidence {
	c := &evidence{key: e.key, names: slices.Clone(e.names)}
	for _, file := range e.files {
		c.files = append(c.files, slices.Clone(file))
	}
	return c
}

// write puts the trail into a directory.
func (e *evidence) write(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for i, file := range e.files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, e.names[i]), []byte(strings.Join(file, "\n")+"\n"), 0o600))
	}
	return dir
}

// all gives pointers to all lines.
func (e *evidence) all() (all []*string) {
	for i := range e.files {
		for j := range e.files[i] {
			all = append(all, &e.files[i][j])
		}
	}
	return all
}

// whats are the texts of problems.
func whats(findings []Finding) string {
	var texts []string
	for _, f := range findings {
		texts = append(texts, f.String())
	}
	return strings.Join(texts, "\n")
}

// TestAnyByte alters each byte of a trail in turn, in all lines, newlines included.
func TestAnyByte(t *testing.T) {
	key, dir := newTestKey(t), t.TempDir()
	trail := open(t, Config{Dir: dir, Signer: key.signer(), CheckpointEvery: time.Hour})
	waitSigned(t, trail, 1)
	for range 2 {
		require.NoError(t, trail.Record(t.Context(), &Event{EventName: "Encrypt"}))
	}
	closeTrail(t, trail)
	path := paths(t, dir)[0]
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, 2, bytes.Count(text, []byte(`"checkpoint"`)))
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	put := func(at int, b byte) {
		_, err := file.WriteAt([]byte{b}, int64(at))
		require.NoError(t, err)
	}
	for at, b := range text {
		put(at, b^1<<(at%8))
		require.NotEmpty(t, verify(t, key, path).Problems, "byte %d of %q", at, text[max(0, at-20):min(len(text), at+20)])
		put(at, b)
	}
	require.Empty(t, verify(t, key, path).Problems)
}

// TestAlteredRecordIsNamed looks at what is said of one altered byte.
func TestAlteredRecordIsNamed(t *testing.T) {
	e := newEvidence(t, newTestKey(t))
	e.files[1][1] = strings.Replace(e.files[1][1], "1.11", "1.12", 1)
	dir := e.write(t)
	problems := verify(t, e.key, dir).Problems
	require.Len(t, problems, 1)
	require.Equal(t, filepath.Join(dir, e.names[1]), problems[0].File)
	require.Equal(t, 2, problems[0].Line)
	l, err := parseLine([]byte(e.files[1][1]))
	require.NoError(t, err)
	require.Equal(t, l.Sequence, problems[0].Sequence)
	require.Equal(t, "it was altered: its contents do not have the hash that it carries", problems[0].What)
}

// TestEveryLine deletes, repeats and swaps each line in turn, and cuts the trail before and behind it.
func TestEveryLine(t *testing.T) {
	e := newEvidence(t, newTestKey(t))
	count := len(e.all())
	last, err := parseLine([]byte(*e.all()[count-1]))
	require.NoError(t, err)
	at := func(c *evidence, n int) (file, line int) {
		for n >= len(c.files[file]) {
			n -= len(c.files[file])
			file++
		}
		return file, n
	}
	kept := VerifyOptions{PublicKeys: [][]byte{e.key.public}, ExpectSequence: last.Sequence, Positions: []Position{last.Position}}
	for n := range count {
		deleted := e.clone()
		i, j := at(deleted, n)
		deleted.files[i] = slices.Delete(deleted.files[i], j, j+1)
		report := verifyWith(t, kept, deleted.write(t))
		require.Contains(t, whats(report.Problems), "missing", "deleted %d", n)
		if n < count-1 {
			require.NotEmpty(t, verify(t, e.key, deleted.write(t)).Problems, "deleted %d", n)
		}

		repeated := e.clone()
		repeated.files[i] = slices.Insert(repeated.files[i], j, repeated.files[i][j])
		require.Contains(t, whats(verify(t, e.key, repeated.write(t)).Problems), "reordered or repeated", "repeated %d", n)

		if n > 0 {
			swapped := e.clone()
			all := swapped.all()
			*all[n-1], *all[n] = *all[n], *all[n-1]
			require.Contains(t, whats(verify(t, e.key, swapped.write(t)).Problems), "reordered or repeated", "swapped %d", n)

			headless := e.clone()
			i, j := at(headless, n)
			headless.files, headless.names = headless.files[i:], headless.names[i:]
			headless.files[0] = headless.files[0][j:]
			require.Contains(t, whats(verify(t, e.key, headless.write(t)).Problems), " missing", "cut before %d", n)

			cutOff := e.clone()
			i, j = at(cutOff, n)
			cutOff.files, cutOff.names = cutOff.files[:i+1], cutOff.names[:i+1]
			cutOff.files[i] = cutOff.files[i][:j]
			report := verifyWith(t, kept, cutOff.write(t))
			require.Contains(t, whats(report.Problems), "was expected to reach", "cut from %d on", n)
			require.Contains(t, whats(report.Problems), "which is known by its hash, is missing", "cut from %d on", n)
		}
	}
	require.Empty(t, verifyWith(t, kept, e.write(t)).Problems)
}

func TestAFileIsMissing(t *testing.T) {
	e := newEvidence(t, newTestKey(t))
	for i := range e.files {
		c := e.clone()
		c.files, c.names = slices.Delete(c.files, i, i+1), slices.Delete(c.names, i, i+1)
		dir := c.write(t)
		report := verify(t, e.key, dir)
		if i < len(e.files)-1 {
			require.Contains(t, whats(report.Problems), " missing", e.names[i])
		}
		if i == 0 {
			first, err := parseLine([]byte(c.files[0][0]))
			require.NoError(t, err)
			options := VerifyOptions{PublicKeys: [][]byte{e.key.public}, From: first.Sequence}
			require.Empty(t, verifyWith(t, options, dir).Problems, "it was archived")
			options.From--
			require.NotEmpty(t, verifyWith(t, options, dir).Problems)
			options.From += 2
			require.Contains(t, whats(verifyWith(t, options, dir).Problems), "was expected to begin with")
		}
	}
}

// TestWhatOnlyAnOperatorCanKnow cuts a trail behind a checkpoint, which leaves a trail as it once was: it is found with
// what was kept elsewhere, and only with that.
func TestWhatOnlyAnOperatorCanKnow(t *testing.T) {
	e := newEvidence(t, newTestKey(t))
	c := e.clone()
	c.files, c.names = c.files[:2], c.names[:2]
	dir := c.write(t)
	report := verify(t, e.key, dir)
	require.Empty(t, report.Problems)

	whole := verify(t, e.key, e.write(t))
	known, err := ParsePosition(whole.Signed)
	require.NoError(t, err)
	for _, options := range []VerifyOptions{{ExpectSequence: whole.Last}, {ExpectSequence: report.Last + 1}, {Positions: []Position{known}}} {
		options.PublicKeys = [][]byte{e.key.public}
		problems := verifyWith(t, options, dir).Problems
		require.Len(t, problems, 1)
		require.Empty(t, verifyWith(t, options, e.write(t)).Problems)
	}
}

func TestRecordsOfAnotherTrail(t *testing.T) {
	key := newTestKey(t)
	e, other := newEvidence(t, key), newEvidence(t, key)
	for _, n := range []int{1, 5} {
		c := e.clone()
		*c.all()[n] = *other.all()[n]
		require.Contains(t, whats(verify(t, key, c.write(t)).Problems), "does not carry the hash of the record before", "one line")
	}
	c := e.clone()
	for n := len(c.files[0]); n < len(c.files[0])+len(c.files[1]); n++ {
		*c.all()[n] = *other.all()[n]
	}
	require.Contains(t, whats(verify(t, key, c.write(t)).Problems), "does not carry the hash of the record before", "a file")

	// The other trail from a point on, chained to this one by new hashes: its checkpoints say which trail they are of, and, as
	// the files of the two need not be equally long, vouch for another record or for one that is not before them.
	tail := e.clone()
	tail.files = append(tail.files[:2], other.files[2:]...)
	rechain(t, tail)
	problems := whats(verify(t, key, tail.write(t)).Problems)
	require.Contains(t, problems, "from another trail")
	require.Regexp(t, "that the checkpoint in record|the checkpoint was moved", problems)
	require.NotContains(t, problems, "signature is not valid", "it is, and not by a forger")
}

// rechain gives all lines new hashes, as somebody without the key can.
func rechain(t *testing.T, e *evidence) {
	t.Helper()
	last := Position{}
	for _, text := range e.all() {
		l, err := parseLine([]byte(*text))
		require.NoError(t, err)
		body := (*text)[:strings.LastIndex(*text, placeOpen)]
		var again []byte
		again, last = appendLine(nil, []byte(body), bytes.Clone(l.mark), last)
		*text = string(again[:len(again)-1])
	}
}

// TestForgedWithNewHashes alters, inserts or removes a record and makes all hashes anew. Only the signatures tell.
func TestForgedWithNewHashes(t *testing.T) {
	e := newEvidence(t, newTestKey(t))
	calls := 0
	for n, text := range e.all() {
		if !strings.Contains(*text, "192.0.2.17") {
			continue
		}
		calls++
		altered := e.clone()
		line := altered.all()[n]
		*line = strings.Replace(*line, "192.0.2.17", "192.0.2.66", 1)
		rechain(t, altered)
		dir := altered.write(t)
		require.Contains(t, whats(verify(t, e.key, dir).Problems), "that the checkpoint in record", "altered %d", n)
		require.Empty(t, verifyWith(t, VerifyOptions{}, dir).Problems, "the hashes alone are right")

		*line = *e.all()[n]
		rechain(t, altered)
		require.Empty(t, verify(t, e.key, altered.write(t)).Problems, "the test makes hashes as the trail does")

		removed := e.clone()
		for i := range removed.files {
			removed.files[i] = slices.DeleteFunc(removed.files[i], func(s string) bool { return s == *text })
		}
		rechain(t, removed)
		require.NotEmpty(t, verify(t, e.key, removed.write(t)).Problems, "removed %d", n)
	}
	require.Equal(t, 18, calls)
}

// TestAnotherKey signs a forged trail anew with another key.
func TestAnotherKey(t *testing.T) {
	forger := newTestKey(t)
	forged := newEvidence(t, forger).write(t)
	key := newTestKey(t)
	report := verify(t, key, forged)
	require.Contains(t, whats(report.Problems), "signed by another key")
	require.Contains(t, whats(report.Problems), "no checkpoint vouches for any record")
	require.Empty(t, verifyWith(t, VerifyOptions{PublicKeys: [][]byte{key.public, forger.public}}, forged).Problems, "the key was replaced")

	// The forger says that it was the right key.
	e := newEvidence(t, forger)
	theirs, err := newVerifyKey(forger.public)
	require.NoError(t, err)
	ours, err := newVerifyKey(key.public)
	require.NoError(t, err)
	for _, text := range e.all() {
		*text = strings.ReplaceAll(*text, theirs.id, ours.id)
	}
	rechain(t, e)
	require.Contains(t, whats(verify(t, key, e.write(t)).Problems), "signature is not valid")
}

// TestCheckpointsMoved puts checkpoints where they were not made.
func TestCheckpointsMoved(t *testing.T) {
	key := newTestKey(t)
	e := newEvidence(t, key)
	var checkpoints []int
	for n, text := range e.all() {
		if strings.Contains(*text, `"checkpoint"`) {
			checkpoints = append(checkpoints, n)
		}
	}
	require.Greater(t, len(checkpoints), 4)

	early := e.clone() // before the record that it vouches for
	all := early.all()
	moved := *all[checkpoints[3]]
	for n := checkpoints[3]; n > 1; n-- {
		*all[n] = *all[n-1]
	}
	*all[1] = moved
	rechain(t, early)
	require.Contains(t, whats(verify(t, key, early.write(t)).Problems), "the checkpoint was moved")

	none := e.clone()
	for i := range none.files {
		none.files[i] = slices.DeleteFunc(none.files[i], func(s string) bool { return strings.Contains(s, `"checkpoint"`) })
	}
	rechain(t, none)
	require.Contains(t, whats(verify(t, key, none.write(t)).Problems), "no checkpoint vouches for any record")
}

// TestOtherFormOfASignature replaces a signature by the second one that is valid for the same message.
func TestOtherFormOfASignature(t *testing.T) {
	key := newTestKey(t)
	e := newEvidence(t, key)
	for _, text := range e.all() {
		l, err := parseLine([]byte(*text))
		require.NoError(t, err)
		m, err := parseMark(l.mark)
		require.NoError(t, err)
		if m == nil || m.Checkpoint == nil {
			continue
		}
		m.Signature = highS(t, m.Signature)
		again, _ := appendLine(nil, []byte((*text)[:strings.LastIndex(*text, placeOpen)]), m.members(), Position{Sequence: l.Sequence - 1, Hash: l.previous})
		*text = string(again[:len(again)-1])
	}
	rechain(t, e)
	report := verify(t, key, e.write(t))
	require.Contains(t, whats(report.Problems), "signature is not valid")
	require.Zero(t, report.Checkpoints)
}

func TestGarbage(t *testing.T) {
	key, dir := newTestKey(t), t.TempDir()
	path := filepath.Join(dir, "audit-0000000000000001.jsonl")
	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("\n", 3*MaxFindings)+strings.Repeat("x", 3*MaxLine)), 0o600))
	report := verify(t, key, path)
	require.Len(t, report.Problems, MaxFindings+1)
	require.Contains(t, report.Problems[MaxFindings].What, "more")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.Contains(t, whats(verify(t, key, path).Problems), "there is no record")

	_, err := Verify(t.Context(), []string{t.TempDir()}, VerifyOptions{})
	require.ErrorContains(t, err, "no files")
	_, err = Verify(t.Context(), []string{filepath.Join(dir, "none")}, VerifyOptions{})
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = Verify(t.Context(), []string{dir}, VerifyOptions{PublicKeys: [][]byte{{1}}})
	require.Error(t, err)
}

// TestLongLines reads lines around the size of the buffer and around MaxLine.
func TestLongLines(t *testing.T) {
	var text strings.Builder
	lengths := []int{0, 1, 32<<10 - 2, 32<<10 - 1, 32 << 10, 64 << 10, MaxLine - 1, MaxLine, MaxLine + 1, 3}
	for _, length := range lengths {
		text.WriteString(strings.Repeat("x", length) + "\n")
	}
	text.WriteString("end")
	lines := newLineReader(strings.NewReader(text.String()))
	for _, want := range lengths {
		got, length, whole, err := lines.next()
		require.NoError(t, err)
		require.True(t, whole)
		require.Equal(t, int64(want+1), length)
		if want >= MaxLine {
			require.Nil(t, got)
		} else {
			require.Len(t, got, want)
		}
	}
	got, _, whole, err := lines.next()
	require.NoError(t, err)
	require.False(t, whole)
	require.Equal(t, "end", string(got))
	_, _, _, err = lines.next()
	require.ErrorIs(t, err, io.EOF)
}

// FuzzVerify has Verify read anything.
func FuzzVerify(f *testing.F) {
	text, last := appendLine(nil, []byte(`{"a":1`), []byte(`,"start":{"trail":"t"}`), Position{})
	text, _ = appendLine(text, []byte(`{"a":1`), nil, last)
	f.Add(text, text)
	f.Add(text[:9], []byte{})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, fileName(1)), a, 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(dir, fileName(2)), b, 0o600))
		report := verifyWith(t, VerifyOptions{}, dir)
		require.NotNil(t, report.Problems)
	})
}
