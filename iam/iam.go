// Package iam keeps the identities: accounts and the access keys of their root users. It finds the identity behind an
// access key for the verification of signatures; what the identity may do is decided elsewhere.
package iam

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"hsmkms/policy"
	"hsmkms/store"
)

// Vault encrypts small secrets under a key of the token, bound to a name. hsm.Vault is one.
type Vault interface {
	Seal(ctx context.Context, name string, secret []byte) ([]byte, error)
	// Open gives the secret, which the caller wipes.
	Open(ctx context.Context, name string, sealed []byte) ([]byte, error)
}

// Config describes a Service.
type Config struct {
	Store store.Store
	Vault Vault
	// Clock gives the time; nil means time.Now.
	Clock func() time.Time
	// Rand is the source of access keys; nil means crypto/rand.
	Rand io.Reader
}

// Service manages identities. It is safe for concurrent use.
type Service struct {
	cfg  Config
	keys *store.Cache[*accessKey]
}

// The keys of the store.
const (
	accountPrefix   = "account/"
	accessKeyPrefix = "access-key/"
)

// cachedKeys bounds the number of access keys held in memory.
const cachedKeys = 10_000

// account is the record of an account.
type account struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
}

// accessKey is the record of an access key.
type accessKey struct {
	ID        string           `json:"id"`
	Principal policy.Principal `json:"principal"`
	// Sealed is the secret as the vault sealed it under the id of the key.
	Sealed  []byte    `json:"sealed"`
	Created time.Time `json:"created"`
}

var (
	// ErrAccountID says that an account id is not 12 digits.
	ErrAccountID = errors.New("an account id has 12 digits")
	// ErrAccountExists says that there is an account with that id.
	ErrAccountExists = errors.New("the account exists")
)

// New makes a Service. Run must be running while it is in use.
func New(cfg Config) (*Service, error) {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	keys, err := store.NewCache(cfg.Store, accessKeyPrefix, cachedKeys, decodeAccessKey)
	if err != nil {
		return nil, err
	}
	return &Service{cfg: cfg, keys: keys}, nil
}

func decodeAccessKey(value []byte) (*accessKey, error) {
	key := new(accessKey)
	if err := json.Unmarshal(value, key); err != nil {
		return nil, fmt.Errorf("reading an access key: %w", err)
	}
	key.Principal.AccessKeyID = key.ID
	return key, nil
}

// Run follows changes of the store until ctx ends.
func (s *Service) Run(ctx context.Context) error { return s.keys.Run(ctx) }

// AccessKey is a new access key: the only time that its secret is seen.
type AccessKey struct {
	ID     string
	Secret []byte
}

// CreateAccount makes an account and an access key of its root user. keep is given the key before the account exists, to
// put it where it is not lost; if it fails, no account is made. The secret is wiped when keep has returned. It fails with
// ErrAccountID or ErrAccountExists.
func (s *Service) CreateAccount(ctx context.Context, id string, keep func(AccessKey) error) error {
	if len(id) != 12 || strings.Trim(id, "0123456789") != "" {
		return ErrAccountID
	}
	if err := s.cfg.Store.View(ctx, func(r store.Reader) error { return vacant(r, id) }); err != nil {
		return fmt.Errorf("creating account %s: %w", id, err)
	}
	key, record, err := s.newAccessKey(ctx, policy.Principal{Type: policy.Root, Account: id, ARN: "arn:aws:iam::" + id + ":root"})
	if err != nil {
		return fmt.Errorf("making access key: %w", err)
	}
	err = keep(key)
	clear(key.Secret)
	if err != nil {
		return fmt.Errorf("keeping the access key of account %s: %w", id, err)
	}
	err = s.cfg.Store.Update(ctx, func(t store.Txn) error {
		if err := vacant(t, id); err != nil {
			return err
		}
		if err := put(t, accountPrefix+id, account{ID: id, Created: record.Created}); err != nil {
			return err
		}
		return put(t, accessKeyPrefix+key.ID, record)
	})
	if err != nil {
		return fmt.Errorf("creating account %s: %w", id, err)
	}
	return nil
}

// vacant fails if there is an account with the id.
func vacant(r store.Reader, id string) error {
	_, found, err := r.Get(accountPrefix + id)
	if err == nil && found {
		return ErrAccountExists
	}
	return err
}

func put(t store.Txn, key string, record any) error {
	value, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("writing record: %w", err)
	}
	return t.Put(key, value)
}

// newAccessKey makes an access key in AWS's form: 20 characters that begin with AKIA, and a secret of 40.
func (s *Service) newAccessKey(ctx context.Context, principal policy.Principal) (AccessKey, *accessKey, error) {
	var random [40]byte
	defer clear(random[:])
	if _, err := io.ReadFull(s.cfg.Rand, random[:]); err != nil {
		return AccessKey{}, nil, err
	}
	id := "AKIA" + base32.StdEncoding.EncodeToString(random[30:])
	secret := base64.StdEncoding.AppendEncode(make([]byte, 0, 40), random[:30])
	sealed, err := s.cfg.Vault.Seal(ctx, accessKeyPrefix+id, secret)
	if err != nil {
		clear(secret)
		return AccessKey{}, nil, err
	}
	record := &accessKey{ID: id, Principal: principal, Sealed: sealed, Created: s.cfg.Clock().UTC()}
	return AccessKey{ID: id, Secret: secret}, record, nil
}

// Identity gives the identity behind an access key, and false if there is none. version changes whenever the secret does.
func (s *Service) Identity(ctx context.Context, accessKeyID string) (principal *policy.Principal, version string, found bool, err error) {
	key, found, err := s.keys.Get(ctx, accessKeyPrefix+accessKeyID)
	if err != nil || !found {
		return nil, "", false, err
	}
	return &key.Principal, key.Created.Format(time.RFC3339Nano), true, nil
}

// Secret gives the secret of an access key, which the caller wipes. It is a visit to the token.
func (s *Service) Secret(ctx context.Context, accessKeyID string) ([]byte, error) {
	key, found, err := s.keys.Get(ctx, accessKeyPrefix+accessKeyID)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("no access key %s", accessKeyID)
	}
	return s.cfg.Vault.Open(ctx, accessKeyPrefix+accessKeyID, key.Sealed)
}
