package iam

import (
	"strings"
	"sync"
	"time"

	"hsmkms/store"
)

// uses remembers when access keys were last used, and whether that is written down. It is for many goroutines. It holds one
// entry for each access key that was used since the start.
type uses struct {
	mu     sync.Mutex
	latest map[string]*use
}

type use struct {
	lastUse
	saved bool
}

// Used notes that an access key signed a request, unless it is that of a session. It writes nothing; Run does, so that what
// is on record may be a minute behind when the process dies.
func (s *Service) Used(accessKeyID, service, region string) {
	if !strings.HasPrefix(accessKeyID, temporary) {
		s.uses.note(accessKeyID, service, region, s.cfg.Clock())
	}
}

// note keeps the minute: more would have every request make an entry.
func (u *uses) note(id, service, region string, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	last := u.latest[id]
	if last != nil && now.Sub(last.Time).Abs() < time.Minute && last.Service == service && last.Region == region {
		return
	}
	// The words may be parts of a whole request header.
	u.latest[strings.Clone(id)] = &use{lastUse: lastUse{
		Time: now.UTC().Truncate(time.Minute), Service: strings.Clone(service), Region: strings.Clone(region),
	}}
}

func (u *uses) forget(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.latest, id)
}

func (u *uses) get(id string) *lastUse {
	u.mu.Lock()
	defer u.mu.Unlock()
	if last := u.latest[id]; last != nil {
		return &last.lastUse
	}
	return nil
}

// keyUse is the last use of an access key.
type keyUse struct {
	id string
	lastUse
}

// unsaved gives the last uses that are not written down, and marks them as saved.
func (u *uses) unsaved() []keyUse {
	u.mu.Lock()
	defer u.mu.Unlock()
	var all []keyUse
	for id, last := range u.latest {
		if !last.saved {
			last.saved = true
			all = append(all, keyUse{id, last.lastUse})
		}
	}
	return all
}

// lastUse gives when an access key was last used; nil for never.
func (s *Service) lastUse(r store.Reader, id string) (*lastUse, error) {
	if last := s.uses.get(id); last != nil {
		return last, nil
	}
	return read[lastUse](r, usedPrefix+id)
}
