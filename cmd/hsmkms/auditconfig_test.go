package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/audit"
)

func TestAuditConfig(t *testing.T) {
	cfg, err := load(t, goodConfig+"audit: {path: /var/log/hsmkms, file_size: 64MiB, sync: always, on_failure: continue, "+
		"sinks: [stdout, syslog, 'syslog+tcp:log.example:601'], checkpoint_every: {records: 7, time: 3s}}\n")
	require.NoError(t, err)
	got, err := cfg.Audit.trailConfig()
	require.NoError(t, err)
	require.Len(t, got.Sinks, 3)
	got.Sinks = nil
	require.Equal(t, audit.Config{
		Dir: "/var/log/hsmkms", FileSize: 64 << 20, Sync: audit.SyncAlways, OnFailure: audit.Continue, CheckpointRecords: 7, CheckpointEvery: 3 * time.Second,
	}, got)

	cfg, err = load(t, goodConfig+"audit: {path: x, sync: 250ms, file_size: 1048576}\n")
	require.NoError(t, err)
	got, err = cfg.Audit.trailConfig()
	require.NoError(t, err)
	require.Equal(t, audit.Config{Dir: "x", Sync: 250 * time.Millisecond, FileSize: 1 << 20}, got)

	cfg, err = load(t, goodConfig)
	require.NoError(t, err)
	require.Nil(t, cfg.Audit)
}

func TestAuditConfigRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"{}": "path and sinks are missing", "{path: x, pth: y}": "pth", "{path: x, sync: 0s}": "sync is", "{path: x, sync: never}": "sync is",
		"{path: x, file_size: 1000}": "at least 1MiB", "{path: x, file_size: -1MiB}": "not a size", "{path: x, file_size: 1MB}": "not a size",
		"{path: x, file_size: 99999999999GiB}": "not a size", "{path: x, on_failure: ignore}": "not refuse or continue",
		"{sinks: [stderr]}": "is not stdout", "{sinks: [syslog+]}": "is not stdout", "{sinks: ['syslogtcp:a:1']}": "is not stdout",
		"{sinks: ['syslog+http:a:1']}": "is not unix:", "{path: x, checkpoint_every: {time: -1s}}": "negative",
		"{path: x, checkpoint_every: {hours: 1}}": "hours",
	} {
		_, err := load(t, goodConfig+"audit: "+text+"\n")
		require.ErrorContains(t, err, want, text)
	}
}
