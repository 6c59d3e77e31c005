package kms

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"hsmkms/hsm"
	"hsmkms/store"
)

// The keys of the store, in which <...> stands for a part without slashes (but for the name of an alias, which is last):
//
//	key/<region>/<key id>                         Key
//	account-key/<account>/<region>/<key id>       nothing: the keys of an account, for listing
//	alias/<account>/<region>/<alias name>         Alias
//	key-alias/<region>/<key id>/<alias name>      nothing: the aliases of a key
//
// A key is found by its id alone within a Region, because that is all a ciphertext says.
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
	Tags        []Tag     `json:"tags,omitempty"`
	// Materials are the key materials, oldest first. New ciphertext is made with the last.
	Materials []Material `json:"materials,omitempty"`

	arn string // of a record that was read, see ARN
}

// Material is one generation of a key's material.
type Material struct {
	// ID is the AWS KeyMaterialId: 64 lower-case hexadecimal digits.
	ID      string     `json:"id"`
	Ref     hsm.KeyRef `json:"ref"`
	Created time.Time  `json:"created"`
}

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
	key.arn = key.ARN()
	return key, nil
}

// current is the material that new ciphertext is made with.
func (k *Key) current() *Material {
	if len(k.Materials) == 0 {
		return nil
	}
	return &k.Materials[len(k.Materials)-1]
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
	written []string
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

// key reads a key's record inside the transaction, free to be changed; nil if there is none.
func (t *recorder) key(region, id string) (*Key, error) {
	return read[Key](t, keyRecord(region, id))
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
		txn = &recorder{Txn: t}
		return fn(txn)
	})
	if txn != nil { // also after a failure, which may have come after the commit
		s.keys.Forget(txn.written...)
		s.aliases.Forget(txn.written...)
	}
	return err
}

// change applies a change to a key's record in a transaction. f sees the record as it is now, not as it was when the
// request was authorized, and must check what matters again.
func (s *Service) change(ctx context.Context, key *Key, f func(*Key) error) error {
	return s.update(ctx, func(t *recorder) error {
		now, err := t.key(key.Region, key.ID)
		if err != nil {
			return err
		}
		if now == nil {
			return notFound(key.ARN())
		}
		if err := f(now); err != nil {
			return err
		}
		return t.put(keyRecord(key.Region, key.ID), now)
	})
}
