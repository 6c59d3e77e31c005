package kms

import (
	"context"
	"strings"

	"hsmkms/store"
)

// maxAliases is AWS's quota of aliases for a key.
const maxAliases = 50

// CreateAliasInput is the input of CreateAlias.
type CreateAliasInput struct {
	AliasName   string
	TargetKeyId string
}

// UpdateAliasInput is the input of UpdateAlias.
type UpdateAliasInput struct {
	AliasName   string
	TargetKeyId string
}

// DeleteAliasInput is the input of DeleteAlias.
type DeleteAliasInput struct {
	AliasName string
}

// ListAliasesInput is the input of ListAliases.
type ListAliasesInput struct {
	KeyId  string
	Limit  *int32
	Marker string
}

// ListAliasesOutput is the output of ListAliases.
type ListAliasesOutput struct {
	Aliases    []AliasListEntry
	NextMarker string `json:",omitempty"`
	Truncated  bool
}

// AliasListEntry is an alias in a list.
type AliasListEntry struct {
	AliasArn        string
	AliasName       string
	CreationDate    *Timestamp `json:",omitempty"`
	LastUpdatedDate *Timestamp `json:",omitempty"`
	TargetKeyId     string     `json:",omitempty"`
}

// CreateAlias gives a key of the caller's account another name.
func (s *Service) CreateAlias(ctx context.Context, r *Request, in *CreateAliasInput) (*Empty, error) {
	if err := checkAliasName(in.AliasName); err != nil {
		return nil, err
	}
	key, err := s.authorize(ctx, r, actionCreateAlias, in.TargetKeyId)
	if err != nil {
		return nil, err
	}
	now := s.cfg.Clock().UTC()
	return s.changeAlias(ctx, r, in.AliasName, func(t *recorder, old *Alias) (*Alias, error) {
		if old != nil {
			return nil, Errorf(AlreadyExists, "An alias with the name %s already exists", aliasARN(r.Caller.Account, r.Region, in.AliasName))
		}
		if err := checkAliasTarget(t, actionCreateAlias, key, in.AliasName); err != nil {
			return nil, err
		}
		return &Alias{Name: in.AliasName, KeyID: key.ID, Created: now, Updated: now}, nil
	})
}

// UpdateAlias points an alias at another key.
func (s *Service) UpdateAlias(ctx context.Context, r *Request, in *UpdateAliasInput) (*Empty, error) {
	if err := checkAliasName(in.AliasName); err != nil {
		return nil, err
	}
	key, err := s.authorize(ctx, r, actionUpdateAlias, in.TargetKeyId)
	if err != nil {
		return nil, err
	}
	now := s.cfg.Clock().UTC()
	return s.changeAlias(ctx, r, in.AliasName, func(t *recorder, old *Alias) (*Alias, error) {
		if old == nil {
			return nil, aliasNotFound(aliasARN(r.Caller.Account, r.Region, in.AliasName))
		}
		if err := checkAliasTarget(t, actionUpdateAlias, key, in.AliasName); err != nil {
			return nil, err
		}
		return &Alias{Name: in.AliasName, KeyID: key.ID, Created: old.Created, Updated: now}, nil
	})
}

// DeleteAlias removes an alias. The key is not touched.
func (s *Service) DeleteAlias(ctx context.Context, r *Request, in *DeleteAliasInput) (*Empty, error) {
	if err := checkAliasName(in.AliasName); err != nil {
		return nil, err
	}
	if err := permitAccount(r, actionDeleteAlias.permission); err != nil {
		return nil, err
	}
	var key *Key
	out, err := s.changeAlias(ctx, r, in.AliasName, func(t *recorder, old *Alias) (_ *Alias, err error) {
		if old == nil {
			return nil, aliasNotFound(aliasARN(r.Caller.Account, r.Region, in.AliasName))
		}
		if key, err = t.key(r.Region, old.KeyID); err != nil || key == nil { // the alias of a key that is gone may go too
			return nil, err
		}
		return nil, s.judge(r, actionDeleteAlias, key)
	})
	if err == nil && key != nil {
		r.Keys = append(r.Keys, key.ARN())
	}
	return out, err
}

