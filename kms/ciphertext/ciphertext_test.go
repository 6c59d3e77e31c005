package ciphertext

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	uuid = "1234abcd-12ab-34cd-56ef-1234567890ab"
	mrk  = "mrk-1234abcd12ab34cd56ef1234567890ab"
)

func sample(keyID string) Blob {
	b := Blob{Header: Header{KeyID: keyID}, Data: bytes.Repeat([]byte{0xDA}, 40)}
	copy(b.Material[:], bytes.Repeat([]byte{0x3A}, MaterialSize))
	copy(b.IV[:], "twelve bytes")
	return b
}

func TestRoundTrip(t *testing.T) {
	for _, id := range []string{uuid, mrk} {
		raw, err := Marshal(sample(id))
		require.NoError(t, err)
		require.Len(t, raw, 40-TagSize+Overhead)
		blob, err := Parse(raw)
		require.NoError(t, err)
		require.Equal(t, sample(id), blob)
	}
}

// TestGolden holds the format to blobs written by earlier versions. A new version adds files and changes none.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.hex")
	require.NoError(t, err)
	require.Len(t, files, 2, "golden files missing")
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		raw, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
		require.NoError(t, err)
		blob, err := Parse(raw)
		require.NoError(t, err)
		id := strings.TrimSuffix(filepath.Base(file), ".hex")
		require.Equal(t, map[string]string{"v1-uuid": uuid, "v1-mrk": mrk}[id], blob.KeyID)
		require.Equal(t, sample(blob.KeyID), blob)
		again, err := Marshal(blob)
		require.NoError(t, err)
		require.Equal(t, raw, again)
	}
}

func TestParseRefuses(t *testing.T) {
	good, err := Marshal(sample(uuid))
	require.NoError(t, err)
	changed := func(at int, to byte) []byte {
		b := bytes.Clone(good)
		b[at] = to
		return b
	}
	for name, b := range map[string][]byte{
		"nothing":          nil,
		"version 0":        changed(0, 0),
		"version 2":        changed(0, 2),
		"no form":          changed(1, 0),
		"unknown form":     changed(1, 3),
		"no ciphertext":    good[:Overhead],
		"longer than ever": append(bytes.Clone(good), make([]byte, MaxSize)...),
	} {
		_, err := Parse(b)
		require.ErrorIs(t, err, ErrMalformed, name)
	}
	_, err = Parse(good[:Overhead+1])
	require.NoError(t, err)
}

func TestMarshalRefuses(t *testing.T) {
	for _, id := range []string{"", "alias/a", strings.ToUpper(uuid), uuid[:35], strings.ReplaceAll(uuid, "-", ""),
		strings.ReplaceAll(uuid, "-", "_"), "mrk-", "mrk-" + uuid, strings.Replace(uuid, "a", "g", 1), strings.ToUpper(mrk)} {
		_, err := Marshal(sample(id))
		require.ErrorIs(t, err, ErrKeyID, id)
		require.False(t, ValidKeyID(id))
	}
	require.True(t, ValidKeyID(uuid))
	require.True(t, ValidKeyID(mrk))
	for _, size := range []int{0, TagSize, MaxSize} {
		b := sample(uuid)
		b.Data = make([]byte, size)
		_, err := Marshal(b)
		require.ErrorIs(t, err, ErrMalformed)
	}
}

func TestAADIsInjective(t *testing.T) {
	contexts := []map[string]string{
		{}, {"": ""}, {"ab": "c"}, {"a": "bc"}, {"abc": ""}, {"": "abc"}, {"a": "b", "c": "d"}, {"a": "bcd"},
		{"a": "b\x00\x00\x00\x01c"}, {"a\x00\x00\x00\x01b": "c"}, {"a": "b", "c": ""}, {"a": "", "c": "b"}, {"c": "d", "a": "B"},
	}
	seen := map[[32]byte]int{}
	for i, c := range contexts {
		aad, err := sample(uuid).AAD(c)
		require.NoError(t, err)
		require.NotContains(t, seen, aad, "contexts %d and %d", i, seen[aad])
		seen[aad] = i
	}
	empty, err := sample(uuid).AAD(nil)
	require.NoError(t, err)
	require.Equal(t, 0, seen[empty], "no context and an empty context are the same")
}

func TestAADBindsTheHeader(t *testing.T) {
	base, err := sample(uuid).AAD(nil)
	require.NoError(t, err)
	other := sample(uuid)
	other.Material[31] ^= 1
	for _, h := range []Header{other.Header, sample(mrk).Header, {KeyID: uuid[:35] + "c", Material: other.Material}} {
		aad, err := h.AAD(nil)
		require.NoError(t, err)
		require.NotEqual(t, base, aad)
	}
	_, err = Header{KeyID: "x"}.AAD(nil)
	require.ErrorIs(t, err, ErrKeyID)
}

func FuzzParse(f *testing.F) {
	for _, id := range []string{uuid, mrk} {
		raw, err := Marshal(sample(id))
		require.NoError(f, err)
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		blob, err := Parse(raw)
		if err != nil {
			return
		}
		again, err := Marshal(blob)
		require.NoError(t, err)
		require.Equal(t, raw, again)
	})
}

func FuzzContext(f *testing.F) {
	f.Add("ab", "c", "a", "bc")
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2 string) {
		one, err := sample(uuid).AAD(map[string]string{k1: v1})
		require.NoError(t, err)
		two, err := sample(uuid).AAD(map[string]string{k2: v2})
		require.NoError(t, err)
		require.Equal(t, k1 == k2 && v1 == v2, one == two)
	})
}

func BenchmarkParse(b *testing.B) {
	raw, _ := Marshal(sample(uuid))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAAD(b *testing.B) {
	h := sample(uuid).Header
	context := map[string]string{"tenant": "blue", "purpose": "invoices"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := h.AAD(context); err != nil {
			b.Fatal(err)
		}
	}
}
