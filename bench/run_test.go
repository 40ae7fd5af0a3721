package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"testing"
	"time"

	"dreadlock/proto"
	"dreadlock/proto/prototest"
)

// short is a workload that ends soon.
func short(kind Kind) Workload {
	w := Default(kind)
	w.Connections = min(w.Connections, 60)
	w.Warmup, w.Window = 20*time.Millisecond, 100*time.Millisecond
	if kind == Waiters {
		w.Connections = 120
	}
	return w
}

// endless is a workload that only a fault of the server ends.
func endless(kind Kind) Workload {
	w := short(kind)
	w.Window = time.Hour
	return w
}

func TestEveryWorkloadOnEveryServer(t *testing.T) {
	names := []string{
		"dreadlock:2", "gnet:2", "redis", "memcached", "dreadlock:1", "gnet:1", "epoll:2", "dreadlock+tls:2", "dreadlock+unix:2",
		"dreadlock+fleet:2",
	}
	if testing.Short() {
		names = names[:3] // the others add no other kind of server
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			s := startPeer(t, name)
			for _, kind := range Kinds {
				w := short(kind)
				if s.Can(&w) != nil {
					continue
				}
				r, err := Run(t.Context(), &s.Target, w, Options{Loops: 2})
				if err != nil {
					t.Fatal(err)
				}
				checkSane(t, r)
			}
		})
	}
}

// checkSane checks that all figures of the workload are there.
func checkSane(t *testing.T, r *Result) {
	t.Helper()
	t.Logf("%s on %s: %.0f %ss per second", r.Workload.Name(), r.Server, r.Throughput, r.Workload.Kind.Unit())
	if r.Operations < 1 || r.Throughput <= 0 || r.Elapsed <= 0 {
		t.Errorf("%s: operations %d, throughput %g, elapsed %s", r.Workload.Name(), r.Operations, r.Throughput, r.Elapsed)
	}
	switch r.Workload.Kind {
	case Waiters:
		if r.Waiters == nil || r.Waiters.Cycles < 1 || r.Waiters.HandOver == nil || r.Waiters.HandOver.PerOperation <= 0 {
			t.Errorf("waiters: %+v", r.Waiters)
		} else if !r.Waiters.OrderChecked {
			t.Error("the order of the waiters was not checked")
		}
	case Timeouts:
		if r.Timeouts == nil || r.Timeouts.Early != 0 || r.Timeouts.Late == nil || r.Timeouts.Most <= 0 {
			t.Errorf("timeouts: %+v", r.Timeouts)
		}
	case Idle:
		if r.Idle == nil || r.Idle.Before <= 0 || r.Idle.After <= 0 {
			t.Errorf("idle: %+v", r.Idle)
		}
	case Takeover:
		if to := r.Takeover; to == nil || len(to.Takeovers) != takeovers || to.Answer <= 0 || to.WorstAnswer < to.Answer || to.Stood <= 0 {
			t.Errorf("takeover: %+v", r.Takeover)
		}
	default:
		if r.Latency == nil || r.Latency.P50 <= 0 || r.Latency.Max < r.Latency.P999 || r.Memory <= 0 {
			t.Errorf("%s: latency %+v, memory %d", r.Workload.Name(), r.Latency, r.Memory)
		}
		if r.ServerCPU == nil || r.ServerCPU.PerOperation <= 0 || r.GeneratorCPU == nil {
			t.Errorf("%s: server %+v, generator %+v", r.Workload.Name(), r.ServerCPU, r.GeneratorCPU)
		}
		if reported := r.Allocations != nil && *r.Allocations >= 0; reported != (r.Kind == Daemon) {
			t.Errorf("%s: allocations of %s are reported: %v", r.Workload.Name(), r.Server, reported)
		}
	}
}

// An open loop offers no more than its rate, whatever the server could do. That it offers no less is checked by
// TestScheduleKeepsItsRate, which does not depend on the machine.
func TestOpenLoopKeepsItsRate(t *testing.T) {
	s := startPeer(t, "dreadlock:1")
	kinds := []Kind{Mixed, Uncontended, Contended, Pipelined, Churn}
	if testing.Short() {
		kinds = kinds[:1]
	}
	for _, kind := range kinds {
		w := short(kind)
		w.Rate = 4000
		w.Window = 300 * time.Millisecond
		r, err := Run(t.Context(), &s.Target, w, Options{Loops: 2})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %.0f commands per second", w.Name(), r.Throughput)
		// Commands that were due before the window may be completed in it. Each of the two loops may complete the whole
		// pipelined write that it has begun. The jobs of Mixed have 1.9 commands only on average.
		most := w.Rate*time.Since(r.Started).Seconds()*1.2 + 2*2*defaultPairs
		if float64(r.Operations) > most {
			t.Errorf("%s: %d commands, where at most %.0f were offered", w.Name(), r.Operations, most)
		}
	}
}

