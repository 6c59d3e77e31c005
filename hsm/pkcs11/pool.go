package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// job is an operation on its way to a worker.
type job interface {
	run(s *session)
	// failure is the error of the last run.
	failure() error
	// blame gives that error another class.
	blame(hsm.Class)
	// repeatable jobs leave nothing behind on the token and may be run again on another session.
	repeatable() bool
	// finish hands the result to the caller, or discards it if the caller has gone.
	finish(s *session)
}

// task is a job with a result.
type task[T any] struct {
	f func(*session) (T, error)
	// discard, if set, undoes or wipes a result that nobody is waiting for any more.
	discard func(*session, T)
	// once marks what must not be run again after a failure, because it may have left something on the token.
	once bool
	// slow marks what changes or searches persistent objects, which can take seconds. Only such a task may search.
	slow bool

	value   T
	err     error
	settled atomic.Bool // set by whoever comes first: the worker with a result, or the caller who gives up
	done    chan struct{}
}

func (t *task[T]) failure() error   { return t.err }
func (t *task[T]) repeatable() bool { return !t.once }

func (t *task[T]) blame(class hsm.Class) { t.err = reclassed(t.err, class) }

func (t *task[T]) run(s *session) {
	defer func() {
		if r := recover(); r != nil {
			t.err = &hsm.Error{Class: hsm.Failed, Cause: fmt.Errorf("panic in a token operation: %v", r)}
		}
	}()
	s.searches = t.slow
	t.value, t.err = t.f(s)
}

func (t *task[T]) finish(s *session) {
	if t.settled.CompareAndSwap(false, true) {
		close(t.done)
		return
	}
	if t.discard != nil && t.err == nil {
		defer func() { _ = recover() }() // as in run: it would end the process, and the result is nobody's
		t.discard(s, t.value)
	}
}

// do hands the task to a worker of the token's current epoch and waits for its result as long as ctx allows. A task
// that was begun is not cut short when ctx ends; its result is then discarded by the worker. A task that has to search for
// an object is given to the slow lane.
func do[T any](ctx context.Context, token *Token, t *task[T]) (T, error) {
	value, err := t.handOver(ctx, token)
	if t.slow || !errors.Is(err, errUnindexed) {
		return value, err
	}
	return (&task[T]{f: t.f, discard: t.discard, once: t.once, slow: true}).handOver(ctx, token)
}

func (t *task[T]) handOver(ctx context.Context, token *Token) (T, error) {
	var none T
	e := token.epoch.Load()
	if e == nil {
		return none, token.outage()
	}
	t.done = make(chan struct{})
	lane := e.jobs
	if t.slow {
		lane = e.slow
	}
	if err := e.submit(ctx, lane, t); err != nil {
		return none, err
	}
	select {
	case <-t.done:
		return t.value, t.err
	case <-ctx.Done():
		if t.settled.CompareAndSwap(false, true) {
			return none, &hsm.Error{Class: hsm.Busy, Cause: ctx.Err()}
		}
		<-t.done
		return t.value, t.err
	}
}

// epoch is the life of a token between a login and its loss. Handles found in one epoch mean nothing in another.
type epoch struct {
	token *Token
	// jobs feeds the workers. slow feeds one more, so that no request waits behind the making of a key; it is jobs on a
	// token that has no session to spare.
	jobs, slow chan job
	// pairs is full while a caller has its turn to make a key pair; see turn.
	pairs chan struct{}
	// sessions is the number of workers, busy how many have a job, waiting how many callers have none to take theirs.
	sessions      int
	busy, waiting atomic.Int64
	stop          chan struct{}
	workers       sync.WaitGroup
	keys          *keys
	lost          sync.Once
}

