package reactor

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// takeover has a server take over connections of another one in the same process. The loops of the other one stand still
// from then on until the end of the test, and its descriptors stay open, as those of a predecessor that does not exit.
type takeover struct {
	from     *server
	sessions []*session
	setup    setup                     // of the server that takes over
	adopted  func(i int, s *session)   // called on the loop of each connection, before it begins
	frozen   func(carried []*session)  // called when all is adopted and nothing has begun
	before   func(h *Heir)             // called before anything is made
	begin    func(h *Heir) (end error) // instead of Begin
}

// run returns the server that has taken over, with the sessions in the order of those that they continue.
func (k *takeover) run(tb testing.TB) (srv *server, carried []*session) {
	tb.Helper()
	still := k.from.freeze()
	sockets, states := export(tb, still, k.sessions)
	began := StartedAt(k.from.handlers[0].loop.reactor.Started())
	k.setup.began = began
	k.setup.inherit = func(ctx context.Context, srv *server, h *Heir) (err error) {
		if k.before != nil {
			k.before(h)
		}
		if err := h.MakeBlanks(ctx, len(k.sessions)+k.setup.loops); err != nil {
			return err
		}
		s, err := h.Stand(ctx, patience)
		if err != nil {
			return err
		}
		carried, err = k.adopt(srv, h, s, sockets, states)
		if err != nil {
			return err
		}
		if k.frozen != nil {
			k.frozen(carried)
		}
		if !s.Commit() {
			return ErrReleased
		}
		if k.begin != nil {
			return k.begin(h)
		}
		h.Begin(k.from.keepAlive)
		return nil
	}
	return start(tb, k.setup), carried
}

// adopt has each connection adopted by a loop that has room.
func (k *takeover) adopt(srv *server, h *Heir, still *Standstill, fds []int, states []ConnState) (carried []*session, err error) {
	room := h.Room()
	for i := range fds {
		at := i % len(room)
		if !states[i].HalfClosed {
			at = slices.IndexFunc(room, func(n int) bool { return n > 0 })
			room[at]--
		}
		s := srv.handlers[at].Accept(nil).(*session)
		carried = append(carried, s)
		var failed error
		if err := still.On(at, func(l *Loop) {
			if failed = l.Adopt(s, fds[i], states[i]); failed == nil && k.adopted != nil {
				k.adopted(i, s)
			}
		}); err != nil {
			return nil, err
		}
		if failed != nil {
			return nil, failed
		}
	}
	return carried, nil
}

// freeze has all loops of the server stand still until the end of the test.
func (srv *server) freeze() *Standstill {
	srv.tb.Helper()
	r := srv.handlers[0].loop.reactor
	if err := r.PauseAccepting(srv.tb.Context()); err != nil {
		srv.tb.Fatal(err)
	}
	s, err := r.StandStill(srv.tb.Context(), time.Hour)
	if err != nil {
		srv.tb.Fatal(err)
	}
	srv.tb.Cleanup(func() {
		s.Release()
		r.ResumeAccepting()
	})
	return s
}

// export returns what another process would get of the connections, by SCM_RIGHTS and encoding/gob.
func export(tb testing.TB, still *Standstill, sessions []*session) (fds []int, states []ConnState) {
	tb.Helper()
	fds, exported := make([]int, len(sessions)), make([]ConnState, len(sessions))
	err := still.Each(func(l *Loop) {
		for i, s := range sessions {
			if s.handler.loop == l {
				fds[i], exported[i] = s.conn.Export()
			}
		}
	})
	var encoded bytes.Buffer
	if err == nil {
		err = gob.NewEncoder(&encoded).Encode(exported)
	}
	if err == nil {
		err = gob.NewDecoder(&encoded).Decode(&states)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return pass(tb, fds), states
}

// pass returns duplicates of descriptors, as another process would get them.
func pass(tb testing.TB, fds []int) (passed []int) {
	tb.Helper()
	const most = 253 // SCM_MAX_FD of unix(7)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	rights := make([]byte, unix.CmsgSpace(4*most))
	for some := range slices.Chunk(fds, most) {
		if err := unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(some...), nil, 0); err != nil {
			tb.Fatal(err)
		}
		_, n, _, _, err := unix.Recvmsg(pair[1], make([]byte, 1), rights, unix.MSG_CMSG_CLOEXEC)
		if err != nil {
			tb.Fatal(err)
		}
		messages, err := unix.ParseSocketControlMessage(rights[:n])
		if err != nil || len(messages) != 1 {
			tb.Fatalf("%d messages came with descriptors (%v), want one", len(messages), err)
		}
		came, err := unix.ParseUnixRights(&messages[0])
		if err != nil {
			tb.Fatal(err)
		}
		passed = append(passed, came...)
	}
	return passed
}

