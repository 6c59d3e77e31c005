package kms

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"hsmkms/store"
)

// The schedule does what time demands: it deletes keys whose waiting period is over, destroys expired material, rotates
// keys and removes import sets. What is due lies in an index of the store, ordered by time:
//
//	due/<milliseconds since the epoch, 15 digits>/<region>/<kind>/<id>
//
// An entry is written and removed in the transaction that changes its record, and says nothing but where to look: what
// is to be done follows from the record, inside a transaction. So the work can be done twice, or by several servers at
// once, or be cut off anywhere.
const (
	duePrefix  = "due/"
	dueKeys    = "key"
	dueImports = "import"
)

// dueEntry gives the entry for a record that is due at a time; "" for a zero time. Its time is never the earlier one, so
// that what the entry is found for is due.
func dueEntry(at time.Time, region, kind, id string) string {
	if at.IsZero() {
		return ""
	}
	ms := at.Add(time.Millisecond - time.Nanosecond).UnixMilli()
	return dueAt(ms) + region + "/" + kind + "/" + id
}

// dueAt begins the entries of a millisecond.
func dueAt(ms int64) string { return fmt.Sprintf("%s%015d/", duePrefix, ms) }

func (k *Key) dueEntry() string { return dueEntry(k.nextTask(), k.Region, dueKeys, k.ID) }

// task is an entry of the index.
type task struct {
	at               time.Time
	region, kind, id string
}

func parseTask(entry string) (task, error) {
	parts := strings.Split(strings.TrimPrefix(entry, duePrefix), "/")
	if len(parts) != 4 {
		return task{}, errors.New("malformed entry")
	}
	ms, err := strconv.ParseInt(parts[0], 10, 64)
	return task{time.UnixMilli(ms), parts[1], parts[2], parts[3]}, err
}

// reindex puts one entry in the place of another; either may be "".
func (t *recorder) reindex(before, after string) error {
	if before != "" {
		if err := t.remove(before); err != nil {
			return err
		}
	}
	if after == "" {
		return nil
	}
	return t.mark(after)
}

const (
	// longestWait bounds how long the schedule sleeps, because the clock of the machine may be set.
	longestWait = time.Minute
	// retryWait is how long it waits after a failure.
	retryWait = 5 * time.Second
	// tasksAtOnce is how many entries it reads at a time.
	tasksAtOnce = 100
	// taskLimit bounds a task. A token that hangs is asked once each time, so that it holds up its own Region's keys alone.
	taskLimit = 30 * time.Second
	// mostComplaints is how many failures of one kind it logs at a time.
	mostComplaints = 10
)

// Run does what is due (deletions, expiries, rotations), has the audit trail told of it, and keeps count of the use of keys, until ctx ends; then it
// writes the counts and returns. A Service works without it, but time does nothing to its keys, beyond that those
// whose time is over cannot be used.
func (s *Service) Run(ctx context.Context) {
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() { s.watch(ctx, duePrefix, s.wake) })
	beside.Go(func() { s.watch(ctx, doomedPrefix, s.wake) })
	if s.cfg.Trail != nil {
		a := s.newAnnouncer()
		beside.Go(func() { s.watch(ctx, happenedPrefix, a.wake) })
		beside.Go(func() { a.run(ctx) })
	}
	beside.Go(func() { s.meter.run(ctx) })
	for ctx.Err() == nil {
		wait := s.attendAll(ctx)
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-time.After(wait):
		}
	}
}

// watch wakes the schedule, or the announcer, when the store says that there is work.
func (s *Service) watch(ctx context.Context, prefix string, wake chan struct{}) {
	for {
		err := s.cfg.Store.Watch(ctx, prefix, func() { poke(wake) }, func([]store.Change) error { poke(wake); return nil })
		if !errors.Is(err, store.ErrLagged) {
			s.tell("watching the store; the schedule only looks once a minute from now on", err)
			return
		}
	}
}

// poke wakes who waits. It does not wait itself.
func poke(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default: // it is awake
	}
}

