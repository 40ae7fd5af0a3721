package server

import (
	"os"
	"time"

	"github.com/rs/zerolog"

	"dreadlock/reactor"
	"dreadlock/server/api"
	"dreadlock/server/unixsock"
)

// What is left to do for a server whose successor serves: nothing that the loops have is touched any more.

// finish is the end of the server: the successor serves. What the loops have is left as it is, for ever.
func (h *handover) finish(by string) *api.Takeover {
	t := h.report()
	h.turnover.handOver()
	_ = h.standstill.Each(func(l *reactor.Loop) { h.shards[l.Index()].roster.farewell() }) // they stand for good
	h.yieldFleet()
	for _, e := range h.entrances {
		if l, ok := e.listener.(*unixsock.Listener); ok {
			l.Leave()
		}
	}
	h.warnings.Flush()
	h.logTakeover(t).Str("by", by).Int("pid", t.PID).Str("version", t.Version).Msg("dreadlock has handed over: the new process serves")
	if h.cfg.HandedOver != nil {
		h.cfg.HandedOver(t, h.successor)
	}
	h.successor.Leave()
	return t
}

// logTakeover returns a line about a takeover, for either side of it.
func (srv *Server) logTakeover(t *api.Takeover) *zerolog.Event {
	level := zerolog.InfoLevel
	if t.Closed > 0 {
		level = zerolog.WarnLevel
	}
	return srv.cfg.Log.WithLevel(level).
		Int("connections", t.Connections).
		Int("held_keys", t.HeldKeys).
		Int("waiters", t.Waiters).
		Int("closed", t.Closed).
		Float64("pause_seconds", t.PauseSeconds)
}

// farewell tells the clients of the sessions that are not carried that their connections end. The loop stands still, for good.
func (ro *roster) farewell() {
	for _, s := range ro.sessions.members {
		if s.conn.Encrypted() {
			s.sock.Farewell()
		}
	}
}

// report says what was handed over.
func (h *handover) report() *api.Takeover {
	return &api.Takeover{
		At: time.Now(), Count: h.takeovers() + 1,
		FromPID: os.Getpid(), FromVersion: h.cfg.Version, PID: h.successor.PID(), Version: h.prepared.Version,
		PauseSeconds: time.Since(h.since).Seconds(),
		Connections:  h.carried, HeldKeys: h.size.Keys, Waiters: h.size.Waiters, Closed: h.encrypted,
	}
}

// takeovers returns the number of those since the server started with nothing.
func (srv *Server) takeovers() uint64 {
	if srv.takeover == nil {
		return 0
	}
	return srv.takeover.Count
}
