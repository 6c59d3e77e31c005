package kms

import (
	"context"
	"maps"
	"slices"

	"hsmkms/hsm"
)

// ImportReport tells the routes that imported material takes to a token.
type ImportReport struct {
	// Specs are the KeySpecs for which they are the same, in order.
	Specs  []KeySpec
	Routes map[hsm.ImportWrap]hsm.Route
}

// ReportImports has a token tried out for every KeySpec whose material can be imported.
func ReportImports(ctx context.Context, token hsm.Token) ([]ImportReport, error) {
	var reports []ImportReport
	for _, spec := range slices.Sorted(maps.Keys(importables)) {
		routes, err := token.ImportRoutes(ctx, specs[spec][0].kind)
		if err != nil {
			return nil, err
		}
		maps.DeleteFunc(routes, func(wrap hsm.ImportWrap, _ hsm.Route) bool { return !slices.Contains(importables[spec], wrap) })
		same := slices.IndexFunc(reports, func(r ImportReport) bool { return maps.Equal(r.Routes, routes) })
		if same < 0 {
			reports, same = append(reports, ImportReport{Routes: routes}), len(reports)
		}
		reports[same].Specs = append(reports[same].Specs, spec)
	}
	return reports, nil
}
