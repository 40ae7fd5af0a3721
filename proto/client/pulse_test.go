package client

import (
	"bufio"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dreadlock/proto"
	"dreadlock/proto/prototest"
)

// often makes many heartbeats, and leaves a busy machine the time to answer them.
var often = Options{KeepAlive: prototest.Patience, Heartbeat: 10 * time.Millisecond}

// hasty loses a lock soon, and leaves a busy machine the time to grant it.
var hasty = Options{KeepAlive: time.Second, Attempts: 1}

// A held lock beats on every way, and the fencing token stays as it is. One that is idle does not.
func TestHeartbeats(t *testing.T) {
	address, _ := startServer(t, nil)
	for name, w := range startWays(t, address) {
		t.Run(name, func(t *testing.T) {
			w.options.KeepAlive, w.options.Heartbeat, w.options.Fence = often.KeepAlive, often.Heartbeat, true
			c := newClient(t, w.address, w.options)
			for range 2 {
				l := mustLock(t, c, "a")
				w.update(func() { w.commands = nil })
				w.await("heartbeats", func() bool { return len(w.commands) >= 3 })
				if s := l.Silence(); s.Heartbeat != often.Heartbeat || isClosed(l.Lost()) || !l.Until().IsZero() {
					t.Errorf("%+v, lost: %t, %v", s, isClosed(l.Lost()), l.err)
				}
				mustUnlock(t, l)
			}
			w.update(func() { w.commands = nil })
			<-time.After(10 * often.Heartbeat)
			mustUnlock(t, mustLock(t, c, "b"))
			if got := w.said()[0]; !strings.HasPrefix(got, "lock b ") {
				t.Errorf("an idle connection said %q", got)
			}
			if w.count() != 1 {
				t.Errorf("%d connections", w.count())
			}
		})
	}
}

// Without an option a Unix socket has no heartbeats, and neither has a server that is too old for them, with one.
func TestNoHeartbeats(t *testing.T) {
	address, _ := startServer(t, nil)
	l := mustLock(t, newClient(t, startWays(t, address)["unix"].address, Options{}), "a")
	if s := l.Silence(); s.Heartbeat != 0 || s.Lost != 0 {
		t.Errorf("%+v over a Unix socket", s)
	}
	mustUnlock(t, l)
	o := startOlder(t, func(*net.TCPConn) {})
	l = mustLock(t, newClient(t, o.address, often), "a")
	if s := l.Silence(); s.Heartbeat != 0 || s.Server != 0 || s.Lost == 0 {
		t.Errorf("%+v with an older server", s)
	}
	mustUnlock(t, l)
}

// A proxy that closes idle connections loses locks, unless they beat.
func TestIdleProxy(t *testing.T) {
	t.Parallel() // it mostly waits
	const idle = 2 * time.Second
	address, _ := startServer(t, nil)
	proxy := prototest.StartIdleProxy(t, address, idle)
	beating := mustLock(t, newClient(t, proxy, Options{Heartbeat: idle / 20}), "beating")
	silent := mustLock(t, newClient(t, proxy, Options{}), "silent")
	wantLost(t, silent)
	if isClosed(beating.Lost()) {
		t.Error(beating.err)
	}
	mustUnlock(t, beating)
}

// granting is a fake server that announces a silence, grants a key, and does then as it is told.
func granting(tb testing.TB, silence string, then func(in *bufio.Reader, conn *net.TCPConn)) (address string) {
	return listen(tb, func(conn *net.TCPConn) {
		in := bufio.NewReader(conn)
		for range 2 {
			_, _ = in.ReadString('\n')
		}
		reply(conn, "n named "+silence+" 00000000000000af\r\nl locked\r\n")
		then(in, conn)
	})
}

// A server that does not answer heartbeats has lost its holder, who learns until when the key is nobody else's. Until he says
// that his work has ended, the connection stays as it is; then a reset ends it.
func TestSilentServer(t *testing.T) {
	t.Parallel() // it mostly waits
	got := make(chan string, 3)
	c := newClient(t, granting(t, "60000", func(in *bufio.Reader, _ *net.TCPConn) {
		for range cap(got) {
			line, err := in.ReadString('\n')
			if err != nil {
				line = err.Error()
			}
			got <- line
		}
	}), hasty)
	began := time.Now()
	l := mustLock(t, c, "a")
	mustEnd(t, "the loss", l.Lost())
	if took := time.Since(began); took < 2*hasty.KeepAlive {
		t.Errorf("lost after %s", took)
	}
	if until := l.Until(); until.Before(began.Add(time.Minute)) || until.After(time.Now().Add(time.Minute-2*hasty.KeepAlive)) {
		t.Errorf("nobody else has it until %s after the beginning", until.Sub(began))
	}
	if line := <-got; line != "fence a\r\n" {
		t.Errorf("the heartbeat is %q", line)
	}
	<-time.After(100 * time.Millisecond)
	select {
	case line := <-got:
		t.Errorf("after the loss came %q", line)
	default:
	}
	wantLost(t, l, syscall.ETIMEDOUT)
	if line := <-got; !strings.Contains(line, syscall.ECONNRESET.Error()) {
		t.Errorf("the end is %q", line)
	}
}

