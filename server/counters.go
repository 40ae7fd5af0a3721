package server

import (
	"maps"
	"sync"

	"dreadlock/proto"
	"dreadlock/reactor"
	"dreadlock/server/api"
)

// reason is why a session ended.
type reason uint8

const (
	clientClosed reason = iota // the end of its input
	broken                     // a reset, or a host that does not answer
	syntaxError
	tooMuch // sent or left unread, by a client that cannot be held back
	kicked
	idle           // never sent a command
	drained        // it held nothing when the server was about to end
	outOfTouch     // the server has lost touch with its fleet
	notCarried     // the server was taken over, and the connection could not be
	reasons    int = iota
)

// waitEnd is how a wait ended.
type waitEnd uint8

const (
	waitLocked   waitEnd = iota // by a grant
	waitTimedOut                // its time ran out
	waitKicked                  // an operator closed the connection
	waitDeadlock                // to break a deadlock
	waitLost                    // the connection ended, or its input
	waitEnds     int     = iota
)

// counters are what a worker has counted. They belong to its loop, as plain numbers: who wants to know asks the loop.
type counters struct {
	commands    [proto.NumKinds][proto.NumReplies]uint64 // answered, by kind and reply
	accepted    uint64
	moves       uint64 // to this loop
	grants      uint64
	timeouts    uint64
	disconnects [reasons]uint64
	paused      uint64 // clients held back for what they sent
	stalled     uint64 // and for what they did not read
	limitHits   [limits]uint64
	waits       [waitEnds]histogram
	holds       histogram
	before      reactor.Traffic // of the loops of predecessors
}

// add adds what another worker has counted.
func (c *counters) add(o *counters) {
	for kind := range c.commands {
		addAll(c.commands[kind][:], o.commands[kind][:])
	}
	c.accepted += o.accepted
	c.moves += o.moves
	c.grants += o.grants
	c.timeouts += o.timeouts
	addAll(c.disconnects[:], o.disconnects[:])
	c.paused += o.paused
	c.stalled += o.stalled
	addAll(c.limitHits[:], o.limitHits[:])
	for how := range c.waits {
		c.waits[how].merge(&o.waits[how])
	}
	c.holds.merge(&o.holds)
	c.before.Messages += o.before.Messages
	c.before.WakeUps += o.before.WakeUps
}

func addAll(sums, numbers []uint64) {
	for i, n := range numbers {
		sums[i] += n
	}
}

// reasonWords name the reasons for the end of a session.
var reasonWords = [reasons]string{
	clientClosed: api.ClientClosed,
	broken:       api.Broken,
	syntaxError:  api.SyntaxError,
	tooMuch:      api.TooMuch,
	kicked:       api.Kicked,
	idle:         api.IdleTimeout,
	drained:      api.Drained,
	outOfTouch:   api.OutOfTouch,
	notCarried:   api.NotCarried,
}

// waitWords name the ends of waits.
var waitWords = [waitEnds]string{
	waitLocked:   api.WaitLocked,
	waitTimedOut: api.WaitTimedOut,
	waitKicked:   api.WaitKicked,
	waitDeadlock: api.WaitDeadlock,
	waitLost:     api.WaitLost,
}

// words returns the counters as the API names them, with those of the refused connections.
func (c *counters) words(refused map[string]uint64) api.Counters {
	w := api.Counters{
		Accepted:    c.accepted,
		Grants:      c.grants,
		Timeouts:    c.timeouts,
		Disconnects: make(map[string]uint64, reasons),
		Refused:     refused,
		Moves:       c.moves,
		LimitHits: map[string]uint64{
			api.LimitConnections: refused[api.RefusedMaxConnections],
			api.LimitPipeline:    c.paused,
			api.LimitOutput:      c.stalled,
			api.LimitMemory:      refused[api.RefusedMaxMemory],
		},
		WaitsByOutcome: make(map[string]api.Histogram, waitEnds),
		Holds:          c.holds.words(),
	}
	answered := c.waits[waitLocked]
	answered.merge(&c.waits[waitTimedOut])
	w.Waits = answered.words()
	for how, word := range waitWords {
		w.WaitsByOutcome[word] = c.waits[how].words()
	}
	for l := noLimit + 1; int(l) < limits; l++ {
		w.LimitHits[limitWords[l]] += c.limitHits[l]
	}
	for kind := proto.Lock; kind < proto.NumKinds; kind++ {
		for _, a := range kind.Replies() {
			w.Commands = append(w.Commands, api.CommandCount{Kind: kind.String(), Outcome: a.Outcome(), Count: c.commands[kind][a]})
		}
	}
	for why, word := range reasonWords {
		w.Disconnects[word] = c.disconnects[why]
	}
	return w
}

// refused returns how many connections were kept out, by reason.
func (srv *Server) refused() map[string]uint64 {
	counts := make(map[string]uint64, barriers)
	for b, word := range barrierWords {
		counts[word] = srv.barred[b].Load()
	}
	return counts
}

// errorCounts counts errors by name. It is safe from any goroutine.
type errorCounts struct {
	mu     sync.Mutex
	byName map[string]uint64
}

func (c *errorCounts) add(name string) { c.addMany(name, 1) }

// addMany counts n errors of one name.
func (c *errorCounts) addMany(name string, n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byName == nil {
		c.byName = make(map[string]uint64)
	}
	c.byName[name] += n
}

// counts returns a copy of the counts, never nil.
func (c *errorCounts) counts() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := make(map[string]uint64, len(c.byName))
	maps.Copy(counts, c.byName)
	return counts
}
