package pkcs11

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	p11 "github.com/miekg/pkcs11"

	"hsmkms/hsm"
)

// errUnindexed says that an object is to be searched for, which the slow lane does: a search may have to wait until a key
// pair is made.
var errUnindexed = errors.New("the object is not in the index")

// labelPrefix marks the objects that are ours in their CKA_LABEL.
const labelPrefix = "hsmkms/"

// keyIDSize is the length of the CKA_ID of our objects, in bytes.
const keyIDSize = 16

// keys knows the handles of one epoch: those of the token's persistent objects, and those of session objects made from
// them (or unwrapped) at first use, which are faster to work with on many tokens.
type keys struct {
	token *Token
	// anchor owns all session objects: they live as long as it is open and can be used from every session.
	anchor *session
	// anchorMu guards the use of anchor. It may be taken while objectsMu is held, not the other way round.
	anchorMu sync.Mutex
	// objectsMu serialises creation, destruction and search of persistent objects, which SoftHSM 2.6.1 and NSS do not
	// survive side by side.
	objectsMu sync.Mutex

	// passing is held by a request, among others, for as long as it has a session object of its own, and by a search alone; see
	// alone. No other lock is taken while it is held.
	passing sync.RWMutex

	mu      sync.Mutex // guards what follows, for moments only
	objects map[hsm.KeyID]p11.ObjectHandle
	loaded  *simplelru.LRU[hsm.KeyID, *loadedKey]
	trash   []p11.ObjectHandle // session objects to destroy
	wraps   wrapping
}

// loadedKey is a handle in use. It is valid until release.
type loadedKey struct {
	handle p11.ObjectHandle
	owned  bool // a session object of ours, to be destroyed after the last use
	users  int
	gone   bool // no longer in the cache
}

func newKeys(t *Token, anchor *session) *keys {
	k := &keys{token: t, anchor: anchor, objects: map[hsm.KeyID]p11.ObjectHandle{}}
	anchor.keys = k
	k.loaded, _ = simplelru.NewLRU(t.cfg.Profile.KeyCache, k.evicted) // fails only for a size below 1
	return k
}

// anew runs f, and once more with handles of the keys looked up anew if the token did not know one.
func (k *keys) anew(f func() error, ids ...hsm.KeyID) error {
	err := f()
	if hsm.ClassOf(err) != hsm.KeyMissing {
		return err
	}
	for _, id := range ids {
		k.forget(id)
	}
	return f()
}

// acquire gives the handle of a key, loading it at first use. The caller must release it.
func (k *keys) acquire(s *session, ref hsm.KeyRef) (*loadedKey, error) {
	if key := k.cached(ref.ID); key != nil {
		return key, nil
	}
	object, release, err := k.source(s, ref)
	if err != nil {
		return nil, err
	}
	defer release()
	k.anchorMu.Lock()
	defer k.anchorMu.Unlock()
	if key := k.cached(ref.ID); key != nil {
		return key, nil
	}
	key, err := k.load(ref, object)
	for hsm.ClassOf(err) == hsm.TokenFull && k.shrink() { // the token has room for fewer keys than the cache
		key, err = k.load(ref, object)
	}
	if err != nil {
		return nil, k.ofAnchor(err)
	}
	k.mu.Lock()
	k.loaded.Add(ref.ID, key)
	k.mu.Unlock()
	k.sweep()
	return key, nil
}

// cached gives a loaded key with one more user, or nil.
func (k *keys) cached(id hsm.KeyID) *loadedKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, ok := k.loaded.Get(id)
	if !ok {
		return nil
	}
	key.users++
	return key
}

// release ends one use of a key.
func (k *keys) release(key *loadedKey) {
	k.mu.Lock()
	key.users--
	dead := key.gone && key.users == 0 && key.owned
	if dead {
		k.trash = append(k.trash, key.handle)
	}
	k.mu.Unlock()
	if dead {
		k.anchorMu.Lock()
		defer k.anchorMu.Unlock()
		k.sweep()
	}
}

// evicted is called by the cache, with mu held.
func (k *keys) evicted(_ hsm.KeyID, key *loadedKey) {
	key.gone = true
	if key.users == 0 && key.owned {
		k.trash = append(k.trash, key.handle)
	}
}

// sweep destroys session objects that nobody uses. The caller holds anchorMu.
func (k *keys) sweep() {
	k.mu.Lock()
	trash := k.trash
	k.trash = nil
	k.mu.Unlock()
	for _, handle := range trash {
		// A failure leaves a session object until the end of the epoch, which is no harm.
		_ = k.anchor.destroy(handle)
	}
}

// shrink drops the key that was not used for longest, and tells whether there was one. The caller holds anchorMu.
func (k *keys) shrink() bool {
	k.mu.Lock()
	_, _, dropped := k.loaded.RemoveOldest()
	k.mu.Unlock()
	k.sweep()
	return dropped
}

