package faults

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"
)

// What the histories of a fleet are judged by, beside the rules of the function check. A client holds a key from the moment when it has
// read that it does, until it has sent the unlock, or until the last moment at which it has seen that its connection had not ended: no
// margin.
//
// Some rules are weaker than those for a daemon that is alone:
//
//   - While a daemon is stopped (SIGSTOP) it cannot end the connections of those who lose their keys, and when a lease is revoked by
//     hand it cannot do so in time. What was granted before, or asked meanwhile, is held for certain until then only: see doubt. The
//     rule of the tokens holds all the same, but for a lease that is revoked, which its daemon does not know for a moment.
//   - A daemon may end connections when its lease or its process ends: see node.fallible.
//   - The order of two who wait at different daemons is known some time after the first is seen to wait: see node.slack.
//   - A key may be refused that nobody holds: whoever held it has died, or etcd did not answer in time.

// doubt is a time in which a daemon may not do what it has to.
type doubt struct {
	from, to moment
	revoked  bool // its lease was revoked by hand
}

// begin begins a doubt. It lasts until end is called.
func (n *node) begin(revoked bool) (end func()) {
	d := &doubt{from: now(), to: never, revoked: revoked}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.doubts = append(n.doubts, d)
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		d.to = now()
	}
}

// noOrder is a slack after which nothing is known.
const noOrder = time.Duration(math.MaxInt64 / 4)

// slack returns how long after a session is seen to wait another one has to stand behind it.
func slack(first, second *session) time.Duration {
	if first.node == second.node {
		return 0
	}
	return max(first.node.slack, second.node.slack)
}

// fallible reports whether the connection may end at any time.
func (s *session) fallible() bool { return s.node != nil && s.node.fallible }

// certainUntil returns until when the session certainly had the key of a grant, at most until the given moment.
func (s *session) certainUntil(grant *operation, until moment) moment {
	if s.node == nil {
		return until
	}
	if s.node.fallible {
		until = min(until, s.alive)
	}
	for _, d := range s.node.doubts {
		if grant.sent < d.to {
			until = min(until, d.from)
		}
	}
	return until
}

// checkTokens looks for a token that is not greater than one that was known before its grant was asked for, or than that of a grant
// which certainly came before, and for one that was given twice.
func (v *verdict) checkTokens(key string, grants []wait) {
	slices.SortFunc(grants, func(a, b wait) int { return cmp.Compare(a.token, b.token) })
	earliest := never // that a token greater than the one at hand was read
	var greater *wait
	for i := len(grants) - 1; i >= 0; i-- {
		g := &grants[i]
		if i > 0 && grants[i-1].token == g.token {
			v.violate("key %s: sessions %d and %d had the same token %d", key, grants[i-1].session.id, g.session.id, g.token)
		}
		if g.inRevoked() {
			continue
		}
		if earliest < g.sent {
			v.violate("key %s: session %d asked after session %d had read its token %d, and has the token %d", key,
				g.session.id, greater.session.id, greater.token, g.token)
		}
		if g.tokenRead < earliest {
			earliest, greater = g.tokenRead, g
		}
	}
	held := slices.DeleteFunc(grants, func(g wait) bool { return g.until <= g.answered })
	slices.SortFunc(held, func(a, b wait) int { return cmp.Compare(a.answered, b.answered) })
	for i := 1; i < len(held); i++ {
		if first, second := &held[i-1], &held[i]; first.token >= second.token {
			v.violate("key %s: session %d held it before session %d, with the token %d before %d", key,
				first.session.id, second.session.id, first.token, second.token)
		}
	}
}

// inRevoked reports whether the grant was made while its daemon did not know that its lease was revoked.
func (w *wait) inRevoked() bool {
	return w.session.node != nil && slices.ContainsFunc(w.session.node.doubts, func(d *doubt) bool {
		return d.revoked && w.sent < d.to && w.answered > d.from
	})
}

// resource is something that holders of keys write to. It takes no write with a token that is smaller than one it has seen.
type resource struct {
	mu      sync.Mutex
	keys    map[string]*written
	writes  int64
	refused int64
	// twice are the writes that were taken with the token of another session.
	twice []string
}

// written is what was written last.
type written struct {
	token   uint64
	session int
}

// refusal is a write that was refused.
type refusal struct {
	key string
	at  moment // before the write
}

// write is a write of a session that was refused.
type write struct {
	session *session
	refusal
}

// write writes with a token, and reports whether that was taken.
func (r *resource) write(key string, token uint64, session int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.keys[key]
	if last == nil {
		last = &written{}
		r.keys[key] = last
	}
	r.writes++
	switch {
	case token < last.token:
		r.refused++
		return false
	case token == last.token && session != last.session:
		r.twice = append(r.twice, key+": token "+strconv.FormatUint(token, 10))
	}
	*last = written{token, session}
	return true
}

// checkWrites looks for a holder that was refused: somebody else has got in with a greater token.
func (v *verdict) checkWrites(key string, k *keyHistory) {
	told := make(map[*session]bool)
	for _, w := range k.refused {
		held := func(h hold) bool { return h.session == w.session && h.from <= w.at && w.at < h.to }
		if !told[w.session] && slices.ContainsFunc(k.certain, held) {
			told[w.session] = true
			v.violate("key %s: the resource has refused a write of session %d, which held it", key, w.session.id)
		}
	}
}
