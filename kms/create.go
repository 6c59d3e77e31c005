package kms

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"hsmkms/hsm"
	"hsmkms/store"
)

// Tag is a tag of a key.
type Tag struct {
	TagKey   string
	TagValue string
}

// maxTags is the most tags that a key may have.
const maxTags = 50

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
	if key.ID, err = s.newKeyID(key.MultiRegion); err != nil {
		return nil, err
	}
	key.Created = s.cfg.Clock().UTC()
	material, err := s.newMaterial(ctx, r, key)
	if err != nil {
		return nil, err
	}
	key.Materials = []Material{material}
	err = s.update(ctx, func(t *recorder) error {
		if err := t.put(keyRecord(key.Region, key.ID), key); err != nil {
			return err
		}
		return t.mark(accountKeys(key.Account, key.Region) + key.ID)
	})
	if err != nil {
		s.discard(ctx, r, material, err)
		return nil, fmt.Errorf("storing key: %w", err)
	}
	r.Keys = append(r.Keys, key.ARN())
	return &CreateKeyOutput{KeyMetadata: key.metadata()}, nil
}

// newKey makes the record that a request asks for, without id and material.
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
	policy := in.Policy
	if policy == "" {
		policy = defaultPolicy(r.Caller.Account)
	}
	if err := checkPolicy(policy); err != nil {
		return nil, err
	}
	if !specs[keySpec].served {
		return nil, Errorf(UnsupportedOperation, "KeySpec %s is not supported.", keySpec)
	}
	return &Key{
		Account: r.Caller.Account, Region: r.Region, Spec: keySpec, Usage: usage, Origin: OriginKMS, State: Enabled,
		MultiRegion: in.MultiRegion, Description: in.Description, Policy: policy, Tags: in.Tags,
	}, nil
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
	if !specs[keySpec].allows(usage) {
		return "", "", Errorf(Validation, "KeyUsage %s is not compatible with KeySpec %s", usage, keySpec)
	}
	return keySpec, usage, nil
}

func checkOrigin(in *CreateKeyInput) error {
	if in.XksKeyId != "" && in.Origin != OriginXKS {
		return Errorf(Validation, "XksKeyId is only valid for keys with an Origin of EXTERNAL_KEY_STORE.")
	}
	switch in.Origin {
	case "", OriginKMS:
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

func checkTags(tags []Tag) error {
	if len(tags) > maxTags {
		return Errorf(TagError, "Too many tags")
	}
	seen := make(map[string]bool, len(tags))
	for _, tag := range tags {
		if len(tag.TagKey) >= 4 && strings.EqualFold(tag.TagKey[:4], "aws:") {
			return Errorf(TagError, "Tags beginning with aws: are reserved")
		}
		if seen[tag.TagKey] {
			return Errorf(TagError, "Duplicate tag keys")
		}
		seen[tag.TagKey] = true
	}
	return nil
}

// checkPolicy refuses what is not a JSON object with one statement or a list of them. Policies are kept; they are not
// evaluated yet.
func checkPolicy(text string) error {
	var document struct {
		Statement json.RawMessage
	}
	err := json.Unmarshal([]byte(text), &document)
	if statement := document.Statement; err != nil || len(statement) == 0 || statement[0] != '{' && statement[0] != '[' {
		return Errorf(MalformedPolicyDocument, "The policy is not a JSON policy document.")
	}
	return nil
}

// defaultPolicy is the key policy that AWS gives a key when none was asked for.
func defaultPolicy(account string) string {
	return `{
  "Version" : "2012-10-17",
  "Id" : "key-default-1",
  "Statement" : [ {
    "Sid" : "Enable IAM User Permissions",
    "Effect" : "Allow",
    "Principal" : {
      "AWS" : "arn:aws:iam::` + account + `:root"
    },
    "Action" : "kms:*",
    "Resource" : "*"
  } ]
}`
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
func (s *Service) newMaterial(ctx context.Context, r *Request, key *Key) (Material, error) {
	region, err := s.region(r)
	if err != nil {
		return Material{}, err
	}
	var id [32]byte
	if _, err := io.ReadFull(s.cfg.Rand, id[:]); err != nil {
		return Material{}, fmt.Errorf("making key material id: %w", err)
	}
	ref, err := region.Token.GenerateKey(ctx, hsm.KeyRequest{Kind: hsm.AES256, Label: "kms/" + key.ID, WrapUnder: region.WrapUnder})
	if hsm.ClassOf(err) == hsm.TokenFull {
		return Material{}, &Error{Type: LimitExceeded, Message: "The HSM token has no room for another key.", Cause: err}
	}
	if err != nil {
		return Material{}, TokenError(err)
	}
	return Material{ID: hex.EncodeToString(id[:]), Ref: ref, Created: key.Created}, nil
}

// discard destroys material whose record could not be written. If it is not certain that it was not, the material stays:
// an orphan is a smaller harm than a key without its material.
func (s *Service) discard(ctx context.Context, r *Request, m Material, cause error) {
	if errors.Is(cause, store.ErrUncertain) {
		s.cfg.Log.Error("a new key may not have been stored; its material may be an orphan on the token", "material", m.Ref.ID)
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), discardTimeout)
	defer cancel()
	if err := s.cfg.Regions[r.Region].Token.DestroyKey(ctx, m.Ref); err != nil {
		s.cfg.Log.Error("destroying the material of a key that was not stored; it is an orphan on the token", "material", m.Ref.ID, "error", err)
	}
}

// discardTimeout bounds the cleaning up after a failure, when the request's own time may have run out.
const discardTimeout = 5 * time.Second
