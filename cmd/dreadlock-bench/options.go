package main

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mattn/go-isatty"

	"dreadlock/bench"
)

// loadOptions describe the workload. Zero is the default of the kind.
type loadOptions struct {
	Connections int           `short:"c" placeholder:"N" help:"Number of connections; for waiters those that take turns in the queue, for timeouts the concurrent waits."`
	Keys        int           `short:"k" placeholder:"N" help:"Number of keys that the connections share (contended, mixed)."`
	Zipf        float64       `placeholder:"S" help:"Zipf exponent of the keys' popularity, greater than 1. By default all keys are equally popular (contended, mixed)."`
	Pairs       int           `placeholder:"N" help:"Pairs of lock and unlock in one write (pipelined)."`
	Queue       []int         `placeholder:"N" help:"Length of the queue, by default all connections. Several are run one after another (waiters)."`
	Rate        []float64     `placeholder:"N" help:"Commands per second in an open loop, connections per second for churn. Several are run one after another. By default the loop is closed, which finds the most that the server can do."`
	Share       *float64      `placeholder:"PART" help:"Side load as a fraction of the most that the server can do, 0 to 1 (timeouts)."`
	Warmup      time.Duration `default:"200ms" placeholder:"TIME" help:"Time before the measurement (${default})."`
	Window      time.Duration `short:"w" default:"${window}" placeholder:"TIME" help:"Length of the measurement (${default})."`
}

// workloads returns the workloads of a kind, one for each length of the queue and each rate.
func (o *loadOptions) workloads(kind string) (all []bench.Workload, err error) {
	w := bench.Default(bench.Kind(kind))
	w.Warmup, w.Window, w.Zipf = o.Warmup, o.Window, o.Zipf
	if w.Kind == bench.Waiters {
		w.Connections = max(w.Connections, slices.Max(orZero(o.Queue)))
	}
	for _, set := range []struct {
		value int
		field *int
	}{{o.Connections, &w.Connections}, {o.Keys, &w.Keys}, {o.Pairs, &w.Pairs}} {
		if set.value != 0 {
			*set.field = set.value
		}
	}
	if o.Share != nil {
		w.Share = *o.Share
	}
	for _, w.Queue = range orZero(o.Queue) {
		for _, w.Rate = range orZero(o.Rate) {
			if err := w.Validate(); err != nil {
				return nil, err
			}
			all = append(all, w)
		}
	}
	return all, nil
}

// orZero returns values, or the zero that means the default if there are none.
func orZero[T int | float64](values []T) []T {
	if len(values) == 0 {
		return []T{0}
	}
	return values
}

// outputOptions say how to measure and where the results go.
type outputOptions struct {
	Generators int    `placeholder:"N" help:"Event loops of the load generator. By default one for every two processors."`
	Daemon     string `type:"existingfile" placeholder:"FILE" help:"Program of the daemon. By default the one next to this program, or else one that is built from the sources."`
	JSON       string `name:"json" type:"path" placeholder:"FILE" help:"Write all results to this file."`
	Report     string `type:"path" placeholder:"DIR" help:"Write a page with charts and tables (index.html) and a chart for use elsewhere (summary.svg) into this directory."`
	Quiet      bool   `short:"q" help:"Show no progress."`
}

// options returns the options for a number of runs; 0 if unknown.
func (o *outputOptions) options(s *streams, runs int) bench.Options {
	options := bench.Options{Loops: o.Generators}
	if !o.Quiet {
		options.Progress = bench.NewProgress(s.stderr, isatty.IsTerminal(s.stderr.Fd()), runs)
	}
	return options
}

// prepare makes sure that results can be written before they are measured.
func (o *outputOptions) prepare() error {
	if o.Report != "" {
		if err := os.MkdirAll(o.Report, 0o755); err != nil {
			return err
		}
	}
	if o.JSON == "" {
		return nil
	}
	file, err := os.OpenFile(o.JSON, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	return file.Close()
}

// write writes results and their report to where they should go.
func (o *outputOptions) write(results any, c *bench.Comparison) error {
	if o.JSON != "" {
		text, err := json.MarshalIndent(results, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(o.JSON, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	if o.Report == "" {
		return nil
	}
	return bench.WriteReport(o.Report, c)
}

func kinds() string {
	names := make([]string, 0, len(bench.Kinds))
	for _, k := range bench.Kinds {
		names = append(names, string(k))
	}
	return strings.Join(names, ",")
}
