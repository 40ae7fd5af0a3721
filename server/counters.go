package server

import (
	"maps"
	"sync"
	"time"

	"dreadlock/proto"
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
	idle        // never sent a command
	drained     // it held nothing when the server was about to end
	reasons int = iota
)

// waitBounds are the upper bounds of the buckets for waits: from what nobody notices to what somebody will complain
// about.
var waitBounds = [...]time.Duration{
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second,
	2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute,
}

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
	waits       [len(waitBounds) + 1]uint64
	waited      time.Duration // sum of all waits
}

// wait counts a wait that has ended by a grant or a timeout.
func (c *counters) wait(d time.Duration) {
	bucket := 0
	for bucket < len(waitBounds) && d > waitBounds[bucket] {
		bucket++
	}
	c.waits[bucket]++
	c.waited += d
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
	addAll(c.waits[:], o.waits[:])
	c.waited += o.waited
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
		Waits: api.Histogram{Counts: c.waits[:], Sum: c.waited.Seconds()},
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
	for _, bound := range waitBounds {
		w.Waits.Bounds = append(w.Waits.Bounds, bound.Seconds())
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

func (c *errorCounts) add(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byName == nil {
		c.byName = make(map[string]uint64)
	}
	c.byName[name]++
}

// counts returns a copy of the counts, never nil.
func (c *errorCounts) counts() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := make(map[string]uint64, len(c.byName))
	maps.Copy(counts, c.byName)
	return counts
}
