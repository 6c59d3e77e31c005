// Command bench measures the server beside a floor. The server runs as its users run it: a process on loopback, with
// signatures, authorization, store, metrics and log. The floor is a bare net/http handler in another process that
// decodes the same requests, makes the same token calls on the same kind of session pool and encodes the answers, and
// does nothing else. A second floor also verifies signatures and records calls in an audit trail, which shows what these two
// cost by themselves. All are driven in turns, round by round, so that what else the machine does hits them alike; only
// the ratios, which are to the bare floor, mean much on a shared machine.
//
// `bench scale` compares a server that has a great many keys with one that has ten, in the same way.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

type options struct {
	round       time.Duration
	rounds      int
	connections int
	payload     int
	home        string
	sessions    int
	profile     string
	only        string
	sync        string
	keys        int
	checked     bool
}

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	command := bench
	args := os.Args[1:]
	if len(args) > 0 {
		switch args[0] {
		case "floor":
			command, args = serveFloor, args[1:]
		case "scale":
			command, args = scale, args[1:]
		}
	}
	if err := command(ctx, parse(args)); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

func parse(args []string) options {
	var o options
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	flags.DurationVar(&o.round, "round", 2*time.Second, "length of one round of one operation on one server")
	flags.IntVar(&o.rounds, "rounds", 5, "rounds of each operation on each server")
	flags.IntVar(&o.connections, "connections", 32, "connections that send requests without a pause")
	flags.IntVar(&o.payload, "payload", 64, "bytes of plaintext")
	flags.StringVar(&o.home, "home", "token", "home of the keys: token or wrapped")
	flags.IntVar(&o.sessions, "sessions", 0, "sessions on the token, for both; 0 is what the softhsm profile says")
	flags.IntVar(&o.keys, "keys", 100_000, "keys of the large server of `bench scale`")
	flags.StringVar(&o.only, "only", "", "only rows with this in their names")
	flags.StringVar(&o.sync, "sync", "1s", "when the audit trail of the server is on the disk: always, or a time")
	flags.BoolVar(&o.checked, "checked", false, "of `bench floor`: verify signatures and record calls")
	flags.StringVar(&o.profile, "cpuprofile", "", "write a CPU profile of the load generator to this file")
	_ = flags.Parse(args) // exits on failure
	return o
}

// bench prints the table and, beside it, what ReEncrypt costs when each record of the audit trail is on the disk before its
// answer: many connections share a flush.
func bench(ctx context.Context, o options) error {
	stopProfile, err := profile(o.profile)
	if err != nil {
		return err
	}
	defer stopProfile()
	if err := table(ctx, o, rows); err != nil {
		return err
	}
	if o.sync == durable {
		return nil
	}
	o.sync, o.connections = durable, 256
	fmt.Println()
	return table(ctx, o, rows[slices.IndexFunc(rows, func(r row) bool { return r.name == "ReEncrypt" }):][:1])
}

// durable is the -sync of a trail whose records are on the disk before they are acknowledged.
const durable = "always"

// table runs some rows on two servers of their own, and prints a line for each.
func table(ctx context.Context, o options, rows []row) error {
	rows = slices.DeleteFunc(slices.Clone(rows), func(r row) bool { return !strings.Contains(r.name, o.only) })
	if len(rows) == 0 {
		return nil
	}
	servers, err := start(ctx, o)
	if err != nil {
		return err
	}
	defer servers.stop()
	fmt.Printf("%d connections, %d rounds of %v each, %d bytes of plaintext, home %s, sync %s\n", o.connections, o.rounds, o.round, o.payload, o.home, o.sync)
	fmt.Printf("%-18s", "")
	for i, t := range servers.all() {
		fmt.Printf(" %34s", t.name)
		if i > 0 {
			fmt.Printf(" %-22s", "ratio (worst to best)")
		}
	}
	columns := fmt.Sprintf("%10s %7s %7s %7s", "op/s", "p50 us", "p99 us", "cpu us")
	fmt.Printf("\n%-18s %s %s %22s %s\n", "operation", columns, columns, "", columns)
	for _, r := range rows {
		line, err := servers.compare(ctx, r)
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		fmt.Println(line)
	}
	return nil
}
