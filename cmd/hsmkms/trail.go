package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"hsmkms/api"
	"hsmkms/audit"
	"hsmkms/kms"
)

// closeTimeout bounds what is left to do for the audit trail at the end.
const closeTimeout = 15 * time.Second

// publicKeyFile is beside the files of a trail, for `hsmkms audit verify`.
const publicKeyFile = "public-key.pem"

// openTrail opens the audit trail that is configured; nil if none is.
func openTrail(ctx context.Context, cfg *config, rooms *rooms, metrics *api.Metrics, log *slog.Logger) (*audit.Trail, error) {
	if cfg.Audit == nil {
		log.Warn("no audit trail is configured")
		return nil, nil
	}
	settings, err := cfg.Audit.trailConfig()
	if err != nil {
		return nil, err
	}
	settings.Log, settings.Patience = log, cfg.RequestTimeout
	if settings.Signer, err = trailSigner(ctx, rooms); errors.Is(err, kms.ErrNotInitialized) {
		log.Warn("the audit trail is not signed: there is no key for it; `hsmkms init` makes one if the token can carry it")
	} else if err != nil {
		return nil, err
	}
	trail, err := audit.New(ctx, settings)
	if err != nil {
		return nil, fmt.Errorf("opening the audit trail: %w", err)
	}
	if settings.Dir != "" && settings.Signer.PublicKey != nil {
		text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: settings.Signer.PublicKey})
		if err := writeSecret(filepath.Join(settings.Dir, publicKeyFile), text); err != nil {
			return nil, joinClose(fmt.Errorf("writing the public key of the audit trail: %w", err), func() error { return closeTrail(ctx, trail) })
		}
	}
	trailMetrics(metrics, trail)
	return trail, nil
}

// trailSigner gives the signer of checkpoints.
func trailSigner(ctx context.Context, rooms *rooms) (audit.Signer, error) {
	signer, err := kms.AuditSigner(ctx, rooms.store, rooms.tokens)
	if err != nil {
		return audit.Signer{}, err
	}
	public, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		return audit.Signer{}, fmt.Errorf("writing the public key of the audit trail: %w", err)
	}
	sign := func(ctx context.Context, digest []byte) ([]byte, error) {
		return signer.SignDigest(ctx, digest, crypto.SHA256)
	}
	return audit.Signer{Sign: sign, PublicKey: public}, nil
}

// closeTrail ends the trail, after the last call.
func closeTrail(ctx context.Context, trail *audit.Trail) error {
	if trail == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	return trail.Close(ctx)
}

// trailMetrics shows where the trail stands.
func trailMetrics(metrics *api.Metrics, trail *audit.Trail) {
	metrics.Gauge("hsmkms_audit_sequence", "Number of the last record of the audit trail.", nil,
		func() float64 { return float64(trail.Status().Last.Sequence) })
	metrics.Gauge("hsmkms_audit_signed_sequence", "Number of the last record that a checkpoint vouches for.", nil,
		func() float64 { return float64(trail.Status().Signed.Sequence) })
	metrics.Gauge("hsmkms_audit_lost", "Calls that were not recorded since the start, with on_failure: continue.", nil,
		func() float64 { return float64(trail.Status().Lost) })
	metrics.Gauge("hsmkms_audit_failing", "1 while the audit trail can't be written.", nil, func() float64 {
		if trail.Status().Failure != nil {
			return 1
		}
		return 0
	})
}
