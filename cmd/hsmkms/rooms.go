package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"hsmkms/hsm"
	"hsmkms/hsm/pkcs11"
	"hsmkms/store"
	"hsmkms/store/bolt"
)

// rooms are the opened store and tokens of a configuration.
type rooms struct {
	store  *bolt.Store
	module *pkcs11.Module
	tokens map[string]hsm.Token     // by Region
	pkcs11 map[string]*pkcs11.Token // the same
}

// observer is told of calls into the PKCS#11 module.
type observer func(function string, class hsm.Class, took time.Duration)

// openModule loads the module with its environment.
func openModule(cfg *config, observe observer, log *slog.Logger) (*pkcs11.Module, error) {
	if err := cfg.Module.setEnvironment(); err != nil {
		return nil, err
	}
	return pkcs11.OpenModule(pkcs11.ModuleConfig{Path: cfg.Module.Path, Observe: observe, Log: log})
}

// setEnvironment sets the module's variables in this process.
func (m moduleConfig) setEnvironment() error {
	for name, value := range m.Environment {
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("setting %s for the module: %w", name, err)
		}
	}
	return nil
}

// openRooms opens the store, the module and the tokens of all Regions. The caller closes them. The store comes first,
// because it lets in one process at a time. prepare, if set, is called before the tokens are opened.
func openRooms(ctx context.Context, cfg *config, observe observer, log *slog.Logger, prepare func(*rooms) error) (_ *rooms, err error) {
	r := &rooms{tokens: map[string]hsm.Token{}, pkcs11: map[string]*pkcs11.Token{}}
	if r.store, err = bolt.Open(bolt.Config{Path: cfg.Store.Path}); err != nil {
		return nil, err
	}
	if r.module, err = openModule(cfg, observe, log); err != nil {
		return nil, joinClose(err, r.store.Close)
	}
	if prepare != nil {
		err = prepare(r)
	}
	for name, region := range cfg.Regions {
		if err != nil {
			break
		}
		err = r.openToken(ctx, name, region, log)
	}
	if err != nil {
		return nil, joinClose(err, r.close)
	}
	return r, nil
}

// openToken looks at what a Region's token truly does, refuses a profile that does not fit, and opens the token.
func (r *rooms) openToken(ctx context.Context, name string, region regionConfig, log *slog.Logger) error {
	cfg, err := region.tokenConfig()
	if err != nil {
		return err
	}
	found, err := r.module.Probe(ctx, cfg, pkcs11.ProbeAES)
	if err != nil {
		return fmt.Errorf("region %s: %w", name, err)
	}
	log.Info("probed token", "region", name, "label", found.Token.Label, "serial", found.Token.Serial, "ivMode", found.GCM.IV,
		"maxPlaintext", found.GCM.MaxPlaintext, "wraps", found.Wraps)
	if found.GCM.IV != cfg.Profile.IV {
		return fmt.Errorf("region %s: the token's IV mode is %q, that of profile %q is %q", name, found.GCM.IV, cfg.Profile.Name, cfg.Profile.IV)
	}
	token, err := r.module.OpenToken(cfg)
	if err != nil {
		return fmt.Errorf("region %s: %w", name, err)
	}
	r.tokens[name], r.pkcs11[name] = token, token
	return nil
}

// close closes the tokens and the module, and then lets go of the store.
func (r *rooms) close() error { return joinClose(r.module.Close(), r.store.Close) }

// ready gives the checks for /readyz.
func (r *rooms) ready() map[string]func(context.Context) error {
	checks := map[string]func(context.Context) error{"store": r.checkStore}
	for region, token := range r.tokens {
		checks["token "+region] = token.Check
	}
	return checks
}

// checkStore reads from the store.
func (r *rooms) checkStore(ctx context.Context) error {
	return r.store.View(ctx, func(reader store.Reader) error {
		_, _, err := reader.Get("system/vault")
		return err
	})
}

// joinClose closes something and adds its error to one that came before.
func joinClose(err error, closeIt func() error) error { return errors.Join(err, closeIt()) }
