package iam

import (
	"context"
	"slices"
	"strings"

	"hsmkms/store"
)

// maxAttached is how many managed policies an entity may have.
const maxAttached = 10

// bind notes that an entity has a managed policy, in one of the indexes attachedPrefix and boundedPrefix.
func bind(t store.Txn, index string, e *entity, arn string) error {
	m, err := byARN(t, e.Account, arn)
	if err == nil && m == nil {
		err = errorf(NoSuchEntity, "Policy %s does not exist or is not attachable.", arn)
	}
	if err != nil {
		return err
	}
	return t.Put(index+m.ID+"/"+e.ID, nil)
}

// unbind takes that back. A policy that an entity has cannot have been deleted.
func unbind(t store.Txn, index string, e *entity, arn string) error {
	m, err := byARN(t, e.Account, arn)
	if err == nil && m == nil {
		err = errNoPolicy
	}
	if err != nil {
		return err
	}
	return t.Delete(index + m.ID + "/" + e.ID)
}

// AttachUserPolicyInput is the request of AttachUserPolicy.
type AttachUserPolicyInput struct{ PolicyArn, UserName string }

// AttachUserPolicy gives a user a managed policy.
func (s *Service) AttachUserPolicy(ctx context.Context, r *Request, in *AttachUserPolicyInput) (*Empty, error) {
	return s.attach(ctx, r, user, in.UserName, in.PolicyArn)
}

// AttachRolePolicyInput is the request of AttachRolePolicy.
type AttachRolePolicyInput struct{ PolicyArn, RoleName string }

// AttachRolePolicy gives a role a managed policy.
func (s *Service) AttachRolePolicy(ctx context.Context, r *Request, in *AttachRolePolicyInput) (*Empty, error) {
	return s.attach(ctx, r, role, in.RoleName, in.PolicyArn)
}

func (s *Service) attach(ctx context.Context, r *Request, k kind, name, arn string) (*Empty, error) {
	r.asks.policyARN = arn
	return &Empty{}, s.change(ctx, r, k, name, func(t store.Txn, e *entity) error {
		if err := bind(t, attachedPrefix, e, arn); err != nil || slices.Contains(e.Attached, arn) {
			return err
		}
		if len(e.Attached) == maxAttached {
			return errorf(LimitExceeded, "Cannot exceed quota for PoliciesPer%s: %d", k.title(), maxAttached)
		}
		e.Attached = append(e.Attached, arn)
		return nil
	})
}

// DetachUserPolicyInput is the request of DetachUserPolicy.
type DetachUserPolicyInput struct{ PolicyArn, UserName string }

// DetachUserPolicy takes a managed policy from a user.
func (s *Service) DetachUserPolicy(ctx context.Context, r *Request, in *DetachUserPolicyInput) (*Empty, error) {
	return s.detach(ctx, r, user, in.UserName, in.PolicyArn)
}

// DetachRolePolicyInput is the request of DetachRolePolicy.
type DetachRolePolicyInput struct{ PolicyArn, RoleName string }

// DetachRolePolicy takes a managed policy from a role.
func (s *Service) DetachRolePolicy(ctx context.Context, r *Request, in *DetachRolePolicyInput) (*Empty, error) {
	return s.detach(ctx, r, role, in.RoleName, in.PolicyArn)
}

func (s *Service) detach(ctx context.Context, r *Request, k kind, name, arn string) (*Empty, error) {
	r.asks.policyARN = arn
	return &Empty{}, s.change(ctx, r, k, name, func(t store.Txn, e *entity) error {
		i := slices.Index(e.Attached, arn)
		if i < 0 {
			return noPolicy(arn)
		}
		e.Attached = slices.Delete(e.Attached, i, i+1)
		return unbind(t, attachedPrefix, e, arn)
	})
}

// ListAttachedPoliciesOutput is the answer of the operations that list attached policies.
type ListAttachedPoliciesOutput struct {
	AttachedPolicies []AttachedPolicy
	IsTruncated      bool
	Marker           string
}

// ListAttachedUserPoliciesInput is the request of ListAttachedUserPolicies.
type ListAttachedUserPoliciesInput struct {
	Marker     string
	MaxItems   *int32
	PathPrefix string
	UserName   string
}

// ListAttachedUserPolicies lists the managed policies of a user.
func (s *Service) ListAttachedUserPolicies(ctx context.Context, r *Request, in *ListAttachedUserPoliciesInput) (*ListAttachedPoliciesOutput, error) {
	return s.listAttached(ctx, r, user, in.UserName, in.PathPrefix, in.Marker, in.MaxItems)
}

