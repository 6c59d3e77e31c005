package kms

import (
	"context"
	"encoding/base64"
	"strings"

	"hsmkms/store"
)

// page is one page of a listing in the order of names, no two of which are equal: of an index of the store (see scan), or
// of entries of a record (see cut). A marker holds the last name of the page before, so that pages stay right while
// others add and remove entries, and the prefix, which tells this listing from all others.
type page struct {
	prefix string
	after  string // the last name already listed
	limit  int
	next   string // the marker of the page after this one; empty at the end
}

// newPage reads Limit and Marker of a request. The prefix ends with a slash.
func newPage(limit *int32, usual int, marker, prefix string) (*page, error) {
	after, err := readMarker(prefix, marker)
	if err != nil {
		return nil, err
	}
	p := &page{prefix: prefix, after: after, limit: usual}
	if limit != nil {
		p.limit = int(*limit)
	}
	return p, nil
}

// listMarker makes the marker of the page that follows the one that ends with name.
func listMarker(prefix, name string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(prefix + name))
}

// readMarker gives the name in a marker of the listing with this prefix, "" for the first page. It fails for what listMarker
// has not made for that listing.
func readMarker(prefix, marker string) (name string, err error) {
	if marker == "" {
		return "", nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(marker)
	name, ok := strings.CutPrefix(string(raw), prefix)
	// The decoder lets line ends and stray bits pass, which listMarker never makes.
	if err != nil || !ok || name == "" || listMarker(prefix, name) != marker {
		return "", invalidMarker()
	}
	return name, nil
}

func invalidMarker() error { return Errorf(InvalidMarker, "The marker is not valid.") }

// cut gives the entries of the page, out of all entries in the order of their names, and sets the marker of the next page.
func cut[E any](p *page, all []E, name func(E) string) []E {
	first := 0
	for first < len(all) && p.after != "" && name(all[first]) <= p.after {
		first++
	}
	rest := all[first:]
	if len(rest) <= p.limit {
		return rest
	}
	p.next = listMarker(p.prefix, name(rest[p.limit-1]))
	return rest[:p.limit]
}

// scan reads the names of a page, without the prefix, and sets the marker of the next.
func (s *Service) scan(ctx context.Context, p *page) (names []string, err error) {
	err = s.cfg.Store.View(ctx, func(r store.Reader) error {
		names, err = p.scan(r)
		return err
	})
	return names, err
}

func (p *page) scan(r store.Reader) ([]string, error) {
	var names []string
	err := p.read(r, func(name string, _ []byte) {
		names = append(names, name)
	})
	return names, err
}

// read calls f with the entries of the page, and sets the marker of the next.
func (p *page) read(r store.Reader, f func(name string, value []byte)) error {
	n, last, after := 0, "", ""
	if p.after != "" {
		after = p.prefix + p.after
	}
	p.next = ""
	return r.Scan(p.prefix, after, func(key string, value []byte) bool {
		if n == p.limit {
			p.next = listMarker(p.prefix, last)
			return false
		}
		n, last = n+1, strings.TrimPrefix(key, p.prefix)
		f(last, value)
		return true
	})
}
