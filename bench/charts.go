package bench

import (
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"
	"time"

	"gonum.org/v1/plot"
)

// chart is a picture with a caption.
type chart struct {
	Title, Text string
	SVG         template.HTML // made by the chart library, with all names escaped
	Tall        bool          // as tall as two others, next to which it stands
}

func (r *reporter) throughput(cells []*Cell) (chart, error) {
	unit := cells[0].Results[0].Workload.Kind.Unit() + "s per second"
	return r.bars(cells, Throughput, chart{Title: "Throughput", Text: unit + "; higher is better"}, unit, shortNumber)
}

func (r *reporter) serverTime(cells []*Cell) (chart, error) {
	unit := cells[0].Results[0].Workload.Kind.Unit()
	return r.bars(cells, ServerCPU, chart{
		Title: "Server's processor time per " + unit,
		Text:  "microseconds, user and kernel mode; lower is better",
	}, "µs", twoDigits)
}

func (r *reporter) idleMemory(cells []*Cell) (chart, error) {
	return r.bars(cells, IdleMemory, chart{
		Title: "Memory per connection that holds a key",
		Text:  "bytes of resident memory; lower is better",
	}, "bytes", func(v float64) string { return fmt.Sprintf("%.0f", v) })
}

func (r *reporter) answers(cells []*Cell) (chart, error) {
	return r.bars(cells, Answer, chart{
		Title: "Longest answer in a takeover",
		Text:  "milliseconds that a client waited while another process took over; lower is better",
	}, "ms", func(v float64) string { return fmt.Sprintf("%.1f", v) })
}

// bars draws a bar for each cell that has the figure.
func (r *reporter) bars(cells []*Cell, m Metric, c chart, label string, format func(float64) string) (chart, error) {
	bars := r.barsOf(cells, m)
	if len(bars) == 0 {
		return chart{}, nil
	}
	p, err := barPlot(label, format, bars)
	if err != nil {
		return c, err
	}
	text, err := svg(chartWidth, barHeight(len(bars)), nil, share{p, 1})
	c.SVG = inline(text)
	return c, err
}

func (r *reporter) barsOf(cells []*Cell, m Metric) (bars []bar) {
	for _, cell := range cells {
		if s, ok := cell.Stats[m]; ok && s.finite() {
			bars = append(bars, bar{inWords(cell.Server), r.looks[cell.Server], s})
		}
	}
	return bars
}

// latency draws the distributions of the latency.
func (r *reporter) latency(cells []*Cell) (chart, error) {
	title := "Latency"
	if cells[0].Results[0].Workload.Kind == Timeouts {
		title = "Latency of the side load"
	}
	lines := r.distributions(cells, time.Microsecond, func(result *Result) *Latency { return result.Latency })
	return curves(lines, chart{
		Title: title,
		Text:  "this percentage of the requests took at most this long; lower is better. Both scales are logarithmic",
	}, "percent of requests", "", func(p *plot.Plot) { logAxis(&p.Y, shortMicros) })
}

// lateness draws how late waits timed out.
func (r *reporter) lateness(cells []*Cell) (chart, error) {
	lines := r.distributions(cells, time.Millisecond, func(result *Result) *Latency {
		if result.Timeouts == nil {
			return nil
		}
		return result.Timeouts.Late
	})
	return curves(lines, chart{
		Title: "Lateness of timeouts",
		Text:  "for this percentage of the waits, the timeout came at most this long after its time; lower is better",
	}, "percent of waits", "ms", func(p *plot.Plot) {
		p.Y.Min = 0
		p.Y.Tick.Marker = evenTicks(shortNumber)
	})
}

// distributions returns a curve of each cell: that of the median round by the 99th percentile.
func (r *reporter) distributions(cells []*Cell, unit time.Duration, of func(*Result) *Latency) (lines []series) {
	for _, cell := range cells {
		var all []*Latency
		for _, result := range cell.Results {
			if l := of(result); l != nil && len(l.Distribution) > 0 {
				all = append(all, l)
			}
		}
		if len(all) == 0 {
			continue
		}
		slices.SortStableFunc(all, func(a, b *Latency) int { return int(a.P99 - b.P99) })
		if points := percentiles(all[(len(all)-1)/2], unit); len(points) > 0 {
			lines = append(lines, series{name: inWords(cell.Server), look: r.looks[cell.Server], points: points})
		}
	}
	return lines
}

// curves draws distributions.
func curves(lines []series, c chart, xLabel, yLabel string, scale func(*plot.Plot)) (chart, error) {
	if len(lines) == 0 {
		return chart{}, nil
	}
	p, err := linePlot(xLabel, yLabel, lines)
	if err != nil {
		return c, err
	}
	percentileAxis(&p.X)
	scale(p)
	text, err := svg(chartWidth, besideBars(len(lines)), lines, share{p, 1})
	c.SVG = inline(text)
	return c, err
}

// staircase draws latency over throughput.
func (r *reporter) staircase(cells []*Cell, m Metric, title string) (chart, error) {
	lines := r.lines(cells, m, func(cell *Cell) float64 { return cell.Stats[Throughput].Median })
	if len(lines) == 0 {
		return chart{}, nil
	}
	c := chart{Title: title, Text: "took at most this long, over the rate of completed commands; lower and further to the right is better"}
	p, err := linePlot("commands per second", "", lines)
	if err != nil {
		return c, err
	}
	p.X.Min = 0
	p.X.Tick.Marker = evenTicks(shortNumber)
	logAxis(&p.Y, shortMicros)
	text, err := svg(chartWidth, chartHeight, lines, share{p, 1})
	c.SVG = inline(text)
	return c, err
}

