package audit

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"path/filepath"
	"slices"
)

// verifier goes through a trail twice: collect reads the checkpoints, check everything.
type verifier struct {
	options VerifyOptions
	keys    []*verifyKey
	report  *Report

	found           []found
	problems, notes tally

	// wanted are the hashes that records are known to have, by sequence.
	wanted map[uint64][]claim

	// last is the record before, and begun tells that there was one. unreadable counts the lines since that were none.
	last       line
	begun      bool
	unreadable uint64
	// signedSoFar is the last record covered by the checkpoints before the current line, stopped that the last mark was a stop.
	signedSoFar uint64
	stopped     bool
	unmarked    uint64 // the last record that is no checkpoint
	signed      Position
}

// theEnd is the place of findings about the whole.
var theEnd = place{at: math.MaxInt}

// claim is that a record has a hash.
type claim struct {
	hash   Hash
	signer place  // of the checkpoint
	by     uint64 // sequence of the checkpoint; 0 if the claim was given to Verify
	seen   bool
}

// found is a Finding with what it is sorted by.
type found struct {
	Finding
	at      place
	problem bool
}

// tally counts findings of one kind.
type tally struct {
	total uint64
	// kept are those in the list from the pass under way. The first of each pass are enough to name the first of all.
	kept int
}

func (v *verifier) find(problem bool, p place, sequence uint64, format string, args ...any) {
	t := &v.notes
	if problem {
		t = &v.problems
	}
	t.total++
	if t.kept++; t.kept <= MaxFindings {
		f := Finding{File: p.file, Line: p.line, Sequence: sequence, What: fmt.Sprintf(format, args...)}
		v.found = append(v.found, found{Finding: f, at: p, problem: problem})
	}
}

// pass begins a pass over the files.
func (v *verifier) pass() { v.problems.kept, v.notes.kept = 0, 0 }

func (v *verifier) problem(p place, sequence uint64, format string, args ...any) {
	v.find(true, p, sequence, format, args...)
}

func (v *verifier) note(p place, sequence uint64, format string, args ...any) {
	v.find(false, p, sequence, format, args...)
}

// collect checks the signatures of checkpoints and enters what they vouch for.
func (v *verifier) collect(p place, text []byte, _ bool) {
	if len(v.keys) == 0 || !bytes.Contains(text, []byte(`,"checkpoint":{`)) {
		return
	}
	l, err := parseLine(text)
	if err != nil {
		return // check tells about it
	}
	m, err := parseMark(l.mark)
	if err != nil || m == nil || m.Checkpoint == nil {
		return // check tells about it
	}
	i := slices.IndexFunc(v.keys, func(k *verifyKey) bool { return k.id == m.Checkpoint.KeyID })
	if i < 0 {
		v.problem(p, l.Sequence, "the checkpoint is signed by another key, %s", m.Checkpoint.KeyID)
		return
	}
	position, err := m.Checkpoint.position()
	switch {
	case err != nil || !v.keys[i].verifies(m):
		v.problem(p, l.Sequence, "the checkpoint's signature is not valid")
		return
	case position.Sequence >= l.Sequence:
		v.problem(p, l.Sequence, "the checkpoint was moved: it vouches for record %d, which is not before it", position.Sequence)
		return
	}
	v.report.Checkpoints++
	c := claim{hash: position.Hash, signer: p, by: l.Sequence}
	v.wanted[position.Sequence] = append(v.wanted[position.Sequence], c)
}

// check looks at a line and at the joint between it and the line before.
func (v *verifier) check(p place, text []byte, whole bool) {
	l, err := parseLine(text)
	if !whole {
		v.problem(p, 0, "the line has no end: its writer was killed and has not been started since, or somebody cut it")
		v.unreadable++
		return
	}
	if err != nil {
		v.problem(p, 0, "the line is not a record: it was altered or is not from a trail")
		v.unreadable++
		return
	}
	v.report.Records++
	if l.altered() {
		v.problem(p, l.Sequence, "it was altered: its contents do not have the hash that it carries")
	}
	v.joint(p, &l)
	m, err := parseMark(l.mark)
	switch {
	case err != nil:
		v.problem(p, l.Sequence, "what the trail says in it about itself cannot be read: it was altered")
	case m == nil:
		v.report.Calls++
		v.stopped = false
	default:
		v.mark(p, &l, m)
	}
	if m == nil || m.Checkpoint == nil {
		v.unmarked = l.Sequence
	}
	v.compare(p, &l)
}

// joint checks that a record follows the one before.
func (v *verifier) joint(p place, l *line) {
	switch {
	case !v.begun:
		v.report.First = l.Sequence
		v.beginning(p, l)
	case l.Sequence > v.last.Sequence+1+v.unreadable:
		v.problem(p, l.Sequence, "%s", missing(v.last.Sequence+1, l.Sequence-1))
	case l.Sequence <= v.last.Sequence:
		v.problem(p, l.Sequence, "it comes after record %d: records were reordered or repeated", v.last.Sequence)
	case l.Sequence == v.last.Sequence+1 && l.previous != v.last.Hash && l.previous != v.last.computed:
		v.problem(p, l.Sequence, "it does not carry the hash of the record before: one of both was replaced or is from another trail")
	}
	v.begun, v.unreadable, v.last = true, 0, *l
}

// missing says that records are not there.
func missing(from, to uint64) string {
	if from == to {
		return fmt.Sprintf("record %d before it is missing", from)
	}
	return fmt.Sprintf("records %d to %d before it are missing", from, to)
}

