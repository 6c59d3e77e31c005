package kms

import (
	"context"
	"slices"
	"strings"
)

// Tag is a tag of a key.
type Tag struct {
	TagKey   string
	TagValue string
}

// maxTags is the most tags that a key may have.
const maxTags = 50

// TagResourceInput is the input of TagResource.
type TagResourceInput struct {
	KeyId string
	Tags  []Tag
}

// UntagResourceInput is the input of UntagResource.
type UntagResourceInput struct {
	KeyId   string
	TagKeys []string
}

// ListResourceTagsInput is the input of ListResourceTags.
type ListResourceTagsInput struct {
	KeyId  string
	Limit  *int32
	Marker string
}

// ListResourceTagsOutput is the output of ListResourceTags.
type ListResourceTagsOutput struct {
	NextMarker string `json:",omitempty"`
	Tags       []Tag
	Truncated  bool
}

// TagResource gives a key tags; the value of a tag that it has already is replaced.
func (s *Service) TagResource(ctx context.Context, r *Request, in *TagResourceInput) (*Empty, error) {
	return empty(s.manage(ctx, r, actionTagResource, in.KeyId, asked{tags: in.Tags}, func(key *Key) error {
		if err := checkTags(in.Tags); err != nil {
			return err
		}
		for _, tag := range in.Tags {
			key.setTag(tag)
		}
		if len(key.Tags) > maxTags {
			return Errorf(LimitExceeded, "Too many tags")
		}
		return nil
	}))
}

// UntagResource takes tags away from a key. It is no error if the key does not have them.
func (s *Service) UntagResource(ctx context.Context, r *Request, in *UntagResourceInput) (*Empty, error) {
	return empty(s.manage(ctx, r, actionUntagResource, in.KeyId, asked{tagKeys: in.TagKeys}, func(key *Key) error {
		if err := checkTagKeys(in.TagKeys); err != nil {
			return err
		}
		key.Tags = slices.DeleteFunc(key.Tags, func(tag Tag) bool { return slices.Contains(in.TagKeys, tag.TagKey) })
		return nil
	}))
}

// ListResourceTags lists the tags of a key, ordered by tag key, at most 50 a page.
func (s *Service) ListResourceTags(ctx context.Context, r *Request, in *ListResourceTagsInput) (*ListResourceTagsOutput, error) {
	if in.Limit != nil && *in.Limit > maxTags {
		return nil, Errorf(Validation, "1 validation error detected: Value '%d' at 'limit' failed to satisfy constraint: Member must have value less than or equal to %d", *in.Limit, maxTags)
	}
	key, err := s.inspect(ctx, r, actionListResourceTags, in.KeyId)
	if err != nil {
		return nil, err
	}
	page, err := newPage(in.Limit, maxTags, in.Marker, "tag/"+key.Region+"/"+key.ID+"/")
	if err != nil {
		return nil, err
	}
	tags := cut(page, key.sortedTags(), func(tag Tag) string { return tag.TagKey })
	return &ListResourceTagsOutput{Tags: tags, NextMarker: page.next, Truncated: page.next != ""}, nil
}

// setTag adds a tag, or replaces the one with its key.
func (k *Key) setTag(tag Tag) {
	if i := slices.IndexFunc(k.Tags, func(old Tag) bool { return old.TagKey == tag.TagKey }); i >= 0 {
		k.Tags[i] = tag
		return
	}
	k.Tags = append(k.Tags, tag)
}

// sortedTags gives a copy of the key's tags, ordered by tag key; it is not nil.
func (k *Key) sortedTags() []Tag {
	tags := append([]Tag{}, k.Tags...)
	slices.SortFunc(tags, func(a, b Tag) int { return strings.Compare(a.TagKey, b.TagKey) })
	return tags
}

// checkTags checks the tags that a request wants to give a key.
func checkTags(tags []Tag) error {
	keys := make([]string, len(tags))
	for i := range tags {
		keys[i] = tags[i].TagKey
	}
	return checkTagKeys(keys)
}

// checkTagKeys checks the tag keys of a request. Which characters they have is not checked: that AWS does is not on record.
func checkTagKeys(keys []string) error {
	if len(keys) > maxTags {
		return Errorf(TagError, "Too many tags")
	}
	seen := make(map[string]bool, len(keys))
	for _, key := range keys {
		if len(key) >= 4 && strings.EqualFold(key[:4], "aws:") {
			return Errorf(TagError, "Tags beginning with aws: are reserved")
		}
		if seen[key] {
			return Errorf(TagError, "Duplicate tag keys")
		}
		seen[key] = true
	}
	return nil
}
