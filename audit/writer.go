package audit

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// queueLength bounds the calls that wait to be taken up by the writer; further ones wait to enter.
	queueLength = 1024
	// maxBatch is the size in bytes at which the writer stops gathering records into one write.
	maxBatch = 1 << 20
	// retryEvery is how often sinks that failed are tried when no records come.
	retryEvery = time.Second
)

// writer numbers, chains and writes records: in a goroutine of its own what callers queue, and in a caller's what needs
// no queue.
type writer struct {
	trail *Trail
	// direct tells that callers may write themselves: no disk and no sink has to be waited for.
	direct bool

	// mu guards what follows, and the files.
	mu   sync.Mutex
	last Position
	lost lostCalls
	end  context.Context // of Close
	// ending tells that no call waits any more, so that a sink that fails keeps nothing out of the files.
	ending bool
	// closed tells that the last record was written.
	closed bool
	// lacking is the length of the longest batch that found no room since the last success. That a shorter one has room is no
	// sign that records can be written again, if calls are refused until then.
	lacking int

	// Buffers that are reused.
	batch []*pending
	text  []byte
	lines [][]byte
	ends  []int
}

// lostCalls are those that could not be written since the last success, with OnFailure: Continue.
type lostCalls struct {
	records  uint64
	from, to time.Time
}

// endWith bounds the time for the last signature. It is called before closing is closed.
func (w *writer) endWith(ctx context.Context) { w.end = ctx }

func (w *writer) run() {
	defer close(w.trail.finished)
	ticker := time.NewTicker(retryEvery)
	defer ticker.Stop()
	for {
		select {
		case p := <-w.trail.queue:
			w.mu.Lock()
			w.commit(w.gather(p))
			w.mu.Unlock()
		case <-ticker.C:
			w.mu.Lock()
			_ = w.flush() // the next record reports it
			w.mu.Unlock()
		case <-w.trail.closing:
			w.finish()
			return
		}
	}
}

// tryCommit writes a record in the caller's goroutine, if nobody else writes: two hand-overs between goroutines cost
// more than a write to the cache of the disk.
func (w *writer) tryCommit(p *pending) bool {
	if !w.direct || !w.mu.TryLock() {
		return false
	}
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	w.batch = append(w.batch[:0], p)
	w.commit(w.batch)
	return true
}

// gather takes whatever else waits, so that it shares a write and a flush of the disk.
func (w *writer) gather(first *pending) []*pending {
	w.batch = append(w.batch[:0], first)
	for size := len(first.buf); size < maxBatch; {
		select {
		case p := <-w.trail.queue:
			w.batch = append(w.batch, p)
			size += len(p.buf)
		default:
			return w.batch
		}
	}
	return w.batch
}

// commit writes a batch and tells those who wait for it.
func (w *writer) commit(batch []*pending) {
	err := w.write(batch)
	w.report(err)
	for i, p := range batch {
		batch[i] = nil
		result := err
		if err != nil && w.trail.cfg.OnFailure == Continue && p.calls > 0 && !p.again {
			w.lose(p.calls)
			result = nil
		}
		p.done <- result
	}
}

// write appends a batch to the files, all or nothing, and hands it to the sinks. If it fails before the files have it, the
// chain stands where it stood.
func (w *writer) write(batch []*pending) error {
	if err := w.flush(); err != nil {
		return err
	}
	last := w.build(batch)
	if files := w.trail.files; files != nil {
		if err := files.append(w.text, w.last.Sequence+1, w.lacking); err != nil {
			if w.trail.cfg.OnFailure == Refuse {
				w.lacking = max(w.lacking, len(w.text))
			}
			return err
		}
		w.lacking = 0
	}
	w.advance(last, batch)
	return w.deliver()
}

// build makes the lines of a batch in w.text and w.ends.
func (w *writer) build(batch []*pending) Position {
	last := w.last
	w.text, w.ends = w.text[:0], w.ends[:0]
	add := func(body, mark []byte) {
		w.text, last = appendLine(w.text, body, mark, last)
		w.ends = append(w.ends, len(w.text))
	}
	if w.lost.records > 0 {
		m := mark{Lost: &lostMark{
			Records: w.lost.records, From: w.lost.from.UTC().Format(timeFormat), To: w.lost.to.UTC().Format(timeFormat),
		}}
		add(m.body(w.trail.cfg.Clock()), m.members())
	}
	for _, p := range batch {
		start := 0
		for _, end := range p.ends {
			add(p.buf[start:end], p.mark)
			start = end
		}
	}
	return last
}

