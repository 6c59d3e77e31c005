package kms

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/store"
)

// rotor is a service whose time stands still until it is told otherwise, on a token that keeps account of its keys.
type rotor struct {
	*Service
	t     *testing.T
	mu    sync.Mutex
	now   time.Time
	log   bytes.Buffer
	token *mint
}

// rotorStart is when the time of every rotor begins.
var rotorStart = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

const (
	day = 24 * time.Hour
	// usual is the usual rotation period.
	usual = 365 * day
)

func newRotor(t *testing.T, edits ...func(*Config)) *rotor {
	t.Helper()
	r := &rotor{t: t, now: rotorStart, token: &mint{alive: map[hsm.KeyID]bool{}}}
	configure := func(cfg *Config) {
		cfg.Clock = r.clock
		cfg.Log = slog.New(slog.NewTextHandler(&lockedWriter{mu: &r.mu, w: &r.log}, nil))
	}
	r.Service = newService(t, r.token, append([]func(*Config){configure}, edits...)...)
	return r
}

func (r *rotor) clock() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

// sleep lets time pass.
func (r *rotor) sleep(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

func (r *rotor) logged() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.String()
}

// lockedWriter serializes writes with whatever else the mutex guards.
type lockedWriter struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// mint is a token that makes and destroys keys. Before each is made, hook is called, if there is one.
type mint struct {
	hsm.Token
	mu    sync.Mutex
	made  int
	alive map[hsm.KeyID]bool
	hook  func() error
}

func (m *mint) GenerateKey(_ context.Context, r hsm.KeyRequest) (hsm.KeyRef, error) {
	if m.hook != nil {
		if err := m.hook(); err != nil {
			return hsm.KeyRef{}, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.made++
	id := hsm.KeyID(fmt.Sprintf("%032x", m.made))
	m.alive[id] = true
	return hsm.KeyRef{ID: id, Kind: r.Kind}, nil
}

func (m *mint) DestroyKey(_ context.Context, key hsm.KeyRef) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.alive, key.ID)
	return nil
}

func (m *mint) Objects(context.Context) ([]hsm.Object, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var objects []hsm.Object
	for id := range m.alive {
		objects = append(objects, hsm.Object{ID: id})
	}
	return objects, nil
}

// newKey makes a key and gives its id.
func (r *rotor) newKey() string {
	r.t.Helper()
	out, err := r.CreateKey(r.t.Context(), newRequest("CreateKey"), &CreateKeyInput{})
	require.NoError(r.t, err)
	return out.KeyMetadata.KeyId
}

// newRotating makes a key that is rotated automatically after the usual period.
func (r *rotor) newRotating() string {
	r.t.Helper()
	id := r.newKey()
	r.enable(id, nil)
	return id
}

func (r *rotor) enable(id string, days *int32) {
	r.t.Helper()
	_, err := r.EnableKeyRotation(r.t.Context(), newRequest("EnableKeyRotation"), &EnableKeyRotationInput{KeyId: id, RotationPeriodInDays: days})
	require.NoError(r.t, err)
}

// demand asks for a rotation.
func (r *rotor) demand(id string) (*RotateKeyOnDemandOutput, error) {
	return r.RotateKeyOnDemand(r.t.Context(), newRequest("RotateKeyOnDemand"), &RotateKeyOnDemandInput{KeyId: id})
}

// attend has the schedule do what is due.
func (r *rotor) attend() {
	r.t.Helper()
	require.Positive(r.t, r.attendAll(r.t.Context()))
}

// record reads a key as the store has it.
func (r *rotor) record(id string) *Key { return storedKey(r.t, r.Service, id) }

func storedKey(t *testing.T, s *Service, id string) (key *Key) {
	t.Helper()
	require.NoError(t, s.cfg.Store.View(t.Context(), func(reader store.Reader) (err error) {
		key, err = read[Key](reader, keyRecord(testRegion, id))
		return err
	}))
	require.NotNil(t, key)
	return key
}

func (r *rotor) status(id string) *GetKeyRotationStatusOutput {
	r.t.Helper()
	out, err := r.GetKeyRotationStatus(r.t.Context(), newRequest("GetKeyRotationStatus"), &GetKeyRotationStatusInput{KeyId: id})
	require.NoError(r.t, err)
	return out
}