// errRefused is why an heir gives up.
var errRefused = errors.New("refused")

// TestInherit is called when the loops run, before anybody is accepted; Run ends with its error, and connections that were
// adopted go on where they were.
func TestInherit(t *testing.T) {
	old := start(t, setup{handler: echoing})
	client, s := old.dial()
	refuse := func(after func(carried []*session)) error {
		still := old.stand(patience)
		fds, states := export(t, still, []*session{s})
		still.Release()
		k := &takeover{}
		_, err := setup{loops: 2, inherit: func(ctx context.Context, srv *server, h *Heir) error {
			if err := h.MakeBlanks(ctx, 1); err != nil {
				return err
			}
			s, err := h.Stand(ctx, patience)
			if err != nil {
				return err
			}
			k.adopted = func(_ int, s *session) { s.conn.Write([]byte("too early")) }
			carried, err := k.adopt(srv, h, s, fds, states)
			if err != nil {
				return err
			}
			send(t, client, "echo")
			after(carried)
			return errRefused
		}}.start(t)
		return err
	}
	for name, after := range map[string]func([]*session){
		"while they stand": func([]*session) {},
		"after a commit": func(carried []*session) {
			carried[0].handler.loop.reactor.standstill.Load().Commit()
		},
		"after the bound": func(carried []*session) {
			carried[0].handler.loop.reactor.standstill.Load().release(standing)
			carried[0].handler.settleSockets(t)
		},
	} {
		if err := refuse(after); !errors.Is(err, errRefused) {
			t.Errorf("%s: Run returned %v, want %v", name, err, errRefused)
		}
		expect(t, client, "echo")
	}
}

