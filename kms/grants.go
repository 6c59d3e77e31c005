package kms

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"hsmkms/policy"
	"hsmkms/store"
)

// GrantConstraints bind a grant to encryption contexts.
type GrantConstraints struct {
	EncryptionContextEquals map[string]string `json:",omitempty"`
	EncryptionContextSubset map[string]string `json:",omitempty"`
}

// CreateGrantInput is the input of CreateGrant.
type CreateGrantInput struct {
	Constraints       *GrantConstraints
	DryRun            bool
	GrantTokens       []string
	GranteePrincipal  string
	KeyId             string
	Name              string
	Operations        []string
	RetiringPrincipal string
}

// CreateGrantOutput is the output of CreateGrant.
type CreateGrantOutput struct {
	GrantId    string `json:",omitempty"`
	GrantToken string `json:",omitempty"`
}

// CreateGrant lets a principal use a key, from the next request on. A grant with the name and all parameters of one that there
// is already is that one.
func (s *Service) CreateGrant(ctx context.Context, r *Request, in *CreateGrantInput) (*CreateGrantOutput, error) {
	g, err := s.newGrant(r, in)
	if err != nil {
		return nil, err
	}
	key, err := s.authorize(ctx, r, actionCreateGrant, in.KeyId, asked{tokens: in.GrantTokens, newGrant: &g.Terms})
	if err != nil {
		return nil, err
	}
	if err := g.fits(key); err != nil {
		return nil, err
	}
	if err := usable(r, actionCreateGrant, key); err != nil {
		return nil, err
	}
	if err := s.bindGrant(ctx, g); err != nil { // now that the caller may make grants, and so learn who exists
		return nil, err
	}
	if in.DryRun {
		return nil, dryRun()
	}
	g.Region, g.Key, g.Account = key.Region, key.ID, key.Account
	id := g.Terms.ID
	token, err := s.sealGrantToken(ctx, g) // before the grant is in force, of which the caller must hear
	if err != nil {
		return nil, err
	}
	if err := s.storeGrant(ctx, r, g); err != nil {
		return nil, err
	}
	if g.Terms.ID != id { // it is one that there was already
		if token, err = s.sealGrantToken(ctx, g); err != nil {
			return nil, err
		}
	}
	return &CreateGrantOutput{GrantId: g.Terms.ID, GrantToken: token}, nil
}

// grantIDSize is how many random bytes a grant is known by. Its id has them in hex.
const grantIDSize = 32

// newGrant makes the grant that a request asks for, before its key is known.
func (s *Service) newGrant(r *Request, in *CreateGrantInput) (*Grant, error) {
	for _, principal := range []string{in.GranteePrincipal, in.RetiringPrincipal} {
		if principal != "" && !policy.IsPrincipal(principal) {
			return nil, invalidPrincipal(principal)
		}
	}
	if len(in.Operations) == 0 {
		return nil, Errorf(Validation, "1 validation error detected: Value '[]' at 'operations' failed to satisfy constraint: Member must have length greater than or equal to 1")
	}
	var id [grantIDSize]byte
	if _, err := io.ReadFull(s.cfg.Rand, id[:]); err != nil {
		return nil, fmt.Errorf("making grant id: %w", err)
	}
	g := &Grant{Created: s.cfg.Clock().UTC(), Terms: policy.Grant{
		ID: hex.EncodeToString(id[:]), Name: in.Name, IssuingAccount: r.Caller.Account, GranteePrincipal: in.GranteePrincipal,
		RetiringPrincipal: in.RetiringPrincipal,
	}}
	for _, operation := range in.Operations {
		if !slices.Contains(g.Terms.Operations, operation) {
			g.Terms.Operations = append(g.Terms.Operations, operation)
		}
	}
	if in.Constraints != nil {
		g.Terms.EncryptionContextEquals, g.Terms.EncryptionContextSubset = in.Constraints.EncryptionContextEquals, in.Constraints.EncryptionContextSubset
	}
	return g, g.checkConstraints()
}

// The limits of a constraint: pairs, and characters of all its keys and values.
const (
	maxConstraintPairs = 8
	maxConstraintSize  = 384
)

func (g *Grant) checkConstraints() error {
	for name, constraint := range map[string]map[string]string{
		"EncryptionContextEquals": g.Terms.EncryptionContextEquals, "EncryptionContextSubset": g.Terms.EncryptionContextSubset,
	} {
		size := 0
		for key, value := range constraint {
			size += utf8.RuneCountInString(key) + utf8.RuneCountInString(value)
		}
		if len(constraint) > maxConstraintPairs || size > maxConstraintSize {
			return Errorf(Validation, "The grant constraint %s may have %d pairs of %d characters in all.", name, maxConstraintPairs, maxConstraintSize)
		}
	}
	return nil
}

