package fault

import (
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// sight is what DescribeKey, and the list of materials if they are imported, say of a key.
type sight struct {
	condition            condition
	description, current string
}

// observe looks at a key. One that is gone must be so from the moment that the answer to ScheduleKeyDeletion named, and
// not before.
func (k *ownKey) observe(client *kms.Client) (sight, error) {
	asked := time.Now()
	out, err := client.DescribeKey(background, &kms.DescribeKeyInput{KeyId: &k.key})
	if isNotFound(err) {
		return sight{condition: condition{state: gone}}, k.checkGone(time.Now())
	}
	if err != nil {
		return sight{}, err
	}
	data := out.KeyMetadata
	got := sight{condition{state: string(data.KeyState), imported: k.imports != nil}, aws.ToString(data.Description), aws.ToString(data.CurrentKeyMaterialId)}
	if data.KeyState == dying {
		if err := k.checkThere(asked); err != nil {
			return sight{}, err
		}
		if k.ends.latest.IsZero() { // the answer that named it never came
			k.ends.latest = *data.DeletionDate
		}
		if err := same("date of the deletion of "+k.key, *data.DeletionDate, k.ends.latest); err != nil {
			return sight{}, err
		}
	}
	if k.imports == nil {
		return got, nil
	}
	got.condition.materials, err = k.importedMaterials(client)
	if isNotFound(err) { // it came to its end meanwhile
		return sight{condition: condition{state: gone}}, k.checkGone(time.Now())
	}
	return got, err
}

// reading is a fact with the way to read it.
type reading struct {
	what string
	fact *fact[string]
	read func(*kms.Client) (string, error)
}

// readings are those of a key that is not pending deletion.
func (k *ownKey) readings() []reading {
	all := []reading{{"policy", &k.policy, k.readPolicy}, {"tags", &k.tags, k.readTags}, {"grants", &k.grants, k.readGrants}}
	if k.imports == nil {
		all = append(all, reading{"rotation", &k.rotation, k.readRotation})
	}
	return all
}

func (k *ownKey) readPolicy(client *kms.Client) (string, error) {
	out, err := client.GetKeyPolicy(background, &kms.GetKeyPolicyInput{KeyId: &k.key})
	if err != nil {
		return "", err
	}
	return aws.ToString(out.Policy), nil
}

func (k *ownKey) readTags(client *kms.Client) (string, error) {
	out, err := client.ListResourceTags(background, &kms.ListResourceTagsInput{KeyId: &k.key})
	if err != nil {
		return "", err
	}
	tags := url.Values{}
	for _, tag := range out.Tags {
		tags.Add(*tag.TagKey, *tag.TagValue)
	}
	return tags.Encode(), nil
}

func (k *ownKey) readRotation(client *kms.Client) (string, error) {
	out, err := client.GetKeyRotationStatus(background, &kms.GetKeyRotationStatusInput{KeyId: &k.key})
	if err != nil {
		return "", err
	}
	if !out.KeyRotationEnabled {
		return off, nil
	}
	return fmt.Sprint(*out.RotationPeriodInDays), nil
}

func isNotFound(err error) bool {
	var refusal *types.NotFoundException
	return errors.As(err, &refusal)
}

// grain is how exactly answers tell a time.
const grain = time.Millisecond

// checkGone fails if the key may not be gone at a time.
func (k *ownKey) checkGone(answered time.Time) error {
	if k.ends.earliest.IsZero() || answered.Before(k.ends.earliest.Add(-grain)) {
		return &wrongAnswer{"end of " + k.key, answered.String(), k.ends.earliest.String()}
	}
	return nil
}

// checkThere fails if a key that is pending deletion, as far as is known, must be gone at a time.
func (k *ownKey) checkThere(asked time.Time) error {
	if !k.ends.latest.IsZero() && asked.After(k.ends.latest.Add(grain)) {
		return &wrongAnswer{"end of " + k.key, "not yet at " + asked.String(), k.ends.latest.String()}
	}
	return nil
}

// seal opens the last ciphertext, which would be forgotten else, and encrypts anew.
func (k *ownKey) seal(client *kms.Client) error {
	if k.condition.is.state != enabled {
		return nil
	}
	if err := k.open(client); err != nil {
		return err
	}
	return k.encrypt(client)
}

func (k *ownKey) encrypt(client *kms.Client) error {
	text := fmt.Sprintf("secret %d of %s", len(k.secrets), k.key)
	out, err := client.Encrypt(background, &kms.EncryptInput{KeyId: &k.key, Plaintext: []byte(text)})
	if err == nil {
		k.plaintext, k.blob = text, out.CiphertextBlob
	}
	return err
}

// open opens the last ciphertext, and keeps it as the one of its material.
func (k *ownKey) open(client *kms.Client) error {
	if k.blob == nil {
		return nil
	}
	id, err := k.secret.open(client)
	if err == nil {
		k.secrets[id] = k.secret
	}
	return err
}

// open opens the ciphertext and gives the id of the material that did it.
func (x secret) open(client *kms.Client) (id string, err error) {
	out, err := client.Decrypt(background, &kms.DecryptInput{CiphertextBlob: x.blob})
	if err != nil {
		return "", err
	}
	return aws.ToString(out.KeyMaterialId), same("plaintext of "+x.key, string(out.Plaintext), x.plaintext)
}