// requireNext checks when a key is rotated next.
func (r *rotor) requireNext(id string, at time.Time) {
	r.t.Helper()
	out := r.status(id)
	require.True(r.t, out.KeyRotationEnabled)
	require.Equal(r.t, at, out.NextRotationDate.UTC())
}

// requireMaterials checks how many materials a key has, that each but the first came by a rotation, and that the token has
// them and nothing else.
func (r *rotor) requireMaterials(ids map[string]int) {
	r.t.Helper()
	total := 0
	for id, want := range ids {
		key := r.record(id)
		require.Len(r.t, key.Materials, want, id)
		for i, m := range key.Materials {
			require.Equal(r.t, i > 0, m.How != "")
			require.Equal(r.t, i > 0, !m.Rotated.IsZero())
		}
		total += want
	}
	requireStock(r.t, r.Service)
	objects, err := r.token.Objects(r.t.Context())
	require.NoError(r.t, err)
	require.Len(r.t, objects, total)
}

// requireStock checks that the token has what the store knows, and nothing else.
func requireStock(t *testing.T, s *Service) {
	t.Helper()
	found, err := s.Stocktake(t.Context(), testRegion)
	require.NoError(t, err)
	require.Empty(t, found.Orphans)
	require.Empty(t, found.Missing)
}

// TestRotationOnTime looks a moment before the date and at it, twice.
func TestRotationOnTime(t *testing.T) {
	r := newRotor(t)
	id := r.newRotating()
	for i := range 2 {
		r.sleep(usual - time.Millisecond)
		r.attend()
		r.requireMaterials(map[string]int{id: i + 1})
		r.sleep(time.Millisecond)
		r.attend()
		r.requireMaterials(map[string]int{id: i + 2})
		r.attend()
		r.requireMaterials(map[string]int{id: i + 2})
		latest := r.record(id).current()
		require.Equal(t, Automatic, latest.How)
		require.Equal(t, r.clock(), latest.Rotated.UTC())
		r.requireNext(id, r.clock().Add(usual))
		require.Contains(t, r.logged(), `msg="key rotated" key=`+newTestKey(id).ARN()+` why="its rotation was due" material=`+latest.ID)
	}
}

// TestRotationLate comes back after a long time: the key is rotated once, and the next date is one to come.
func TestRotationLate(t *testing.T) {
	for late, next := range map[time.Duration]time.Duration{
		0:                                  2 * usual,
		day:                                2 * usual,
		usual - 1:                          2 * usual,
		usual:                              3 * usual,
		30*usual + 17*time.Millisecond + 3: 32*usual + 17*time.Millisecond,
	} {
		t.Run(late.String(), func(t *testing.T) {
			r := newRotor(t)
			id := r.newRotating()
			r.sleep(usual + late)
			r.attend()
			r.attend()
			r.requireMaterials(map[string]int{id: 2})
			r.requireNext(id, rotorStart.Add(next))
		})
	}
}

// TestRotationPeriod enables rotation anew in every way.
func TestRotationPeriod(t *testing.T) {
	r := newRotor(t, func(cfg *Config) { cfg.Day = time.Hour })
	id, days := r.newKey(), int32(90)
	r.enable(id, &days)
	first := rotorStart.Add(90 * time.Hour)
	r.requireNext(id, first)
	r.sleep(time.Hour)
	r.enable(id, &days)
	r.requireNext(id, first) // the same period leaves the date
	days = 91
	r.enable(id, &days)
	r.requireNext(id, r.clock().Add(91*time.Hour))
	require.EqualValues(t, 91, r.status(id).RotationPeriodInDays)
	r.enable(id, nil)
	r.requireNext(id, r.clock().Add(365*time.Hour))
	for range 2 {
		_, err := r.DisableKeyRotation(t.Context(), newRequest("DisableKeyRotation"), &DisableKeyRotationInput{KeyId: id})
		require.NoError(t, err)
		require.Equal(t, &GetKeyRotationStatusOutput{KeyId: newTestKey(id).ARN()}, r.status(id))
	}
	r.sleep(1000 * time.Hour)
	r.attend()
	r.requireMaterials(map[string]int{id: 1})
	r.enable(id, nil)
	r.requireNext(id, r.clock().Add(365*time.Hour))
}

