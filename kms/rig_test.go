package kms

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"hsmkms/hsm"
	"hsmkms/kms/ciphertext"
	"hsmkms/policy"
	"hsmkms/store"
	"hsmkms/store/bolt"
)

// The tests of this package reach what requests to a sound server cannot: key states and usages that no operation makes
// yet, other accounts, failures of the token and of the store. All else is tested in test/contract. The store is a real
// one; the token is a fake, because it must fail, show the memory that it was given, or not be called at all.

const (
	testAccount  = "111122223333"
	otherAccount = "444455556666"
	testRegion   = "us-east-1"

	firstKey  = "11111111-1111-4111-8111-111111111111"
	secondKey = "22222222-2222-4222-8222-222222222222"
)

// fakeToken does what its functions say; to call a method without one panics.
type fakeToken struct {
	hsm.Token
	encrypt   func(plaintext []byte) (hsm.Sealed, error)
	decrypt   func() ([]byte, error)
	reEncrypt func(hsm.Opening, hsm.Sealing) (hsm.Sealed, error)
	random    func(b []byte) error
	generate  func(hsm.KeyRequest) (hsm.KeyRef, error)
	destroy   func(hsm.KeyRef) error
}

func (f fakeToken) Encrypt(_ context.Context, _ hsm.Sealing, plaintext []byte) (hsm.Sealed, error) {
	return f.encrypt(plaintext)
}

func (f fakeToken) Decrypt(context.Context, hsm.Opening) ([]byte, error) { return f.decrypt() }

func (f fakeToken) ReEncrypt(_ context.Context, o hsm.Opening, s hsm.Sealing) (hsm.Sealed, error) {
	return f.reEncrypt(o, s)
}

func (f fakeToken) Random(_ context.Context, b []byte) error { return f.random(b) }

func (f fakeToken) GenerateKey(_ context.Context, r hsm.KeyRequest) (hsm.KeyRef, error) {
	return f.generate(r)
}

func (f fakeToken) DestroyKey(_ context.Context, key hsm.KeyRef) error { return f.destroy(key) }

// newService makes a service on a store and a token. Each edit changes its configuration.
func newService(t *testing.T, token hsm.Token, edits ...func(*Config)) *Service {
	t.Helper()
	st, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "store.db")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	cfg := Config{Store: retryingStore{st}, Regions: map[string]Region{testRegion: {Token: token}}, Principals: everybody}
	for _, edit := range edits {
		edit(&cfg)
	}
	s, err := New(cfg)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

// everybody are Principals among whom there is somebody of every ARN.
var everybody = Principals{
	IDs: func(_ context.Context, arns []string) (policy.Bindings, error) {
		ids := policy.Bindings{}
		for _, arn := range arns {
			ids[arn] = idOf(arn)
		}
		return ids, nil
	},
	ARNs: func(_ context.Context, ids []string) (map[string]string, error) {
		arns := map[string]string{}
		for _, id := range ids {
			arns[id] = arnOf(id)
		}
		return arns, nil
	},
}

const (
	sessionARNs = "arn:aws:sts::" + testAccount + ":assumed-role/"
	roleARNs    = "arn:aws:iam::" + testAccount + ":role/"
)

// idOf is the unique id of a principal. That of a session begins with that of its role, up to the colon.
func idOf(arn string) string {
	if session, ok := strings.CutPrefix(arn, sessionARNs); ok {
		return "AROA" + strings.ReplaceAll(session, "/", ":")
	}
	if role, ok := strings.CutPrefix(arn, roleARNs); ok {
		return "AROA" + role
	}
	return "AIDA" + arn
}

// arnOf is the reverse of idOf.
func arnOf(id string) string {
	if session, ok := strings.CutPrefix(id, "AROA"); ok && strings.Contains(id, ":") {
		return sessionARNs + strings.ReplaceAll(session, ":", "/")
	} else if ok {
		return roleARNs + session
	}
	return strings.TrimPrefix(id, "AIDA")
}

// newTestKey makes the record of an Enabled symmetric key, whose material's id repeats the first digit of the key's.
func newTestKey(id string, edits ...func(*Key)) *Key {
	key := &Key{
		ID: id, Account: testAccount, Region: testRegion, Spec: SymmetricDefault, Usage: EncryptDecrypt, Origin: OriginKMS, State: Enabled,
		Created:   time.Unix(1_700_000_000, 0).UTC(),
		Policy:    defaultPolicy(testAccount),
		Materials: []Material{{ID: hex.EncodeToString(testMaterial(id)), Ref: hsm.KeyRef{ID: hsm.KeyID(id), Kind: hsm.AES256}}},
	}
	for _, edit := range edits {
		edit(key)
	}
	return key
}

func testMaterial(keyID string) []byte {
	return bytes.Repeat([]byte{keyID[0]}, ciphertext.MaterialSize)
}

// inState puts a key into a state. A key that waits for its material has none.
func inState(state KeyState) func(*Key) {
	return func(key *Key) {
		key.State = state
		if state == PendingImport {
			key.Materials, key.Origin = nil, OriginExternal
		}
	}
}

// put stores the records of keys.
func put(t *testing.T, s *Service, keys ...*Key) {
	t.Helper()
	require.NoError(t, s.update(t.Context(), func(r *recorder) error {
		for _, key := range keys {
			if err := r.put(keyRecord(key.Region, key.ID), key); err != nil {
				return err
			}
		}
		return nil
	}))
}

// newBlob makes a well-formed ciphertext of a key of newTestKey.
func newBlob(t *testing.T, keyID string) []byte {
	t.Helper()
	blob := ciphertext.Blob{Header: ciphertext.Header{KeyID: keyID}, Data: bytes.Repeat([]byte{0xDA}, 40)}
	copy(blob.Material[:], testMaterial(keyID))
	raw, err := ciphertext.Marshal(blob)
	require.NoError(t, err)
	return raw
}

// newRequest is a request of the root user of testAccount.
func newRequest(operation string) *Request {
	return &Request{
		Operation: operation, Region: testRegion,
		Caller: &policy.Caller{Principal: policy.Principal{Type: policy.Root, ARN: rootARN(testAccount), Account: testAccount}},
	}
}

// requireError checks the type and the text of an error, and that there is no output beside it.
func requireError[Out any](t *testing.T, out *Out, err error, code ErrorType, message string) {
	t.Helper()
	require.Nil(t, out)
	var shown *Error
	require.ErrorAs(t, err, &shown)
	require.Equal(t, code, shown.Type)
	require.Equal(t, message, shown.Message)
}

// retryingStore is a store that tries each transaction twice, as one with optimistic concurrency does on a conflict: what the
// first try wrote is dropped, and it must leave no other trace.
type retryingStore struct{ store.Store }

var errConflict = errors.New("conflict")

func (s retryingStore) Update(ctx context.Context, fn func(store.Txn) error) error {
	err := s.Store.Update(ctx, func(t store.Txn) error { return errors.Join(errConflict, fn(t)) })
	if !errors.Is(err, errConflict) {
		return err
	}
	return s.Store.Update(ctx, fn)
}

// failingStore is a store whose updates fail with err after, or instead of, their commit.
type failingStore struct {
	store.Store
	err       error
	committed bool
}

func (f failingStore) Update(ctx context.Context, fn func(store.Txn) error) error {
	if f.committed {
		if err := f.Store.Update(ctx, fn); err != nil {
			return err
		}
	}
	return f.err
}
