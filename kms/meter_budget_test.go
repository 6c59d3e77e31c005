package kms

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
)

const exhausted = " cannot encrypt because its current key material has reached the limit of encryptions."

// TestBudgetBound encrypts until the material is refused: with its proof it has then encrypted exactly twice as often as
// it should, whatever the parts of the budget are, and over any number of servers that used all that they had.
func TestBudgetBound(t *testing.T) {
	for _, p := range [][3]uint64{{1, 0, 1}, {10, 0, 1}, {10, 0, 7}, {10, 3, 1}, {100, 3, 7}, {100, 90, 64}, {10, 0, 100}} {
		r := newMeterRig(t)
		s := r.start(t, parts(p[0], p[1], p[2]))
		key := r.newKey(t, s)
		var err error
		encrypted := uint64(1)
		for ; err == nil; encrypted++ {
			err = encryptUnder(t.Context(), s, key.ID)
		}
		encrypted--
		require.Equal(t, 2*p[0], encrypted, "%v", p)
		require.Equal(t, 2*p[0], uint64(r.token.count(key.Materials[0].Ref.ID)))
		requireError[EncryptOutput](t, nil, err, InvalidState, key.ARN()+exhausted)
		for _, next := range []*Service{s, r.start(t, parts(p[0], p[1], p[2]))} {
			for range 3 {
				requireError[EncryptOutput](t, nil, encryptUnder(t.Context(), next, key.ID), InvalidState, key.ARN()+exhausted)
			}
			other := r.newKey(t, next)
			if p[0] > 1 {
				require.NoError(t, encryptUnder(t.Context(), next, other.ID), "another key")
			}
		}
	}
}

// TestBudgetParts pins what a budget is divided into.
func TestBudgetParts(t *testing.T) {
	for _, test := range []struct{ limit, free, batch uint64 }{
		{0, 1 << 16, 1 << 20}, {1 << 31, 1 << 16, 1 << 20}, {1 << 15, 1, 16}, {1<<15 - 1, 0, 15}, {2000, 0, 1}, {1, 0, 1},
	} {
		s := newService(t, fakeToken{}, func(cfg *Config) { cfg.Budget = test.limit })
		require.Equal(t, test.free, s.meter.free, test.limit)
		require.Equal(t, test.batch, s.meter.batch, test.limit)
	}
}

// TestBudgetLowered starts a server with a budget that the material is beyond already, because of what earlier servers may
// have encrypted without writing it down. It must not encrypt, and is to be rotated.
func TestBudgetLowered(t *testing.T) {
	r := newMeterRig(t)
	s := r.start(t, parts(1000, 100, 10))
	key := r.newKey(t, s)
	require.NoError(t, encryptUnder(t.Context(), s, key.ID))
	s = r.start(t, parts(20, 1, 1))
	requireError[EncryptOutput](t, nil, encryptUnder(t.Context(), s, key.ID), InvalidState, key.ARN()+exhausted)
	run(t, s)
	soon(t, func() bool { return encryptUnder(context.Background(), s, key.ID) == nil }, "the key is not rotated")
}

// TestBudgetNoWriteARequest looks at what requests cost the store: one write a run, and a look at each key.
func TestBudgetNoWriteARequest(t *testing.T) {
	r := newMeterRig(t)
	var keys []string
	first := r.start(t)
	for range 50 {
		keys = append(keys, r.newKey(t, first).ID)
	}
	for range 3 {
		s := r.start(t)
		for _, id := range keys {
			r.key(t, s, id) // cached, but for the watch's start
		}
		views, updates := r.store.views.Load(), r.store.updates.Load()
		for range 40 {
			for _, id := range keys {
				require.NoError(t, encryptUnder(t.Context(), s, id))
			}
		}
		require.Equal(t, updates+1, r.store.updates.Load())
		require.LessOrEqual(t, r.store.views.Load(), views+3*int64(len(keys)), "a read a request")
	}
}

