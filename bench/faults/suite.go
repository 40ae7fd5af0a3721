package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// ErrCase is wrapped by errors about a case that does not exist.
var ErrCase = errors.New("faults: no such case")

// ErrViolated is wrapped by the error of a suite in which a promise was not kept, or a case could not be run to its end.
var ErrViolated = errors.New("faults: promises were not kept")

// Case is one kind of fault.
type Case struct {
	Name    string // by which it is chosen
	Fault   string // what happens
	Promise string // what the daemon owes its clients then

	run   func(t *trial) (measured string)
	alone bool // it measures times that other cases would disturb
}

// Outcome is what came of a case.
type Outcome struct {
	*Case
	Measured   string // the figures
	Violations []string
	Commands   int64  // that were answered and checked
	Grants     int64  // among them, of fleets
	Skipped    string // why it was not run; empty if it was
	Err        error  // why it could not be run to its end
	Elapsed    time.Duration
}

// Failed reports whether a promise was not kept, or the case could not be run to its end.
func (o *Outcome) Failed() bool { return len(o.Violations) > 0 || o.Err != nil }

// Options say how to run the suite.
type Options struct {
	Daemon   string    // its program
	Long     bool      // more of everything: at least ten million commands
	Cases    []string  // names, or their beginnings; all if empty
	Progress io.Writer // a line for each case
	// Client is the command line that runs [Relay], in a process that can be stopped and killed. The path of its socket and the
	// daemon's address are appended.
	Client []string
	// Fleet runs the cases of fleets instead. They do not need root.
	Fleet bool
	// Members is the program in bench/fleet, for the members of etcd that fleets need. By default it is the program fleet next to this
	// one, or else it is built from the checkout.
	Members string
	// Seed begins the random numbers of these cases. With the same one the same faults come in the same order. 0: another one each time.
	Seed uint64
}

// fleetsTogether is the number of cases of fleets that run at a time, unless it is the long form, in which the clients do not pause.
const fleetsTogether = 3

// together is the number of cases that run at a time: they mostly wait.
const together = 6

// Cases returns all cases, in the order in which they are shown.
func Cases() []*Case {
	return slices.Concat(vanishCases(), partitionCases(), weatherCases(), endCases(), processCases(), descriptorCases(),
		memoryCases(), syscallCases(), adminCases(), turnCases(), takeoverCases())
}

// Run runs the cases, and returns what came of each, in the order of Cases. Its error wraps ErrViolated if one has failed.
func Run(ctx context.Context, o Options) ([]*Outcome, error) {
	all, atOnce := Cases(), together
	if o.Fleet {
		all, atOnce = FleetCases(), fleetsTogether
		if o.Long {
			atOnce = 1
		}
	}
	chosen, err := choose(all, o.Cases)
	if err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 && !o.Fleet {
		return nil, errors.New("faults: only root can make hosts and faults")
	}
	if o.Fleet {
		remove, err := o.prepareFleets()
		if err != nil {
			return nil, err
		}
		defer remove()
	}
	outcomes := make([]*Outcome, len(chosen))
	var printing sync.Mutex
	began := time.Now()
	runOne := func(i int) {
		out := runTrial(ctx, &o, chosen[i])
		outcomes[i] = out
		printing.Lock()
		defer printing.Unlock()
		fmt.Fprintf(o.Progress, "%6.1fs  %-18s %s\n", time.Since(began).Seconds(), out.Name, out.summary()) //nolint:errcheck // progress
	}
	slots := make(chan struct{}, atOnce)
	var running sync.WaitGroup
	for i, c := range chosen {
		if !c.alone {
			running.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				runOne(i)
			})
		}
	}
	running.Wait()
	for i, c := range chosen {
		if c.alone {
			runOne(i)
		}
	}
	failed := 0
	for _, out := range outcomes {
		if out.Failed() {
			failed++
		}
	}
	if failed > 0 {
		return outcomes, fmt.Errorf("%w: %d of %d cases failed", ErrViolated, failed, len(outcomes))
	}
	return outcomes, ctx.Err()
}

// choose returns the cases whose names begin with one of these, or all.
func choose(all []*Case, names []string) (chosen []*Case, err error) {
	for _, name := range names {
		if !slices.ContainsFunc(all, func(c *Case) bool { return strings.HasPrefix(c.Name, name) }) {
			var known []string
			for _, c := range all {
				known = append(known, c.Name)
			}
			return nil, fmt.Errorf("%w: %s: want one of %s", ErrCase, name, strings.Join(known, ", "))
		}
	}
	for _, c := range all {
		if len(names) == 0 || slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(c.Name, name) }) {
			chosen = append(chosen, c)
		}
	}
	return chosen, nil
}

// summary says in a line what came of the case.
func (o *Outcome) summary() string {
	const shown = 5
	switch {
	case o.Skipped != "":
		return o.Skipped
	case !o.Failed():
		return fmt.Sprintf("ok, %s (%d commands in %.1f s)", o.Measured, o.Commands, o.Elapsed.Seconds())
	}
	var b strings.Builder
	fmt.Fprintf(&b, "FAILED, %s (%d violations)", o.Measured, len(o.Violations))
	if o.Err != nil {
		fmt.Fprintf(&b, "\n    error: %v", o.Err)
	}
	for i, what := range o.Violations {
		if i == shown {
			fmt.Fprintf(&b, "\n    and %d more", len(o.Violations)-shown)
			break
		}
		const longest = 2000
		if len(what) > longest {
			what = what[:longest] + "..."
		}
		fmt.Fprintf(&b, "\n    violation: %s", what)
	}
	return b.String()
}
