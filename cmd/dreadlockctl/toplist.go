package main

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"dreadlock/server/api"
)

// topList is a list of keys with waiters on the screen of top.
type topList struct {
	title  string
	keys   []api.Key               // at most rows; if there are as many, there may be more
	detail func(k *api.Key) string // what the list is about, for a line of its own
	shapes []shape                 // from the one with the most to that with the least
}

// shape is a way to show the list as a table.
type shape struct {
	without string // what it leaves out, in words; empty for nothing
	columns []column
}

// column is a column of the table.
type column struct {
	head string
	cell func(k *api.Key, width int) string
}

const (
	// frame is the number of lines of a table that are not keys: the title, the heads and an empty line.
	frame = 3
	// minList is the least number of lines for a table: with one key, and a line that says how many more there are.
	minList = frame + 2
)

var (
	keyColumn     = column{"KEY", func(k *api.Key, width int) string { return cell(k.Key, max(width/3, 12)) }}
	waitersColumn = column{"WAITERS", func(k *api.Key, _ int) string { return count(k.Waiters) }}
	waitColumn    = column{"LONGEST WAIT", func(k *api.Key, _ int) string { return span(k.LongestWaitSeconds) }}
	heldColumn    = column{"HELD", func(k *api.Key, _ int) string { return held(k) }}
	holderColumn  = column{"HOLDER", func(k *api.Key, _ int) string { return who(&k.Holder) }}
	nameColumn    = column{"HOLDER", func(k *api.Key, _ int) string {
		if k.Holder.Connection == 0 {
			return who(&k.Holder)
		}
		return fmt.Sprintf("%d (%s)", k.Holder.Connection, shortName(nameOrAddress(&k.Holder)))
	}}
	connColumn = column{"CONN", func(k *api.Key, _ int) string { return connectionCell(k.Holder.Connection) }}
)

// shapesOf returns the shapes of a list whose most important column is given.
func shapesOf(most column) []shape {
	return []shape{
		{"", []column{keyColumn, waitersColumn, waitColumn, heldColumn, holderColumn}},
		{"addresses", []column{keyColumn, waitersColumn, waitColumn, heldColumn, nameColumn}},
		{"HELD and addresses", []column{keyColumn, waitersColumn, waitColumn, nameColumn}},
		{"HELD and names", []column{keyColumn, waitersColumn, waitColumn, connColumn}},
		{"holders", []column{keyColumn, waitersColumn, waitColumn}},
		{"the rest", []column{keyColumn, most}},
		{"the rest", []column{keyColumn}},
	}
}

func hottestKeys(keys []api.Key) *topList {
	return &topList{"Hottest keys", keys, func(k *api.Key) string { return some(k.Waiters, "waiter") }, shapesOf(waitersColumn)}
}

func longestWaits(keys []api.Key) *topList {
	return &topList{"Longest waits", keys, func(k *api.Key) string { return span(k.LongestWaitSeconds) }, shapesOf(waitColumn)}
}

// lines returns the number of lines that the whole table has.
func (l *topList) lines() int {
	if len(l.keys) == 0 {
		return frame - 1
	}
	return frame + len(l.keys)
}

// more says how many keys with waiters are left out.
func (l *topList) more(n int) string {
	if len(l.keys) >= rows {
		return fmt.Sprintf("at least %s more", some(n, "key"))
	}
	if n == len(l.keys) {
		return some(n, "key")
	}
	return strings.Replace(some(n, "key"), " ", " more ", 1)
}

// brief returns the list on one line.
func (l *topList) brief(width int) line {
	if len(l.keys) == 0 {
		return line{text: cell(l.title+": nobody waits", width), title: true}
	}
	var parts []string
	for i := range l.keys {
		k := &l.keys[i]
		parts = append(parts, fmt.Sprintf("%s (%s)", cell(k.Key, max(width/3, 12)), l.detail(k)))
	}
	return line{text: fit(width, l.title+": ", parts, l.more)}
}

// table returns the list as a table of at most height lines, minList or more.
func (l *topList) table(width, height int) []line {
	if len(l.keys) == 0 {
		return []line{l.brief(width), {}}
	}
	shown, rest := len(l.keys), ""
	if room := height - frame; shown > room {
		shown = room - 1
		rest = fit(width, "", []string{l.more(len(l.keys) - shown)}, leftOut)
	}
	var text []string
	title := l.title
	for _, s := range l.shapes {
		if text = s.write(l.keys[:shown], width); text != nil {
			if s.without != "" {
				title = fit(width, title, []string{" (without " + s.without + ")"}, func(int) string { return "" })
			}
			break
		}
	}
	lines := []line{{text: cell(title, width), title: true}}
	for _, row := range text {
		lines = append(lines, line{text: row})
	}
	if rest != "" {
		lines = append(lines, line{text: rest})
	}
	return append(lines, line{})
}

// write returns the heads and rows of the table, nil if it is wider than the screen.
func (s *shape) write(keys []api.Key, width int) (lines []string) {
	var text strings.Builder
	t := newTable(&text)
	cells := make([]string, len(s.columns))
	for i, c := range s.columns {
		cells[i] = c.head
	}
	t.row(cells...)
	for i := range keys {
		for j, c := range s.columns {
			cells[j] = c.cell(&keys[i], width)
		}
		t.row(cells...)
	}
	_ = t.Flush() // a Builder returns no errors
	for row := range strings.Lines(text.String()) {
		row = strings.TrimRight(row, " \n")
		if utf8.RuneCountInString(row) > width {
			return nil
		}
		lines = append(lines, row)
	}
	return lines
}