// TestBudgetConcurrent has two servers on one store encrypt until they are refused. Together they have then encrypted
// exactly twice as often as they should.
func TestBudgetConcurrent(t *testing.T) {
	r := newMeterRig(t)
	first := r.start(t, parts(500, 40, 16))
	key := r.newKey(t, first)
	var group sync.WaitGroup
	var refused atomic.Int64
	for _, s := range []*Service{first, r.start(t, parts(500, 40, 16))} {
		for range 8 {
			group.Go(func() {
				var err error
				for err == nil {
					err = encryptUnder(context.Background(), s, key.ID)
				}
				if TypeOf(err) == InvalidState {
					refused.Add(1)
				}
			})
		}
	}
	group.Wait()
	require.Equal(t, int64(16), refused.Load())
	require.Equal(t, 1000, r.token.count(key.Materials[0].Ref.ID))
}

// worlds of the simulation: servers that come and go on one store, whose writes fail now and then.
type simulation struct {
	*meterRig
	random  *rand.Rand
	servers []*Service
	keys    []*Key
	rate    float64 // of failures
	fate    map[error]int
}

// TestBudgetNeverTooLow lets servers start, be killed, make keys and encrypt in any order, while the store fails before
// and after commits. The count in the store is never below the encryptions made, and these never beyond the bound.
func TestBudgetNeverTooLow(t *testing.T) {
	for range 12 {
		seed := rand.Uint64()
		t.Log("seed", seed)
		sim := &simulation{meterRig: newMeterRig(t), random: rand.New(rand.NewPCG(seed, 0)), fate: map[error]int{}}
		sim.store.trouble = func(bool) error {
			switch luck := sim.random.Float64(); {
			case luck < sim.rate/2:
				return errBefore
			case luck < sim.rate:
				return errAfter
			}
			return nil
		}
		sim.startServer(t)
		for range 3000 {
			sim.step(t)
		}
		require.NotZero(t, sim.fate[nil], "nothing was encrypted")
		require.NotZero(t, sim.fate[errAfter], "no write failed")
	}
}

func (m *simulation) startServer(t *testing.T) {
	t.Helper()
	limit := uint64(100 + m.random.IntN(100)) // servers need not agree
	m.servers = append(m.servers, m.start(t, parts(limit, uint64(m.random.IntN(8)), 1+uint64(m.random.IntN(12)))))
}

func (m *simulation) step(t *testing.T) {
	t.Helper()
	i := m.random.IntN(len(m.servers))
	switch luck := m.random.IntN(1000); {
	case luck < 8 && len(m.servers) < 4:
		m.startServer(t)
	case luck < 16 && len(m.servers) > 1:
		m.servers = slices.Delete(m.servers, i, i+1) // killed: nobody asks it any more
	case luck < 24 || len(m.keys) == 0:
		m.keys = append(m.keys, m.newKey(t, m.servers[i]))
	default:
		m.encrypt(t, m.servers[i], m.keys[m.random.IntN(len(m.keys))])
	}
}

func (m *simulation) encrypt(t *testing.T, s *Service, key *Key) {
	t.Helper()
	material := &key.Materials[0]
	made := m.token.count(material.Ref.ID)
	m.rate = 0.2
	err := encryptUnder(t.Context(), s, key.ID)
	m.rate = 0
	for _, known := range []error{errBefore, errAfter, nil} {
		if errors.Is(err, known) {
			m.fate[known]++
			break
		}
	}
	now := m.token.count(material.Ref.ID)
	require.Equal(t, err == nil, now > made, "encrypted without leave")
	require.LessOrEqual(t, uint64(now), m.counted(t, material), "the count is too low")
	require.LessOrEqual(t, uint64(now), 2*uint64(200), "beyond the bound")
}

