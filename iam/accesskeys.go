package iam

import (
	"context"
	"time"

	"hsmkms/policy"
	"hsmkms/store"
)

// maxKeys is how many access keys a user or root user may have.
const maxKeys = 2

// The statuses of access keys.
const (
	statusActive   = "Active"
	statusInactive = "Inactive"
)

func (k *credential) status() string {
	if k.Inactive {
		return statusInactive
	}
	return statusActive
}

// owner is who has access keys: a user, or the root user of an account.
type owner struct {
	id   string
	name string // "" for a root user
}

// ownerOf finds whose access keys a request is about: those of the user that it names, or the caller's own.
func ownerOf(reader store.Reader, r *Request, name string) (owner, error) {
	if name == "" && r.Caller.Type == policy.Root {
		return owner{id: r.Caller.Account}, checkCredentials(r)
	}
	name, err := userName(r, name)
	if err != nil {
		return owner{}, err
	}
	e, err := open(reader, r, user, name)
	if err != nil {
		return owner{}, err
	}
	return owner{id: e.ID, name: e.Name}, nil
}

// key finds an access key of its owner.
func (o owner) key(r store.Reader, id string) (*credential, error) {
	key, err := read[credential](r, keyPrefix+id)
	if err == nil && (key == nil || key.Owner != o.id || key.Session != nil) {
		err = noKey(id)
	}
	return key, err
}

func noKey(id string) error {
	return errorf(NoSuchEntity, "The Access Key with id %s cannot be found.", id)
}

// AccessKey is a new access key, with its secret.
type AccessKey struct {
	AccessKeyId     string
	CreateDate      time.Time
	SecretAccessKey []byte
	Status          string
	UserName        string
}

// CreateAccessKeyInput is the request of CreateAccessKey.
type CreateAccessKeyInput struct{ UserName string }

// CreateAccessKeyOutput is the answer of CreateAccessKey.
type CreateAccessKeyOutput struct{ AccessKey *AccessKey }

// Wipe overwrites the secret.
func (o *CreateAccessKeyOutput) Wipe() {
	if o.AccessKey != nil {
		clear(o.AccessKey.SecretAccessKey)
	}
}

// CreateAccessKey makes an access key of a user, or of the caller. Its secret is never given again.
func (s *Service) CreateAccessKey(ctx context.Context, r *Request, in *CreateAccessKeyInput) (*CreateAccessKeyOutput, error) {
	var o owner
	room := func(reader store.Reader) (err error) {
		if o, err = ownerOf(reader, r, in.UserName); err != nil {
			return err
		}
		keys, err := names(reader, keysOf(o.id))
		if err == nil && len(keys) >= maxKeys {
			err = errorf(LimitExceeded, "Cannot exceed quota for AccessKeysPerUser: %d", maxKeys)
		}
		return err
	}
	if err := s.cfg.Store.View(ctx, room); err != nil { // before the token is asked to seal a secret
		return nil, err
	}
	key, secret, err := s.newKey(ctx, lasting, r.Caller.Account, o.id)
	if err != nil {
		return nil, err
	}
	err = s.update(ctx, func(t store.Txn) (string, error) {
		if err := room(t); err != nil {
			return "", err
		}
		if o.id != key.Owner { // the name went to another user meanwhile
			return "", noSuch(user, in.UserName)
		}
		return keyPrefix + key.ID, putKey(t, key)
	})
	if err != nil {
		clear(secret)
		return nil, err
	}
	return &CreateAccessKeyOutput{AccessKey: &AccessKey{
		AccessKeyId: key.ID, CreateDate: key.Created, SecretAccessKey: secret, Status: statusActive, UserName: o.name,
	}}, nil
}

// AccessKeyMetadata describes an access key without its secret.
type AccessKeyMetadata struct {
	AccessKeyId string
	CreateDate  time.Time
	Status      string
	UserName    string
}

// ListAccessKeysInput is the request of ListAccessKeys.
type ListAccessKeysInput struct {
	Marker   string
	MaxItems *int32
	UserName string
}

// ListAccessKeysOutput is the answer of ListAccessKeys.
type ListAccessKeysOutput struct {
	AccessKeyMetadata []AccessKeyMetadata
	IsTruncated       bool
	Marker            string
}

