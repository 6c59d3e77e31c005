package iam

import (
	"context"

	"hsmkms/policy"
	"hsmkms/store"
)

// usualSession is how long sessions of a role may be, in seconds, if the role does not say.
const usualSession = 3600

// CreateRoleInput is the request of CreateRole.
type CreateRoleInput struct {
	AssumeRolePolicyDocument string
	Description              string
	MaxSessionDuration       *int32
	Path                     string
	PermissionsBoundary      string
	RoleName                 string
	Tags                     []Tag
}

// CreateRoleOutput is the answer of CreateRole.
type CreateRoleOutput struct{ Role *Role }

// CreateRole makes a role without any permission.
func (s *Service) CreateRole(ctx context.Context, r *Request, in *CreateRoleInput) (*CreateRoleOutput, error) {
	if err := checkTrust(in.AssumeRolePolicyDocument); err != nil {
		return nil, err
	}
	e := &entity{
		Kind: role, Path: in.Path, Name: in.RoleName, Boundary: in.PermissionsBoundary, Tags: in.Tags,
		Trust: in.AssumeRolePolicyDocument, Description: in.Description, MaxSession: usualSession,
	}
	if in.MaxSessionDuration != nil {
		e.MaxSession = *in.MaxSessionDuration
	}
	if err := s.create(ctx, r, e, roleIDs); err != nil {
		return nil, err
	}
	return &CreateRoleOutput{Role: e.role()}, nil
}

// maxTrust is the size of a trust policy in characters without white space. AWS's default quota is 2048, and can be raised
// to this.
const maxTrust = 4096

// checkTrust checks the form of a trust policy. Whether its principals exist is up to bindTrust.
func checkTrust(document string) error {
	if size(document) > maxTrust {
		return errorf(LimitExceeded, "Cannot exceed quota for ACLSizePerRole: %d", maxTrust)
	}
	return checkDocument(policy.TrustPolicy, document)
}

// GetRoleInput is the request of GetRole.
type GetRoleInput struct{ RoleName string }

// GetRoleOutput is the answer of GetRole.
type GetRoleOutput struct{ Role *Role }

// GetRole describes a role.
func (s *Service) GetRole(ctx context.Context, r *Request, in *GetRoleInput) (*GetRoleOutput, error) {
	out := &GetRoleOutput{}
	return out, s.view(ctx, r, role, in.RoleName, func(reader store.Reader, e *entity) error {
		shown, err := e.shown(reader)
		if err == nil {
			out.Role = shown.role()
		}
		return err
	})
}

// ListRolesInput is the request of ListRoles.
type ListRolesInput struct {
	Marker     string
	MaxItems   *int32
	PathPrefix string
}

// ListRolesOutput is the answer of ListRoles.
type ListRolesOutput struct {
	IsTruncated bool
	Marker      string
	Roles       []Role
}

// ListRoles lists the roles of the account.
func (s *Service) ListRoles(ctx context.Context, r *Request, in *ListRolesInput) (*ListRolesOutput, error) {
	list, next, err := s.listEntities(ctx, r, role, in.PathPrefix, in.Marker, in.MaxItems)
	out := &ListRolesOutput{Marker: next, IsTruncated: next != ""}
	for i := range list {
		described := list[i].role()
		described.Tags, described.PermissionsBoundary = nil, nil // listings leave them out
		out.Roles = append(out.Roles, *described)
	}
	return out, err
}

// UpdateRoleInput is the request of UpdateRole.
type UpdateRoleInput struct {
	Description        *string
	MaxSessionDuration *int32
	RoleName           string
}

// UpdateRoleOutput is the answer of UpdateRole.
type UpdateRoleOutput struct{}

// UpdateRole changes the description of a role and how long its sessions may be.
func (s *Service) UpdateRole(ctx context.Context, r *Request, in *UpdateRoleInput) (*UpdateRoleOutput, error) {
	return &UpdateRoleOutput{}, s.change(ctx, r, role, in.RoleName, func(_ store.Txn, e *entity) error {
		if in.Description != nil {
			e.Description = *in.Description
		}
		if in.MaxSessionDuration != nil {
			e.MaxSession = *in.MaxSessionDuration
		}
		return nil
	})
}

// UpdateRoleDescriptionInput is the request of UpdateRoleDescription.
type UpdateRoleDescriptionInput struct {
	Description string
	RoleName    string
}

// UpdateRoleDescriptionOutput is the answer of UpdateRoleDescription.
type UpdateRoleDescriptionOutput struct{ Role *Role }

// UpdateRoleDescription changes the description of a role.
func (s *Service) UpdateRoleDescription(ctx context.Context, r *Request, in *UpdateRoleDescriptionInput) (*UpdateRoleDescriptionOutput, error) {
	out := &UpdateRoleDescriptionOutput{}
	return out, s.change(ctx, r, role, in.RoleName, func(t store.Txn, e *entity) error {
		e.Description = in.Description
		shown, err := e.shown(t)
		if err == nil {
			out.Role = shown.role()
		}
		return err
	})
}

// UpdateAssumeRolePolicyInput is the request of UpdateAssumeRolePolicy.
type UpdateAssumeRolePolicyInput struct {
	PolicyDocument string
	RoleName       string
}

// UpdateAssumeRolePolicy changes who may assume a role. Sessions that were begun go on.
func (s *Service) UpdateAssumeRolePolicy(ctx context.Context, r *Request, in *UpdateAssumeRolePolicyInput) (*Empty, error) {
	return &Empty{}, s.change(ctx, r, role, in.RoleName, func(t store.Txn, e *entity) error {
		if err := checkTrust(in.PolicyDocument); err != nil {
			return err
		}
		e.Trust = in.PolicyDocument
		return e.bindTrust(t)
	})
}

// DeleteRoleInput is the request of DeleteRole.
type DeleteRoleInput struct{ RoleName string }

// DeleteRole deletes a role that has no policies. Its sessions end.
func (s *Service) DeleteRole(ctx context.Context, r *Request, in *DeleteRoleInput) (*Empty, error) {
	return &Empty{}, s.delete(ctx, r, role, in.RoleName)
}