// TestBudgetOlderServer encrypts under material that a server made which started later: the older server's free
// encryptions are not in that material's count.
func TestBudgetOlderServer(t *testing.T) {
	r := newMeterRig(t)
	older, younger := r.start(t, parts(1000, 100, 10)), r.start(t, parts(1000, 100, 10))
	old := r.newKey(t, older)
	for _, s := range []*Service{older, younger} {
		require.NoError(t, encryptUnder(t.Context(), s, old.ID))
	}
	key := r.newKey(t, younger)
	require.Equal(t, uint64(100), key.Materials[0].Base)
	for range 95 {
		require.NoError(t, encryptUnder(t.Context(), older, key.ID))
		require.NoError(t, encryptUnder(t.Context(), younger, key.ID))
	}
	require.Equal(t, uint64(1+100+100), r.counted(t, &key.Materials[0]))
}

// TestBudgetOfOlderStore has material that remembers more free encryptions than the store knows of, as after a part of the store
// was put back. All of them may be its own.
func TestBudgetOfOlderStore(t *testing.T) {
	r := newMeterRig(t)
	s := r.start(t, parts(1000, 100, 10))
	key := r.newKey(t, s)
	require.NoError(t, encryptUnder(t.Context(), s, key.ID))
	m := key.Materials[0]
	m.Base = 1_000_000
	require.EqualValues(t, 1+100, r.counted(t, &m))
}

// TestBudgetFailsClosed lets the store fail: nothing is encrypted that is not in the count.
func TestBudgetFailsClosed(t *testing.T) {
	for _, p := range [][3]uint64{{100, 3, 1}, {100, 0, 1}} {
		for _, failure := range []error{errBefore, errAfter} {
			r := newMeterRig(t)
			s := r.start(t, parts(p[0], p[1], p[2]))
			key := r.newKey(t, s)
			before := r.token.count(key.Materials[0].Ref.ID)
			r.store.trouble = func(update bool) error {
				if update {
					return failure
				}
				return nil
			}
			for range 5 {
				err := encryptUnder(t.Context(), s, key.ID)
				require.ErrorIs(t, err, failure)
				require.Equal(t, InternalError, TypeOf(err))
			}
			require.Equal(t, before, r.token.count(key.Materials[0].Ref.ID))
			r.store.trouble = nil
			require.NoError(t, encryptUnder(t.Context(), s, key.ID), "the store is well again")
		}
	}
}

// TestBudgetDeadline asks while another request waits for the store.
func TestBudgetDeadline(t *testing.T) {
	r := newMeterRig(t)
	s := r.start(t, parts(100, 0, 1))
	key := r.newKey(t, s)
	c := s.meter.counter(materialName{testRegion, key.Materials[0].ID})
	require.NoError(t, c.gate.enter(t.Context()))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, encryptUnder(ctx, s, key.ID), context.Canceled)
	c.gate.leave()
	require.NoError(t, encryptUnder(t.Context(), s, key.ID))
}

// TestBudgetForgeries re-encrypts forged ciphertexts, which must cost nothing, and dry runs, which cost what they do.
func TestBudgetForgeries(t *testing.T) {
	r := newMeterRig(t)
	s := r.start(t, parts(50, 0, 1))
	put(t, s, newTestKey(firstKey), newTestKey(secondKey))
	material := &newTestKey(secondKey).Materials[0]
	forged := newBlob(t, firstKey)
	copy(forged[len(forged)-20:], "forged")
	for range 1000 {
		out, err := reEncrypt(t, s, func(in *ReEncryptInput) { in.CiphertextBlob = forged })
		requireError(t, out, err, InvalidCiphertext, "")
	}
	require.Equal(t, uint64(2), r.counted(t, material), "the proof, and the one that nobody needed")
	_, err := reEncrypt(t, s)
	require.NoError(t, err)
	require.Equal(t, uint64(2), r.counted(t, material))
	_, err = reEncrypt(t, s, func(in *ReEncryptInput) { in.DryRun = true })
	require.Equal(t, DryRunOperation, TypeOf(err))
	require.Equal(t, uint64(3), r.counted(t, material), "the token did encrypt")
	require.Equal(t, 2, r.token.count(material.Ref.ID))
	_, err = s.Encrypt(t.Context(), newRequest("Encrypt"), &EncryptInput{KeyId: secondKey, Plaintext: []byte("x"), DryRun: true})
	require.Equal(t, DryRunOperation, TypeOf(err))
	require.Equal(t, uint64(3), r.counted(t, material))
}