// forget drops what is known of a key, so that the next use looks anew. It takes its turn with acquire, which might
// otherwise add a copy made of an object that is destroyed meanwhile.
func (k *keys) forget(id hsm.KeyID) {
	k.anchorMu.Lock()
	defer k.anchorMu.Unlock()
	k.mu.Lock()
	k.loaded.Remove(id)
	delete(k.objects, id)
	k.mu.Unlock()
	k.sweep()
}

// source gives the object that a key is loaded from: its own on the token, or the key that it is wrapped under, which is
// loaded likewise. The caller releases it.
func (k *keys) source(s *session, ref hsm.KeyRef) (object p11.ObjectHandle, release func(), err error) {
	if len(ref.Wrapped) == 0 {
		object, err = k.object(s, ref.ID)
		return object, func() {}, err
	}
	under, err := k.acquire(s, hsm.KeyRef{ID: ref.WrappedBy, Kind: hsm.AES256Wrap})
	if err != nil {
		return 0, nil, err
	}
	return under.handle, func() { k.release(under) }, nil
}

// object gives the handle of a persistent object. One that is not in the index may have been made by another server
// on the same token, so it is searched for, once for a caller: by a slow task only, see task.slow.
func (k *keys) object(s *session, id hsm.KeyID) (p11.ObjectHandle, error) {
	k.mu.Lock()
	handle, ok := k.objects[id]
	k.mu.Unlock()
	if ok {
		return handle, nil
	}
	raw, err := ckaID(id)
	if err != nil {
		return 0, err
	}
	if !s.searches {
		return 0, &hsm.Error{Class: hsm.KeyMissing, Cause: errUnindexed}
	}
	k.objectsMu.Lock()
	defer k.objectsMu.Unlock()
	k.anchorMu.Lock()
	defer k.anchorMu.Unlock()
	defer k.alone()()
	found, err := k.anchor.find([]*p11.Attribute{p11.NewAttribute(p11.CKA_ID, raw), p11.NewAttribute(p11.CKA_TOKEN, true)})
	if err != nil {
		return 0, k.ofAnchor(err)
	}
	if len(found) > 1 { // a key pair of crypto11's, both halves of which have the CKA_ID
		found = slices.DeleteFunc(found, k.anchor.isPublic)
	}
	if len(found) == 0 {
		if err := k.anchor.loggedIn(); err != nil {
			return 0, k.ofAnchor(err)
		}
		return 0, &hsm.Error{Class: hsm.KeyMissing, Cause: fmt.Errorf("no object with CKA_ID %s", id)}
	}
	k.know(id, found[0])
	return found[0], nil
}

// isPublic tells whether an object is a public key.
func (s *session) isPublic(object p11.ObjectHandle) bool {
	return bytes.Equal(s.attribute(object, p11.CKA_CLASS), p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PUBLIC_KEY).Value)
}

// ckaID gives the CKA_ID that a name stands for. Every key has one name only.
func ckaID(id hsm.KeyID) ([]byte, error) {
	raw, err := hex.DecodeString(string(id))
	if err != nil || len(raw) != keyIDSize || hex.EncodeToString(raw) != string(id) {
		return nil, &hsm.Error{Class: hsm.KeyMissing, Cause: fmt.Errorf("%q is not a key name", id)}
	}
	return raw, nil
}

// ofAnchor makes the loss of the anchor's session the loss of the token: with it go all session objects, and another
// one takes a new epoch. A code that says nothing is believed if the anchor still works. The caller holds anchorMu.
func (k *keys) ofAnchor(err error) error {
	if hsm.ClassOf(err) == hsm.SessionDead || vague(err) && k.anchor.check() != nil {
		return reclassed(err, hsm.TokenGone)
	}
	return err
}

func (k *keys) know(id hsm.KeyID, handle p11.ObjectHandle) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.objects[id] = handle
}

// load makes the session object of a key. The caller holds anchorMu.
func (k *keys) load(ref hsm.KeyRef, object p11.ObjectHandle) (*loadedKey, error) {
	if len(ref.Wrapped) > 0 {
		if err := checkWrapped(ref); err != nil {
			return nil, err
		}
		mechanism, err := k.mechanism(ref.WrapFormat, object)
		if err != nil {
			return nil, err
		}
		handle, err := k.anchor.unwrap(mechanism, object, ref)
		return &loadedKey{handle: handle, owned: true, users: 1}, err
	}
	if !k.token.cfg.Profile.TokenHandles {
		handle, err := k.anchor.copyToSession(object)
		if err == nil {
			return &loadedKey{handle: handle, owned: true, users: 1}, nil
		}
		if c := hsm.ClassOf(err); c == hsm.KeyMissing || suspect(err) {
			return nil, err
		}
		// A token without C_CopyObject, or without room for session objects, works with the object itself.
	}
	return &loadedKey{handle: object, users: 1}, nil
}

// index finds all our persistent objects, once in an epoch: a search costs SoftHSM 19 microseconds an object.
func (k *keys) index() error {
	objects, err := k.search(k.anchor)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for handle, o := range objects {
		k.objects[o.ID] = handle
	}
	return nil
}

