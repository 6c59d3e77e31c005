package contract

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"hsmkms/test/kmstest"
)

// mover is a client that keeps encrypting under two keys, moving the ciphertext from one to the other, and opening it.
type mover struct {
	client *kms.Client
	keys   [2]string
	// blobs is all ciphertext that the server has made for it, by plaintext.
	blobs map[string][][]byte
	turn  int
	// materials are the ids of all materials that it has met.
	materials map[string]bool
}

// work has one turn, of seven requests, none of which may fail.
func (m *mover) work(ctx context.Context, name string) error {
	text := fmt.Sprint(name, m.turn)
	m.turn++
	from, to := m.keys[m.turn%2], m.keys[(m.turn+1)%2]
	sealed, err := m.client.Encrypt(ctx, &kms.EncryptInput{KeyId: &from, Plaintext: []byte(text)})
	if err != nil {
		return err
	}
	m.blobs[text] = [][]byte{sealed.CiphertextBlob}
	for _, destination := range []string{to, to, from} {
		blobs := m.blobs[text]
		out, err := m.client.ReEncrypt(ctx, &kms.ReEncryptInput{CiphertextBlob: blobs[len(blobs)-1], DestinationKeyId: &destination})
		if err != nil {
			return err
		}
		m.blobs[text] = append(blobs, out.CiphertextBlob)
		m.materials[*out.SourceKeyMaterialId], m.materials[*out.DestinationKeyMaterialId] = true, true
	}
	if _, err := m.client.GenerateDataKeyWithoutPlaintext(ctx, &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: &to, KeySpec: "AES_256"}); err != nil {
		return err
	}
	if err := m.open(ctx, text); err != nil {
		return err
	}
	return m.open(ctx, fmt.Sprint(name, m.turn/2)) // of some time ago
}

// open opens the last ciphertext of a text.
func (m *mover) open(ctx context.Context, text string) error {
	blobs := m.blobs[text]
	return m.openOne(ctx, text, blobs[len(blobs)-1])
}

func (m *mover) openOne(ctx context.Context, text string, blob []byte) error {
	out, err := m.client.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: blob})
	if err == nil && string(out.Plaintext) != text {
		err = fmt.Errorf("decrypted to %q instead of %q", out.Plaintext, text)
	}
	return err
}

// openAll opens everything that it was ever given.
func (m *mover) openAll(ctx context.Context) error {
	for text, blobs := range m.blobs {
		for _, blob := range blobs {
			if err := m.openOne(ctx, text, blob); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestRotationUnderLoad has 16 clients use two keys, of which one is rotated on demand as often as can be and the other
// automatically every 180 ms. No request fails, and all ciphertext opens, after a restart too.
func TestRotationUnderLoad(t *testing.T) {
	const clients, automatic = 16, 8
	for home := range servers {
		t.Run(home, func(t *testing.T) {
			s := kmstest.Start(t, kmstest.Options{Home: home, Day: "2ms"})
			demanded, scheduled := s.NewKey(t), s.NewKey(t)
			perform(t, s, "EnableKeyRotation", object(t, "KeyId", scheduled, "RotationPeriodInDays", 90))
			movers := make([]*mover, clients)
			for i := range movers {
				movers[i] = &mover{client: s.Client(), keys: [2]string{demanded, scheduled}, blobs: map[string][][]byte{}, materials: map[string]bool{}}
			}
			require.NoError(t, loadUntil(movers, func(ctx context.Context) error { return rotateAll(ctx, s.Client(), demanded, scheduled, automatic) }))
			perform(t, s, "DisableKeyRotation", object(t, "KeyId", scheduled))
			require.Len(t, rotations(t, s, demanded, "ROTATIONS_ONLY", 1000), 25)
			requireMet(t, s, movers, demanded, scheduled)
			requireOutcomes(t, s)
			require.NotContains(t, s.Log(), `"level":"ERROR"`)
			require.NoError(t, s.Stop())
			require.NoError(t, s.Run())
			require.NoError(t, together(clients, func(i int) error {
				movers[i].client = s.Client()
				return movers[i].openAll(t.Context())
			}))
		})
	}
}

// loadUntil has the movers work until f is done, and for a turn at least.
func loadUntil(movers []*mover, f func(context.Context) error) error {
	ctx := context.Background()
	var done atomic.Bool
	return together(len(movers)+1, func(i int) error {
		if i == len(movers) {
			defer done.Store(true)
			return f(ctx)
		}
		for !done.Load() {
			if err := movers[i].work(ctx, fmt.Sprintf("mover %d text ", i)); err != nil {
				return err
			}
		}
		return nil
	})
}

// rotateAll rotates one key on demand 25 times, and waits until the other one was rotated automatically so many times.
func rotateAll(ctx context.Context, client *kms.Client, demanded, scheduled string, automatic int) error {
	for range 25 {
		if _, err := client.RotateKeyOnDemand(ctx, &kms.RotateKeyOnDemandInput{KeyId: &demanded}); err != nil {
			return err
		}
	}
	for {
		out, err := client.ListKeyRotations(ctx, &kms.ListKeyRotationsInput{KeyId: &scheduled})
		if err != nil || len(out.Rotations) >= automatic {
			return err
		}
	}
}

// requireMet checks that the clients did meet rotations: that they used more than one material of each key.
func requireMet(t *testing.T, s *kmstest.Server, movers []*mover, keys ...string) {
	t.Helper()
	total := 0
	for _, key := range keys {
		met := 0
		for _, id := range column(rotations(t, s, key, "ALL_KEY_MATERIAL", 1000), "KeyMaterialId") {
			for _, m := range movers {
				if m.materials[id] {
					met++
					break
				}
			}
		}
		require.Greater(t, met, 2, key)
	}
	for _, m := range movers {
		total += m.turn
	}
	t.Logf("%d turns", total)
}
