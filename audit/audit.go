// Package audit writes an audit trail: one record a call of the API, allowed or denied, in CloudTrail's event format, as
// lines of JSON. Each record carries a sequence number without gaps, the hash of the record before and its own; at
// intervals a checkpoint is written, a signature over sequence and hash of a record by a key that never leaves the token.
// Who has the public key finds with Verify what was altered, removed, reordered or cut since.
//
// A Trail is the writing side. Record returns when the record was handed to the operating system (with SyncAlways: is
// on the disk) and to every other sink, so that an answer that goes out after it is never without its record. One
// goroutine writes; whoever waits at the same time shares its write and its fsync.
//
// docs/design/audit.md has the format byte by byte, and what can be found and what can't.
package audit

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

var (
	// ErrClosed is returned by Record after Close.
	ErrClosed = errors.New("audit trail is closed")
	// ErrInUse is returned by New if another process, or another Trail of this one, writes to the directory.
	ErrInUse = errors.New("audit trail is in use by another process")
	// ErrSlow is a Status.Failure: a call has lost its patience.
	ErrSlow = errors.New("the audit trail does not answer")
	// ErrTooLong is returned by Record for a record that would be longer than MaxLine.
	ErrTooLong = errors.New("audit record is too long")
)

// SyncAlways is a Config.Sync: no record is acknowledged before it is on the disk.
const SyncAlways time.Duration = -1

// OnFailure says what becomes of calls that cannot be recorded.
type OnFailure int

const (
	// Refuse has Record fail, so that the call can be refused.
	Refuse OnFailure = iota
	// Continue has Record succeed. How many records were lost, and when, is logged, and recorded when writing works again.
	Continue
)

// Config describes a Trail. One of Dir and Sinks is required.
type Config struct {
	// Dir is the directory of the files; New makes it if its parent exists. Files are named audit-<sequence of the first
	// record>.jsonl and never removed. Empty means no files: each process then begins a trail of its own.
	Dir string
	// FileSize is the size in bytes after which a new file is begun; one is begun each day (UTC), too. 0 means 128 MiB.
	FileSize int64
	// Sync is how long a record may be on its way to the disk: what a power loss can take. 0 means a second; SyncAlways
	// means that Record waits for the disk. The death of the process takes no record in any case.
	Sync time.Duration
	// OnFailure says what becomes of calls that cannot be recorded.
	OnFailure OnFailure
	// Patience is how long Record waits for the disk and slow sinks at most. 0 means as long as its context allows.
	Patience time.Duration
	// Sinks get every record after the files, in order. The Trail owns them from New on and closes them.
	Sinks []Sink
	// CheckpointRecords and CheckpointEvery say after how many records, and after what time, a checkpoint is signed, when
	// there is something new. 0 means 10,000 and 10 seconds.
	CheckpointRecords uint64
	CheckpointEvery   time.Duration
	// Signer signs checkpoints. The zero value signs none, and nothing then shows that a trail is not forged.
	Signer Signer
	// Clock gives the time; nil means time.Now.
	Clock func() time.Time
	// Rand is the source of ids; nil means crypto/rand.
	Rand io.Reader
	// Log receives what an operator should know; nil discards it.
	Log *slog.Logger
}

func (c *Config) check() error {
	switch {
	case c.Dir == "" && len(c.Sinks) == 0:
		return errors.New("there is neither a directory nor a sink")
	case c.Sync < 0 && c.Sync != SyncAlways, c.FileSize < 0, c.CheckpointEvery < 0, c.Patience < 0:
		return errors.New("a size or a time is negative")
	}
	return nil
}

