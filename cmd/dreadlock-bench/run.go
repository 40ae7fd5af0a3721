package main

import (
	"context"
	"os"
	"time"

	"dreadlock/bench"
)

// runCommand measures one workload on one server.
type runCommand struct {
	Workload string `arg:"" enum:"${kinds}" help:"Kind of load: ${enum}."`
	On       string `default:"dreadlock" placeholder:"SERVER" help:"Server: one to start (dreadlock, gnet, epoll, redis, memcached; gnet:2 has two loops, dreadlock+tls and dreadlock+unix are reached by TLS and by a Unix socket, dreadlock+fleet is a fleet on a member of etcd that is started for it), or the URL of a running one (dreadlock://HOST:PORT?pid=N&admin=HOST:PORT, dreadlock+tls://HOST:PORT?ca=FILE, dreadlock+unix:///PATH, redis://, memcached://, echo://)."`
	loadOptions
	outputOptions
}

// runReport is the JSON of a run.
type runReport struct {
	Machine bench.Machine   `json:"machine"`
	Command []string        `json:"command"`
	Started time.Time       `json:"started"`
	Results []*bench.Result `json:"results"` // one for each length of the queue and each rate
}

// Run measures.
func (r *runCommand) Run(ctx context.Context, s *streams) error {
	workloads, err := r.workloads(r.Workload)
	if err != nil {
		return err
	}
	peers := &bench.Peers{Daemon: r.Daemon}
	defer peers.Close()
	peer, err := bench.ParsePeer(r.On)
	if err != nil {
		return err
	}
	if err := r.prepare(); err != nil {
		return err
	}
	server, err := peers.Start(ctx, peer)
	if err != nil {
		return err
	}
	defer server.Stop()
	report := runReport{Machine: bench.ThisMachine(), Command: os.Args, Started: time.Now()}
	options := r.options(s, len(workloads))
	for _, w := range workloads {
		result, err := bench.Run(ctx, &server.Target, w, options)
		if err != nil {
			return err
		}
		report.Results = append(report.Results, result)
	}
	if err := bench.WriteResults(s.stdout, report.Results); err != nil {
		return err
	}
	comparison := bench.Collect(report.Results)
	comparison.Command, comparison.Elapsed = report.Command, time.Since(report.Started).Seconds()
	if version := peers.Version(ctx, peer); version != "" && peer.Target == nil {
		comparison.Versions = map[string]string{peer.Kind: version}
	}
	return r.write(report, comparison)
}
