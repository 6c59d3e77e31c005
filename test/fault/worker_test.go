package fault

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"
)

// fact is a value that one client alone changes. It is what the server acknowledged last, or else what the change would
// make it that was under way when the server was killed.
type fact[T comparable] struct{ is, may T }

func known[T comparable](value T) fact[T] { return fact[T]{value, value} }

// change makes a change and notes what is known of its outcome.
func (f *fact[T]) change(to T, request func() error) error {
	f.may = to
	err := request()
	if err == nil {
		*f = known(to)
	}
	return err
}

// settle checks a fact and takes note of it.
func (f *fact[T]) settle(t *testing.T, got T, what string) {
	t.Helper()
	require.Contains(t, []T{f.is, f.may}, got, what)
	*f = known(got)
}

// wrongAnswer says that the server contradicts what it acknowledged.
type wrongAnswer struct{ what, got, want string }

func (e *wrongAnswer) Error() string { return fmt.Sprintf("%s is %q, not %q", e.what, e.got, e.want) }

// same fails if the server contradicts what it acknowledged.
func same[T any](what string, got, want T) error {
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		return &wrongAnswer{what, g, w}
	}
	return nil
}

// making is what a request under way makes on the token: what a kill may leave there.
type making int

const (
	nothing  making = iota
	material        // leaves something only where key material lives on the token
	pair            // for an import, in both homes
)

// worker is a client that keeps changing its own keys and aliases. It remembers what it was told.
type worker struct {
	name    string
	random  *rand.Rand
	keys    []*ownKey
	aliases map[string]*fact[string] // the id of the key, "" if there is no such alias
	// creating is the key that was being made when the server was killed, nil if none was.
	creating *ownKey
	making   making
	made     int
	ended    int // keys
}

func newWorker(name string, seed uint64) *worker {
	w := &worker{
		name: name, random: rand.New(rand.NewPCG(seed, uint64(len(name)))),
		aliases: map[string]*fact[string]{},
	}
	for i := range aliasesEach {
		w.aliases[fmt.Sprintf("alias/%s/%d", name, i)] = &fact[string]{}
	}
	return w
}

