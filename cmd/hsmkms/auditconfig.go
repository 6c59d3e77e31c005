package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"hsmkms/audit"
)

// auditConfig says where the audit trail goes.
type auditConfig struct {
	// Path is the directory of the files; with sinks it may be empty.
	Path string `yaml:"path"`
	// FileSize is such as 128MiB.
	FileSize byteSize `yaml:"file_size"`
	Sync     syncMode `yaml:"sync"`
	// OnFailure is refuse or continue; empty means refuse.
	OnFailure string `yaml:"on_failure"`
	// Sinks are stdout, syslog, or syslog+ and an address: unix:/path, udp:host:port, tcp:host:port.
	Sinks           []string         `yaml:"sinks"`
	CheckpointEvery checkpointConfig `yaml:"checkpoint_every"`
}

// checkpointConfig says when a checkpoint is signed; zeros mean the defaults of the room audit.
type checkpointConfig struct {
	Records uint64        `yaml:"records"`
	Time    time.Duration `yaml:"time"`
}

// syncMode is a time, or always.
type syncMode time.Duration

// UnmarshalYAML implements yaml.Unmarshaler.
func (s *syncMode) UnmarshalYAML(node *yaml.Node) error {
	if node.Value == "always" {
		*s = syncMode(audit.SyncAlways)
		return nil
	}
	d, err := time.ParseDuration(node.Value)
	if err != nil || d <= 0 {
		return fmt.Errorf("sync is %q, not always or a time such as 1s", node.Value)
	}
	*s = syncMode(d)
	return nil
}

// byteSize is a number of bytes, with MiB or GiB behind it or nothing.
type byteSize int64

// UnmarshalYAML implements yaml.Unmarshaler.
func (b *byteSize) UnmarshalYAML(node *yaml.Node) error {
	number, unit := node.Value, int64(1)
	for suffix, size := range map[string]int64{"MiB": 1 << 20, "GiB": 1 << 30} {
		if rest, found := strings.CutSuffix(node.Value, suffix); found {
			number, unit = rest, size
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64/unit {
		return fmt.Errorf("%q is not a size such as 128MiB", node.Value)
	}
	*b = byteSize(n * unit)
	return nil
}

func (c *auditConfig) check() error {
	switch {
	case c.Path == "" && len(c.Sinks) == 0:
		return errors.New("path and sinks are missing")
	case c.FileSize != 0 && c.FileSize < 1<<20:
		return errors.New("file_size must be at least 1MiB")
	case c.OnFailure != "" && c.OnFailure != "refuse" && c.OnFailure != "continue":
		return fmt.Errorf("on_failure is %q, not refuse or continue", c.OnFailure)
	case c.CheckpointEvery.Time < 0:
		return errors.New("checkpoint_every.time must not be negative")
	}
	_, err := c.sinks()
	return err
}

// sinks makes the sinks. None of them connects or writes before its first record.
func (c *auditConfig) sinks() ([]audit.Sink, error) {
	var sinks []audit.Sink
	for _, name := range c.Sinks {
		address, isSyslog := strings.CutPrefix(name, "syslog")
		switch address, hasAddress := strings.CutPrefix(address, "+"); {
		case name == "stdout":
			sinks = append(sinks, audit.NewStream(os.Stdout))
		case isSyslog && (hasAddress != (address == "")):
			sink, err := audit.NewSyslog(audit.SyslogConfig{Address: address})
			if err != nil {
				return nil, err
			}
			sinks = append(sinks, sink)
		default:
			return nil, fmt.Errorf("sink %q is not stdout, syslog or syslog+ADDRESS", name)
		}
	}
	return sinks, nil
}

// trailConfig is what the audit room must know; who opens the trail adds Signer and Log.
func (c *auditConfig) trailConfig() (audit.Config, error) {
	sinks, err := c.sinks()
	cfg := audit.Config{
		Dir: c.Path, FileSize: int64(c.FileSize), Sync: time.Duration(c.Sync), Sinks: sinks,
		CheckpointRecords: c.CheckpointEvery.Records, CheckpointEvery: c.CheckpointEvery.Time,
	}
	if c.OnFailure == "continue" {
		cfg.OnFailure = audit.Continue
	}
	return cfg, err
}
