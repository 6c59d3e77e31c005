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
			if newToken {
				if err := makeTokens(cfg); err != nil {
					return err
				}
			}
			return initialize(cmd.Context(), cfg, account, credentials)
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

// makeTokens initialises the tokens of the configuration that the module does not have.
func makeTokens(cfg *config) (err error) {
	module, err := openModule(cfg, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() { err = joinClose(err, module.Close) }()
	tokens, err := module.Tokens()
	if err != nil {
		return err
	}
	have := map[string]bool{}
	for _, token := range tokens {
		have[token.Label] = token.Initialized
	}
	for name, region := range cfg.Regions {
		if have[region.TokenLabel] {
			continue
		}
		if err := region.makeToken(module); err != nil {
			return fmt.Errorf("making the token of Region %s: %w", name, err)
		}
		have[region.TokenLabel] = true
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
func initialize(ctx context.Context, cfg *config, account, credentials string) (err error) {
	rooms, err := openRooms(ctx, cfg, nil, slog.New(slog.NewTextHandler(os.Stderr, nil)))
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
	identities, err := openIdentities(ctx, rooms)
	if err != nil {
		return err
	}
	return makeAccount(ctx, identities, account, credentials)
}

// makeAccount makes the account, unless it exists, and writes its root access key, which is never seen again.
func makeAccount(ctx context.Context, identities *iam.Service, account, credentials string) error {
	// Shows that the file can be written, before a secret exists that could be lost.
	if err := writeSecret(credentials+".new", nil); err != nil {
		return fmt.Errorf("writing credentials: %w", err)
	}
	defer os.Remove(credentials + ".new")
	key, err := identities.CreateAccount(ctx, account)
	if errors.Is(err, iam.ErrAccountExists) {
		return nil
	}
	if err != nil {
		return err
	}
	defer clear(key.Secret)
	text := append([]byte("[default]\naws_access_key_id = "+key.ID+"\naws_secret_access_key = "), key.Secret...)
	defer clear(text)
	if err := writeSecret(credentials, append(text, '\n')); err != nil {
		return fmt.Errorf("writing credentials: %w", err)
	}
	return nil
}
