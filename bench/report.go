package bench

import (
	"bytes"
	"cmp"
	_ "embed" // the page
	"fmt"
	"html/template"
	"os"
	"path/filepath"
	"slices"
)

// The files of a report.
const (
	pageFile    = "index.html"
	summaryFile = "summary.svg"
)

//go:embed report.html
var pageText string

var pageTemplate = template.Must(template.New(pageFile).Parse(pageText))

// WriteReport writes a page into an existing directory: everything that was measured, as charts and as tables. The page
// needs no other file and no network. Next to it goes one chart for use elsewhere, if its figures were measured.
func WriteReport(dir string, c *Comparison) error {
	r := &reporter{Comparison: c, looks: newLooks(c.Cells)}
	summary, err := r.summary()
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	page, err := r.page()
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	var text bytes.Buffer
	if err := pageTemplate.Execute(&text, page); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if summary != "" {
		if err := os.WriteFile(filepath.Join(dir, summaryFile), []byte(summary), 0o644); err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, pageFile), text.Bytes(), 0o644); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// page has the contents of the template.
type page struct {
	*Comparison
	CommandLine string
	Date        string
	Servers     []string // and their versions
	Goals       []goalGroup
	Sections    []*section
}

// goalGroup has the goals of one server.
type goalGroup struct {
	Server    string
	Met, Of   int
	Goals     []Goal
	NotTested int
}

// section is a part of the page.
type section struct {
	Title, Text string
	Charts      []chart
	Tables      []titledGrid
}

type titledGrid struct {
	Title string
	grid
}

// reporter makes a report.
type reporter struct {
	*Comparison
	looks map[string]look
}

func (r *reporter) page() (*page, error) {
	p := &page{
		Comparison:  r.Comparison,
		CommandLine: commandLine(r.Command),
		Date:        r.Started.Format("2 January 2006, 15:04 MST"),
		Servers:     r.versions(),
		Goals:       groupGoals(r.Goals),
	}
	others, waiters, paced := r.sorted()
	for _, cells := range others {
		s, err := r.section(cells)
		if err != nil {
			return nil, err
		}
		p.Sections = append(p.Sections, s)
	}
	staircases, err := r.staircases(paced)
	if err != nil {
		return nil, err
	}
	lengths, err := r.queueLengths(waiters)
	if err != nil {
		return nil, err
	}
	p.Sections = slices.Concat(p.Sections, lengths, staircases)
	return p, nil
}

// sorted returns the workloads in the order of the page: those with a section each, and those that are points of curves,
// which are queues of waiters and open loops.
func (r *reporter) sorted() (others, waiters, paced [][]*Cell) {
	for _, cells := range r.workloads() {
		switch w := cells[0].Results[0].Workload; {
		case w.Rate > 0:
			paced = append(paced, cells)
		case w.Kind == Waiters:
			waiters = append(waiters, cells)
		default:
			others = append(others, cells)
		}
	}
	by := func(all [][]*Cell, compare func(v, w Workload) int) {
		slices.SortStableFunc(all, func(a, b []*Cell) int {
			return compare(a[0].Results[0].Workload, b[0].Results[0].Workload)
		})
	}
	by(others, func(v, w Workload) int {
		return cmp.Or(cmp.Compare(slices.Index(Kinds, v.Kind), slices.Index(Kinds, w.Kind)), cmp.Compare(v.Connections, w.Connections))
	})
	// A curve goes from the lowest load to the highest.
	by(waiters, func(v, w Workload) int { return cmp.Compare(v.queueLength(), w.queueLength()) })
	by(paced, func(v, w Workload) int { return cmp.Compare(v.Rate, w.Rate) })
	return others, waiters, paced
}

func groupGoals(goals []Goal) (groups []goalGroup) {
	for _, g := range goals {
		if n := len(groups); n == 0 || groups[n-1].Server != g.Server {
			groups = append(groups, goalGroup{Server: g.Server})
		}
		group := &groups[len(groups)-1]
		group.Goals = append(group.Goals, g)
		switch {
		case !g.Measured:
			group.NotTested++
		case g.Met:
			group.Met++
			group.Of++
		default:
			group.Of++
		}
	}
	return groups
}

// section shows one workload.
func (r *reporter) section(cells []*Cell) (*section, error) {
	w := &cells[0].Results[0].Workload
	s := &section{Title: w.Name(), Text: w.describe(), Tables: []titledGrid{{grid: cellGrid(cells)}}}
	charts := []func([]*Cell) (chart, error){r.throughput, r.serverTime, r.latency}
	switch w.Kind {
	case Timeouts:
		charts = []func([]*Cell) (chart, error){r.lateness, r.latency}
	case Idle:
		charts = []func([]*Cell) (chart, error){r.idleMemory}
	case Takeover:
		charts = []func([]*Cell) (chart, error){r.answers}
	}
	err := s.draw(cells, charts...)
	if n := len(s.Charts); n == 3 {
		s.Charts[n-1].Tall = true
	}
	return s, err
}

