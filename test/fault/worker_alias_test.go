package fault

import (
	"maps"
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/kms"
)

// aliasesEach is how many names for aliases a worker has.
const aliasesEach = 6

// names gives the names that have an alias, or have none. Those of keys that come to their end are left alone.
func (w *worker) names(taken bool) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(w.aliases)) {
		alias := w.aliases[name].is
		if (alias != "") == taken && !w.isDying(alias) {
			names = append(names, name)
		}
	}
	return names
}

// isDying tells whether a key of the worker is pending deletion.
func (w *worker) isDying(id string) bool {
	for _, key := range w.keys {
		if key.key == id {
			return key.condition.is.state == dying
		}
	}
	return false
}

func (w *worker) canCreateAlias(k *ownKey) bool { return alive(w, k) && len(w.names(false)) > 0 }

func (w *worker) canMoveAlias(k *ownKey) bool { return alive(w, k) && len(w.names(true)) > 0 }

// anyName chooses among names.
func (w *worker) anyName(taken bool) (name string, alias *fact[string]) {
	names := w.names(taken)
	name = names[w.random.IntN(len(names))]
	return name, w.aliases[name]
}

func (w *worker) createAlias(client *kms.Client, k *ownKey) error {
	name, alias := w.anyName(false)
	return alias.change(k.key, func() error {
		_, err := client.CreateAlias(background, &kms.CreateAliasInput{AliasName: &name, TargetKeyId: &k.key})
		return err
	})
}

func (w *worker) updateAlias(client *kms.Client, k *ownKey) error {
	name, alias := w.anyName(true)
	return alias.change(k.key, func() error {
		_, err := client.UpdateAlias(background, &kms.UpdateAliasInput{AliasName: &name, TargetKeyId: &k.key})
		return err
	})
}

func (w *worker) deleteAlias(client *kms.Client, _ *ownKey) error {
	name, alias := w.anyName(true)
	return alias.change("", func() error {
		_, err := client.DeleteAlias(background, &kms.DeleteAliasInput{AliasName: &name})
		return err
	})
}
