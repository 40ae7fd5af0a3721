package server

import (
	"fmt"
	"slices"
	"strings"

	"dreadlock/lockmgr"
	"dreadlock/proto"
	"dreadlock/server/api"
	"dreadlock/server/fleet"
)

// hear checks what the clients have noticed.
func (w *fleetWorld) hear() {
	for _, s := range w.servers {
		if s.err != nil {
			w.Fatalf("%v", s.err)
		}
		events := s.events
		s.events = nil
		for _, e := range events {
			c := e.client
			switch {
			case e.line == "":
				w.ended(c)
			case len(w.asked[c]) == 0:
				w.Fatalf("%s is told %q and has asked nothing", c.name, e.line)
			default:
				cmd := w.asked[c][0]
				w.asked[c] = w.asked[c][1:]
				if rest := w.asked[c]; len(rest) > 0 && rest[0].order == 0 {
					rest[0].after, rest[0].loop = w.orders, c.loop // it was executed after this answer
				}
				if e.late && (e.line == "l locked" || e.line == "e already locked" || strings.HasPrefix(e.line, "f ")) {
					w.Fatalf("%s is told that it holds %s, when its server has lost touch", c.name, cmd.key)
				}
				w.answered(s, c, cmd, e.line)
				for g, n := range w.taken {
					if g.client == c {
						w.taken[g] = max(n-1, 0)
					}
				}
			}
		}
		s.noted.read(w, s.sim)
	}
}

// heed checks that of two grants of a key the later one has the greater token. One of a server whose lease has ended does not count:
// that is what tokens are for.
func (s *fleetServer) heed(e api.Event) {
	w := s.world
	if e.Kind != api.EventGranted || s.isOut() || s.wasOut {
		return
	}
	if e.Token <= w.tokens[e.Key] {
		w.Fatalf("connection %d of %s holds %s by the token %d, after %d\n%s", e.Connection, s, e.Key, e.Token, w.tokens[e.Key], w.state())
	}
	w.tokens[e.Key] = e.Token
}

// ended checks the end of a connection: the answers to what needs no waiting have come.
func (w *fleetWorld) ended(c *simClient) {
	if rest := w.asked[c]; c.half && !w.hurt[c] && c.sim.isTold() && len(rest) > 0 {
		if first := rest[0]; first.kind != proto.Lock || first.timeout == 0 || first.free && w.delay == 0 {
			w.Fatalf("%s has ended its side, and has no answer to %s %s %s\n%s", c.name, first.kind, first.key, first.timeout, w.state())
		}
	}
	w.leave(c)
	delete(w.asked, c)
}

func (w *fleetWorld) answered(s *fleetServer, c *simClient, cmd fleetCommand, line string) {
	w.note("    %s is told %q for %s", c.name, line, cmd.key)
	answer, err := proto.ParseReply([]byte(line + "\r\n"))
	if err != nil || !slices.Contains(cmd.kind.Replies(), answer.Reply) {
		w.Fatalf("%s is told %q after %s %s", c.name, line, cmd.kind, cmd.key)
	}
	held := answer.Reply == proto.TimedOut && cmd.timeout == 0 || answer.Reply == proto.NotOwner
	if cmd.free && held && w.delay == 0 && !s.isOut() && w.now < cmd.sentAt+tryTime {
		w.Fatalf("%s is told %q after %s %s, which was free all the time", c.name, line, cmd.kind, cmd.key)
	}
	switch answer.Reply {
	case proto.Locked:
		w.lockedBy(s, c, &cmd)
	case proto.TimedOut:
		if w.now < cmd.sentAt+cmd.timeout {
			w.Fatalf("%s has waited for %s until %s, and asked at %s for %s", c.name, cmd.key, w.now, cmd.sentAt, cmd.timeout)
		}
	case proto.Token:
		if w.told[cmd.key] == c {
			if was := w.fenced[cmd.key]; answer.Token < was.token || answer.Token == was.token && was.grant != w.grants[cmd.key] {
				w.Fatalf("%s has the token %d for %s, after %d", c.name, answer.Token, cmd.key, was.token)
			}
			w.fenced[cmd.key] = fenced{answer.Token, w.grants[cmd.key]}
		}
	}
}

