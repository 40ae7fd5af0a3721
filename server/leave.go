package server

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"time"

	"dreadlock/lockmgr"
	"dreadlock/server/fleet"
)

// errBusy says that something is under way that cannot be handed over yet.
var errBusy = errors.New("the loops do not come to rest")

// loopEstate is what one loop contributes to an estate.
type loopEstate struct {
	part    []byte // a loopLeft, as gob
	sockets []int  // of the sessions that are carried, in their order
	size    estateSize
	digest  digest
	// encrypted is the number of connections that are not carried.
	encrypted int

	at        time.Duration // when it was made
	nextToken uint64
	opens     time.Duration
}

// leaver makes the estate of one loop. It changes nothing: the server goes on as if nothing had been if it is not taken over.
type leaver struct {
	*worker
	left      loopLeft
	encrypted int
	sockets   []int
	entrances map[*entrance]int
	formers   map[*lockmgr.Owner]int // by their places in the list, counted from 1
	turns     map[*session]int       // the same
	places    map[*place]int         // the same
}

// leave returns what the loop hands over. It is called on the loop, which stands still with all the others, and is settled. After
// an error, which is errBusy, it is not.
func (w *worker) leave() (*loopEstate, error) {
	l := &leaver{worker: w, entrances: make(map[*entrance]int), formers: make(map[*lockmgr.Owner]int), turns: make(map[*session]int)}
	if w.shard.lines != nil {
		l.left.Lines, l.places = w.shard.lines.left()
	}
	for s := w.roster.turns.first; s != nil; s = s.nextTurn {
		l.turns[s] = len(l.turns) + 1
	}
	l.left.Sessions = make([]sessionLeft, 0, w.roster.sessions.len())
	for _, s := range w.roster.sessions.members {
		if err := l.addSession(s); err != nil {
			return nil, err
		}
	}
	l.addFormers()
	if err := l.addKeys(); err != nil {
		return nil, err
	}
	l.left.Counters = w.counters.left(w.loop.Traffic())
	table := w.shard.table
	e := &loopEstate{
		sockets: l.sockets, encrypted: l.encrypted,
		size: estateSize{
			Sessions: len(l.left.Sessions), Keys: table.Keys(), Resting: table.Resting(), Waiters: table.Waiters(),
		},
		at: w.loop.Now(), nextToken: table.NextToken(), opens: table.Opens(),
	}
	e.digest.addTable(table)
	var part bytes.Buffer
	if err := gob.NewEncoder(&part).Encode(&l.left); err != nil {
		return nil, fmt.Errorf("encode the estate: %w", err)
	}
	e.part = part.Bytes()
	return e, nil
}

// addSession adds a session. One that cannot be carried is added if it has something to lose: others must not get that before its client
// can know.
func (l *leaver) addSession(s *session) error {
	carried := !s.conn.Encrypted()
	if !carried {
		l.encrypted++
	}
	switch {
	case !s.isSettled(), carried && !s.conn.IsOpen():
		return fmt.Errorf("%w: connection %d has something under way", errBusy, s.id())
	case !carried && s.phase >= ended:
		return nil
	case !carried && s.keys == 0 && s.outstanding == 0:
		l.left.Dropped++
		return nil
	}
	left := sessionLeft{
		Identity: l.identity(s.known()),
		Since:    s.since,
		Carried:  carried,
		Pending:  s.pending.bytes(),
		Ahead:    s.pending.ahead,
		Serial:   s.request.serial,
		Keys:     int(s.keys),
		Turn:     l.turns[s],
		HalfShut: s.phase == inputEnded,
		Stalled:  s.stalled,
		Newcomer: s.newcomer,
	}
	left.Command, left.Length = s.parser.Begun()
	if s.phase == ended {
		left.Ended = reasonWords[s.why]
	}
	if carried {
		fd, state := s.conn.Export()
		left.Conn = state
		l.sockets = append(l.sockets, fd)
	}
	l.left.Sessions = append(l.left.Sessions, left)
	return nil
}

// isSettled reports whether the session has no command under way, or one that waits in a queue or for the store. All loops must stand
// still.
func (s *session) isSettled() bool {
	return s.phase >= ended || s.outstanding == 0 || s.outstanding == 1 && (s.request.waiter.Queued() || s.request.behind() != nil)
}

// identity returns what is known about a client.
func (l *leaver) identity(i *identity) identityLeft {
	a := i.more()
	left := identityLeft{
		Connection: uint64(i.connection), Address: i.address.AddrPort, Entrance: l.entrance(i.address.entrance),
		Proven: a.proven, Name: a.name, Owner: a.owner, Changes: a.changes,
	}
	if a.kick != nil {
		left.KickedBy = a.kick.by
	}
	return left
}

