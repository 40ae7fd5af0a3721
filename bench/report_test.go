package bench

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// madeUp makes a comparison with invented figures of all kinds. Each server is slower than the one before.
func madeUp(rounds int, peers ...Peer) *Comparison {
	c := &Comparison{
		Machine:  Machine{Processor: "Some <b>processor</b>", Processors: 2, Memory: 1 << 30, Kernel: "Linux 6", Go: "go1.26"},
		Command:  []string{"dreadlock-bench", "compare", "--json", "a&b"},
		Started:  time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Versions: map[string]string{"redis": "Redis <7>", "epoll": ""},
		Skipped:  []string{"memcached & co"},
	}
	workloads := []Workload{loadFew, loadMany, loadContended, loadPipelined, loadVisits, loadShortQueue, loadMidQueue, loadLongQueue, loadInFlight, loadIdle}
	for rate := 1000.0; rate < 1e6; rate *= 10 {
		w := Default(Mixed)
		w.Rate = rate
		workloads = append(workloads, w)
	}
	for range rounds {
		for _, w := range workloads {
			for i, p := range peers {
				c.add(madeUpResult(w, p, float64(i+1)))
			}
		}
	}
	c.summarize()
	c.Goals = CheckGoals(c)
	return c
}

// madeUpLatencies are those that were made up before.
var madeUpLatencies = make(map[float64]*Latency)

func madeUpLatency(slow float64) *Latency {
	if madeUpLatencies[slow] == nil {
		h := hdrhistogram.New(1, int64(time.Minute), 3)
		for i := range 1000 {
			h.RecordValue(int64(slow * float64(1000+i*i)))
		}
		madeUpLatencies[slow] = NewLatency(h)
	}
	return madeUpLatencies[slow]
}

func madeUpResult(w Workload, p Peer, slow float64) *Result {
	r := &Result{Workload: w, Server: p.Name(), Kind: p.Kind, Loops: p.loops(), Throughput: 1e5 / slow}
	r.ServerCPU, r.GeneratorCPU, r.Latency = newCPU(time.Second, int64(1e5/slow)), newCPU(time.Second, 1e5), madeUpLatency(slow)
	switch w.Kind {
	case Waiters:
		r.Latency = nil
		r.Waiters = &WaitersResult{Cycles: 1, EnqueueRate: 1e4, Enqueue: r.ServerCPU, HandOver: r.ServerCPU}
	case Timeouts:
		r.Timeouts = &TimeoutsResult{InFlight: 10, Late: r.Latency}
	case Idle:
		r.Latency = nil
		r.Idle = &IdleResult{PerConnection: 1000 * slow, CPUShare: 0.01}
	}
	return r
}

// writeReport writes a report, checks what is true of all reports, and returns the page and the picture, "" if there is none.
func writeReport(t *testing.T, c *Comparison) (page, summary string) {
	t.Helper()
	dir := t.TempDir()
	if err := WriteReport(dir, c); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, pageFile))
	if err != nil {
		t.Fatal(err)
	}
	checkMarkup(t, text)
	picture, err := os.ReadFile(filepath.Join(dir, summaryFile))
	if err == nil {
		checkMarkup(t, picture)
	} else if !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(text), string(picture)
}

// checkMarkup checks that a page or a picture is well formed, has no invalid number, and loads nothing.
func checkMarkup(t *testing.T, text []byte) {
	t.Helper()
	decoder := xml.NewDecoder(bytes.NewReader(text))
	depth := 0
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("not well formed: %v", err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			depth++
			checkElement(t, token)
		case xml.EndElement:
			depth--
		}
	}
	if depth != 0 {
		t.Errorf("%d elements are open", depth)
	}
	for _, bad := range []string{"NaN", "Inf", "url(", "@import", "%!"} {
		if bytes.Contains(text, []byte(bad)) {
			t.Errorf("%q in the text", bad)
		}
	}
}

func checkElement(t *testing.T, e xml.StartElement) {
	t.Helper()
	switch e.Name.Local {
	case "script", "link", "iframe", "img", "image", "object", "embed", "base", "use":
		t.Errorf("an element %s", e.Name.Local)
	}
	for _, a := range e.Attr {
		if a.Name.Space == "xmlns" || a.Name.Local == "xmlns" {
			continue // a namespace that looks like an address
		}
		if strings.Contains(a.Value, "//") || a.Name.Local == "src" || a.Name.Local == "href" && !strings.HasPrefix(a.Value, "#") {
			t.Errorf("%s has %s=%q", e.Name.Local, a.Name.Local, a.Value)
		}
		if strings.HasPrefix(a.Name.Local, "on") {
			t.Errorf("%s has a script: %s", e.Name.Local, a.Name.Local)
		}
	}
}

