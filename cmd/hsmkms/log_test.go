package main

import (
	"bytes"
	"encoding/json"
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
