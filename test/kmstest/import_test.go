package kmstest

import (
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWrapPadded has the examples of RFC 5649, section 6.
func TestWrapPadded(t *testing.T) {
	key, err := hex.DecodeString("5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8")
	require.NoError(t, err)
	for plaintext, want := range map[string]string{
		"c37b7e6492584340bed12207808941155068f738": "138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a",
		"466f7250617369": "afbeb0f07dfbf5419200f2ccb50bb24f",
	} {
		raw, err := hex.DecodeString(plaintext)
		require.NoError(t, err)
		wrapped, err := wrapPadded(key, raw)
		require.NoError(t, err)
		require.Equal(t, want, hex.EncodeToString(wrapped))
	}
}