// advance makes the records of a batch part of the trail.
func (w *writer) advance(last Position, batch []*pending) {
	w.last = last
	w.lost = lostCalls{}
	var calls uint64
	for _, p := range batch {
		calls += p.calls
	}
	t := w.trail
	t.mu.Lock()
	defer t.mu.Unlock()
	t.status.Last = last
	t.unsigned += calls
	if t.seal != nil && t.unsigned >= t.cfg.CheckpointRecords {
		t.seal.wake()
	}
}

// refuses tells whether a sink that fails makes calls fail.
func (w *writer) refuses() bool { return w.trail.cfg.OnFailure == Refuse && !w.ending }

// flush hands the sinks what they did not take before.
func (w *writer) flush() error {
	for _, f := range w.trail.feeds {
		if err := f.flush(); err != nil && w.refuses() {
			return err
		}
	}
	return nil
}

// deliver hands what was built to the sinks. All get it, even if one fails.
func (w *writer) deliver() (err error) {
	if len(w.trail.feeds) == 0 {
		return nil
	}
	w.lines = w.lines[:0]
	start := 0
	for _, end := range w.ends {
		w.lines = append(w.lines, w.text[start:end-1])
		start = end
	}
	for _, f := range w.trail.feeds {
		dropped, problem := f.deliver(w.lines)
		if dropped > 0 {
			w.trail.cfg.Log.Error("audit: a sink lost records", "records", dropped, "upto", w.last.Sequence, "cause", problem)
		}
		if problem != nil && w.refuses() {
			err = problem
		}
	}
	return err
}

// lose counts calls that were not written.
func (w *writer) lose(calls uint64) {
	now := w.trail.cfg.Clock()
	if w.lost.records == 0 {
		w.lost.from = now
	}
	w.lost.records += calls
	w.lost.to = now
	w.trail.mu.Lock()
	defer w.trail.mu.Unlock()
	w.trail.status.Lost += calls
}

// report publishes the result of a write, and logs it when it changes.
func (w *writer) report(err error) {
	t := w.trail
	t.mu.Lock()
	before := t.status.Failure
	t.status.Failure = err
	t.mu.Unlock()
	switch {
	case err != nil && before == nil && t.cfg.OnFailure == Refuse:
		t.cfg.Log.Error("audit: records cannot be written, so requests are refused", "cause", err)
	case err != nil && before == nil:
		t.cfg.Log.Error("audit: records cannot be written and are lost", "cause", err)
	case err == nil && before != nil:
		t.cfg.Log.Info("audit: records are written again", "sequence", w.last.Sequence)
	}
}

// finish writes what waits and the end of the process.
func (w *writer) finish() {
	t := w.trail
	t.stop()
	t.beside.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for more := true; more; {
		select {
		case p := <-t.queue:
			w.commit(w.gather(p))
		default:
			more = false
		}
	}
	w.ending = true
	t.ended = w.write([]*pending{t.marked(&mark{Stop: &stopMark{}})})
	if t.ended == nil && t.seal != nil {
		w.sealEnd()
	}
	for _, f := range t.feeds {
		if len(f.backlog) > 0 {
			t.cfg.Log.Error("audit: a sink lacks the last records", "records", len(f.backlog), "cause", f.failure)
		}
	}
	t.ended = errors.Join(t.ended, t.release())
	t.cfg.Log.Info("audit: trail is closed", "last", t.Status().Last, "signed", t.Status().Signed)
}

// sealEnd signs the end of the trail. A token that is down must not keep a server from ending.
func (w *writer) sealEnd() {
	t, signed := w.trail, w.last
	m, err := t.seal.sign(w.end, signed)
	if err == nil {
		err = w.write([]*pending{t.marked(m)})
	}
	if err != nil {
		t.cfg.Log.Warn("audit: the end of the trail is not signed", "cause", err)
		return
	}
	t.settle(signed, t.unsigned)
}
