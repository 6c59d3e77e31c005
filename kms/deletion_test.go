package kms

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/store"
)

const week = 7 * 24 * time.Hour

// scheduleDeletion has a key deleted in a week.
func (r *scheduleRig) scheduleDeletion(t *testing.T, id string) time.Time {
	t.Helper()
	window := int32(7)
	out, err := r.ScheduleKeyDeletion(t.Context(), newRequest("ScheduleKeyDeletion"), &ScheduleKeyDeletionInput{KeyId: id, PendingWindowInDays: &window})
	require.NoError(t, err)
	return out.DeletionDate.Time
}

func (s *Service) cancelDeletion(t *testing.T, id string) error {
	t.Helper()
	_, err := s.CancelKeyDeletion(t.Context(), newRequest("CancelKeyDeletion"), &CancelKeyDeletionInput{KeyId: id})
	return err
}

// createNamed makes a key with an alias.
func (r *scheduleRig) createNamed(t *testing.T, alias string) *KeyMetadata {
	t.Helper()
	out, err := r.CreateKey(t.Context(), newRequest("CreateKey"), &CreateKeyInput{})
	require.NoError(t, err)
	_, err = r.CreateAlias(t.Context(), newRequest("CreateAlias"), &CreateAliasInput{AliasName: alias, TargetKeyId: out.KeyMetadata.KeyId})
	require.NoError(t, err)
	return out.KeyMetadata
}

// TestDeletionMoment deletes a key at the moment that was announced: until then it can be saved, from then on it does not
// exist, whether the schedule has run or not.
func TestDeletionMoment(t *testing.T) {
	r := newScheduleRig(t)
	key := r.createNamed(t, "alias/first")
	at := r.scheduleDeletion(t, key.KeyId)
	require.Equal(t, testStart.Truncate(time.Millisecond).Add(week), at)

	r.clock.set(at.Add(-time.Nanosecond))
	require.Equal(t, time.Millisecond, r.attendAll(t.Context()))
	require.Len(t, r.token.ids(), 1)
	require.NoError(t, r.cancelDeletion(t, key.KeyId))
	requireIndexed(t, r.Service)

	r.clock.set(testStart)
	r.scheduleDeletion(t, key.KeyId)
	requireIndexed(t, r.Service)
	r.clock.set(at)
	r.requireNoKey(t, key)
	require.Len(t, r.token.ids(), 1, "the schedule has not run")
	require.Equal(t, longestWait, r.attendAll(t.Context()))
	r.requireNoKey(t, key)
	require.Empty(t, r.token.ids())
	require.Empty(t, records(t, r.Service, ""))
	require.Empty(t, r.log.all())
}

// requireNoKey asks for a key by all its names.
func (r *scheduleRig) requireNoKey(t *testing.T, key *KeyMetadata) {
	t.Helper()
	missing := "Key '" + key.Arn + "' does not exist"
	for name, text := range map[string]string{
		key.KeyId: missing, key.Arn: missing,
		"alias/first": "Alias arn:aws:kms:" + testRegion + ":" + testAccount + ":alias/first is not found.",
	} {
		described, err := r.DescribeKey(t.Context(), newRequest("DescribeKey"), &DescribeKeyInput{KeyId: name})
		requireError(t, described, err, NotFound, text)
		encrypted, err := r.Encrypt(t.Context(), newRequest("Encrypt"), &EncryptInput{KeyId: name, Plaintext: []byte("x")})
		requireError(t, encrypted, err, NotFound, text)
	}
	requireError[Empty](t, nil, r.cancelDeletion(t, key.KeyId), NotFound, missing)
	again, err := r.ScheduleKeyDeletion(t.Context(), newRequest("ScheduleKeyDeletion"), &ScheduleKeyDeletionInput{KeyId: key.KeyId})
	requireError(t, again, err, NotFound, missing)
	require.NotContains(t, r.listed(t, 1000), key.KeyId)
	aliases, err := r.ListAliases(t.Context(), newRequest("ListAliases"), &ListAliasesInput{})
	require.NoError(t, err)
	require.Empty(t, aliases.Aliases)
	opened, err := r.Decrypt(t.Context(), newRequest("Decrypt"), &DecryptInput{CiphertextBlob: newBlob(t, key.KeyId)})
	requireError(t, opened, err, AccessDenied,
		"The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are not allowed to access.")
}

