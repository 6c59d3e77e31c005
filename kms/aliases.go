package kms

import (
	"context"
	"errors"
	"slices"
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
	key, err := s.aliasTarget(ctx, r, actionCreateAlias, in.AliasName, in.TargetKeyId)
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

// aliasTarget decides whether the caller may do an action with an alias and with the key that it shall point at, and gives the key.
func (s *Service) aliasTarget(ctx context.Context, r *Request, a action, name, keyID string) (*Key, error) {
	if err := checkAliasName(name); err != nil {
		return nil, err
	}
	if err := s.authorizeAlone(r, a.permission, aliasARN(r.Caller.Account, r.Region, name), asked{}); err != nil {
		return nil, err
	}
	return s.authorize(ctx, r, a, keyID, asked{})
}

// UpdateAlias points an alias at another key, which must be of the same type and for the same usage: code that uses the alias
// goes on working. The caller needs the permission for the key that it pointed at, too.
func (s *Service) UpdateAlias(ctx context.Context, r *Request, in *UpdateAliasInput) (*Empty, error) {
	key, err := s.aliasTarget(ctx, r, actionUpdateAlias, in.AliasName, in.TargetKeyId)
	if err != nil {
		return nil, err
	}
	return s.changeOwnAlias(ctx, r, actionUpdateAlias, in.AliasName, func(t *recorder, old *Alias) (*Alias, error) {
		if err := checkAliasTarget(t, actionUpdateAlias, key, in.AliasName); err != nil {
			return nil, err
		}
		if err := checkAliasMove(t, old, key); err != nil {
			return nil, err
		}
		return &Alias{Name: in.AliasName, KeyID: key.ID, Created: old.Created, Updated: s.cfg.Clock().UTC()}, nil
	})
}

// DeleteAlias removes an alias. The key is not touched, but the caller needs the permission for it, too.
func (s *Service) DeleteAlias(ctx context.Context, r *Request, in *DeleteAliasInput) (*Empty, error) {
	if err := checkAliasName(in.AliasName); err != nil {
		return nil, err
	}
	if err := s.authorizeAlone(r, actionDeleteAlias.permission, aliasARN(r.Caller.Account, r.Region, in.AliasName), asked{}); err != nil {
		return nil, err
	}
	return s.changeOwnAlias(ctx, r, actionDeleteAlias, in.AliasName, func(*recorder, *Alias) (*Alias, error) { return nil, nil })
}

// errMoved says that an alias points at another key than the one that was decided about.
var errMoved = errors.New("the alias points at another key now")

// changeOwnAlias is changeAlias for an alias that there is, if the caller may do the action with the key that it points at.
func (s *Service) changeOwnAlias(ctx context.Context, r *Request, a action, name string, f func(t *recorder, old *Alias) (*Alias, error)) (*Empty, error) {
	keys := r.Keys
	for {
		r.Keys = keys
		old, found, err := s.aliases.Get(ctx, aliasRecords(r.Caller.Account, r.Region)+name)
		if err != nil {
			return nil, err
		}
		if !found {
			return nil, aliasNotFound(aliasARN(r.Caller.Account, r.Region, name))
		}
		key, err := s.live(ctx, r.Region, old.KeyID)
		if err != nil {
			return nil, err
		}
		if key == nil { // the alias ends with its key, a moment later
			return nil, aliasNotFound(aliasARN(r.Caller.Account, r.Region, name))
		}
		if err := s.permit(ctx, r, a, key, judgement{asked: &asked{}}); err != nil {
			return nil, err
		}
		out, err := s.changeAlias(ctx, r, name, func(t *recorder, now *Alias) (*Alias, error) {
			if now == nil || now.KeyID != old.KeyID {
				return nil, errMoved
			}
			return f(t, now)
		})
		if !errors.Is(err, errMoved) || ctx.Err() != nil {
			return out, err
		}
		s.aliases.Forget(aliasRecords(r.Caller.Account, r.Region) + name)
		s.keys.Forget(keyRecord(key.Region, key.ID))
	}
}

// changeAlias puts in the place of the caller's alias (nil if there is none) what f gives for it, nil for nothing, and
// keeps the index of each key's aliases in step. The alias of a key that has ended is none, written or not.
func (s *Service) changeAlias(ctx context.Context, r *Request, name string, f func(t *recorder, old *Alias) (*Alias, error)) (*Empty, error) {
	record := aliasRecords(r.Caller.Account, r.Region) + name
	err := s.update(ctx, func(t *recorder) error {
		written, err := read[Alias](t, record)
		if err != nil {
			return err
		}
		old, err := t.inForce(r.Region, written)
		if err != nil {
			return err
		}
		alias, err := f(t, old)
		if err != nil {
			return err
		}
		if written != nil {
			if err := t.remove(keyAliases(r.Region, written.KeyID) + name); err != nil {
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

// aliasesOf gives the names of a key's aliases.
func (s *Service) aliasesOf(ctx context.Context, key *Key) ([]string, error) {
	prefix := keyAliases(key.Region, key.ID)
	entries, err := s.some(ctx, prefix, "", "", maxAliases)
	for i := range entries {
		entries[i] = strings.TrimPrefix(entries[i], prefix)
	}
	return entries, err
}

// inForce gives the alias if its key has not ended, and nil otherwise.
func (t *recorder) inForce(region string, alias *Alias) (*Alias, error) {
	if alias == nil {
		return nil, nil
	}
	key, err := t.key(region, alias.KeyID)
	if err != nil || key == nil {
		return nil, err
	}
	return alias, nil
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
	if err := s.authorizeAlone(r, actionListAliases.permission, "", asked{}); err != nil {
		return nil, err
	}
	prefix := aliasRecords(r.Caller.Account, r.Region)
	if in.KeyId != "" {
		key, err := s.ownKey(ctx, r, actionListAliases, in.KeyId)
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

// aliasEntries reads the aliases of a page. One that was deleted meanwhile, or whose key has ended, is left out.
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
	if err != nil {
		return nil, err
	}
	entries = slices.DeleteFunc(entries, func(entry AliasListEntry) bool {
		key, failed := s.live(ctx, r.Region, entry.TargetKeyId)
		err = errors.Join(err, failed)
		return key == nil
	})
	return entries, err
}

// checkAliasMove checks that an alias may leave its key, unless that is gone, for another one.
func checkAliasMove(t *recorder, alias *Alias, to *Key) error {
	from, err := t.key(to.Region, alias.KeyID)
	if err != nil || from == nil {
		return err
	}
	if from.symmetric() != to.symmetric() || from.Usage != to.Usage {
		return Errorf(Validation, "Alias %s cannot be updated from a key with KeySpec %s and KeyUsage %s to a key with KeySpec %s and KeyUsage %s.",
			alias.Name, from.Spec, from.Usage, to.Spec, to.Usage)
	}
	return nil
}
