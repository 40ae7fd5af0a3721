package main

import (
	"context"
	"os"
	"time"

	"dreadlock/bench"
)

// runCommand measures one workload on one server.
type runCommand struct {
	Workload string    `arg:"" enum:"${kinds}" help:"What to do: ${enum}."`
	On       string    `default:"dreadlock" placeholder:"SERVER" help:"Server: a peer to start (dreadlock, gnet, epoll, redis, memcached; with loops: gnet:2), or the URL of one that runs (dreadlock://HOST:PORT?pid=N, redis://, memcached://, echo://)."`
	Rate     []float64 `placeholder:"N,..." help:"Commands a second to offer in an open loop; several are run one after another. By default a closed loop does the most it can."`
	loadOptions
	outputOptions
}

// runReport is what a run writes as JSON.
type runReport struct {
	Machine bench.Machine   `json:"machine"`
	Command []string        `json:"command"`
	Started time.Time       `json:"started"`
	Results []*bench.Result `json:"results"` // one of each rate
}

// Run measures.
func (r *runCommand) Run(ctx context.Context, s *streams) error {
	rates := r.Rate
	if len(rates) == 0 {
		rates = []float64{0}
	}
	peers := &bench.Peers{Daemon: r.Daemon}
	defer peers.Close()
	peer, err := bench.ParsePeer(r.On)
	if err != nil {
		return err
	}
	server, err := peers.Start(ctx, peer)
	if err != nil {
		return err
	}
	defer server.Stop()
	report := runReport{Machine: bench.ThisMachine(), Command: os.Args, Started: time.Now()}
	options := r.options(s, len(rates))
	for _, rate := range rates {
		w, err := r.workload(r.Workload, rate)
		if err != nil {
			return err
		}
		result, err := bench.Run(ctx, &server.Target, w, options)
		if err != nil {
			return err
		}
		report.Results = append(report.Results, result)
	}
	if err := bench.WriteResults(s.stdout, report.Results); err != nil {
		return err
	}
	return writeJSON(r.JSON, report)
}