// A stall of the server delays every later request of an open loop. A closed loop would not show that.
func TestOpenLoopChargesAStall(t *testing.T) {
	const stall = 150 * time.Millisecond
	f := &fake{answer: nth(40, func(reply string) string {
		<-time.After(stall) // with the lock of the fake held: it answers nothing
		return reply
	})}
	w := short(Uncontended)
	w.Connections, w.Rate, w.Warmup, w.Window = 4, 1000, 0, 400*time.Millisecond
	r, err := Run(t.Context(), f.start(t), w, Options{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	// Of at most about 400 commands, about 75 locks are due during the stall; in a closed loop 4 would be. A busy machine
	// only makes more of them late.
	if r.Latency.P90 < stall/10 {
		t.Errorf("p90 %s, max %s after a stall of %s", r.Latency.P90, r.Latency.Max, stall)
	}
}

// The fake is correct unless it is made faulty; otherwise the tests of its faults would show nothing.
func TestRightServer(t *testing.T) {
	for _, kind := range Kinds {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			w := short(kind)
			target := (&fake{}).start(t)
			if target.Can(&w) != nil {
				t.Skip("it needs a process")
			}
			if _, err := Run(t.Context(), target, w, Options{Loops: 1}); err != nil {
				t.Error(err)
			}
		})
	}
}

// Every load is the same over every way, and a fault of the server is found on each.
func TestWays(t *testing.T) {
	for _, way := range ways {
		for _, kind := range Kinds {
			t.Run(way+"/"+string(kind), func(t *testing.T) {
				t.Parallel()
				w := short(kind)
				target := (&fake{}).startOn(t, way)
				if target.Can(&w) != nil {
					t.Skip("it needs a process")
				}
				if _, err := Run(t.Context(), target, w, Options{Loops: 2}); err != nil {
					t.Error(err)
				}
			})
		}
		for want, answer := range map[string]func(string) string{
			"wrong reply":                      always("t timeout\r\n"),
			"more than the reply":              twice,
			"the server closed the connection": always("close"),
		} {
			t.Run(way+"/"+want, func(t *testing.T) {
				t.Parallel()
				f := &fake{answer: nth(9, answer)}
				_, err := Run(t.Context(), f.startOn(t, way), endless(Uncontended), Options{Loops: 2})
				checkViolation(t, err, want)
			})
		}
	}
}

// Bytes that are not TLS are a fault of the server.
func TestBrokenTLS(t *testing.T) {
	f := &fake{}
	f.answer = func(n int64, reply string) string {
		if n == 9 {
			for conn := range f.conns {
				conn.(*tls.Conn).NetConn().Write([]byte("lies\r\n"))
			}
		}
		return reply
	}
	_, err := Run(t.Context(), f.startOn(t, overTLS), endless(Uncontended), Options{Loops: 2})
	checkViolation(t, err, "TLS: ")
}

// A server whose certificate is not trusted is not measured.
func TestUntrusted(t *testing.T) {
	target := (&fake{}).startOn(t, overTLS)
	target.tls.RootCAs = prototest.NewCA(t).Pool()
	if _, err := Run(t.Context(), target, endless(Uncontended), Options{}); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Error(err)
	}
}

func TestLyingServer(t *testing.T) {
	tests := []struct {
		name string
		kind Kind
		fake *fake
		want string
	}{
		{"wrong reply", Uncontended, &fake{answer: nth(9, always("t timeout\r\n"))}, `received "t timeout\r\n", want`},
		{"another wrong reply", Pipelined, &fake{answer: nth(99, always("e not owner\r\n"))}, "wrong reply"},
		{"garbage", Mixed, &fake{answer: nth(99, always("?"))}, `received "?"`},
		{"twice", Uncontended, &fake{answer: nth(9, twice)}, "more than the reply"},
		{"closed", Contended, &fake{answer: nth(9, always("close"))}, "the server closed the connection"},
		{"closed in churn", Churn, &fake{answer: nth(9, always("close"))}, "the server closed the connection"},
		{"two holders", Contended, &fake{generous: true}, "it got a key that connection"},
		{"two holders of a group", Groups, &fake{generous: true}, "it got a key that connection"},
		{"out of order", Waiters, &fake{lifo: true}, "out of order"},
		{"grant instead of timeout", Timeouts, &fake{generous: true}, "wrong reply"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := endless(test.kind)
			if test.kind == Contended || test.kind == Groups {
				w.Keys = 1 // other connections request the key whenever it is held
			}
			_, err := Run(t.Context(), test.fake.start(t), w, Options{Loops: 2})
			checkViolation(t, err, test.want)
		})
	}
}

