package pkcs11

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/hsm/hsmtest"
)

// encryptorEnv makes TestMaterialEncryptor encrypt: "<way> <public key in hexadecimal>".
const encryptorEnv = "HSMKMS_TEST_ENCRYPT_MATERIAL"

// TestMaterialEncryptor is the program of a caller who imports, run by TestMaterialNotInMemory: key material, each byte
// inverted, the AES key over it, likewise, and the encrypted material.
func TestMaterialEncryptor(t *testing.T) {
	order, ok := os.LookupEnv(encryptorEnv)
	if !ok {
		return
	}
	wrap, public, _ := strings.Cut(order, " ")
	der, err := hex.DecodeString(public)
	require.NoError(t, err)
	secret, transport := material(), material()
	plain := map[hsm.ImportWrap]hsm.ImportWrap{hsm.RSAAESSHA1: hsm.OAEPSHA1, hsm.RSAAESSHA256: hsm.OAEPSHA256}[hsm.ImportWrap(wrap)]
	var encrypted []byte
	if plain == "" {
		encrypted = hsmtest.EncryptMaterial(t, der, hsm.ImportWrap(wrap), secret)
	} else {
		block, err := aes.NewCipher(transport)
		require.NoError(t, err)
		encrypted = append(hsmtest.EncryptMaterial(t, der, plain, transport), keyWrapPadded(block, secret)...)
	}
	invert(secret)
	invert(transport)
	fmt.Printf("material %x %x %x\n", secret, transport, encrypted)
}

// encryptElsewhere gives key material that was never in this process, and the AES key over it if there is one.
func encryptElsewhere(t *testing.T, under hsm.KeyRef, wrap hsm.ImportWrap) (inverted, transport, encrypted []byte) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, "-test.run=^TestMaterialEncryptor$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %x", encryptorEnv, wrap, under.Public))
	out, err := cmd.Output()
	require.NoError(t, err)
	_, err = fmt.Sscanf(string(out), "material %x %x %x\n", &inverted, &transport, &encrypted)
	require.NoError(t, err, "%s", out)
	require.Len(t, inverted, aesKeySize)
	return inverted, transport, encrypted
}

func invert(b []byte) {
	for i := range b {
		b[i] = ^b[i]
	}
}

// TestMaterialNotInMemory imports on all routes, and then looks for the material in all of the process's memory, the
// module's included. A part of it would do harm too, so half of it is looked for.
func TestMaterialNotInMemory(t *testing.T) {
	soft := newSoft(t)
	m, err := OpenModule(ModuleConfig{Path: soft.Module})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	token, err := m.OpenToken(options{}.token())
	require.NoError(t, err)
	under, err := token.GenerateKey(t.Context(), hsm.KeyRequest{Kind: hsm.RSA2048Import})
	require.NoError(t, err)
	domain, err := token.GenerateKey(t.Context(), hsm.KeyRequest{Kind: hsm.AES256Wrap})
	require.NoError(t, err)
	lookedFor := map[string][]byte{}
	var secrets [][]byte // inverted
	var sealed []hsm.Sealed
	for _, wrap := range []hsm.ImportWrap{hsm.OAEPSHA1, hsm.OAEPSHA256, hsm.RSAAESSHA1, hsm.RSAAESSHA256} {
		for name, home := range map[string]hsm.KeyID{"token": "", "wrapped": domain.ID} {
			inverted, transport, encrypted := encryptElsewhere(t, under, wrap)
			r := hsm.ImportRequest{Under: under, Wrap: wrap, Material: encrypted, Kind: hsm.AES256, WrapUnder: home}
			made, err := token.ImportKey(t.Context(), r)
			require.NoError(t, err)
			used, err := token.Encrypt(t.Context(), hsm.Sealing{Key: made.Key}, []byte("in use"))
			require.NoError(t, err)
			secrets, sealed = append(secrets, inverted), append(sealed, used)
			for part, b := range map[string][]byte{
				"begin": inverted[:16], "end": inverted[16:], "begin of the AES key": transport[:16], "end of the AES key": transport[16:],
			} {
				lookedFor[fmt.Sprintf("%s, %s: %s", wrap, name, part)] = b
			}
		}
	}
	require.Empty(t, findInMemory(t, lookedFor))
	for i, inverted := range secrets { // and now it is there, which shows that it is the right one and would be found
		secrets[i] = bytes.Clone(inverted)
		invert(secrets[i])
		requireGoOpens(t, secrets[i], sealed[i], "in use")
	}
	require.GreaterOrEqual(t, len(findInMemory(t, lookedFor)), 2*len(secrets))
	runtime.KeepAlive(secrets)
}

func requireGoOpens(t *testing.T, key []byte, sealed hsm.Sealed, plaintext string) {
	t.Helper()
	gcm, err := newGCM(key)
	require.NoError(t, err)
	got, err := gcm.Open(nil, sealed.IV[:], sealed.Data, make([]byte, len(hsm.AAD{})))
	require.NoError(t, err)
	require.Equal(t, plaintext, string(got))
}

// findInMemory names those of the patterns whose inverse is anywhere in the memory of the process.
func findInMemory(t *testing.T, inverted map[string][]byte) []string {
	t.Helper()
	regions, err := os.ReadFile("/proc/self/maps")
	require.NoError(t, err)
	memory, err := os.Open("/proc/self/mem")
	require.NoError(t, err)
	defer func() { require.NoError(t, memory.Close()) }()
	const size, overlap = 1 << 20, 64
	found, seen := map[string]bool{}, 0
	chunk, ones := make([]byte, size), bytes.Repeat([]byte{0xff}, size)
	lines := bufio.NewScanner(bytes.NewReader(regions))
	for lines.Scan() {
		var from, to uint64
		var rights string
		_, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &rights)
		require.NoError(t, err)
		if !strings.HasPrefix(rights, "rw") || to-from > 1<<30 { // larger ones are the race detector's
			continue
		}
		for ; from < to; from += size - overlap {
			n, err := memory.ReadAt(chunk[:min(size, to-from)], int64(from))
			if err != nil {
				break // a region that went away meanwhile
			}
			subtle.XORBytes(chunk[:n], chunk[:n], ones)
			for name, pattern := range inverted {
				if !found[name] && bytes.Contains(chunk[:n], pattern) {
					found[name] = true
				}
			}
			seen += n
			clear(chunk) // or what is in it would be found next
		}
	}
	require.Greater(t, seen, 1<<20)
	return slices.Sorted(maps.Keys(found))
}
