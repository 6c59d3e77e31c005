package kms

import (
	"cmp"
	"context"
	"encoding/hex"
	"time"

	"hsmkms/hsm"
	"hsmkms/policy"
)

// ImportKeyMaterialInput is the input of ImportKeyMaterial.
type ImportKeyMaterialInput struct {
	KeyId                  string
	ImportToken            []byte
	EncryptedKeyMaterial   []byte
	ValidTo                *Timestamp
	ExpirationModel        string
	ImportType             string
	KeyMaterialDescription string
	KeyMaterialId          string
}

// ImportKeyMaterialOutput is the output of ImportKeyMaterial.
type ImportKeyMaterialOutput struct {
	KeyId         string `json:",omitempty"`
	KeyMaterialId string `json:",omitempty"`
}

// newKeyMaterial is the ImportType of material that the key never had; the other one is EXISTING_KEY_MATERIAL.
const newKeyMaterial = "NEW_KEY_MATERIAL"

// longestValidity is how long imported material may be valid.
const longestValidity = 365 * 24 * time.Hour

// ImportKeyMaterial brings key material onto the token. The first material of a key is used at once, and that of a key other
// than a symmetric one stays the only one; further new material is used after the next rotation. Material that the key has had before makes it usable again, or changes when it expires.
func (s *Service) ImportKeyMaterial(ctx context.Context, r *Request, in *ImportKeyMaterialInput) (*ImportKeyMaterialOutput, error) {
	key, err := s.external(ctx, r, actionImportKeyMaterial, in.KeyId, in.asked())
	if err != nil {
		return nil, err
	}
	until, err := in.check(key, s.cfg.Clock())
	if err != nil {
		return nil, err
	}
	set, err := s.openImportToken(ctx, key, in.ImportToken)
	if err != nil {
		return nil, err
	}
	defer s.making.begin()()
	material, err := s.importMaterial(ctx, key, set, in.EncryptedKeyMaterial)
	if err != nil {
		return nil, err
	}
	material.Expires, material.Description = until, in.KeyMaterialDescription
	err = s.changeMaterial(ctx, r, actionImportKeyMaterial, key, func(now *Key) error { return now.receive(in, material) })
	if err != nil {
		s.discard(ctx, key.Region, material.Ref, err)
		return nil, err
	}
	return &ImportKeyMaterialOutput{KeyId: key.ARN(), KeyMaterialId: key.shownID(&material)}, nil
}

func (in *ImportKeyMaterialInput) asked() asked {
	q := asked{values: []given{text(policy.KeyExpirationModel, cmp.Or(in.ExpirationModel, expires))}}
	if in.ValidTo != nil {
		q.values = append(q.values, given{policy.KeyValidTo, policy.Moment(in.ValidTo.Time)})
	}
	return q
}

// check holds against each other and the key the members that say what is imported and for how long, and gives when it
// expires, zero for never.
func (in *ImportKeyMaterialInput) check(key *Key, now time.Time) (time.Time, error) {
	if !key.symmetric() && (in.ImportType != "" || in.KeyMaterialId != "" || in.KeyMaterialDescription != "") {
		return time.Time{}, Errorf(Validation, "ImportType, KeyMaterialId and KeyMaterialDescription are only valid for symmetric encryption KMS keys.")
	}
	if in.ImportType == newKeyMaterial && in.KeyMaterialId != "" {
		return time.Time{}, Errorf(Validation, "You cannot specify a KeyMaterialId when the ImportType is %s.", newKeyMaterial)
	}
	if in.ExpirationModel == doesNotExpire {
		if in.ValidTo != nil {
			return time.Time{}, Errorf(Validation, "A validTo date must not be set if the ExpirationModel is %s", doesNotExpire)
		}
		return time.Time{}, nil
	}
	if in.ValidTo == nil {
		return time.Time{}, Errorf(Validation, "A validTo date must be set if the ExpirationModel is %s", expires)
	}
	if !in.ValidTo.After(now) {
		return time.Time{}, Errorf(Validation, "The validTo date must be in the future")
	}
	if in.ValidTo.After(now.Add(longestValidity)) {
		return time.Time{}, Errorf(Validation, "The validTo date must be at most 365 days in the future")
	}
	return in.ValidTo.UTC(), nil
}