// lockedBy checks that a client may be told that it holds a key.
func (w *fleetWorld) lockedBy(s *fleetServer, c *simClient, cmd *fleetCommand) {
	w.locked++
	if s.isOut() {
		return // the server cannot know
	}
	w.checkOrder(c, cmd)
	if w.gives(c, cmd.key) || w.taken[simGrant{c, cmd.key}] > 0 {
		return // it is told of what is over
	}
	if holder := w.told[cmd.key]; holder != nil {
		w.Fatalf("%s is told that it holds %s, and so was %s\n%s", c.name, cmd.key, holder.name, w.state())
	}
	if w.now < w.rests[cmd.key] {
		w.Fatalf("%s is told at %s that it holds %s, which rests until %s\n%s", c.name, w.now, cmd.key, w.rests[cmd.key], w.state())
	}
	w.told[cmd.key] = c
	w.grants[cmd.key]++
}

// checkOrder checks that nobody still waits for a key who stood in line for it before its new holder has asked.
func (w *fleetWorld) checkOrder(c *simClient, cmd *fleetCommand) {
	for other, all := range w.asked {
		if other == c || w.leaves[other] || len(all) == 0 || w.now >= all[0].sentAt+all[0].timeout || w.of(other).isOut() {
			continue // it does not wait any more
		}
		if w.taken[simGrant{other, cmd.key}] > 0 {
			continue // it has had the key, and has not been told
		}
		first := &all[0]
		if first.key != cmd.key || first.kind != proto.Lock || first.timeout == 0 {
			continue
		}
		if first.stands > 0 && first.stands <= cmd.quiets {
			w.Fatalf("%s is granted %s before %s, who has waited for longer\n%s", c.name, cmd.key, other.name, w.state())
		}
		if other.sim == c.sim && first.order > 0 && first.order <= cmd.after && first.loop == cmd.loop &&
			(c.loop == cmd.loop || w.retired[cmd.loop]) {
			w.Fatalf("%s is granted %s before %s, who has asked the same daemon before\n%s", c.name, cmd.key, other.name, w.state())
		}
	}
}

// gives reports whether the client has already given up a key that it is told to hold.
func (w *fleetWorld) gives(c *simClient, key string) bool {
	return w.leaves[c] ||
		slices.ContainsFunc(w.asked[c], func(cmd fleetCommand) bool { return cmd.kind == proto.Unlock && cmd.key == key })
}

// checkQuiet checks what must be so when nothing is under way.
func (w *fleetWorld) checkQuiet() {
	waits, wanted := map[string]bool{}, map[string]bool{}
	for _, s := range w.servers {
		if err := s.checkQuiet(); err != nil {
			w.Fatalf("%s: %v\n%s", s, err, w.state())
		}
		for _, c := range s.clients {
			all := w.asked[c]
			for _, cmd := range all {
				wanted[cmd.key] = true
			}
			if c.open && c.half && len(c.unsent) == 0 {
				w.Fatalf("%s has ended its side, and is still connected", c.name)
			}
			if len(all) == 0 || w.leaves[c] {
				continue
			}
			if all[0].stands == 0 {
				all[0].stands = w.quiets
			}
			if r := &c.session.request; w.now > r.waiter.Since()+r.timeout+simTick {
				w.Fatalf("%s waits at %s for %s since %s, for %s at most\n%s", c.name, w.now, all[0].key, r.waiter.Since(), r.timeout, w.state())
			}
			waits[all[0].key] = true
			if all[0].kind != proto.Lock || all[0].timeout == 0 {
				w.Fatalf("%s has no answer to %s %s\n%s", c.name, all[0].kind, all[0].key, w.state())
			}
		}
	}
	for _, key := range w.keys {
		holders := 0
		for _, s := range w.servers {
			if h := s.find(key); h.Owner != nil && !isPlace(h) {
				holders++
			}
		}
		if holders > 1 || holders == 0 && waits[key] {
			w.Fatalf("%s is held by %d clients, and somebody waits for it: %v\n%s", key, holders, waits[key], w.state())
		}
		w.free[key] = holders == 0 && !wanted[key]
	}
	w.checkPlaces(false)
}

