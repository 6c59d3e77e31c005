package iam

import (
	"context"
	"slices"
	"strings"

	"hsmkms/store"
)

// maxTags is the number of tags that a user, role or policy may have.
const maxTags = 50

// newTags gives tags with others added, in the order of their keys. A key may be in a request once, whatever its case; of an
// added tag and one that was there under the same key, the added one stays.
func newTags(tags, added []Tag) ([]Tag, error) {
	merged := slices.Clone(tags)
	for i, tag := range added {
		same := func(other Tag) bool { return strings.EqualFold(other.Key, tag.Key) }
		if slices.ContainsFunc(added[:i], same) {
			return nil, errorf(InvalidInput, "Duplicate tag keys found. Please note that Tag keys are case insensitive.")
		}
		if strings.HasPrefix(strings.ToLower(tag.Key), "aws:") {
			return nil, errorf(InvalidInput, "The tag key prefix aws: is reserved.")
		}
		merged = append(slices.DeleteFunc(merged, same), tag)
	}
	if len(merged) > maxTags {
		return nil, errorf(LimitExceeded, "The number of tags has reached the maximum limit.")
	}
	slices.SortFunc(merged, func(a, b Tag) int { return strings.Compare(a.Key, b.Key) })
	return merged, nil
}

// withoutTags gives tags without those that have one of some keys, whatever its case.
func withoutTags(tags []Tag, keys []string) []Tag {
	return slices.DeleteFunc(slices.Clone(tags), func(tag Tag) bool {
		return slices.ContainsFunc(keys, func(key string) bool { return strings.EqualFold(key, tag.Key) })
	})
}

// keysOnly gives tags without values, as condition keys know those that are to be taken away.
func keysOnly(keys []string) []Tag {
	tags := make([]Tag, len(keys))
	for i := range keys {
		tags[i].Key = keys[i]
	}
	return tags
}

func tagKey(tag Tag) string { return tag.Key }

// TagUserInput is the request of TagUser.
type TagUserInput struct {
	Tags     []Tag
	UserName string
}

// TagUser adds tags to a user.
func (s *Service) TagUser(ctx context.Context, r *Request, in *TagUserInput) (*Empty, error) {
	return s.tag(ctx, r, user, in.UserName, in.Tags)
}

// TagRoleInput is the request of TagRole.
type TagRoleInput struct {
	RoleName string
	Tags     []Tag
}

// TagRole adds tags to a role.
func (s *Service) TagRole(ctx context.Context, r *Request, in *TagRoleInput) (*Empty, error) {
	return s.tag(ctx, r, role, in.RoleName, in.Tags)
}

func (s *Service) tag(ctx context.Context, r *Request, k kind, name string, tags []Tag) (*Empty, error) {
	r.asks.tags = tags
	return &Empty{}, s.change(ctx, r, k, name, func(_ store.Txn, e *entity) (err error) {
		e.Tags, err = newTags(e.Tags, tags)
		return err
	})
}

// UntagUserInput is the request of UntagUser.
type UntagUserInput struct {
	TagKeys  []string
	UserName string
}

// UntagUser takes tags from a user.
func (s *Service) UntagUser(ctx context.Context, r *Request, in *UntagUserInput) (*Empty, error) {
	return s.untag(ctx, r, user, in.UserName, in.TagKeys)
}

// UntagRoleInput is the request of UntagRole.
type UntagRoleInput struct {
	RoleName string
	TagKeys  []string
}

// UntagRole takes tags from a role.
func (s *Service) UntagRole(ctx context.Context, r *Request, in *UntagRoleInput) (*Empty, error) {
	return s.untag(ctx, r, role, in.RoleName, in.TagKeys)
}

func (s *Service) untag(ctx context.Context, r *Request, k kind, name string, keys []string) (*Empty, error) {
	r.asks.tags = keysOnly(keys)
	return &Empty{}, s.change(ctx, r, k, name, func(_ store.Txn, e *entity) error {
		e.Tags = withoutTags(e.Tags, keys)
		return nil
	})
}

// ListTagsOutput is the answer of the operations that list tags.
type ListTagsOutput struct {
	IsTruncated bool
	Marker      string
	Tags        []Tag
}

// ListUserTagsInput is the request of ListUserTags.
type ListUserTagsInput struct {
	Marker   string
	MaxItems *int32
	UserName string
}

// ListUserTags lists the tags of a user.
func (s *Service) ListUserTags(ctx context.Context, r *Request, in *ListUserTagsInput) (*ListTagsOutput, error) {
	return s.listTags(ctx, r, user, in.UserName, in.Marker, in.MaxItems)
}

// ListRoleTagsInput is the request of ListRoleTags.
type ListRoleTagsInput struct {
	Marker   string
	MaxItems *int32
	RoleName string
}

// ListRoleTags lists the tags of a role.
func (s *Service) ListRoleTags(ctx context.Context, r *Request, in *ListRoleTagsInput) (*ListTagsOutput, error) {
	return s.listTags(ctx, r, role, in.RoleName, in.Marker, in.MaxItems)
}

func (s *Service) listTags(ctx context.Context, r *Request, k kind, name, marker string, maxItems *int32) (*ListTagsOutput, error) {
	out := &ListTagsOutput{}
	return out, s.view(ctx, r, k, name, func(_ store.Reader, e *entity) error {
		p, err := newPage(r.Operation+" "+name, marker, maxItems)
		if err != nil {
			return err
		}
		out.Tags = cut(p, e.Tags, tagKey)
		out.Marker, out.IsTruncated = p.next, p.next != ""
		return nil
	})
}

// TagPolicyInput is the request of TagPolicy.
type TagPolicyInput struct {
	PolicyArn string
	Tags      []Tag
}

// TagPolicy adds tags to a managed policy.
func (s *Service) TagPolicy(ctx context.Context, r *Request, in *TagPolicyInput) (*Empty, error) {
	r.asks.tags = in.Tags
	return &Empty{}, s.changePolicy(ctx, r, in.PolicyArn, func(m *managed) (err error) {
		m.Tags, err = newTags(m.Tags, in.Tags)
		return err
	})
}

// UntagPolicyInput is the request of UntagPolicy.
type UntagPolicyInput struct {
	PolicyArn string
	TagKeys   []string
}

// UntagPolicy takes tags from a managed policy.
func (s *Service) UntagPolicy(ctx context.Context, r *Request, in *UntagPolicyInput) (*Empty, error) {
	r.asks.tags = keysOnly(in.TagKeys)
	return &Empty{}, s.changePolicy(ctx, r, in.PolicyArn, func(m *managed) error {
		m.Tags = withoutTags(m.Tags, in.TagKeys)
		return nil
	})
}

// ListPolicyTagsInput is the request of ListPolicyTags.
type ListPolicyTagsInput struct {
	Marker    string
	MaxItems  *int32
	PolicyArn string
}

// ListPolicyTags lists the tags of a managed policy.
func (s *Service) ListPolicyTags(ctx context.Context, r *Request, in *ListPolicyTagsInput) (*ListTagsOutput, error) {
	out := &ListTagsOutput{}
	return out, s.viewPolicy(ctx, r, in.PolicyArn, func(_ store.Reader, m *managed) error {
		p, err := newPage(r.Operation+" "+in.PolicyArn, in.Marker, in.MaxItems)
		if err != nil {
			return err
		}
		out.Tags = cut(p, m.Tags, tagKey)
		out.Marker, out.IsTruncated = p.next, p.next != ""
		return nil
	})
}
