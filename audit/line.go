package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
)

// Hash is the SHA-256 of a record: of its line up to the member "hash".
type Hash [sha256.Size]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Position is a place in a trail: that of a record and the hash of it, which no other trail and no altered one has
// there. Its text form is sequence:hash, such as 17:9f86d0...; who keeps one elsewhere can later tell that the trail up
// to it is whole.
type Position struct {
	Sequence uint64
	Hash     Hash
}

func (p Position) String() string { return strconv.FormatUint(p.Sequence, 10) + ":" + p.Hash.String() }

// LogValue implements slog.LogValuer: a log shows the text form.
func (p Position) LogValue() slog.Value { return slog.StringValue(p.String()) }

// ParsePosition reads the text form of a Position.
func ParsePosition(text string) (Position, error) {
	number, digest, found := strings.Cut(text, ":")
	p := Position{}
	var err error
	if p.Sequence, err = parseSequence([]byte(number)); !found || err != nil {
		return p, fmt.Errorf("%q is not a position, such as 17:9f86d0... with 64 hexadecimal digits", text)
	}
	if err := parseHash([]byte(digest), &p.Hash); err != nil {
		return p, fmt.Errorf("%q is not a position: %w", text, err)
	}
	return p, nil
}

// The parts of a line's end. A line is a JSON object whose last member says where in the trail it stands:
//
//	{...,"hsmkms":{"sequence":N,"previous":"<hash of record N-1>"[,<mark>],"hash":"<hash of this line before ,"hash">"}}\n
//
// Only the trail itself writes marks (marks.go).
const (
	placeOpen    = `,"hsmkms":{"sequence":`
	previousOpen = `,"previous":"`
	hashOpen     = `,"hash":"`
	lineClose    = `"}}`

	hexSize = 2 * sha256.Size
	// sealSize is the length of what is after the hashed part of a line.
	sealSize = len(hashOpen) + hexSize + len(lineClose)
)

// MaxLine bounds a line in bytes, so that a reader needs no more memory than that.
const MaxLine = 1 << 20

// appendLine adds the record that comes after last to a buffer, and gives its position. The body is a JSON object without
// the brace at its end; the mark may be empty.
func appendLine(dst, body, mark []byte, last Position) ([]byte, Position) {
	start := len(dst)
	dst = append(dst, body...)
	dst = append(dst, placeOpen...)
	dst = strconv.AppendUint(dst, last.Sequence+1, 10)
	dst = append(dst, previousOpen...)
	dst = hex.AppendEncode(dst, last.Hash[:])
	dst = append(dst, '"')
	dst = append(dst, mark...)
	next := Position{Sequence: last.Sequence + 1, Hash: sha256.Sum256(dst[start:])}
	dst = append(dst, hashOpen...)
	dst = hex.AppendEncode(dst, next.Hash[:])
	dst = append(dst, lineClose...)
	return append(dst, '\n'), next
}

// line is what a line says about its place in the trail.
type line struct {
	Position
	previous Hash
	// mark is what appendLine got; it is part of the line that was parsed.
	mark []byte
	// computed is the hash that the line has, which may not be the one that it carries.
	computed Hash
}

func (l *line) altered() bool { return l.computed != l.Hash }

var errNotRecord = errors.New("this is not a record of a trail")

// parseLine reads a line without its newline. It accepts what appendLine writes and nothing else; of the JSON before it only
// the first byte is looked at, since the hash covers it.
func parseLine(text []byte) (line, error) {
	l := line{}
	hashed := len(text) - sealSize
	if hashed < 1 || text[0] != '{' || string(text[hashed:hashed+len(hashOpen)]) != hashOpen || !bytes.HasSuffix(text, []byte(lineClose)) {
		return l, errNotRecord
	}
	if err := parseHash(text[hashed+len(hashOpen):len(text)-len(lineClose)], &l.Hash); err != nil {
		return l, errNotRecord
	}
	start := bytes.LastIndex(text[:hashed], []byte(placeOpen))
	if start < 1 {
		return l, errNotRecord
	}
	number, rest, found := bytes.Cut(text[start+len(placeOpen):hashed], []byte(previousOpen))
	if !found || len(rest) < hexSize+1 || rest[hexSize] != '"' {
		return l, errNotRecord
	}
	var err error
	if l.Sequence, err = parseSequence(number); err != nil {
		return l, errNotRecord
	}
	if err := parseHash(rest[:hexSize], &l.previous); err != nil {
		return l, errNotRecord
	}
	l.mark = rest[hexSize+1:]
	l.computed = sha256.Sum256(text[:hashed])
	return l, nil
}

// parseSequence reads a number as strconv writes it, from 1 on.
func parseSequence(digits []byte) (uint64, error) {
	n, err := strconv.ParseUint(string(digits), 10, 64)
	if err != nil || n == 0 || digits[0] == '0' || digits[0] == '+' {
		return 0, fmt.Errorf("%q is not a sequence number", digits)
	}
	return n, nil
}

// parseHash reads lower-case hexadecimal digits.
func parseHash(digits []byte, h *Hash) error {
	if len(digits) != hexSize || bytes.ContainsAny(digits, "ABCDEF") {
		return fmt.Errorf("a hash has %d hexadecimal digits in lower case", hexSize)
	}
	if _, err := hex.Decode(h[:], digits); err != nil {
		return fmt.Errorf("reading a hash: %w", err)
	}
	return nil
}
