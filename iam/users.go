package iam

import (
	"context"
	"strings"

	"hsmkms/policy"
	"hsmkms/store"
)

// CreateUserInput is the request of CreateUser.
type CreateUserInput struct {
	Path                string
	PermissionsBoundary string
	Tags                []Tag
	UserName            string
}

// CreateUserOutput is the answer of CreateUser.
type CreateUserOutput struct{ User *User }

// CreateUser makes a user without any permission.
func (s *Service) CreateUser(ctx context.Context, r *Request, in *CreateUserInput) (*CreateUserOutput, error) {
	e := &entity{Kind: user, Path: in.Path, Name: in.UserName, Boundary: in.PermissionsBoundary, Tags: in.Tags}
	if err := s.create(ctx, r, e, userIDs); err != nil {
		return nil, err
	}
	return &CreateUserOutput{User: e.user()}, nil
}

// create makes a user or role of what of its record the request gives.
func (s *Service) create(ctx context.Context, r *Request, e *entity, idPrefix string) (err error) {
	if e.ID, err = s.newID(idPrefix, 17); err != nil {
		return err
	}
	e.Account, e.Created = r.Caller.Account, s.now()
	if e.Path == "" {
		e.Path = "/"
	}
	if e.Tags, err = newTags(nil, e.Tags); err != nil {
		return err
	}
	return s.update(ctx, func(t store.Txn) (string, error) {
		if err := mayCreate(r, e); err != nil {
			return "", err
		}
		if err := checkVacant(t, e); err != nil {
			return "", err
		}
		if e.Boundary != "" {
			if err := bind(t, boundedPrefix, e, e.Boundary); err != nil {
				return "", err
			}
		}
		if err := e.bindTrust(t); err != nil {
			return "", err
		}
		if err := t.Put(e.nameRecord(), []byte(e.ID)); err != nil {
			return "", err
		}
		return "", put(t, entityPrefix+e.ID, e)
	})
}

// mayCreate decides whether the caller may make a user or role, with tags if it has some.
func mayCreate(r *Request, e *entity) error {
	r.asks.tags, r.asks.boundary = e.Tags, e.Boundary
	err := permitOperation(r, e.arn())
	if err == nil && len(e.Tags) > 0 {
		err = permit(r, "iam:Tag"+e.Kind.title(), e.arn())
	}
	return err
}

// checkVacant fails if the name of an entity is taken.
func checkVacant(r store.Reader, e *entity) error {
	_, found, err := r.Get(e.nameRecord())
	if err == nil && found {
		return errorf(EntityAlreadyExists, "%s with name %s already exists.", e.Kind.title(), e.Name)
	}
	return err
}

// GetUserInput is the request of GetUser.
type GetUserInput struct{ UserName string }

// GetUserOutput is the answer of GetUser.
type GetUserOutput struct{ User *User }

// GetUser describes a user, or without a name the caller.
func (s *Service) GetUser(ctx context.Context, r *Request, in *GetUserInput) (*GetUserOutput, error) {
	if in.UserName == "" && r.Caller.Type == policy.Root {
		return s.getRoot(ctx, r)
	}
	name, err := userName(r, in.UserName)
	if err != nil {
		return nil, err
	}
	out := &GetUserOutput{}
	return out, s.view(ctx, r, user, name, func(_ store.Reader, e *entity) error {
		out.User = e.user()
		return nil
	})
}

// userName gives the name of the user that a request is about: the caller itself if the request names none.
func userName(r *Request, name string) (string, error) {
	if name != "" {
		return name, nil
	}
	if r.Caller.Type != policy.IAMUser {
		return "", errorf(ValidationError, "Must specify userName when calling with non-User credentials")
	}
	return r.Caller.UserName, nil
}

func (s *Service) getRoot(ctx context.Context, r *Request) (*GetUserOutput, error) {
	if err := checkCredentials(r); err != nil {
		return nil, err
	}
	out := &GetUserOutput{}
	return out, s.cfg.Store.View(ctx, func(reader store.Reader) error {
		a, err := read[account](reader, accountPrefix+r.Caller.Account)
		if err != nil || a == nil {
			return err
		}
		out.User = &User{Path: "/", UserId: a.ID, Arn: rootARN(a.ID), CreateDate: a.Created}
		return nil
	})
}