// ListAccessKeys lists the access keys of a user, or of the caller.
func (s *Service) ListAccessKeys(ctx context.Context, r *Request, in *ListAccessKeysInput) (*ListAccessKeysOutput, error) {
	out := &ListAccessKeysOutput{}
	return out, s.cfg.Store.View(ctx, func(reader store.Reader) error {
		o, err := ownerOf(reader, r, in.UserName)
		if err != nil {
			return err
		}
		p, err := newPage(r.Operation+" "+o.id, in.Marker, in.MaxItems)
		if err != nil {
			return err
		}
		out.AccessKeyMetadata, err = scan(reader, p, keysOf(o.id), func(id string, _ []byte) (*AccessKeyMetadata, error) {
			key, err := o.key(reader, id)
			if err != nil {
				return nil, err
			}
			return &AccessKeyMetadata{AccessKeyId: id, CreateDate: key.Created, Status: key.status(), UserName: o.name}, nil
		})
		out.Marker, out.IsTruncated = p.next, p.next != ""
		return err
	})
}

// UpdateAccessKeyInput is the request of UpdateAccessKey.
type UpdateAccessKeyInput struct{ AccessKeyId, Status, UserName string }

// UpdateAccessKey makes an access key active or inactive.
func (s *Service) UpdateAccessKey(ctx context.Context, r *Request, in *UpdateAccessKeyInput) (*Empty, error) {
	if in.Status != statusActive && in.Status != statusInactive {
		return nil, errorf(InvalidInput, "The status of an access key can be set to %s or %s.", statusActive, statusInactive)
	}
	return s.changeKey(ctx, r, in.UserName, in.AccessKeyId, func(t store.Txn, _ owner, key *credential) error {
		key.Inactive = in.Status == statusInactive
		return put(t, keyPrefix+key.ID, key)
	})
}

// DeleteAccessKeyInput is the request of DeleteAccessKey.
type DeleteAccessKeyInput struct{ AccessKeyId, UserName string }

// DeleteAccessKey deletes an access key.
func (s *Service) DeleteAccessKey(ctx context.Context, r *Request, in *DeleteAccessKeyInput) (*Empty, error) {
	out, err := s.changeKey(ctx, r, in.UserName, in.AccessKeyId, func(t store.Txn, o owner, key *credential) error {
		return dropKey(t, o.id, key.ID)
	})
	if err == nil {
		s.uses.forget(in.AccessKeyId)
	}
	return out, err
}

func (s *Service) changeKey(ctx context.Context, r *Request, name, id string, fn func(store.Txn, owner, *credential) error) (*Empty, error) {
	return &Empty{}, s.update(ctx, func(t store.Txn) (string, error) {
		o, err := ownerOf(t, r, name)
		if err != nil {
			return "", err
		}
		key, err := o.key(t, id)
		if err != nil {
			return "", err
		}
		return keyPrefix + id, fn(t, o, key)
	})
}

// AccessKeyLastUsed says when, for what and where an access key was last used.
type AccessKeyLastUsed struct {
	LastUsedDate time.Time
	Region       string
	ServiceName  string
}

// GetAccessKeyLastUsedInput is the request of GetAccessKeyLastUsed.
type GetAccessKeyLastUsedInput struct{ AccessKeyId string }

// GetAccessKeyLastUsedOutput is the answer of GetAccessKeyLastUsed.
type GetAccessKeyLastUsedOutput struct {
	AccessKeyLastUsed *AccessKeyLastUsed
	UserName          string
}

// GetAccessKeyLastUsed says when an access key of a user of the account was last used, to the minute.
func (s *Service) GetAccessKeyLastUsed(ctx context.Context, r *Request, in *GetAccessKeyLastUsedInput) (*GetAccessKeyLastUsedOutput, error) {
	out := &GetAccessKeyLastUsedOutput{AccessKeyLastUsed: &AccessKeyLastUsed{Region: "N/A", ServiceName: "N/A"}}
	return out, s.cfg.Store.View(ctx, func(reader store.Reader) error {
		key, err := read[credential](reader, keyPrefix+in.AccessKeyId)
		if err != nil {
			return err
		}
		arn := user.arn(r.Caller.Account, "/", "")
		if key != nil && key.Account == r.Caller.Account && key.Session == nil {
			if arn, out.UserName, err = ownerName(reader, key); err != nil {
				return err
			}
		} else {
			key = nil
		}
		if err := permitOperation(r, arn); err != nil {
			return err
		}
		if key == nil {
			return noKey(in.AccessKeyId)
		}
		used, err := s.lastUse(reader, in.AccessKeyId)
		if err == nil && used != nil {
			*out.AccessKeyLastUsed = AccessKeyLastUsed{LastUsedDate: used.Time, Region: used.Region, ServiceName: used.Service}
		}
		return err
	})
}

// ownerName gives the ARN and the name of the user who has an access key.
func ownerName(r store.Reader, key *credential) (arn, name string, err error) {
	if key.Owner == key.Account {
		return rootARN(key.Account), "", nil
	}
	e, err := read[entity](r, entityPrefix+key.Owner)
	if err != nil || e == nil { // a user with access keys is not deleted
		return "", "", err
	}
	return e.arn(), e.Name, nil
}
