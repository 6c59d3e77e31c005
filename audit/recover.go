package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
)

// lineReader reads lines of bounded length.
type lineReader struct {
	r    *bufio.Reader
	long []byte // a line that is longer than the reader's buffer
}

func newLineReader(r io.Reader) *lineReader { return &lineReader{r: bufio.NewReaderSize(r, 32<<10)} }

// next gives the next line without its newline, and the number of bytes it takes with it. whole is false for a last line
// without a newline. Of a line longer than MaxLine it gives the length alone. The text is valid until the next call. err
// is io.EOF at the end, or that of the reader.
func (l *lineReader) next() (text []byte, length int64, whole bool, err error) {
	l.long = l.long[:0]
	for {
		part, err := l.r.ReadSlice('\n')
		length += int64(len(part))
		if errors.Is(err, bufio.ErrBufferFull) {
			if length <= MaxLine {
				l.long = append(l.long, part...)
			}
			continue
		}
		if err != nil && (!errors.Is(err, io.EOF) || length == 0) {
			return nil, length, false, err
		}
		if length > MaxLine {
			return nil, length, err == nil, nil
		}
		if text = part; len(l.long) > 0 {
			l.long = append(l.long, part...)
			text = l.long
		}
		return bytes.TrimSuffix(text, []byte{'\n'}), length, err == nil, nil
	}
}

// recovered is the end of a trail as it was found on the disk.
type recovered struct {
	// last is the last whole record, and file is the one it is in; zero if there is none.
	last Position
	file string
	// trail is the id of the trail; empty if there is none.
	trail string
	// torn is what was behind the last record and set aside, and not recorded yet.
	torn []tornMark
}

// remains are bytes at the end of a file that belong to no record of the trail.
type remains struct {
	path string
	from int64
}

// recoverDir finds the last record of the trail in a directory and moves everything behind it to files of its own. A
// killed process leaves a part of a line there; a power loss, or somebody's hand, can leave more. A crash at any step does no
// harm: the bytes are copied before they are cut off, and what was set aside but not recorded is found by its name,
// which has the sequence number of the record that will tell of it.
func recoverDir(dir string) (recovered, error) {
	found := recovered{}
	paths, err := trailFiles(dir)
	if err != nil {
		return found, err
	}
	var left []remains
	for _, path := range slices.Backward(paths) {
		s, err := scan(path)
		if err != nil {
			return found, err
		}
		if found.trail == "" {
			found.trail = s.trail
		}
		if found.file == "" {
			if s.end < s.size {
				left = append(left, remains{path, s.end})
			}
			if s.last.Sequence > 0 {
				found.last, found.file = s.last, path
			}
		}
		if found.file != "" && found.trail != "" {
			break
		}
	}
	if found.file != "" && found.trail == "" {
		return found, fmt.Errorf("no file in %s says which trail this is; move the files away to begin a new one", dir)
	}
	return found, found.setAside(dir, paths, left)
}

// setAside moves remains away, removes the files that are empty then, and lists what the next record has to tell of.
func (f *recovered) setAside(dir string, paths []string, left []remains) error {
	next := f.last.Sequence + 1
	for _, r := range left {
		if err := moveRemains(dir, r, next); err != nil {
			return fmt.Errorf("setting aside the end of %s: %w", r.path, err)
		}
	}
	for _, path := range slices.Backward(paths) {
		if path == f.file {
			break
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	torn, err := tornFiles(dir, next)
	if err != nil {
		return err
	}
	for _, path := range torn {
		m, err := describeTorn(path)
		if err != nil {
			return err
		}
		f.torn = append(f.torn, m)
	}
	return syncDir(dir)
}

// tornFiles lists what was set aside before a sequence number.
func tornFiles(dir string, sequence uint64) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, entry := range entries {
		if match := tornPattern.FindStringSubmatch(entry.Name()); match != nil && match[1] == fmt.Sprintf("%016d", sequence) {
			paths = append(paths, filepath.Join(dir, entry.Name()))
		}
	}
	return paths, nil
}

var tornPattern = regexp.MustCompile(`^audit-([0-9]{16,20})-[0-9]+\.torn$`)

// newTornPath gives a free name for what is set aside before a sequence number.
func newTornPath(dir string, sequence uint64) (string, error) {
	for i := 1; ; i++ {
		path := filepath.Join(dir, fmt.Sprintf("audit-%016d-%d.torn", sequence, i))
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			return path, nil
		} else if err != nil {
			return "", err
		}
	}
}

// moveRemains copies the end of a file to a file of its own, makes that durable, and cuts it off.
func moveRemains(dir string, r remains, sequence uint64) error {
	file, err := os.OpenFile(r.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	if _, err := file.Seek(r.from, io.SeekStart); err != nil {
		return err
	}
	path, err := newTornPath(dir, sequence)
	if err != nil {
		return err
	}
	if err := copyDurably(path, file); err != nil {
		return err
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	if err := file.Truncate(r.from); err != nil {
		return err
	}
	return file.Sync()
}

// copyDurably makes a file that appears under its name when it is complete.
func copyDurably(path string, from io.Reader) error {
	file, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, from)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// describeTorn says what is in a file of remains.
func describeTorn(path string) (tornMark, error) {
	m := tornMark{File: filepath.Base(path)}
	file, err := os.Open(path)
	if err != nil {
		return m, err
	}
	defer func() { _ = file.Close() }()
	sum := sha256.New()
	lines := newLineReader(io.TeeReader(file, sum))
	for {
		text, length, whole, err := lines.next()
		if errors.Is(err, io.EOF) {
			m.SHA256 = hex.EncodeToString(sum.Sum(nil))
			return m, nil
		}
		if err != nil {
			return m, err
		}
		m.Bytes += uint64(length)
		if l, err := parseLine(text); whole && err == nil && !l.altered() {
			m.Records++
		}
	}
}

// scanned is what a file of a trail holds.
type scanned struct {
	last  Position // zero if there is no whole record
	trail string
	// end is where the last record ends that follows from the first, and size the length of the file.
	end, size int64
}

// scan reads a file up to the first line that is not a record that follows the one before.
func scan(path string) (scanned, error) {
	s := scanned{}
	file, err := os.Open(path)
	if err != nil {
		return s, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return s, err
	}
	s.size = info.Size()
	lines := newLineReader(file)
	for {
		text, length, whole, err := lines.next()
		if errors.Is(err, io.EOF) {
			return s, nil
		}
		if err != nil {
			return s, err
		}
		if !whole || !s.take(text) {
			return s, nil
		}
		s.end += length
	}
}

// take enters a line if it is a record that follows the one before.
func (s *scanned) take(text []byte) bool {
	l, err := parseLine(text)
	if err != nil || l.altered() {
		return false
	}
	if s.last.Sequence > 0 && (l.previous != s.last.Hash || l.Sequence != s.last.Sequence+1) {
		return false
	}
	m, err := parseMark(l.mark)
	switch {
	case err != nil:
		return false
	case m != nil && m.Start != nil:
		s.trail = m.Start.Trail
	case m != nil && m.Checkpoint != nil:
		s.trail = m.Checkpoint.Trail
	}
	s.last = l.Position
	return true
}
