package bolt

import (
	"context"
	"slices"
	"sync"
)

// turns lets one goroutine at a time write, in the order in which they ask. Unlike a mutex, it lets a context end the
// waiting, and it tells who has the turn whether somebody waits behind. The zero value is ready.
type turns struct {
	mu      sync.Mutex
	taken   bool
	waiting []chan struct{} // each is closed when its turn has come
}

// take waits for the turn, until ctx ends (it returns ctx.Err()) or life ends (its cause). Who got the turn owes one
// call of pass that returned true, or one of release.
func (t *turns) take(ctx, life context.Context) error {
	mine := t.ask()
	select {
	case <-mine:
		return nil
	case <-ctx.Done():
		return t.withdraw(mine, ctx.Err())
	case <-life.Done():
		return t.withdraw(mine, context.Cause(life))
	}
}

func (t *turns) ask() chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	mine := make(chan struct{})
	if t.taken {
		t.waiting = append(t.waiting, mine)
	} else {
		t.taken = true
		close(mine)
	}
	return mine
}

// withdraw stops waiting and returns why. If the turn has come meanwhile it returns nil: others may count on its use.
func (t *turns) withdraw(mine chan struct{}, why error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.Index(t.waiting, mine)
	if i < 0 {
		return nil
	}
	t.waiting = slices.Delete(t.waiting, i, i+1)
	return why
}

// pass gives the turn to who has waited longest. It returns false, and the turn stays, if nobody waits.
func (t *turns) pass() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.passLocked()
}

// release gives the turn away, to nobody if nobody waits.
func (t *turns) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taken = t.passLocked()
}

func (t *turns) passLocked() bool {
	if len(t.waiting) == 0 {
		return false
	}
	close(t.waiting[0])
	t.waiting = slices.Delete(t.waiting, 0, 1)
	return true
}