// If the holder says nothing, the connection is closed when the server has given the key away.
func TestSilentServerAndHolder(t *testing.T) {
	t.Parallel() // it mostly waits
	ended := make(chan struct{})
	c := newClient(t, granting(t, "4000", func(in *bufio.Reader, _ *net.TCPConn) {
		for err := error(nil); err == nil; {
			_, err = in.ReadString('\n')
		}
		close(ended)
	}), hasty)
	l := mustLock(t, c, "a")
	mustEnd(t, "the end of the connection", ended)
	if !isClosed(l.Lost()) || time.Now().Before(l.Until()) {
		t.Errorf("the connection has ended before %s", l.Until())
	}
}

// A late answer does not make a lock that was lost whole again, and does no harm.
func TestLateAnswer(t *testing.T) {
	t.Parallel() // it mostly waits
	say := make(chan struct{})
	c := newClient(t, granting(t, "60000", func(in *bufio.Reader, conn *net.TCPConn) {
		_, _ = in.ReadString('\n')
		<-say
		reply(conn, "f 7\r\n")
		_, _ = in.ReadString('\n') // the end
	}), hasty)
	l := mustLock(t, c, "a")
	mustEnd(t, "the loss", l.Lost())
	close(say)
	wantLost(t, l, syscall.ETIMEDOUT)
}

// A server that says that the key is not held, or somebody else's, or that it is another grant, has lost it.
func TestHeartbeatIsRefused(t *testing.T) {
	say := make(chan string, 1)
	o := often
	o.Attempts = 1
	for answer, want := range map[string]error{
		"e not owner\r\n":  nil,
		"e not locked\r\n": nil,
		"l locked\r\n":     ErrProtocol,
		"f 8\r\n":          ErrProtocol,
	} {
		say <- answer
		o.Fence = strings.HasPrefix(answer, "f ")
		l := mustLock(t, newClient(t, granting(t, "60000", func(in *bufio.Reader, conn *net.TCPConn) {
			if o.Fence {
				_, _ = in.ReadString('\n')
				reply(conn, "f 7\r\n")
			}
			_, _ = in.ReadString('\n')
			reply(conn, <-say)
			_, _ = in.ReadString('\n') // the end
		}), o), "a")
		if want != nil {
			wantLost(t, l, want)
		} else {
			wantLost(t, l)
			wantText(t, l.err, strings.TrimSpace(answer[len("e "):]))
		}
		if !l.Until().IsZero() {
			t.Errorf("%q: until %s", answer, l.Until())
		}
	}
}

// Unlock does not wait for the answer to a heartbeat, and the connection can be used again.
func TestUnlockDuringHeartbeat(t *testing.T) {
	beat := make(chan struct{})
	c := newClient(t, granting(t, "60000", func(in *bufio.Reader, conn *net.TCPConn) {
		var got []string
		read := func() {
			line, _ := in.ReadString('\n')
			got = append(got, strings.TrimSpace(line))
		}
		read()
		close(beat)
		read()
		reply(conn, "f 7\r\n")
		reply(conn, "u unlocked\r\n")
		read()
		reply(conn, "t timeout\r\n")
		if want := []string{"fence a", "unlock a", "lock b 0"}; !slices.Equal(got, want) {
			t.Errorf("it said %q, want %q", got, want)
		}
	}), often)
	l := mustLock(t, c, "a")
	mustEnd(t, "the heartbeat", beat)
	mustUnlock(t, l)
	_, err := c.TryLock(patient(t), "b")
	wantErr(t, err, ErrTimeout)
}

