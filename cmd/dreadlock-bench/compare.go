package main

import (
	"context"
	"fmt"
	"os"
	"slices"

	"dreadlock/bench"
)

// compareCommand measures several servers in turns.
type compareCommand struct {
	Workload string   `arg:"" optional:"" default:"" help:"Kind of load: ${kinds}. Without it, all loads that the goals are about."`
	Peers    []string `default:"dreadlock,gnet,dreadlock:1,gnet:1,epoll:1,redis,memcached" placeholder:"SERVER" help:"Servers, as for run --on (${default}). Those that cannot run the workload are left out."`
	Variant  []string `sep:"none" placeholder:"NAME=COMMAND" help:"Measure a variant of the daemon beside it: another program, more options, environment variables (old=/tmp/old/dreadlock, slow='--tick 50ms', procs=GOMAXPROCS=4). Its ratios are to the daemon. Can be repeated."`
	Rounds   int      `default:"5" placeholder:"N" help:"Number of rounds (${default}). The goals have their own."`
	Scale    float64  `default:"1" placeholder:"X" help:"Multiply the length of the windows by this (${default}). For the goals only."`
	loadOptions
	outputOptions
}

// Run measures.
func (c *compareCommand) Run(ctx context.Context, s *streams) error {
	cases, err := c.cases()
	if err != nil {
		return err
	}
	if err := c.prepare(); err != nil {
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
	if c.Workload == "" {
		if err := bench.WriteScale(s.stdout, comparison); err != nil {
			return err
		}
	}
	return c.write(comparison, comparison)
}

// cases returns the cases to measure.
func (c *compareCommand) cases() ([]bench.Case, error) {
	var variants []*bench.Variant
	for _, text := range c.Variant {
		v, err := bench.ParseVariant(text)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(variants, func(other *bench.Variant) bool { return other.Name == v.Name }) {
			return nil, fmt.Errorf("%w: two variants have the name %s", bench.ErrTarget, v.Name)
		}
		variants = append(variants, v)
	}
	if c.Workload == "" {
		if !(c.Scale > 0) {
			return nil, fmt.Errorf("%w: the scale must be greater than 0", bench.ErrWorkload)
		}
		return bench.AddVariants(bench.Suite(c.Scale), variants), nil
	}
	if c.Rounds < 1 {
		return nil, fmt.Errorf("%w: rounds must be at least 1", bench.ErrWorkload)
	}
	workloads, err := c.workloads(c.Workload)
	if err != nil {
		return nil, err
	}
	var peers []bench.Peer
	for _, name := range c.Peers {
		peer, err := bench.ParsePeer(name)
		if err != nil {
			return nil, err
		}
		if peer.Dialect().Queues || !workloads[0].Kind.Queues() {
			peers = append(peers, peer)
		}
	}
	if len(peers) == 0 {
		return nil, fmt.Errorf("%w: none of the servers can run %s", bench.ErrTarget, c.Workload)
	}
	var cases []bench.Case
	for _, w := range workloads {
		cases = append(cases, bench.Case{Workload: w, Peers: peers, Rounds: c.Rounds, Fresh: w.Kind == bench.Idle})
	}
	return bench.AddVariants(cases, variants), nil
}
