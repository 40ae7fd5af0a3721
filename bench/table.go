package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// column is how a metric looks in a table.
type column struct {
	metric Metric
	title  string
	format string
}

var columns = []column{
	{Throughput, "ops/s", "%.0f"},
	{ServerCPU, "server us/op", "%.2f"},
	{Allocations, "allocs/op", "%.3f"},
	{GeneratorCPU, "generator us/op", "%.2f"},
	{LatencyP50, "p50 us", "%.0f"},
	{LatencyP99, "p99 us", "%.0f"},
	{LatencyP999, "p99.9 us", "%.0f"},
	{EnqueueRate, "enqueues/s", "%.0f"},
	{EnqueueCPU, "enqueue us", "%.2f"},
	{HandOverCPU, "hand-over us", "%.2f"},
	{Early, "early", "%.0f"},
	{LateP50, "late p50 ms", "%.1f"},
	{LateP99, "late p99 ms", "%.1f"},
	{LateP999, "late p99.9 ms", "%.1f"},
	{LateMax, "late max ms", "%.1f"},
	{IdleMemory, "bytes/connection", "%.0f"},
	{IdleCPU, "idle CPU share", "%.4f"},
}

// WriteResults prints results, a line each, with the columns that any of them has.
func WriteResults(out io.Writer, results []*Result) error {
	var used []column
	for _, c := range columns {
		for _, r := range results {
			if _, ok := c.metric.Of(r); ok {
				used = append(used, c)
				break
			}
		}
	}
	t := newTable(out)
	t.row("workload", "server", titles(used)...)
	for _, r := range results {
		var cells []string
		for _, c := range used {
			cell := "-"
			if v, ok := c.metric.Of(r); ok {
				cell = fmt.Sprintf(c.format, v)
			}
			cells = append(cells, cell)
		}
		t.row(r.Workload.Name(), r.Server, cells...)
	}
	return t.flush()
}

// WriteComparison prints a table for each workload: medians with the spread, and the ratio to the echo server.
func WriteComparison(out io.Writer, c *Comparison) error {
	fmt.Fprintf(out, "%s\n%s; %s, %.0f s\n%s\n", //nolint:errcheck // the flush at the end tells
		c.Machine, strings.Join(c.Command, " "), c.Started.Format(time.DateTime), c.Elapsed, strings.Join(c.versions(), "; "))
	fmt.Fprintln(out, "median (least..most); xN is the ratio to the echo server on gnet with as many loops, "+ //nolint:errcheck // as above
		"of a variant of the daemon to the daemon")
	for _, cells := range c.workloads() {
		if err := writeCells(out, cells); err != nil {
			return err
		}
	}
	for _, s := range c.Skipped {
		fmt.Fprintf(out, "\nleft out: %s\n", s) //nolint:errcheck // as above
	}
	return nil
}

// writeCells prints the cells of one workload.
func writeCells(out io.Writer, cells []*Cell) error {
	results := cells[0].Results
	fmt.Fprintf(out, "\n%s, one operation is a %s, %d rounds of %s\n", //nolint:errcheck // the flush at the end tells
		cells[0].Workload, results[0].Workload.Kind.Unit(), len(results), results[0].Workload.Window)
	g := cellGrid(cells)
	t := newTable(out)
	t.row("", g.Head[0], g.Head[1:]...)
	for _, row := range g.Rows {
		t.row("", row[0], row[1:]...)
	}
	return t.flush()
}

// WriteGoals prints each goal with its target and whether it is met.
func WriteGoals(out io.Writer, goals []Goal) error {
	if len(goals) == 0 {
		return nil
	}
	fmt.Fprintln(out, "\ngoals") //nolint:errcheck // the flush at the end tells
	t := newTable(out)
	t.row("", "server", "goal", "measured", "target", "")
	for _, g := range goals {
		t.row(fmt.Sprint(g.Number), g.Server, g.What, g.Figure(), g.Bound(), g.Verdict())
	}
	return t.flush()
}

// grid is a table before it is printed.
type grid struct {
	Head []string
	Rows [][]string
}

// cellGrid makes the table of cells, with the columns that any of them has. The first one is the server.
func cellGrid(cells []*Cell) grid {
	var used []column
	for _, c := range columns {
		if slices.ContainsFunc(cells, func(cell *Cell) bool { return cell.Stats[c.metric].Rounds > 0 }) {
			used = append(used, c)
		}
	}
	g := grid{Head: append([]string{"server"}, titles(used)...)}
	for _, cell := range cells {
		row := []string{cell.Server}
		for _, c := range used {
			text := "-"
			if s, ok := cell.Stats[c.metric]; ok {
				text = spread(s, c.format)
			}
			if s, ok := cell.Ratios[c.metric]; ok {
				text += fmt.Sprintf(" x%.2f", s.Median)
			}
			row = append(row, text)
		}
		g.Rows = append(g.Rows, row)
	}
	return g
}

// spread prints a median, with least and most if there was more than one round.
func spread(s Stat, format string) string {
	text := fmt.Sprintf(format, s.Median)
	if s.Rounds > 1 && s.Min != s.Max {
		text += " (" + fmt.Sprintf(format, s.Min) + ".." + fmt.Sprintf(format, s.Max) + ")"
	}
	return text
}

func titles(columns []column) (all []string) {
	for _, c := range columns {
		all = append(all, c.title)
	}
	return all
}

// table lines up columns.
type table struct{ w *tabwriter.Writer }

func newTable(out io.Writer) table { return table{tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)} }

func (t table) row(first, second string, more ...string) {
	line := append([]string{first, second}, more...)
	fmt.Fprintln(t.w, strings.Join(line, "\t")) //nolint:errcheck // the flush at the end tells
}

func (t table) flush() error { return t.w.Flush() }
