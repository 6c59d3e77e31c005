package fault

import (
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"hsmkms/test/kmstest"
)

// condition is the state of a key and, if its material is imported, what the key has of it; see worker_import_test.go.
type condition struct {
	state, materials string
	imported         bool
}

const (
	enabled  = "Enabled"
	disabled = "Disabled"
	dying    = "PendingDeletion"
	waiting  = "PendingImport"
	// gone is no state of AWS's: there is no such key any more.
	gone = "gone"
)

// ownKey is a key that a worker made, with what is known of it.
type ownKey struct {
	secret // the last one
	// secrets are all others, by the id of the material that they need.
	secrets             map[string]secret
	condition           fact[condition]
	description, policy fact[string]
	// tags are written as a query, name=value&name=value, in order of their names.
	tags fact[string]
	// grants are the names of those that there are, in order, with spaces between them.
	grants fact[string]
	// told is what answers named for these grants, by name.
	told map[string]toldGrant
	// rotation is the period of the automatic rotation, or off.
	rotation fact[string]
	// steady is a key that nobody deletes, and whose automatic rotation, once on, stays on.
	steady bool
	// turned tells whether automatic rotation was ever on, as far as is known.
	turned bool
	// demanded counts the rotations on demand, if the material is not imported.
	demanded fact[int]
	// materials are the ids of those that the key was seen to have, oldest first, if they are not imported.
	materials []string
	// doomed is a key that nobody saves once its deletion is scheduled, which ends within ends.
	doomed bool
	ends   span
	// imports is nil for a key whose material the server makes.
	imports *imports
}

const off = "off"

// span bounds a moment. latest is zero if nothing is known of it.
type span struct{ earliest, latest time.Time }

func newOwnKey(description string) *ownKey {
	return &ownKey{
		secrets: map[string]secret{}, condition: known(condition{state: enabled}), description: known(description),
		policy: known(policyText("First")), rotation: known(off), tags: known(""), materials: []string{},
		grants: known(""), told: map[string]toldGrant{},
	}
}

func policyText(sid string) string {
	return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Sid":"%s","Effect":"Allow",`+
		`"Principal":{"AWS":"arn:aws:iam::%s:root"},"Action":"kms:*","Resource":"*"}]}`, sid, kmstest.Account)
}

func is(state string) func(*worker, *ownKey) bool {
	return func(_ *worker, k *ownKey) bool { return k.condition.is.state == state }
}

func alive(_ *worker, k *ownKey) bool { return k.condition.is.state != dying }

func isTagged(w *worker, k *ownKey) bool { return alive(w, k) && k.tags.is != "" }

func isSavable(_ *worker, k *ownKey) bool { return k.condition.is.state == dying && !k.doomed }

func isMortal(w *worker, k *ownKey) bool { return alive(w, k) && !k.steady }

func canTurn(_ *worker, k *ownKey) bool {
	return k.imports == nil && k.condition.is.state == enabled && (!k.steady || k.rotation.is == off)
}

func isTurning(w *worker, k *ownKey) bool { return canTurn(w, k) && k.rotation.is != off }

// canRotate is false for a key that is rotated automatically: its next rotation is always less than 20 minutes away, and
// then there is none on demand.
func canRotate(_ *worker, k *ownKey) bool {
	if k.condition.is.state != enabled {
		return false
	}
	if k.imports != nil {
		return k.condition.is.hasPending()
	}
	return k.rotation.is == off && k.demanded.is < 25
}

// move has the key's state changed by a request.
func (k *ownKey) move(state string, request func() error) error {
	to := k.condition.is
	to.state = state
	return k.condition.change(to.settled(), request)
}

func (w *worker) enable(client *kms.Client, k *ownKey) error {
	return k.move(enabled, func() error {
		_, err := client.EnableKey(background, &kms.EnableKeyInput{KeyId: &k.key})
		return err
	})
}

func (w *worker) disable(client *kms.Client, k *ownKey) error {
	return k.move(disabled, func() error {
		_, err := client.DisableKey(background, &kms.DisableKeyInput{KeyId: &k.key})
		return err
	})
}

