package kms

import (
	"context"
	"slices"
)

// ListKeyRotationsInput is the input of ListKeyRotations.
type ListKeyRotationsInput struct {
	IncludeKeyMaterial string
	KeyId              string
	Limit              *int32
	Marker             string
}

// ListKeyRotationsOutput is the output of ListKeyRotations.
type ListKeyRotationsOutput struct {
	NextMarker string `json:",omitempty"`
	Rotations  []RotationsListEntry
	Truncated  bool
}

// RotationsListEntry is a key material in the list of a key's rotations. ExpirationModel, ImportState,
// KeyMaterialDescription and ValidTo are of imported material.
type RotationsListEntry struct {
	ExpirationModel        string       `json:",omitempty"`
	ImportState            string       `json:",omitempty"`
	KeyId                  string       `json:",omitempty"`
	KeyMaterialDescription string       `json:",omitempty"`
	KeyMaterialId          string       `json:",omitempty"`
	KeyMaterialState       string       `json:",omitempty"`
	RotationDate           *Timestamp   `json:",omitempty"`
	RotationType           RotationType `json:",omitempty"`
	ValidTo                *Timestamp   `json:",omitempty"`
}

// allKeyMaterial is the IncludeKeyMaterial that has the first material and a pending one listed too.
const allKeyMaterial = "ALL_KEY_MATERIAL"

// The states of key material, and whether imported material is there, in AWS's words.
const (
	materialCurrent    = "CURRENT"
	materialNonCurrent = "NON_CURRENT"
	materialPending    = "PENDING_ROTATION"
	materialImported   = "IMPORTED"
	materialAbsent     = "PENDING_IMPORT"
)

// ListKeyRotations lists the rotations of a key by the materials that they brought, oldest first, at most 1000 (100 if not
// said) a page.
func (s *Service) ListKeyRotations(ctx context.Context, r *Request, in *ListKeyRotationsInput) (*ListKeyRotationsOutput, error) {
	key, err := s.authorize(ctx, r, actionListKeyRotations, in.KeyId, asked{})
	if err != nil {
		return nil, err
	}
	if err := usable(r, actionListKeyRotations, key); err != nil {
		return nil, err
	}
	if err := rotatable(key); err != nil {
		return nil, err
	}
	page, err := newPage(in.Limit, 100, in.Marker, rotationList(key))
	if err != nil {
		return nil, err
	}
	materials, err := key.listed(page, in.IncludeKeyMaterial == allKeyMaterial)
	if err != nil {
		return nil, err
	}
	out := &ListKeyRotationsOutput{Rotations: make([]RotationsListEntry, 0, len(materials)), NextMarker: page.next, Truncated: page.next != ""}
	for _, m := range materials {
		out.Rotations = append(out.Rotations, key.rotationEntry(m))
	}
	return out, nil
}

// rotationList names the list in its markers.
func rotationList(key *Key) string { return "rotations/" + key.Region + "/" + key.ID + "/" }

// listed gives the materials of a page. What a marker names is never a material that goes away: only the last one can be
// pending, and nothing follows it.
func (k *Key) listed(p *page, all bool) ([]*Material, error) {
	first := 0
	if p.after != "" {
		first = 1 + slices.IndexFunc(k.Materials, func(m Material) bool { return m.ID == p.after })
		if first == 0 {
			return nil, invalidMarker()
		}
	}
	var found []*Material
	for i := first; i < len(k.Materials); i++ {
		m := &k.Materials[i]
		if !all && m.How == "" {
			continue
		}
		if len(found) == p.limit {
			p.next = listMarker(p.prefix, found[len(found)-1].ID)
			break
		}
		found = append(found, m)
	}
	return found, nil
}

func (k *Key) rotationEntry(m *Material) RotationsListEntry {
	entry := RotationsListEntry{KeyId: k.ARN(), KeyMaterialId: m.ID, KeyMaterialState: materialNonCurrent, RotationType: m.How}
	switch {
	case m.Pending:
		entry.KeyMaterialState = materialPending
	case m == k.current():
		entry.KeyMaterialState = materialCurrent
	}
	if !m.Rotated.IsZero() {
		entry.RotationDate = &Timestamp{m.Rotated}
	}
	if k.Origin != OriginExternal {
		return entry
	}
	entry.KeyMaterialDescription, entry.ImportState = m.Description, materialAbsent
	if m.present() {
		entry.ImportState = materialImported
		entry.ExpirationModel, entry.ValidTo = expiration(m.Expires)
	}
	return entry
}
