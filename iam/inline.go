package iam

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"hsmkms/policy"
	"hsmkms/store"
)

// maxInline is how many characters all inline policies of an entity may have, without white space.
var maxInline = map[kind]int{user: 2048, role: 10240}

// size counts the characters of a document as AWS's quotas do, without white space.
func size(document string) int {
	n := 0
	for _, c := range document {
		if !strings.ContainsRune(" \t\r\n", c) {
			n++
		}
	}
	return n
}

// checkDocument checks a policy of a kind.
func checkDocument(kind policy.Kind, document string) error {
	_, err := policy.Load(kind, document)
	return malformed(err)
}

// malformed makes of what is wrong with a document what its author may know.
func malformed(err error) error {
	var words policy.MalformedError
	if errors.As(err, &words) {
		return errorf(MalformedPolicyDocument, "%s", words)
	}
	return err
}

// PutUserPolicyInput is the request of PutUserPolicy.
type PutUserPolicyInput struct{ PolicyDocument, PolicyName, UserName string }

// PutUserPolicy gives a user an inline policy, in the place of one that has the same name.
func (s *Service) PutUserPolicy(ctx context.Context, r *Request, in *PutUserPolicyInput) (*Empty, error) {
	return s.putPolicy(ctx, r, user, in.UserName, in.PolicyName, in.PolicyDocument)
}

// PutRolePolicyInput is the request of PutRolePolicy.
type PutRolePolicyInput struct{ PolicyDocument, PolicyName, RoleName string }

// PutRolePolicy gives a role an inline policy, in the place of one that has the same name.
func (s *Service) PutRolePolicy(ctx context.Context, r *Request, in *PutRolePolicyInput) (*Empty, error) {
	return s.putPolicy(ctx, r, role, in.RoleName, in.PolicyName, in.PolicyDocument)
}

func (s *Service) putPolicy(ctx context.Context, r *Request, k kind, name, policyName, document string) (*Empty, error) {
	return &Empty{}, s.change(ctx, r, k, name, func(_ store.Txn, e *entity) error {
		if err := checkDocument(policy.IdentityPolicy, document); err != nil {
			return err
		}
		if e.Inline == nil {
			e.Inline = map[string]string{}
		}
		e.Inline[policyName] = document
		total := 0
		for _, d := range e.Inline {
			total += size(d)
		}
		if total > maxInline[k] {
			return errorf(LimitExceeded, "Maximum policy size of %d bytes exceeded for %s %s", maxInline[k], k, name)
		}
		return nil
	})
}

// GetUserPolicyInput is the request of GetUserPolicy.
type GetUserPolicyInput struct{ PolicyName, UserName string }

// GetUserPolicyOutput is the answer of GetUserPolicy. The document is percent-encoded.
type GetUserPolicyOutput struct{ PolicyDocument, PolicyName, UserName string }

// GetUserPolicy gives an inline policy of a user.
func (s *Service) GetUserPolicy(ctx context.Context, r *Request, in *GetUserPolicyInput) (*GetUserPolicyOutput, error) {
	document, err := s.getPolicy(ctx, r, user, in.UserName, in.PolicyName)
	return &GetUserPolicyOutput{PolicyDocument: document, PolicyName: in.PolicyName, UserName: in.UserName}, err
}

// GetRolePolicyInput is the request of GetRolePolicy.
type GetRolePolicyInput struct{ PolicyName, RoleName string }

// GetRolePolicyOutput is the answer of GetRolePolicy. The document is percent-encoded.
type GetRolePolicyOutput struct{ PolicyDocument, PolicyName, RoleName string }

// GetRolePolicy gives an inline policy of a role.
func (s *Service) GetRolePolicy(ctx context.Context, r *Request, in *GetRolePolicyInput) (*GetRolePolicyOutput, error) {
	document, err := s.getPolicy(ctx, r, role, in.RoleName, in.PolicyName)
	return &GetRolePolicyOutput{PolicyDocument: document, PolicyName: in.PolicyName, RoleName: in.RoleName}, err
}

func (s *Service) getPolicy(ctx context.Context, r *Request, k kind, name, policyName string) (document string, err error) {
	err = s.view(ctx, r, k, name, func(_ store.Reader, e *entity) error {
		text, found := e.Inline[policyName]
		if !found {
			return noSuch(k+" policy", policyName)
		}
		document = encodeDocument(text)
		return nil
	})
	return document, err
}

// ListPolicyNamesOutput is the answer of the operations that list inline policies.
type ListPolicyNamesOutput struct {
	IsTruncated bool
	Marker      string
	PolicyNames []string
}

// ListUserPoliciesInput is the request of ListUserPolicies.
type ListUserPoliciesInput struct {
	Marker   string
	MaxItems *int32
	UserName string
}

// ListUserPolicies lists the inline policies of a user.
func (s *Service) ListUserPolicies(ctx context.Context, r *Request, in *ListUserPoliciesInput) (*ListPolicyNamesOutput, error) {
	return s.listPolicyNames(ctx, r, user, in.UserName, in.Marker, in.MaxItems)
}

// ListRolePoliciesInput is the request of ListRolePolicies.
type ListRolePoliciesInput struct {
	Marker   string
	MaxItems *int32
	RoleName string
}

// ListRolePolicies lists the inline policies of a role.
func (s *Service) ListRolePolicies(ctx context.Context, r *Request, in *ListRolePoliciesInput) (*ListPolicyNamesOutput, error) {
	return s.listPolicyNames(ctx, r, role, in.RoleName, in.Marker, in.MaxItems)
}

func (s *Service) listPolicyNames(ctx context.Context, r *Request, k kind, name, marker string, maxItems *int32) (*ListPolicyNamesOutput, error) {
	out := &ListPolicyNamesOutput{}
	return out, s.view(ctx, r, k, name, func(_ store.Reader, e *entity) error {
		p, err := newPage(r.Operation+" "+name, marker, maxItems)
		if err != nil {
			return err
		}
		out.PolicyNames = cut(p, slices.Sorted(maps.Keys(e.Inline)), identical)
		out.Marker, out.IsTruncated = p.next, p.next != ""
		return nil
	})
}

// DeleteUserPolicyInput is the request of DeleteUserPolicy.
type DeleteUserPolicyInput struct{ PolicyName, UserName string }

// DeleteUserPolicy takes an inline policy from a user.
func (s *Service) DeleteUserPolicy(ctx context.Context, r *Request, in *DeleteUserPolicyInput) (*Empty, error) {
	return s.deletePolicy(ctx, r, user, in.UserName, in.PolicyName)
}

// DeleteRolePolicyInput is the request of DeleteRolePolicy.
type DeleteRolePolicyInput struct{ PolicyName, RoleName string }

// DeleteRolePolicy takes an inline policy from a role.
func (s *Service) DeleteRolePolicy(ctx context.Context, r *Request, in *DeleteRolePolicyInput) (*Empty, error) {
	return s.deletePolicy(ctx, r, role, in.RoleName, in.PolicyName)
}

func (s *Service) deletePolicy(ctx context.Context, r *Request, k kind, name, policyName string) (*Empty, error) {
	return &Empty{}, s.change(ctx, r, k, name, func(_ store.Txn, e *entity) error {
		if _, found := e.Inline[policyName]; !found {
			return noSuch(k+" policy", policyName)
		}
		delete(e.Inline, policyName)
		return nil
	})
}