func TestReport(t *testing.T) {
	page, summary := writeReport(t, madeUp(3, distinct(peersAll)...))
	for _, want := range []string{
		"Some &lt;b&gt;processor&lt;/b&gt;, 2 processors, 1.0 GiB", "compare --json a&amp;b", "2 January 2026", "Redis &lt;7&gt;",
		"memcached &amp; co", "dreadlock:1: ", "server time per command, 50 connections", "uncontended/50",
		"pipelined/50x16", "churn/16", "Lateness of timeouts", "Memory per connection", "Latency of the side load",
		"processor time per enqueue", "processor time per hand-over", ">10,000<", "mixed/500x50, open loop", "mixed/500x50 at 100000/s",
		"99 % of the requests", ">99.9<", "late p99.9 ms", "bytes/connection",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in the page", want)
		}
	}
	for _, want := range []string{"Locks and unlocks per second, 50 clients", "HIGHER is better", "LOWER is better", "prefers-color-scheme: dark", "#D55E00", "dreadlock, 1 loop", "plain echo, gnet", "memcached, "} {
		if !strings.Contains(summary, want) {
			t.Errorf("no %q in the summary", want)
		}
	}
	// The theme of the page finds the colours of the charts by their value.
	for _, paint := range []string{"fill:#222222", "stroke:#222222", "stroke:#DDDDDD"} {
		if !strings.Contains(pageText, `[style*="`+paint+`"]`) || strings.Count(page, paint) < 2 {
			t.Errorf("%s is not in the style or not in the charts", paint)
		}
	}
}

// Whatever the order of the cases is, curves and their tables are in the order of the load.
func TestReportOrdersCurves(t *testing.T) {
	var results []*Result
	for _, w := range []Workload{loadShortQueue, loadLongQueue, loadMidQueue} {
		results = append(results, madeUpResult(w, peerDaemon1, 1))
	}
	for _, rate := range []float64{3000, 1000, 2000} {
		w := loadFew
		w.Rate = rate
		results = append(results, madeUpResult(w, peerDaemon1, 1))
	}
	page, _ := writeReport(t, Collect(results))
	last := 0
	for _, title := range []string{
		"queue of 100<", "queue of 1000<", "<h3>waiters/10000<", "at 1000/s<", "at 2000/s<", "at 3000/s<",
	} {
		at := strings.Index(page, title)
		if at <= last {
			t.Errorf("%q does not come after the one before", title)
		}
		last = at
	}
}

func TestReportOfLittle(t *testing.T) {
	for name, c := range map[string]*Comparison{
		"nothing":       {},
		"no rounds":     {Cells: []*Cell{{Workload: "uncontended/50", Server: "dreadlock:1"}}},
		"no figures":    Collect([]*Result{{Workload: loadFew}, {Workload: loadInFlight}, {Workload: loadIdle}, {Workload: loadLongQueue}}),
		"one server":    madeUp(1, peerDaemon1),
		"only an echo":  madeUp(2, peerEcho1),
		"no histogram":  Collect([]*Result{{Workload: loadFew, Throughput: 1, Latency: &Latency{}}}),
		"one latency":   Collect([]*Result{{Workload: loadFew, Latency: &Latency{Count: 1, Distribution: []Quantile{{100, 1}}}}}),
		"zero latency":  Collect([]*Result{{Workload: loadFew, Latency: &Latency{Distribution: []Quantile{{0, 0}, {100, 0}}}}}),
		"never late":    Collect([]*Result{{Workload: loadInFlight, Timeouts: &TimeoutsResult{Early: 2}}}),
		"no cost":       Collect([]*Result{{Workload: loadFew, Throughput: 1, ServerCPU: &CPU{}}}),
		"no memory":     Collect([]*Result{{Workload: loadIdle, Idle: &IdleResult{}}, {Workload: loadIdle, Idle: &IdleResult{PerConnection: -1}}}),
		"less than one": Collect([]*Result{{Workload: loadLongQueue, Waiters: &WaitersResult{Enqueue: &CPU{PerOperation: -5}}}}),
		"not a number":  Collect([]*Result{{Workload: loadIdle, Idle: &IdleResult{PerConnection: math.Inf(1)}}}),
	} {
		t.Run(name, func(t *testing.T) {
			if name == "not a number" {
				// The table shows it; the chart omits it.
				if err := WriteReport(t.TempDir(), c); err != nil {
					t.Fatal(err)
				}
				return
			}
			_, summary := writeReport(t, c)
			if len(c.Cells) == 0 && summary != "" {
				t.Error("a summary without figures")
			}
		})
	}
}