// TestRotationByWrongClock rotates a key while the clock is years ahead. To enable its rotation once more brings its date back.
func TestRotationByWrongClock(t *testing.T) {
	r := newRotor(t)
	id := r.newRotating()
	r.sleep(10 * usual)
	r.attend()
	r.requireNext(id, rotorStart.Add(11*usual))
	r.sleep(-10*usual + day)
	r.enable(id, nil)
	r.requireNext(id, rotorStart.Add(day+usual))
	r.sleep(day)
	r.enable(id, nil)
	r.requireNext(id, rotorStart.Add(day+usual))
	requireIndexed(t, r.Service)
	r.sleep(usual - day)
	r.attend()
	r.requireMaterials(map[string]int{id: 3})
}

// TestDay refuses days whose periods would be beyond what a Duration holds: keys would be rotated again and again.
func TestDay(t *testing.T) {
	sound := newRotor(t).cfg
	for day, fits := range map[time.Duration]bool{-1: false, 0: true, 1: true, 24 * time.Hour: true, 24*time.Hour + 1: false, 1001 * time.Hour: false} {
		sound.Day = day
		s, err := New(sound)
		require.Equal(t, fits, err == nil, "%s: %v", day, err)
		if fits {
			require.Positive(t, s.period(2560))
			s.Close()
		}
	}
}

// TestRotationOfDisabledKey lets the date pass while the key is disabled. It is rotated as soon as it is enabled, which
// the schedule notices by itself.
func TestRotationOfDisabledKey(t *testing.T) {
	r := newRotor(t)
	id := r.newRotating()
	_, err := r.DisableKey(t.Context(), newRequest("DisableKey"), &DisableKeyInput{KeyId: id})
	require.NoError(t, err)
	r.sleep(usual + day)
	r.attend()
	r.requireMaterials(map[string]int{id: 1})
	r.requireNext(id, rotorStart.Add(usual)) // the status does not change
	runSchedule(t, r.Service)
	_, err = r.EnableKey(t.Context(), newRequest("EnableKey"), &EnableKeyInput{KeyId: id})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(r.record(id).Materials) == 2 }, time.Minute, time.Millisecond)
	r.requireMaterials(map[string]int{id: 2})
	r.requireNext(id, rotorStart.Add(2*usual))
}

// runSchedule runs a service until the test ends.
func runSchedule(t *testing.T, s *Service) {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() { s.Run(ctx); close(ended) }()
	t.Cleanup(func() { stop(); <-ended })
}

// TestRotationOfDyingKey schedules the deletion of a key, lets its rotation fall due, and cancels the deletion.
func TestRotationOfDyingKey(t *testing.T) {
	r := newRotor(t)
	id := r.newRotating()
	r.sleep(usual - day)
	_, err := r.ScheduleKeyDeletion(t.Context(), newRequest("ScheduleKeyDeletion"), &ScheduleKeyDeletionInput{KeyId: id})
	require.NoError(t, err)
	require.Equal(t, &GetKeyRotationStatusOutput{KeyId: newTestKey(id).ARN()}, r.status(id))
	r.sleep(2 * day)
	r.attend()
	r.requireMaterials(map[string]int{id: 1})
	_, err = r.CancelKeyDeletion(t.Context(), newRequest("CancelKeyDeletion"), &CancelKeyDeletionInput{KeyId: id})
	require.NoError(t, err)
	r.requireNext(id, rotorStart.Add(usual))
	r.attend()
	r.requireMaterials(map[string]int{id: 1}) // it is disabled
	_, err = r.EnableKey(t.Context(), newRequest("EnableKey"), &EnableKeyInput{KeyId: id})
	require.NoError(t, err)
	r.attend()
	r.requireMaterials(map[string]int{id: 2})
	r.requireNext(id, rotorStart.Add(2*usual))
}

