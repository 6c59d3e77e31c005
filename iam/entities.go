package iam

import (
	"context"
	"slices"
	"strings"

	"hsmkms/store"
)

// ListEntitiesForPolicyInput is the request of ListEntitiesForPolicy.
type ListEntitiesForPolicyInput struct {
	EntityFilter      string
	Marker            string
	MaxItems          *int32
	PathPrefix        string
	PolicyArn         string
	PolicyUsageFilter string
}

// ListEntitiesForPolicyOutput is the answer of ListEntitiesForPolicy.
type ListEntitiesForPolicyOutput struct {
	IsTruncated  bool
	Marker       string
	PolicyGroups []PolicyGroup
	PolicyRoles  []PolicyRole
	PolicyUsers  []PolicyUser
}

// PolicyGroup names a group that has a managed policy. There are none.
type PolicyGroup struct{ GroupName, GroupId string }

// PolicyRole names a role that has a managed policy.
type PolicyRole struct{ RoleName, RoleId string }

// PolicyUser names a user who has a managed policy.
type PolicyUser struct{ UserName, UserId string }

// ListEntitiesForPolicy lists the users and roles that have a managed policy among their policies or for their permissions
// boundary, in the order of their ids: the users come first.
func (s *Service) ListEntitiesForPolicy(ctx context.Context, r *Request, in *ListEntitiesForPolicyInput) (*ListEntitiesForPolicyOutput, error) {
	listing := strings.Join([]string{r.Operation, in.PolicyArn, in.EntityFilter, in.PathPrefix, in.PolicyUsageFilter}, " ")
	out := &ListEntitiesForPolicyOutput{}
	return out, s.viewPolicy(ctx, r, in.PolicyArn, func(reader store.Reader, m *managed) error {
		p, err := newPage(listing, in.Marker, in.MaxItems)
		if err != nil {
			return err
		}
		all, err := in.entities(reader, m)
		if err != nil {
			return err
		}
		out.PolicyRoles, out.PolicyUsers = nil, nil
		for _, e := range cut(p, all, func(e *entity) string { return e.ID }) {
			switch e.Kind {
			case user:
				out.PolicyUsers = append(out.PolicyUsers, PolicyUser{UserName: e.Name, UserId: e.ID})
			case role:
				out.PolicyRoles = append(out.PolicyRoles, PolicyRole{RoleName: e.Name, RoleId: e.ID})
			}
		}
		out.Marker, out.IsTruncated = p.next, p.next != ""
		return nil
	})
}

// entities gives the users and roles that are to be listed, in the order of their ids.
func (in *ListEntitiesForPolicyInput) entities(reader store.Reader, m *managed) ([]*entity, error) {
	indexes := map[string][]string{
		"": {attachedPrefix, boundedPrefix}, "PermissionsPolicy": {attachedPrefix}, "PermissionsBoundary": {boundedPrefix},
	}[in.PolicyUsageFilter]
	var ids []string
	for _, index := range indexes {
		some, err := names(reader, index+m.ID+"/")
		if err != nil {
			return nil, err
		}
		ids = append(ids, some...)
	}
	slices.Sort(ids)
	var all []*entity
	for _, id := range slices.Compact(ids) {
		e, err := read[entity](reader, entityPrefix+id)
		if err != nil {
			return nil, err
		}
		if e != nil && in.wants(e) {
			all = append(all, e)
		}
	}
	return all, nil
}

// wants tells whether an entity is to be listed. Filters for what there is not leave nobody.
func (in *ListEntitiesForPolicyInput) wants(e *entity) bool {
	return strings.HasPrefix(e.Path, in.PathPrefix) && (in.EntityFilter == "" || in.EntityFilter == e.Kind.title())
}
