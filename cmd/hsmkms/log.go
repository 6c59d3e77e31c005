package main

import (
	"bufio"
	"io"
	"log/slog"
	"sync"
	"time"
)

// logDelay is how long a line of the log may wait in memory, so that a busy server writes many with one call.
const logDelay = 100 * time.Millisecond

// bufferedLog is a log whose lines are written every logDelay, and the last ones by close. A killed process loses the
// lines of the last moment; what must not be lost does not belong into a log.
type bufferedLog struct {
	*slog.Logger
	out  io.Writer
	mu   sync.Mutex
	buf  *bufio.Writer
	stop chan struct{}
	done chan struct{}
}

func newBufferedLog(w io.Writer, level slog.Level) *bufferedLog {
	l := &bufferedLog{out: w, buf: bufio.NewWriterSize(w, 64<<10), stop: make(chan struct{}), done: make(chan struct{})}
	l.Logger = slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: level}))
	go l.flushEvery(logDelay)
	return l
}

// Write implements io.Writer for the handler, which hands over whole lines.
func (l *bufferedLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.buf.Write(line)
	if err != nil {
		l.buf.Reset(l.out) // or the error would stay for ever
	}
	return n, err
}

func (l *bufferedLog) flushEvery(delay time.Duration) {
	defer close(l.done)
	ticker := time.NewTicker(delay)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			l.flush()
		case <-l.stop:
			l.flush()
			return
		}
	}
}

// flush writes what waits. A log that cannot be written has nowhere to say so; the lines are lost, later ones are not.
func (l *bufferedLog) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.buf.Flush(); err != nil {
		l.buf.Reset(l.out) // or the error would stay for ever
	}
}

// close writes the last lines. Nothing may be logged after it.
func (l *bufferedLog) close() {
	close(l.stop)
	<-l.done
}
