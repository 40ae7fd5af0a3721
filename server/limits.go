package server

import (
	"dreadlock/proto"
	"dreadlock/server/api"
)

// limit is what keeps a lock from being granted or queued.
type limit uint8

const (
	noLimit    limit = iota
	maxKeys          // --max-keys
	maxKeySize       // --max-key-bytes
	maxMemory        // --max-memory
	limits     int   = iota
)

var limitWords = [limits]string{
	maxKeys:    api.LimitKeys,
	maxKeySize: api.LimitKeyBytes,
	maxMemory:  api.LimitMemory,
}

// reply returns the answer to a lock that runs into the limit.
func (l limit) reply() proto.Reply {
	if l == maxMemory {
		return proto.OutOfMemory
	}
	return proto.TooManyKeys
}

// keyLimit returns the limit of the session that one more key of that size would exceed.
func (s *session) keyLimit(size int) limit {
	switch cfg := &s.roster.server.cfg; {
	case int(s.keys) >= cfg.MaxKeys:
		return maxKeys
	case s.keyBytes+size > cfg.MaxKeyBytes:
		return maxKeySize
	}
	return noLimit
}

// lockLimit returns the limit that a lock would exceed if it were granted, or queued.
func (sh *shard) lockLimit(r *request) limit {
	if r.limit == noLimit && sh.throttle.level >= full {
		return maxMemory
	}
	return r.limit
}

// refuse answers a lock that would exceed a limit if it were granted or queued. Where it would be neither, the answer is the
// one that it always has.
func (sh *shard) refuse(r *request, l limit) proto.Reply {
	switch h := sh.table.Find(r.hash, r.key); {
	case h.Owner == r.owner:
		return proto.AlreadyLocked
	case h.Owner != nil && r.timeout == 0:
		return proto.TimedOut
	}
	sh.counters.limitHits[l]++
	return l.reply()
}

// addKey and removeKey keep count of what the session holds. They are called for the key of its request.
func (s *session) addKey() {
	s.keys++
	s.keyBytes += int(s.request.size)
}

func (s *session) removeKey() {
	s.keys--
	s.keyBytes -= int(s.request.size)
}