// beginning checks the first record.
func (v *verifier) beginning(p place, l *line) {
	switch from := v.options.From; {
	case l.Sequence > from:
		v.problem(p, l.Sequence, "%s", missing(from, l.Sequence-1))
	case l.Sequence < from:
		v.problem(p, l.Sequence, "the trail was expected to begin with record %d", from)
	case l.Sequence == 1 && l.previous != Hash{}:
		v.problem(p, l.Sequence, "it carries the hash of a record before, but is the first")
	}
}

// mark looks at what the trail says about itself.
func (v *verifier) mark(p place, l *line, m *mark) {
	switch {
	case m.Start != nil:
		v.start(p, l, m.Start)
	case m.Stop != nil:
		v.stopped = true
	case m.Lost != nil:
		v.note(p, l.Sequence, "%d records of calls could not be written from %s to %s, and on_failure is continue", m.Lost.Records, m.Lost.From, m.Lost.To)
	case m.Checkpoint != nil:
		v.sameTrail(p, l, m.Checkpoint.Trail)
		v.signedSoFar = max(v.signedSoFar, m.Checkpoint.Sequence)
	}
}

func (v *verifier) start(p place, l *line, s *startMark) {
	v.report.Starts++
	v.sameTrail(p, l, s.Trail)
	if l.Sequence > v.report.First && !v.stopped {
		v.note(p, l.Sequence, "the process before it was killed; its records after %d, the last that it signed, are as they were found", v.signedSoFar)
	}
	v.stopped = false
	for _, t := range s.Torn {
		v.torn(p, l, t)
	}
}

func (v *verifier) sameTrail(p place, l *line, trail string) {
	if v.report.Trail == "" {
		v.report.Trail = trail
	}
	if v.report.Trail != trail {
		v.problem(p, l.Sequence, "it is from another trail, %s", trail)
	}
}

// torn looks at what was set aside, which lies beside the files.
func (v *verifier) torn(p place, l *line, t tornMark) {
	if t.Records > 0 {
		v.problem(p, l.Sequence, "%d whole records before it were set aside in %s, because the file was damaged before them", t.Records, t.File)
	} else {
		v.note(p, l.Sequence, "%d bytes of a torn line before it were set aside in %s", t.Bytes, t.File)
	}
	there, err := describeTorn(filepath.Join(filepath.Dir(p.file), filepath.Base(t.File)))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		v.note(p, l.Sequence, "%s is not beside the trail", t.File)
	case err != nil:
		v.note(p, l.Sequence, "%s cannot be read", t.File)
	case there != t:
		v.problem(p, l.Sequence, "%s was altered", t.File)
	}
}

// compare holds a record against what is known of it.
func (v *verifier) compare(p place, l *line) {
	claims := v.wanted[l.Sequence]
	for i := range claims {
		c := &claims[i]
		c.seen = true
		switch {
		case c.hash == l.Hash && c.by > 0 && l.Sequence > v.signed.Sequence:
			v.signed = l.Position
		case c.hash == l.Hash:
		case c.by > 0:
			v.problem(p, l.Sequence, "it is not the record that the checkpoint in record %d was signed for: this record, or one between it and the checkpoint before, was altered", c.by)
		default:
			v.problem(p, l.Sequence, "it is not the record that was expected here")
		}
	}
}

// conclude checks what can be told only at the end, and fills the report.
func (v *verifier) conclude() {
	for _, sequence := range slices.Sorted(maps.Keys(v.wanted)) {
		for _, c := range v.wanted[sequence] {
			if !c.seen && (sequence >= v.options.From || c.by == 0) {
				v.problem(c.signer, c.by, "record %d, which is known by its hash, is missing", sequence)
			}
		}
	}
	r := v.report
	r.Last = v.last.Sequence
	if v.options.ExpectSequence > r.Last {
		v.problem(theEnd, 0, "the trail ends with record %d, and was expected to reach record %d", r.Last, v.options.ExpectSequence)
	}
	switch {
	case !v.begun:
		v.problem(theEnd, 0, "there is no record")
	case len(v.keys) == 0:
		v.note(theEnd, 0, "signatures were not checked")
	case v.signed.Sequence == 0:
		v.problem(theEnd, 0, "no checkpoint vouches for any record")
	case v.signed.Sequence < v.unmarked:
		v.note(theEnd, 0, "the records after %d, the last signed one, are vouched for by no signature yet", v.signed.Sequence)
	}
	if v.signed.Sequence > 0 {
		r.Signed = v.signed.String()
	}
	v.list()
}

// list sorts the findings by place.
func (v *verifier) list() {
	slices.SortStableFunc(v.found, func(a, b found) int {
		return cmp.Or(cmp.Compare(a.at.at, b.at.at), cmp.Compare(a.at.line, b.at.line))
	})
	for _, f := range v.found {
		list := &v.report.Notes
		if f.problem {
			list = &v.report.Problems
		}
		if len(*list) < MaxFindings {
			*list = append(*list, f.Finding)
		}
	}
	v.report.Problems = more(v.report.Problems, v.problems.total)
	v.report.Notes = more(v.report.Notes, v.notes.total)
}

// more says how many findings are not listed.
func more(list []Finding, total uint64) []Finding {
	if left := total - uint64(len(list)); left > 0 {
		list = append(list, Finding{What: fmt.Sprintf("and %d more", left)})
	}
	return list
}