// If nothing confirms the order of the requests, the order of the grants is not checked.
func TestOrderIsNotClaimed(t *testing.T) {
	target := (&fake{lifo: true}).start(t)
	target.waiters = nil
	r, err := Run(t.Context(), target, short(Waiters), Options{Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	if r.Waiters.OrderChecked {
		t.Error("the order was checked")
	}
}

func TestLostReply(t *testing.T) {
	o := Options{Loops: 2, Patience: 500 * time.Millisecond}
	lost := func(t *testing.T, f *fake, w Workload, want string) {
		t.Parallel()
		_, err := Run(t.Context(), f.start(t), w, o)
		checkViolation(t, err, want)
	}
	for _, kind := range []Kind{Uncontended, Churn} {
		t.Run(string(kind), func(t *testing.T) {
			lost(t, &fake{answer: nth(99, always(""))}, short(kind), "no reply")
		})
	}
	t.Run("waiter", func(t *testing.T) {
		t.Parallel()
		target := (&fake{}).start(t)
		target.waiters = func(context.Context, string) (int, error) { return 0, nil }
		_, err := Run(t.Context(), target, short(Waiters), o)
		checkViolation(t, err, "25 connections have requested the key, and only 0 wait for it")
	})
	t.Run("wait", func(t *testing.T) {
		ended := false
		lost(t, &fake{answer: func(_ int64, reply string) string {
			if reply != proto.TimedOut.Line() || ended {
				return reply
			}
			ended = true
			return ""
		}}, short(Timeouts), "and there is no reply")
	})
}

func checkViolation(t *testing.T, err error, want string) {
	t.Helper()
	var v *Violation
	if !errors.As(err, &v) || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want a violation with %q", err, want)
	}
	t.Log(err)
}

func TestEarlyWaitsAreCounted(t *testing.T) {
	r, err := Run(t.Context(), (&fake{early: true}).start(t), short(Timeouts), Options{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	if r.Timeouts.Early == 0 {
		t.Error("no wait was early")
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	target := (&fake{answer: nth(99, func(reply string) string {
		cancel()
		return reply
	})}).start(t)
	if _, err := Run(ctx, target, endless(Uncontended), Options{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// The daemon is taken over from five times, and the last process is ended with the server. Nobody loses a key.
func TestTakeovers(t *testing.T) {
	s := startPeer(t, "dreadlock:2")
	first := s.PID
	w := short(Takeover)
	result, err := Run(t.Context(), &s.Target, w, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := result.Takeover; len(got.Takeovers) != takeovers || result.Operations != takeovers {
		t.Errorf("%+v", got)
	}
	for i, one := range result.Takeover.Takeovers {
		if one.Stood <= 0 || one.Answer <= 0 || one.Took < one.Stood {
			t.Errorf("takeover %d: %+v", i, one)
		}
	}
	if s.PID == first || s.Ended() != nil {
		t.Errorf("process %d serves after %d: %v", s.PID, first, s.Ended())
	}
	s.Stop()
	if s.Ended() == nil {
		t.Error("the successor is left")
	}
	if err := startPeer(t, "gnet:1").Can(&w); !errors.Is(err, ErrTarget) {
		t.Errorf("an echo server is taken over from: %v", err)
	}
}

// The result has the median and the worst of its takeovers.
func TestTakeoverResult(t *testing.T) {
	r := &TakeoverResult{}
	for _, ms := range []time.Duration{5, 9, 1} {
		r.add(TakenOver{Answer: ms * time.Millisecond, Stood: 10*time.Millisecond - ms*time.Millisecond})
	}
	if r.Answer != 5*time.Millisecond || r.WorstAnswer != 9*time.Millisecond || r.Stood != 5*time.Millisecond || r.WorstStood != 9*time.Millisecond {
		t.Errorf("%+v", r)
	}
}
