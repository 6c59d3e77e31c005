package kms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"hsmkms/hsm"
	"hsmkms/store"
)

// The service's own keys on the token are recorded in the store under:
//
//	system/vault             vaultRecord: the key that seals the service's secrets
//	system/audit             vaultRecord: the key pair that signs the audit trail
//	system/domain/<region>   hsm.KeyRef: the key under which the Region's wrapped key material lies
const (
	systemPrefix = "system/"
	vaultKey     = systemPrefix + "vault"
	auditKey     = systemPrefix + "audit"
	domainPrefix = systemPrefix + "domain/"
)

// ErrNotInitialized says that a store has no record of the service's own keys: `hsmkms init` makes them.
var ErrNotInitialized = errors.New("not initialised: run `hsmkms init` first")

type vaultRecord struct {
	Region string     `json:"region"`
	Key    hsm.KeyRef `json:"key"`
}

// InitVault makes the vault's key on the token of a Region, unless there is one.
func InitVault(ctx context.Context, st store.Store, region string, token hsm.Token) error {
	return initKey(ctx, st, vaultKey, token, hsm.KeyRequest{Kind: hsm.AES256, Label: vaultKey}, func(ref hsm.KeyRef) any {
		return vaultRecord{Region: region, Key: ref}
	})
}

// InitAudit makes the key pair that signs the audit trail on the token of a Region, unless there is one, or the token can't carry
// it.
func InitAudit(ctx context.Context, st store.Store, region string, token hsm.Token) error {
	err := initKey(ctx, st, auditKey, token, hsm.KeyRequest{Kind: hsm.P256Sign, Label: auditKey}, func(ref hsm.KeyRef) any {
		return vaultRecord{Region: region, Key: ref}
	})
	if hsm.ClassOf(err) == hsm.Unsupported {
		return nil
	}
	return err
}

// AuditSigner gives the signer of the audit trail. It fails with ErrNotInitialized if there is none.
func AuditSigner(ctx context.Context, st store.Store, tokens map[string]hsm.Token) (*hsm.Signer, error) {
	var record vaultRecord
	if err := loadSystem(ctx, st, auditKey, &record); err != nil {
		return nil, fmt.Errorf("finding the key of the audit trail: %w", err)
	}
	token, ok := tokens[record.Region]
	if !ok {
		return nil, fmt.Errorf("the key of the audit trail is on the token of Region %s, which is not configured", record.Region)
	}
	return hsm.NewSigner(token, record.Key, signTimeout)
}

// signTimeout bounds a signature of the service's own.
const signTimeout = 10 * time.Second

// InUse tells whether the store has keys on the token of a Region, the service's own included.
func InUse(ctx context.Context, st store.Store, region string) (used bool, err error) {
	err = st.View(ctx, func(r store.Reader) error {
		owners, err := systemOwners(r, region)
		used = len(owners) > 0
		if err != nil || used {
			return err
		}
		return r.Scan(keyRecord(region, ""), "", func(string, []byte) bool { used = true; return false })
	})
	return used, err
}

// OpenVault gives the vault, having seen that its key works. It fails with ErrNotInitialized, or when the Region of its
// key is not among tokens.
func OpenVault(ctx context.Context, st store.Store, tokens map[string]hsm.Token) (hsm.Vault, error) {
	var record vaultRecord
	if err := loadSystem(ctx, st, vaultKey, &record); err != nil {
		return hsm.Vault{}, fmt.Errorf("opening vault: %w", err)
	}
	token, ok := tokens[record.Region]
	if !ok {
		return hsm.Vault{}, fmt.Errorf("opening vault: its key is on the token of Region %s, which is not configured", record.Region)
	}
	vault := hsm.Vault{Token: token, Key: record.Key}
	sealed, err := vault.Seal(ctx, vaultKey, []byte("works"))
	if err == nil {
		_, err = vault.Open(ctx, vaultKey, sealed)
	}
	if err != nil {
		return hsm.Vault{}, fmt.Errorf("opening vault with the token of Region %s: %w", record.Region, err)
	}
	return vault, nil
}

// InitDomain makes the Region's wrapping key on its token, unless there is one.
func InitDomain(ctx context.Context, st store.Store, region string, token hsm.Token) error {
	request := hsm.KeyRequest{Kind: hsm.AES256Wrap, Label: domainPrefix + region}
	return initKey(ctx, st, domainPrefix+region, token, request, func(ref hsm.KeyRef) any { return ref })
}

// Domain gives the name of the Region's wrapping key, for Region.WrapUnder. It fails with ErrNotInitialized.
func Domain(ctx context.Context, st store.Store, region string) (hsm.KeyID, error) {
	var ref hsm.KeyRef
	if err := loadSystem(ctx, st, domainPrefix+region, &ref); err != nil {
		return "", fmt.Errorf("finding the wrapping key of Region %s: %w", region, err)
	}
	return ref.ID, nil
}