// listed gives the ids of all keys, read in pages.
func (r *scheduleRig) listed(t *testing.T, limit int32) (ids []string) {
	t.Helper()
	in := &ListKeysInput{Limit: &limit}
	for {
		out, err := r.ListKeys(t.Context(), newRequest("ListKeys"), in)
		require.NoError(t, err)
		require.LessOrEqual(t, len(out.Keys), int(limit))
		for _, key := range out.Keys {
			ids = append(ids, key.KeyId)
		}
		if in.Marker = out.NextMarker; !out.Truncated {
			return ids
		}
	}
}

// TestListKeysAtDeletion lists keys of which some end while the schedule does not run, among others with something due: those
// that can be described are listed, at any moment and with pages of any size.
func TestListKeysAtDeletion(t *testing.T) {
	r := newScheduleRig(t)
	ids, at := keyIDs(6), testStart.Truncate(time.Millisecond)
	ends := endingAt(at)
	r.enter(t, newTestKey(ids[0]), newTestKey(ids[1], ends), newTestKey(ids[2], func(key *Key) { key.Rotation = &Rotation{Next: at} }),
		newTestKey(ids[3], ends), newTestKey(ids[4], endingAt(at.Add(time.Hour))), newTestKey(ids[5], ends))
	for _, step := range []struct {
		at   time.Time
		want []string
	}{
		{at.Add(-time.Nanosecond), ids},
		{at, []string{ids[0], ids[2], ids[4]}},
		{at.Add(time.Hour), []string{ids[0], ids[2]}},
	} {
		r.clock.set(step.at)
		for limit := range int32(7) {
			require.Equal(t, step.want, r.listed(t, limit+1))
		}
		for _, id := range ids {
			_, err := r.DescribeKey(t.Context(), newRequest("DescribeKey"), &DescribeKeyInput{KeyId: id})
			require.Equal(t, slices.Contains(step.want, id), err == nil)
		}
	}
}

// TestDeletionOfAliases deletes a key with as many aliases as it may have, one of which points elsewhere by now.
func TestDeletionOfAliases(t *testing.T) {
	r := newScheduleRig(t)
	doomed, other := r.createNamed(t, "alias/0"), r.createNamed(t, "alias/other")
	for i := 1; i < maxAliases; i++ {
		_, err := r.CreateAlias(t.Context(), newRequest("CreateAlias"), &CreateAliasInput{AliasName: fmt.Sprint("alias/", i), TargetKeyId: doomed.KeyId})
		require.NoError(t, err)
	}
	require.NoError(t, r.update(t.Context(), func(tx *recorder) error { // an entry too many
		return tx.mark(keyAliases(testRegion, doomed.KeyId) + "alias/other")
	}))
	r.clock.set(r.scheduleDeletion(t, doomed.KeyId)) // the key has ended, and with it its aliases, whose records stay for now
	updated, err := r.UpdateAlias(t.Context(), newRequest("UpdateAlias"), &UpdateAliasInput{AliasName: "alias/8", TargetKeyId: other.KeyId})
	requireError(t, updated, err, NotFound, "Alias "+aliasARN(testAccount, testRegion, "alias/8")+" is not found.")
	deleted, err := r.DeleteAlias(t.Context(), newRequest("DeleteAlias"), &DeleteAliasInput{AliasName: "alias/8"})
	requireError(t, deleted, err, NotFound, "Alias "+aliasARN(testAccount, testRegion, "alias/8")+" is not found.")
	_, err = r.CreateAlias(t.Context(), newRequest("CreateAlias"), &CreateAliasInput{AliasName: "alias/7", TargetKeyId: other.KeyId})
	require.NoError(t, err)
	require.Equal(t, longestWait, r.attendAll(t.Context()))
	requireGone(t, r.Service, doomed.KeyId)
	out, err := r.ListAliases(t.Context(), newRequest("ListAliases"), &ListAliasesInput{})
	require.NoError(t, err)
	require.Equal(t, []string{"alias/7", "alias/other"}, []string{out.Aliases[0].AliasName, out.Aliases[1].AliasName})
	require.Len(t, out.Aliases, 2)
	_, err = r.DescribeKey(t.Context(), newRequest("DescribeKey"), &DescribeKeyInput{KeyId: "alias/7"})
	require.NoError(t, err)
}

