package pkcs11

import (
	"bytes"
	"crypto/rand"
	"encoding/asn1"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
)

// TestSecretsNotInMemory has secrets agreed on and key pairs made that leave the token. When the caller has wiped what he got,
// they must be nowhere in the memory of the process, the module's included.
func TestSecretsNotInMemory(t *testing.T) {
	soft := newSoft(t)
	m, err := OpenModule(ModuleConfig{Path: soft.Module})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	token, err := m.OpenToken(options{}.token())
	require.NoError(t, err)
	lookedFor := map[string][]byte{}
	keep := func(name string, secret []byte) {
		inverted := bytes.Clone(secret[:16])
		clear(secret)
		invert(inverted)
		lookedFor[name] = inverted
	}
	for kind, curve := range agreements {
		ref, err := token.GenerateKey(t.Context(), hsm.KeyRequest{Kind: kind})
		require.NoError(t, err)
		other, err := curve.GenerateKey(rand.Reader)
		require.NoError(t, err)
		secret, err := token.DeriveSecret(t.Context(), ref, other.PublicKey().Bytes())
		require.NoError(t, err)
		keep(string(kind), secret[8:]) // zeros may be in front
	}
	for _, kind := range []hsm.KeyKind{hsm.P256Sign, hsm.P521Sign, hsm.Secp256k1Sign, hsm.Ed25519Sign, hsm.RSA2048Sign} {
		pair, err := token.GenerateDataPair(t.Context(), kind)
		require.NoError(t, err)
		for i, part := range secretParts(t, kind, pair.Private) {
			keep(fmt.Sprint(kind, i), part)
		}
		clear(pair.Private)
	}
	requireNotInMemory(t, lookedFor)
	found := bytes.Clone(lookedFor[string(hsm.P256Derive)])
	invert(found)
	require.Contains(t, findInMemory(t, lookedFor), string(hsm.P256Derive), "it would be found if it were there")
	runtime.KeepAlive(found)
}

// requireNotInMemory demands that none of the patterns is in memory, or is there for long; see overwriteRegisters.
func requireNotInMemory(t *testing.T, inverted map[string][]byte) {
	t.Helper()
	remains := findInMemory(t, inverted)
	for range 5 {
		if len(remains) > 0 {
			overwriteRegisters()
			remains = findInMemory(t, inverted)
		}
	}
	require.Empty(t, remains)
}

// overwriteRegisters has goroutines interrupted. The last bytes that were copied anywhere are in vector registers, which the
// kernel and the runtime save to memory when they interrupt a thread: that is nothing that a program can wipe, but it does not
// stay either.
func overwriteRegisters() {
	var stop atomic.Bool
	var group sync.WaitGroup
	for range 2 * runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for !stop.Load() {
			}
		})
	}
	for range 20 {
		runtime.GC()
	}
	stop.Store(true)
	group.Wait()
}

// secretParts gives the parts of a private key to look for; they are parts of what they are found in.
func secretParts(t *testing.T, kind hsm.KeyKind, der []byte) [][]byte {
	t.Helper()
	info := derReader{rest: der}
	fields := derReader{rest: info.next(asn1.TagSequence)}
	fields.next(asn1.TagInteger)
	fields.next(asn1.TagSequence)
	key := derReader{rest: fields.next(asn1.TagOctetString)}
	if kind == hsm.Ed25519Sign {
		return [][]byte{key.next(asn1.TagOctetString)}
	}
	numbers := derReader{rest: key.next(asn1.TagSequence)}
	numbers.next(asn1.TagInteger)
	if kind != hsm.RSA2048Sign {
		return [][]byte{numbers.next(asn1.TagOctetString)[8:]}
	}
	numbers.next(asn1.TagInteger)
	numbers.next(asn1.TagInteger)
	var parts [][]byte
	for range 6 { // d, p, q, dP, dQ, qInv
		parts = append(parts, numbers.next(asn1.TagInteger)[8:])
	}
	require.False(t, numbers.failed)
	return parts
}
