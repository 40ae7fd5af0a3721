package reactor

import "time"

const (
	// turnUnits is what a turn may spend: about as many commands, messages or timers.
	turnUnits = 4096
	// turnTime is when a turn ends at the latest, if its units are dearer than usual.
	turnTime = time.Millisecond
	// partUnits is what a part of a turn may spend in any case, so that no part is starved by the others. The clock is read
	// after so many, which costs less than a nanosecond a command.
	partUnits = 64
	// closeUnits is what it costs to close a connection, beside a command: some system calls.
	closeUnits = 16
)

// budget is what is left of a turn: units of work, and time. It has no clock: spend says when to tell it the time.
//
// A loop that has left work for another turn is behind until that turn comes, which is after the sockets. The turns of
// these sockets have one budget together, so that a round of all sockets is bounded and not only each turn of it; but each
// has the units of a part.
type budget struct {
	units int           // left
	part  int           // left of what the present part may spend in any case
	look  int           // units until the clock is to be read
	began time.Duration // when it was read first; 0 if it was not
}

// renew begins a turn.
func (b *budget) renew() {
	*b = budget{units: turnUnits, part: partUnits, look: partUnits}
}

// nextPart begins another part of the turn.
func (b *budget) nextPart() { b.part = partUnits }

// spend takes n units, unless nothing is left: what costs more than is left may still be done. It asks for the time when
// that is to be read.
func (b *budget) spend(n int) (ok, look bool) {
	if b.units <= 0 && b.part <= 0 {
		return false, false
	}
	b.units -= n
	b.part -= n
	b.look -= n
	return true, b.look <= 0
}

// tell says what time it is.
func (b *budget) tell(now time.Duration) {
	b.look = partUnits
	switch {
	case b.began == 0:
		b.began = now
	case now-b.began >= turnTime:
		b.units = 0
	}
}

// Spend takes n units of what this turn may do, before as much is done: a unit is a command, or what takes as long. It
// reports false when nothing is left, so that the work has to be left for another turn: see [Handler.Continue]. A turn ends
// after about a millisecond, or after some thousand units.
func (l *Loop) Spend(n int) (ok bool) {
	ok, look := l.budget.spend(n)
	if look {
		l.budget.tell(time.Since(l.reactor.start))
	}
	return ok
}

// NextPart begins another part of the turn: a little may be spent on it in any case.
func (l *Loop) NextPart() { l.budget.nextPart() }