// TestRotationOfSpecialKeys asks for the rotation of keys that cannot have it.
func TestRotationOfSpecialKeys(t *testing.T) {
	external := func(key *Key) { key.Origin = OriginExternal }
	rsa := func(key *Key) { key.Spec, key.Usage = "RSA_2048", SignVerify }
	origin := newTestKey(firstKey).ARN() + " origin is EXTERNAL which is not valid for this operation."
	disabled, dying := newTestKey(firstKey).ARN()+" is disabled.", newTestKey(firstKey).ARN()+" is pending deletion."
	const automatic, demand, reading = "automatic", "demand", "reading"
	for _, test := range []struct {
		name  string
		edit  func(*Key)
		state KeyState
		// want is type and text by kind of operation; a kind that is not there succeeds.
		want map[string]*Error
	}{
		{"external", external, Enabled, map[string]*Error{
			automatic: Errorf(UnsupportedOperation, "%s", origin), "status": Errorf(UnsupportedOperation, "%s", origin),
			demand: Errorf(InvalidState, "No available key material pending rotation for the key: %s.", newTestKey(firstKey).ARN()),
		}},
		{"external disabled", external, DisabledState, map[string]*Error{
			automatic: Errorf(UnsupportedOperation, "%s", origin), "status": Errorf(UnsupportedOperation, "%s", origin), demand: Errorf(Disabled, "%s", disabled),
		}},
		{"external dying", external, PendingDeletion, map[string]*Error{
			automatic: Errorf(UnsupportedOperation, "%s", origin), "status": Errorf(UnsupportedOperation, "%s", origin), demand: Errorf(InvalidState, "%s", dying),
		}},
		{"external without material", external, PendingImport, map[string]*Error{
			automatic: Errorf(UnsupportedOperation, "%s", origin), "status": Errorf(UnsupportedOperation, "%s", origin),
			demand: Errorf(InvalidState, "%s is pending import.", newTestKey(firstKey).ARN()),
		}},
		{"RSA", rsa, Enabled, map[string]*Error{
			automatic: {Type: UnsupportedOperation}, "status": {Type: UnsupportedOperation}, demand: {Type: UnsupportedOperation}, reading: {Type: UnsupportedOperation},
		}},
		{"RSA disabled", rsa, DisabledState, map[string]*Error{
			automatic: Errorf(Disabled, "%s", disabled), "status": {Type: UnsupportedOperation}, demand: Errorf(Disabled, "%s", disabled), reading: {Type: UnsupportedOperation},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newService(t, fakeToken{}) // which must not be called
			put(t, s, newTestKey(firstKey, test.edit, func(key *Key) {
				key.State, key.Deletion = test.state, map[bool]time.Time{true: time.Now().Add(day)}[test.state == PendingDeletion]
			}))
			for name, call := range rotationCalls(t, s) {
				kind := map[string]string{"EnableKeyRotation": automatic, "DisableKeyRotation": automatic, "GetKeyRotationStatus": "status",
					"RotateKeyOnDemand": demand, "ListKeyRotations": reading}[name]
				err := call()
				if want := test.want[kind]; want != nil {
					var shown *Error
					require.ErrorAs(t, err, &shown, name)
					require.Equal(t, want, shown, name)
				} else {
					require.NoError(t, err, name)
				}
			}
		})
	}
}

// rotationCalls calls each operation of this family for firstKey.
func rotationCalls(t *testing.T, s *Service) map[string]func() error {
	return map[string]func() error{
		"EnableKeyRotation": func() error {
			_, err := s.EnableKeyRotation(t.Context(), newRequest("EnableKeyRotation"), &EnableKeyRotationInput{KeyId: firstKey})
			return err
		},
		"DisableKeyRotation": func() error {
			_, err := s.DisableKeyRotation(t.Context(), newRequest("DisableKeyRotation"), &DisableKeyRotationInput{KeyId: firstKey})
			return err
		},
		"GetKeyRotationStatus": func() error {
			_, err := s.GetKeyRotationStatus(t.Context(), newRequest("GetKeyRotationStatus"), &GetKeyRotationStatusInput{KeyId: firstKey})
			return err
		},
		"RotateKeyOnDemand": func() error {
			_, err := s.RotateKeyOnDemand(t.Context(), newRequest("RotateKeyOnDemand"), &RotateKeyOnDemandInput{KeyId: firstKey})
			return err
		},
		"ListKeyRotations": func() error {
			_, err := s.ListKeyRotations(t.Context(), newRequest("ListKeyRotations"), &ListKeyRotationsInput{KeyId: firstKey})
			return err
		},
	}
}