// fits checks that a key can do what the grant is for.
func (g *Grant) fits(key *Key) error {
	for _, operation := range g.Terms.Operations {
		if !grantable(key, operation) {
			return Errorf(Validation, "The operation %s is not valid for a grant for a KMS key of KeySpec %s and KeyUsage %s.", operation, key.Spec, key.Usage)
		}
	}
	if key.Spec != SymmetricDefault && len(g.Terms.EncryptionContextEquals)+len(g.Terms.EncryptionContextSubset) > 0 {
		return Errorf(Validation, "Grant constraints on the encryption context are not valid for a KMS key of KeySpec %s.", key.Spec)
	}
	return nil
}

// grantedOperations are the operations that a grant may be for, by what a key is for; symmetricOnly are for symmetric keys.
var (
	grantedOperations = map[KeyUsage][]string{
		EncryptDecrypt: {
			"Decrypt", "Encrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "GenerateDataKeyPair",
			"GenerateDataKeyPairWithoutPlaintext", "ReEncryptFrom", "ReEncryptTo", "GetPublicKey",
		},
		SignVerify:        {"Sign", "Verify", "GetPublicKey"},
		GenerateVerifyMac: {"GenerateMac", "VerifyMac"},
		KeyAgreement:      {"DeriveSharedSecret", "GetPublicKey"},
	}
	symmetricOnly = []string{"GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "GenerateDataKeyPair", "GenerateDataKeyPairWithoutPlaintext"}
	// alwaysGranted are for every key.
	alwaysGranted = []string{"CreateGrant", "DescribeKey", "RetireGrant"}
)

func grantable(key *Key, operation string) bool {
	symmetric := key.Spec == SymmetricDefault
	switch {
	case slices.Contains(alwaysGranted, operation):
		return true
	case symmetric && operation == "GetPublicKey", !symmetric && slices.Contains(symmetricOnly, operation):
		return false
	}
	return slices.Contains(grantedOperations[key.Usage], operation)
}

// storeGrant stores a grant, or finds the one that has its name and parameters, whose id it then takes.
func (s *Service) storeGrant(ctx context.Context, r *Request, g *Grant) error {
	id := g.Terms.ID
	return s.update(ctx, func(t *recorder) error {
		g.Terms.ID = id
		now, err := t.key(g.Region, g.Key)
		if err != nil {
			return err
		}
		if now == nil {
			return notFound(g.key().ARN())
		}
		if err := usable(r, actionCreateGrant, now); err != nil {
			return err
		}
		if g.Terms.Name != "" {
			earlier, found, err := t.Get(g.nameEntry())
			if err != nil {
				return err
			}
			if found {
				g.Terms.ID = string(earlier)
				return nil
			}
		}
		return t.putGrant(g)
	})
}

// GrantListEntry is a grant in a list.
type GrantListEntry struct {
	Constraints       *GrantConstraints `json:",omitempty"`
	CreationDate      *Timestamp        `json:",omitempty"`
	GrantId           string
	GranteePrincipal  string
	IssuingAccount    string
	KeyId             string
	Name              string `json:",omitempty"`
	Operations        []string
	RetiringPrincipal string `json:",omitempty"`
}

func (g *Grant) entry() GrantListEntry {
	t := &g.Terms
	entry := GrantListEntry{
		CreationDate: &Timestamp{g.Created}, GrantId: t.ID, GranteePrincipal: t.GranteePrincipal, IssuingAccount: rootARN(t.IssuingAccount),
		KeyId: g.key().ARN(), Name: t.Name, Operations: t.Operations, RetiringPrincipal: t.RetiringPrincipal,
	}
	if len(t.EncryptionContextEquals)+len(t.EncryptionContextSubset) > 0 {
		entry.Constraints = &GrantConstraints{t.EncryptionContextEquals, t.EncryptionContextSubset}
	}
	return entry
}

// ListGrantsInput is the input of ListGrants.
type ListGrantsInput struct {
	GrantId          string
	GranteePrincipal string
	KeyId            string
	Limit            *int32
	Marker           string
}

// ListGrantsOutput is the output of ListGrants and ListRetirableGrants.
type ListGrantsOutput struct {
	Grants     []GrantListEntry
	NextMarker string `json:",omitempty"`
	Truncated  bool
}

// ListRetirableGrantsInput is the input of ListRetirableGrants.
type ListRetirableGrantsInput struct {
	Limit             *int32
	Marker            string
	RetiringPrincipal string
}

// ListGrants lists the grants of a key, or those of them to a principal or with an id, ordered by id, at most 100 (50 if not
// said) a page.
func (s *Service) ListGrants(ctx context.Context, r *Request, in *ListGrantsInput) (*ListGrantsOutput, error) {
	key, err := s.authorize(ctx, r, actionListGrants, in.KeyId, asked{})
	if err != nil {
		return nil, err
	}
	prefix := grantsOf(key.Region, key.ID)
	grantee, err := s.subject(ctx, in.GranteePrincipal)
	if err != nil {
		return nil, err
	}
	if in.GranteePrincipal != "" {
		prefix = grantees(key.Region, key.ID, grantee)
	}
	page, err := grantPage(in.Limit, in.Marker, prefix)
	if err != nil {
		return nil, err
	}
	if in.GrantId != "" {
		if err := checkGrantID(in.GrantId); err != nil {
			return nil, err
		}
		g, err := s.grant(ctx, key.Region, key.ID, in.GrantId)
		if err != nil || g == nil || in.GranteePrincipal != "" && g.grantee() != grantee {
			return &ListGrantsOutput{Grants: []GrantListEntry{}}, err
		}
		entries, err := s.entries(ctx, []*Grant{g})
		return &ListGrantsOutput{Grants: entries}, err
	}
	return s.listGrants(ctx, page, func(id string, _ []byte) string { return grantsOf(key.Region, key.ID) + id })
}

// ListRetirableGrants lists the grants that a principal of the caller's account may retire, of keys of all accounts in the Region,
// ordered by id, at most 100 (50 if not said) a page.
func (s *Service) ListRetirableGrants(ctx context.Context, r *Request, in *ListRetirableGrantsInput) (*ListGrantsOutput, error) {
	if !policy.IsPrincipal(in.RetiringPrincipal) {
		return nil, invalidPrincipal(in.RetiringPrincipal)
	}
	if err := s.authorizeAlone(r, "ListRetirableGrants", "", asked{}); err != nil {
		return nil, err
	}
	if account := strings.Split(in.RetiringPrincipal, ":")[4]; account != r.Caller.Account { // what it may retire is its own account's matter
		c := &circumstances{r: r, asked: &asked{}}
		c.decide(action{permission: "ListRetirableGrants"}).Resource = in.RetiringPrincipal
		return nil, c.conclude(policy.Decision{Reason: policy.ResourceSilent})
	}
	retiring, err := s.subject(ctx, in.RetiringPrincipal)
	if err != nil {
		return nil, err
	}
	page, err := grantPage(in.Limit, in.Marker, retirables(r.Region, retiring))
	if err != nil {
		return nil, err
	}
	return s.listGrants(ctx, page, func(id string, key []byte) string { return grantsOf(r.Region, string(key)) + id })
}

func grantPage(limit *int32, marker, prefix string) (*page, error) {
	if limit != nil && *limit > 100 {
		return nil, Errorf(Validation, "1 validation error detected: Value '%d' at 'limit' failed to satisfy constraint: Member must have value less than or equal to 100", *limit)
	}
	return newPage(limit, 50, marker, prefix)
}

// listGrants reads a page of grants, of whose entries record gives the record.
func (s *Service) listGrants(ctx context.Context, p *page, record func(id string, value []byte) string) (*ListGrantsOutput, error) {
	var grants []*Grant
	err := s.cfg.Store.View(ctx, func(r store.Reader) error {
		grants, p.next = nil, ""
		var records []string
		if err := p.read(r, func(id string, value []byte) { records = append(records, record(id, value)) }); err != nil {
			return err
		}
		for _, record := range records {
			g, err := read[Grant](r, record)
			if err != nil {
				return err
			}
			if g != nil {
				grants = append(grants, g)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	entries, err := s.entries(ctx, grants)
	return &ListGrantsOutput{Grants: entries, NextMarker: p.next, Truncated: p.next != ""}, err
}

// grant reads a grant; nil if there is none.
func (s *Service) grant(ctx context.Context, region, key, id string) (g *Grant, err error) {
	if !isGrantID(id) { // it could name another record
		return nil, nil
	}
	err = s.cfg.Store.View(ctx, func(r store.Reader) (err error) {
		g, err = read[Grant](r, grantsOf(region, key)+id)
		return err
	})
	return g, err
}

// pair is an entry of a map.
type pair struct{ key, value string }

func sortedPairs(m map[string]string) []pair {
	pairs := make([]pair, 0, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		pairs = append(pairs, pair{key, m[key]})
	}
	return pairs
}

func sorted[T cmp.Ordered](list []T) []T { return slices.Sorted(slices.Values(list)) }