// ListAttachedRolePoliciesInput is the request of ListAttachedRolePolicies.
type ListAttachedRolePoliciesInput struct {
	Marker     string
	MaxItems   *int32
	PathPrefix string
	RoleName   string
}

// ListAttachedRolePolicies lists the managed policies of a role.
func (s *Service) ListAttachedRolePolicies(ctx context.Context, r *Request, in *ListAttachedRolePoliciesInput) (*ListAttachedPoliciesOutput, error) {
	return s.listAttached(ctx, r, role, in.RoleName, in.PathPrefix, in.Marker, in.MaxItems)
}

func (s *Service) listAttached(ctx context.Context, r *Request, k kind, name, path, marker string, maxItems *int32) (*ListAttachedPoliciesOutput, error) {
	out := &ListAttachedPoliciesOutput{}
	return out, s.view(ctx, r, k, name, func(_ store.Reader, e *entity) error {
		p, err := newPage(strings.Join([]string{r.Operation, name, path}, " "), marker, maxItems)
		if err != nil {
			return err
		}
		prefix := policyARN(e.Account, path, "")
		var arns []string
		for _, arn := range slices.Sorted(slices.Values(e.Attached)) {
			if strings.HasPrefix(arn, prefix) {
				arns = append(arns, arn)
			}
		}
		out.AttachedPolicies = nil
		for _, arn := range cut(p, arns, identical) {
			out.AttachedPolicies = append(out.AttachedPolicies, AttachedPolicy{PolicyName: lastPart(arn), PolicyArn: arn})
		}
		out.Marker, out.IsTruncated = p.next, p.next != ""
		return nil
	})
}

// PutUserPermissionsBoundaryInput is the request of PutUserPermissionsBoundary.
type PutUserPermissionsBoundaryInput struct{ PermissionsBoundary, UserName string }

// PutUserPermissionsBoundary bounds what a user may do by a managed policy, in the place of the one that did.
func (s *Service) PutUserPermissionsBoundary(ctx context.Context, r *Request, in *PutUserPermissionsBoundaryInput) (*Empty, error) {
	return s.setBoundary(ctx, r, user, in.UserName, in.PermissionsBoundary)
}

// PutRolePermissionsBoundaryInput is the request of PutRolePermissionsBoundary.
type PutRolePermissionsBoundaryInput struct{ PermissionsBoundary, RoleName string }

// PutRolePermissionsBoundary bounds what a role may do by a managed policy, in the place of the one that did.
func (s *Service) PutRolePermissionsBoundary(ctx context.Context, r *Request, in *PutRolePermissionsBoundaryInput) (*Empty, error) {
	return s.setBoundary(ctx, r, role, in.RoleName, in.PermissionsBoundary)
}

// DeleteUserPermissionsBoundaryInput is the request of DeleteUserPermissionsBoundary.
type DeleteUserPermissionsBoundaryInput struct{ UserName string }

// DeleteUserPermissionsBoundary takes away a user's permissions boundary: what its policies allow is no longer narrowed.
func (s *Service) DeleteUserPermissionsBoundary(ctx context.Context, r *Request, in *DeleteUserPermissionsBoundaryInput) (*Empty, error) {
	return s.setBoundary(ctx, r, user, in.UserName, "")
}

// DeleteRolePermissionsBoundaryInput is the request of DeleteRolePermissionsBoundary.
type DeleteRolePermissionsBoundaryInput struct{ RoleName string }

// DeleteRolePermissionsBoundary takes away a role's permissions boundary: what its policies allow is no longer narrowed.
func (s *Service) DeleteRolePermissionsBoundary(ctx context.Context, r *Request, in *DeleteRolePermissionsBoundaryInput) (*Empty, error) {
	return s.setBoundary(ctx, r, role, in.RoleName, "")
}

// setBoundary sets the permissions boundary; "" for none.
func (s *Service) setBoundary(ctx context.Context, r *Request, k kind, name, arn string) (*Empty, error) {
	r.asks.boundary = arn
	return &Empty{}, s.change(ctx, r, k, name, func(t store.Txn, e *entity) error {
		switch old := e.Boundary; {
		case old == "" && arn == "":
			return errorf(NoSuchEntity, "The %s with name %s has no permissions boundary.", k, name)
		case old != "":
			if err := unbind(t, boundedPrefix, e, old); err != nil {
				return err
			}
		}
		e.Boundary = arn
		if arn == "" {
			return nil
		}
		return bind(t, boundedPrefix, e, arn)
	})
}