// submit waits for a worker of the lane to take a job.
func (e *epoch) submit(ctx context.Context, lane chan<- job, j job) error {
	if err := ctx.Err(); err != nil { // select would leave it to chance
		return &hsm.Error{Class: hsm.Busy, Cause: err}
	}
	e.waiting.Add(1)
	defer e.waiting.Add(-1)
	select {
	case lane <- j:
		return nil
	case <-e.stop:
		return errDown
	case <-ctx.Done():
		return &hsm.Error{Class: hsm.Busy, Cause: ctx.Err()}
	}
}

// turn waits until no other caller is making a key pair, which takes the token seconds. The slow lane serves who came first:
// without turns, everything else that goes there would wait for all the pairs that were asked for before. The caller calls
// over when its pair is made or given up.
func (e *epoch) turn(ctx context.Context) (over func(), err error) {
	if err := ctx.Err(); err != nil { // select would leave it to chance
		return nil, &hsm.Error{Class: hsm.Busy, Cause: err}
	}
	e.waiting.Add(1)
	defer e.waiting.Add(-1)
	select {
	case e.pairs <- struct{}{}:
		return func() { <-e.pairs }, nil
	case <-e.stop:
		return nil, errDown
	case <-ctx.Done():
		return nil, &hsm.Error{Class: hsm.Busy, Cause: ctx.Err()}
	}
}

// Usage is how busy a token's sessions are at a moment. All numbers are 0 while the token is down.
type Usage struct {
	Sessions, Busy, Waiting int
}

// Usage tells how busy the token's sessions are.
func (t *Token) Usage() Usage {
	e := t.epoch.Load()
	if e == nil {
		return Usage{}
	}
	return Usage{Sessions: e.sessions, Busy: int(e.busy.Load()), Waiting: int(e.waiting.Load())}
}

// work runs the jobs of a lane on one session until the epoch ends or the session can't be replaced.
func (e *epoch) work(s *session, lane <-chan job) {
	defer e.workers.Done()
	defer s.freeScratch()
	defer s.close()
	for {
		select {
		case <-e.stop:
			return
		case j := <-lane:
			e.busy.Add(1)
			sound := e.serve(s, j)
			e.busy.Add(-1)
			if !sound {
				e.lose() // before the caller hears of it, who may at once ask again
			}
			j.finish(s)
			if !sound {
				return
			}
		}
	}
}

// serve runs a job, once more on a fresh session if the first was lost, and tells whether the session can go on.
func (e *epoch) serve(s *session, j job) bool {
	j.run(s)
	if !s.doubtful(j) {
		return true
	}
	if err := s.replace(); err != nil {
		e.token.m.cfg.Log.Error("replacing session", "error", err)
		return false
	}
	if !j.repeatable() {
		return true
	}
	j.run(s)
	if !s.doubtful(j) {
		return true
	}
	return hsm.ClassOf(j.failure()) != hsm.TokenGone && s.replace() == nil
}

// doubtful tells whether the session on which the job failed must not be used again. A code that says nothing
// (CKR_GENERAL_ERROR, CKR_FUNCTION_FAILED) is how some tokens say that they are broken, so the session is tried.
func (s *session) doubtful(j job) bool {
	err := j.failure()
	if vague(err) && s.check() != nil {
		j.blame(hsm.TokenGone)
		return true
	}
	return suspect(err)
}

// vague tells whether err is a code that can mean anything.
func vague(err error) bool {
	return isCode(err, p11.CKR_GENERAL_ERROR, p11.CKR_FUNCTION_FAILED) && hsm.ClassOf(err) == hsm.Failed
}

// suspect tells whether err says that its session is lost.
func suspect(err error) bool {
	switch hsm.ClassOf(err) {
	case hsm.SessionDead, hsm.TokenGone:
		return true
	default:
		return false
	}
}

// lose ends the epoch and has the token re-opened.
func (e *epoch) lose() {
	e.lost.Do(func() {
		if e.token.epoch.CompareAndSwap(e, nil) {
			close(e.stop)
		}
		e.token.m.report()
	})
}
