package fleettest

import (
	"cmp"
	"slices"
	"sync"
	"testing"
	"time"

	"dreadlock/server/fleet"
)

// Recorder is a member that takes note of what a store tells it, and complains of what a store must not tell.
type Recorder struct {
	// Delay is the lock delay; if Held is set, keys are held whenever a session is lost.
	Delay time.Duration
	Held  bool

	tb testing.TB

	mu      sync.Mutex
	changed chan struct{} // closed at the next call of the store
	session fleet.Session // nil without one
	lines   map[string][]fleet.Change
	came    map[string][]fleet.Change // all places that came, in all sessions
	lost    []error
}

// NewRecorder returns a member of no fleet.
func NewRecorder(tb testing.TB) *Recorder {
	return &Recorder{tb: tb, changed: make(chan struct{}), lines: make(map[string][]fleet.Change), came: make(map[string][]fleet.Change)}
}

// lock begins a call of the store, and returns what ends it.
func (r *Recorder) lock() (unlock func()) {
	r.mu.Lock()
	return func() {
		close(r.changed)
		r.changed = make(chan struct{})
		r.mu.Unlock()
	}
}

// Found begins a session: see [fleet.Member].
func (r *Recorder) Found(s fleet.Session) {
	defer r.lock()()
	if r.session != nil {
		r.tb.Errorf("session %x is found before session %x is lost", s.Lease(), r.session.Lease())
	}
	r.session = s
	clear(r.lines)
}

// GoOn says that the session of before is one of a successor, which the store does not find.
func (r *Recorder) GoOn(s fleet.Session) {
	defer r.lock()()
	if s == nil || r.session == nil || s.Lease() != r.session.Lease() {
		r.tb.Errorf("a successor goes on with the session %v, and there was %v", s, r.session)
	}
	r.session = s
}

// Changed takes changes: see [fleet.Member].
func (r *Recorder) Changed(s fleet.Session, changes []fleet.Change) {
	defer r.lock()()
	if s != r.session {
		r.tb.Errorf("changes of session %x, which is not the present one", s.Lease())
		return
	}
	for _, c := range changes {
		c.Key = slices.Clone(c.Key)
		r.change(string(c.Key), c)
	}
}

func (r *Recorder) change(key string, c fleet.Change) {
	line := r.lines[key]
	at := slices.IndexFunc(line, func(p fleet.Change) bool { return p.Place == c.Place })
	switch {
	case c.Gone && at < 0:
		r.tb.Errorf("%q: place %s goes, and never came", key, c.Place)
	case c.Gone && line[at].Revision != c.Revision:
		r.tb.Errorf("%q: place %s was made at revision %d, and goes with %d", key, c.Place, line[at].Revision, c.Revision)
	case c.Gone:
		r.lines[key] = slices.Delete(line, at, at+1)
	case at >= 0:
		r.tb.Errorf("%q: place %s comes twice", key, c.Place)
	default:
		if n := len(line); n > 0 && !isAfter(c, line[n-1]) {
			r.tb.Errorf("%q: place %s at revision %d comes after %s at %d", key, c.Place, c.Revision, line[n-1].Place, line[n-1].Revision)
		}
		r.lines[key] = append(line, c)
		r.came[key] = append(r.came[key], c)
	}
}

func isAfter(c, before fleet.Change) bool {
	if c.Revision == before.Revision {
		return c.Place.Lease == before.Place.Lease && c.Place.Seq > before.Place.Seq
	}
	return cmp.Less(before.Revision, c.Revision)
}

// Lost ends a session: see [fleet.Member].
func (r *Recorder) Lost(s fleet.Session, reason error) (rests bool) {
	defer r.lock()()
	switch {
	case s != r.session:
		r.tb.Errorf("session %x is lost, which is not the present one", s.Lease())
	case s.Until() != 0:
		r.tb.Errorf("session %x is lost, and grants may be told until %s", s.Lease(), s.Until())
	}
	r.session = nil
	r.lost = append(r.lost, reason)
	return r.Held && r.Delay > 0
}

// Rest returns the lock delay: see [fleet.Member].
func (r *Recorder) Rest() time.Duration { return r.Delay }

// Next returns a channel that is closed when the store has told something more.
func (r *Recorder) Next() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// Session returns the present session, nil if there is none.
func (r *Recorder) Session() fleet.Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.session
}

// Line returns the places of a key, as they are known.
func (r *Recorder) Line(key string) []fleet.Change {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.lines[key])
}

// Came returns all places of a key that have come.
func (r *Recorder) Came(key string) []fleet.Change {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.came[key])
}

// Places returns the number of places that are known.
func (r *Recorder) Places() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, line := range r.lines {
		n += len(line)
	}
	return n
}

// Losses returns why the sessions that have ended did so.
func (r *Recorder) Losses() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.lost)
}
