package kms

import (
	"context"
	"encoding/base64"
	"strings"

	"hsmkms/store"
)

// page is one page of a listing of an index of the store: the records below prefix, in order. A marker holds the last
// name of the page before, so that pages stay right while others add and remove records.
type page struct {
	prefix string
	after  string // the last name already listed, below prefix
	limit  int
	next   string // the marker of the page after this one; empty at the end
}

// newPage reads Limit and Marker of a request.
func newPage(limit *int32, usual int, marker, prefix string) (*page, error) {
	p := &page{prefix: prefix, limit: usual}
	if limit != nil {
		p.limit = int(*limit)
	}
	if marker == "" {
		return p, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(marker)
	after, ok := strings.CutPrefix(string(raw), prefix)
	// The decoder lets line ends and stray bits pass, which scan never makes.
	if err != nil || !ok || after == "" || base64.RawURLEncoding.EncodeToString(raw) != marker {
		return nil, Errorf(InvalidMarker, "The marker is not valid.")
	}
	p.after = after
	return p, nil
}

// scan reads the names of a page, without the prefix, and sets the marker of the next.
func (s *Service) scan(ctx context.Context, p *page) ([]string, error) {
	var names []string
	err := s.cfg.Store.View(ctx, func(r store.Reader) error {
		names, p.next = nil, ""
		after := ""
		if p.after != "" {
			after = p.prefix + p.after
		}
		return r.Scan(p.prefix, after, func(key string, _ []byte) bool {
			if len(names) == p.limit {
				p.next = base64.RawURLEncoding.EncodeToString([]byte(p.prefix + names[len(names)-1]))
				return false
			}
			names = append(names, strings.TrimPrefix(key, p.prefix))
			return true
		})
	})
	return names, err
}
