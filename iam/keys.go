package iam

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"io"

	"hsmkms/store"
)

// The prefixes of AWS's ids.
const (
	lasting   = "AKIA" // access keys of users and root users
	temporary = "ASIA" // access keys of sessions
	userIDs   = "AIDA"
	roleIDs   = "AROA"
	policyIDs = "ANPA"
)

// newID makes an id in AWS's form: a prefix and characters of base32 (RFC 4648), five bits of chance each.
func (s *Service) newID(prefix string, characters int) (string, error) {
	random := make([]byte, (characters*5+7)/8)
	if _, err := io.ReadFull(s.cfg.Rand, random); err != nil {
		return "", fmt.Errorf("making an id: %w", err)
	}
	return prefix + base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(random)[:characters], nil
}

// newKey makes an access key in AWS's form: an id of 20 characters and a secret of 40, which the caller wipes. Nothing is
// written. It is a visit to the token.
func (s *Service) newKey(ctx context.Context, prefix, account, owner string) (*credential, []byte, error) {
	id, err := s.newID(prefix, 16)
	if err != nil {
		return nil, nil, err
	}
	secret, err := s.randomText(30)
	if err != nil {
		return nil, nil, err
	}
	sealed, err := s.cfg.Vault.Seal(ctx, keyPrefix+id, secret)
	if err != nil {
		clear(secret)
		return nil, nil, fmt.Errorf("sealing the secret of an access key: %w", err)
	}
	return &credential{ID: id, Account: account, Owner: owner, Sealed: sealed, Created: s.now()}, secret, nil
}

// randomText gives base64 of random bytes, a multiple of three of them.
func (s *Service) randomText(size int) ([]byte, error) {
	random := make([]byte, size)
	defer clear(random)
	if _, err := io.ReadFull(s.cfg.Rand, random); err != nil {
		return nil, fmt.Errorf("making a secret: %w", err)
	}
	return base64.StdEncoding.AppendEncode(make([]byte, 0, base64.StdEncoding.EncodedLen(size)), random), nil
}

// tokenSize is the number of random bytes in a session token.
const tokenSize = 48

// newSession makes temporary credentials of an owner, with a session token that the caller wipes with the secret. The
// caller completes and writes the record.
func (s *Service) newSession(ctx context.Context, account, owner string) (key *credential, secret, token []byte, err error) {
	if token, err = s.randomText(tokenSize); err != nil {
		return nil, nil, nil, err
	}
	if key, secret, err = s.newKey(ctx, temporary, account, owner); err != nil {
		clear(token)
		return nil, nil, nil, err
	}
	digest := sha256.Sum256(token)
	key.Session = &session{Token: digest[:]}
	return key, secret, token, nil
}

// putKey writes a new access key.
func putKey(t store.Txn, key *credential) error {
	if key.Session == nil {
		if err := t.Put(keysOf(key.Owner)+key.ID, nil); err != nil {
			return err
		}
	} else if err := t.Put(expiryRecord(key), nil); err != nil {
		return err
	}
	return put(t, keyPrefix+key.ID, key)
}

// dropKey removes an access key of a user or root user.
func dropKey(t store.Txn, owner, id string) error {
	for _, record := range []string{keyPrefix + id, keysOf(owner) + id, usedPrefix + id} {
		if err := t.Delete(record); err != nil {
			return err
		}
	}
	return nil
}
