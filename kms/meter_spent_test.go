package kms

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/store"
)

// TestSpentRotates encrypts under one key by two servers on one store. The key gets fresh material again and again, no
// request fails, no material encrypts beyond the bound, and nothing is made twice.
func TestSpentRotates(t *testing.T) {
	const limit, workers, each = 100, 8, 150
	r := newMeterRig(t)
	servers := []*Service{r.start(t, parts(limit, 3, 5)), r.start(t, parts(limit, 3, 5))}
	key := r.newKey(t, servers[0])
	for _, s := range servers {
		run(t, s)
	}
	var group sync.WaitGroup
	for i := range workers {
		group.Go(func() {
			for range each {
				if err := encryptUnder(context.Background(), servers[i%2], key.ID); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	key = r.key(t, servers[0], key.ID)
	require.Greater(t, len(key.Materials), workers*each/(2*limit), "the key was not rotated often enough")
	total := 0
	for i := range key.Materials {
		m := &key.Materials[i]
		made := r.token.count(m.Ref.ID)
		total += made
		require.LessOrEqual(t, made, 2*limit)
		require.LessOrEqual(t, uint64(made), r.counted(t, m))
		if i > 0 {
			require.Equal(t, Automatic, m.How)
		}
	}
	require.Equal(t, workers*each+len(key.Materials), total)
}

// TestSpentOnce has one server rotate a key: it makes material as often as the key needs it, however many requests ask.
func TestSpentOnce(t *testing.T) {
	r := newMeterRig(t)
	s := r.start(t, parts(100, 0, 1))
	key := r.newKey(t, s)
	for range 150 { // nobody rotates yet, and 51 requests ask for it
		require.NoError(t, encryptUnder(t.Context(), s, key.ID))
	}
	run(t, s)
	soon(t, func() bool { return len(r.key(t, s, key.ID).Materials) == 2 }, "the key is not rotated")
	soon(t, func() bool { _, waiting, _ := s.meter.spent.due(time.Now()); return waiting == "" }, "the work does not end")
	require.Equal(t, 2, r.token.made)
	require.NoError(t, encryptUnder(t.Context(), s, key.ID))
	require.Equal(t, 2, r.token.count(r.key(t, s, key.ID).Materials[1].Ref.ID), "proof and encryption")
}

// TestSpentRetries lets the token fail to make fresh material. Requests go on until the bound, and again after it is well.
func TestSpentRetries(t *testing.T) {
	r := newMeterRig(t)
	s := r.start(t, parts(20, 0, 1), func(s *Service) { s.meter.spent.pause = time.Millisecond })
	key := r.newKey(t, s)
	r.token.fail(&hsm.Error{Class: hsm.Busy})
	run(t, s)
	for range 39 {
		require.NoError(t, encryptUnder(t.Context(), s, key.ID))
	}
	requireError[EncryptOutput](t, nil, encryptUnder(t.Context(), s, key.ID), InvalidState, key.ARN()+exhausted)
	soon(t, func() bool { return strings.Count(r.log.String(), "could not be rotated") >= 3 }, "no retries")
	require.Contains(t, r.log.String(), "again=2ms")
	r.token.fail(nil)
	soon(t, func() bool { return encryptUnder(context.Background(), s, key.ID) == nil }, "the key is not rotated")
	require.Len(t, r.key(t, s, key.ID).Materials, 2)
}

// TestSpentExternal encrypts under imported material, which nobody but its owner can replace.
func TestSpentExternal(t *testing.T) {
	r := newMeterRig(t)
	s := r.start(t, parts(20, 0, 1))
	external := func(key *Key) { key.Origin = OriginExternal }
	put(t, s, newTestKey(firstKey, external))
	run(t, s)
	for range 39 {
		require.NoError(t, encryptUnder(t.Context(), s, firstKey))
	}
	requireError[EncryptOutput](t, nil, encryptUnder(t.Context(), s, firstKey), InvalidState, newTestKey(firstKey).ARN()+exhausted)
	soon(t, func() bool { return strings.Contains(r.log.String(), "no imported material is pending rotation") }, "no warning")
	require.Contains(t, r.log.String(), "level=WARN")
	require.NotContains(t, r.log.String(), "level=ERROR")
	_, err := s.Decrypt(t.Context(), newRequest("Decrypt"), &DecryptInput{CiphertextBlob: newBlob(t, firstKey)})
	require.NoError(t, err, "decryption goes on")
}

// TestSpentDisabled asks for the rotation of a key that is then disabled. It is not rotated, and when it is enabled again
// the next request asks anew.
func TestSpentDisabled(t *testing.T) {
	r := newMeterRig(t)
	s := r.start(t, parts(20, 0, 1))
	key := r.newKey(t, s)
	for range 20 {
		require.NoError(t, encryptUnder(t.Context(), s, key.ID))
	}
	_, err := s.DisableKey(t.Context(), newRequest("DisableKey"), &DisableKeyInput{KeyId: key.ID})
	require.NoError(t, err)
	run(t, s)
	soon(t, func() bool { _, waiting, _ := s.meter.spent.due(time.Now()); return waiting == "" }, "it waits for ever")
	require.Len(t, r.key(t, s, key.ID).Materials, 1)
	_, err = s.EnableKey(t.Context(), newRequest("EnableKey"), &EnableKeyInput{KeyId: key.ID})
	require.NoError(t, err)
	require.NoError(t, encryptUnder(t.Context(), s, key.ID))
	soon(t, func() bool { return len(r.key(t, s, key.ID).Materials) == 2 }, "the key is not rotated")
	require.NotContains(t, r.log.String(), "level=WARN")
}

// TestSpentExhausted is TestSpentDisabled for a key whose material must not encrypt any more when it is enabled again.
func TestSpentExhausted(t *testing.T) {
	r := newMeterRig(t)
	s := r.start(t, parts(20, 0, 1))
	key := r.newKey(t, s)
	for range 39 {
		require.NoError(t, encryptUnder(t.Context(), s, key.ID))
	}
	requireError[EncryptOutput](t, nil, encryptUnder(t.Context(), s, key.ID), InvalidState, key.ARN()+exhausted)
	_, err := s.DisableKey(t.Context(), newRequest("DisableKey"), &DisableKeyInput{KeyId: key.ID})
	require.NoError(t, err)
	run(t, s)
	soon(t, func() bool { _, waiting, _ := s.meter.spent.due(time.Now()); return waiting == "" }, "it waits for ever")
	_, err = s.EnableKey(t.Context(), newRequest("EnableKey"), &EnableKeyInput{KeyId: key.ID})
	require.NoError(t, err)
	requireError[EncryptOutput](t, nil, encryptUnder(t.Context(), s, key.ID), InvalidState, key.ARN()+exhausted)
	soon(t, func() bool { return encryptUnder(context.Background(), s, key.ID) == nil }, "the key is not rotated")
}

// TestSpentByRestarts restarts the server so often that the free encryptions alone reach the limit.
func TestSpentByRestarts(t *testing.T) {
	r := newMeterRig(t)
	edit := parts(100, 30, 10)
	key := r.newKey(t, r.start(t, edit))
	for range 3 {
		s := r.start(t, edit)
		require.NoError(t, encryptUnder(t.Context(), s, key.ID))
		_, waiting, _ := s.meter.spent.due(time.Now())
		require.Empty(t, waiting)
	}
	s := r.start(t, edit)
	run(t, s)
	require.NoError(t, encryptUnder(t.Context(), s, key.ID))
	require.Equal(t, uint64(121), r.counted(t, &key.Materials[0]))
	soon(t, func() bool { return len(r.key(t, s, key.ID).Materials) == 2 }, "the key is not rotated")
}

// TestSpentPauses pins how long a rotation that fails waits.
func TestSpentPauses(t *testing.T) {
	w := newSpentMaterials()
	now := time.Unix(1_700_000_000, 0)
	key := newTestKey(firstKey)
	name := materialName{testRegion, key.Materials[0].ID}
	for range 3 {
		w.add(key, &key.Materials[0])
	}
	var pauses []time.Duration
	for range 9 {
		due, id, _ := w.due(now)
		require.Equal(t, name, due)
		require.Equal(t, firstKey, id)
		pause := w.failed(name, now)
		w.add(key, &key.Materials[0]) // requests go on asking, and it waits all the same
		_, id, wait := w.due(now)
		require.Empty(t, id)
		require.Equal(t, pause, wait)
		pauses = append(pauses, pause/time.Second)
		now = now.Add(pause)
	}
	require.Equal(t, []time.Duration{5, 10, 20, 40, 80, 160, 320, 600, 600}, pauses)
	w.done(name)
	_, id, _ := w.due(now)
	require.Empty(t, id)
}

// TestMeterRemove removes what is known of a deleted key, more materials than fit into a transaction among it, and
// nothing of others.
func TestMeterRemove(t *testing.T) {
	r := newMeterRig(t)
	s := r.start(t, parts(1000, 0, 1))
	key, other := newTestKey(firstKey), newTestKey(secondKey)
	put(t, s, key, other)
	d := &doom{Key: firstKey}
	for i := range 250 {
		m := Material{ID: strings.Repeat("0", 60) + string([]byte{'a' + byte(i/100), '0' + byte(i/10%10), '0' + byte(i%10), '0'})}
		require.NoError(t, s.meter.take(t.Context(), key, &m))
		d.Meters = append(d.Meters, m.ID)
	}
	require.NoError(t, s.meter.take(t.Context(), other, &other.Materials[0]))
	request := newRequest("Encrypt")
	s.meter.used(request, key)
	s.meter.used(request, other)
	require.NoError(t, s.meter.flush(t.Context()))
	s.meter.used(request, key) // and in memory
	require.Len(t, recordsBelow(t, s, countPrefix), 251)
	r.store.trouble = func(bool) error { return errBefore }
	require.ErrorIs(t, s.meter.remove(t.Context(), testRegion, d), errBefore)
	r.store.trouble = nil
	for range 2 { // the second time there is nothing left
		require.NoError(t, s.meter.remove(t.Context(), testRegion, d))
		require.Equal(t, []string{countPrefix + testRegion + "/" + other.Materials[0].ID}, recordsBelow(t, s, countPrefix))
		require.Equal(t, []string{usagePrefix + testRegion + "/" + secondKey}, recordsBelow(t, s, usagePrefix))
		require.Len(t, s.meter.counters, 1)
		require.Empty(t, s.meter.fresh)
	}
	updates := r.store.updates.Load()
	require.NoError(t, s.meter.remove(t.Context(), testRegion, &doom{Refs: []hsm.KeyRef{{ID: "x"}}}))
	require.Equal(t, updates, r.store.updates.Load(), "material that is gone leaves its count")
}

func recordsBelow(t *testing.T, s *Service, prefix string) []string {
	t.Helper()
	var names []string
	require.NoError(t, s.cfg.Store.View(t.Context(), func(r store.Reader) error {
		return r.Scan(prefix, "", func(name string, _ []byte) bool { names = append(names, name); return true })
	}))
	return names
}
