package kms

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"hsmkms/hsm"
	"hsmkms/policy"
	"hsmkms/store"
)

// CreateKeyInput is the input of CreateKey.
type CreateKeyInput struct {
	BypassPolicyLockoutSafetyCheck bool
	CustomKeyStoreId               string
	CustomerMasterKeySpec          KeySpec
	Description                    string
	KeySpec                        KeySpec
	KeyUsage                       KeyUsage
	MultiRegion                    bool
	Origin                         Origin
	Policy                         string
	Tags                           []Tag
	XksKeyId                       string
}

// CreateKeyOutput is the output of CreateKey.
type CreateKeyOutput struct {
	KeyMetadata *KeyMetadata `json:",omitempty"`
}

// CreateKey makes key material on the token and then the key's record. A crash in between leaves an orphan on the token,
// never a record without its material.
func (s *Service) CreateKey(ctx context.Context, r *Request, in *CreateKeyInput) (*CreateKeyOutput, error) {
	key, err := newKey(r, in)
	if err != nil {
		return nil, err
	}
	if err := s.authorizeCreation(r, key, in); err != nil {
		return nil, err
	}
	if key.ID, err = s.newKeyID(key.MultiRegion); err != nil {
		return nil, err
	}
	if key.Principals, err = s.checkPolicy(ctx, r, key, key.Policy, in.BypassPolicyLockoutSafetyCheck); err != nil {
		return nil, err
	}
	if err := s.carries(ctx, key); err != nil {
		return nil, err
	}
	key.Created = s.cfg.Clock().UTC()
	defer s.making.begin()()
	if key.Origin == OriginKMS {
		material, err := s.newMaterial(ctx, key)
		if err != nil {
			return nil, err
		}
		key.Materials = []Material{material}
	}
	err = s.update(ctx, func(t *recorder) error {
		if err := t.putKey(key); err != nil {
			return err
		}
		return t.mark(accountKeys(key.Account, key.Region) + key.ID)
	})
	if err != nil {
		for i := range key.Materials {
			s.discard(ctx, key.Region, key.Materials[i].Ref, err)
		}
		return nil, fmt.Errorf("storing key: %w", err)
	}
	r.Keys = append(r.Keys, key.ARN())
	return &CreateKeyOutput{KeyMetadata: key.metadata()}, nil
}

// authorizeCreation decides whether the caller may make a key, and give it tags.
func (s *Service) authorizeCreation(r *Request, key *Key, in *CreateKeyInput) error {
	q := bypassAsked(in.BypassPolicyLockoutSafetyCheck)
	q.tags = in.Tags
	for _, condition := range []policy.ConditionKey{
		policy.KeyKeySpec, policy.KeyKeyUsage, policy.KeyKeyOrigin, policy.KeyMultiRegion, policy.KeyMultiRegionKeyType,
	} {
		value, _ := key.value(condition, "")
		q.values = append(q.values, given{condition, value})
	}
	if err := s.authorizeAlone(r, "CreateKey", "", q); err != nil || len(in.Tags) == 0 {
		return err
	}
	return s.authorizeAlone(r, "TagResource", "", q)
}

// newKey makes the record that a request asks for, without id and material. Its policy, which may name the key by its id, is
// not checked yet.
func newKey(r *Request, in *CreateKeyInput) (*Key, error) {
	keySpec, usage, err := wantedSpec(in)
	if err != nil {
		return nil, err
	}
	if err := checkOrigin(in); err != nil {
		return nil, err
	}
	if err := checkTags(in.Tags); err != nil {
		return nil, err
	}
	if p, _ := purposeOf(keySpec, usage); p.kind == "" {
		return nil, Errorf(UnsupportedOperation, "KeySpec %s is not supported.", keySpec)
	}
	key := &Key{
		Account: r.Caller.Account, Region: r.Region, Spec: keySpec, Usage: usage, Origin: OriginKMS, State: Enabled,
		MultiRegion: in.MultiRegion, Description: in.Description, Policy: in.Policy, Tags: in.Tags,
	}
	if in.Origin == OriginExternal {
		if _, importable := importables[keySpec]; !importable {
			return nil, Errorf(UnsupportedOperation, "KeySpec %s is not supported for imported key material.", keySpec)
		}
		key.Origin, key.State = OriginExternal, PendingImport
	}
	if key.Policy == "" {
		key.Policy = defaultPolicy(key.Account)
	}
	return key, nil
}

