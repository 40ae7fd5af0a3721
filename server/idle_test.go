package server

import (
	"testing"
	"time"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// hasEnded reports whether the server has ended the connection of a client.
func (c *simClient) hasEnded() bool { return !c.open }

// Who has sent no command for the whole time is dropped, and nobody else, however silent.
func TestIdleTimeout(t *testing.T) {
	const timeout = time.Minute
	s := newSim(2, moveAfter)
	s.server.cfg.IdleTimeout = timeout
	pass := func(d time.Duration) {
		s.pass(d)
		s.settle()
	}
	key := s.key("a", 1)
	holder := s.connect("holder", 0)
	holder.send("lock " + key + " 0\r\n")
	waiter := s.connect("waiter", 0)
	waiter.send("lock " + key + " 600000000\r\n")
	named := s.connect("named", 1)
	named.send("name ann\r\n")
	silent := s.connect("silent", 0)
	half := s.connect("half", 1)
	half.send("lock a")
	gone := s.connect("gone", 0)
	pass(timeout / 2)
	late := s.connect("late", 0)
	gone.closeWrite()
	half.send(" 0")
	pass(timeout/2 - simTick)
	for _, c := range s.clients {
		if c.hasEnded() != (c == gone) {
			t.Errorf("before the time is up, %s has ended: %t", c.name, c.hasEnded())
		}
	}
	pass(simTick)
	for _, c := range s.clients {
		if want := c == gone || c == silent || c == half; c.hasEnded() != want {
			t.Errorf("when the time is up, %s has ended: %t, want %t", c.name, c.hasEnded(), want)
		}
	}
	spoke := s.connect("spoke", 0)
	pass(timeout/2 - simTick)
	late.send("unlock b\r\n") // in the last moment
	spoke.send("unlock b\r\n")
	pass(100 * timeout)
	for _, c := range []*simClient{holder, waiter, named, late, spoke} {
		if c.hasEnded() {
			t.Errorf("%s has sent a command, and was dropped", c.name)
		}
	}
	if got := s.loops[0].worker.counters.disconnects[idle] + s.loops[1].worker.counters.disconnects[idle]; got != 2 {
		t.Errorf("%d were dropped, want 2", got)
	}
	for _, l := range s.loops {
		if n := l.worker.roster.newcomers; n.oldest != nil || n.newest != nil || n.running {
			t.Errorf("loop %d has newcomers left: %+v", l.index, n)
		}
	}
	if err := s.check(); err != nil {
		t.Error(err)
	}
}

// However many are dropped at the same time, a turn ends some of them only.
func TestManyIdle(t *testing.T) {
	const budget = 256
	const clients = 2*budget + 1
	s := newSim(1, moveAfter)
	s.budget = budget
	s.server.cfg.MaxConnections, s.server.cfg.IdleTimeout = clients, time.Second
	for range clients {
		s.connect("silent", 0)
	}
	s.pass(time.Second)
	if s.loops[0].expire(); s.loops[0].worker.roster.sessions.len() != clients-budget {
		t.Errorf("after a turn %d of %d are left", s.loops[0].worker.roster.sessions.len(), clients)
	}
	for range 3 {
		s.pass(simTick)
		s.settle()
	}
	if n := s.loops[0].worker.roster.sessions.len(); n != 0 {
		t.Errorf("%d are left", n)
	}
}

// Without the option nobody is watched.
func TestNoIdleTimeout(t *testing.T) {
	s := newSim(1, moveAfter)
	c := s.connect("silent", 0)
	s.pass(1000 * time.Hour)
	s.settle()
	if c.hasEnded() || s.loops[0].wheel.Len() > 0 || c.session.newcomer {
		t.Error("a silent client is watched")
	}
}

// The same with sockets: the client sees the end, and the log and the counters say why.
func TestIdleClient(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.IdleTimeout = time.Second })
	busy := d.dial()
	busy.Do("lock a 0", "l locked")
	began := time.Now()
	silent := d.dial()
	silent.ExpectEnd()
	if took := time.Since(began); took < time.Second {
		t.Errorf("dropped after %s", took)
	}
	other := prototest.Dial(t, d.address)
	other.Write([]byte("lock b"))
	other.ExpectEnd()
	busy.Do("unlock a", "u unlocked")
	if n := d.status().Counters.Disconnects[api.IdleTimeout]; n != 2 {
		t.Errorf("%d are counted, want 2", n)
	}
	if len(d.log.containing("has sent no command since it connected", "--idle-timeout", silent.Conn().LocalAddr().String())) != 1 {
		t.Error("the log does not say so")
	}
}
