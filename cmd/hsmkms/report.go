package main

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"hsmkms/api"
	"hsmkms/hsm"
	"hsmkms/kms"
)

// trialRetry is how long to wait before a token that could not be tried out is tried again.
const trialRetry = 5 * time.Second

// reportTokens has every token tried out and tells what it can do: in which ways imported key material comes to it, and which
// keys it carries. One that is lost just now is tried again, for nobody must learn by chance that material or plaintexts pass
// through this process.
func reportTokens(ctx context.Context, rooms *rooms, log *slog.Logger) {
	var running sync.WaitGroup
	for region, token := range rooms.tokens {
		running.Go(func() {
			for _, report := range []func(context.Context, string, hsm.Token, *slog.Logger) bool{reportKeysOf, reportImportsOf} {
				for !report(ctx, region, token, log) {
					select {
					case <-ctx.Done():
						return
					case <-time.After(trialRetry):
					}
				}
			}
		})
	}
	running.Wait()
}

// reportKeysOf tells which keys one token carries, unless it fails.
func reportKeysOf(ctx context.Context, region string, token hsm.Token, log *slog.Logger) bool {
	var carried, absent, objects, seen []string
	for _, kind := range hsm.Kinds() {
		support, err := token.Support(ctx, kind)
		if err != nil {
			if ctx.Err() == nil {
				log.Error("trying out which keys the token carries", "region", region, "kind", kind, "error", err)
			}
			return false
		}
		if len(support.Algorithms) == 0 {
			absent = append(absent, string(kind))
			continue
		}
		carried = append(carried, string(kind))
		if !support.Wraps {
			objects = append(objects, string(kind))
		}
		for _, a := range slices.Sorted(maps.Keys(support.Algorithms)) {
			if support.Algorithms[a] == hsm.InProcess {
				seen = append(seen, string(kind)+" "+string(a))
			}
		}
	}
	log.Info("keys of the token", "region", region, "carried", carried, "absent", absent, "neverWrapped", objects)
	if len(seen) > 0 {
		log.Warn("the token cannot undo the padding of these: this process does it and sees the plaintext; strict_on_token refuses them",
			"region", region, "inProcess", seen)
	}
	return true
}

// reportImportsOf tells of one token, unless it fails.
func reportImportsOf(ctx context.Context, region string, token hsm.Token, log *slog.Logger) bool {
	reports, err := kms.ReportImports(ctx, token)
	if err != nil {
		if ctx.Err() == nil {
			log.Error("trying out how the token imports key material", "region", region, "error", err)
		}
		return false
	}
	for _, report := range reports {
		var unseen, seen []string
		for _, wrap := range slices.Sorted(maps.Keys(report.Routes)) {
			if report.Routes[wrap] == hsm.OnToken {
				unseen = append(unseen, string(wrap))
			} else {
				seen = append(seen, string(wrap))
			}
		}
		log.Info("importing key material", "region", region, "keySpecs", report.Specs, "onToken", unseen)
		if len(seen) > 0 {
			log.Warn("the token cannot unwrap key material that is imported in these ways: this process does it; strict_on_token refuses them",
				"region", region, "keySpecs", report.Specs, "inProcess", seen)
		}
	}
	return true
}

// takeStock reports, once, objects of the tokens without a record and records without an object.
func takeStock(ctx context.Context, cfg *config, service *kms.Service, metrics *api.Metrics, log *slog.Logger) {
	for region := range cfg.Regions {
		found, err := service.Stocktake(ctx, region)
		if err != nil {
			log.Error("comparing token and store", "region", region, "error", err)
			continue
		}
		for _, object := range found.Orphans {
			log.Warn("object on the token without a key, left by a crash, or being made by another server", "region", region, "id", object.ID, "label", object.Label)
		}
		for _, owner := range found.Missing {
			log.Error("key without its object on the token", "region", region, "key", owner)
		}
		metrics.Gauge("hsmkms_token_orphans", "Objects of the token without a key, at start.", map[string]string{"region": region},
			func() float64 { return float64(len(found.Orphans)) })
		metrics.Gauge("hsmkms_token_missing", "Keys without their object on the token, at start.", map[string]string{"region": region},
			func() float64 { return float64(len(found.Missing)) })
		log.Info("compared token and store", "region", region, "orphans", len(found.Orphans), "missing", len(found.Missing))
	}
}

// poolMetrics shows how busy the sessions of the tokens are.
func poolMetrics(metrics *api.Metrics, rooms *rooms) {
	for region, token := range rooms.pkcs11 {
		labels := map[string]string{"region": region}
		metrics.Gauge("hsmkms_token_sessions", "Open sessions for requests; 0 while the token is down.", labels,
			func() float64 { return float64(token.Usage().Sessions) })
		metrics.Gauge("hsmkms_token_sessions_busy", "Sessions with an operation under way.", labels,
			func() float64 { return float64(token.Usage().Busy) })
		metrics.Gauge("hsmkms_token_waiting", "Operations that wait for a session.", labels,
			func() float64 { return float64(token.Usage().Waiting) })
	}
}
