package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"dreadlock/server/api"
)

// view is what the screen of top shows.
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

// render lays the view out for a screen of width columns and height lines. Keys that do not fit are left out.
func (v *view) render(width, height int) []line {
	s := &v.sample.Status
	deadlocks := "no deadlocks"
	if s.Deadlocks > 0 {
		deadlocks = some(s.Deadlocks, "deadlock")
	}
	lines := []line{
		{text: headline(s), title: true},
		{text: fmt.Sprintf("%s of %s, %s held, %s, %s", count(s.Connections), some(s.MaxConnections, "connection"),
			some(s.HeldKeys, "key"), some(s.Waiters, "waiter"), deadlocks)},
	}
	if s.Drain != nil {
		lines = append(lines, line{text: "it drains: " + span(s.Drain.SecondsLeft) + " left until it ends at the latest", title: true})
	}
	lines = append(append(lines, v.sample.Rates.lines()...), line{})
	footer := line{text: fmt.Sprintf("%s, every %s; q quits", v.sample.Time.Format(time.TimeOnly), v.interval)}
	if v.err != nil {
		footer = line{text: "not up to date: " + strings.Join(strings.Fields(v.err.Error()), " "), title: true}
	}
	const frame = 3 // lines of a list that are not keys: the title, the heads and an empty line
	room := max(height-len(lines)-1-2*frame, 0)
	hottest := min(len(v.sample.Hottest), max((room+1)/2, room-len(v.sample.Longest)))
	longest := min(len(v.sample.Longest), room-hottest)
	lines = append(lines, list("Hottest keys", v.sample.Hottest[:hottest], width)...)
	lines = append(lines, list("Longest waits", v.sample.Longest[:longest], width)...)
	lines = lines[:min(len(lines), max(height-1, 0))]
	if height > 0 {
		lines = append(lines, footer)
	}
	for i := range lines {
		lines[i].text = cell(lines[i].text, width)
	}
	return lines
}

// list returns a table of keys with a title.
func list(title string, keys []api.Key, width int) []line {
	if len(keys) == 0 {
		return []line{{text: title + ": nobody waits", title: true}, {}}
	}
	var text strings.Builder
	t := newTable(&text, "KEY", "WAITERS", "LONGEST WAIT", "HELD", "HOLDER")
	for i := range keys {
		k := &keys[i]
		t.row(cell(k.Key, max(width/3, 12)), count(k.Waiters), span(k.LongestWaitSeconds), held(k),
			who(&k.Holder))
	}
	_ = t.Flush() // a Builder returns no errors
	lines := []line{{text: title, title: true}}
	for row := range strings.Lines(text.String()) {
		lines = append(lines, line{text: strings.TrimRight(row, " \n")})
	}
	return append(lines, line{})
}

// lines returns the rates on two lines, so that they fit on a narrow screen.
func (r *rates) lines() []line {
	if r == nil {
		return []line{{text: "per second: known after the next update"}, {}}
	}
	return []line{
		{text: fmt.Sprintf("per second: %s commands, %s locks, %s unlocks", rate(r.Commands), rate(r.Locks), rate(r.Unlocks))},
		{text: fmt.Sprintf("            %s grants to waiters, %s timeouts, %s accepted, %s ended",
			rate(r.Grants), rate(r.Timeouts), rate(r.Accepted), rate(r.Disconnects))},
	}
}

// rate formats a rate, with one decimal if it is small.
func rate(perSecond float64) string {
	if perSecond == 0 || perSecond >= 10 {
		return humanize.Comma(int64(perSecond + 0.5))
	}
	return fmt.Sprintf("%.1f", perSecond)
}
