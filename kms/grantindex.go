package kms

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"hsmkms/policy"
	"hsmkms/store"
)

// A key can have 50,000 grants, all to one principal, each for an encryption context of its own. To find those that may be
// for a request without going through all of them, there is an index of them by what they need of an encryption context:
//
//	granted/<region>/<key id>/<grantee>/<shape>/<values>/<operations>/<grant id>    nothing
//
// <grantee> stands for the unique id of the principal (see Grant.grantee), <shape> for the kind of the constraint and the keys
// that are in it, <values> for these keys with their values, and <operations> for the operations. Of grants that differ in
// nothing but their ids and names, which come to the same place, one is enough for a decision. A decision knows the few shapes
// that a grantee's grants have, takes the values of their keys from the encryption context of the request, and looks there;
// what it finds is still to be decided about.
//
// A grant with a constraint can also be for DescribeKey, to which constraints do not apply. It then has a second entry,
// among the grants without one.
const grantedPrefix = "granted/"

// maxShapes bounds the shapes of the grants of a key to a principal. They have the names of keys of encryption contexts, of which
// an application has a few.
const maxShapes = 100

// shape is what constraints on the same keys of an encryption context have in common.
type shape struct {
	digest string
	// keys are those of the constraint, folded and sorted; none for grants without a constraint.
	keys []string
	// equals says that an encryption context must not have other keys.
	equals bool
}

func newShape(constraint map[string]string, equals bool) shape {
	p := shape{keys: slices.Sorted(maps.Keys(constraint)), equals: equals && len(constraint) > 0}
	p.digest = digest(append([]string{fmt.Sprint(p.equals)}, p.keys...)...)
	return p
}

// values gives the <values> that an encryption context, folded, has for the keys of the shape; false if it does not go with
// the shape.
func (p *shape) values(folded map[string]string) (string, bool) {
	if p.equals && len(folded) != len(p.keys) {
		return "", false
	}
	pairs := make([]string, 0, 2*len(p.keys))
	for _, key := range p.keys {
		value, ok := folded[key]
		if !ok {
			return "", false
		}
		pairs = append(pairs, key, value)
	}
	return digest(pairs...), true
}

// shape is that of the grant's constraint, folded. It is false if no encryption context meets both of them.
func (g *Grant) shape() (p shape, constraint map[string]string, possible bool) {
	equals, subset := policy.FoldContext(g.Terms.EncryptionContextEquals), policy.FoldContext(g.Terms.EncryptionContextSubset)
	if len(equals) == 0 {
		return newShape(subset, false), subset, true
	}
	for key, value := range subset {
		if v, ok := equals[key]; !ok || v != value {
			return shape{}, nil, false
		}
	}
	return newShape(equals, true), equals, true
}

// unconstrained are the operations of a grant that its constraints do not apply to, and that decisions ask it for.
var unconstrained = []string{"DescribeKey"}

// indexEntries are the grant's entries in the index, at most two.
func (g *Grant) indexEntries() (entries []string) {
	add := func(p shape, constraint map[string]string, operations []string) {
		values, _ := p.values(constraint)
		entries = append(entries, grantedTo(g.Region, g.Key, g.grantee())+p.digest+"/"+values+"/"+digest(sorted(operations)...)+"/"+g.Terms.ID)
	}
	p, constraint, possible := g.shape()
	if possible {
		add(p, constraint, g.Terms.Operations)
	}
	if len(p.keys) == 0 && possible {
		return entries
	}
	both := slices.DeleteFunc(slices.Clone(g.Terms.Operations), func(o string) bool { return !slices.Contains(unconstrained, o) })
	if len(both) > 0 {
		add(newShape(nil, false), nil, both)
	}
	return entries
}

// grantedTo is where the index has the grants of a key to a principal.
func grantedTo(region, key, principal string) string {
	return grantedPrefix + region + "/" + key + "/" + digest(principal) + "/"
}

// grantedParts are the parts of the index's keys.
const grantedParts = 8

// checkShapes fails if the grantee's grants would have too many shapes.
func (t *recorder) checkShapes(g *Grant) error {
	prefix, n, known := grantedTo(g.Region, g.Key, g.grantee()), 0, false
	p, _, _ := g.shape()
	err := distinct(t, prefix, func(entry string) error {
		n++
		known = known || strings.HasPrefix(entry, prefix+p.digest+"/")
		return nil
	})
	if err == nil && n >= maxShapes && !known {
		return Errorf(LimitExceeded, "The grants of a key to a principal may have constraints on %d different sets of keys of the encryption context.", maxShapes)
	}
	return err
}