// draw adds the charts for which there are figures.
func (s *section) draw(cells []*Cell, charts ...func([]*Cell) (chart, error)) error {
	for _, draw := range charts {
		c, err := draw(cells)
		if err != nil {
			return fmt.Errorf("%s: %w", s.Title, err)
		}
		if c.SVG != "" {
			s.Charts = append(s.Charts, c)
		}
	}
	return nil
}

// staircases shows open loops: one section for all workloads that differ only in their rate.
func (r *reporter) staircases(paced [][]*Cell) (all []*section, err error) {
	for _, steps := range group(paced, func(w *Workload) string {
		w.Rate = 0
		return w.Name()
	}) {
		w := steps[0][0].Results[0].Workload
		w.Rate = 0
		s := &section{
			Title: w.Name() + ", open loop",
			Text: w.describe() + " Requests are sent by schedule, whatever the server does, and latency counts from the " +
				"scheduled time.",
		}
		var cells []*Cell
		for _, step := range steps {
			cells = append(cells, step...)
			s.Tables = append(s.Tables, titledGrid{step[0].Workload, cellGrid(step)})
		}
		draws := []func([]*Cell) (chart, error){
			func(cells []*Cell) (chart, error) { return r.staircase(cells, LatencyP50, "50 % of the requests") },
			func(cells []*Cell) (chart, error) { return r.staircase(cells, LatencyP99, "99 % of the requests") },
		}
		if len(steps) == 1 {
			draws = append(draws, r.latency)
		}
		if err := s.draw(cells, draws...); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// queueLengths shows the cost of a queue: one section for all workloads that differ only in the length of the queue.
func (r *reporter) queueLengths(waiters [][]*Cell) (all []*section, err error) {
	for _, lengths := range group(waiters, func(w *Workload) string {
		w.Queue = 0
		return w.Name()
	}) {
		w := lengths[0][0].Results[0].Workload
		w.Queue = 0
		s := &section{Title: w.Name(), Text: w.describe()}
		var cells []*Cell
		for _, length := range lengths {
			cells = append(cells, length...)
			s.Tables = append(s.Tables, titledGrid{length[0].Workload, cellGrid(length)})
		}
		if err := s.draw(cells,
			func(cells []*Cell) (chart, error) {
				return r.queueLength(cells, EnqueueCPU, "Server's processor time per enqueue", "µs")
			},
			func(cells []*Cell) (chart, error) {
				return r.queueLength(cells, HandOverCPU, "Server's processor time per hand-over", "µs")
			},
			func(cells []*Cell) (chart, error) {
				return r.queueLength(cells, Throughput, "Hand-overs per second", "")
			},
		); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// group puts workloads with the same key together. The function key may change the workload that it gets.
func group(workloads [][]*Cell, key func(*Workload) string) (groups [][][]*Cell) {
	at := make(map[string]int)
	for _, cells := range workloads {
		w := cells[0].Results[0].Workload
		k := key(&w)
		i, known := at[k]
		if !known {
			i = len(groups)
			at[k] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], cells)
	}
	return groups
}

// queueLength is the number of connections of Waiters that wait at a time.
func (w *Workload) queueLength() int {
	if w.Queue == 0 {
		return w.Connections
	}
	return w.Queue
}

// describe says in a sentence what the connections do.
func (w *Workload) describe() string {
	switch w.Kind {
	case Uncontended:
		if w.Connections == 1 {
			return "One connection locks and unlocks a key of its own."
		}
		return fmt.Sprintf("%d connections; each locks and unlocks a key of its own.", w.Connections)
	case Contended:
		return fmt.Sprintf("%d connections lock and unlock %d keys that they share.", w.Connections, w.Keys)
	case Pipelined:
		return fmt.Sprintf("%d connections; each sends %d pairs of lock and unlock in one write.", w.Connections, w.Pairs)
	case Waiters:
		return fmt.Sprintf("%d connections take turns in a queue for one key. When it is full, they get the key one after another.",
			w.Connections)
	case Timeouts:
		return fmt.Sprintf("%d connections wait for keys that they do not get, while others load the server to %.0f %% of what "+
			"it can do.", w.Connections, 100*w.Share)
	case Churn:
		return fmt.Sprintf("Connect, lock, unlock, close; %d connections at a time.", w.Connections)
	case Idle:
		return fmt.Sprintf("%d connections; each holds a key and is silent.", w.Connections)
	case Groups:
		return fmt.Sprintf("%d connections lock and unlock %d keys; each has one of them.", w.Connections, w.Keys)
	case Fresh:
		return fmt.Sprintf("%d connections lock and unlock keys that nobody has used before.", w.Connections)
	case Takeover:
		return fmt.Sprintf("Another process takes over from the daemon, five times, with %d connections that hold keys, wait or are silent.",
			w.Connections)
	case Mixed:
		return fmt.Sprintf("%d connections with own keys, %d shared keys and refused commands.", w.Connections, w.Keys)
	}
	return ""
}