// queueLength draws a figure over the length of the queue.
func (r *reporter) queueLength(cells []*Cell, m Metric, title, unit string) (chart, error) {
	lines := r.lines(cells, m, func(cell *Cell) float64 { return float64(cell.Results[0].Workload.queueLength()) })
	if len(lines) == 0 {
		return chart{}, nil
	}
	c := chart{Title: title, Text: "over the length of the queue; it should be flat"}
	p, err := linePlot("waiters in the queue", unit, lines)
	if err != nil {
		return c, err
	}
	p.X.Min, p.X.Max = p.X.Min/1.5, p.X.Max*1.5
	p.X.Scale = plot.LogScale{}
	p.X.Tick.Marker = lengthTicks(lines)
	p.Y.Min, p.Y.Max = 0, p.Y.Max*1.15
	p.Y.Tick.Marker = evenTicks(shortNumber)
	text, err := svg(chartWidth, chartHeight, lines, share{p, 1})
	c.SVG = inline(text)
	return c, err
}

// lines returns a line for each server: a figure over another one that is above 0.
func (r *reporter) lines(cells []*Cell, m Metric, over func(*Cell) float64) (lines []series) {
	for _, cell := range cells {
		s, ok := cell.Stats[m]
		x := over(cell)
		if !ok || !s.finite() || s.Min <= 0 || !(x > 0) || math.IsInf(x, 0) {
			continue
		}
		i := slices.IndexFunc(lines, func(l series) bool { return l.name == inWords(cell.Server) })
		if i < 0 {
			i = len(lines)
			lines = append(lines, series{name: inWords(cell.Server), look: r.looks[cell.Server], marked: true})
		}
		lines[i].points = append(lines[i].points, point{X: x, Y: s.Median, Stat: s})
	}
	return lines
}

// words say what a server is, for somebody who sees nothing else. Others have their names.
var words = map[string]string{
	Daemon:                  Daemon,
	Daemon + "+" + overTLS:  Daemon + " over TLS",
	Daemon + "+" + overUnix: Daemon + ", Unix socket",
	Daemon + "+" + inFleet:  Daemon + " in a fleet",
	GnetEcho:                "plain echo, gnet",
	EpollEcho:               "plain echo, epoll",
	RedisPeer:               "redis",
	MemcachedPeer:           "memcached",
}

// inWords says what a server is, with its loops or threads.
func inWords(server string) string {
	kind, loops, _ := strings.Cut(server, ":")
	name, known := words[kind]
	unit := "loop"
	if kind == MemcachedPeer {
		unit = "thread"
	}
	switch {
	case !known:
		return server
	case loops == "" || kind == RedisPeer: // which has one loop
		return name
	case loops == "1":
		return name + ", 1 " + unit
	}
	return name + ", " + loops + " " + unit + "s"
}

// summary draws throughput and processor time of the first workload that has both, side by side, with the daemon first and one column of
// names. It is empty if there is no such workload.
func (r *reporter) summary() (string, error) {
	const width = 600 // 800 pixels
	for _, cells := range r.workloads() {
		w := &cells[0].Results[0].Workload
		cells = slices.DeleteFunc(slices.Clone(cells), func(c *Cell) bool {
			return !c.Stats[Throughput].finite() || !c.Stats[ServerCPU].finite()
		})
		if len(cells) == 0 || w.Kind.Unit() != "command" {
			continue
		}
		slices.SortStableFunc(cells, func(a, b *Cell) int {
			switch {
			case a.Kind == b.Kind || a.Kind != Daemon && b.Kind != Daemon:
				return 0
			case a.Kind == Daemon:
				return -1
			}
			return 1
		})
		throughput, serverTime := r.barsOf(cells, Throughput), r.barsOf(cells, ServerCPU)
		for i := range serverTime {
			serverTime[i].name = ""
		}
		left, err := barPlot("HIGHER is better. Bar: the median; thin line:\nfrom the lowest to the highest round", shortNumber, throughput)
		if err != nil {
			return "", err
		}
		right, err := barPlot("LOWER is better. A plain echo has no locks:\nit returns what it gets, over TCP", twoDigits, serverTime)
		if err != nil {
			return "", err
		}
		left.Title.Text = fmt.Sprintf("Locks and unlocks per second, %d clients", w.Connections)
		right.Title.Text = "Processor time that each costs the server, µs"
		const names = 0.62 // part of the left plot, which has the names
		height := barHeight(len(cells)) + 30
		text, err := svg(width, height, nil, share{left, names}, share{right, 1 - names})
		return themed(text), err
	}
	return "", nil
}

func (s Stat) finite() bool {
	for _, v := range []float64{s.Min, s.Median, s.Max} {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return false
		}
	}
	return s.Rounds > 0
}

func twoDigits(v float64) string { return fmt.Sprintf("%.2f", v) }

// inline makes an SVG file part of the page: it removes what comes before the first element.
func inline(svg string) template.HTML {
	if i := strings.Index(svg, "<svg"); i > 0 {
		svg = svg[i:]
	}
	return template.HTML(svg)
}
