package reactor

import (
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
)

const (
	// readPiece is the number of bytes that are read of a peer at a time. The client has to keep what it cannot use at once,
	// and a loop reads of every peer that has sent something before it can hold the first one back: a thousand pieces.
	readPiece = 16 << 10
	// maxRests is the number of such pieces in one turn.
	maxRests = 16
)

// Handler is the server's part of one loop; all its methods run on that loop.
type Handler interface {
	// Accept returns the client for a new connection, of which [Listener.Admit] has said info.
	Accept(info any) Client
	// Receive takes a message that was posted to this loop.
	Receive(m *Message)
	// Expire takes a timer that ran out.
	Expire(t *Timer)
	// Continue goes on with the work that earlier turns have left, as far as [Loop.Spend] allows. It is called in a turn of its
	// own, which comes after those of the sockets.
	Continue()
	// EndTurn does what the calls of the turn have put off. It is called again if that has ended connections. It reports
	// whether there is work left for another turn.
	EndTurn() (more bool)
}

// Loop is one event loop: a gnet loop with a mailbox and a timing wheel. Unless a method says otherwise, it is to be
// called on the loop itself.
type Loop struct {
	owned
	reactor *Reactor
	index   int
	events  gnet.EventLoop
	epoll   int // descriptor of its epoll instance, -1 if it was not found
	waker   int // our end of its wake-up connection, see wake
	handler Handler

	now    time.Duration // of this turn; 0 if nobody has asked
	budget budget        // of this turn, or of the turns until the next wake-up if the loop is behind
	behind bool          // work was left for the turn of a wake-up that is under way
	inbox  *Message      // taken from the mailbox and not handled yet
	wheel  *Wheel
	outbox []batch // by destination: what this turn posts
	posted []int   // destinations whose outbox is not empty

	ending     []ended            // to be closed at the end of this turn
	readers    []*Conn            // half-closed ones that want the rest of their input
	sippers    []*Conn            // paused ones that want a little of theirs
	halfClosed map[*Conn]struct{} // those that gnet does not know any more
	buf        []byte             // for the input of half-closed connections; nil until it is needed

	plain  tlsScratch
	sealed []byte // what TLS has made of the latest output

	memory int64 // see Memory

	parking *parking    // has come in this turn; nil if none has
	blanks  []gnet.Conn // see blank.go
	adopted []*Conn     // until they begin

	traffic Traffic

	// Reached from other goroutines:
	mailbox mailbox
	alarm   atomic.Int64 // tick at which the ticker has to wake the loop; Never if it need not
	retry   atomic.Int64 // the same for a wake-up that has failed
	eventfd atomic.Int64 // our duplicate of the eventfd by which gnet wakes the loop, see wakeGnet; -1 if there is none
	room    atomic.Int64 // number of blanks
}

// Index returns the number of the loop, from 0.
func (l *Loop) Index() int { return l.index }

// Traffic counts what a loop has sent to others.
type Traffic struct {
	Messages uint64
	WakeUps  uint64 // of loops that had nothing else to do by mailbox
}

// Traffic returns what the loop has sent so far.
func (l *Loop) Traffic() Traffic { return l.traffic }

// Now returns the time since the reactor started, read once a turn: it may be as old as that.
func (l *Loop) Now() time.Duration {
	if l.now == 0 {
		l.now = time.Since(l.reactor.start)
	}
	return l.now
}

// Reactor returns the reactor that the loop is part of. Safe from any goroutine.
func (l *Loop) Reactor() *Reactor { return l.reactor }

// Time returns the point in time that is d after the start of the reactor. Safe from any goroutine.
func (l *Loop) Time(d time.Duration) time.Time { return l.reactor.start.Add(d) }

// Post sends m to the loop with the index to, at the end of this turn.
func (l *Loop) Post(to int, m *Message) {
	if l.outbox[to].empty() {
		l.posted = append(l.posted, to)
	}
	if to != l.index {
		l.traffic.Messages++
	}
	l.outbox[to].add(m)
}

// Send sends m to the loop at once. Safe from any goroutine, until Run returns: the descriptor that wakes the loop may
// be somebody else's then.
func (l *Loop) Send(m *Message) {
	var b batch
	b.add(m)
	l.deliver(&b)
}

// StartTimer runs t for at least d; the handler's Expire gets it then.
func (l *Loop) StartTimer(t *Timer, d time.Duration) {
	now, due := l.reactor.dueTick(d)
	if l.wheel.Len() == 0 {
		l.wheel.Advance(now) // nobody has while it was empty
	}
	l.wheel.Start(t, due)
	l.setAlarm(min(due, now+wheelSlots)) // the wheel says when to look again
}

