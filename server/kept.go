package server

import "time"

// A place of ours that no client needs is kept for a while, since it costs a round trip to get another one. If another daemon waits
// it is left at once, by its turn in the table.

const (
	// keepIdle is for how long a place is kept that no client needs: at least that, and less than twice that.
	keepIdle = 5 * time.Second
	// maxKept is the number of lines of all shards, with a place of ours, beyond which idle places are left earlier: to end a
	// lease takes a store the longer the more places it has.
	maxKept = 10_000
	// keptPerLook is the number of lines that are looked at, at most, at a time, and keptPerDrain in a drain.
	keptPerLook  = 256
	keptPerDrain = 2048
)

// keep takes note that a place of ours has come to stand.
func (l *line) keep() {
	ls := l.lines
	l.used = true
	if l.isKept {
		return
	}
	l.isKept = true
	ls.kept = append(ls.kept, l)
	if !ls.sweeper.Running() {
		ls.startSweeper(keepIdle)
	}
	for n := 0; n < 2 && len(ls.kept) > ls.maxKept; n++ {
		ls.look(true)
	}
}

// sweep looks at some lines, and leaves the places that nobody has needed since the last look.
func (ls *lines) sweep() {
	all := len(ls.kept)
	n := min(all, keptPerLook)
	for range n {
		ls.look(false)
	}
	if len(ls.kept) > 0 {
		ls.startSweeper(keepIdle * time.Duration(n) / time.Duration(all))
	}
}

// startSweeper has kept lines be looked at after some time.
func (ls *lines) startSweeper(d time.Duration) {
	ls.sweepsAt = ls.shard.loop.Now() + d
	ls.shard.loop.StartTimer(&ls.sweeper, d)
}

// leaveIdle leaves places that nobody needs, of some lines: the server drains.
func (ls *lines) leaveIdle() {
	for range min(len(ls.kept), keptPerDrain) {
		ls.look(true)
	}
}

// look leaves the places of the line that was looked at longest ago, if nobody needs them and nobody has since; or at once.
func (ls *lines) look(atOnce bool) {
	l := ls.kept[0]
	ls.kept[0], ls.kept = nil, ls.kept[1:]
	clients := l.hasClients()
	if l.ours() != nil && (clients || l.used && !atOnce) {
		l.used = clients
		ls.kept = append(ls.kept, l)
		return
	}
	for _, p := range l.places {
		p.leave()
	}
	if l.isKept = false; len(ls.kept) == 0 {
		ls.shard.loop.StopTimer(&ls.sweeper)
	}
}

// hasClients reports whether one of our clients holds the key or waits for it, or did and the key rests.
func (l *line) hasClients() bool {
	h := l.lines.shard.table.Find(l.hash, l.key)
	if h.Owner == nil {
		return false
	}
	return !isPlace(h) || h.Waiters >= l.inTable // one of the places holds it
}
