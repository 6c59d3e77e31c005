package kms

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"hsmkms/policy"
)

// given is the value that a request has for a condition key.
type given struct {
	key   policy.ConditionKey
	value policy.Value
}

// text is given for a key with one text; a request that leaves it out has no value.
func text[T ~string](key policy.ConditionKey, value T) given {
	return given{key, policy.Optional(string(value))}
}

// circumstances are what is decided about, with the values of condition keys for one request and, unless it is about none, one
// key. They belong to one decision.
type circumstances struct {
	request policy.Request
	r       *Request
	*asked
	alias string
	// key is nil for none; ctx and s are for finding out more of it.
	key *Key
	ctx context.Context //nolint:containedctx // policy.Values has no room for it, and it ends with the decision
	s   *Service
	// failure is why a value could not be found out: no decision that was made without it counts.
	failure error
}

// decide gives what is to be decided.
func (c *circumstances) decide(a action) *policy.Request {
	c.request = policy.Request{Caller: c.r.Caller, Action: "kms:" + a.permission, NewGrant: c.newGrant, Values: c}
	if c.key != nil {
		c.request.Resource, c.request.Account = c.key.ARN(), c.key.Account
		if c.key.Spec == SymmetricDefault {
			c.request.EncryptionContext = c.context
		}
	}
	return &c.request
}

// Value implements policy.Values.
func (c *circumstances) Value(key policy.ConditionKey, name string) policy.Value {
	if key == policy.KeyReEncryptOnSameKey && c.key == nil {
		return policy.Value{} // it would tell what an alias of another account points at
	}
	for i := range c.values {
		if c.values[i].key == key {
			return c.values[i].value
		}
	}
	switch key {
	case policy.KeyEncryptionAlgorithm:
		return policy.Optional(string(c.algorithm))
	case policy.KeyRequestTag:
		return tagValue(c.tags, name)
	case policy.KeyTagKeys:
		return c.tagNames()
	case policy.KeyRequestAlias:
		return policy.Optional(c.alias)
	case policy.KeyResourceAliases:
		return c.resourceAliases()
	}
	if value, ok := c.key.value(key, name); ok || c.r.Origin == nil {
		return value
	}
	return c.r.Origin.Value(key, name)
}

// value gives the value of a condition key about a KMS key, and tells whether that is what the condition key is about. Of no key,
// nil, nothing is known.
func (k *Key) value(key policy.ConditionKey, name string) (value policy.Value, ok bool) {
	if k == nil {
		return policy.Value{}, false
	}
	switch key {
	case policy.KeyKeyOrigin:
		return policy.Text(string(k.Origin)), true
	case policy.KeyKeySpec:
		return policy.Text(string(k.Spec)), true
	case policy.KeyKeyUsage:
		return policy.Text(string(k.Usage)), true
	case policy.KeyMultiRegion:
		return policy.Flag(k.MultiRegion), true
	case policy.KeyMultiRegionKeyType:
		if k.MultiRegion {
			value = policy.Text(primaryKey)
		}
		return value, true
	case policy.KeyResourceTag:
		return tagValue(k.Tags, name), true
	}
	return policy.Value{}, false
}

// tagValue is policy.Member for tags.
func tagValue(tags []Tag, name string) policy.Value {
	found, chosen := policy.Value{}, ""
	for _, tag := range tags {
		switch {
		case tag.TagKey == name:
			return policy.Text(tag.TagValue)
		case strings.EqualFold(tag.TagKey, name) && (chosen == "" || tag.TagKey < chosen):
			found, chosen = policy.Text(tag.TagValue), tag.TagKey
		}
	}
	return found
}

// tagNames are the tag keys in the request.
func (c *circumstances) tagNames() policy.Value {
	names := slices.Clip(c.tagKeys)
	for _, tag := range c.tags {
		names = append(names, tag.TagKey)
	}
	return policy.Texts(names)
}

// resourceAliases are the names of the key's aliases.
func (c *circumstances) resourceAliases() policy.Value {
	if c.key == nil {
		return policy.Value{}
	}
	names, err := c.s.aliasesOf(c.ctx, c.key)
	if err != nil {
		c.failure = fmt.Errorf("listing the aliases of key %s: %w", c.key.ID, err)
	}
	return policy.Texts(names)
}
