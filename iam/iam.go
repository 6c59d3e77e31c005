// Package iam keeps the identities and serves the AWS IAM and STS APIs for them: accounts with a root user, users and roles
// with their policies, access keys, and the temporary credentials of sessions. It finds the identity behind an access key
// for the verification of signatures, with all policies that decide what it may do; the decision itself is policy's.
//
// Each operation is a method of Service, named as in the AWS APIs and with AWS's own Input and Output; who asks is a
// parameter of every one of them (access.go). The package knows neither HTTP nor the token.
package iam

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
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
	// Rand is the source of ids, secrets and session tokens; nil means crypto/rand.
	Rand io.Reader
	// Log receives what an operator should know; nil discards it.
	Log *slog.Logger
}

// Service manages identities. It is safe for concurrent use. Its methods fail with an *Error for what a caller may know and
// with any other error for what only the operator may.
type Service struct {
	cfg        Config
	identities *store.Cache[*Identity]
	uses       uses
}

// cachedIdentities bounds the number of identities, by access keys, that are held in memory.
const cachedIdentities = 10_000

// New makes a Service. Run must be running while it is in use.
func New(cfg Config) (*Service, error) {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	identities, err := store.NewJoin(cfg.Store, recordPrefix, cachedIdentities, compose, stale)
	if err != nil {
		return nil, err
	}
	return &Service{cfg: cfg, identities: identities, uses: uses{latest: map[string]*use{}}}, nil
}

// Run follows changes of the store, writes down when access keys were used, and clears away sessions that have ended, until
// ctx ends.
func (s *Service) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	kept := make(chan struct{})
	go func() { defer close(kept); s.keepHouse(ctx) }() // ends with ctx
	err := s.identities.Run(ctx)
	stop()
	<-kept
	return err
}

// RootKey is a new access key of a root user: the only time that its secret is seen.
type RootKey struct {
	ID     string
	Secret []byte
}

// CreateAccount makes an account and an access key of its root user. keep is given the key before the account exists, to
// put it where it is not lost; if it fails, no account is made. The secret is wiped when keep has returned. It fails with
// ErrAccountID or ErrAccountExists.
func (s *Service) CreateAccount(ctx context.Context, id string, keep func(RootKey) error) error {
	if !policy.IsAccount(id) {
		return ErrAccountID
	}
	vacant := func(r store.Reader) error {
		a, err := read[account](r, accountPrefix+id)
		if err == nil && a != nil {
			err = ErrAccountExists
		}
		return err
	}
	err := s.newRootKey(ctx, id, keep, vacant, func(t store.Txn, key *credential) error {
		return put(t, accountPrefix+id, account{ID: id, Created: key.Created})
	})
	if err != nil {
		return fmt.Errorf("creating account %s: %w", id, err)
	}
	return nil
}

// RotateRoot makes a new access key of an account's root user, in the place of all that it had: they fail from the next
// request on. keep is given the key before that, as in CreateAccount. It fails with ErrNoAccount.
func (s *Service) RotateRoot(ctx context.Context, id string, keep func(RootKey) error) error {
	var dropped []string
	exists := func(r store.Reader) error {
		a, err := read[account](r, accountPrefix+id)
		if err == nil && a == nil {
			err = ErrNoAccount
		}
		return err
	}
	err := s.newRootKey(ctx, id, keep, exists, func(t store.Txn, _ *credential) (err error) {
		dropped, err = names(t, keysOf(id))
		for _, key := range dropped {
			err = errors.Join(err, dropKey(t, id, key))
		}
		return err
	})
	for _, key := range dropped {
		s.identities.Forget(keyPrefix + key)
		s.uses.forget(key)
	}
	if err != nil {
		return fmt.Errorf("rotating the root access key of account %s: %w", id, err)
	}
	return nil
}

// newRootKey makes an access key of a root user in one transaction with what write writes, both only if check agrees.
func (s *Service) newRootKey(ctx context.Context, id string, keep func(RootKey) error, check func(store.Reader) error,
	write func(store.Txn, *credential) error) error {
	if err := s.cfg.Store.View(ctx, check); err != nil {
		return err
	}
	key, secret, err := s.newKey(ctx, lasting, id, id)
	if err != nil {
		return err
	}
	err = keep(RootKey{ID: key.ID, Secret: secret})
	clear(secret)
	if err != nil {
		return fmt.Errorf("keeping the access key: %w", err)
	}
	return s.cfg.Store.Update(ctx, func(t store.Txn) error {
		if err := check(t); err != nil {
			return err
		}
		if err := write(t, key); err != nil {
			return err
		}
		return putKey(t, key)
	})
}

// Accounts gives the ids of all accounts, in order.
func (s *Service) Accounts(ctx context.Context) (ids []string, err error) {
	err = s.cfg.Store.View(ctx, func(r store.Reader) error {
		ids, err = names(r, accountPrefix)
		return err
	})
	return ids, err
}

// now is the time as records keep it: AWS's times have no fractions of a second.
func (s *Service) now() time.Time { return s.cfg.Clock().UTC().Truncate(time.Second) }
