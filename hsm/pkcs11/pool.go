package pkcs11

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"hsmkms/hsm"
)

// job is an operation on its way to a worker.
type job interface {
	run(s *session)
	// failure is the error of the last run.
	failure() error
	// repeatable jobs leave nothing behind on the token and may be run again on another session.
	repeatable() bool
	// finish hands the result to the caller, or discards it if the caller has gone.
	finish()
}

// task is a job with a result.
type task[T any] struct {
	f func(*session) (T, error)
	// discard, if set, wipes a result that nobody is waiting for any more.
	discard func(T)
	once    bool

	value   T
	err     error
	settled atomic.Bool // set by whoever comes first: the worker with a result, or the caller who gives up
	done    chan struct{}
}

func (t *task[T]) failure() error   { return t.err }
func (t *task[T]) repeatable() bool { return !t.once }

func (t *task[T]) run(s *session) {
	defer func() {
		if r := recover(); r != nil {
			t.err = &hsm.Error{Class: hsm.Failed, Cause: fmt.Errorf("panic in a token operation: %v", r)}
		}
	}()
	t.value, t.err = t.f(s)
}

func (t *task[T]) finish() {
	if t.settled.CompareAndSwap(false, true) {
		close(t.done)
		return
	}
	if t.discard != nil {
		t.discard(t.value)
	}
}

// do hands the task to a worker of the token's current epoch and waits for its result as long as ctx allows. A task
// that was begun is not cut short when ctx ends; its result is then discarded by the worker.
func do[T any](ctx context.Context, token *Token, t *task[T]) (T, error) {
	var none T
	e := token.epoch.Load()
	if e == nil {
		return none, errDown
	}
	t.done = make(chan struct{})
	select {
	case e.jobs <- t:
	case <-e.stop:
		return none, errDown
	case <-ctx.Done():
		return none, &hsm.Error{Class: hsm.Busy, Cause: ctx.Err()}
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
	token   *Token
	jobs    chan job
	stop    chan struct{}
	workers sync.WaitGroup
	keys    *keys
	lost    sync.Once
}

// work runs jobs on one session until the epoch ends or the session can't be replaced.
func (e *epoch) work(s *session) {
	defer e.workers.Done()
	defer s.freeScratch()
	defer s.close()
	for {
		select {
		case <-e.stop:
			return
		case j := <-e.jobs:
			sound := e.serve(s, j)
			j.finish()
			if !sound {
				e.lose()
				return
			}
		}
	}
}

// serve runs a job, once more on a fresh session if the first was lost, and tells whether the session can go on.
func (e *epoch) serve(s *session, j job) bool {
	j.run(s)
	if !suspect(j.failure()) {
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
	return hsm.ClassOf(j.failure()) != hsm.TokenGone && (!suspect(j.failure()) || s.replace() == nil)
}

// suspect tells whether the session on which err came up must not be used again.
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
