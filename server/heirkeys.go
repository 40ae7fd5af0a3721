package server

import (
	"time"

	"dreadlock/lockmgr"
	"dreadlock/proto"
	"dreadlock/server/fleet"
)

// link finds who holds the keys, and who waits for them. It is not done on the loops, which stand still, since sessions and keys of
// different loops belong together.
func (h *heir) link(session fleet.Session) error {
	h.beginLines(session)
	for i := range h.parts {
		p := &h.parts[i]
		if err := h.makeFormers(p); err != nil {
			return err
		}
		if err := h.linkLines(p); err != nil {
			return err
		}
		for j := range p.Keys {
			if err := h.linkKey(p, &p.Keys[j], p.hashes[j]); err != nil {
				return badEstate("the key %.64q: %w", p.Keys[j].Key, err)
			}
		}
	}
	if err := h.endLines(); err != nil {
		return err
	}
	for _, n := range h.arrivals {
		if s := n.session; int(s.keys) != n.left.Keys {
			return badEstate("connection %d holds %d keys, and was to hold %d", s.id(), s.keys, n.left.Keys)
		}
	}
	return nil
}

// makeFormers makes room for those of a part who have ended.
func (h *heir) makeFormers(p *partHeir) error {
	for i := range p.Formers {
		left := &p.Formers[i]
		if !left.Unknown {
			if _, err := h.identity(p, &left.Identity); err != nil {
				return err
			}
		}
		p.formers = append(p.formers, make([]*former, len(h.loops)))
	}
	return nil
}

// beginLines begins with the lines of a fleet, if the server is one of one.
func (h *heir) beginLines(session fleet.Session) {
	for _, sh := range h.server.shards {
		if sh.lines != nil {
			h.loops[sh.index].lines = newLinesHeir(sh.lines, session)
		}
	}
}

// ask makes a request that stands behind a place which is to come.
func (h *heir) ask(key []byte, hash uint64, left *askLeft) (*request, error) {
	r, err := h.request(left.Session, hash, key)
	if err != nil {
		return nil, err
	}
	r.timeout, r.suspicious = left.Timeout, left.Suspect
	r.kind, err = kindOf(left.Kind)
	return r, err
}

// endLines has requests stand behind places that are to come.
func (h *heir) endLines() error {
	for i := range h.loops {
		if lines := h.loops[i].lines; lines != nil {
			if err := lines.addAsked(h.ask); err != nil {
				return badEstate("%w", err)
			}
		}
	}
	return nil
}

// sweepsAt returns when the first of the kept lines would have been looked at, 0 if there were none.
func (h *heir) sweepsAt() (at time.Duration) {
	for i := range h.parts {
		if lines := h.parts[i].Lines; lines != nil && lines.SweepsAt > 0 && (at == 0 || lines.SweepsAt < at) {
			at = lines.SweepsAt
		}
	}
	return at
}

// linkLines makes the lines of a part of a fleet.
func (h *heir) linkLines(p *partHeir) error {
	if (p.Lines == nil) != (h.server.cfg.Fleet == nil) {
		return badEstate("a loop has lines of a fleet: %t", p.Lines != nil)
	}
	if p.Lines == nil {
		return nil
	}
	p.places = make([]*place, len(p.Lines.Places))
	for i := range h.loops {
		if err := h.loops[i].lines.addPlaces(p.Lines, p.places); err != nil {
			return badEstate("%w", err)
		}
	}
	h.loops[0].lines.tries += p.Lines.Tries
	return nil
}

// kindOf returns the kind of command about a key that has the word.
func kindOf(word string) (proto.Kind, error) {
	for kind := proto.Lock; kind < proto.NumKinds; kind++ {
		if kind.HasKey() && kind.String() == word {
			return kind, nil
		}
	}
	return 0, badEstate("the command %q is about no key", word)
}