// attendAll does all that is due and gives how long there is nothing more to do.
func (s *Service) attendAll(ctx context.Context) time.Duration {
	next := dueAt(s.cfg.Clock().UnixMilli() + 1)
	away := map[string]bool{}
	done := s.each(ctx, "doing what is due", duePrefix, next, func(ctx context.Context, entry string) error {
		return s.attend(ctx, entry, away)
	})
	if !s.reap(ctx) || !done {
		return min(retryWait, s.untilNext(ctx, next))
	}
	return s.untilNext(ctx, next)
}

// each calls f for the records below prefix whose keys come before end, and tells whether none failed. f may change them.
func (s *Service) each(ctx context.Context, doing, prefix, end string, f func(ctx context.Context, record string) error) (done bool) {
	failed, after := 0, ""
	for {
		records, err := s.some(ctx, prefix, after, end, tasksAtOnce)
		if s.tell(doing, err) {
			return false
		}
		for _, record := range records {
			after = record
			err := s.limited(ctx, record, f)
			if ctx.Err() != nil {
				return false
			}
			if err == nil {
				continue
			}
			if failed++; failed <= mostComplaints {
				s.tell(doing, err)
			}
		}
		if len(records) < tasksAtOnce {
			break
		}
	}
	if failed > mostComplaints {
		s.tell(doing, fmt.Errorf("%d failures", failed))
	}
	return failed == 0
}

// limited calls f with the time that a task may take.
func (s *Service) limited(ctx context.Context, record string, f func(ctx context.Context, record string) error) error {
	ctx, cancel := context.WithTimeout(ctx, taskLimit)
	defer cancel()
	if err := f(ctx, record); err != nil {
		return fmt.Errorf("%s: %w", record, err)
	}
	return nil
}

// some gives the first records below prefix that come after one and before another ("" for any), limit at most.
func (s *Service) some(ctx context.Context, prefix, after, end string, limit int) ([]string, error) {
	var records []string
	err := s.cfg.Store.View(ctx, func(r store.Reader) error {
		records = nil
		return r.Scan(prefix, after, func(key string, _ []byte) bool {
			if end != "" && key >= end {
				return false
			}
			records = append(records, key)
			return len(records) < limit
		})
	})
	return records, err
}

// tell logs an error that is not the end of the service, and tells whether there was one.
func (s *Service) tell(doing string, err error) bool {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, store.ErrClosed) {
		return err != nil
	}
	s.cfg.Log.Error(doing, "error", err)
	return true
}

// untilNext gives the time to the first entry after one.
func (s *Service) untilNext(ctx context.Context, after string) time.Duration {
	entries, err := s.some(ctx, duePrefix, after, "", 1)
	if s.tell("reading what is due", err) {
		return retryWait
	}
	if len(entries) == 0 {
		return longestWait
	}
	first, err := parseTask(entries[0])
	if err != nil {
		return longestWait
	}
	return min(longestWait, max(time.Millisecond, first.at.Sub(s.cfg.Clock())))
}

// attend does what an entry stands for. away has the Regions whose tokens were found to be out of reach.
func (s *Service) attend(ctx context.Context, entry string, away map[string]bool) error {
	due, err := parseTask(entry)
	if err != nil {
		return err
	}
	if _, served := s.cfg.Regions[due.region]; !served {
		return nil
	}
	switch due.kind {
	case dueKeys:
		err = s.attendKey(ctx, due.region, due.id, entry, away)
	case dueImports:
		err = s.endImportSet(ctx, due.region, due.id, entry)
	default:
		err = errors.New("unknown kind")
	}
	return err
}

// attendKey writes what time has done to a key, and rotates it if that is due and the token within reach.
func (s *Service) attendKey(ctx context.Context, region, id, entry string, away map[string]bool) error {
	var key *Key
	err := s.update(ctx, func(t *recorder) (err error) {
		key, err = t.key(region, id)
		if err != nil {
			return err
		}
		if key == nil {
			return t.endKey(region, id, entry)
		}
		if entry != key.indexed {
			return t.remove(entry) // it was another time's
		}
		if len(key.dropped) == 0 {
			return nil
		}
		return t.putKey(key)
	})
	if err != nil || key == nil || key.Rotation == nil || key.State != Enabled || s.cfg.Clock().Before(key.Rotation.Next) || away[region] {
		return err
	}
	err = s.rotateOnSchedule(ctx, key)
	away[region] = outOfReach(err)
	return err
}