// changeAlias puts in the place of the caller's alias (nil if there is none) what f gives for it, nil for nothing, and
// keeps the index of each key's aliases in step.
func (s *Service) changeAlias(ctx context.Context, r *Request, name string, f func(t *recorder, old *Alias) (*Alias, error)) (*Empty, error) {
	record := aliasRecords(r.Caller.Account, r.Region) + name
	err := s.update(ctx, func(t *recorder) error {
		old, err := read[Alias](t, record)
		if err != nil {
			return err
		}
		alias, err := f(t, old)
		if err != nil {
			return err
		}
		if old != nil {
			if err := t.remove(keyAliases(r.Region, old.KeyID) + name); err != nil {
				return err
			}
		}
		if alias == nil {
			return t.remove(record)
		}
		if err := t.mark(keyAliases(r.Region, alias.KeyID) + name); err != nil {
			return err
		}
		return t.put(record, alias)
	})
	if err != nil {
		return nil, err
	}
	return &Empty{}, nil
}

// checkAliasTarget checks, inside the transaction, that the key may have the alias.
func checkAliasTarget(t *recorder, a action, key *Key, name string) error {
	now, err := t.key(key.Region, key.ID)
	if err != nil {
		return err
	}
	if now == nil {
		return notFound(key.ARN())
	}
	if err := a.states.check(now); err != nil {
		return err
	}
	others, prefix := 0, keyAliases(key.Region, key.ID)
	err = t.Scan(prefix, "", func(index string, _ []byte) bool {
		if index != prefix+name {
			others++
		}
		return true
	})
	if err == nil && others >= maxAliases {
		return Errorf(LimitExceeded, "The key %s has the maximum number of aliases, %d.", key.ARN(), maxAliases)
	}
	return err
}

// checkAliasName checks what the model's pattern does not say.
func checkAliasName(name string) error {
	rest, ok := strings.CutPrefix(name, aliasNamePrefix)
	switch {
	case !ok:
		return Errorf(Validation, "Alias must start with the prefix \"alias/\". Please see https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html")
	case rest == "" || strings.Contains(rest, ":"):
		return Errorf(InvalidAliasName, "%s is not a valid alias name.", name)
	case strings.HasPrefix(rest, "aws/"):
		return Errorf(InvalidAliasName, "The prefix alias/aws/ is reserved for AWS managed keys.")
	}
	return nil
}

// ListAliases lists the aliases of the caller's account in the Region, or of one of its keys, ordered by name, at most 100
// (50 if not said) a page.
func (s *Service) ListAliases(ctx context.Context, r *Request, in *ListAliasesInput) (*ListAliasesOutput, error) {
	if in.Limit != nil && *in.Limit > 100 {
		return nil, Errorf(Validation, "1 validation error detected: Value '%d' at 'limit' failed to satisfy constraint: Member must have value less than or equal to 100", *in.Limit)
	}
	if err := permitAccount(r, actionListAliases.permission); err != nil {
		return nil, err
	}
	prefix := aliasRecords(r.Caller.Account, r.Region)
	if in.KeyId != "" {
		key, err := s.authorize(ctx, r, actionListAliases, in.KeyId)
		if err != nil {
			return nil, err
		}
		prefix = keyAliases(r.Region, key.ID)
	}
	page, err := newPage(in.Limit, 50, in.Marker, prefix)
	if err != nil {
		return nil, err
	}
	names, err := s.scan(ctx, page)
	if err != nil {
		return nil, err
	}
	out := &ListAliasesOutput{NextMarker: page.next, Truncated: page.next != ""}
	out.Aliases, err = s.aliasEntries(ctx, r, names)
	return out, err
}

// aliasEntries reads the aliases of a page. One that was deleted meanwhile is left out.
func (s *Service) aliasEntries(ctx context.Context, r *Request, names []string) ([]AliasListEntry, error) {
	entries := make([]AliasListEntry, 0, len(names))
	err := s.cfg.Store.View(ctx, func(reader store.Reader) error {
		entries = entries[:0]
		for _, name := range names {
			alias, err := read[Alias](reader, aliasRecords(r.Caller.Account, r.Region)+name)
			if err != nil {
				return err
			}
			if alias == nil {
				continue
			}
			entries = append(entries, AliasListEntry{
				AliasArn: aliasARN(r.Caller.Account, r.Region, name), AliasName: name, TargetKeyId: alias.KeyID,
				CreationDate: &Timestamp{alias.Created}, LastUpdatedDate: &Timestamp{alias.Updated},
			})
		}
		return nil
	})
	return entries, err
}
