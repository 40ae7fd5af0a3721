package bench

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestScaleCost(t *testing.T) {
	s := scale{one: 60, many: 90, loops: 2}
	for _, test := range []struct {
		n      int
		growth growth
		want   float64
	}{
		{1, alone, 60},
		{2, alone, 90},
		{32, alone, 90},
		{1, messages, 60},
		{2, messages, 90},
		{4, messages, 105}, // three of four keys are elsewhere
		{1 << 20, messages, 120},
	} {
		if got := s.cost(test.n, test.growth); math.Abs(got-test.want) > 0.01 {
			t.Errorf("%d loops, %d: %g, want %g", test.n, test.growth, got, test.want)
		}
	}
	four := scale{one: 60, many: 105, loops: 4}
	if got := four.cost(2, messages); math.Abs(got-90) > 0.01 {
		t.Errorf("measured with four loops, with two: %g", got)
	}
}

func TestBusiest(t *testing.T) {
	if got := busiest(1, 100); got != 1 {
		t.Errorf("one loop: %g", got)
	}
	// Of two loops one has more than half of 100 keys by 5 x sqrt(2/pi), in the mean.
	if got := busiest(2, 100); math.Abs(got-1.08) > 0.01 {
		t.Errorf("two loops: %g", got)
	}
	if few, many := busiest(32, 100), busiest(32, 1000); few < 2 || many < 1.2 || many > 1.5 {
		t.Errorf("32 loops: %g with 100 keys, %g with 1,000", few, many)
	}
}

func TestWriteScale(t *testing.T) {
	two, one := Peer{Kind: Daemon}, peerDaemon1
	if two.Name() == one.Name() {
		t.Skip("there is one processor")
	}
	taken := func(w Workload, p Peer, ms float64) *Cell {
		c := cellOf(w, p, 1)
		c.Results[0].Takeover = &TakeoverResult{Takeovers: make([]TakenOver, 1), Answer: time.Duration(ms * float64(time.Millisecond))}
		return c
	}
	c := &Comparison{Cells: []*Cell{
		cellOf(loadFew, one, 8), cellOf(loadFew, two, 10),
		cellOf(loadShortQueue, one, 30), cellOf(loadShortQueue, two, 20),
		taken(loadTakeMany, one, 10), taken(loadTakeMost, one, 150),
	}}
	c.summarize()
	var out strings.Builder
	if err := WriteScale(&out, c); err != nil {
		t.Fatal(err)
	}
	var rows []string
	for line := range strings.Lines(out.String()) {
		rows = append(rows, strings.Join(strings.Fields(line), " "))
	}
	text := strings.Join(rows, "\n")
	for _, want := range []string{
		"commands, own keys, 50 connections 8.00 10.00 125k 200k 400k 800k 1.6M 3.2M",
		"hand-overs of one key 30.00 20.00 30 20 20 20 20 20",
		"10.0 ms with 1,000 connections, and 10.0 ms for each 1,000 more",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "close") {
		t.Errorf("a load that was not measured:\n%s", text)
	}
}

// Without the figures there is nothing to say.
func TestWriteScaleOfNothing(t *testing.T) {
	var out strings.Builder
	if err := WriteScale(&out, &Comparison{}); err != nil || out.Len() > 0 {
		t.Errorf("%q, %v", out.String(), err)
	}
}
