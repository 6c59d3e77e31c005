package kms

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"
	"unique"

	"hsmkms/hsm"
	"hsmkms/policy"
	"hsmkms/store"
)

// The keys of the store, in which <...> stands for a part without slashes (but for the name of an alias, which is last):
//
//	key/<region>/<key id>                         Key
//	account-key/<account>/<region>/<key id>       nothing: the keys of an account, for listing
//	alias/<account>/<region>/<alias name>         Alias
//	key-alias/<region>/<key id>/<alias name>      nothing: the aliases of a key
//	due/<time>/<region>/<kind>/<id>               nothing: what time does to a key or an import set, see schedule.go
//	doomed/<region>/<id>                          doom: what is to be destroyed on the token, see doom.go
//
// A key is found by its id alone within a Region, because that is all a ciphertext says. Files that keep records of
// another kind describe them there (system.go, meter.go, importset.go).
const (
	keyPrefix        = "key/"
	accountKeyPrefix = "account-key/"
	aliasPrefix      = "alias/"
	keyAliasPrefix   = "key-alias/"
)

func keyRecord(region, id string) string { return keyPrefix + region + "/" + id }

func accountKeys(account, region string) string {
	return accountKeyPrefix + account + "/" + region + "/"
}

func aliasRecords(account, region string) string { return aliasPrefix + account + "/" + region + "/" }

func keyAliases(region, id string) string { return keyAliasPrefix + region + "/" + id + "/" }

// Key is the record of a KMS key. Records that come from the cache are shared and never changed.
type Key struct {
	ID          string    `json:"id"`
	Account     string    `json:"account"`
	Region      string    `json:"region"`
	Spec        KeySpec   `json:"spec"`
	Usage       KeyUsage  `json:"usage"`
	Origin      Origin    `json:"origin"`
	State       KeyState  `json:"state"`
	MultiRegion bool      `json:"multiRegion,omitempty"`
	Description string    `json:"description,omitempty"`
	Created     time.Time `json:"created"`
	Policy      string    `json:"policy"`
	// Principals says who the principals of Policy are.
	Principals policy.Bindings `json:"principals,omitempty"`
	Tags       []Tag           `json:"tags,omitempty"`
	// Materials are the key materials, oldest first. One that waits for its rotation is the last.
	Materials []Material `json:"materials,omitempty"`
	// Deletion is when the key ends to exist, in the state PendingDeletion only.
	Deletion time.Time `json:"deletion,omitzero"`
	// Rotation is nil while automatic rotation is off.
	Rotation *Rotation `json:"rotation,omitempty"`
	// OnDemand counts the rotations on demand.
	OnDemand int `json:"onDemand,omitempty"`

	arn string // of a record that was read, see ARN
	// ruling is the policy of a record that was read, see compiled.
	ruling unique.Handle[ruled]
	// due is when time changes the key by itself, see Key.at; zero if it does not.
	due time.Time
	// indexed is the record's entry in the index of what is due, as it stands in the store; "" if there is none.
	indexed string
	// dropped are materials that the key no longer has, to be destroyed once the record is committed.
	dropped []hsm.KeyRef
	// news are what the service did to the key by itself, to be written with it.
	news []happening
}

// Material is one generation of a key's material.
type Material struct {
	// ID is the AWS KeyMaterialId: 64 lower-case hexadecimal digits.
	ID string `json:"id"`
	// Ref has no ID while the material, which was imported, is deleted or expired.
	Ref     hsm.KeyRef `json:"ref,omitzero"`
	Created time.Time  `json:"created"`
	// Rotated is when the material took the place of the one before it, and How why; zero for the first one and for one that
	// is Pending.
	Rotated time.Time    `json:"rotated,omitzero"`
	How     RotationType `json:"how,omitempty"`
	// Pending material was imported to take the place of the current one at the next rotation.
	Pending bool `json:"pending,omitempty"`
	// Expires is when imported material is destroyed; zero for never.
	Expires time.Time `json:"expires,omitzero"`
	// Description is the KeyMaterialDescription of imported material.
	Description string `json:"description,omitempty"`
	// Base is what the counter of free encryptions stood at when the material was made, see meter.go.
	Base uint64 `json:"base,omitempty"`
}

// shownID is the id of one of the key's materials as answers give it: only those of symmetric keys are shown.
func (k *Key) shownID(m *Material) string {
	if !k.symmetric() {
		return ""
	}
	return m.ID
}

// present tells whether the material can be used.
func (m *Material) present() bool { return m.Ref.ID != "" }

// ARN is the key ARN.
func (k *Key) ARN() string {
	if k.arn != "" {
		return k.arn
	}
	return "arn:aws:kms:" + k.Region + ":" + k.Account + ":key/" + k.ID
}