func (c *Config) setDefaults() {
	if c.FileSize == 0 {
		c.FileSize = 128 << 20
	}
	if c.Sync == 0 {
		c.Sync = time.Second
	}
	if c.CheckpointRecords == 0 {
		c.CheckpointRecords = 10_000
	}
	if c.CheckpointEvery == 0 {
		c.CheckpointEvery = 10 * time.Second
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// Trail is an audit trail being written. Its methods are safe for concurrent use.
type Trail struct {
	cfg   Config
	id    string // of the trail
	files *files // nil without a directory
	feeds []*feed
	seal  *checkpointer // nil without a Signer

	queue    chan *pending
	closing  chan struct{} // closed by Close
	finished chan struct{} // closed when the writer has ended
	once     sync.Once
	stop     context.CancelFunc // ends what runs beside the writer
	beside   sync.WaitGroup
	ended    error // what went wrong at the end; for who has seen finished closed

	// mu guards what the writer publishes.
	mu       sync.Mutex
	status   Status
	unsigned uint64 // records of calls that no checkpoint covers

	writer writer
}

// Status is where a trail stands.
type Status struct {
	// Last is the last record.
	Last Position
	// Signed is the last record that a checkpoint vouches for: what to keep elsewhere.
	Signed Position
	// Failure is why the last record could not be written, or not in time; nil if it could.
	Failure error
	// Lost counts the records that were lost since the start, with OnFailure: Continue.
	Lost uint64
}

// New opens the trail in a directory, or begins one. What a killed process left behind the last whole record is set
// aside in a file of its own, logged and recorded. The first record of the process is written before New returns.
func New(ctx context.Context, cfg Config) (*Trail, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("opening audit trail: %w", err)
	}
	cfg.setDefaults()
	t := &Trail{cfg: cfg, queue: make(chan *pending, queueLength), closing: make(chan struct{}), finished: make(chan struct{})}
	for _, sink := range cfg.Sinks {
		t.feeds = append(t.feeds, &feed{sink: sink, clock: cfg.Clock, keep: cfg.OnFailure == Continue})
	}
	if err := t.open(ctx); err != nil {
		return nil, fmt.Errorf("opening audit trail: %w", errors.Join(err, t.release()))
	}
	return t, nil
}

// open takes up the trail where it ends and starts the goroutines.
func (t *Trail) open(ctx context.Context) (err error) {
	found := recovered{}
	if t.cfg.Dir != "" {
		if t.files, found, err = openFiles(&t.cfg); err != nil {
			return err
		}
	}
	if t.seal, err = newCheckpointer(t); err != nil {
		return err
	}
	if t.id = found.trail; t.id == "" {
		if t.id, err = NewID(t.cfg.Rand); err != nil {
			return err
		}
	}
	t.writer.trail, t.writer.last = t, found.last
	t.writer.direct = t.files != nil && t.cfg.Sync != SyncAlways && len(t.feeds) == 0
	t.status.Last = found.last
	for _, torn := range found.torn {
		t.cfg.Log.Warn("audit: set aside what a killed process or damage left behind the last whole record", "file", torn.File,
			"bytes", torn.Bytes, "records", torn.Records, "sequence", found.last.Sequence+1)
	}
	start := t.marked(&mark{Start: &startMark{Trail: t.id, Torn: found.torn}})
	if err := t.writer.write([]*pending{start}); err != nil {
		return err
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	t.stop = stop
	go t.writer.run()
	if t.files != nil {
		t.beside.Go(func() { t.files.run(run.Done()) })
	}
	if t.seal != nil {
		t.beside.Go(func() { t.seal.run(run) })
	}
	return nil
}

// Record writes a call to the trail: one record for each recipient. It returns nil when the files and every sink have
// it, and waits for slow ones as long as ctx and Config.Patience allow. After an error the record may be in the trail or not: it is not,
// unless ctx ended while it was being written or a sink behind the files failed. With OnFailure: Continue, a failure to
// write is no error, but the end of ctx is. The event is not kept; zero members that have to be known (EventTime,
// Recipients and their EventIDs) are set in it.
func (t *Trail) Record(ctx context.Context, v *Event) error {
	return t.record(ctx, v, false)
}

// Deliver is Record for a caller that keeps the event until it is in the trail: a failure is an error whatever OnFailure says, and
// it waits as long as ctx allows, never in a write of its own.
func (t *Trail) Deliver(ctx context.Context, v *Event) error { return t.record(ctx, v, true) }

func (t *Trail) record(ctx context.Context, v *Event, again bool) error {
	if err := t.complete(v); err != nil {
		return err
	}
	p := getPending()
	p.again = again
	if err := p.encode(v, t.cfg.Rand); err != nil {
		putPending(p)
		return err
	}
	if err := t.enter(ctx, p); err != nil {
		return fmt.Errorf("writing audit record: %w", err)
	}
	return nil
}

// enter has something written, and waits until it is.
func (t *Trail) enter(ctx context.Context, p *pending) error {
	select {
	case <-t.closing:
		return ErrClosed
	default:
	}
	if p.again {
		return t.queued(ctx, p)
	}
	if t.writer.tryCommit(p) {
		err := <-p.done
		putPending(p)
		return err
	}
	if t.cfg.Patience == 0 {
		return t.queued(ctx, p)
	}
	patient, cancel := context.WithTimeout(ctx, t.cfg.Patience)
	defer cancel()
	err := t.queued(patient, p)
	if err != nil && patient.Err() != nil && ctx.Err() == nil {
		t.writer.report(ErrSlow)
	}
	return err
}

// queued puts something into the queue and waits until it is written.
func (t *Trail) queued(ctx context.Context, p *pending) error {
	select {
	case t.queue <- p:
	case <-ctx.Done():
		return ctx.Err()
	case <-t.closing:
		return ErrClosed
	}
	select {
	case err := <-p.done:
		putPending(p)
		return err
	case <-ctx.Done(): // p belongs to the writer
		return ctx.Err()
	case <-t.finished:
	}
	select {
	case err := <-p.done:
		return err
	default:
		return ErrClosed // it came too late to be seen by the writer
	}
}

// complete sets what the caller left to the trail.
func (t *Trail) complete(v *Event) error {
	if v.EventTime.IsZero() {
		v.EventTime = t.cfg.Clock()
	}
	if len(v.Recipients) == 0 {
		v.Recipients = []Recipient{{AccountID: v.UserIdentity.AccountID}}
	}
	for i := range v.Recipients {
		if v.Recipients[i].EventID != "" {
			continue
		}
		id, err := NewID(t.cfg.Rand)
		if err != nil {
			return err
		}
		v.Recipients[i].EventID = id
	}
	return nil
}

// NewID makes a random UUID (version 4, RFC 9562), such as an eventID.
func NewID(random io.Reader) (string, error) {
	var id [16]byte
	if _, err := io.ReadFull(random, id[:]); err != nil {
		return "", fmt.Errorf("making an id: %w", err)
	}
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	text := make([]byte, 0, 36)
	for i, b := range id {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			text = append(text, '-')
		}
		text = append(text, hexDigits[b>>4], hexDigits[b&15])
	}
	return string(text), nil
}

// Status tells where the trail stands.
func (t *Trail) Status() Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.status
}

// Refuses gives why records cannot be written at present; nil if they can, or with OnFailure: Continue.
func (t *Trail) Refuses() error {
	if t.cfg.OnFailure == Continue {
		return nil
	}
	select {
	case <-t.closing:
		return ErrClosed
	default:
		return t.Status().Failure
	}
}

// Close writes what waits, marks the end of the process, signs a last checkpoint, and releases files and sinks. Records
// that are entered while it runs are written or fail with ErrClosed. If ctx ends before, because a sink or the token
// hangs, Close returns its error and leaves the rest to the end of the process.
func (t *Trail) Close(ctx context.Context) error {
	t.once.Do(func() {
		t.writer.endWith(ctx)
		close(t.closing)
	})
	select {
	case <-t.finished:
		return t.ended
	case <-ctx.Done():
		return fmt.Errorf("closing audit trail: %w", ctx.Err())
	}
}

// release closes files and sinks.
func (t *Trail) release() error {
	var errs []error
	if t.files != nil {
		errs = append(errs, t.files.close())
	}
	for _, s := range t.feeds {
		errs = append(errs, s.sink.Close())
	}
	return errors.Join(errs...)
}