// TestBudgetOtherFailures lets the token fail in ways that do not tell whether it has encrypted.
func TestBudgetOtherFailures(t *testing.T) {
	for _, failure := range []*hsm.Error{{Class: hsm.BadInput}, {Class: hsm.SessionDead, Source: true}, {Class: hsm.Failed}} {
		s := newService(t, fakeToken{reEncrypt: func(hsm.Opening, hsm.Sealing) (hsm.Sealed, error) { return hsm.Sealed{}, failure }},
			func(cfg *Config) { cfg.Budget = 50 })
		put(t, s, newTestKey(firstKey), newTestKey(secondKey))
		for range 99 {
			_, err := reEncrypt(t, s)
			require.ErrorIs(t, err, failure)
		}
		out, err := reEncrypt(t, s)
		requireError(t, out, err, InvalidState, newTestKey(secondKey).ARN()+exhausted)
	}
}

// TestBudgetEveryOperation counts each operation that encrypts once.
func TestBudgetEveryOperation(t *testing.T) {
	r := newMeterRig(t)
	s := r.start(t, parts(50, 0, 1))
	put(t, s, newTestKey(firstKey))
	material := &newTestKey(firstKey).Materials[0]
	for i, operation := range []func() error{
		func() error { return encryptUnder(t.Context(), s, firstKey) },
		func() error {
			_, err := s.GenerateDataKey(t.Context(), newRequest("GenerateDataKey"), &GenerateDataKeyInput{KeyId: firstKey, KeySpec: "AES_256"})
			return err
		},
		func() error {
			in := &GenerateDataKeyWithoutPlaintextInput{KeyId: firstKey, KeySpec: "AES_256"}
			_, err := s.GenerateDataKeyWithoutPlaintext(t.Context(), newRequest("GenerateDataKeyWithoutPlaintext"), in)
			return err
		},
		func() error {
			_, err := reEncrypt(t, s, func(in *ReEncryptInput) { in.DestinationKeyId = firstKey })
			return err
		},
	} {
		require.NoError(t, operation())
		require.Equal(t, i+1, r.token.count(material.Ref.ID))
		require.Equal(t, uint64(i+2), r.counted(t, material))
	}
}

// TestBudgetDeletedKey encrypts by a server that has not heard yet that the key is gone: no record may stay behind.
func TestBudgetDeletedKey(t *testing.T) {
	r := newMeterRig(t)
	s := r.start(t, parts(50, 0, 1))
	key := r.newKey(t, s)
	require.NoError(t, s.update(t.Context(), func(t *recorder) error { return t.remove(keyRecord(testRegion, key.ID)) }))
	require.Equal(t, NotFound, TypeOf(s.meter.take(t.Context(), key, &key.Materials[0])))
	require.Equal(t, uint64(1), r.counted(t, &key.Materials[0]))
}

// BenchmarkTake measures the counting of an encryption, of one key and of many.
func BenchmarkTake(b *testing.B) {
	r := newMeterRig(b)
	s := r.start(b)
	keys := make([]*Key, 1000)
	for i := range keys {
		keys[i] = r.newKey(b, s)
	}
	for name, keys := range map[string][]*Key{"one": keys[:1], "many": keys} {
		b.Run(name, func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					key := keys[i%len(keys)]
					if err := s.meter.take(context.Background(), key, key.current()); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkUsed measures the noting of a use.
func BenchmarkUsed(b *testing.B) {
	s := newMeterRig(b).start(b)
	key, r := newTestKey(firstKey), newRequest("Encrypt")
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			s.meter.used(r, key)
		}
	})
}