func wantedSpec(in *CreateKeyInput) (KeySpec, KeyUsage, error) {
	keySpec, usage := in.KeySpec, in.KeyUsage
	if in.CustomerMasterKeySpec != "" {
		if keySpec != "" {
			return "", "", Errorf(Validation, "You cannot specify KeySpec and CustomerMasterKeySpec in the same request. CustomerMasterKeySpec is deprecated.")
		}
		keySpec = in.CustomerMasterKeySpec
	}
	if keySpec == "" {
		keySpec = SymmetricDefault
	}
	if usage == "" {
		if keySpec != SymmetricDefault {
			return "", "", Errorf(Validation, "You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.")
		}
		usage = EncryptDecrypt
	}
	if _, possible := purposeOf(keySpec, usage); !possible {
		return "", "", Errorf(Validation, "KeyUsage %s is not compatible with KeySpec %s", usage, keySpec)
	}
	return keySpec, usage, nil
}

func checkOrigin(in *CreateKeyInput) error {
	if in.XksKeyId != "" && in.Origin != OriginXKS {
		return Errorf(Validation, "XksKeyId is only valid for keys with an Origin of EXTERNAL_KEY_STORE.")
	}
	switch in.Origin {
	case "", OriginKMS, OriginExternal:
		if in.CustomKeyStoreId != "" {
			return Errorf(Validation, "CustomKeyStoreId is only valid for keys with an Origin of AWS_CLOUDHSM or EXTERNAL_KEY_STORE.")
		}
		return nil
	case OriginCloudHSM, OriginXKS:
		if in.CustomKeyStoreId == "" {
			return Errorf(Validation, "CustomKeyStoreId is required for keys with an Origin of %s.", in.Origin)
		}
		return checkCustomKeyStore(in.CustomKeyStoreId)
	default:
		return Errorf(UnsupportedOperation, "Origin %s is not supported.", in.Origin)
	}
}

// newKeyID makes a random (version 4, RFC 9562) UUID, or the id of a multi-Region key.
func (s *Service) newKeyID(multiRegion bool) (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(s.cfg.Rand, b[:]); err != nil {
		return "", fmt.Errorf("making key id: %w", err)
	}
	if multiRegion {
		return "mrk-" + hex.EncodeToString(b[:]), nil
	}
	b[6] = b[6]&0x0F | 0x40
	b[8] = b[8]&0x3F | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}

// newMaterial generates key material on the token.
func (s *Service) newMaterial(ctx context.Context, key *Key) (Material, error) {
	region := s.cfg.Regions[key.Region]
	var id [32]byte
	if _, err := io.ReadFull(s.cfg.Rand, id[:]); err != nil {
		return Material{}, fmt.Errorf("making key material id: %w", err)
	}
	ref, err := region.Token.GenerateKey(ctx, hsm.KeyRequest{Kind: key.purpose().kind, Label: "kms/" + key.ID, WrapUnder: region.WrapUnder})
	if err != nil {
		return Material{}, roomError(err)
	}
	return Material{ID: hex.EncodeToString(id[:]), Ref: ref, Created: s.cfg.Clock().UTC(), Base: s.meter.base()}, nil
}

// discard destroys new material whose record could not be written, or has the schedule do so when the token cannot now. If
// it is not certain that it was not written, the material stays: an orphan is a smaller harm than a key without its material.
func (s *Service) discard(ctx context.Context, region string, ref hsm.KeyRef, cause error) {
	if errors.Is(cause, store.ErrUncertain) {
		s.cfg.Log.Error("a new key may not have been stored; its material may be an orphan on the token", "material", ref.ID)
		return
	}
	ctx = context.WithoutCancel(ctx)
	err := s.destroyNow(ctx, region, ref)
	if err == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, discardTimeout)
	defer cancel()
	doomed := s.update(ctx, func(t *recorder) error { return t.doom(region, string(ref.ID), doom{Refs: []hsm.KeyRef{ref}}) })
	if doomed != nil {
		s.cfg.Log.Error("destroying the material of a key that was not stored; it is an orphan on the token", "material", ref.ID,
			"error", errors.Join(err, doomed))
		return
	}
	s.cfg.Log.Error("destroying the material of a key that was not stored; the schedule will", "material", ref.ID, "error", err)
}

func (s *Service) destroyNow(ctx context.Context, region string, ref hsm.KeyRef) error {
	ctx, cancel := context.WithTimeout(ctx, discardTimeout)
	defer cancel()
	return s.cfg.Regions[region].Token.DestroyKey(ctx, ref)
}

// discardTimeout bounds each step of the cleaning up after a failure, when the request's own time may have run out.
const discardTimeout = 5 * time.Second
