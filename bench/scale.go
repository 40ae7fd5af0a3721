package bench

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
)

// The loops of the columns of the scale.
var scaleLoops = []int{1, 2, 4, 8, 16, 32}

// growth says how the cost of an operation grows with the loops.
type growth int

const (
	// alone: a connection moves to the loop of its key, so that from two loops on the cost stays the same.
	alone growth = iota
	// messages: the key is on another loop for all but one in N operations, and each of those costs messages.
	messages
	// oneKey: it lives on one loop, and more of them do not help.
	oneKey
)

// scaleLoads are the rows of the scale.
var scaleLoads = []struct {
	name     string
	workload *Workload
	growth   growth
}{
	{"commands, own keys, 50 connections", &loadFew, alone},
	{"commands, own keys, 1,000 connections", &loadMany, alone},
	{"commands, own keys, 16 pairs in a write", &loadPipelined, alone},
	{"commands, 50 keys shared by 500 connections", &loadContended, messages},
	{"connect, lock, unlock, close", &loadVisits, messages},
	{"hand-overs of one key", &loadShortQueue, oneKey},
}

// scale extrapolates from what one and several loops cost.
type scale struct {
	one, many float64 // processor time of an operation in us, with one loop and with loops
	loops     int
}

// cost returns the processor time of an operation with n loops, in us.
func (s *scale) cost(n int, g growth) float64 {
	switch {
	case n == 1:
		return s.one
	case g == messages:
		return s.one + (s.many-s.one)*elsewhere(n)/elsewhere(s.loops)
	}
	return s.many
}

// elsewhere is the part of the keys that are on other loops than a connection, with n loops.
func elsewhere(n int) float64 { return float64(n-1) / float64(n) }

// WriteScale prints what more loops could do, calculated from the processor time that one loop and one per processor took. It prints
// nothing without these figures, as on a machine with one processor.
func WriteScale(out io.Writer, c *Comparison) error {
	one, many := peerDaemon1.Name(), peerDaemon.Name()
	if c.Cell(loadFew.Name(), one) == nil || c.Cell(loadFew.Name(), many) == nil || one == many {
		return nil
	}
	loops := peerDaemon.loops()
	const title = "scale: operations per second of N loops on N processors that do nothing else, calculated; " +
		"only us/op, and the rates of one key, are measured"
	fmt.Fprintf(out, "\n%s\n", title) //nolint:errcheck // the flush at the end returns the error
	t := newTable(out)
	head := []string{"us/op, 1 loop", fmt.Sprintf("us/op, %d loops", loops)}
	for _, n := range scaleLoops {
		head = append(head, fmt.Sprintf("N = %d", n))
	}
	t.row("", "operation", head...)
	for _, load := range scaleLoads {
		with1, with := c.Cell(load.workload.Name(), one), c.Cell(load.workload.Name(), many)
		if with1 == nil || with == nil {
			continue
		}
		s := scale{one: with1.Stats[ServerCPU].Median, many: with.Stats[ServerCPU].Median, loops: loops}
		if s.one <= 0 || s.many <= 0 {
			continue
		}
		row := []string{fmt.Sprintf("%.2f", s.one), fmt.Sprintf("%.2f", s.many)}
		for _, n := range scaleLoops {
			rate := float64(n) * 1e6 / s.cost(n, load.growth)
			if load.growth == oneKey {
				rate = with.Stats[Throughput].Median
				if n == 1 {
					rate = with1.Stats[Throughput].Median
				}
			}
			row = append(row, shortNumber(threeDigits(rate)))
		}
		t.row("", load.name, row...)
	}
	for _, keys := range []int{1000, 100} {
		row := []string{"", ""}
		for _, n := range scaleLoops {
			row = append(row, fmt.Sprintf("%.2f", busiest(n, keys)))
		}
		t.row("", fmt.Sprintf("load of the busiest loop by the mean, %d busy keys", keys), row...)
	}
	if err := t.flush(); err != nil {
		return err
	}
	return writeCosts(out, c, one, many)
}

// writeCosts prints what connections cost, whatever the loops.
func writeCosts(out io.Writer, c *Comparison, servers ...string) error {
	for _, server := range servers {
		few, most := c.Cell(loadTakeMany.Name(), server), c.Cell(loadTakeMost.Name(), server)
		if few == nil || most == nil || few.Stats[Answer].Rounds == 0 || most.Stats[Answer].Rounds == 0 {
			continue
		}
		from, to := few.Stats[Answer].Median, most.Stats[Answer].Median
		thousand := 1000 * (to - from) / float64(loadTakeMost.Connections-loadTakeMany.Connections)
		const line = "   %s, longest answer in a takeover: %.1f ms with 1,000 connections, and %.1f ms for each 1,000 more\n"
		if _, err := fmt.Fprintf(out, line, server, from, thousand); err != nil {
			return err
		}
	}
	for _, server := range servers {
		if idle := c.Cell(loadIdle.Name(), server); idle != nil && idle.Stats[IdleMemory].Rounds > 0 {
			const gib = 1 << 30
			each := idle.Stats[IdleMemory].Median
			const line = "   %s, a million connections that hold a key: %.1f GiB and a million descriptors\n"
			if _, err := fmt.Fprintf(out, line, server, each*1e6/gib); err != nil {
				return err
			}
		}
	}
	return nil
}

// threeDigits rounds a number, of which more digits would be false.
func threeDigits(v float64) float64 {
	unit := 1.0
	for v >= 1000*unit {
		unit *= 10
	}
	return float64(int(v/unit+0.5)) * unit
}

// busiest returns the load of the busiest of n loops, relative to their mean, if a hash spreads so many equally busy keys over them: the
// mean of many draws, the same each time.
func busiest(n, keys int) float64 {
	const draws = 500
	random := rand.New(rand.NewPCG(uint64(n), uint64(keys)))
	sum := 0
	for range draws {
		loads := make([]int, n)
		for range keys {
			loads[random.IntN(n)]++
		}
		sum += slices.Max(loads)
	}
	return float64(sum) / draws * float64(n) / float64(keys)
}