// TestWrappedMaterialGoesAtOnce deletes keys whose material lies in the store while the token is down: no record has it
// any more, though the token still has to forget its copies.
func TestWrappedMaterialGoesAtOnce(t *testing.T) {
	r := newScheduleRig(t)
	wrapped := []byte("the wrapped key material of a key")
	r.enter(t, newTestKey(firstKey, endingAt(testStart), func(key *Key) {
		key.Materials[0].Ref.Wrapped, key.Materials[0].Ref.WrappedBy = wrapped, "domain"
		key.Materials[0].Ref.Proof = []byte("proof")
	}))
	r.clock.set(testStart.Add(time.Hour))
	r.token.setFail(&hsm.Error{Class: hsm.TokenGone})
	r.attendAll(t.Context())
	require.Len(t, records(t, r.Service, ""), 1, "its doom")
	require.NoError(t, r.cfg.Store.View(t.Context(), func(reader store.Reader) error {
		return reader.Scan("", "", func(_ string, value []byte) bool {
			require.NotContains(t, string(value), base64.StdEncoding.EncodeToString(wrapped))
			require.NotContains(t, string(value), base64.StdEncoding.EncodeToString([]byte("proof")))
			require.Contains(t, string(value), string(newTestKey(firstKey).Materials[0].Ref.ID))
			return true
		})
	}))
	r.token.setFail(nil)
	r.attendAll(t.Context())
	require.Equal(t, 1, r.token.tries)
	require.Empty(t, records(t, r.Service, ""))
}

// TestTokenDownAtDeletion has a token out of reach when keys end. It is asked once each time, the keys are gone, and
// their material goes later. The token of another Region is not held up.
func TestTokenDownAtDeletion(t *testing.T) {
	for _, class := range []hsm.Class{hsm.TokenGone, hsm.SessionDead, hsm.Busy, hsm.LoginFailed, hsm.Failed} {
		sound := newShelf()
		r := newScheduleRig(t, func(cfg *Config) { cfg.Regions["us-west-2"] = Region{Token: sound} })
		r.enter(t, newTestKey(firstKey, endingAt(testStart)), newTestKey(secondKey, endingAt(testStart)))
		west := newTestKey(firstKey, endingAt(testStart), func(key *Key) { key.Region = "us-west-2" })
		r.enter(t, west)
		sound.place(west.Materials[0].Ref.ID)
		r.clock.set(testStart.Add(time.Hour))
		for range 3 {
			r.token.setFail(&hsm.Error{Class: class, Function: "C_DestroyObject"})
			require.Equal(t, retryWait, r.attendAll(t.Context()))
			require.Equal(t, map[bool]int{true: 1, false: 2}[outOfReach(r.token.fail)], r.token.tries, class)
			require.Len(t, r.token.ids(), 2)
			require.Empty(t, sound.ids())
			require.Empty(t, records(t, r.Service, keyPrefix))
		}
		require.Contains(t, r.log.all()[0], "C_DestroyObject")
		r.token.setFail(nil)
		require.Equal(t, longestWait, r.attendAll(t.Context()))
		require.Empty(t, r.token.ids())
		require.Empty(t, records(t, r.Service, ""))
	}
}

// TestNameIsFreeWhileTokenDown deletes a key whose token is out of reach: its alias can be given to another key.
func TestNameIsFreeWhileTokenDown(t *testing.T) {
	r := newScheduleRig(t)
	old, heir := r.createNamed(t, "alias/app"), r.createNamed(t, "alias/heir")
	r.clock.set(r.scheduleDeletion(t, old.KeyId))
	r.token.setFail(&hsm.Error{Class: hsm.TokenGone, Function: "C_DestroyObject"})
	require.Equal(t, retryWait, r.attendAll(t.Context()))
	require.Len(t, r.token.ids(), 2)
	_, err := r.CreateAlias(t.Context(), newRequest("CreateAlias"), &CreateAliasInput{AliasName: "alias/app", TargetKeyId: heir.KeyId})
	require.NoError(t, err)
}

