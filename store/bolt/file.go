package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

var (
	// ErrInUse is returned by Open for a file that is open already, most often in another process.
	ErrInUse = errors.New("file is in use by another process")
	// ErrForeign is returned by Open for a file that this package did not make or that a later version of it made.
	ErrForeign = errors.New("file is not a store of this version")
)

// records names the one bucket. It carries the version of the layout: a later layout gets another name, and is then
// refused by the servers that do not know it.
var records = []byte("hsmkms.records.1")

// mapSize is the address space reserved for reading the file. To extend it, bbolt waits for all Views and holds up new
// ones; reserving it at the start spares all but the largest stores that. It costs no memory and no disk.
const mapSize = 1 << 30

// options returns bbolt's options for all files.
func options(cfg Config) *bbolt.Options {
	return &bbolt.Options{
		Timeout:         max(cfg.Timeout, 1), // 0 would wait for ever
		InitialMmapSize: mapSize,
		FreelistType:    bbolt.FreelistMapType,
		NoStatistics:    true, // they take a lock in each View
	}
}

// openFile makes the file if it is not there, opens it and makes sure that its name will survive a crash.
func openFile(cfg Config) (*bbolt.DB, error) {
	if _, err := os.Stat(cfg.Path); errors.Is(err, fs.ErrNotExist) {
		if err := createFile(cfg.Path); err != nil {
			return nil, fmt.Errorf("creating file: %w", err)
		}
	}
	db, err := openBucket(cfg)
	if err != nil {
		return nil, err
	}
	// Also for a file that is not new: who made it may have died before this line.
	if err := syncDir(filepath.Dir(cfg.Path)); err != nil {
		return nil, errors.Join(fmt.Errorf("flushing directory: %w", err), db.Close())
	}
	return db, nil
}

// createFile makes an empty store under another name and then gives it the right one, so that a crash on the way
// leaves no half-made file under that name. A link, unlike a renaming, never replaces the file of a process that was
// quicker.
func createFile(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".new-*") // its mode is 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	if err := f.Close(); err != nil {
		return err
	}
	db, err := openBucket(Config{Path: f.Name()})
	if err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// openBucket opens a file of bbolt, locks it, and makes the bucket in an empty one.
func openBucket(cfg Config) (*bbolt.DB, error) {
	db, err := bbolt.Open(cfg.Path, 0o600, options(cfg))
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, ErrInUse
	case errors.Is(err, bolterrors.ErrInvalid):
		return nil, ErrForeign
	case err != nil:
		return nil, err
	}
	if err := ensureBucket(db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func ensureBucket(db *bbolt.DB) error {
	var exists, foreign bool
	err := db.View(func(tx *bbolt.Tx) error {
		exists = tx.Bucket(records) != nil
		first, _ := tx.Cursor().First()
		foreign = first != nil && !exists
		return nil
	})
	if err != nil || exists {
		return err
	}
	if foreign {
		return ErrForeign
	}
	return db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket(records)
		return err
	})
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