// TestRotationWithoutToken fails to make material for one of two keys whose rotation is due. The other one is rotated, and
// this one later.
func TestRotationWithoutToken(t *testing.T) {
	r := newRotor(t)
	first, second := r.newRotating(), r.newRotating()
	r.sleep(usual)
	failures := 1
	r.token.hook = func() error {
		if failures == 0 {
			return nil
		}
		failures--
		return &hsm.Error{Class: hsm.Failed}
	}
	require.Equal(t, retryWait, r.attendAll(t.Context()))
	require.Contains(t, r.logged(), `level=ERROR msg="doing what is due"`)
	require.Equal(t, 3, len(r.record(first).Materials)+len(r.record(second).Materials))
	r.attend()
	r.requireMaterials(map[string]int{first: 2, second: 2})
}

// TestRotationWithTokenAway has a token out of reach, or hanging, when many rotations are due. It is asked once each time, and
// holds up neither the deletions of its own Region nor the rotations of another.
func TestRotationWithTokenAway(t *testing.T) {
	for _, class := range []hsm.Class{hsm.Busy, hsm.TokenGone, hsm.LoginFailed} {
		west := &mint{alive: map[hsm.KeyID]bool{}}
		r := newRotor(t, func(cfg *Config) { cfg.Regions["us-west-2"] = Region{Token: west} })
		due := map[string]int{}
		for range 5 {
			due[r.newRotating()] = 2
		}
		dying := r.newKey()
		_, err := r.ScheduleKeyDeletion(t.Context(), newRequest("ScheduleKeyDeletion"), &ScheduleKeyDeletionInput{KeyId: dying})
		require.NoError(t, err)
		request := newRequest("CreateKey")
		request.Region = "us-west-2"
		out, err := r.CreateKey(t.Context(), request, &CreateKeyInput{})
		require.NoError(t, err)
		_, err = r.EnableKeyRotation(t.Context(), request, &EnableKeyRotationInput{KeyId: out.KeyMetadata.KeyId})
		require.NoError(t, err)

		r.sleep(usual)
		tries := 0
		r.token.hook = func() error { tries++; return &hsm.Error{Class: class} }
		for n := range 2 {
			require.Equal(t, retryWait, r.attendAll(t.Context()))
			require.Equal(t, n+1, tries, class)
			require.Empty(t, records(t, r.Service, keyRecord(testRegion, dying)))
			require.Equal(t, 2, west.made)
		}
		r.token.hook = nil
		require.Equal(t, longestWait, r.attendAll(t.Context()))
		r.requireMaterials(due)
	}
}

// TestRotationWithoutStore fails to store fresh material: it goes, unless its record may have been stored after all. The
// rotation is made later.
func TestRotationWithoutStore(t *testing.T) {
	for _, test := range []struct {
		err              error
		committed        bool
		orphans, rotated int
	}{{errors.New("disk full"), false, 0, 0}, {store.ErrUncertain, false, 1, 0}, {store.ErrUncertain, true, 0, 1}} {
		t.Run(fmt.Sprint(test.err, test.committed), func(t *testing.T) {
			r := newRotor(t)
			id := r.newRotating()
			r.sleep(usual)
			sound := r.cfg.Store
			r.token.hook = func() error { r.cfg.Store = failingStore{sound, test.err, test.committed}; return nil }
			require.ErrorIs(t, r.rotateOnSchedule(t.Context(), r.record(id)), test.err)
			r.cfg.Store, r.token.hook = sound, nil
			require.Len(t, r.record(id).Materials, 1+test.rotated)
			found, err := r.Stocktake(t.Context(), testRegion)
			require.NoError(t, err)
			require.Len(t, found.Orphans, test.orphans)
			require.Empty(t, found.Missing)
			r.attend()
			require.Len(t, r.record(id).Materials, 2)
		})
	}
}