// decodeKey reads a record and makes its ARN, which every request needs several times.
func decodeKey(value []byte) (*Key, error) {
	key, err := decode[Key](value)
	if err != nil {
		return nil, err
	}
	key.setPolicy(key.Policy, key.Principals)
	key.Policy = key.ruling.Value().text // most keys have the same one
	key.arn, key.due, key.indexed = key.ARN(), key.nextChange(), key.dueEntry()
	return key, nil
}

// current is the material that new ciphertext is made with; nil if the key never had one. See Material.present.
func (k *Key) current() *Material {
	for i := len(k.Materials) - 1; i >= 0; i-- {
		if !k.Materials[i].Pending {
			return &k.Materials[i]
		}
	}
	return nil
}

// pending is the material that waits for its rotation, or nil.
func (k *Key) pending() *Material {
	if n := len(k.Materials); n > 0 && k.Materials[n-1].Pending {
		return &k.Materials[n-1]
	}
	return nil
}

// material finds a material by its id; nil if the key never had it.
func (k *Key) material(id string) *Material {
	for i := range k.Materials {
		if k.Materials[i].ID == id {
			return &k.Materials[i]
		}
	}
	return nil
}

// Alias is the record of an alias.
type Alias struct {
	// Name begins with alias/.
	Name    string    `json:"name"`
	KeyID   string    `json:"keyId"`
	Created time.Time `json:"created"`
	Updated time.Time `json:"updated"`
}

func decode[T any](value []byte) (*T, error) {
	record := new(T)
	if err := json.Unmarshal(value, record); err != nil {
		return nil, fmt.Errorf("reading a record: %w", err)
	}
	return record, nil
}

// recorder is a transaction that remembers what it wrote.
type recorder struct {
	store.Txn
	now     time.Time
	written []string
	// random is the source of eventIDs; nil without an audit trail.
	random io.Reader
	// happenings counts those that it wrote.
	happenings int
	// doomed are the ids of the doom records that it wrote, by Region.
	doomed []doomName
}

func (t *recorder) put(key string, record any) error {
	value, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("writing a record: %w", err)
	}
	return t.write(key, value)
}

// mark puts an entry of an index.
func (t *recorder) mark(key string) error { return t.write(key, []byte{}) }

func (t *recorder) write(key string, value []byte) error {
	t.written = append(t.written, key)
	return t.Put(key, value)
}

func (t *recorder) remove(key string) error {
	t.written = append(t.written, key)
	return t.Delete(key)
}

// key reads a key inside the transaction, as it is now (see Key.at), free to be changed; nil if there is none.
func (t *recorder) key(region, id string) (*Key, error) {
	value, found, err := t.Get(keyRecord(region, id))
	if err != nil || !found {
		return nil, err
	}
	key, err := decodeKey(value)
	if err != nil {
		return nil, err
	}
	return key.at(t.now), nil
}

// putKey writes a key's record, its entry in the index of what is due, the doom of the materials that it dropped, and what has
// happened to it: once in a transaction. It leaves the key as it is, which may have been made outside of a transaction that is tried again.
func (t *recorder) putKey(key *Key) error {
	if entry := key.dueEntry(); entry != key.indexed {
		if err := t.reindex(key.indexed, entry); err != nil {
			return err
		}
	}
	for _, ref := range key.dropped {
		if err := t.doom(key.Region, string(ref.ID), doom{Refs: []hsm.KeyRef{ref}}); err != nil {
			return err
		}
	}
	for _, h := range key.news {
		if err := t.happened(key, h); err != nil {
			return err
		}
	}
	return t.put(keyRecord(key.Region, key.ID), key)
}

func read[T any](r store.Reader, key string) (*T, error) {
	value, found, err := r.Get(key)
	if err != nil || !found {
		return nil, err
	}
	return decode[T](value)
}

// update runs a transaction and, once it is committed, makes the caches forget what it changed: the next request on
// this server sees the change.
func (s *Service) update(ctx context.Context, fn func(*recorder) error) error {
	var txn *recorder
	err := s.cfg.Store.Update(ctx, func(t store.Txn) error {
		txn = &recorder{Txn: t, now: s.cfg.Clock()}
		if s.cfg.Trail != nil {
			txn.random = s.cfg.Rand
		}
		return fn(txn)
	})
	if txn != nil { // also after a failure, which may have come after the commit
		s.keys.Forget(txn.written...)
		s.aliases.Forget(txn.written...)
		s.shapes.Forget(txn.written...)
		s.grants.Forget(txn.written...)
	}
	return err
}

// change applies a change to a key's record in a transaction and gives the record as it then is. f sees the record as it is
// now, not as it was when the request was authorized, and must check what matters again.
func (s *Service) change(ctx context.Context, key *Key, f func(*Key) error) (now *Key, err error) {
	err = s.update(ctx, func(t *recorder) error {
		now, err = t.key(key.Region, key.ID)
		if err != nil {
			return err
		}
		if now == nil {
			return notFound(key.ARN())
		}
		if err := f(now); err != nil {
			return err
		}
		return t.putKey(now)
	})
	if err != nil {
		return nil, err
	}
	return now, nil
}
