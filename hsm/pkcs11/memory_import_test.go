package pkcs11

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/ed25519"
	"crypto/sha512"
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

// encryptorEnv makes TestMaterialEncryptor encrypt: "<kind> <way> <public key in hexadecimal>".
const encryptorEnv = "HSMKMS_TEST_ENCRYPT_MATERIAL"

// edwardsHeader begins the PKCS#8 of a key of Ed25519, up to the seed.
var edwardsHeader = []byte{0x30, 46, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 34, 4, 32}

// TestMaterialEncryptor is the program of a caller who imports, run by TestMaterialNotInMemory: key material of 32 bytes, each
// byte inverted, the AES key over it and its SHA-512, likewise, and the encrypted material.
func TestMaterialEncryptor(t *testing.T) {
	order, ok := os.LookupEnv(encryptorEnv)
	if !ok {
		return
	}
	kind, rest, _ := strings.Cut(order, " ")
	wrap, public, _ := strings.Cut(rest, " ")
	der, err := hex.DecodeString(public)
	require.NoError(t, err)
	secret, transport := material(), material()
	encoded, hash := bytes.Clone(secret), sha512.Sum512(secret)
	if hsm.KeyKind(kind) == hsm.Ed25519Sign {
		encoded = append(bytes.Clone(edwardsHeader), secret...)
	}
	plain := map[hsm.ImportWrap]hsm.ImportWrap{hsm.RSAAESSHA1: hsm.OAEPSHA1, hsm.RSAAESSHA256: hsm.OAEPSHA256}[hsm.ImportWrap(wrap)]
	var encrypted []byte
	if plain == "" {
		encrypted = hsmtest.EncryptMaterial(t, der, hsm.ImportWrap(wrap), encoded)
	} else {
		block, err := aes.NewCipher(transport)
		require.NoError(t, err)
		encrypted = append(hsmtest.EncryptMaterial(t, der, plain, transport), keyWrapPadded(block, encoded)...)
	}
	invert(secret)
	invert(transport)
	invert(hash[:])
	fmt.Printf("material %x %x %x %x\n", secret, transport, hash, encrypted)
}

// elsewhere is what TestMaterialEncryptor made.
type elsewhere struct{ inverted, transport, hash, encrypted []byte }

// encryptElsewhere gives key material that was never in this process, and the AES key over it if there is one.
func encryptElsewhere(t *testing.T, under hsm.KeyRef, kind hsm.KeyKind, wrap hsm.ImportWrap) (made elsewhere) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, "-test.run=^TestMaterialEncryptor$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %x", encryptorEnv, kind, wrap, under.Public))
	out, err := cmd.Output()
	require.NoError(t, err)
	_, err = fmt.Sscanf(string(out), "material %x %x %x %x\n", &made.inverted, &made.transport, &made.hash, &made.encrypted)
	require.NoError(t, err, "%s", out)
	require.Len(t, made.inverted, aesKeySize)
	return made
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
	var uses []func(t *testing.T, secret []byte)
	for _, wrap := range []hsm.ImportWrap{hsm.OAEPSHA1, hsm.OAEPSHA256, hsm.RSAAESSHA1, hsm.RSAAESSHA256} {
		for name, home := range map[string]hsm.KeyID{"token": "", "wrapped": domain.ID} {
			for _, kind := range []hsm.KeyKind{hsm.AES256, hsm.Ed25519Sign} {
				m := encryptElsewhere(t, under, kind, wrap)
				made, err := token.ImportKey(t.Context(), hsm.ImportRequest{Under: under, Wrap: wrap, Material: m.encrypted, Kind: kind, WrapUnder: home})
				require.NoError(t, err)
				secrets, uses = append(secrets, m.inverted), append(uses, useImported(t, token, made.Key))
				end := m.inverted[16:]
				if kind == hsm.Ed25519Sign { // OpenSSL, in SoftHSM, leaves the other half behind whenever such a key signs
					end = m.inverted[:16]
				}
				for part, b := range map[string][]byte{
					"begin": m.inverted[:16], "end": end, "begin of the AES key": m.transport[:16], "end of the AES key": m.transport[16:],
					"scalar": m.hash[1:17], "end of the scalar": m.hash[15:31], "prefix": m.hash[32:48], "end of the prefix": m.hash[48:], // of Ed25519
				} {
					lookedFor[fmt.Sprintf("%s, %s, %s: %s", kind, wrap, name, part)] = b
				}
			}
		}
	}
	requireNotInMemory(t, lookedFor)
	for i, inverted := range secrets { // and now it is there, which shows that it is the right one and would be found
		secrets[i] = bytes.Clone(inverted)
		invert(secrets[i])
		uses[i](t, secrets[i])
	}
	require.GreaterOrEqual(t, len(findInMemory(t, lookedFor)), 2*len(secrets))
	runtime.KeepAlive(secrets)
}

// useImported uses a key, and gives what demands that the result is that of a secret.
func useImported(t *testing.T, token hsm.Token, key hsm.KeyRef) func(*testing.T, []byte) {
	t.Helper()
	if key.Kind == hsm.AES256 {
		used, err := token.Encrypt(t.Context(), hsm.Sealing{Key: key}, []byte("in use"))
		require.NoError(t, err)
		return func(t *testing.T, secret []byte) { requireGoOpens(t, secret, used, "in use") }
	}
	signature, err := token.Sign(t.Context(), hsm.Signing{Key: key, Algorithm: hsm.Ed25519, Input: []byte("in use")})
	require.NoError(t, err)
	return func(t *testing.T, secret []byte) {
		require.Equal(t, signature, ed25519.Sign(ed25519.NewKeyFromSeed(secret), []byte("in use")))
	}
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
