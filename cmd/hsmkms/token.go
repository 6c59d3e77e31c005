package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"hsmkms/hsm/pkcs11"
)

// tokenFlags say which token a command is about: that of a Region of a configuration, or any other.
type tokenFlags struct {
	config, region, output string
}

func tokenCommand() *cobra.Command {
	flags := &tokenFlags{}
	cmd := &cobra.Command{Use: "token", Short: "Look at tokens"}
	cmd.PersistentFlags().StringVar(&flags.config, "config", "", "configuration file")
	cmd.PersistentFlags().StringVar(&flags.region, "region", "", "Region of the token; not needed when there is only one")
	cmd.PersistentFlags().StringVarP(&flags.output, "output", "o", "text", "text or json")
	_ = cmd.MarkPersistentFlagRequired("config") // fails only for a flag that does not exist
	var duration time.Duration
	bench := flags.command("bench", "Measure operations on a throw-away key", func(ctx context.Context, cfg *config, m *pkcs11.Module) (any, error) {
		return flags.bench(ctx, cfg, m, duration)
	})
	bench.Flags().DurationVar(&duration, "duration", 2*time.Second, "how long to measure each operation")
	cmd.AddCommand(
		flags.command("list", "List the tokens that the module sees", func(_ context.Context, _ *config, m *pkcs11.Module) (any, error) { return m.Tokens() }),
		flags.command("show", "Probe a token with throw-away session keys and show what truly works", flags.show),
		bench)
	return cmd
}

// command makes a subcommand that loads the module, asks it something and prints the answer.
func (f *tokenFlags) command(name, short string, ask func(context.Context, *config, *pkcs11.Module) (any, error)) *cobra.Command {
	return &cobra.Command{
		Use: name, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if f.output != "text" && f.output != "json" {
				return fmt.Errorf("output is %q, not text or json", f.output)
			}
			cfg, err := loadConfig(f.config)
			if err != nil {
				return err
			}
			module, err := openModule(cfg, nil, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			defer func() { err = joinClose(err, module.Close) }()
			answer, err := ask(cmd.Context(), cfg, module)
			if err != nil {
				return err
			}
			return f.print(cmd.OutOrStdout(), answer)
		},
	}
}

// token gives the configuration of the token that was asked for.
func (f *tokenFlags) token(cfg *config) (pkcs11.TokenConfig, error) {
	name, err := chooseRegion(cfg.Regions, f.region)
	if err != nil {
		return pkcs11.TokenConfig{}, err
	}
	return cfg.Regions[name].tokenConfig()
}

func (f *tokenFlags) show(ctx context.Context, cfg *config, m *pkcs11.Module) (any, error) {
	token, err := f.token(cfg)
	if err != nil {
		return nil, err
	}
	return m.Probe(ctx, token, pkcs11.ProbeAll)
}

func (f *tokenFlags) bench(ctx context.Context, cfg *config, m *pkcs11.Module, each time.Duration) (any, error) {
	if each <= 0 || each > time.Hour {
		return nil, errors.New("duration must be positive and at most an hour")
	}
	tokenConfig, err := f.token(cfg)
	if err != nil {
		return nil, err
	}
	token, err := m.OpenToken(tokenConfig)
	if err != nil {
		return nil, err
	}
	return token.Measure(ctx, each, tokenConfig.Profile.Sessions)
}

func (f *tokenFlags) print(w io.Writer, answer any) error {
	if f.output == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(answer)
	}
	if capabilities, ok := answer.(*pkcs11.Capabilities); ok {
		return capabilities.WriteTable(w)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	switch a := answer.(type) {
	case []pkcs11.TokenInfo:
		printTokens(table, a)
	case []pkcs11.Measurement:
		printMeasurements(table, a)
	}
	return table.Flush()
}
