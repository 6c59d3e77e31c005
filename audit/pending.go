package audit

import (
	"io"
	"sync"
)

// pending is what one caller waits for: the records of one call, or one of the trail's own.
type pending struct {
	encoder
	// ends are where in the buffer each record ends.
	ends []int
	// mark belongs to the only record, if it is not empty.
	mark []byte
	// calls is the number of records of calls; 0 for the trail's own.
	calls uint64
	// again tells that the caller keeps what could not be written, and comes again.
	again bool
	// done gets the result, once.
	done chan error
}

var pendings = sync.Pool{New: func() any { return &pending{done: make(chan error, 1)} }}

func getPending() *pending { return pendings.Get().(*pending) }

// putPending gives back what nobody waits for any more.
func putPending(p *pending) {
	if cap(p.buf) > 64<<10 {
		return
	}
	*p = pending{encoder: encoder{buf: p.buf[:0]}, ends: p.ends[:0], done: p.done}
	pendings.Put(p)
}

// encode makes the records of a call.
func (p *pending) encode(v *Event, random io.Reader) error {
	shared := ""
	if len(v.Recipients) > 1 {
		var err error
		if shared, err = NewID(random); err != nil {
			return err
		}
	}
	start := 0
	for i := range v.Recipients {
		p.event(v, &v.Recipients[i], shared)
		if len(p.buf)-start > MaxLine/2 {
			return ErrTooLong
		}
		start = len(p.buf)
		p.ends = append(p.ends, start)
	}
	p.calls = uint64(len(v.Recipients))
	return nil
}

// marked makes a record of the trail's own.
func (t *Trail) marked(m *mark) *pending {
	body := m.body(t.cfg.Clock())
	return &pending{encoder: encoder{buf: body}, ends: []int{len(body)}, mark: m.members(), done: make(chan error, 1)}
}
