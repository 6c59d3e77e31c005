package audit

import (
	"bytes"
	"fmt"
	"io"
	"time"
)

// Sink takes a copy of a trail, for example to another machine.
type Sink interface {
	// Write takes records in the order of the trail, each a line of JSON without a newline, and returns how many of them
	// it has taken. If that is not all, err says why, and the rest is offered again later. It may be slow: that holds up
	// the trail and so the calls, which is wanted. It is called by one goroutine at a time and keeps no record.
	Write(records [][]byte) (taken int, err error)
	Close() error
}

const (
	// maxBacklog bounds in bytes what is kept for a sink that fails, with OnFailure: Continue.
	maxBacklog = 16 << 20
	// The pauses between attempts at a sink that fails. Meanwhile calls fail at once.
	shortestRetry, longestRetry = 100 * time.Millisecond, 5 * time.Second
)

// feed offers records to a sink until it takes them.
type feed struct {
	sink  Sink
	clock func() time.Time
	// keep allows more to be added while there is a backlog.
	keep    bool
	backlog [][]byte
	size    int
	failure error
	pause   time.Duration
	failed  time.Time
}

// flush offers the backlog again.
func (f *feed) flush() error {
	if len(f.backlog) == 0 {
		return nil
	}
	if wait := f.clock().Sub(f.failed); wait >= 0 && wait < f.pause {
		return f.failure
	}
	taken, err := f.sink.Write(f.backlog)
	for _, record := range f.backlog[:taken] {
		f.size -= len(record)
	}
	f.backlog = f.backlog[taken:]
	return f.note(err)
}

func (f *feed) note(err error) error {
	if f.failure = err; err == nil {
		f.pause, f.backlog, f.size = 0, nil, 0
		return nil
	}
	f.failed = f.clock()
	f.pause = min(max(2*f.pause, shortestRetry), longestRetry)
	return err
}

// deliver offers new records, after the backlog. What is not taken is kept; records beyond maxBacklog are dropped, which
// happens with OnFailure: Continue only.
func (f *feed) deliver(records [][]byte) (dropped int, err error) {
	if len(f.backlog) == 0 {
		var taken int
		if taken, err = f.sink.Write(records); err == nil {
			return 0, nil
		}
		records = records[taken:]
		_ = f.note(err)
	}
	for i, record := range records {
		if f.keep && f.size+len(record) > maxBacklog {
			return len(records) - i, f.failure
		}
		f.backlog = append(f.backlog, append([]byte(nil), record...))
		f.size += len(record)
	}
	return 0, f.failure
}

// Stream is a Sink that writes lines to a stream, such as the standard output.
type Stream struct {
	w io.Writer
	// rest is what is left of a line that was partly written, whose record counts as not taken yet.
	rest []byte
	buf  []byte
}

// NewStream makes a Sink of a stream, which stays open at Close.
func NewStream(w io.Writer) *Stream { return &Stream{w: w} }

// Write implements Sink with one write for all records. A line that was partly written is completed first, so that lines
// stay whole.
func (s *Stream) Write(records [][]byte) (int, error) {
	s.buf = append(s.buf[:0], s.rest...)
	if len(s.rest) > 0 {
		records = records[1:]
	}
	for _, record := range records {
		s.buf = append(append(s.buf, record...), '\n')
	}
	n, err := s.w.Write(s.buf)
	s.rest = s.rest[:0]
	if err == nil {
		return bytes.Count(s.buf, []byte{'\n'}), nil
	}
	written, left := s.buf[:n], s.buf[n:]
	if n > 0 && written[n-1] != '\n' {
		s.rest = append(s.rest, left[:bytes.IndexByte(left, '\n')+1]...)
	}
	return bytes.Count(written, []byte{'\n'}), fmt.Errorf("writing to a stream: %w", err)
}

// Close implements Sink.
func (s *Stream) Close() error { return nil }