// brittleStore is a store of which one update fails, before its commit or after.
type brittleStore struct {
	store.Store
	left      *atomic.Int64 // updates until the failure
	committed bool
}

func (s brittleStore) Update(ctx context.Context, fn func(store.Txn) error) error {
	if s.left.Add(-1) != 0 {
		return s.Store.Update(ctx, fn)
	}
	if !s.committed {
		return errors.New("disk full")
	}
	return errors.Join(s.Store.Update(ctx, fn), store.ErrUncertain)
}

// TestStoreFailsInDeletion has each update of a deletion fail in turn. The deletion is completed the next time, and
// nothing else is harmed.
func TestStoreFailsInDeletion(t *testing.T) {
	for _, committed := range []bool{false, true} {
		steps := 0
		for failed := true; failed; steps++ {
			left := &atomic.Int64{}
			r := newScheduleRig(t, func(cfg *Config) { cfg.Store = brittleStore{cfg.Store, left, committed} })
			doomed, other := r.createNamed(t, "alias/first"), r.createNamed(t, "alias/other")
			r.clock.set(r.scheduleDeletion(t, doomed.KeyId))
			left.Store(int64(steps + 1))
			failed = r.attendAll(t.Context()) == retryWait
			require.Equal(t, failed, len(r.log.all()) > 0)
			require.Equal(t, failed, left.Swap(0) <= 0)
			r.attendAll(t.Context())
			requireGone(t, r.Service, doomed.KeyId)
			require.Len(t, r.token.ids(), 1)
			_, err := r.Encrypt(t.Context(), newRequest("Encrypt"), &EncryptInput{KeyId: other.KeyId, Plaintext: []byte("x")})
			require.NoError(t, err)
		}
		require.GreaterOrEqual(t, steps, 4, "a deletion has three updates at least")
	}
}