// TestInheritStopped has the context of Inherit done when the server is to stop, or when a loop has ended.
func TestInheritStopped(t *testing.T) {
	for name, end := range map[string]func(srv *server, stop func()){
		"stop": func(_ *server, stop func()) { stop() },
		"broken": func(srv *server, _ func()) {
			srv.handlers[0].loop.reactor.breaking.Do(func() { close(srv.handlers[0].loop.reactor.broken) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			srv := &server{}
			err := Run(ctx, Config{
				Loops: 1, Tick: time.Millisecond, KeepAlive: time.Second, Log: zerolog.Nop(),
				NewHandler: func(l *Loop) Handler {
					srv.handlers = append(srv.handlers, &handler{loop: l})
					return srv.handlers[0]
				},
				Inherit: func(ctx context.Context, _ *Heir) error {
					end(srv, stop)
					receive(t, ctx.Done(), "the context is not done")
					return context.Cause(ctx)
				},
				Ready:    func() { t.Error("Ready was called") },
				Stopping: func() { t.Error("Stopping was called") },
				Ending:   func() {},
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Run returned %v, want %v", err, context.Canceled)
			}
		})
	}
}

// TestBeginFails has the kernel refuse to watch a connection: it ends, with the reason, and the others are served.
func TestBeginFails(t *testing.T) {
	old := start(t, setup{})
	client, s0 := old.dial()
	_, s1 := old.dial()
	k := takeover{from: old, sessions: []*session{s0, s1}, setup: setup{}}
	k.adopted = func(i int, s *session) {
		echo(s)
		if i == 1 { // what epoll watches already it does not take again
			if err := watchAdopted(s.handler.loop.epoll, s.conn.fd, watchNothing); err != nil {
				t.Error(err)
			}
		}
	}
	_, carried := k.run(t)
	if err := receive(t, carried[1].ended, "it does not end"); !errors.Is(err, unix.EEXIST) {
		t.Errorf("it ended with %v, want %v", err, unix.EEXIST)
	}
	send(t, client, "echo")
	expect(t, client, "echo")
}

// TestBeginUncommitted panics: the loops might go on by themselves while the predecessor serves.
func TestBeginUncommitted(t *testing.T) {
	withHeir(t, setup{}, func(_ *server, h *Heir) {
		s, err := h.Stand(t.Context(), patience)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Release()
		defer func() {
			if recover() == nil {
				t.Error("it begins")
			}
		}()
		h.Begin(time.Second)
	})
}

// TestStarted has a reactor go on with the time of another: durations since the start are the same in both, or less, so that
// nothing is over early.
func TestStarted(t *testing.T) {
	old := start(t, setup{began: time.Now().Add(-time.Hour)})
	first := old.handlers[0].loop
	srv := start(t, setup{began: StartedAt(first.reactor.Started())})
	second := srv.handlers[0].loop
	if shift := second.Time(0).Sub(first.Time(0)); shift < 0 || shift > time.Second {
		t.Errorf("the second starts %s after the first, want a moment", shift)
	}
	expired := make(chan *Timer, 1)
	second.handler.(*handler).expire = func(timer *Timer) { expired <- timer }
	srv.handlers[0].do(t, func() {
		if now := second.Now(); now < time.Hour || now > time.Hour+patience {
			t.Errorf("it is %s, want an hour", now)
		}
		second.StartTimer(&Timer{}, 20*time.Millisecond)
	})
	began := time.Now()
	receive(t, expired, "a timer does not run out")
	if took := time.Since(began); took < 10*time.Millisecond {
		t.Errorf("a timer of 20ms has run for %s", took)
	}
}

// TestFarewell tells the peers of encrypted connections that nothing more comes, and nobody else.
func TestFarewell(t *testing.T) {
	srv, connect := startTLS(t, setup{})
	conn, s := connect()
	plain, p := srv.dial()
	still := srv.stand(patience)
	_, err := conn.Write([]byte("not read any more"))
	if err == nil {
		err = still.Each(func(*Loop) {
			if !s.conn.Encrypted() || p.conn.Encrypted() {
				t.Error("the one is said to be encrypted, or the other is not")
			}
			s.conn.Farewell()
			p.conn.Farewell()
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	expectEnd(t, conn) // by TLS: else it would be an unexpected end
	still.Release()
	p.do(t, func() { p.conn.Write([]byte("more")) })
	expect(t, plain, "more")
}

// BenchmarkAdopt takes connections over, 1,000 at a time: one operation is one connection, from the descriptor to the moment when it
// is served.
func BenchmarkAdopt(b *testing.B) {
	const batch = 1000
	pairs := make([]int, 0, 2*batch)
	defer func() {
		for _, fd := range pairs {
			_ = unix.Close(fd)
		}
	}()
	b.StopTimer()
	b.ReportAllocs()
	for done := 0; done < b.N; done += batch {
		n := min(batch, b.N-done)
		fds := make([]int, n)
		for i := range fds {
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				b.Fatal(err)
			}
			fds[i] = pair[0]
			pairs = append(pairs, pair[1])
		}
		srv := withHeirOf(b, fds)
		srv.stop()
		for _, fd := range pairs {
			_ = unix.Close(fd)
		}
		pairs = pairs[:0]
	}
}

// withHeirOf returns a server that has adopted sockets, with the timer of the benchmark running from the first to Begin.
func withHeirOf(b *testing.B, fds []int) *server {
	return withHeir(b, setup{}, func(srv *server, h *Heir) {
		if err := h.MakeBlanks(b.Context(), len(fds)); err != nil {
			b.Error(err)
			return
		}
		s, err := h.Stand(b.Context(), patience)
		if err != nil || !s.Commit() {
			b.Errorf("the loops do not stand still: %v", err)
			return
		}
		clients := make([]session, len(fds))
		for i := range clients {
			clients[i] = session{handler: srv.handlers[0], ended: make(chan error, 1)}
		}
		b.StartTimer()
		err = s.On(0, func(l *Loop) {
			for i, fd := range fds {
				if err := l.Adopt(&clients[i], fd, ConnState{}); err != nil {
					b.Error(err)
				}
			}
		})
		h.Begin(time.Second)
		b.StopTimer()
		if err != nil {
			b.Error(err)
		}
	})
}