// entrance returns the place of an entrance in the list.
func (l *leaver) entrance(e *entrance) int {
	at, ok := l.entrances[e]
	if !ok {
		at = len(l.left.Entrances)
		l.entrances[e] = at
		l.left.Entrances = append(l.left.Entrances, entranceLeft{URL: e.url, Client: e.client, TLS: e.tls})
	}
	return at
}

// addFormers adds those who have ended and whose keys have not all gone on.
func (l *leaver) addFormers() {
	for _, o := range l.shard.releasing {
		if !o.Closed() || o.Keys() == 0 && o != &l.shard.unknown { // its last key was taken
			continue
		}
		var left formerLeft
		left.Ended, left.Until = l.shard.table.Former(o)
		switch h := o.Tag.(holder).(type) {
		case unknownHolder:
			left.Unknown = true
		default:
			left.Identity, left.Why = l.identity(h.known()), reasonWords[h.ending()]
		}
		l.left.Formers = append(l.left.Formers, left)
		l.formers[o] = len(l.left.Formers)
	}
}

// addKeys adds the keys of the shard.
func (l *leaver) addKeys() (err error) {
	l.left.Keys = make([]keyLeft, 0, l.shard.table.Keys()+l.shard.table.Resting())
	l.shard.table.Each(func(h lockmgr.Holding) {
		k := keyLeft{Key: h.Key, Token: h.Token, Since: h.Since, Former: l.formers[h.Owner]}
		switch who := h.Owner.Tag.(type) {
		case *place:
			k.Place = l.places[who]
		case *session:
			if !h.Closed {
				k.Session = uint64(who.id())
			}
		}
		if k.Session == 0 && k.Former == 0 && k.Place == 0 {
			err = fmt.Errorf("%w: the key %.64q has no holder", errBusy, h.Key)
		}
		if h.Waiters > 0 {
			k.Queue = make([]waitLeft, 0, h.Waiters)
		}
		for w := h.First; w != nil; w = w.Next() {
			k.Queue = append(k.Queue, l.wait(w))
		}
		l.left.Keys = append(l.left.Keys, k)
	})
	return err
}

// wait returns a wait of a session or of a place.
func (l *leaver) wait(w *lockmgr.Waiter) (left waitLeft) {
	q := w.Tag.(queued)
	left.Since, left.Timeout = q.wait()
	switch who := q.(type) {
	case *place:
		left.Place = l.places[who]
	case *request:
		left.Session, left.Suspect = uint64(who.session.id()), who.suspect > 0
	}
	return left
}

// newEstate returns what the server hands over, from what its loops and the store of its fleet do. Safe from any goroutine: the loops
// may go on meanwhile, if they have stood still for too long.
func (srv *Server) newEstate(loops []*loopEstate, legacy *fleet.Legacy) *estate {
	e := &estate{
		Space:     srv.space,
		LastID:    srv.lastID.Load(),
		Untaken:   srv.takeoversFailed.Load(),
		Refused:   srv.refused(),
		Failed:    srv.acceptErrors.counts(),
		Deadlocks: srv.detector.left(),
		Fleet:     legacy,
	}
	if service := srv.now(); service != nil {
		e.Started = service.began
	}
	if srv.takeover != nil {
		e.Takeovers = srv.takeover.Count
	}
	for _, l := range loops {
		e.Parts = append(e.Parts, l.part)
		e.At = max(e.At, l.at)
		e.NextToken = max(e.NextToken, l.nextToken)
		e.Opens = max(e.Opens, l.opens)
		e.Size.add(l.size)
	}
	return e
}

func (s *estateSize) add(o estateSize) {
	s.Sessions += o.Sessions
	s.Keys += o.Keys
	s.Resting += o.Resting
	s.Waiters += o.Waiters
}

// estateDigest is the digest of what the loops hand over.
func estateDigest(loops []*loopEstate) (sum digest) {
	for _, l := range loops {
		sum.sum += l.digest.sum
	}
	return sum
}

// left returns what the detector hands over.
func (d *detector) left() deadlocksLeft {
	standing, found := d.known()
	left := deadlocksLeft{Found: found, Broken: d.broken.Load()}
	for _, c := range standing {
		one := deadlockLeft{Number: c.number, Found: c.found}
		for _, e := range c.waits {
			one.Waits = append(one.Waits, edgeLeft{Waiter: uint64(e.waiter.connection), Serial: e.serial, Grant: e.grant})
		}
		left.Standing = append(left.Standing, one)
	}
	return left
}
