package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// fileName gives the name of the file whose first record has a sequence number. Names sort by it.
func fileName(sequence uint64) string { return fmt.Sprintf("audit-%016d.jsonl", sequence) }

var namePattern = regexp.MustCompile(`^audit-([0-9]{16,20})\.jsonl$`)

const lockName = "audit.lock"

// files are the files of a trail, of which the last is written to. All but run is for the writer's goroutine.
type files struct {
	dir   string
	limit int64
	sync  time.Duration
	clock func() time.Time
	log   *slog.Logger
	lock  *os.File

	// current is nil before the first record. run flushes it, and the writer may replace and close it meanwhile.
	current atomic.Pointer[os.File]
	// size is the length of the whole records in it, and day the day it is of.
	size int64
	day  int64
	// dirty tells that there may be something behind size, of a write that failed.
	dirty bool

	// unsynced tells that there is something to flush, failed that a flush failed, gone that the file is not in the
	// directory any more.
	unsynced, failed, gone atomic.Bool
}

// openFiles locks the directory, finds the end of the trail in it, and sets aside what is behind it.
func openFiles(cfg *Config) (*files, recovered, error) {
	f := &files{dir: cfg.Dir, limit: cfg.FileSize, sync: cfg.Sync, clock: cfg.Clock, log: cfg.Log}
	found, err := f.open()
	if err != nil {
		return nil, found, errors.Join(err, f.close())
	}
	return f, found, nil
}

func (f *files) open() (recovered, error) {
	if err := os.Mkdir(f.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return recovered{}, err
	}
	lock, err := os.OpenFile(filepath.Join(f.dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return recovered{}, err
	}
	f.lock = lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
		return recovered{}, ErrInUse
	} else if err != nil {
		return recovered{}, fmt.Errorf("locking %s: %w", lock.Name(), err)
	}
	found, err := recoverDir(f.dir)
	if err != nil || found.file == "" {
		return found, err
	}
	file, err := os.OpenFile(found.file, os.O_RDWR, 0)
	if err != nil {
		return found, err
	}
	f.current.Store(file)
	info, err := file.Stat()
	if err != nil {
		return found, err
	}
	f.size, f.day = info.Size(), day(info.ModTime())
	return found, nil
}

func day(t time.Time) int64 { return t.Unix() / (24 * 60 * 60) }

// append writes lines behind the last ones, all or nothing: after an error the trail on the disk is as it was, or will be
// before the next write. It fails unless there is room for so many bytes, if that is more.
func (f *files) append(text []byte, sequence uint64, room int) error {
	file, err := f.ready(int64(len(text)), sequence)
	if err != nil {
		return err
	}
	f.dirty = true
	if room > len(text) {
		if _, err := file.WriteAt(make([]byte, room), f.size); err != nil {
			return errors.Join(err, f.undo(file))
		}
		if err := f.undo(file); err != nil {
			return err
		}
		f.dirty = true
	}
	if _, err := file.WriteAt(text, f.size); err != nil {
		return errors.Join(err, f.undo(file))
	}
	if f.sync == SyncAlways {
		if err := file.Sync(); err != nil {
			return errors.Join(err, f.undo(file))
		}
	}
	f.dirty = false
	f.size += int64(len(text))
	f.unsynced.Store(f.sync != SyncAlways)
	return nil
}

// undo takes back what a failed write has left.
func (f *files) undo(file *os.File) error {
	if err := file.Truncate(f.size); err != nil {
		return err
	}
	f.dirty = false
	return nil
}

// ready gives the file to write to: one in which so many bytes have room, and of which all before is sound.
func (f *files) ready(length int64, sequence uint64) (*os.File, error) {
	file := f.current.Load()
	if file == nil {
		return f.begin(sequence)
	}
	if f.gone.Load() {
		_ = file.Sync() // it may have been moved; it can't hold up what comes
		return f.begin(sequence)
	}
	if f.dirty {
		if err := f.undo(file); err != nil {
			return nil, err
		}
	}
	if f.failed.Load() {
		if err := file.Sync(); err != nil {
			return nil, err
		}
		f.failed.Store(false)
	}
	if f.size > 0 && (f.size+length > f.limit || day(f.clock()) != f.day) {
		if err := file.Sync(); err != nil {
			return nil, err
		}
		return f.begin(sequence)
	}
	return file, nil
}

// begin makes the file of a sequence number and its name durable, and closes the file before.
func (f *files) begin(sequence uint64) (*os.File, error) {
	path := filepath.Join(f.dir, fileName(sequence))
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && info.Size() > 0 {
		err = fmt.Errorf("%s is there already, and not empty", path)
	}
	if err == nil {
		err = syncDir(f.dir)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	f.size, f.day, f.dirty = 0, day(f.clock()), false
	f.gone.Store(false)
	if before := f.current.Swap(file); before != nil {
		_ = before.Close() // it was flushed
	}
	return file, nil
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// run flushes the current file at intervals and looks whether it is still there, until stop is closed.
func (f *files) run(stop <-chan struct{}) {
	interval := f.sync
	if interval == SyncAlways {
		interval = time.Second
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			f.flush()
			f.look()
		case <-stop:
			return
		}
	}
}

// flush writes to the disk what was written to the file. If that fails, no record is accepted until it succeeds.
func (f *files) flush() {
	file := f.current.Load()
	if file == nil || !f.unsynced.Swap(false) {
		return
	}
	if err := file.Sync(); err != nil && !errors.Is(err, fs.ErrClosed) { // the writer flushes what it closes
		f.log.Error("audit: records of the last moment may not survive a power loss", "file", file.Name(), "cause", err)
		f.unsynced.Store(true)
		f.failed.Store(true)
	}
}

// look finds out when somebody removes or replaces the file under the writer, whose records would then be in no directory.
// The next record begins a new file; those that went with the old one are missing for good, and Verify says so.
func (f *files) look() {
	file := f.current.Load()
	if file == nil || f.gone.Load() {
		return
	}
	ours, err := file.Stat()
	if err != nil {
		return // it was just closed
	}
	there, err := os.Stat(file.Name())
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(ours, there) {
		f.log.Error("audit: the file that is written to was removed or replaced", "file", file.Name())
		f.gone.Store(true)
	}
}

// close flushes the current file and unlocks the directory.
func (f *files) close() error {
	var errs []error
	if file := f.current.Load(); file != nil {
		if f.dirty {
			errs = append(errs, f.undo(file))
		}
		errs = append(errs, file.Sync(), file.Close())
	}
	if f.lock != nil {
		errs = append(errs, f.lock.Close())
	}
	return errors.Join(errs...)
}

// trailFiles lists the files of a trail in a directory, oldest first, by path.
func trailFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	sequences := map[string]uint64{}
	var paths []string
	for _, entry := range entries {
		match := namePattern.FindStringSubmatch(entry.Name())
		if match == nil {
			continue
		}
		path := filepath.Join(dir, entry.Name())
		if sequences[path], err = strconv.ParseUint(match[1], 10, 64); err != nil {
			continue // more than any sequence: not ours
		}
		paths = append(paths, path)
	}
	slices.SortFunc(paths, func(a, b string) int {
		if sequences[a] < sequences[b] {
			return -1
		}
		return 1
	})
	return paths, nil
}
