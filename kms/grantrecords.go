package kms

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"hsmkms/policy"
	"hsmkms/store"
)

// The records of grants, in which <grantee> and the like stand for a digest of a unique id, of the ARN of an account's root, or of
// parameters:
//
//	grant/<region>/<key id>/<grant id>                 Grant
//	grantee/<region>/<key id>/<grantee>/<grant id>     nothing: the grants of a key to a principal, for listing
//	retiring/<region>/<retiring>/<grant id>            the key id: the grants that a principal may retire, for listing
//	grant-name/<region>/<key id>/<name>                the grant id: a grant by its name and all its parameters
//	grant-count/<region>/<key id>                      grantCount
//
// For decisions there is an index of its own, see grantindex.go. A grant never changes. It goes when it is retired or revoked, or with its key.
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
const grantRecords = 7

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
	var part []byte
	for _, text := range texts {
		part = append(strconv.AppendInt(part[:0], int64(len(text)), 10), ':')
		h.Write(append(part, text...))
	}
	return hex.EncodeToString(h.Sum(part[:0])[:20])
}

func (g *Grant) record() string { return grantsOf(g.Region, g.Key) + g.Terms.ID }

func (g *Grant) key() *Key { return &Key{ID: g.Key, Account: g.Account, Region: g.Region} }

// nameEntry is the grant's entry by its name.
func (g *Grant) nameEntry() string {
	t := &g.Terms
	parts := []string{t.Name, g.grantee(), g.retiring(), strings.Join(sorted(t.Operations), " ")}
	for _, constraint := range []map[string]string{t.EncryptionContextEquals, t.EncryptionContextSubset} {
		parts = append(parts, fmt.Sprint(len(constraint)))
		for _, pair := range sortedPairs(constraint) {
			parts = append(parts, pair.key, pair.value)
		}
	}
	return grantNamePrefix + g.Region + "/" + g.Key + "/" + digest(parts...)
}

// entries are the grant's entries in indexes, with their values.
func (g *Grant) entries() map[string]string {
	entries := map[string]string{grantees(g.Region, g.Key, g.grantee()) + g.Terms.ID: ""}
	for _, entry := range g.indexEntries() {
		entries[entry] = ""
	}
	if p := g.retiring(); p != "" {
		entries[retirables(g.Region, p)+g.Terms.ID] = g.Key
	}
	if g.Terms.Name != "" {
		entries[g.nameEntry()] = g.Terms.ID
	}
	return entries
}

// putGrant writes a grant with its entries.
func (t *recorder) putGrant(g *Grant) error {
	if err := t.countGrants(g.Region, g.Key, 1); err != nil {
		return err
	}
	if err := t.checkShapes(g); err != nil {
		return err
	}
	return t.writeGrant(g)
}

// writeGrant is putGrant for one that is counted already.
func (t *recorder) writeGrant(g *Grant) error {
	for entry, value := range g.entries() {
		if err := t.write(entry, []byte(value)); err != nil {
			return err
		}
	}
	return t.put(g.record(), g)
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
	for entry := range g.entries() {
		if err := t.remove(entry); err != nil {
			return err
		}
	}
	return t.remove(record)
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
