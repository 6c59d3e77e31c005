package bolt

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/store"
	"hsmkms/store/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t,
		func(t *testing.T) store.Store { return openTest(t, Config{}) },
		func(t *testing.T, s store.Store) store.Store {
			path := s.(*Store).db.Path()
			require.NoError(t, s.Close())
			return openTest(t, Config{Path: path})
		})
}

// openTest opens a store, by default a new one, and closes it when the test ends.
func openTest(t testing.TB, cfg Config) *Store {
	t.Helper()
	if cfg.Path == "" {
		cfg.Path = filepath.Join(t.TempDir(), "store.db")
	}
	s, err := Open(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}
