package main

import (
	"context"
	"os"

	"dreadlock/bench"
)

// compareCommand measures several servers in turns.
type compareCommand struct {
	Workload string   `arg:"" optional:"" default:"" help:"What to do: ${kinds}. Without it, all that the goals are about."`
	Peers    []string `default:"dreadlock,gnet,dreadlock:1,gnet:1,epoll:1,redis,memcached" placeholder:"SERVER,..." help:"Servers, as for run --on (${default}). Those that cannot do it are left out."`
	Rounds   int      `default:"5" placeholder:"N" help:"Rounds (${default}); the goals have their own."`
	Scale    float64  `default:"1" placeholder:"X" help:"Make the windows of the goals that much longer (${default})."`
	Rate     float64  `placeholder:"N" help:"Commands a second to offer in an open loop."`
	loadOptions
	outputOptions
}

// Run measures.
func (c *compareCommand) Run(ctx context.Context, s *streams) error {
	cases, err := c.cases()
	if err != nil {
		return err
	}
	peers := &bench.Peers{Daemon: c.Daemon}
	defer peers.Close()
	comparison, err := bench.Compare(ctx, peers, cases, c.options(s, bench.Runs(cases)))
	if err != nil {
		return err
	}
	comparison.Command = os.Args
	if c.Workload == "" {
		comparison.Goals = bench.CheckGoals(comparison)
	}
	if err := bench.WriteComparison(s.stdout, comparison); err != nil {
		return err
	}
	if err := bench.WriteGoals(s.stdout, comparison.Goals); err != nil {
		return err
	}
	return writeJSON(c.JSON, comparison)
}

// cases returns what to measure.
func (c *compareCommand) cases() ([]bench.Case, error) {
	if c.Workload == "" {
		return bench.Suite(c.Scale), nil
	}
	w, err := c.workload(c.Workload, c.Rate)
	if err != nil {
		return nil, err
	}
	one := bench.Case{Workload: w, Rounds: c.Rounds, Fresh: w.Kind == bench.Idle}
	for _, name := range c.Peers {
		peer, err := bench.ParsePeer(name)
		if err != nil {
			return nil, err
		}
		if peer.Dialect().Queues || !w.Kind.Queues() {
			one.Peers = append(one.Peers, peer)
		}
	}
	return []bench.Case{one}, nil
}
