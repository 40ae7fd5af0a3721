package reactor

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

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
		err = s.on(0, func(l *Loop) {
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
