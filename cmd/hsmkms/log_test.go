package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBufferedLogWritesEveryLine(t *testing.T) {
	var out bytes.Buffer
	log := newBufferedLog(&out, slog.LevelInfo)
	var group sync.WaitGroup
	const writers, lines = 8, 500
	for range writers {
		group.Go(func() {
			for i := range lines {
				log.Info("line", "i", i)
			}
		})
	}
	group.Wait()
	log.close()
	all := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	require.Len(t, all, writers*lines)
	for _, line := range all {
		require.True(t, json.Valid([]byte(line)), line)
	}
}

// fullDisk is a file on a disk that is full until it is cleared.
type fullDisk struct {
	bytes.Buffer
	full bool
}

func (d *fullDisk) Write(p []byte) (int, error) {
	if d.full {
		return 0, errors.New("no space left on device")
	}
	return d.Buffer.Write(p)
}

func TestBufferedLogGoesOnAfterAFailure(t *testing.T) {
	out := &fullDisk{full: true}
	log := newBufferedLog(out, slog.LevelInfo)
	log.Info("lost")
	log.flush()
	log.Info(strings.Repeat("lost too ", 1<<14))
	log.mu.Lock()
	out.full = false
	log.mu.Unlock()
	log.Info("kept")
	log.close()
	require.Contains(t, out.String(), "kept")
}
