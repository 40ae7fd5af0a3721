package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"dreadlock/bench"
	"dreadlock/bench/flame"
)

// profileCommand shows where the processor time of the daemon goes.
type profileCommand struct {
	Workload string `arg:"" optional:"" enum:"${kinds}" default:"uncontended" help:"Kind of load: ${enum}. Those without a window in which the load is the same all the time cannot be profiled: waiters, idle, takeover."`
	On       string `default:"dreadlock:1" placeholder:"SERVER" help:"Daemon to start (${default}): dreadlock:2 has two loops, dreadlock+tls and dreadlock+unix are reached by TLS and by a Unix socket."`
	Perf     bool   `help:"Record with perf, which shows what the kernel does in system calls. Needs root or kernel.perf_event_paranoid=1."`
	SVG      string `name:"svg" default:"flame.svg" type:"path" placeholder:"FILE" help:"Draw the flame graph into this file (${default})."`
	Daemon   string `type:"existingfile" placeholder:"FILE" help:"Program of the daemon. By default the one next to this program, or else one that is built from the sources."`
	loadOptions
}

// Run measures.
func (p *profileCommand) Run(ctx context.Context, s *streams) error {
	workloads, err := p.workloads(p.Workload)
	if err != nil {
		return err
	}
	if len(workloads) > 1 {
		return fmt.Errorf("%w: a profile is of one workload: want one rate", bench.ErrWorkload)
	}
	peer, err := bench.ParsePeer(p.On)
	if err != nil {
		return err
	}
	if peer, err = bench.Profiled(peer, &workloads[0]); err != nil {
		return err
	}
	peers := &bench.Peers{Daemon: p.Daemon}
	defer peers.Close()
	server, err := peers.Start(ctx, peer)
	if err != nil {
		return err
	}
	defer server.Stop()
	result, profile, err := bench.Profile(ctx, &server.Target, workloads[0], bench.Options{}, p.Perf)
	if err != nil {
		return err
	}
	title := fmt.Sprintf("%s on %s: where %.2f s of processor time went", result.Workload.Name(), result.Server, profile.Total().Seconds())
	var operation time.Duration
	per := ""
	if result.ServerCPU != nil {
		operation = result.ServerCPU.PerOperation
		per = fmt.Sprintf(", %.2f us a %s", float64(operation)/float64(time.Microsecond), result.Workload.Kind.Unit())
	}
	if _, err := fmt.Fprintf(s.stdout, "%s%s, %.0f %ss/s\n", title, per, result.Throughput, result.Workload.Kind.Unit()); err != nil {
		return err
	}
	if err := flame.WriteShares(s.stdout, profile.Shares(), profile.Total(), operation); err != nil {
		return err
	}
	return os.WriteFile(p.SVG, []byte(flame.Draw(title, profile)), 0o644)
}
