package audit

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// mark is what the trail says about itself in a record that is no call. One member is set.
type mark struct {
	// Start is the first record of a process.
	Start *startMark `json:"start"`
	// Stop is the last record of a process that ended in order, but for the checkpoint over it.
	Stop *stopMark `json:"stop"`
	// Lost follows calls that were not recorded, with OnFailure: Continue.
	Lost *lostMark `json:"lost"`
	// Checkpoint is a signed statement about an earlier record.
	Checkpoint *checkpointMark `json:"checkpoint"`
	// Signature is that of the checkpoint: ECDSA P-256 over SHA-256, in DER, over the bytes "checkpoint":{...} of the line.
	Signature []byte `json:"signature"`
}

type startMark struct {
	// Trail is the id of the trail, a UUID that is made with its first record.
	Trail string `json:"trail"`
	// Torn is what a killed process left behind the last whole record, and where that was set aside.
	Torn []tornMark `json:"torn"`
}

type tornMark struct {
	File  string `json:"file"`
	Bytes uint64 `json:"bytes"`
	// Records counts whole records among it. A killed process leaves none; damage to the file does.
	Records uint64 `json:"records"`
	SHA256  string `json:"sha256"`
}

type stopMark struct{}

type lostMark struct {
	Records uint64 `json:"records"`
	From    string `json:"from"`
	To      string `json:"to"`
}

type checkpointMark struct {
	Trail    string `json:"trail"`
	Sequence uint64 `json:"sequence"`
	Hash     string `json:"hash"`
	Time     string `json:"time"`
	// KeyID is the SHA-256 of the public key as DER SubjectPublicKeyInfo.
	KeyID string `json:"keyId"`
}

// members gives the mark as members of the line's last object, with the comma before them.
func (m *mark) members() []byte {
	e := encoder{buf: []byte{'"'}} // after which name puts a comma
	switch {
	case m.Start != nil:
		e.start(m.Start)
	case m.Stop != nil:
		e.name("stop")
		e.raw("{}")
	case m.Lost != nil:
		e.lost(m.Lost)
	case m.Checkpoint != nil:
		e.checkpoint(m.Checkpoint)
		e.text("signature", base64.StdEncoding.EncodeToString(m.Signature))
	}
	return e.buf[1:]
}

func (e *encoder) start(s *startMark) {
	e.name("start")
	e.raw("{")
	e.text("trail", s.Trail)
	if len(s.Torn) > 0 {
		e.name("torn")
		e.raw("[")
		for i, t := range s.Torn {
			if i > 0 {
				e.raw(",")
			}
			e.raw("{")
			e.text("file", t.File)
			e.number("bytes", t.Bytes)
			e.number("records", t.Records)
			e.text("sha256", t.SHA256)
			e.raw("}")
		}
		e.raw("]")
	}
	e.raw("}")
}

func (e *encoder) lost(l *lostMark) {
	e.name("lost")
	e.raw("{")
	e.number("records", l.Records)
	e.text("from", l.From)
	e.text("to", l.To)
	e.raw("}")
}

func (e *encoder) checkpoint(c *checkpointMark) {
	e.name("checkpoint")
	e.raw("{")
	e.text("trail", c.Trail)
	e.number("sequence", c.Sequence)
	e.text("hash", c.Hash)
	e.text("time", c.Time)
	e.text("keyId", c.KeyID)
	e.raw("}")
}

// statement is what the signature of a checkpoint is over.
func (c *checkpointMark) statement() []byte {
	e := encoder{buf: []byte{'{'}}
	e.checkpoint(c)
	return e.buf[1:]
}

// position is what the checkpoint vouches for.
func (c *checkpointMark) position() (Position, error) {
	p := Position{Sequence: c.Sequence}
	return p, parseHash([]byte(c.Hash), &p.Hash)
}

// parseMark reads what members gives, and nothing else. It gives nil for an empty mark.
func parseMark(text []byte) (*mark, error) {
	if len(text) == 0 {
		return nil, nil
	}
	m := &mark{}
	if err := json.Unmarshal(slices.Concat([]byte{'{'}, text[1:], []byte{'}'}), m); err != nil {
		return nil, fmt.Errorf("reading a mark: %w", err)
	}
	if !bytes.Equal(m.members(), text) {
		return nil, errors.New("reading a mark: it is not in the form in which a trail writes it")
	}
	return m, nil
}

// eventName names the record in CloudTrail's form.
func (m *mark) eventName() string {
	switch {
	case m.Start != nil:
		return "StartAuditTrail"
	case m.Stop != nil:
		return "StopAuditTrail"
	case m.Lost != nil:
		return "LoseAuditRecords"
	}
	return "SignAuditTrail"
}

// OwnSource is the eventSource of what AWS does not have: the trail's own records, and what an operator does to accounts.
const OwnSource = "hsmkms"

// body makes the record's part in CloudTrail's form, so that readers of such records need not know marks.
func (m *mark) body(at time.Time) []byte {
	e := encoder{}
	e.raw(`{"eventVersion":"` + eventVersion + `"`)
	e.time("eventTime", at)
	e.text("eventSource", OwnSource)
	e.text("eventName", m.eventName())
	e.text("eventType", ServiceEvent)
	return e.buf
}
