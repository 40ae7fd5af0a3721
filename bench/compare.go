package bench

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Case is one workload of a comparison, and the servers that run it.
type Case struct {
	Workload Workload
	Peers    []Peer
	// Rounds is the number of rounds in which the case is measured.
	Rounds int
	// Fresh starts a new server for every run: memory that was freed and is used again would not show.
	Fresh bool
}

// Comparison has the results of several servers on the same workloads, round by round.
type Comparison struct {
	Machine Machine   `json:"machine"`
	Command []string  `json:"command"` // command line
	Started time.Time `json:"started"`
	Elapsed float64   `json:"elapsed_s"`
	// Versions of the servers that were started, as their programs print them, by kind or by variant.
	Versions map[string]string `json:"versions,omitempty"`
	Cells    []*Cell           `json:"cells"`
	// Skipped says which peers are not installed.
	Skipped []string `json:"skipped,omitempty"`
	// RatiosTo is the server that all ratios are to. Empty if they are to those of the cells.
	RatiosTo string `json:"ratios_to,omitempty"`
	Goals    []Goal `json:"goals,omitempty"`
}

// Cell is one workload on one server.
type Cell struct {
	Workload string `json:"workload"` // Workload.Name
	Server   string `json:"server"`   // Target.Name
	Kind     string `json:"kind"`     // Target.Kind
	Loops    int    `json:"loops"`
	// Results has one result of each round, in order.
	Results []*Result `json:"results"`
	// Stats summarizes each figure that was measured.
	Stats map[Metric]Stat `json:"stats"`
	// RatiosTo is the server that ratios are to, with as many loops: the echo server on gnet; the daemon for a variant of
	// it; plain TCP for another way to it; the daemon alone for one of a fleet.
	RatiosTo string `json:"ratios_to,omitempty"`
	// Ratios are taken in each round and then summarized. Empty if that server was not measured.
	Ratios map[Metric]Stat `json:"ratios,omitempty"`
}

// compared are the metrics of which ratios are taken.
var compared = []Metric{Throughput, ServerCPU, LatencyP50, LatencyP99, EnqueueRate, EnqueueCPU, HandOverCPU, LateP999, IdleMemory}

// Compare measures all cases in turns: each round has each case, and each case has each peer, in random order. A peer that
// is not installed is left out, and listed in Skipped.
func Compare(ctx context.Context, peers *Peers, cases []Case, o Options) (*Comparison, error) {
	c := &comparer{
		Comparison: Comparison{Machine: ThisMachine(), Started: time.Now(), Versions: make(map[string]string)},
		peers:      peers,
		options:    o,
		servers:    make(map[Peer]*Server),
		missing:    make(map[Peer]bool),
	}
	defer c.stop()
	rounds := 0
	for _, k := range cases {
		rounds = max(rounds, k.Rounds)
		for _, p := range k.Peers {
			cell := c.cell(k.Workload.Name(), p.Name(), p.Kind, p.loops())
			if plain, ok := p.reference(); ok {
				cell.RatiosTo = plain.Name()
			}
		}
	}
	// No server always comes after the same one. The order is the same whenever the same cases are compared.
	random := rand.New(rand.NewPCG(uint64(len(cases)), uint64(rounds)))
	for round := range rounds {
		for _, k := range cases {
			// The rounds of a case that has fewer are spread over all rounds.
			if k.Rounds*(round+1)/rounds == k.Rounds*round/rounds {
				continue
			}
			for _, i := range random.Perm(len(k.Peers)) {
				p := k.Peers[i]
				if err := c.measure(ctx, &k, p); err != nil {
					return nil, err
				}
			}
		}
	}
	c.Cells = slices.DeleteFunc(c.Cells, func(cell *Cell) bool { return len(cell.Results) == 0 })
	c.summarize()
	c.Elapsed = time.Since(c.Started).Seconds()
	return &c.Comparison, nil
}

// Runs returns the number of runs that Compare makes of the cases if all peers are installed.
func Runs(cases []Case) (n int) {
	for _, k := range cases {
		n += k.Rounds * len(k.Peers)
	}
	return n
}

// comparer makes a comparison.
type comparer struct {
	Comparison
	peers   *Peers
	options Options
	servers map[Peer]*Server // that are running
	missing map[Peer]bool
}

