// Command hsmkms is a key management service that speaks the AWS KMS protocol and keeps every key in a PKCS#11 token.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the Makefile.
var version = "unknown"

func main() { os.Exit(run()) }

// run gives the exit status.
func run() int {
	signals := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as under nohup
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	defer stop()
	context.AfterFunc(ctx, stop)   // a second signal ends the process at once
	signal.Ignore(syscall.SIGXFSZ) // a limit on the size of files is a full disk, not a reason to die
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "hsmkms:", err)
		return exitStatus(err)
	}
	return 0
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "hsmkms",
		Short:         "A key management service: the AWS KMS protocol, with every key in a PKCS#11 token",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.AddCommand(serveCommand(), initCommand(), accountCommand(), tokenCommand(), tlsCommand(), auditCommand(), versionCommand())
	return cmd
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "hsmkms", version)
			return err
		},
	}
}
