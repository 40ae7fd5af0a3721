package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"dreadlock/bench"
	"dreadlock/bench/faults"
)

// faultsCommand runs the fault suite.
type faultsCommand struct {
	Cases    []string `arg:"" optional:"" name:"case" help:"Cases to run, by the beginning of their names; by default all."`
	Long     bool     `help:"Run the long form: more of everything, at least ten million commands."`
	Fleet    bool     `help:"Run the cases of fleets instead: three daemons on three members of etcd. They do not need root."`
	Members  string   `type:"existingfile" placeholder:"FILE" help:"Program of the members, for --fleet. By default the program fleet next to this one, or one that is built from the checkout."`
	Seed     uint64   `placeholder:"N" help:"Begins the random numbers of --fleet, to have the same faults again. By default another one each time, which is printed."`
	Markdown bool     `help:"Print the table for a README."`
	Daemon   string   `type:"existingfile" placeholder:"FILE" help:"Program of the daemon. By default the one next to this program, or one that is built from the checkout."`
}

// Run runs the suite.
func (f *faultsCommand) Run(ctx context.Context, s *streams) error {
	options, peers, err := faultOptions(ctx, s, f.Daemon)
	defer peers.Close()
	if err != nil {
		return err
	}
	options.Long, options.Cases = f.Long, f.Cases
	options.Fleet, options.Members, options.Seed = f.Fleet, f.Members, f.Seed
	outcomes, err := faults.Run(ctx, options)
	if len(outcomes) > 0 {
		write := faults.Write
		if f.Markdown {
			write = faults.WriteMarkdown
		}
		if err := write(s.stdout, outcomes); err != nil {
			return err
		}
	}
	return err
}

// faultOptions returns what all runs with faults have in common. What was made for them must be closed.
func faultOptions(ctx context.Context, s *streams, program string) (faults.Options, *bench.Peers, error) {
	peers := &bench.Peers{Daemon: program}
	daemon, err := peers.Program(ctx)
	if err != nil {
		return faults.Options{}, peers, err
	}
	self, err := os.Executable()
	return faults.Options{Daemon: daemon, Progress: s.stderr, Client: []string{self, "relay"}}, peers, err
}

// relayCommand is the command of a client process of the fault suite.
type relayCommand struct {
	Path   string `arg:""`
	Daemon string `arg:""`
}

// Run carries bytes.
func (r *relayCommand) Run(s *streams) error { return faults.Relay(s.stdin, r.Path, r.Daemon) }

// betweenCommand stands between the two processes of a takeover, in the fault suite.
type betweenCommand struct {
	Plan    string   `arg:""`
	Name    string   `arg:""`
	Program string   `arg:""`
	Args    []string `arg:"" optional:"" passthrough:""`
}

// Run starts the relay, and becomes the successor.
func (b *betweenCommand) Run() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := b.Args
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	return faults.Between([]string{self, "carry-takeover"}, b.Plan, b.Name, b.Program, args)
}

// carryCommand is the relay.
type carryCommand struct {
	Plan        string `arg:""`
	Predecessor string `arg:""`
	Successor   string `arg:""`
}

// Run carries the messages.
func (c *carryCommand) Run() error { return faults.CarryTakeover(c.Plan, c.Predecessor, c.Successor) }

// soakCommand runs everything mixed for a time.
type soakCommand struct {
	Time   time.Duration `default:"10m" placeholder:"TIME" help:"How long (${default})."`
	SVG    string        `name:"svg" placeholder:"FILE" help:"Draw memory, goroutines and descriptors over the time."`
	Daemon string        `type:"existingfile" placeholder:"FILE" help:"Program of the daemon. By default the one next to this program, or one that is built from the checkout."`
}

// Run soaks.
func (k *soakCommand) Run(ctx context.Context, s *streams) error {
	options, peers, err := faultOptions(ctx, s, k.Daemon)
	defer peers.Close()
	if err != nil {
		return err
	}
	soaked, err := faults.Soak(ctx, options, k.Time)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s.stdout, "%d rounds, %d commands checked, no violation; %s\n", soaked.Rounds, soaked.Commands, soaked.Measured); err != nil {
		return err
	}
	if k.SVG == "" {
		return nil
	}
	text, err := bench.DrawTrends(soaked.Trends)
	if err != nil {
		return err
	}
	return os.WriteFile(k.SVG, []byte(text), 0o644)
}