// importMaterial makes a key on the token of encrypted material. The id of the material follows from the material and the
// key, Region apart: it is the same when the material comes again, and for the replicas of a multi-Region key.
func (s *Service) importMaterial(ctx context.Context, key *Key, set *importSet, encrypted []byte) (Material, error) {
	region := s.cfg.Regions[key.Region]
	imported, err := region.Token.ImportKey(ctx, hsm.ImportRequest{
		Under: set.Pair, Wrap: set.Wrap, Material: encrypted,
		Kind: key.purpose().kind, Label: "kms/" + key.ID, WrapUnder: region.WrapUnder, Nonce: []byte(key.Account + "/" + key.ID),
	})
	if err != nil {
		return Material{}, importError(err)
	}
	return Material{
		ID: hex.EncodeToString(imported.Fingerprint[:]), Ref: imported.Key, Created: s.cfg.Clock().UTC(), Base: s.meter.base(),
	}, nil
}

func importError(err error) error {
	switch hsm.ClassOf(err) {
	case hsm.BadInput:
		return errBadCiphertext(err)
	case hsm.WrongMaterial:
		return &Error{Type: IncorrectKeyMaterial, Message: "The key material in the request is invalid for this KMS key.", Cause: err}
	case hsm.Unsupported: // since the set was made, the token was replaced or its settings became stricter
		return &Error{Type: UnsupportedOperation, Message: "The wrapping algorithm is not supported by the HSM token of this Region.", Cause: err}
	default:
		return roomError(err)
	}
}

// receive takes imported material into the record of the key.
func (k *Key) receive(in *ImportKeyMaterialInput, m Material) error {
	if in.KeyMaterialId != "" && in.KeyMaterialId != m.ID {
		return Errorf(IncorrectKeyMaterial, "The key material in the request is not the key material that the KeyMaterialId names.")
	}
	known, isNew := k.material(m.ID), in.ImportType == newKeyMaterial
	if in.ImportType == "" {
		isNew = len(k.Materials) == 0 && in.KeyMaterialId == ""
	}
	switch {
	case isNew && known != nil:
		return Errorf(IncorrectKeyMaterial, "The key material in the request is already associated with this KMS key.")
	case isNew:
		return k.receiveNew(m)
	case known == nil:
		return Errorf(IncorrectKeyMaterial, "The key material in the request is not the same key material that was previously imported into this KMS key.")
	}
	k.receiveAgain(known, m)
	return nil
}

// receiveNew takes material that the key never had.
func (k *Key) receiveNew(m Material) error {
	if pending := k.pending(); pending != nil {
		return Errorf(InvalidState, "New key material (id: %s) cannot be imported into KMS key %s, because another key material (id: %s) is pending rotation.",
			m.ID, k.ARN(), pending.ID)
	}
	m.Pending = len(k.Materials) > 0
	k.Materials = append(k.Materials, m)
	k.settle()
	return nil
}

// receiveAgain takes material that the key knows. If it has it still, requests may be using it, so it stays on the token
// and what was imported is destroyed. Base stays too: what was encrypted before counts.
func (k *Key) receiveAgain(known *Material, m Material) {
	if known.present() {
		k.dropped = append(k.dropped, m.Ref)
	} else {
		known.Ref = m.Ref
	}
	known.Expires = m.Expires
	if m.Description != "" {
		known.Description = m.Description
	}
	k.settle()
}

// changeMaterial is manage for the imported material of a key. What the key no longer has is destroyed on the token before
// it returns, or by the schedule if that fails.
func (s *Service) changeMaterial(ctx context.Context, r *Request, a action, key *Key, f func(*Key) error) error {
	var doomed []doomName
	err := s.update(ctx, func(t *recorder) error {
		now, err := t.key(key.Region, key.ID)
		if err != nil {
			return err
		}
		if now == nil {
			return notFound(key.ARN())
		}
		if err := usableExternal(r, a, now); err != nil {
			return err
		}
		if err := f(now); err != nil {
			return err
		}
		err = t.putKey(now)
		doomed = t.doomed
		return err
	})
	if err != nil {
		return err
	}
	s.completeNow(ctx, key, doomed)
	return nil
}