func (c *comparer) measure(ctx context.Context, k *Case, p Peer) error {
	if c.missing[p] {
		return nil
	}
	s, err := c.server(ctx, k, p)
	if errors.Is(err, ErrNotInstalled) {
		c.missing[p] = true
		c.Skipped = append(c.Skipped, err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	if k.Fresh {
		defer s.Stop()
	}
	result, err := Run(ctx, &s.Target, k.Workload, c.options)
	if err != nil {
		return errors.Join(err, s.Ended())
	}
	c.add(result)
	if _, known := c.Versions[p.program()]; !known && s.cmd != nil {
		c.Versions[p.program()] = c.peers.Version(ctx, p)
	}
	return nil
}

// server returns a server for a run, which it starts if need be.
func (c *comparer) server(ctx context.Context, k *Case, p Peer) (*Server, error) {
	if s := c.servers[p]; s != nil && !k.Fresh {
		return s, nil
	}
	s, err := c.peers.Start(ctx, p)
	if err == nil && !k.Fresh {
		c.servers[p] = s
	}
	return s, err
}

func (c *comparer) stop() {
	for _, s := range c.servers {
		s.Stop()
	}
}

// Collect makes a comparison of existing results.
func Collect(results []*Result) *Comparison {
	c := &Comparison{Machine: ThisMachine()}
	for i, r := range results {
		if i == 0 {
			c.Started = r.Started
		}
		c.add(r)
	}
	c.summarize()
	return c
}

// RelateTo takes all ratios to one server.
func (c *Comparison) RelateTo(server string) {
	c.RatiosTo = server
	for _, cell := range c.Cells {
		cell.RatiosTo = server
	}
	c.summarize()
}

// add puts a result into its cell.
func (c *Comparison) add(r *Result) {
	cell := c.cell(r.Workload.Name(), r.Server, r.Kind, r.Loops)
	cell.Results = append(cell.Results, r)
}

// cell returns a cell, which it adds if it is not there yet.
func (c *Comparison) cell(workload, server, kind string, loops int) *Cell {
	cell := c.Cell(workload, server)
	if cell == nil {
		cell = &Cell{Workload: workload, Server: server, Kind: kind, Loops: loops}
		if loops > 0 {
			cell.RatiosTo = Peer{Kind: GnetEcho, Loops: loops}.Name()
		}
		c.Cells = append(c.Cells, cell)
	}
	return cell
}

// workloads returns the cells that have results, by workload, in the order in which the workloads first appear.
func (c *Comparison) workloads() (all [][]*Cell) {
	at := make(map[string]int)
	for _, cell := range c.Cells {
		if len(cell.Results) == 0 {
			continue
		}
		i, known := at[cell.Workload]
		if !known {
			i = len(all)
			at[cell.Workload] = i
			all = append(all, nil)
		}
		all[i] = append(all[i], cell)
	}
	return all
}

// versions returns the known versions of the servers, a line each.
func (c *Comparison) versions() (lines []string) {
	for _, kind := range slices.Sorted(maps.Keys(c.Versions)) {
		if v := c.Versions[kind]; v != "" {
			lines = append(lines, kind+": "+v)
		}
	}
	return lines
}

// summarize fills in the statistics of all cells.
func (c *Comparison) summarize() {
	for _, cell := range c.Cells {
		cell.Stats = make(map[Metric]Stat)
		for _, m := range Metrics {
			if s := newStat(cell.values(m)); s.Rounds > 0 {
				cell.Stats[m] = s
			}
		}
		reference := c.Cell(cell.Workload, cell.RatiosTo)
		if reference == nil || reference == cell {
			continue
		}
		cell.Ratios = make(map[Metric]Stat)
		for _, m := range compared {
			if s := ratio(cell, m, reference, m); s.Rounds > 0 {
				cell.Ratios[m] = s
			}
		}
	}
}

// variant reports whether the server is a variant of the daemon, or another way to it.
func (c *Cell) variant() bool { return strings.HasPrefix(c.RatiosTo, Daemon) }

// Cell returns the cell of a workload on a server, or nil.
func (c *Comparison) Cell(workload, server string) *Cell {
	for _, cell := range c.Cells {
		if cell.Workload == workload && cell.Server == server {
			return cell
		}
	}
	return nil
}

// values returns a figure of each round that has it.
func (c *Cell) values(m Metric) (values []float64) {
	for _, r := range c.Results {
		if v, ok := m.Of(r); ok {
			values = append(values, v)
		}
	}
	return values
}

// ratio divides a figure of one cell by one of another, round by round.
func ratio(over *Cell, overMetric Metric, under *Cell, underMetric Metric) Stat {
	if over == nil || under == nil {
		return Stat{}
	}
	var ratios []float64
	for i := range min(len(over.Results), len(under.Results)) {
		a, hasA := overMetric.Of(over.Results[i])
		b, hasB := underMetric.Of(under.Results[i])
		if hasA && hasB && b > 0 {
			ratios = append(ratios, a/b)
		}
	}
	return newStat(ratios)
}
