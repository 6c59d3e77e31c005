package fault

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go"
)

// fact is a value that one client alone changes. It is what the server acknowledged last, or else what the change would
// make it that was under way when the server was killed.
type fact struct{ is, may string }

func known(value string) fact { return fact{value, value} }

// change makes a change and notes what is known of its outcome.
func (f *fact) change(to string, request func() error) error {
	f.may = to
	err := request()
	if err == nil {
		*f = known(to)
	}
	return err
}

// ownKey is a key that a worker made. Its facts are its state and its description.
type ownKey struct {
	secret
	state, description fact
}

// worker is a client that keeps changing its own keys and aliases. It remembers what it was told.
type worker struct {
	name    string
	random  *rand.Rand
	keys    []*ownKey
	aliases map[string]*fact // the id of the key, "" if there is no such alias
	// creating is the description of the key that was being made when the server was killed, "" if none was.
	creating string
	made     int
}

const (
	enabled  = "Enabled"
	disabled = "Disabled"
	dying    = "PendingDeletion"
)

// aliasesEach is how many names for aliases a worker has.
const aliasesEach = 6

func newWorker(name string, seed uint64) *worker {
	w := &worker{name: name, random: rand.New(rand.NewPCG(seed, uint64(len(name)))), aliases: map[string]*fact{}}
	for i := range aliasesEach {
		w.aliases[fmt.Sprintf("alias/%s/%d", name, i)] = &fact{}
	}
	return w
}

// work makes changes until the server does not answer any more, and counts them. It fails if the server refuses one, or
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

// wrongAnswer says that the server contradicts what it acknowledged.
type wrongAnswer struct{ what, got, want string }

func (e *wrongAnswer) Error() string { return fmt.Sprintf("%s is %q, not %q", e.what, e.got, e.want) }

func (w *worker) step(client *kms.Client) error {
	if len(w.keys) == 0 {
		return w.createKey(client)
	}
	key := w.keys[w.random.IntN(len(w.keys))]
	if key.state.is == dying { // takes no other change
		if w.random.IntN(2) == 0 {
			return key.look(client)
		}
		return key.toggle(client)
	}
	switch w.random.IntN(11) {
	case 0:
		return w.createKey(client)
	case 1, 2:
		return key.toggle(client)
	case 3:
		return key.describe(client, fmt.Sprintf("described %d", w.random.Int()))
	case 4:
		return key.look(client)
	case 5:
		return key.scheduleDeletion(client)
	default:
		return w.changeAlias(client, key)
	}
}

// createKey makes a key and a ciphertext under it.
func (w *worker) createKey(client *kms.Client) error {
	w.made++
	w.creating = fmt.Sprintf("made by %s as number %d", w.name, w.made)
	out, err := client.CreateKey(background, &kms.CreateKeyInput{Description: &w.creating})
	if err != nil {
		return err
	}
	key := &ownKey{secret: secret{key: *out.KeyMetadata.KeyId}, state: known(enabled), description: known(w.creating)}
	w.keys, w.creating = append(w.keys, key), ""
	return key.encrypt(client)
}

func (k *ownKey) encrypt(client *kms.Client) error {
	text := "secret of " + k.key
	out, err := client.Encrypt(background, &kms.EncryptInput{KeyId: &k.key, Plaintext: []byte(text)})
	if err == nil {
		k.plaintext, k.blob = text, out.CiphertextBlob
	}
	return err
}

// toggle takes the key one state on: a dying one is saved, which leaves it disabled.
func (k *ownKey) toggle(client *kms.Client) error {
	if k.state.is == dying {
		return k.state.change(disabled, func() error {
			_, err := client.CancelKeyDeletion(background, &kms.CancelKeyDeletionInput{KeyId: &k.key})
			return err
		})
	}
	if k.state.is == enabled {
		return k.state.change(disabled, func() error {
			_, err := client.DisableKey(background, &kms.DisableKeyInput{KeyId: &k.key})
			return err
		})
	}
	return k.state.change(enabled, func() error {
		_, err := client.EnableKey(background, &kms.EnableKeyInput{KeyId: &k.key})
		return err
	})
}

// scheduleDeletion has the key deleted in a far future.
func (k *ownKey) scheduleDeletion(client *kms.Client) error {
	return k.state.change(dying, func() error {
		_, err := client.ScheduleKeyDeletion(background, &kms.ScheduleKeyDeletionInput{KeyId: &k.key})
		return err
	})
}

func (k *ownKey) describe(client *kms.Client, text string) error {
	return k.description.change(text, func() error {
		_, err := client.UpdateKeyDescription(background, &kms.UpdateKeyDescriptionInput{KeyId: &k.key, Description: &text})
		return err
	})
}

// look compares the key with what is known of it, which is all of it while no change is under way.
func (k *ownKey) look(client *kms.Client) error {
	out, err := client.DescribeKey(background, &kms.DescribeKeyInput{KeyId: &k.key})
	if err != nil {
		return err
	}
	if got := string(out.KeyMetadata.KeyState); got != k.state.is {
		return &wrongAnswer{"state of " + k.key, got, k.state.is}
	}
	if got := aws.ToString(out.KeyMetadata.Description); got != k.description.is {
		return &wrongAnswer{"description of " + k.key, got, k.description.is}
	}
	return nil
}

// changeAlias makes an alias for the key, or moves one to it, or removes one.
func (w *worker) changeAlias(client *kms.Client, key *ownKey) error {
	name := fmt.Sprintf("alias/%s/%d", w.name, w.random.IntN(aliasesEach))
	alias := w.aliases[name]
	switch {
	case alias.is == "":
		return alias.change(key.key, func() error {
			_, err := client.CreateAlias(background, &kms.CreateAliasInput{AliasName: &name, TargetKeyId: &key.key})
			return err
		})
	case w.random.IntN(3) == 0:
		return alias.change("", func() error {
			_, err := client.DeleteAlias(background, &kms.DeleteAliasInput{AliasName: &name})
			return err
		})
	default:
		return alias.change(key.key, func() error {
			_, err := client.UpdateAlias(background, &kms.UpdateAliasInput{AliasName: &name, TargetKeyId: &key.key})
			return err
		})
	}
}