// linkKey gives a key to the loop of its hash.
func (h *heir) linkKey(p *partHeir, left *keyLeft, hash uint64) error {
	shard := h.server.shardOf(hash)
	to := &h.loops[shard]
	key := lockmgr.Restored{Hash: hash, Key: left.Key, Since: left.Since, Token: left.Token}
	var err error
	switch {
	case left.Session != 0 && left.Former == 0 && left.Place == 0:
		key.Owner, err = h.holderOf(left, shard)
	case left.Session == 0 && left.Former != 0 && left.Place == 0:
		key.Owner, err = h.formerOf(p, left, shard)
	case left.Session == 0 && left.Former == 0 && left.Place != 0:
		var place *place
		if place, err = p.placeOf(left.Place); err == nil {
			key.Owner = &place.owner
		}
	default:
		err = badEstate("it has more than one holder, or none")
	}
	if err != nil {
		return err
	}
	for i := range left.Queue {
		w := &left.Queue[i]
		if w.Place != 0 {
			place, err := p.placeOf(w.Place)
			if err != nil {
				return err
			}
			key.Queue = append(key.Queue, lockmgr.RestoredWait{Owner: &place.owner, Waiter: &place.waiter, Since: w.Since})
			continue
		}
		r, err := h.request(w.Session, hash, left.Key)
		if err != nil {
			return err
		}
		if r.session.phase != serving || w.Timeout <= 0 {
			return badEstate("connection %d waits for %s after its end", w.Session, w.Timeout)
		}
		r.kind, r.timeout, r.suspicious = proto.Lock, w.Timeout, w.Suspect
		key.Queue = append(key.Queue, lockmgr.RestoredWait{Owner: r.owner, Waiter: &r.waiter, Since: w.Since})
		to.waits = append(to.waits, r)
	}
	to.keys = append(to.keys, key)
	return nil
}

// holderOf returns what the session that holds a key has in a shard.
func (h *heir) holderOf(left *keyLeft, shard int) (*lockmgr.Owner, error) {
	n := h.sessions[left.Session]
	if n == nil || n.session.phase >= ended {
		return nil, badEstate("connection %d, which holds it, has ended", left.Session)
	}
	s := n.session
	s.keys++
	s.keyBytes += lockmgr.KeySize(len(left.Key))
	return s.ownerOf(shard), nil
}

// ownerOf returns what the session holds in a shard.
func (s *session) ownerOf(shard int) *lockmgr.Owner {
	if shard == s.roster.index {
		return &s.owner
	}
	return s.ownerIn(shard)
}

// formerOf returns what somebody who has ended has in a shard.
func (h *heir) formerOf(p *partHeir, left *keyLeft, shard int) (*lockmgr.Owner, error) {
	if left.Former < 1 || left.Former > len(p.Formers) {
		return nil, badEstate("its former holder is %d of %d", left.Former, len(p.Formers))
	}
	who := &p.Formers[left.Former-1]
	to := &h.loops[shard]
	if who.Unknown {
		to.unknown = true
		return &h.server.shards[shard].unknown, nil
	}
	f := p.formers[left.Former-1][shard]
	if f == nil {
		i, err := h.identity(p, &who.Identity)
		if err != nil {
			return nil, err
		}
		f = newFormer(i, reasonOf(who.Why))
		p.formers[left.Former-1][shard] = f
		to.formers = append(to.formers, formerHeir{f, who.Ended, who.Until})
	}
	return &f.owner, nil
}

// placeOf returns a place by its number.
func (p *partHeir) placeOf(number int) (*place, error) {
	if number < 1 || number > len(p.places) || p.places[number-1] == nil || !p.places[number-1].inTable {
		return nil, badEstate("there is no place %d in it", number)
	}
	return p.places[number-1], nil
}

// request returns the request of a session, which has none yet, for a key.
func (h *heir) request(connection, hash uint64, key []byte) (*request, error) {
	n := h.sessions[connection]
	if n == nil || n.session.phase >= ended {
		return nil, badEstate("connection %d, which waits for it, has ended", connection)
	}
	s := n.session
	if s.outstanding > 0 {
		return nil, badEstate("connection %d waits twice", connection)
	}
	shard := h.server.shardOf(hash)
	s.outstanding = 1
	if shard != s.roster.index {
		s.remoteShard, s.sentAt = int32(shard), h.now
	}
	r := &s.request
	r.mayWait, r.waited = s.phase == serving, true
	r.owner, r.hash, r.key, r.size = s.ownerOf(shard), hash, key, uint32(lockmgr.KeySize(len(key)))
	return r, nil
}