// scheduleDeletion has the key deleted soon, or after the time in which it can be saved.
func (w *worker) scheduleDeletion(client *kms.Client, k *ownKey) error {
	k.doomed = w.random.IntN(2) == 0
	days := int32(30)
	if k.doomed {
		days = 7
	}
	k.ends = span{earliest: time.Now().Add(time.Duration(days) * killDay)}
	return k.move(dying, func() error {
		out, err := client.ScheduleKeyDeletion(background, &kms.ScheduleKeyDeletionInput{KeyId: &k.key, PendingWindowInDays: &days})
		if err == nil {
			k.ends = span{*out.DeletionDate, *out.DeletionDate}
		}
		return err
	})
}

// cancelDeletion saves a key, which leaves it without the right to be used, or comes too late.
func (w *worker) cancelDeletion(client *kms.Client, k *ownKey) error {
	asked := time.Now()
	err := k.move(disabled, func() error {
		_, err := client.CancelKeyDeletion(background, &kms.CancelKeyDeletionInput{KeyId: &k.key})
		return err
	})
	if isNotFound(err) {
		w.bury(k)
		return k.checkGone(time.Now())
	}
	if err != nil {
		return err
	}
	if err := k.checkThere(asked); err != nil {
		return err
	}
	k.ends = span{}
	return nil
}

func (w *worker) describe(client *kms.Client, k *ownKey) error {
	text := fmt.Sprintf("described %d", w.random.Int())
	return k.description.change(text, func() error {
		_, err := client.UpdateKeyDescription(background, &kms.UpdateKeyDescriptionInput{KeyId: &k.key, Description: &text})
		return err
	})
}

func (w *worker) putPolicy(client *kms.Client, k *ownKey) error {
	policy := policyText(fmt.Sprintf("Put%d", w.random.Int()))
	return k.policy.change(policy, func() error {
		_, err := client.PutKeyPolicy(background, &kms.PutKeyPolicyInput{KeyId: &k.key, Policy: &policy})
		return err
	})
}

// tag writes two tags at once: both are there, or none.
func (w *worker) tag(client *kms.Client, k *ownKey) error {
	tags, _ := url.ParseQuery(k.tags.is) // we wrote it
	var in []types.Tag
	for _, i := range w.random.Perm(4)[:2] {
		name, value := fmt.Sprintf("tag%d", i), fmt.Sprint(w.random.IntN(1000))
		tags.Set(name, value)
		in = append(in, types.Tag{TagKey: &name, TagValue: &value})
	}
	return k.tags.change(tags.Encode(), func() error {
		_, err := client.TagResource(background, &kms.TagResourceInput{KeyId: &k.key, Tags: in})
		return err
	})
}

// untag removes one tag, or all at once.
func (w *worker) untag(client *kms.Client, k *ownKey) error {
	tags, _ := url.ParseQuery(k.tags.is)
	var names []string
	for name := range tags {
		names = append(names, name)
	}
	slices.Sort(names)
	if w.random.IntN(2) == 0 {
		names = names[:1]
	}
	for _, name := range names {
		tags.Del(name)
	}
	return k.tags.change(tags.Encode(), func() error {
		_, err := client.UntagResource(background, &kms.UntagResourceInput{KeyId: &k.key, TagKeys: names})
		return err
	})
}

// enableRotation has the key rotated within the time of the test, or not.
func (w *worker) enableRotation(client *kms.Client, k *ownKey) error {
	days := int32(90)
	if !k.steady && w.random.IntN(3) == 0 {
		days = 2560
	}
	k.turned = true
	return k.rotation.change(fmt.Sprint(days), func() error {
		_, err := client.EnableKeyRotation(background, &kms.EnableKeyRotationInput{KeyId: &k.key, RotationPeriodInDays: &days})
		return err
	})
}

func (w *worker) disableRotation(client *kms.Client, k *ownKey) error {
	return k.rotation.change(off, func() error {
		_, err := client.DisableKeyRotation(background, &kms.DisableKeyRotationInput{KeyId: &k.key})
		return err
	})
}

// rotate rotates on demand, to the pending material if it is imported, and encrypts under the new one.
func (w *worker) rotate(client *kms.Client, k *ownKey) error {
	request := func() error {
		_, err := client.RotateKeyOnDemand(background, &kms.RotateKeyOnDemandInput{KeyId: &k.key})
		return err
	}
	var err error
	if k.imports != nil {
		err = k.condition.change(k.condition.is.rotated(), request)
	} else {
		err = w.while(material, func() error { return k.demanded.change(k.demanded.is+1, request) })
	}
	if err != nil {
		return err
	}
	return k.seal(client)
}
