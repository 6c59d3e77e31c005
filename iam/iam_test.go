package iam

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/policy"
	"hsmkms/store"
	"hsmkms/store/bolt"
)

// fakeVault turns secrets around, which shows that they pass through it, and binds them to their names.
type fakeVault struct{ fail error }

func (v fakeVault) Seal(_ context.Context, name string, secret []byte) ([]byte, error) {
	return append([]byte(name+"\x00"), reversed(secret)...), v.fail
}

func (v fakeVault) Open(_ context.Context, name string, sealed []byte) ([]byte, error) {
	rest, ok := bytes.CutPrefix(sealed, []byte(name+"\x00"))
	if !ok {
		return nil, errors.New("another name")
	}
	return reversed(rest), v.fail
}

func reversed(b []byte) []byte {
	var r []byte
	for i := len(b) - 1; i >= 0; i-- {
		r = append(r, b[i])
	}
	return r
}

func openService(t *testing.T, vault Vault) (*Service, store.Store) {
	t.Helper()
	st, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "db")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	s, err := New(Config{Store: st, Vault: vault})
	require.NoError(t, err)
	return s, st
}

// create makes an account and gives a copy of its key.
func create(t *testing.T, s *Service, id string) (key RootKey, err error) {
	t.Helper()
	var given []byte
	err = s.CreateAccount(t.Context(), id, func(k RootKey) error {
		given = k.Secret
		key = RootKey{ID: k.ID, Secret: bytes.Clone(k.Secret)}
		return nil
	})
	require.Empty(t, bytes.Trim(given, "\x00"), "the secret was not wiped")
	return key, err
}

func TestCreateAccount(t *testing.T) {
	s, st := openService(t, fakeVault{})
	key, err := create(t, s, "111122223333")
	require.NoError(t, err)
	require.Regexp(t, `^AKIA[A-Z2-7]{16}$`, key.ID)
	require.Regexp(t, `^[A-Za-z0-9+/]{40}$`, string(key.Secret))

	identity, found, err := s.Identity(t.Context(), key.ID)
	require.NoError(t, err)
	require.True(t, found)
	require.NotEmpty(t, identity.Version)
	require.False(t, identity.Session)
	require.Equal(t, &policy.Caller{Principal: policy.Principal{
		Type: policy.Root, Account: "111122223333", ARN: "arn:aws:iam::111122223333:root", AccessKeyID: key.ID, UserID: "111122223333",
	}}, identity.Caller)
	secret, err := s.Secret(t.Context(), key.ID)
	require.NoError(t, err)
	require.Equal(t, key.Secret, secret)

	// The secret is in the store as the vault gave it, and in no other way.
	require.NoError(t, st.View(t.Context(), func(r store.Reader) error {
		return r.Scan("", "", func(name string, value []byte) bool {
			require.NotContains(t, name+string(value), string(key.Secret))
			return true
		})
	}))
}

func TestCreateAccountRefuses(t *testing.T) {
	s, _ := openService(t, fakeVault{})
	for _, id := range []string{"", "11112222333", "1111222233334", "11112222333a", "١١١١٢٢٢٢٣٣٣٣"} {
		_, err := create(t, s, id)
		require.ErrorIs(t, err, ErrAccountID, id)
	}
	first, err := create(t, s, "111122223333")
	require.NoError(t, err)
	_, err = create(t, s, "111122223333")
	require.ErrorIs(t, err, ErrAccountExists)
	other, err := create(t, s, "444455556666")
	require.NoError(t, err)
	require.NotEqual(t, first.ID, other.ID)
	require.NotEqual(t, first.Secret, other.Secret)
}

func TestUnknownAccessKey(t *testing.T) {
	s, _ := openService(t, fakeVault{})
	_, found, err := s.Identity(t.Context(), "AKIAAAAAAAAAAAAAAAAA")
	require.NoError(t, err)
	require.False(t, found)
	_, err = s.Secret(t.Context(), "AKIAAAAAAAAAAAAAAAAA")
	require.Error(t, err)
}

func TestFailureMakesNoAccount(t *testing.T) {
	broken := errors.New("the token is gone")
	s, st := openService(t, fakeVault{fail: broken})
	_, err := create(t, s, "111122223333")
	require.ErrorIs(t, err, broken)
	requireNothing(t, st)

	full := errors.New("the disk is full")
	s, st = openService(t, fakeVault{})
	require.ErrorIs(t, s.CreateAccount(t.Context(), "111122223333", func(RootKey) error { return full }), full)
	requireNothing(t, st)
}

func requireNothing(t *testing.T, st store.Store) {
	t.Helper()
	require.NoError(t, st.View(t.Context(), func(r store.Reader) error {
		return r.Scan("", "", func(name string, _ []byte) bool {
			require.Fail(t, "a record was left", name)
			return false
		})
	}))
}