// initKey makes a key and its record. A crash in between leaves an orphan on the token.
func initKey(ctx context.Context, st store.Store, key string, token hsm.Token, request hsm.KeyRequest, record func(hsm.KeyRef) any) error {
	err := loadSystem(ctx, st, key, &json.RawMessage{})
	if !errors.Is(err, ErrNotInitialized) {
		return err
	}
	ref, err := token.GenerateKey(ctx, request)
	if err != nil {
		return fmt.Errorf("making %s: %w", request.Label, err)
	}
	var late bool
	err = st.Update(ctx, func(t store.Txn) error {
		if _, late, err = t.Get(key); err != nil || late {
			return err
		}
		return (&recorder{Txn: t}).put(key, record(ref))
	})
	if err == nil && late { // another process was faster; its key stays
		return token.DestroyKey(ctx, ref)
	}
	return err
}

func loadSystem(ctx context.Context, st store.Store, key string, record any) error {
	return st.View(ctx, func(r store.Reader) error {
		found, err := readSystem(r, key, record)
		if err == nil && !found {
			return ErrNotInitialized
		}
		return err
	})
}

func readSystem(r store.Reader, key string, record any) (bool, error) {
	value, found, err := r.Get(key)
	if err != nil || !found {
		return false, err
	}
	return true, json.Unmarshal(value, record)
}

// Stocktaking is the difference between a token's objects and the store's records.
type Stocktaking struct {
	// Orphans are objects of the token that no record names, left by a crash or made by another server. They are never
	// destroyed by themselves.
	Orphans []hsm.Object
	// Missing are the ids of keys, and the records of the service's own keys, whose object is not on the token.
	Missing []string
}

// Stocktake compares the token of a Region with the store. It reads every key's record, twice if there is anything to tell.
// Keys may be made and destroyed meanwhile: an orphan is an object that is there before and after, and in no record though
// this server has had the time to write it; missing is an object that is in the records before and after, and not there.
func (s *Service) Stocktake(ctx context.Context, region string) (Stocktaking, error) {
	before, known, err := s.look(ctx, region)
	if err != nil {
		return Stocktaking{}, err
	}
	if found := difference(known, known, before, before); len(found.Orphans)+len(found.Missing) == 0 {
		return found, nil
	}
	after, still, err := s.look(ctx, region)
	if err != nil {
		return Stocktaking{}, err
	}
	return difference(known, still, before, after), nil
}

// look lists the objects of a token, and then what the store knows of them.
func (s *Service) look(ctx context.Context, region string) ([]hsm.Object, map[hsm.KeyID]string, error) {
	objects, err := s.cfg.Regions[region].Token.Objects(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("listing the token's objects: %w", err)
	}
	if err := s.making.wait(ctx); err != nil {
		return nil, nil, fmt.Errorf("waiting for the records of new objects: %w", err)
	}
	owners, err := s.owners(ctx, region)
	if err != nil {
		return nil, nil, fmt.Errorf("listing keys: %w", err)
	}
	return objects, owners, nil
}

// nobody owns objects that the store knows and that need not be on the token.
const nobody = ""

// difference compares two looks at the store and at the token: the first at the store comes before the second at the token.
func difference(known, still map[hsm.KeyID]string, before, after []hsm.Object) (found Stocktaking) {
	was, is := map[hsm.KeyID]bool{}, map[hsm.KeyID]bool{}
	for _, object := range before {
		was[object.ID] = true
	}
	for _, object := range after {
		is[object.ID] = true
		_, first := known[object.ID]
		_, second := still[object.ID]
		if was[object.ID] && !first && !second {
			found.Orphans = append(found.Orphans, object)
		}
	}
	for id, owner := range still {
		if known[id] == owner && owner != nobody && !is[id] {
			found.Missing = append(found.Missing, owner)
		}
	}
	return found
}

// owners gives, for every token object that the store knows in a Region, the id of its key or its system record, or nobody.
func (s *Service) owners(ctx context.Context, region string) (map[hsm.KeyID]string, error) {
	var owners map[hsm.KeyID]string
	err := s.cfg.Store.View(ctx, func(r store.Reader) (err error) {
		owners, err = systemOwners(r, region)
		if err != nil {
			return err
		}
		var bad error
		err = r.Scan(keyRecord(region, ""), "", func(_ string, value []byte) bool {
			var key *Key
			if key, bad = decode[Key](value); bad == nil {
				key.own(owners)
			}
			return bad == nil
		})
		return errors.Join(err, bad, ownDooms(r, region, owners), ownImports(r, region, owners))
	})
	return owners, err
}

func systemOwners(r store.Reader, region string) (map[hsm.KeyID]string, error) {
	var vault vaultRecord
	var domain hsm.KeyRef
	owners := map[hsm.KeyID]string{}
	if found, err := readSystem(r, vaultKey, &vault); err != nil {
		return nil, err
	} else if found && vault.Region == region {
		owners[vault.Key.ID] = vaultKey
	}
	var trail vaultRecord
	if found, err := readSystem(r, auditKey, &trail); err != nil {
		return nil, err
	} else if found && trail.Region == region {
		owners[trail.Key.ID] = auditKey
	}
	if found, err := readSystem(r, domainPrefix+region, &domain); err != nil {
		return nil, err
	} else if found {
		owners[domain.ID] = domainPrefix + region
	}
	return owners, nil
}

// own enters the token objects of the key.
func (k *Key) own(owners map[hsm.KeyID]string) {
	for _, m := range k.Materials {
		if m.present() && len(m.Ref.Wrapped) == 0 {
			owners[m.Ref.ID] = k.ID
		}
	}
}