// Names come from the command line, so a server may have any name.
func TestReportEscapesNames(t *testing.T) {
	const name = `"><script>alert(1)</script>&'`
	page, summary := writeReport(t, Collect([]*Result{
		{Workload: loadFew, Server: name, Kind: name, Throughput: 1, ServerCPU: &CPU{PerOperation: 1}, Latency: &Latency{
			Count: 9, Distribution: []Quantile{{50, 1000}, {100, 2000}},
		}},
	}))
	for _, text := range []string{page, summary} {
		if !strings.Contains(text, "&lt;script&gt;alert(1)") {
			t.Error("the name is missing")
		}
	}
}

// Servers look different, whatever their number and their names.
func TestLooksDiffer(t *testing.T) {
	var cells []*Cell
	for i := range len(colors) + 2 {
		cells = append(cells, &Cell{Server: fmt.Sprint(i), Kind: Daemon, Loops: 1}, &Cell{Server: fmt.Sprint(i), Kind: Daemon, Loops: 1})
	}
	looks := newLooks(cells)
	seen := make(map[string]bool)
	for _, l := range looks {
		seen[fmt.Sprint(l.color, l.dashes)] = true
	}
	if len(looks) != len(colors)+2 || len(seen) != len(looks) {
		t.Errorf("%d looks, %d differ", len(looks), len(seen))
	}
	ordinary := newLooks(madeUp(1, peersAll...).Cells)
	for _, p := range distinct(peersAll) {
		for _, c := range colors {
			if c.kind == p.Kind && c.one == (p.loops() == 1) && ordinary[p.Name()].color != c.color {
				t.Errorf("%s does not have the colour that is meant for it", p.Name())
			}
		}
	}
}

// A variant does not take the colour of a server that comes after it.
func TestVariantsKeepColoursFree(t *testing.T) {
	cells := []*Cell{
		{Server: "dreadlock:2", Kind: Daemon, Loops: 2},
		{Server: "old:2", Kind: Daemon, Loops: 2, RatiosTo: "dreadlock:2"},
		{Server: "dreadlock:1", Kind: Daemon, Loops: 1, RatiosTo: "gnet:1"},
	}
	if with, without := newLooks(cells)["dreadlock:1"], newLooks([]*Cell{cells[0], cells[2]})["dreadlock:1"]; with.color != without.color {
		t.Errorf("colour %v with a variant, %v without", with.color, without.color)
	}
}

func TestShortNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 2.5: "2.5", 0.30000000000000004: "0.3", 999: "999", 1000: "1k", 222_999: "223k", 4_129_286: "4.1M", -2: "-2"} {
		if got := shortNumber(v); got != want {
			t.Errorf("%g: %s, want %s", v, got, want)
		}
	}
}

func TestEvenTicks(t *testing.T) {
	for _, test := range []struct {
		least, most float64
		want        string
	}{
		{0, 26.3, "[0 5 10 15 20 25]"},
		{0, 248_000, "[0 50k 100k 150k 200k]"},
		{0, 0.9, "[0 0.2 0.4 0.6 0.8]"},
		{-3, 2, "[-3 -2 -1 0 1 2]"},
	} {
		var got []string
		for _, tick := range evenTicks(shortNumber).Ticks(test.least, test.most) {
			got = append(got, tick.Label)
		}
		if fmt.Sprint(got) != test.want {
			t.Errorf("%g to %g: %s, want %s", test.least, test.most, got, test.want)
		}
	}
}

func TestReportCannotBeWritten(t *testing.T) {
	if err := WriteReport(filepath.Join(t.TempDir(), "missing"), madeUp(1, peerDaemon1)); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