// list gives all our persistent objects as the token has them now, searched for on the session of the caller.
func (k *keys) list(s *session) ([]hsm.Object, error) {
	objects, err := k.search(s)
	list := make([]hsm.Object, 0, len(objects))
	for _, o := range objects {
		list = append(list, o)
	}
	return list, err
}

// search finds our persistent objects. SoftHSM does not bear it that session objects are made or destroyed at the same
// moment, so it takes turns with the anchor, call by call: a key that is loaded meanwhile waits for one of them.
func (k *keys) search(s *session) (map[p11.ObjectHandle]hsm.Object, error) {
	k.objectsMu.Lock()
	defer k.objectsMu.Unlock()
	handles, err := k.findAll(s)
	if err != nil {
		return nil, err
	}
	objects := make(map[p11.ObjectHandle]hsm.Object, len(handles))
	for _, handle := range handles {
		label, err := k.readInTurn(s, handle, p11.CKA_LABEL)
		if err != nil {
			return nil, err
		}
		id, err := k.readInTurn(s, handle, p11.CKA_ID)
		if err != nil {
			return nil, err
		}
		if rest, ours := strings.CutPrefix(string(label), labelPrefix); ours && len(id) == keyIDSize {
			objects[handle] = hsm.Object{ID: hsm.KeyID(hex.EncodeToString(id)), Label: rest}
		}
	}
	return objects, nil
}

func (k *keys) findAll(s *session) ([]p11.ObjectHandle, error) {
	k.anchorMu.Lock()
	defer k.anchorMu.Unlock()
	defer k.alone()()
	handles, err := s.find([]*p11.Attribute{p11.NewAttribute(p11.CKA_TOKEN, true)})
	if err != nil {
		return nil, err
	}
	return handles, s.loggedIn()
}

func (k *keys) readInTurn(s *session, object p11.ObjectHandle, kind uint) ([]byte, error) {
	k.anchorMu.Lock()
	defer k.anchorMu.Unlock()
	return s.read(object, kind)
}

// alone waits for a moment in which no request has a session object of its own, which a search on SoftHSM would not bear, and
// keeps it until over is called. It does not wait long, nor have requests wait for it: SoftHSM is quick, and on other makes a
// request that hangs must not stop everything else.
func (k *keys) alone() (over func()) {
	for range 20 {
		if k.passing.TryLock() {
			return k.passing.Unlock
		}
		time.Sleep(time.Millisecond)
	}
	return func() {}
}

// find searches for objects. The caller holds objectsMu and the right to the session.
func (s *session) find(template []*p11.Attribute) ([]p11.ObjectHandle, error) {
	if err := s.m.call("C_FindObjectsInit", func() error { return s.m.ctx.FindObjectsInit(s.handle, template) }); err != nil {
		return nil, fmt.Errorf("searching objects: %w", err)
	}
	defer func() {
		_ = s.m.call("C_FindObjectsFinal", func() error { return s.m.ctx.FindObjectsFinal(s.handle) })
	}()
	var all []p11.ObjectHandle
	for {
		var some []p11.ObjectHandle
		err := s.m.call("C_FindObjects", func() (err error) {
			some, _, err = s.m.ctx.FindObjects(s.handle, 500)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("searching objects: %w", err)
		}
		if len(some) == 0 {
			return all, nil
		}
		all = append(all, some...)
	}
}

// loggedIn fails if the user is not logged in: private objects are then not found, as if they did not exist.
func (s *session) loggedIn() error {
	var info p11.SessionInfo
	if err := s.m.call("C_GetSessionInfo", func() (err error) { info, err = s.m.ctx.GetSessionInfo(s.handle); return }); err != nil {
		return fmt.Errorf("looking at the login: %w", err)
	}
	if info.State != p11.CKS_RW_USER_FUNCTIONS {
		return &hsm.Error{Class: hsm.TokenGone, Cause: errors.New("the user is not logged in any more")}
	}
	return nil
}

// read reads one attribute; nil if the object does not have it or does not show it, or is gone. One at a time, because
// C_GetAttributeValue fails as a whole for one that is missing.
func (s *session) read(object p11.ObjectHandle, kind uint) ([]byte, error) {
	var attributes []*p11.Attribute
	err := s.m.call("C_GetAttributeValue", func() (err error) {
		attributes, err = s.m.ctx.GetAttributeValue(s.handle, object, []*p11.Attribute{p11.NewAttribute(kind, nil)})
		return err
	})
	if isCode(err, p11.CKR_ATTRIBUTE_TYPE_INVALID, p11.CKR_ATTRIBUTE_SENSITIVE) || hsm.ClassOf(err) == hsm.KeyMissing {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading attribute: %w", err)
	}
	return attributes[0].Value, nil
}

// attribute is read for those who can do without.
func (s *session) attribute(object p11.ObjectHandle, kind uint) []byte {
	value, _ := s.read(object, kind)
	return value
}