// ListUsersInput is the request of ListUsers.
type ListUsersInput struct {
	Marker     string
	MaxItems   *int32
	PathPrefix string
}

// ListUsersOutput is the answer of ListUsers.
type ListUsersOutput struct {
	IsTruncated bool
	Marker      string
	Users       []User
}

// ListUsers lists the users of the account.
func (s *Service) ListUsers(ctx context.Context, r *Request, in *ListUsersInput) (*ListUsersOutput, error) {
	list, next, err := s.listEntities(ctx, r, user, in.PathPrefix, in.Marker, in.MaxItems)
	out := &ListUsersOutput{Marker: next, IsTruncated: next != ""}
	for i := range list {
		u := list[i].user()
		u.Tags, u.PermissionsBoundary = nil, nil // listings leave them out
		out.Users = append(out.Users, *u)
	}
	return out, err
}

// listEntities gives a page of the users or roles whose paths begin with a prefix.
func (s *Service) listEntities(ctx context.Context, r *Request, k kind, path, marker string, maxItems *int32) (list []entity, next string, err error) {
	if path == "" {
		path = "/"
	}
	if err := permitOperation(r, k.arn(r.Caller.Account, path, "")); err != nil {
		return nil, "", err
	}
	p, err := newPage(r.Operation+" "+path, marker, maxItems)
	if err != nil {
		return nil, "", err
	}
	err = s.cfg.Store.View(ctx, func(reader store.Reader) error {
		list, err = scan(reader, p, k.names(r.Caller.Account), func(_ string, id []byte) (*entity, error) {
			e, err := read[entity](reader, entityPrefix+string(id))
			if err != nil || !strings.HasPrefix(e.Path, path) {
				return nil, err
			}
			return e.shown(reader)
		})
		return err
	})
	return list, p.next, err
}

// UpdateUserInput is the request of UpdateUser.
type UpdateUserInput struct {
	NewPath     string
	NewUserName string
	UserName    string
}

// UpdateUser changes the name and path of a user. Its access keys and sessions stay its own.
func (s *Service) UpdateUser(ctx context.Context, r *Request, in *UpdateUserInput) (*Empty, error) {
	return &Empty{}, s.change(ctx, r, user, in.UserName, func(t store.Txn, e *entity) error {
		old := e.nameRecord()
		if in.NewPath != "" {
			e.Path = in.NewPath
		}
		if in.NewUserName != "" {
			e.Name = in.NewUserName
		}
		if err := permitOperation(r, e.arn()); err != nil {
			return err
		}
		if e.nameRecord() == old {
			return nil
		}
		if err := checkVacant(t, e); err != nil {
			return err
		}
		if err := t.Delete(old); err != nil {
			return err
		}
		return t.Put(e.nameRecord(), []byte(e.ID))
	})
}

// DeleteUserInput is the request of DeleteUser.
type DeleteUserInput struct{ UserName string }

// DeleteUser deletes a user that has neither policies nor access keys. Its sessions end.
func (s *Service) DeleteUser(ctx context.Context, r *Request, in *DeleteUserInput) (*Empty, error) {
	return &Empty{}, s.delete(ctx, r, user, in.UserName)
}

// delete deletes a user or role.
func (s *Service) delete(ctx context.Context, r *Request, k kind, name string) error {
	return s.update(ctx, func(t store.Txn) (string, error) {
		e, err := open(t, r, k, name)
		if err != nil {
			return "", err
		}
		if err := checkDisposable(t, e); err != nil {
			return "", err
		}
		if e.Boundary != "" {
			if err := unbind(t, boundedPrefix, e, e.Boundary); err != nil {
				return "", err
			}
		}
		if err := t.Delete(e.nameRecord()); err != nil {
			return "", err
		}
		return entityPrefix + e.ID, t.Delete(entityPrefix + e.ID)
	})
}

// checkDisposable fails if an entity has something that must be deleted first.
func checkDisposable(r store.Reader, e *entity) error {
	keys, err := names(r, keysOf(e.ID))
	switch {
	case err != nil:
		return err
	case len(keys) > 0:
		return errorf(DeleteConflict, "Cannot delete entity, must delete access keys first.")
	case len(e.Attached) > 0:
		return errorf(DeleteConflict, "Cannot delete entity, must detach all policies first.")
	case len(e.Inline) > 0:
		return errorf(DeleteConflict, "Cannot delete entity, must delete policies first.")
	}
	return nil
}