// distinct calls f with the first entry of each part that comes next after a prefix. It does not read the others.
func distinct(r store.Reader, prefix string, f func(entry string) error) error {
	for after := ""; ; {
		entry := ""
		err := r.Scan(prefix, after, func(key string, _ []byte) bool { entry = key; return false })
		if err != nil || entry == "" {
			return err
		}
		if err := f(entry); err != nil {
			return err
		}
		part, _, _ := strings.Cut(entry[len(prefix):], "/")
		after = prefix + part + "0" // which follows the slash: behind all entries of the part
	}
}

// grantCaches makes the caches of the index: of the shapes below a grantee, and of the grants below values. Having no shapes
// is kept, too, but having no grants isn't: it comes from the encryption contexts of requests, of which there is no end.
func grantCaches(st store.Store, size int) (*store.Cache[[]shape], *store.Cache[[]*policy.Grant], error) {
	shapes, err := store.NewJoin(st, grantedPrefix, size, loadShapes, within(grantedParts-4))
	if err != nil {
		return nil, nil, err
	}
	grants, err := store.NewJoin(st, grantedPrefix, size, loadGrants, within(grantedParts-2))
	return shapes, grants, err
}

// within says that what is kept under the first n parts of an entry is stale when the entry changes.
func within(n int) func(changed string) (key string, all bool) {
	return func(changed string) (string, bool) {
		end := 0
		for range n {
			end += strings.IndexByte(changed[end:], '/') + 1
		}
		return changed[:end], false
	}
}

func loadShapes(r store.Reader, prefix string) ([]shape, bool, error) {
	var shapes []shape
	err := distinct(r, prefix, func(entry string) error {
		g, err := indexedGrant(r, entry)
		if err != nil {
			return err
		}
		p, _, _ := g.shape()
		if !strings.HasPrefix(entry, prefix+p.digest+"/") { // its second entry
			p = newShape(nil, false)
		}
		shapes = append(shapes, p)
		return nil
	})
	return shapes, true, err
}

func loadGrants(r store.Reader, prefix string) ([]*policy.Grant, bool, error) {
	var grants []*policy.Grant
	err := distinct(r, prefix, func(entry string) error {
		g, err := indexedGrant(r, entry)
		if err != nil {
			return err
		}
		grants = append(grants, &g.Terms)
		return nil
	})
	return grants, len(grants) > 0, err
}

// indexedGrant reads the grant of an entry of the index.
func indexedGrant(r store.Reader, entry string) (*Grant, error) {
	parts := strings.Split(entry, "/")
	if len(parts) != grantedParts {
		return nil, fmt.Errorf("the entry %s names no grant", entry)
	}
	g, err := read[Grant](r, grantsOf(parts[1], parts[2])+parts[grantedParts-1])
	if err == nil && g == nil {
		err = fmt.Errorf("the entry %s has no grant", entry)
	}
	return g, err
}

// grantsTo gives the grants of a key that may be for a request: to the identity itself, to its role, or to its account; and those
// of its grant tokens.
func (s *Service) grantsTo(ctx context.Context, request *policy.Request, key *Key, granted []*Grant) ([]*policy.Grant, error) {
	var all []*policy.Grant
	for _, g := range granted {
		if g.Region == key.Region && g.Key == key.ID {
			all = append(all, &g.Terms)
		}
	}
	for _, subject := range subjects(&request.Caller.Principal) {
		if subject == "" {
			continue
		}
		grants, err := s.grantsOf(ctx, request, grantedTo(key.Region, key.ID, subject))
		if err != nil {
			return nil, err
		}
		all = append(all, grants...)
	}
	return all, nil
}

// grantsOf gives the grants below a grantee in the index that may be for a request.
func (s *Service) grantsOf(ctx context.Context, request *policy.Request, grantee string) (all []*policy.Grant, err error) {
	shapes, _, err := s.shapes.Get(ctx, grantee)
	if err != nil || len(shapes) == 0 {
		return nil, err
	}
	contexts := []map[string]string{policy.FoldContext(request.EncryptionContext)}
	if g := request.NewGrant; g != nil { // the constraints of which are compared with those of the grant that allows it
		contexts = []map[string]string{policy.FoldContext(g.EncryptionContextEquals), policy.FoldContext(g.EncryptionContextSubset)}
	}
	var seen []string
	for i := range shapes {
		for _, folded := range contexts {
			values, ok := shapes[i].values(folded)
			if !ok || slices.Contains(seen, shapes[i].digest+values) {
				continue
			}
			seen = append(seen, shapes[i].digest+values)
			grants, _, err := s.grants.Get(ctx, grantee+shapes[i].digest+"/"+values+"/")
			if err != nil {
				return nil, err
			}
			all = append(all, grants...)
		}
	}
	return all, nil
}