// StopTimer stops t and reports whether it was running; Expire does not get it any more.
func (l *Loop) StopTimer(t *Timer) bool { return l.wheel.Stop(t) }

// seal encrypts p. The records are valid until the next call.
func (l *Loop) seal(t *TLS, p []byte) []byte {
	l.sealed = t.seal(l.sealed[:0], p)
	return l.sealed
}

// turn handles what came by mailbox, what is due, and what earlier turns have left. It runs when the loop was woken.
func (l *Loop) turn() {
	l.behind = false
	l.enter()
	more := l.receive()
	l.budget.nextPart()
	more = l.expire() || more
	l.budget.nextPart()
	l.readRests()
	l.budget.nextPart()
	l.takeSips()
	l.budget.nextPart()
	l.handler.Continue()
	l.leave()
	if more {
		l.goOnLater()
	}
	if l.parking != nil {
		l.stand()
	}
}

// enter and leave enclose every callback of gnet's: what happens between the two is a turn.
func (l *Loop) enter() {
	l.now = 0
	if l.behind {
		l.budget.nextPart()
	} else {
		l.budget.renew()
	}
	l.onLoop()
}

func (l *Loop) leave() {
	l.budget.nextPart()
	more := l.endTurn()
	l.sendPosted()
	if more {
		l.goOnLater()
	}
}

// sendPosted has the messages leave that have been posted in this turn.
func (l *Loop) sendPosted() {
	for _, to := range l.posted {
		if l.reactor.loops[to].deliver(&l.outbox[to]) && to != l.index {
			l.traffic.WakeUps++
		}
		l.outbox[to] = batch{}
	}
	l.posted = l.posted[:0]
}

// goOnLater has another turn follow after those of the sockets: the wake-up comes behind what epoll has to report already.
func (l *Loop) goOnLater() {
	if !l.behind {
		l.behind = true
		l.wake()
	}
}

// endTurn closes the connections that have ended in this turn, which may end more of them, and reports whether there is
// work left for another one.
func (l *Loop) endTurn() (more bool) {
	for {
		more = l.handler.EndTurn()
		if len(l.ending) == 0 {
			return more || len(l.readers) > 0 || len(l.sippers) > 0
		}
		if !l.Spend(closeUnits) {
			return true
		}
		e := l.ending[0]
		l.ending[0], l.ending = ended{}, l.ending[1:]
		e.conn.close(e.reason)
	}
}

// readRests reads for half-closed connections, a piece for each of some.
func (l *Loop) readRests() {
	if len(l.readers) == 0 {
		return
	}
	if l.buf == nil {
		l.buf = make([]byte, readPiece)
	}
	some := l.readers[:min(len(l.readers), maxRests)]
	l.readers = append([]*Conn(nil), l.readers[len(some):]...) // readRest may add to them
	for i, c := range some {
		if !l.Spend(1) {
			l.readers = append(some[i:], l.readers...)
			return
		}
		c.readRest(l.buf)
	}
}

// receive handles the messages that have come, as far as the turn may, and reports whether more are waiting.
func (l *Loop) receive() (more bool) {
	if l.inbox == nil {
		l.inbox = l.mailbox.take()
	}
	for l.inbox != nil && l.Spend(1) {
		m := l.inbox
		l.inbox, m.next = m.next, nil
		switch body := m.Body.(type) {
		case *transfer:
			body.fail()
		case *room:
			body.arrived()
		case *parking:
			l.parking = body
		case *dropBlanks:
			l.dropBlanks(body)
		default:
			l.handler.Receive(m)
		}
	}
	return l.inbox != nil || l.mailbox.top.Load() != nil
}

// expire handles the timers that have run out, as far as the turn may, and reports whether more are due.
func (l *Loop) expire() (more bool) {
	if l.wheel.Len() == 0 {
		return false
	}
	now := l.reactor.tick()
	l.wheel.Advance(now)
	for l.Spend(1) {
		t := l.wheel.Pop()
		if t == nil {
			break
		}
		if c, ok := t.Tag.(*Conn); ok {
			c.look()
		} else {
			l.handler.Expire(t)
		}
	}
	next := l.wheel.Next()
	if next <= now {
		return true
	}
	l.setAlarm(next)
	return false
}

// setAlarm has the ticker wake the loop at a tick, if it would not do so earlier.
func (l *Loop) setAlarm(at Tick) {
	if at < Tick(l.alarm.Load()) {
		l.alarm.Store(int64(at))
		l.reactor.ticker.notify(at)
	}
}

// deliver puts a batch into the mailbox and wakes the loop if it was empty: one wake-up serves all that follows until
// the loop looks. It reports whether it did. Safe from any goroutine.
func (l *Loop) deliver(b *batch) (woken bool) {
	if !l.mailbox.push(b) {
		return false
	}
	l.wake()
	return true
}
