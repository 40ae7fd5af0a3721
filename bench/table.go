package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// column says how a table shows a metric.
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
	{Answer, "answer ms", "%.1f"},
	{WorstAnswer, "worst answer ms", "%.1f"},
	{Stood, "loops stood ms", "%.1f"},
	{WorstStood, "at most ms", "%.1f"},
}

// WriteResults prints results, one per line, with the columns that at least one of them has.
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

// WriteComparison prints a table for each workload: medians, spread and ratios.
func WriteComparison(out io.Writer, c *Comparison) error {
	fmt.Fprintf(out, "%s\n%s; %s, %.0f s\n%s\n", //nolint:errcheck // the flush at the end returns the error
		c.Machine, commandLine(c.Command), c.Started.Format(time.DateTime), c.Elapsed, strings.Join(c.versions(), "; "))
	reference := "the echo server on gnet with as many loops; for a variant of the daemon, to the daemon; " +
		"for TLS and Unix sockets, to plain TCP; for a fleet, to the daemon alone"
	if c.RatiosTo != "" {
		reference = c.RatiosTo
	}
	fmt.Fprintf(out, "median (lowest..highest); xN is the ratio to %s\n", reference) //nolint:errcheck // as above
	for _, cells := range c.workloads() {
		if err := writeCells(out, cells); err != nil {
			return err
		}
	}
	for _, s := range c.Skipped {
		fmt.Fprintf(out, "\nnot measured: %s\n", s) //nolint:errcheck // as above
	}
	return nil
}

// commandLine joins words so that a shell takes them apart again.
func commandLine(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = word
		if strings.ContainsAny(word, " \t\n") {
			quoted[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// writeCells prints the cells of one workload.
func writeCells(out io.Writer, cells []*Cell) error {
	results := cells[0].Results
	fmt.Fprintf(out, "\n%s, one operation is one %s, %d rounds of %s\n", //nolint:errcheck // the flush at the end returns the error
		cells[0].Workload, results[0].Workload.Kind.Unit(), len(results), results[0].Workload.Window)
	g := cellGrid(cells)
	t := newTable(out)
	t.row("", g.Head[0], g.Head[1:]...)
	for _, row := range g.Rows {
		t.row("", row[0], row[1:]...)
	}
	return t.flush()
}

// WriteGoals prints each goal with the measured value, the target and whether it is met.
func WriteGoals(out io.Writer, goals []Goal) error {
	if len(goals) == 0 {
		return nil
	}
	fmt.Fprintln(out, "\ngoals") //nolint:errcheck // the flush at the end returns the error
	t := newTable(out)
	t.row("", "server", "goal", "measured", "target", "")
	for _, g := range goals {
		t.row(fmt.Sprint(g.Number), g.Server, g.What, g.Figure(), g.Bound(), g.Verdict())
	}
	return t.flush()
}

// grid has the texts of a table.
type grid struct {
	Head []string
	Rows [][]string
}

// cellGrid makes a table of cells, with the columns that at least one of them has. The first column is the server.
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

// spread formats a median, with the lowest and the highest value if they differ.
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

// table aligns columns.
type table struct{ w *tabwriter.Writer }

func newTable(out io.Writer) table { return table{tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)} }

func (t table) row(first, second string, more ...string) {
	line := append([]string{first, second}, more...)
	fmt.Fprintln(t.w, strings.Join(line, "\t")) //nolint:errcheck // the flush at the end returns the error
}

func (t table) flush() error { return t.w.Flush() }
