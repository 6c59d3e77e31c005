package pkcs11

import (
	"bytes"
	"os"
	"regexp"
	"runtime/debug"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
)

// TestScratchWiped looks at the buffer that plaintexts pass through, after every way out of an operation. While an IV is
// made for the encryption of a ReEncrypt, the plaintext must be there, or the test would look at the wrong memory.
func TestScratchWiped(t *testing.T) {
	plaintext := bytes.Repeat([]byte("plaintext "), 600)
	var scratch []byte
	seen, panics := 0, false
	rand := reader(func(b []byte) (int, error) {
		if bytes.HasPrefix(scratch, plaintext) {
			seen++
			if panics {
				panic("in the middle of a ReEncrypt")
			}
		}
		return copy(b, bytes.Repeat([]byte{byte(seen + 1)}, len(b))), nil
	})
	r := newRig(t, options{profile: Profile{Sessions: 1}, rand: rand})
	ref := r.generate(hsm.KeyRequest{Kind: hsm.AES256})
	o := r.seal(ref, plaintext)
	look := func(s *session) (struct{}, error) { scratch = s.scratch; return struct{}{}, nil }
	requireWiped := func(name string, seenBefore, times int) {
		t.Helper()
		_, err := do(t.Context(), r.token, &task[struct{}]{f: look})
		require.NoError(t, err)
		require.Len(t, scratch, scratchSize)
		require.True(t, bytes.Equal(make([]byte, scratchSize), scratch), name)
		require.Equal(t, seenBefore+times, seen, name)
	}
	requireWiped("before", 0, 0)

	reEncrypt := func(from hsm.Opening, to hsm.KeyRef) error {
		_, err := r.token.ReEncrypt(t.Context(), from, hsm.Sealing{Key: to})
		return err
	}
	r.requireOpens(o, plaintext)
	requireWiped("Decrypt", 0, 0)
	require.NoError(t, reEncrypt(o, ref))
	requireWiped("ReEncrypt", 0, 1)
	forged := o
	forged.AAD[0] = 1
	require.Equal(t, hsm.BadInput, hsm.ClassOf(reEncrypt(forged, ref)))
	_, err := r.token.Decrypt(t.Context(), forged)
	require.Equal(t, hsm.BadInput, hsm.ClassOf(err))
	requireWiped("a forgery", 1, 0)
	unknown := hsm.KeyRef{ID: "00112233445566778899aabbccddeeff", Kind: hsm.AES256}
	require.Equal(t, hsm.KeyMissing, hsm.ClassOf(reEncrypt(o, unknown)))
	requireWiped("a destination that is missing", 1, 0)
	r.fault.Set("C_EncryptInit rv=0x70")
	require.Equal(t, hsm.Unsupported, hsm.ClassOf(reEncrypt(o, ref)))
	requireWiped("a destination that fails", 1, 1)
	r.fault.Set("C_Decrypt rv=0x5 when=after count=1")
	require.Equal(t, hsm.BadInput, hsm.ClassOf(reEncrypt(o, ref)))
	requireWiped("a plaintext that was given with an error", 2, 0)
	r.fault.Clear()
	panics = true
	require.Equal(t, hsm.Failed, hsm.ClassOf(reEncrypt(o, ref)))
	panics = false
	requireWiped("a panic", 2, 1)
	r.requireOpens(o, plaintext)
}

// TestForgeriesTakeNoMemory decrypts 50,000 forgeries of 6 KiB. A binding that keeps the buffer of each failed call
// would take 300 MiB.
func TestForgeriesTakeNoMemory(t *testing.T) {
	soft := newSoft(t)
	m, err := OpenModule(ModuleConfig{Path: soft.Module})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	token, err := m.OpenToken(options{}.token())
	require.NoError(t, err)
	ref, err := token.GenerateKey(t.Context(), hsm.KeyRequest{Kind: hsm.AES256})
	require.NoError(t, err)
	forged := hsm.Opening{Key: ref, Sealed: hsm.Sealed{IV: [hsm.IVSize]byte{1}, Data: make([]byte, hsm.MaxPlaintext)}}
	decrypt := func(times int) {
		for range times {
			_, err := token.Decrypt(t.Context(), forged)
			require.Equal(t, hsm.BadInput, hsm.ClassOf(err))
		}
	}
	decrypt(2000)
	before := residentKiB(t)
	decrypt(50_000)
	require.Less(t, residentKiB(t), before+24<<10, "KiB in memory, from %d", before)
}

// residentKiB gives the memory of the process after a collection.
func residentKiB(t *testing.T) int {
	t.Helper()
	debug.FreeOSMemory()
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	match := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status)
	require.NotNil(t, match)
	n, err := strconv.Atoi(string(match[1]))
	require.NoError(t, err)
	return n
}