// second makes another service on the store and the token of a rig.
func (r *scheduleRig) second(t *testing.T) *Service {
	t.Helper()
	s, err := New(r.cfg)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

// TestDoomIsCompletedOnce has a request and the schedule, and some more, carry out a doom at once: one of them asks the token.
func TestDoomIsCompletedOnce(t *testing.T) {
	r := newScheduleRig(t)
	name := doomName{testRegion, firstKey}
	require.NoError(t, r.update(t.Context(), func(tx *recorder) error {
		return tx.doom(name.region, name.id, doom{Refs: []hsm.KeyRef{{ID: "x"}}})
	}))
	counts := atOnce(8, func(int) error { return r.complete(t.Context(), name) })
	require.Equal(t, map[ErrorType]int{"": 8}, counts)
	require.Equal(t, 1, r.token.tries)
	require.Empty(t, records(t, r.Service, doomedPrefix))
}

// moodyToken is a token that destroys two objects and then fails, again and again.
type moodyToken struct {
	*shelf
	calls int
}

func (m *moodyToken) DestroyKey(ctx context.Context, ref hsm.KeyRef) error {
	if m.calls++; m.calls%3 == 0 {
		return &hsm.Error{Class: hsm.Busy}
	}
	return m.shelf.DestroyKey(ctx, ref)
}

// TestDoomOfMany deletes a key with more materials than the token destroys at a time. Each attempt goes on where the last one
// failed.
func TestDoomOfMany(t *testing.T) {
	r := newScheduleRig(t)
	r.cfg.Regions[testRegion] = Region{Token: &moodyToken{shelf: r.token}}
	r.enter(t, newTestKey(firstKey, endingAt(testStart), func(key *Key) {
		for i := range 5 {
			m := key.Materials[0]
			m.ID, m.Ref.ID = rotatedID(i+2), hsm.KeyID(rotatedID(i+2))
			key.Materials = append(key.Materials, m)
		}
	}))
	r.clock.set(testStart.Add(time.Hour))
	for range 2 {
		require.Equal(t, retryWait, r.attendAll(t.Context()))
	}
	require.Equal(t, longestWait, r.attendAll(t.Context()))
	require.Empty(t, r.token.ids())
	require.Empty(t, records(t, r.Service, ""))
	require.Equal(t, 6, r.token.tries, "it destroyed again what was gone")
}

// TestTwoSchedules has two servers on one store do the same work at the same time.
func TestTwoSchedules(t *testing.T) {
	r := newScheduleRig(t)
	ids := keyIDs(60)
	keys := make([]*Key, len(ids))
	for i, id := range ids {
		keys[i] = newTestKey(id, endingAt(testStart.Add(time.Duration(i%3)*time.Second)))
	}
	r.enter(t, keys...)
	r.enter(t, newTestKey(secondKey))
	r.clock.set(testStart.Add(time.Minute))
	var running sync.WaitGroup
	for _, s := range []*Service{r.Service, r.second(t)} {
		running.Go(func() { s.attendAll(t.Context()) })
	}
	running.Wait()
	requireGone(t, r.Service, ids...)
	require.Equal(t, []hsm.KeyID{secondKey}, r.token.ids())
	require.Empty(t, r.log.all())
}

// TestCancelRacesDeletion cancels deletions while two schedules carry them out. Whichever transaction comes first decides:
// a key is saved with its material, or gone with it.
func TestCancelRacesDeletion(t *testing.T) {
	r := newScheduleRig(t)
	ids := keyIDs(80)
	for _, id := range ids {
		r.enter(t, newTestKey(id, endingAt(testStart), func(key *Key) { key.Materials[0].Ref.ID = hsm.KeyID(id) }))
	}
	r.clock.set(testStart.Add(-time.Second))
	saved := map[string]bool{}
	var running sync.WaitGroup
	cancelled := make(chan struct{}, len(ids))
	running.Go(func() {
		for i := range slices.Backward(ids) {
			err := r.cancelDeletion(t, ids[i])
			saved[ids[i]] = err == nil
			if err != nil && TypeOf(err) != NotFound {
				t.Errorf("cancelling: %v", err)
			}
			cancelled <- struct{}{}
		}
	})
	for range len(ids) / 4 {
		<-cancelled
	}
	r.clock.set(testStart.Add(time.Second))
	for _, s := range []*Service{r.Service, r.second(t)} {
		running.Go(func() { s.attendAll(t.Context()) })
	}
	running.Wait()
	r.attendAll(t.Context())
	requireIndexed(t, r.Service)
	var left []hsm.KeyID
	for _, id := range ids {
		out, err := r.DescribeKey(t.Context(), newRequest("DescribeKey"), &DescribeKeyInput{KeyId: id})
		require.Equal(t, saved[id], err == nil, "%s: %v", id, err)
		if saved[id] {
			require.Equal(t, DisabledState, out.KeyMetadata.KeyState)
			left = append(left, hsm.KeyID(id))
		}
	}
	require.Equal(t, left, r.token.ids())
	require.GreaterOrEqual(t, len(left), len(ids)/4)
	require.Less(t, len(left), len(ids), "nothing was deleted")
	require.Empty(t, r.log.all())
}

// TestStaleEntry has a schedule come to an entry that it read before the key was saved.
func TestStaleEntry(t *testing.T) {
	r := newScheduleRig(t)
	key := newTestKey(firstKey, endingAt(testStart))
	r.enter(t, key)
	r.clock.set(testStart.Add(-time.Second))
	require.NoError(t, r.cancelDeletion(t, firstKey))
	require.NoError(t, r.update(t.Context(), func(tx *recorder) error { return tx.mark(key.dueEntry()) })) // as if it were read
	r.clock.set(testStart.Add(time.Second))
	require.Equal(t, longestWait, r.attendAll(t.Context()))
	requireIndexed(t, r.Service)
	require.Len(t, r.token.ids(), 1)
	out, err := r.DescribeKey(t.Context(), newRequest("DescribeKey"), &DescribeKeyInput{KeyId: firstKey})
	require.NoError(t, err)
	require.Equal(t, DisabledState, out.KeyMetadata.KeyState)
	require.Nil(t, out.KeyMetadata.DeletionDate)
}

// TestCancelOfIncompleteKey saves a key whose imported material is gone, or goes while it waits for its end.
func TestCancelOfIncompleteKey(t *testing.T) {
	external := func(key *Key) { key.Origin = OriginExternal }
	expiring := func(key *Key) { key.Materials[0].Expires = testStart.Add(time.Hour) }
	without := func(key *Key) { key.Materials = nil }
	for _, edits := range [][]func(*Key){{external, expiring}, {external, without}} {
		r := newScheduleRig(t)
		r.enter(t, newTestKey(firstKey, append(edits, endingAt(testStart.Add(week)))...))
		requireIndexed(t, r.Service)
		r.clock.set(testStart.Add(2 * time.Hour))
		r.attendAll(t.Context())
		requireIndexed(t, r.Service)
		require.Empty(t, r.token.ids())
		out, err := r.DescribeKey(t.Context(), newRequest("DescribeKey"), &DescribeKeyInput{KeyId: firstKey})
		require.NoError(t, err)
		require.Equal(t, PendingDeletion, out.KeyMetadata.KeyState)
		require.NoError(t, r.cancelDeletion(t, firstKey))
		out, err = r.DescribeKey(t.Context(), newRequest("DescribeKey"), &DescribeKeyInput{KeyId: firstKey})
		require.NoError(t, err)
		require.Equal(t, PendingImport, out.KeyMetadata.KeyState)
		requireIndexed(t, r.Service)
	}
}

// TestWindow pins the waiting period, and its length with another day.
func TestWindow(t *testing.T) {
	for _, day := range []time.Duration{24 * time.Hour, time.Second, time.Millisecond} {
		for days, text := range map[int32]string{7: "", 30: "", 0: "no", 6: "no", 31: "no", 365: "no"} {
			r := newScheduleRig(t, func(cfg *Config) { cfg.Day = day })
			r.enter(t, newTestKey(firstKey))
			out, err := r.ScheduleKeyDeletion(t.Context(), newRequest("ScheduleKeyDeletion"), &ScheduleKeyDeletionInput{KeyId: firstKey, PendingWindowInDays: &days})
			if text != "" {
				requireError(t, out, err, Validation, "PendingWindowInDays must be between 7 and 30.")
				continue
			}
			require.NoError(t, err)
			require.Equal(t, testStart.Truncate(time.Millisecond).Add(time.Duration(days)*day), out.DeletionDate.Time)
			require.Equal(t, days, out.PendingWindowInDays)
		}
	}
}

// TestStocktakeAmidChanges compares token and store while keys are made and deleted. Neither is an orphan, nor missing.
func TestStocktakeAmidChanges(t *testing.T) {
	r := newScheduleRig(t)
	stray := newTestKey(secondKey)
	ids := keyIDs(2)
	r.enter(t, stray)
	for i, id := range ids { // which end during the one listing and the other
		at := testStart.Add(time.Duration(i+1) * time.Hour)
		r.enter(t, newTestKey(id, endingAt(at), func(key *Key) { key.Materials[0].Ref.ID = hsm.KeyID(id) }))
	}
	r.token.place("orphan")
	require.NoError(t, r.token.DestroyKey(t.Context(), stray.Materials[0].Ref)) // so that it is missing
	change := func() {
		r.createNamed(t, "alias/"+r.clock.Now().Format("15"))
		r.clock.set(r.clock.Now().Add(time.Hour + time.Millisecond))
		r.attendAll(t.Context())
	}
	r.token.listing = []func(){change, change}
	found, err := r.Stocktake(t.Context(), testRegion)
	require.NoError(t, err)
	require.Equal(t, []hsm.Object{{ID: "orphan", Label: "kms/test"}}, found.Orphans)
	require.Equal(t, []string{secondKey}, found.Missing)
	requireGone(t, r.Service, ids...)
}

// TestStocktakeKnowsDooms has materials that wait for their destruction, on the token or not any more.
func TestStocktakeKnowsDooms(t *testing.T) {
	r := newScheduleRig(t)
	require.NoError(t, r.update(t.Context(), func(tx *recorder) error {
		return tx.doom(testRegion, "x", doom{Refs: []hsm.KeyRef{{ID: "still there"}, {ID: "destroyed already"}}})
	}))
	r.token.place("still there")
	found, err := r.Stocktake(t.Context(), testRegion)
	require.NoError(t, err)
	require.Empty(t, found)
}
