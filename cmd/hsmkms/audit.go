package main

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"hsmkms/audit"
)

// The exit statuses of `audit verify`.
const (
	exitTampered   = 1
	exitUnreadable = 2
)

// exitError is an error with an exit status of its own.
type exitError struct {
	error
	status int
}

func (e exitError) Unwrap() error { return e.error }

// exitStatus is 1 for errors that do not say otherwise.
func exitStatus(err error) int {
	var e exitError
	if errors.As(err, &e) {
		return e.status
	}
	return 1
}

// unreadable marks errors that say nothing about the trail, so that nobody takes them for a verdict.
func unreadable(err error) error {
	if err == nil {
		return nil
	}
	return exitError{err, exitUnreadable}
}

func auditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "audit", Short: "Look at the audit trail",
		Args: func(cmd *cobra.Command, args []string) error { return unreadable(cobra.NoArgs(cmd, args)) },
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(auditVerifyCommand())
	return cmd
}

// verifyFlags say what a trail is held against.
type verifyFlags struct {
	publicKeys  []string
	checkpoints []string
	from        uint64
	expect      uint64
	json        bool
}

func auditVerifyCommand() *cobra.Command {
	flags := &verifyFlags{}
	cmd := &cobra.Command{
		Use:   "verify FILE... [--public-key FILE]",
		Short: "Find what was altered, removed, reordered or cut in an audit trail",
		Long: `Find what was altered, removed, reordered or cut in an audit trail. A directory stands for the files of the trail in it.
Exit status: 0 if the trail is as it was written, 1 if it is not, 2 if it could not be read.

What is cut off behind a checkpoint leaves a trail that is whole. To see that, keep the last signed record that is
printed here (sequence:hash) in another place, and give it to --checkpoint the next time.`,
		Args: func(cmd *cobra.Command, args []string) error { return unreadable(cobra.MinimumNArgs(1)(cmd, args)) },
		RunE: func(cmd *cobra.Command, paths []string) error { return flags.run(cmd, paths) },
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return unreadable(err) })
	cmd.Flags().StringArrayVar(&flags.publicKeys, "public-key", nil, "PEM file with the public key of the checkpoints, kept elsewhere; more than once if the key was replaced (default the one beside the trail)")
	cmd.Flags().StringArrayVar(&flags.checkpoints, "checkpoint", nil, "a record known from elsewhere, as sequence:hash; may be given more than once")
	cmd.Flags().Uint64Var(&flags.from, "from-sequence", 1, "the first record expected, if files before it were archived")
	cmd.Flags().Uint64Var(&flags.expect, "expect-sequence", 0, "a record that the trail must reach")
	cmd.Flags().BoolVar(&flags.json, "json", false, "print JSON")
	return cmd
}

func (f *verifyFlags) run(cmd *cobra.Command, paths []string) error {
	if len(f.publicKeys) == 0 && f.keyBeside(paths[0]) {
		fmt.Fprintf(cmd.ErrOrStderr(), "Verifying with %s, which whoever can forge the trail can replace: keep a copy elsewhere, and give it to --public-key.\n", f.publicKeys[0])
	}
	options, err := f.options()
	if err != nil {
		return unreadable(err)
	}
	report, err := audit.Verify(cmd.Context(), paths, options)
	if err != nil {
		return unreadable(fmt.Errorf("verifying audit trail: %w", err))
	}
	if err := f.print(cmd.OutOrStdout(), report); err != nil {
		return unreadable(err)
	}
	if len(report.Problems) > 0 {
		return exitError{errors.New("the audit trail is not as it was written"), exitTampered}
	}
	return nil
}

// keyBeside takes the public key that the server has put beside the trail, and tells whether there is one.
func (f *verifyFlags) keyBeside(path string) bool {
	dir := path
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		dir = filepath.Dir(path)
	}
	key := filepath.Join(dir, publicKeyFile)
	if _, err := os.Stat(key); err != nil {
		return false
	}
	f.publicKeys = []string{key}
	return true
}

func (f *verifyFlags) options() (audit.VerifyOptions, error) {
	options := audit.VerifyOptions{From: f.from, ExpectSequence: f.expect}
	if len(f.publicKeys) == 0 {
		return options, errors.New("--public-key is missing, and there is no " + publicKeyFile + " beside the trail: without it, nothing shows that a trail is not forged")
	}
	for _, path := range f.publicKeys {
		der, err := readPublicKey(path)
		if err != nil {
			return options, err
		}
		options.PublicKeys = append(options.PublicKeys, der)
	}
	for _, text := range f.checkpoints {
		position, err := audit.ParsePosition(text)
		if err != nil {
			return options, err
		}
		options.Positions = append(options.Positions, position)
	}
	return options, nil
}

// readPublicKey reads a PEM file with one public key (SubjectPublicKeyInfo).
func readPublicKey(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("%s holds no PEM block PUBLIC KEY", path)
	}
	return block.Bytes, nil
}

func (f *verifyFlags) print(w io.Writer, report *audit.Report) error {
	if f.json {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(report)
	}
	return printReport(w, report)
}

// printReport prints the first problem, all of them in order, and what else there is to know.
func printReport(w io.Writer, r *audit.Report) error {
	out := &errWriter{w: w}
	if len(r.Problems) > 0 {
		fmt.Fprintln(out, "TAMPERED or damaged; the first problem:", r.Problems[0])
		fmt.Fprintln(out)
	}
	for _, p := range r.Problems {
		fmt.Fprintln(out, "problem:", p)
	}
	for _, n := range r.Notes {
		fmt.Fprintln(out, "note:", n)
	}
	fmt.Fprintf(out, "trail %s: %d files, records %d to %d, %d of them calls, %d checkpoints, %d starts\n",
		r.Trail, r.Files, r.First, r.Last, r.Calls, r.Checkpoints, r.Starts)
	if r.Signed != "" {
		fmt.Fprintln(out, "last signed record, to keep elsewhere:", r.Signed)
	}
	if len(r.Problems) == 0 {
		fmt.Fprintln(out, "OK")
	}
	return out.err
}

// errWriter remembers the first error of many writes.
type errWriter struct {
	w   io.Writer
	err error
}

func (e *errWriter) Write(p []byte) (int, error) {
	if e.err != nil {
		return 0, e.err
	}
	n, err := e.w.Write(p)
	e.err = err
	return n, err
}
