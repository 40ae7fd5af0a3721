package main

import (
	"strings"
	"time"

	"github.com/mattn/go-isatty"

	"dreadlock/bench"
)

// loadOptions say what the workload is. Zero is the default of the kind.
type loadOptions struct {
	Connections int           `short:"c" placeholder:"N" help:"Connections; for waiters those in the line, for timeouts the waits in flight."`
	Keys        int           `short:"k" placeholder:"N" help:"Keys that connections share (contended, mixed)."`
	Zipf        float64       `placeholder:"S" help:"Exponent of the keys' popularity, above 1; by default all are alike (contended, mixed)."`
	Pairs       int           `placeholder:"N" help:"Pairs of lock and unlock in one write (pipelined)."`
	Line        int           `placeholder:"N" help:"How many of the connections wait at a time, by default all (waiters)."`
	Share       *float64      `placeholder:"PART" help:"Side load as a part of the most that the server can do, 0 to 1 (timeouts)."`
	Warmup      time.Duration `default:"200ms" placeholder:"TIME" help:"Time before the measurement (${default})."`
	Window      time.Duration `short:"w" default:"1s" placeholder:"TIME" help:"Length of the measurement (${default})."`
}

// workload returns the workload of a kind, at a rate in commands a second or 0.
func (o *loadOptions) workload(kind string, rate float64) (bench.Workload, error) {
	w := bench.Default(bench.Kind(kind))
	w.Warmup, w.Window, w.Zipf, w.Rate = o.Warmup, o.Window, o.Zipf, rate
	for _, set := range []struct {
		value int
		field *int
	}{{o.Connections, &w.Connections}, {o.Keys, &w.Keys}, {o.Pairs, &w.Pairs}, {o.Line, &w.Line}} {
		if set.value != 0 {
			*set.field = set.value
		}
	}
	if o.Share != nil {
		w.Share = *o.Share
	}
	return w, w.Validate()
}

// outputOptions say how to measure and where the results go.
type outputOptions struct {
	Generators int    `placeholder:"N" help:"Event loops of the load generator; by default one for every two processors."`
	Daemon     string `type:"existingfile" placeholder:"FILE" help:"Program of the daemon; by default the one beside this program, else it is built."`
	JSON       string `name:"json" type:"path" placeholder:"FILE" help:"Write all results to this file."`
	Quiet      bool   `short:"q" help:"Say nothing while it runs."`
}

// options returns how to measure so many runs; 0 is unknown.
func (o *outputOptions) options(s *streams, runs int) bench.Options {
	options := bench.Options{Loops: o.Generators}
	if !o.Quiet {
		options.Progress = bench.NewProgress(s.stderr, isatty.IsTerminal(s.stderr.Fd()), runs)
	}
	return options
}

func kinds() string {
	names := make([]string, 0, len(bench.Kinds))
	for _, k := range bench.Kinds {
		names = append(names, string(k))
	}
	return strings.Join(names, ",")
}
