package fault

import (
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"hsmkms/test/kmstest"
)

// The imported materials of a key are written as a letter each, oldest first. Only the last one can be pending, and the
// last of the others is the current one. Number i is always made of the same bytes and has its number as description.
const (
	present = '+'
	absent  = '-'
	pending = '?' // present, but to be used after the next rotation
)

// imports is what a worker knows of the import into a key.
type imports struct {
	// sets are valid for longer than the test lasts.
	sets []kmstest.ImportSet
	// asked counts requests for sets, of which the oldest end when there are more than ten.
	asked int
	// ids are those that materials turned out to have, by number.
	ids map[int]string
}

// The bounds keep key pairs, which take long to make, and materials few.
const (
	maxSets      = 4
	maxMaterials = 8
)

// becomeExternal makes a key that was not made yet one that waits for its material.
func (k *ownKey) becomeExternal() {
	k.imports = &imports{ids: map[int]string{}}
	k.condition = known(condition{state: waiting, imported: true})
}

func (k *ownKey) isExternal() bool { return k.imports != nil }

func (c condition) hasPending() bool { return strings.ContainsRune(c.materials, pending) }

// rotated is the condition after a rotation to the pending material.
func (c condition) rotated() condition {
	c.materials = strings.ReplaceAll(c.materials, string(pending), string(present))
	return c
}

// brought is the condition after the import of a material.
func (c condition) brought(number int) condition {
	switch {
	case number == len(c.materials) && number == 0:
		c.materials = string(present)
	case number == len(c.materials):
		c.materials += string(pending)
	case c.materials[number] == absent:
		c.materials = c.materials[:number] + string(present) + c.materials[number+1:]
	}
	return c.settled()
}

// removed is the condition after the deletion of a material. One that is pending leaves nothing behind.
func (c condition) removed(number int) condition {
	switch c.materials[number] {
	case pending:
		c.materials = c.materials[:number]
	case present:
		c.materials = c.materials[:number] + string(absent) + c.materials[number+1:]
	}
	return c.settled()
}

// settled is the condition with the state that follows from the materials: a key of imported material that lacks one waits
// for it, and can be used as soon as it has all.
func (c condition) settled() condition {
	if !c.imported || c.state == dying {
		return c
	}
	whole := c.current() >= 0 && !strings.ContainsRune(c.materials, absent)
	if !whole {
		c.state = waiting
	} else if c.state == waiting {
		c.state = enabled
	}
	return c
}

// current is the number of the current material, and -1 if the key never had one.
func (c condition) current() int { return len(strings.TrimRight(c.materials, string(pending))) - 1 }

func (k *ownKey) needsPair() bool {
	return k.imports != nil && len(k.imports.sets) == 0 && k.imports.asked < 2*maxSets && k.condition.is.state != dying
}

func canPrepareImport(w *worker, k *ownKey) bool {
	return k.imports != nil && alive(w, k) && len(k.imports.sets) < maxSets && k.imports.asked < 2*maxSets
}

func canImport(w *worker, k *ownKey) bool {
	return k.imports != nil && alive(w, k) && len(k.imports.sets) > 0
}

func canUnimport(w *worker, k *ownKey) bool {
	return k.imports != nil && alive(w, k) && strings.ContainsAny(k.condition.is.materials, string(present)+string(pending))
}

// prepareImport asks for an import set. The token unwraps in one of the ways itself, and needs help with the other.
func (w *worker) prepareImport(client *kms.Client, k *ownKey) error {
	algorithm := []types.AlgorithmSpec{types.AlgorithmSpecRsaesOaepSha1, types.AlgorithmSpecRsaesOaepSha256}[w.random.IntN(2)]
	k.imports.asked++
	return w.while(pair, func() error {
		out, err := client.GetParametersForImport(background, &kms.GetParametersForImportInput{
			KeyId: &k.key, WrappingAlgorithm: algorithm, WrappingKeySpec: types.WrappingKeySpecRsa2048,
		})
		if err != nil {
			return err
		}
		public, err := x509.ParsePKIXPublicKey(out.PublicKey)
		key, isRSA := public.(*rsa.PublicKey)
		if err != nil || !isRSA {
			return &wrongAnswer{"public key", fmt.Sprintf("%T, %v", public, err), "*rsa.PublicKey"}
		}
		k.imports.sets = append(k.imports.sets, kmstest.ImportSet{KeyID: k.key, Algorithm: string(algorithm), Token: out.ImportToken, Public: key})
		return nil
	})
}

