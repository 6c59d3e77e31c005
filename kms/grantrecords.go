package kms

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"hsmkms/policy"
	"hsmkms/store"
)

// The records of grants, in which <grantee> and the like stand for a digest of an ARN or of parameters:
//
//	grant/<region>/<key id>/<grant id>                 Grant
//	grantee/<region>/<key id>/<grantee>/<grant id>     nothing: the grants of a key to a principal, for decisions
//	retiring/<region>/<retiring>/<grant id>            the key id: the grants that a principal may retire, for listing
//	grant-name/<region>/<key id>/<name>                the grant id: a grant by its name and all its parameters
//	grant-count/<region>/<key id>                      grantCount
//
// A grant never changes. It goes when it is retired or revoked, or with its key.
const (
	grantPrefix      = "grant/"
	granteePrefix    = "grantee/"
	retiringPrefix   = "retiring/"
	grantNamePrefix  = "grant-name/"
	grantCountPrefix = "grant-count/"
)

// maxGrants is AWS's quota of grants for a key.
const maxGrants = 50_000

// grantRecords is how many records a transaction writes for a grant.
const grantRecords = 5

// Grant is the record of a grant.
type Grant struct {
	Region string `json:"region"`
	// Key is the id of the key, Account the one that it belongs to.
	Key     string       `json:"key"`
	Account string       `json:"account"`
	Created time.Time    `json:"created"`
	Terms   policy.Grant `json:"terms"`
}

// grantCount is how many grants a key has.
type grantCount struct {
	Grants int `json:"grants"`
}

func grantsOf(region, key string) string { return grantPrefix + region + "/" + key + "/" }

// grantees are the grants of a key to a principal.
func grantees(region, key, principal string) string {
	return granteePrefix + region + "/" + key + "/" + digest(principal) + "/"
}

// retirables are the grants that a principal may retire.
func retirables(region, principal string) string {
	return retiringPrefix + region + "/" + digest(principal) + "/"
}

func grantCounter(region, key string) string { return grantCountPrefix + region + "/" + key }

// digest makes a part of a record's key of texts of any length and form. No two lists of texts have the same.
func digest(texts ...string) string {
	h := sha256.New()
	for _, text := range texts {
		fmt.Fprintf(h, "%d:%s", len(text), text)
	}
	return hex.EncodeToString(h.Sum(nil)[:20])
}

func (g *Grant) record() string { return grantsOf(g.Region, g.Key) + g.Terms.ID }

func (g *Grant) key() *Key { return &Key{ID: g.Key, Account: g.Account, Region: g.Region} }

// nameEntry is the grant's entry by its name.
func (g *Grant) nameEntry() string {
	t := &g.Terms
	parts := []string{t.Name, t.GranteePrincipal, t.RetiringPrincipal, strings.Join(sorted(t.Operations), " ")}
	for _, constraint := range []map[string]string{t.EncryptionContextEquals, t.EncryptionContextSubset} {
		parts = append(parts, fmt.Sprint(len(constraint)))
		for _, pair := range sortedPairs(constraint) {
			parts = append(parts, pair.key, pair.value)
		}
	}
	return grantNamePrefix + g.Region + "/" + g.Key + "/" + digest(parts...)
}

// putGrant writes a grant with its entries.
func (t *recorder) putGrant(g *Grant) error {
	if err := t.countGrants(g.Region, g.Key, 1); err != nil {
		return err
	}
	if err := t.put(g.record(), g); err != nil {
		return err
	}
	if err := t.mark(grantees(g.Region, g.Key, g.Terms.GranteePrincipal) + g.Terms.ID); err != nil {
		return err
	}
	if p := g.Terms.RetiringPrincipal; p != "" {
		if err := t.write(retirables(g.Region, p)+g.Terms.ID, []byte(g.Key)); err != nil {
			return err
		}
	}
	if g.Terms.Name == "" {
		return nil
	}
	return t.write(g.nameEntry(), []byte(g.Terms.ID))
}

// removeGrant removes a grant with its entries. It is no error if there is none.
func (t *recorder) removeGrant(record string) error {
	g, err := read[Grant](t, record)
	if err != nil || g == nil {
		return err
	}
	if err := t.countGrants(g.Region, g.Key, -1); err != nil {
		return err
	}
	entries := []string{record, grantees(g.Region, g.Key, g.Terms.GranteePrincipal) + g.Terms.ID}
	if p := g.Terms.RetiringPrincipal; p != "" {
		entries = append(entries, retirables(g.Region, p)+g.Terms.ID)
	}
	if g.Terms.Name != "" {
		entries = append(entries, g.nameEntry())
	}
	for _, entry := range entries {
		if err := t.remove(entry); err != nil {
			return err
		}
	}
	return nil
}

// countGrants keeps count of a key's grants, and fails if there would be too many.
func (t *recorder) countGrants(region, key string, change int) error {
	count, err := read[grantCount](t, grantCounter(region, key))
	if err != nil {
		return err
	}
	if count == nil {
		count = &grantCount{}
	}
	count.Grants += change
	switch {
	case count.Grants > maxGrants:
		return Errorf(LimitExceeded, "The key has the maximum number of grants, %d.", maxGrants)
	case count.Grants <= 0:
		return t.remove(grantCounter(region, key))
	}
	return t.put(grantCounter(region, key), count)
}

// loadGrant reads the grant of an entry among those to a principal.
func loadGrant(r store.Reader, entry string, _ []byte) (*policy.Grant, error) {
	parts := strings.Split(strings.TrimPrefix(entry, granteePrefix), "/") // region, key, grantee, grant
	g, err := read[Grant](r, grantsOf(parts[0], parts[1])+parts[3])
	if err != nil {
		return nil, err
	}
	if g == nil {
		return nil, fmt.Errorf("the entry %s has no grant", entry)
	}
	return &g.Terms, nil
}

// grantsTo gives the grants of a key that may be for a caller: to the identity itself, to its role, or to its account; and those
// of its grant tokens.
func (s *Service) grantsTo(ctx context.Context, caller *policy.Caller, key *Key, granted []*Grant) ([]*policy.Grant, error) {
	var all []*policy.Grant
	for _, g := range granted {
		if g.Region == key.Region && g.Key == key.ID {
			all = append(all, &g.Terms)
		}
	}
	for _, principal := range []string{caller.ARN, caller.RoleARN, rootARN(caller.Account)} {
		if principal == "" {
			continue
		}
		grants, _, err := s.grants.Get(ctx, grantees(key.Region, key.ID, principal))
		if err != nil {
			return nil, err
		}
		all = append(all, grants...)
	}
	return all, nil
}

func rootARN(account string) string { return "arn:aws:iam::" + account + ":root" }

// removeGrants removes the grants of a deleted key.
func (s *Service) removeGrants(ctx context.Context, region, key string) error {
	for {
		records, err := s.some(ctx, grantsOf(region, key), "", "", store.MaxTxnKeys/grantRecords)
		if err != nil || len(records) == 0 {
			return err
		}
		err = s.update(ctx, func(t *recorder) error {
			for _, record := range records {
				if err := t.removeGrant(record); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}