// checkPlaces checks that the lines are those of the store, and that no place is kept without need: before another daemon's, in a drain, or
// for longer than idle ones are.
func (w *fleetWorld) checkPlaces(idle bool) {
	for _, key := range w.keys {
		stored := w.log.Line(key)
		for _, s := range w.servers {
			l := s.line(key)
			var known []fleet.Place
			if l != nil {
				for i, p := range l.places {
					known = append(known, p.Place)
					used := l.hasClients()
					followed := i+1 < len(l.places) && !l.places[len(l.places)-1].ours
					if p.stands() && !used && (followed && i == 0 || idle) {
						w.Fatalf("%s keeps the place %s, which nobody needs\n%s", s, p, w.state())
					}
					if p.ours && !p.stands() {
						w.Fatalf("%s has the place %s, and it does not stand\n%s", s, p, w.state())
					}
				}
				if l.joining != nil || len(l.asked) > l.dropped || l.waiters != 0 {
					w.Fatalf("%s has work left for %s\n%s", s, key, w.state())
				}
			}
			if !slices.Equal(stored, known) {
				w.Fatalf("%s knows the places %v, and there are %v\n%s", s, known, stored, w.state())
			}
		}
	}
	for _, s := range w.servers {
		for _, l := range s.loops {
			w.checkLines(s, l.worker.shard.lines)
		}
	}
}

// checkLines checks what the lines of a shard say of themselves.
func (w *fleetWorld) checkLines(s *fleetServer, ls *lines) {
	size, kept := int64(0), 0
	for _, l := range ls.byKey {
		size += l.size() + placeSize*int64(len(l.places))
		if l.ours() != nil {
			kept++
			if !l.isKept || !slices.Contains(ls.kept, l) {
				w.Fatalf("%s does not look after its place for %s", s, l.key)
			}
			if s.drains && !l.hasClients() {
				w.Fatalf("%s drains, and keeps an idle place for %s\n%s", s, l.key, w.state())
			}
		}
		if len(l.places) == 0 {
			w.Fatalf("%s keeps a line for %s without a place", s, l.key)
		}
	}
	if size != ls.size || ls.sweeper.Running() != (len(ls.kept) > 0) || len(ls.decided) > 0 || kept > len(ls.kept) {
		w.Fatalf("%s counts %d bytes, of %d, sweeps %v lines: %v", s, ls.size, size, len(ls.kept), ls.sweeper.Running())
	}
}

// find returns what the server's table says of a key.
func (s *fleetServer) find(key string) lockmgr.Holding {
	hash := s.server.seed.Hash([]byte(key))
	return s.server.shards[s.server.shardOf(hash)].table.Find(hash, []byte(key))
}

// line returns the line of a key, nil if there is none.
func (s *fleetServer) line(key string) *line {
	return s.server.shards[s.server.shardOf(s.server.seed.Hash([]byte(key)))].lines.byKey[key]
}

// state describes the lines of all keys, for a run that has failed.
func (w *fleetWorld) state() string {
	var text strings.Builder
	for _, key := range w.keys {
		fmt.Fprintf(&text, "%s, in the store: %v\n", key, w.log.Line(key))
		for _, s := range w.servers {
			h, l := s.find(key), s.line(key)
			fmt.Fprintf(&text, "  %s, lease %d, ", s, leaseOf(s))
			if h.Owner != nil {
				fmt.Fprintf(&text, "held by %s, %d waiters, rests: %v", holderOf(h).peer().Where(), h.Waiters, h.Closed)
			}
			if l != nil {
				fmt.Fprintf(&text, ", joining %v, asked %d-%d, places", l.joining, len(l.asked), l.dropped)
				for _, p := range l.places {
					fmt.Fprintf(&text, " %s(ours %v try %v leaving %v asked %d)", p, p.ours, p.try, p.leaving, len(p.asked))
				}
			}
			text.WriteString("\n")
		}
	}
	return text.String()
}

func leaseOf(s *fleetServer) int64 {
	if s.link.Connected() {
		return s.link.Lease()
	}
	return 0
}