// importMaterial brings back what is absent, or new material, or what the key has already.
func (w *worker) importMaterial(client *kms.Client, k *ownKey) error {
	now := k.condition.is
	number := strings.IndexRune(now.materials, absent)
	if number < 0 || w.random.IntN(4) == 0 {
		number = w.random.IntN(len(now.materials) + 1)
	}
	if number == len(now.materials) && (now.hasPending() || number == maxMaterials) {
		number--
	}
	return w.bring(client, k, number)
}

// bring imports a material with one of the key's sets. It must get the id that it had before.
func (w *worker) bring(client *kms.Client, k *ownKey, number int) error {
	set := k.imports.sets[w.random.IntN(len(k.imports.sets))]
	bytes := sha256.Sum256(fmt.Append(nil, k.key, number))
	wrapped, err := set.Wrap(bytes[:])
	if err != nil {
		return &wrongAnswer{"wrapping", err.Error(), "no error"}
	}
	in := &kms.ImportKeyMaterialInput{
		KeyId: &k.key, ImportToken: set.Token, EncryptedKeyMaterial: wrapped, KeyMaterialDescription: aws.String(fmt.Sprint(number)),
		ExpirationModel: types.ExpirationModelTypeKeyMaterialDoesNotExpire, ImportType: types.ImportTypeExistingKeyMaterial,
	}
	if number == len(k.condition.is.materials) {
		in.ImportType = types.ImportTypeNewKeyMaterial
	}
	var out *kms.ImportKeyMaterialOutput
	err = w.while(material, func() error {
		return k.condition.change(k.condition.is.brought(number), func() error {
			out, err = client.ImportKeyMaterial(background, in)
			return err
		})
	})
	if err != nil {
		return err
	}
	if err := k.imports.learn(number, aws.ToString(out.KeyMaterialId)); err != nil {
		return err
	}
	return k.seal(client)
}

// learn takes note of the id of a material, which never changes.
func (i *imports) learn(number int, id string) error {
	if before, seen := i.ids[number]; seen {
		return same("id of material", id, before)
	}
	i.ids[number] = id
	return nil
}

// deleteMaterial deletes a material that is there, by its id or, if it is the current one, without it.
func (w *worker) deleteMaterial(client *kms.Client, k *ownKey) error {
	now := k.condition.is
	var there []int
	for number, letter := range now.materials {
		if letter != absent {
			there = append(there, number)
		}
	}
	number := there[w.random.IntN(len(there))]
	in := &kms.DeleteImportedKeyMaterialInput{KeyId: &k.key, KeyMaterialId: aws.String(k.imports.ids[number])}
	if number == now.current() {
		in.KeyMaterialId = nil
	}
	return k.condition.change(now.removed(number), func() error {
		_, err := client.DeleteImportedKeyMaterial(background, in)
		return err
	})
}

var letters = map[types.ImportState]rune{types.ImportStateImported: present, types.ImportStatePendingImport: absent}

// importedMaterials reads what the key has of its imported materials.
func (k *ownKey) importedMaterials(client *kms.Client) (string, error) {
	out, err := client.ListKeyRotations(background, &kms.ListKeyRotationsInput{
		KeyId: &k.key, IncludeKeyMaterial: types.IncludeKeyMaterialAllKeyMaterial,
	})
	if err != nil {
		return "", err
	}
	var text strings.Builder
	var wrong error
	for number, entry := range out.Rotations {
		letter := letters[entry.ImportState]
		if entry.KeyMaterialState == types.KeyMaterialStatePendingRotation {
			letter = pending
		}
		text.WriteRune(letter)
		wrong = errors.Join(wrong, k.imports.learn(number, *entry.KeyMaterialId),
			same("description of material", aws.ToString(entry.KeyMaterialDescription), fmt.Sprint(number)))
	}
	now := condition{materials: text.String()}
	for number, entry := range out.Rotations {
		isCurrent := entry.KeyMaterialState == types.KeyMaterialStateCurrent
		wrong = errors.Join(wrong, same(fmt.Sprintf("currency of material %d of %s", number, now.materials), isCurrent, number == now.current()))
	}
	return now.materials, wrong
}
