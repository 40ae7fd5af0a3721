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
	look     *look
	err      error // why there is no newer look
	interval time.Duration
}

// line is a line of the screen.
type line struct {
	text  string
	title bool // stands out
}

// render lays the view out on a screen of so many columns and lines. What does not fit is left out, from below.
func (v *view) render(width, height int) []line {
	s := &v.look.Status
	deadlocks := "no deadlocks"
	if s.Deadlocks > 0 {
		deadlocks = some(s.Deadlocks, "deadlock")
	}
	lines := []line{
		{text: headline(s), title: true},
		{text: fmt.Sprintf("%s of %s, %s held, %s, %s", count(s.Connections), some(s.MaxConnections, "connection"),
			some(s.HeldKeys, "key"), some(s.Waiters, "waiter"), deadlocks)},
	}
	lines = append(append(lines, v.look.Rates.lines()...), line{})
	footer := line{text: fmt.Sprintf("%s, every %s; q quits", v.look.Time.Format(time.TimeOnly), v.interval)}
	if v.err != nil {
		footer = line{text: "not up to date: " + strings.Join(strings.Fields(v.err.Error()), " "), title: true}
	}
	const frame = 3 // lines of a list that are not keys: the title, the heads, and one that is empty
	room := max(height-len(lines)-1-2*frame, 0)
	hottest := min(len(v.look.Hottest), max((room+1)/2, room-len(v.look.Longest)))
	longest := min(len(v.look.Longest), room-hottest)
	lines = append(lines, list("Hottest keys", v.look.Hottest[:hottest], width)...)
	lines = append(lines, list("Longest waits", v.look.Longest[:longest], width)...)
	lines = lines[:min(len(lines), max(height-1, 0))]
	if height > 0 {
		lines = append(lines, footer)
	}
	for i := range lines {
		lines[i].text = cell(lines[i].text, width)
	}
	return lines
}

// list is a list of keys with its title.
func list(title string, keys []api.Key, width int) []line {
	if len(keys) == 0 {
		return []line{{text: title + ": nobody waits", title: true}, {}}
	}
	var text strings.Builder
	t := newTable(&text, "KEY", "WAITERS", "LONGEST WAIT", "HELD", "HOLDER")
	for i := range keys {
		k := &keys[i]
		t.row(cell(k.Key, max(width/3, 12)), count(k.Waiters), span(k.LongestWaitSeconds), span(k.HeldSeconds),
			who(&k.Holder))
	}
	_ = t.Flush() // a Builder takes everything
	lines := []line{{text: title, title: true}}
	for row := range strings.Lines(text.String()) {
		lines = append(lines, line{text: strings.TrimRight(row, " \n")})
	}
	return append(lines, line{})
}

// lines tells the rates on two lines, which fit on a narrow screen.
func (r *rates) lines() []line {
	if r == nil {
		return []line{{text: "per second: known at the next look"}, {}}
	}
	return []line{
		{text: fmt.Sprintf("per second: %s commands, %s locks, %s unlocks", rate(r.Commands), rate(r.Locks), rate(r.Unlocks))},
		{text: fmt.Sprintf("            %s grants to waiters, %s timeouts, %s accepted, %s ended",
			rate(r.Grants), rate(r.Timeouts), rate(r.Accepted), rate(r.Disconnects))},
	}
}

// rate is a number per second, with a digit behind the point where that says something.
func rate(perSecond float64) string {
	if perSecond == 0 || perSecond >= 10 {
		return humanize.Comma(int64(perSecond + 0.5))
	}
	return fmt.Sprintf("%.1f", perSecond)
}
