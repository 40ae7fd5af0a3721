package server

import (
	"time"

	"dreadlock/reactor"
)

const (
	// maxRefusals is the number of refused connections that may be open for a moment, beyond the connection limit.
	maxRefusals = 64
	// refusalTime is how long such a connection stays open for the client to hear why.
	refusalTime = time.Second
)

// refusal is the client of a connection that is not served. While the server drains or stops, it closes the connection at
// once. Beyond the limit it says so and waits for the client to close: if it closed first while the client's first command is
// unread, the kernel would reset the connection, and the answer could be lost.
type refusal struct {
	conn    reactor.Conn
	worker  *worker
	arrival *arrival
	timer   reactor.Timer // Tag: the refusal
}

// Conn returns the connection.
func (f *refusal) Conn() *reactor.Conn { return &f.conn }

// Opened refuses.
func (f *refusal) Opened() {
	if f.worker.closed || f.worker.drains {
		f.conn.Close()
		return
	}
	f.conn.Write(f.arrival.refusal.Append(nil))
	f.conn.CloseWrite()
	f.timer.Tag = f
	f.worker.loop.StartTimer(&f.timer, refusalTime)
}

// Data ignores what a refused client says.
func (f *refusal) Data([]byte) {}

// Drained does nothing: a refusal has nothing more to say.
func (f *refusal) Drained() {}

// Lingers reports false: when the client closes, it has heard why.
func (f *refusal) Lingers(bool) bool { return false }

// HalfClosed is never called.
func (f *refusal) HalfClosed() {}

// Moved is never called: a refusal stays where it is.
func (f *refusal) Moved(int) {}

// Closed ends the refusal.
func (f *refusal) Closed(error) {
	f.worker.loop.StopTimer(&f.timer)
	f.arrival.leave()
}
