package iam

import (
	"encoding/base64"
	"strings"

	"hsmkms/store"
)

// usualPage is the length of a page for which MaxItems does not say.
const usualPage = 100

// page is one page of a listing in the order of names, no two of which are equal. A marker holds the listing and the last
// name of the page before, so that pages stay right while others add and remove entries.
type page struct {
	listing string
	after   string // the last name already listed
	limit   int
	next    string // the marker of the page after this one; empty at the end
}

// newPage reads Marker and MaxItems of a request for a listing.
func newPage(listing, marker string, maxItems *int32) (*page, error) {
	p := &page{listing: listing + "\n", limit: usualPage}
	if maxItems != nil {
		p.limit = int(*maxItems)
	}
	if marker == "" {
		return p, nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(marker)
	after, ok := strings.CutPrefix(string(raw), p.listing)
	if err != nil || !ok || after == "" {
		return nil, errorf(ValidationError, "Invalid Marker")
	}
	p.after = after
	return p, nil
}

// end sets the marker of the next page, if there is one, behind the name that is the last of this one.
func (p *page) end(name string) {
	p.next = base64.RawURLEncoding.EncodeToString([]byte(p.listing + name))
}

// cut gives the entries of the page, out of all entries in the order of their names.
func cut[E any](p *page, all []E, name func(E) string) []E {
	first := 0
	for first < len(all) && p.after != "" && name(all[first]) <= p.after {
		first++
	}
	rest := all[first:]
	if len(rest) > p.limit {
		p.end(name(rest[p.limit-1]))
		rest = rest[:p.limit]
	}
	return rest
}

// scan reads a page of the records with a prefix, as get gives them under their names; those that it gives as nil are not
// listed.
func scan[E any](r store.Reader, p *page, prefix string, get func(name string, value []byte) (*E, error)) ([]E, error) {
	p.next = ""
	after := ""
	if p.after != "" {
		after = prefix + p.after
	}
	var list []E
	last := ""
	var failed error
	err := r.Scan(prefix, after, func(key string, value []byte) bool {
		name := strings.TrimPrefix(key, prefix)
		var e *E
		if e, failed = get(name, value); failed != nil {
			return false
		}
		if e == nil {
			return true
		}
		if len(list) == p.limit {
			p.end(last)
			return false
		}
		list, last = append(list, *e), name
		return true
	})
	if failed != nil {
		err = failed
	}
	return list, err
}

func identical(name string) string { return name }
