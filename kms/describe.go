package kms

import (
	"context"
	"time"
)

// KeyMetadata describes a key, as DescribeKey and CreateKey give it. Members that do not apply are absent.
type KeyMetadata struct {
	AWSAccountId                string
	Arn                         string
	CloudHsmClusterId           string `json:",omitempty"`
	CreationDate                Timestamp
	CurrentKeyMaterialId        string                `json:",omitempty"`
	CustomKeyStoreId            string                `json:",omitempty"`
	CustomerMasterKeySpec       KeySpec               `json:",omitempty"`
	DeletionDate                *Timestamp            `json:",omitempty"`
	Description                 string                // present even when empty
	Enabled                     bool                  // present even when false
	EncryptionAlgorithms        []EncryptionAlgorithm `json:",omitempty"`
	ExpirationModel             string                `json:",omitempty"`
	KeyAgreementAlgorithms      []string              `json:",omitempty"`
	KeyId                       string
	KeyManager                  string
	KeySpec                     KeySpec
	KeyState                    KeyState
	KeyUsage                    KeyUsage
	MacAlgorithms               []string                  `json:",omitempty"`
	MultiRegion                 bool                      // present even when false
	MultiRegionConfiguration    *MultiRegionConfiguration `json:",omitempty"`
	Origin                      Origin
	PendingDeletionWindowInDays *int32               `json:",omitempty"`
	SigningAlgorithms           []string             `json:",omitempty"`
	ValidTo                     *Timestamp           `json:",omitempty"`
	XksKeyConfiguration         *XksKeyConfiguration `json:",omitempty"`
}

// MultiRegionConfiguration names the primary and the replicas of a multi-Region key.
type MultiRegionConfiguration struct {
	MultiRegionKeyType string
	PrimaryKey         MultiRegionKey
	ReplicaKeys        []MultiRegionKey
}

// MultiRegionKey is one of the keys of a MultiRegionConfiguration.
type MultiRegionKey struct {
	Arn    string
	Region string
}

// XksKeyConfiguration names a key of an external key store; there are none.
type XksKeyConfiguration struct {
	Id string
}

// DescribeKeyInput is the input of DescribeKey.
type DescribeKeyInput struct {
	KeyId       string
	GrantTokens []string
}

// DescribeKeyOutput is the output of DescribeKey.
type DescribeKeyOutput struct {
	KeyMetadata *KeyMetadata `json:",omitempty"`
}

// DescribeKey gives the metadata of a key in any state.
func (s *Service) DescribeKey(ctx context.Context, r *Request, in *DescribeKeyInput) (*DescribeKeyOutput, error) {
	if err := checkGrantTokens(in.GrantTokens); err != nil {
		return nil, err
	}
	key, err := s.authorize(ctx, r, actionDescribeKey, in.KeyId)
	if err != nil {
		return nil, err
	}
	return &DescribeKeyOutput{KeyMetadata: key.metadata()}, nil
}

func (k *Key) metadata() *KeyMetadata {
	m := &KeyMetadata{
		AWSAccountId:          k.Account,
		Arn:                   k.ARN(),
		CreationDate:          Timestamp{k.Created},
		CustomerMasterKeySpec: k.Spec,
		Description:           k.Description,
		Enabled:               k.State == Enabled,
		EncryptionAlgorithms:  specs[k.Spec].encryption,
		KeyId:                 k.ID,
		KeyManager:            "CUSTOMER",
		KeySpec:               k.Spec,
		KeyState:              k.State,
		KeyUsage:              k.Usage,
		MultiRegion:           k.MultiRegion,
		Origin:                k.Origin,
	}
	if material := k.current(); material != nil {
		m.CurrentKeyMaterialId = material.ID
	}
	if k.State == PendingDeletion {
		m.DeletionDate = &Timestamp{k.Deletion}
	}
	if k.Origin == OriginExternal && k.whole() {
		m.ExpirationModel, m.ValidTo = expiration(k.firstExpiry())
	}
	if k.MultiRegion {
		m.MultiRegionConfiguration = &MultiRegionConfiguration{
			MultiRegionKeyType: "PRIMARY",
			PrimaryKey:         MultiRegionKey{Arn: k.ARN(), Region: k.Region},
			ReplicaKeys:        []MultiRegionKey{},
		}
	}
	return m
}

// firstExpiry is when the first of the key's associated materials expires; zero if none does.
func (k *Key) firstExpiry() time.Time {
	var first time.Time
	for i := range k.Materials {
		if !k.Materials[i].Pending {
			first = earlier(first, k.Materials[i].Expires)
		}
	}
	return first
}

// The expiration models of imported material.
const (
	expires       = "KEY_MATERIAL_EXPIRES"
	doesNotExpire = "KEY_MATERIAL_DOES_NOT_EXPIRE"
)

// expiration is how an answer describes when material expires.
func expiration(at time.Time) (model string, validTo *Timestamp) {
	if at.IsZero() {
		return doesNotExpire, nil
	}
	return expires, &Timestamp{at}
}

// ListKeysInput is the input of ListKeys.
type ListKeysInput struct {
	Limit  *int32
	Marker string
}

// ListKeysOutput is the output of ListKeys.
type ListKeysOutput struct {
	Keys       []KeyListEntry
	NextMarker string `json:",omitempty"`
	Truncated  bool
}

// KeyListEntry is a key in a list.
type KeyListEntry struct {
	KeyArn string
	KeyId  string
}

// ListKeys lists the keys of the caller's account in the Region, ordered by key id, at most 1000 (100 if not said) a page.
func (s *Service) ListKeys(ctx context.Context, r *Request, in *ListKeysInput) (*ListKeysOutput, error) {
	if err := permitAccount(r, "ListKeys"); err != nil {
		return nil, err
	}
	page, err := newPage(in.Limit, 100, in.Marker, accountKeys(r.Caller.Account, r.Region))
	if err != nil {
		return nil, err
	}
	ids, err := s.scan(ctx, page)
	if err != nil {
		return nil, err
	}
	out := &ListKeysOutput{Keys: make([]KeyListEntry, 0, len(ids)), NextMarker: page.next, Truncated: page.next != ""}
	for _, id := range ids {
		key := Key{ID: id, Account: r.Caller.Account, Region: r.Region}
		out.Keys = append(out.Keys, KeyListEntry{KeyArn: key.ARN(), KeyId: id})
	}
	return out, nil
}
