package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"
)

func accountCommand() *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use:   "account",
		Short: "Manage accounts of a running server",
		Long: `Manage accounts of a running server, over its admin socket, which only the server's own user may open. The commands that
make a root access key print it as export lines for a shell; it is never shown again.`,
	}
	cmd.PersistentFlags().StringVar(&socket, "admin-socket", "", "the server's admin socket, admin_socket in its configuration")
	_ = cmd.MarkPersistentFlagRequired("admin-socket") // fails only for a flag that does not exist
	cmd.AddCommand(
		&cobra.Command{
			Use:   "create ID",
			Short: "Make an account, 12 digits, and print its root access key",
			Args:  cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return printRootKey(cmd, socket, "/accounts/"+url.PathEscape(args[0]))
			},
		},
		&cobra.Command{
			Use:   "list",
			Short: "Print the ids of all accounts",
			Args:  cobra.NoArgs,
			RunE:  func(cmd *cobra.Command, _ []string) error { return printAccounts(cmd, socket) },
		},
		&cobra.Command{
			Use:   "rotate-root ID",
			Short: "Print a new root access key of an account, in the place of those it had, which fail from now on",
			Args:  cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return printRootKey(cmd, socket, "/accounts/"+url.PathEscape(args[0])+"/root-key")
			},
		},
	)
	return cmd
}

// printRootKey asks for a root access key and prints export lines.
func printRootKey(cmd *cobra.Command, socket, path string) error {
	var key rootKey
	if err := askAdmin(context.WithoutCancel(cmd.Context()), socket, http.MethodPost, path, &key); err != nil {
		return err
	}
	defer clear(key.SecretAccessKey)
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "export AWS_ACCESS_KEY_ID=%s\nexport AWS_SECRET_ACCESS_KEY=%s\n", key.AccessKeyID, key.SecretAccessKey)
	return err
}

func printAccounts(cmd *cobra.Command, socket string) error {
	var ids []string
	if err := askAdmin(cmd.Context(), socket, http.MethodGet, "/accounts", &ids); err != nil {
		return err
	}
	for _, id := range ids {
		if _, err := fmt.Fprintln(cmd.OutOrStdout(), id); err != nil {
			return err
		}
	}
	return nil
}
