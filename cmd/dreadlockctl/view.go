package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize"

	"dreadlock/server/api"
)

// view is what the screen of top shows. What does not fit is left out whole, and the screen says so.
type view struct {
	sample   *sample
	err      error // why there is no newer sample
	interval time.Duration
}

// line is a line of the screen.
type line struct {
	text  string
	title bool // in bold
}

// render lays the view out for a screen of width columns and height lines. The last line says how to quit.
func (v *view) render(width, height int) []line {
	if height <= 0 {
		return nil
	}
	footer := line{text: fit(width, "", []string{"q quits", api.Instant(v.sample.Time), "every " + v.interval.String()}, leftOut)}
	if v.err != nil {
		footer = line{text: cell("not up to date: "+strings.Join(strings.Fields(v.err.Error()), " "), width), title: true}
	}
	return append(v.body(width, height-1), footer)
}

// body returns all but the last line.
func (v *view) body(width, height int) []line {
	s := &v.sample.Status
	deadlocks := "no deadlocks"
	if s.Deadlocks > 0 {
		deadlocks = some(s.Deadlocks, "deadlock")
	}
	headline := line{text: fit(width, "", headlineParts(s), leftOut), title: true}
	sizes := line{text: fit(width, "", []string{
		some(s.Waiters, "waiter"), deadlocks, some(s.HeldKeys, "key") + " held",
		fmt.Sprintf("%s of %s", count(s.Connections), some(s.MaxConnections, "connection")),
	}, leftOut)}
	drain := []line(nil)
	if s.Drain != nil {
		drain = []line{{text: fit(width, "it drains: ", []string{span(s.Drain.SecondsLeft) + " left"}, leftOut), title: true}}
	}
	rates := v.sample.Rates.lines(width)
	lines := slices.Concat([]line{headline, sizes}, drain, rates, []line{{}})

	hottest, longest := hottestKeys(v.sample.Hottest), longestWaits(v.sample.Longest)
	switch room := height - len(lines); {
	case room >= 2*minList:
		first := min(hottest.lines(), max((room+1)/2, room-longest.lines()))
		lines = append(lines, hottest.table(width, first)...)
		return append(lines, longest.table(width, room-first)...)
	case room >= 2+minList:
		lines = append(lines, hottest.brief(width), line{})
		return append(lines, longest.table(width, room-2)...)
	}
	// The most important come first here, and are shown in the order of the screen.
	for _, all := range [][]line{
		slices.Concat([]line{headline, sizes}, drain, rates, []line{hottest.brief(width), longest.brief(width)}),
		slices.Concat([]line{headline, sizes}, drain, rates[:1], []line{hottest.brief(width), longest.brief(width)}),
		slices.Concat([]line{headline, sizes}, drain, []line{hottest.brief(width), longest.brief(width)}),
		slices.Concat([]line{sizes}, drain, []line{hottest.brief(width), longest.brief(width)}),
		{sizes, hottest.brief(width), longest.brief(width)},
		{sizes, longest.brief(width)},
		{sizes},
	} {
		if len(all) <= height {
			return all
		}
	}
	return nil
}

// fit returns a line with as many whole parts as there is room for. If some are left out, rest says so at the end.
func fit(width int, start string, parts []string, rest func(n int) string) string {
	for n := len(parts); n >= 0; n-- {
		shown := slices.Clone(parts[:n])
		if n < len(parts) {
			shown = append(shown, rest(len(parts)-n))
		}
		if text := start + strings.Join(shown, ", "); utf8.RuneCountInString(text) <= width {
			return text
		}
	}
	return cell(start+rest(len(parts)), width)
}

// leftOut says that parts are left out.
func leftOut(int) string { return "…" }

// lines returns the rates on two lines.
func (r *rates) lines(width int) []line {
	if r == nil {
		return []line{{text: fit(width, "per second: ", []string{"known after the next update"}, leftOut)}, {}}
	}
	return []line{
		{text: fit(width, "per second: ", []string{
			rate(r.Commands) + " commands", rate(r.Locks) + " locks", rate(r.Unlocks) + " unlocks",
		}, leftOut)},
		{text: fit(width, "            ", []string{
			rate(r.Grants) + " grants to waiters", rate(r.Timeouts) + " timeouts", rate(r.Accepted) + " accepted",
			rate(r.Disconnects) + " ended",
		}, leftOut)},
	}
}

// rate formats a rate, with one decimal if it is small.
func rate(perSecond float64) string {
	if perSecond == 0 || perSecond >= 10 {
		return humanize.Comma(int64(perSecond + 0.5))
	}
	return fmt.Sprintf("%.1f", perSecond)
}
