package kms

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/store"
)

// maker is a token that makes keys and remembers which it was told to destroy.
type maker struct {
	made, destroyed []hsm.KeyRef
	err             error
}

func (m *maker) token() fakeToken {
	return fakeToken{
		generate: func(r hsm.KeyRequest) (hsm.KeyRef, error) {
			if m.err != nil {
				return hsm.KeyRef{}, m.err
			}
			ref := hsm.KeyRef{ID: "0123456789abcdef0123456789abcdef", Kind: r.Kind}
			m.made = append(m.made, ref)
			return ref, nil
		},
		destroy: func(key hsm.KeyRef) error {
			m.destroyed = append(m.destroyed, key)
			return nil
		},
	}
}

// requireNoKeys checks that the store has no record of a key, nor an entry of one.
func requireNoKeys(t *testing.T, s *Service) {
	t.Helper()
	require.NoError(t, s.cfg.Store.View(t.Context(), func(r store.Reader) error {
		return r.Scan("", "", func(key string, _ []byte) bool {
			require.Fail(t, "a record was left", key)
			return true
		})
	}))
}

// TestCreateKeyWithoutStore fails to store a new key. Its material goes, unless the record may have been stored after all.
func TestCreateKeyWithoutStore(t *testing.T) {
	for _, test := range []struct {
		err       error
		committed bool
		destroyed int
	}{{errors.New("disk full"), false, 1}, {store.ErrUncertain, false, 0}, {store.ErrUncertain, true, 0}} {
		m := &maker{}
		s := newService(t, m.token(), func(cfg *Config) { cfg.Store = failingStore{cfg.Store, test.err, test.committed} })
		out, err := s.CreateKey(t.Context(), newRequest("CreateKey"), &CreateKeyInput{})
		require.Nil(t, out)
		require.ErrorIs(t, err, test.err)
		require.Equal(t, InternalError, TypeOf(err))
		require.Len(t, m.made, 1)
		require.Equal(t, m.made[:test.destroyed], append([]hsm.KeyRef{}, m.destroyed...))
		if !test.committed {
			requireNoKeys(t, s)
		}
	}
}

// TestCreateKeyWithoutMaterial fails to make the material of a new key: there is no record of it.
func TestCreateKeyWithoutMaterial(t *testing.T) {
	for class, want := range map[hsm.Class]struct {
		code ErrorType
		text string
	}{
		hsm.TokenFull:   {LimitExceeded, "The HSM token has no room for another key."},
		hsm.TokenGone:   {KeyUnavailable, "The request was rejected because the key is not available. Try again later."},
		hsm.Busy:        {DependencyTimeout, "The system timed out while trying to fulfill the request."},
		hsm.LoginFailed: {KeyUnavailable, "The request was rejected because the key is not available. Try again later."},
	} {
		m := &maker{err: &hsm.Error{Class: class}}
		s := newService(t, m.token())
		out, err := s.CreateKey(t.Context(), newRequest("CreateKey"), &CreateKeyInput{})
		requireError(t, out, err, want.code, want.text)
		requireNoKeys(t, s)
	}
	m := &maker{}
	for _, random := range []string{"", strings.Repeat("r", 16)} { // enough for nothing, and for the key's id
		s := newService(t, m.token(), func(cfg *Config) {
			cfg.Rand = iotest.DataErrReader(strings.NewReader(random))
		})
		_, err := s.CreateKey(t.Context(), newRequest("CreateKey"), &CreateKeyInput{})
		require.Equal(t, InternalError, TypeOf(err))
		requireNoKeys(t, s)
	}
	require.Empty(t, m.made, "no material is made that cannot be named")
}

// TestNewKeyID makes ids of extreme random bytes: version and variant are those of RFC 9562, and 122 bits are random.
func TestNewKeyID(t *testing.T) {
	for random, want := range map[byte][2]string{
		0x00: {"00000000-0000-4000-8000-000000000000", "mrk-00000000000000000000000000000000"},
		0xFF: {"ffffffff-ffff-4fff-bfff-ffffffffffff", "mrk-ffffffffffffffffffffffffffffffff"},
	} {
		s := newService(t, fakeToken{}, func(cfg *Config) { cfg.Rand = bytes.NewReader(bytes.Repeat([]byte{random}, 32)) })
		id, err := s.newKeyID(false)
		require.NoError(t, err)
		require.Equal(t, want[0], id)
		id, err = s.newKeyID(true)
		require.NoError(t, err)
		require.Equal(t, want[1], id)
	}
}