// work takes steps until the server does not answer any more, and counts them. It fails if the server refuses one, or
// forgets one.
func (w *worker) work(client *kms.Client, count *atomic.Int64) error {
	for ; ; count.Add(1) {
		err := w.step(client)
		var refusal smithy.APIError
		var wrong *wrongAnswer
		if errors.As(err, &refusal) || errors.As(err, &wrong) {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		if err != nil {
			return nil //nolint:nilerr // the server is gone
		}
	}
}

// step is a change that a worker makes.
type step struct {
	operation string
	// weight is how often it is chosen, among those that are possible.
	weight   int
	possible func(*worker, *ownKey) bool
	take     func(*worker, *kms.Client, *ownKey) error
}

// steps has a row for every operation that writes; TestStepsAreComplete sees to that.
var steps = []step{
	{"CreateKey", 2, (*worker).canCreate, func(w *worker, c *kms.Client, _ *ownKey) error { return w.createKey(c) }},
	{"EnableKey", 12, is(disabled), (*worker).enable},
	{"DisableKey", 2, is(enabled), (*worker).disable},
	{"UpdateKeyDescription", 2, alive, (*worker).describe},
	{"PutKeyPolicy", 3, alive, (*worker).putPolicy},
	{"TagResource", 3, alive, (*worker).tag},
	{"UntagResource", 3, isTagged, (*worker).untag},
	{"ScheduleKeyDeletion", 2, isMortal, (*worker).scheduleDeletion},
	{"CancelKeyDeletion", 4, isSavable, (*worker).cancelDeletion},
	{"CreateAlias", 3, (*worker).canCreateAlias, (*worker).createAlias},
	{"UpdateAlias", 2, (*worker).canMoveAlias, (*worker).updateAlias},
	{"DeleteAlias", 2, (*worker).canMoveAlias, (*worker).deleteAlias},
	{"CreateGrant", 4, is(enabled), (*worker).createGrant},
	{"RetireGrant", 2, isGranted, (*worker).retireGrant},
	{"RevokeGrant", 2, isGranted, (*worker).revokeGrant},
	{"EnableKeyRotation", 3, canTurn, (*worker).enableRotation},
	{"DisableKeyRotation", 1, isTurning, (*worker).disableRotation},
	{"RotateKeyOnDemand", 4, canRotate, (*worker).rotate},
	{"GetParametersForImport", 1, canPrepareImport, (*worker).prepareImport},
	{"ImportKeyMaterial", 8, canImport, (*worker).importMaterial},
	{"DeleteImportedKeyMaterial", 4, canUnimport, (*worker).deleteMaterial},
}

// step makes a change that is possible, or looks whether all is as it should be.
func (w *worker) step(client *kms.Client) error {
	if len(w.keys) == 0 {
		return w.createKey(client)
	}
	key := w.pick()
	if key.needsPair() {
		return w.prepareImport(client, key)
	}
	if key.steady && canTurn(w, key) {
		return w.enableRotation(client, key)
	}
	var possible []step
	for _, s := range steps {
		if s.possible(w, key) {
			for range s.weight {
				possible = append(possible, s)
			}
		}
	}
	if len(possible) == 0 || w.random.IntN(8) == 0 {
		return w.look(client, key)
	}
	return possible[w.random.IntN(len(possible))].take(w, client, key)
}

// pick chooses a key; that with imported material more often, because there are few of its kind.
func (w *worker) pick() *ownKey {
	if i := slices.IndexFunc(w.keys, (*ownKey).isExternal); i >= 0 && w.random.IntN(3) == 0 {
		return w.keys[i]
	}
	return w.keys[w.random.IntN(len(w.keys))]
}

// keysEach is how many keys a worker has at most, beside those that were made without its getting the answer.
const keysEach = 5

func (w *worker) canCreate(*ownKey) bool { return len(w.keys) < keysEach }

// createKey makes a key, and a ciphertext under it unless its material is to be imported. One key of a worker is steady,
// and one of those of imported material, as long as they live.
func (w *worker) createKey(client *kms.Client) error {
	w.made++
	key := newOwnKey(fmt.Sprintf("made by %s as number %d", w.name, w.made))
	in := &kms.CreateKeyInput{
		Description: &key.description.is, Policy: &key.policy.is, Origin: types.OriginTypeAwsKms,
		Tags: []types.Tag{{TagKey: aws.String("team"), TagValue: &w.name}},
	}
	key.tags = known("team=" + w.name)
	key.steady = !w.has(func(k *ownKey) bool { return k.steady })
	if !key.steady && !w.has((*ownKey).isExternal) && w.random.IntN(2) == 0 {
		in.Origin = types.OriginTypeExternal
		key.becomeExternal()
	}
	w.creating = key
	err := w.while(material, func() error {
		out, err := client.CreateKey(background, in)
		if err == nil {
			key.key = *out.KeyMetadata.KeyId
		}
		return err
	})
	if err != nil {
		return err
	}
	w.keys, w.creating = append(w.keys, key), nil
	return key.seal(client)
}

func (w *worker) has(f func(*ownKey) bool) bool { return slices.ContainsFunc(w.keys, f) }

// while notes what a request makes on the token, until it is answered.
func (w *worker) while(what making, request func() error) error {
	w.making = what
	err := request()
	if err == nil {
		w.making = nothing
	}
	return err
}

// bury takes note of the end of a key, with which its aliases end.
func (w *worker) bury(key *ownKey) {
	w.keys = slices.DeleteFunc(w.keys, func(k *ownKey) bool { return k == key })
	for _, alias := range w.aliases {
		if alias.is == key.key {
			*alias = fact[string]{}
		}
	}
	w.ended++
}

// look compares a key with what is known of it, which is all of it while no change is under way.
func (w *worker) look(client *kms.Client, key *ownKey) error {
	got, err := key.observe(client)
	if err != nil {
		return err
	}
	if got.condition.state == gone {
		w.bury(key)
		return nil
	}
	if err := same("condition of "+key.key, got.condition, key.condition.is); err != nil {
		return err
	}
	if err := same("description of "+key.key, got.description, key.description.is); err != nil {
		return err
	}
	if got.condition.state == dying {
		return nil // and may end at any moment
	}
	readings := key.readings()
	r := readings[w.random.IntN(len(readings))]
	value, err := r.read(client)
	if err != nil {
		return err
	}
	return same(r.what+" of "+key.key, value, r.fact.is)
}
