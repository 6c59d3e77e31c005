package bolt

import (
	"sort"
	"strings"
	"sync"

	"hsmkms/store"
)

// hub hands the changes of commits to the watches. It never waits for one: a watch whose buffer is full is cut off.
type hub struct {
	buffer int // transactions that each watcher may be behind

	mu       sync.Mutex
	watchers map[*watcher]struct{}
}

// watcher is one running Watch.
type watcher struct {
	prefix string
	feed   chan []store.Change // closed by the hub when the watcher fell behind; the changes are shared
}

func (h *hub) add(prefix string) *watcher {
	w := &watcher{prefix: prefix, feed: make(chan []store.Change, h.buffer)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watchers[w] = struct{}{}
	return w
}

func (h *hub) remove(w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.watchers, w)
}

// publish hands out the changes of each transaction, in key order within it. Who calls it has the turn to write,
// which keeps the order of commits.
func (h *hub) publish(commits [][]store.Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, changes := range commits {
		for w := range h.watchers {
			h.sendLocked(w, withPrefix(changes, w.prefix))
		}
	}
}

func (h *hub) sendLocked(w *watcher, changes []store.Change) {
	if len(changes) == 0 {
		return
	}
	select {
	case w.feed <- changes:
	default:
		delete(h.watchers, w)
		close(w.feed)
	}
}

// withPrefix returns the part of the changes, which are in key order, whose keys begin with prefix.
func withPrefix(changes []store.Change, prefix string) []store.Change {
	first := sort.Search(len(changes), func(i int) bool { return changes[i].Key >= prefix })
	changes = changes[first:]
	n := sort.Search(len(changes), func(i int) bool { return !strings.HasPrefix(changes[i].Key, prefix) })
	return changes[:n]
}

// own returns a copy of shared changes that its receiver may keep and change.
func own(changes []store.Change) []store.Change {
	copied := make([]store.Change, len(changes))
	for i, c := range changes {
		copied[i] = c
		if !c.Deleted {
			copied[i].Value = append([]byte{}, c.Value...)
		}
	}
	return copied
}