// Who has waited for long does not know whether the server still hears him: he asks before he believes the grant.
func TestLateGrantIsConfirmed(t *testing.T) {
	t.Parallel() // it mostly waits
	for answer, check := range map[string]func(*Lock, error){
		"f 7\r\n": func(l *Lock, err error) {
			if err != nil {
				t.Fatal(err)
			}
			mustUnlock(t, l)
		},
		"e not owner\r\n": func(_ *Lock, err error) { wantText(t, err, "not owner") },
		"":                func(_ *Lock, err error) { wantErr(t, err, ErrConnectionLost, syscall.ETIMEDOUT) },
	} {
		c := newClient(t, listen(t, func(conn *net.TCPConn) {
			takeLine(conn) // the lock
			<-time.After(hasty.KeepAlive)
			reply(conn, "l locked\r\n")
			takeLine(conn)
			reply(conn, answer)
			if takeLine(conn) {
				reply(conn, "u unlocked\r\n")
			}
		}), hasty)
		check(c.Lock(patient(t), "a", -1))
	}
}

// While heartbeats judge, the kernel does not: its verdict would send a reset. Afterwards it does again.
func TestKernelIsPatient(t *testing.T) {
	address, _ := startServer(t, nil)
	r := startRelay(t, address)
	l := mustLock(t, newClient(t, r.address, often), "a")
	sock := l.conn.sock.(*net.TCPConn)
	want := func(keepAlive, user int) {
		t.Helper()
		if got := optionOf(t, sock, unix.SOL_SOCKET, unix.SO_KEEPALIVE); got != keepAlive {
			t.Errorf("SO_KEEPALIVE is %d", got)
		}
		if got := optionOf(t, sock, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); got != user {
			t.Errorf("TCP_USER_TIMEOUT is %d ms, want %d", got, user)
		}
	}
	r.await("a heartbeat", func() bool { return slices.Contains(r.commands, "fence a") })
	want(0, 120_000)
	mustUnlock(t, l)
	want(1, 30_000)
}

// The owners that a held connection is given go between its heartbeats.
func TestHeartbeatsAndOwners(t *testing.T) {
	address, _ := startServer(t, nil)
	r := startRelay(t, address)
	c, other := newClient(t, r.address, often), newClient(t, address, Options{})
	inner, outer := mustLock(t, other, "inner"), mustLock(t, c, "outer")
	for range 20 {
		_, err := c.Lock(outer.Context(), "inner", often.Heartbeat+time.Millisecond)
		wantErr(t, err, ErrTimeout)
	}
	if isClosed(outer.Lost()) {
		t.Error(outer.err)
	}
	mustUnlock(t, outer)
	mustUnlock(t, inner)
	heartbeats, owners := 0, 0
	for _, command := range r.said() {
		if command == "fence outer" {
			heartbeats++
		}
		if strings.HasPrefix(command, "owner ") {
			owners++
		}
	}
	if heartbeats < 10 || owners < 20 {
		t.Errorf("%d heartbeats, %d owners", heartbeats, owners)
	}
}

// Both are answered in the order in which they were sent, whichever that is, also after the lock was let go.
func TestAnswersAside(t *testing.T) {
	owned, token := proto.Answer{Reply: proto.Owned}, proto.Answer{Reply: proto.Token, Token: 7}
	for _, tc := range []struct {
		answers []proto.Answer
		beats   bool
		refused bool
	}{
		{[]proto.Answer{owned, owned}, false, false},
		{[]proto.Answer{owned, token}, true, false},
		{[]proto.Answer{token, owned}, true, false},
		{[]proto.Answer{owned, token, owned}, true, false},
		{[]proto.Answer{token}, false, true},
		{[]proto.Answer{owned}, true, true},
		{[]proto.Answer{token, token}, true, true},
		{[]proto.Answer{owned, {Reply: proto.NotOwner, Text: "not owner"}}, true, true},
	} {
		for _, held := range []bool{true, false} {
			if tc.refused && !held {
				continue // who unlocks finds out by that
			}
			c := &conn{asked: time.Now(), silence: Silence{Lost: time.Hour, Heartbeat: time.Hour}}
			if held {
				c.holder = &Lock{token: 7}
				c.startPulse()
				defer c.pulse.timer.Stop()
			}
			if tc.beats {
				c.pulse.sent = time.Now()
			}
			c.aside.Store(int32(len(tc.answers)))
			var err error
			for _, answer := range tc.answers {
				if err == nil {
					err = c.takeAside(answer)
				}
			}
			if (err != nil) != tc.refused || err == nil && !c.pulse.sent.IsZero() {
				t.Errorf("%+v, held %t: %v", tc, held, err)
			}
		}
	}
}
