package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// VerifyOptions say what a trail is held against.
type VerifyOptions struct {
	// PublicKeys are the keys that signed checkpoints, DER SubjectPublicKeyInfo; more than one if the key was replaced.
	// Without any, signatures are not checked, and a trail that was forged from end to end passes.
	PublicKeys [][]byte
	// From is the first record expected, if files before it were archived; 0 means 1.
	From uint64
	// ExpectSequence is a record that the trail must reach; 0 means that its end is taken as it is.
	ExpectSequence uint64
	// Positions are records that are known from elsewhere.
	Positions []Position
}

// Report is what Verify found.
type Report struct {
	// Trail is the id of the trail, a UUID, and empty if the files do not say.
	Trail string `json:"trail"`
	Files int    `json:"files"`
	// Records counts all whole records, Calls those of calls of the API.
	Records uint64 `json:"records"`
	Calls   uint64 `json:"calls"`
	// Starts counts starts of processes, Checkpoints those with a valid signature.
	Starts      uint64 `json:"starts"`
	Checkpoints uint64 `json:"checkpoints"`
	// First and Last are the sequence numbers of the first and the last record.
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	// Signed is, as sequence:hash, the last record that a checkpoint vouches for: what to keep elsewhere.
	Signed string `json:"signed"`
	// Problems are all places where the trail is not as it was written, in order; at most MaxFindings.
	Problems []Finding `json:"problems"`
	// Notes are what is no sign of tampering, but worth knowing; at most MaxFindings.
	Notes []Finding `json:"notes"`
}

// MaxFindings bounds the problems and the notes of a Report. One more says how many there are.
const MaxFindings = 1000

// Finding is something about a place in a trail.
type Finding struct {
	File string `json:"file,omitempty"`
	// Line counts from 1; 0 is a finding about the whole.
	Line int `json:"line,omitempty"`
	// Sequence is the number of the record there; 0 if it has none.
	Sequence uint64 `json:"sequence,omitempty"`
	What     string `json:"what"`
}

func (f Finding) String() string {
	switch {
	case f.Line == 0:
		return f.What
	case f.Sequence == 0:
		return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.What)
	}
	return fmt.Sprintf("%s:%d: record %d: %s", f.File, f.Line, f.Sequence, f.What)
}

// Verify reads the files of a trail, in the order of their names, and reports what is not as it was written. A directory
// stands for the files of a trail in it. err is about files and options that cannot be read, not about what is in them.
// It may be used while the trail is being written.
func Verify(ctx context.Context, paths []string, options VerifyOptions) (*Report, error) {
	v := &verifier{options: options, wanted: map[uint64][]claim{}, report: &Report{Problems: []Finding{}, Notes: []Finding{}}}
	for _, der := range options.PublicKeys {
		key, err := newVerifyKey(der)
		if err != nil {
			return nil, err
		}
		v.keys = append(v.keys, key)
	}
	if v.options.From == 0 {
		v.options.From = 1
	}
	files, err := openTrail(paths)
	if err != nil {
		return nil, err
	}
	for _, p := range options.Positions {
		v.wanted[p.Sequence] = append(v.wanted[p.Sequence], claim{hash: p.Hash, signer: theEnd})
	}
	// Checkpoints speak of records before them, so they are read first.
	lines := newLineReader(nil)
	for _, read := range []func(place, []byte, bool){v.collect, v.check} {
		v.pass()
		for i, file := range files {
			if err := file.each(ctx, i, lines, read); err != nil {
				return nil, fmt.Errorf("reading %s: %w", file.path, err)
			}
		}
	}
	v.pass()
	v.conclude()
	v.report.Files = len(files)
	return v.report, nil
}

// trailFile is a file to be verified, and how much of it.
type trailFile struct {
	path string
	size int64
}

// openTrail finds the files to verify, in order.
func openTrail(paths []string) ([]trailFile, error) {
	var all []string
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			all = append(all, path)
			continue
		}
		within, err := trailFiles(path)
		if err != nil {
			return nil, err
		}
		all = append(all, within...)
	}
	if len(all) == 0 {
		return nil, errors.New("there are no files of a trail")
	}
	slices.SortStableFunc(all, func(a, b string) int { return strings.Compare(filepath.Base(a), filepath.Base(b)) })
	files := make([]trailFile, len(all))
	for i, path := range all {
		size, err := settledSize(path)
		if err != nil {
			return nil, err
		}
		files[i] = trailFile{path, size}
	}
	return files, nil
}

// settledSize gives the size of a file. If it ends within a line, a server may be writing it at this moment: it gets time to
// end it.
func settledSize(path string) (int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = file.Close() }()
	before := int64(-1)
	for {
		info, err := file.Stat()
		if err != nil {
			return 0, err
		}
		size := info.Size()
		last := []byte{'\n'}
		if size > 0 {
			if _, err := file.ReadAt(last, size-1); err != nil {
				return 0, err
			}
		}
		if last[0] == '\n' || size == before {
			return size, nil
		}
		before = size
		time.Sleep(settleTime)
	}
}

const settleTime = 100 * time.Millisecond

// place is where a line is.
type place struct {
	file string
	at   int // index of the file
	line int
}

// each calls fn for the lines of the file, as long as ctx lasts.
func (f trailFile) each(ctx context.Context, at int, lines *lineReader, fn func(p place, text []byte, whole bool)) error {
	file, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	lines.r.Reset(io.LimitReader(file, f.size))
	for p := (place{file: f.path, at: at, line: 1}); ; p.line++ {
		text, _, whole, err := lines.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err := errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		fn(p, text, whole)
	}
}
