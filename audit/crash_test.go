package audit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// victimDir has the test binary, run again, write to a trail until it is killed.
const victimDir = "HSMKMS_AUDIT_VICTIM"

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimDir); dir != "" {
		fmt.Fprintln(os.Stderr, victim(dir, os.Getenv(victimDir+"_RUN")))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// victim records calls from many goroutines and prints the id of each that was acknowledged.
func victim(dir, run string) error {
	every := time.Second
	if strings.HasSuffix(run, "always") {
		every = SyncAlways
	}
	trail, err := New(context.Background(), Config{Dir: dir, FileSize: 100_000, Sync: every})
	if err != nil {
		return err
	}
	failed := make(chan error)
	for c := range 16 {
		go func() {
			for i := 0; ; i++ {
				v := reEncrypt(0)
				v.RequestID = fmt.Sprintf("%s-%d-%d", run, c, i)
				if err := trail.Record(context.Background(), v); err != nil {
					failed <- err
				}
				_, _ = os.Stdout.WriteString(v.RequestID + "\n") // one write, so that the kill doesn't tear it
			}
		}()
	}
	return <-failed
}

// TestKillNine kills a process that records calls, again and again. Whatever it had acknowledged is in the trail, which
// goes on without a gap.
func TestKillNine(t *testing.T) {
	key, dir := newTestKey(t), t.TempDir()
	acknowledged := map[string]bool{}
	const rounds = 6
	for round := range rounds {
		run := fmt.Sprint("round", round)
		if round%2 == 1 {
			run += "always"
		}
		for _, id := range killOne(t, dir, run, 30+20*round) {
			acknowledged[id] = true
		}
	}
	require.Greater(t, len(acknowledged), 30*rounds)
	trail := open(t, Config{Dir: dir, Signer: key.signer()})
	closeTrail(t, trail)

	report := verify(t, key, dir)
	require.Empty(t, report.Problems)
	require.Equal(t, report.Last, report.Records)
	require.Equal(t, uint64(rounds+1), report.Starts)
	for _, text := range lines(t, dir) {
		var fields struct{ RequestID string }
		require.NoError(t, json.Unmarshal([]byte(text), &fields))
		delete(acknowledged, fields.RequestID)
	}
	require.Empty(t, acknowledged, "records that were acknowledged and are not there")
}

// killOne kills a victim after so many acknowledgments, and gives all that it has printed.
func killOne(t *testing.T, dir, run string, after int) (ids []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), victimDir+"="+dir, victimDir+"_RUN="+run)
	var problem bytes.Buffer
	cmd.Stderr = &problem
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var once sync.Once
	kill := func() { _ = cmd.Process.Kill() }
	defer once.Do(kill)
	scanner := bufio.NewScanner(out)
	for scanner.Scan() {
		if ids = append(ids, scanner.Text()); len(ids) == after {
			once.Do(kill)
		}
	}
	require.Error(t, cmd.Wait())
	require.GreaterOrEqual(t, len(ids), after, problem.String())
	return ids
}
