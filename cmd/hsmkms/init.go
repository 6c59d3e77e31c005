package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"hsmkms/hsm/pkcs11"
	"hsmkms/iam"
	"hsmkms/kms"
)

func initCommand() *cobra.Command {
	var file, account, credentials string
	var newToken bool
	cmd := &cobra.Command{
		Use:   "init --config FILE",
		Short: "Make the service's own keys on the tokens and an account with a root access key",
		Long: `Make what a configuration needs before it can be served: with --new-token the tokens themselves (for development with
SoftHSM), the service's own keys on them, and an account whose root access key is written to a file. What is there
already stays as it is.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(file)
			if err != nil {
				return err
			}
			prepare := func(*rooms) error { return nil }
			if newToken {
				prepare = func(r *rooms) error { return makeTokens(cmd.Context(), cfg, r) }
			}
			return initialize(cmd.Context(), cfg, prepare, account, credentials)
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file")
	cmd.Flags().StringVar(&account, "account", "", "account to make, 12 digits")
	cmd.Flags().StringVar(&credentials, "credentials-file", "", "where to write the account's root access key, as an AWS credentials file")
	cmd.Flags().BoolVar(&newToken, "new-token", false, "initialise tokens that do not exist, with the PINs in pin_file and so_pin_file")
	_ = cmd.MarkFlagRequired("config") // fails only for a flag that does not exist
	cmd.MarkFlagsRequiredTogether("account", "credentials-file")
	return cmd
}

// makeTokens initialises the tokens of the configuration that the module does not have, or not ready for a login. It makes
// none where the store has keys already: their token is lost or out of reach, and an empty one would hide that.
func makeTokens(ctx context.Context, cfg *config, r *rooms) error {
	tokens, err := r.module.Tokens()
	if err != nil {
		return err
	}
	ready := map[string]bool{}
	for _, token := range tokens { // beside a token there may be remainders with its label, see pkcs11.Module.InitToken
		ready[token.Label] = ready[token.Label] || token.Initialized && token.PINSet
	}
	for name, region := range cfg.Regions {
		if ready[region.TokenLabel] {
			continue
		}
		used, err := kms.InUse(ctx, r.store, name)
		if err == nil && used {
			err = fmt.Errorf("the store has keys on token %q, which the module does not show", region.TokenLabel)
		}
		if err == nil {
			err = region.makeToken(r.module)
		}
		if err != nil {
			return fmt.Errorf("making the token of Region %s: %w", name, err)
		}
	}
	return nil
}

func (r regionConfig) makeToken(module *pkcs11.Module) error {
	soPIN, err := readSecret(r.SOPINFile)
	if err != nil {
		return fmt.Errorf("reading SO PIN: %w", err)
	}
	defer clear(soPIN)
	pin, err := readSecret(r.PINFile)
	if err != nil {
		return fmt.Errorf("reading PIN: %w", err)
	}
	defer clear(pin)
	return module.InitToken(r.TokenLabel, soPIN, pin)
}

// initialize makes the service's own keys and the account.
func initialize(ctx context.Context, cfg *config, prepare func(*rooms) error, account, credentials string) (err error) {
	rooms, err := openRooms(ctx, cfg, nil, slog.New(slog.DiscardHandler), prepare)
	if err != nil {
		return err
	}
	defer func() { err = joinClose(err, rooms.close) }()
	if cfg.Dev != nil { // what a killed server left behind would make a client believe that it still runs
		if err := cfg.Dev.retract(); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Regions)) {
		if err := kms.InitVault(ctx, rooms.store, name, rooms.tokens[name]); err != nil {
			return err
		}
		if err := kms.InitAudit(ctx, rooms.store, name, rooms.tokens[name]); err != nil {
			return err
		}
		if cfg.Regions[name].Home != homeWrapped {
			continue
		}
		if err := kms.InitDomain(ctx, rooms.store, name, rooms.tokens[name]); err != nil {
			return err
		}
	}
	if account == "" {
		return nil
	}
	vault, err := kms.OpenVault(ctx, rooms.store, rooms.tokens)
	if err != nil {
		return err
	}
	identities, err := iam.New(iam.Config{Store: rooms.store, Vault: vault})
	if err != nil {
		return err
	}
	return makeAccount(ctx, identities, account, credentials)
}

// makeAccount makes the account, unless it exists, and writes its root access key, which is never seen again. The key is
// on disk, in a file beside credentials, before the account is; a process that dies in between loses nothing. A file with
// the key of another account is never overwritten.
func makeAccount(ctx context.Context, identities *iam.Service, account, credentials string) error {
	pending := credentials + ".new"
	for _, file := range []string{credentials, pending} {
		owner, err := ownerOf(ctx, identities, file)
		if err != nil {
			return err
		}
		switch {
		case owner == "":
			continue
		case owner != account:
			return fmt.Errorf("%s holds the access key of account %s: move it away first", file, owner)
		case file == pending: // left by a run that died
			return publish(pending, credentials)
		}
		return nil
	}
	err := identities.CreateAccount(ctx, account, func(key iam.RootKey) error {
		return writeCredentials(pending, key)
	})
	if errors.Is(err, iam.ErrAccountExists) {
		return fmt.Errorf("account %s exists, but %s does not hold its access key", account, credentials)
	}
	if err != nil {
		return err
	}
	return publish(pending, credentials)
}

// ownerOf gives the account whose access key a credentials file holds; "" if there is none, or no account has the key.
func ownerOf(ctx context.Context, identities *iam.Service, file string) (account string, err error) {
	id, _, err := readCredentials(file)
	if err != nil {
		return "", nil //nolint:nilerr // there is no file, or not a whole one, and so no account was made with it
	}
	identity, found, err := identities.Identity(ctx, id)
	if err != nil || !found {
		return "", err
	}
	return identity.Caller.Account, nil
}

// publish gives the file with a new access key its name, unless there is a file of that name.
func publish(pending, credentials string) error {
	if err := os.Link(pending, credentials); err != nil {
		return fmt.Errorf("the access key is in %s: %w", pending, err)
	}
	if err := os.Remove(pending); err != nil {
		return err
	}
	return syncFolder(credentials)
}
