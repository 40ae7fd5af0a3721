package faults

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// failingCalls are the system calls that the daemon makes while it serves, with the errors that each is made to fail with. The
// kernel has no error for epoll_wait and epoll_pwait but EINTR, as long as their arguments are right.
var failingCalls = []struct {
	call   string
	errors []string
}{
	{"accept4", shortages}, {"read", shortages}, {"write", shortages}, {"writev", shortages}, {"epoll_ctl", shortages},
	{"epoll_wait", []string{"EINTR"}}, {"epoll_pwait", []string{"EINTR"}}, {"dup", shortages}, {"dup3", shortages}, {"fcntl", shortages},
	{"setsockopt", shortages}, {"getsockopt", shortages}, {"getpeername", shortages}, {"ioctl", shortages}, {"shutdown", shortages},
	{"eventfd2", shortages},
}

// shortages are errors that say nothing against the arguments of a call.
var shortages = []string{"EMFILE", "ENOBUFS", "ENOMEM", "EINTR", "EPERM"}

// startCalls are the system calls of the start that are made to fail; of write, those to an eventfd: by the log we hear that the
// daemon is ready.
var startCalls = []string{"write", "eventfd2", "epoll_create1", "epoll_ctl", "socket", "bind", "listen", "setsockopt", "socketpair"}

func syscallCases() (all []*Case) {
	for _, f := range failingCalls {
		all = append(all, &Case{
			Name:    "syscall-" + f.call,
			Fault:   fmt.Sprintf("%s fails with %s", f.call, strings.Join(f.errors, ", ")),
			Promise: "the daemon serves on; at most the connection concerned ends",
			run:     func(t *trial) string { return testSyscall(t, f.call, f.errors) },
		})
	}
	return append(all, &Case{
		Name:    "syscall-start",
		Fault:   "system calls fail when the daemon starts",
		Promise: "it serves all clients, or ends with a status other than 0",
		run:     testStart,
	})
}

// testSyscall makes a call fail with each of the errors, at its first call and at later ones.
func testSyscall(t *trial, call string, errnos []string) string {
	t.canTrace()
	if !knowsCall(call) {
		t.skip("this machine has no %s", call)
	}
	whens := []string{"1"}
	if t.options.Long {
		whens = []string{"1", "2", "3", "5+4"}
	}
	var sum failures
	for _, errno := range errnos {
		for _, when := range whens {
			const tries = 10
			for range tries {
				void := false
				t.each(errno+" at "+when, func(t *trial) { void = sum.add(t, call, errno, when) })
				if !void {
					break
				}
			}
		}
	}
	if sum.calls == 0 {
		return "the daemon does not call it"
	}
	return fmt.Sprintf("%d calls failed, %d connections ended", sum.calls, sum.connections)
}

// failures counts the calls that have failed, and the connections that have ended.
type failures struct{ calls, connections int }

// add has clients do everything while the call fails, and looks whether all are served afterwards. It is void if the call was one
// of Go's runtime to wake itself, for which the kernel has no such error, and which ends every program.
func (sum *failures) add(t *trial, call, errno, when string) (void bool) {
	l := t.newLab(0, "--loops", "2")
	const clients = 8
	all := make([]*client, clients)
	for i := range all {
		all[i] = l.dial(l.near)
		all[i].mustLock(fmt.Sprintf("own%d", i))
	}
	began := now()
	in := l.inject(call, errno, when)
	t.parallel(clients+3, func(i int) {
		switch {
		case i < clients:
			all[i].exercise(i)
			return
		case i == clients+2:
			l.oddClients()
			return
		}
		for n := range 5 { // one comes and goes
			c, err := l.tryDial(l.near)
			if err != nil {
				continue // it is the connection concerned
			}
			c.exercise(10*i + n)
			c.reset()
			if t.violated() > 0 {
				return // the others would hang as well
			}
		}
	})
	var s status
	_ = l.daemon.get("/api/v1/status", &s) // the connection concerned may be this one
	in.end()
	failed, ended := in.count(), l.concerned(began)
	if strings.Contains(l.daemon.log.String(), "runtime: netpollBreak write failed") {
		<-l.daemon.ended
		l.daemon.excused = true
		return true
	}
	sum.calls += failed
	sum.connections += ended
	if ended > failed {
		t.violate("%d calls have failed, and %d connections have ended", failed, ended)
	}
	t.soundSoFar()
	if !l.daemon.running() {
		return false // which is reported
	}
	for i, c := range all {
		if c.session.ended == never && c.session.lostAt() == never {
			c.exercise(i)
		}
		t.soundSoFar()
	}
	newcomer := l.dial(l.near)
	for i, c := range all {
		if got := newcomer.lock(fmt.Sprintf("own%d", i), 0); got != timedOut && c.session.ended == never {
			t.violate("own%d: want %q, got %q", i, timedOut, got)
		}
	}
	return false
}

// oddClients come and go in ways that others do not: one breaks the protocol, one half-closes with answers owed, and one reads its
// answers late. They make the daemon do what it does for nobody else. Their answers are not recorded.
func (l *lab) oddClients() {
	l.unrecorded = true
	for n := range 5 {
		if l.t.violated() > 0 {
			return // these would hang as well
		}
		conn, err := l.near(l.t.ctx)
		if err != nil {
			continue // it is the connection concerned
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		sock, _ := conn.(*net.TCPConn)
		switch n % 3 {
		case 0:
			_, _ = io.WriteString(conn, "unlock nobodys\r\nnonsense\r\n")
		case 1:
			_, _ = io.WriteString(conn, strings.Repeat("unlock nobodys\r\nunlock nobodyselse\r\n", 50))
			_ = sock.CloseWrite()
		case 2:
			const most = 100 * time.Millisecond // then it is held back
			_ = sock.SetReadBuffer(4096)
			_ = conn.SetWriteDeadline(time.Now().Add(most))
			_, _ = io.WriteString(conn, strings.Repeat("unlock nobodys\r\n", 400_000))
		}
		const enough = 16 << 10
		_, _ = io.CopyN(io.Discard, conn, enough) // or to its end
		_ = conn.Close()
	}
}

// soundSoFar stops a part whose daemon may hang: to look further would take long and tell nothing.
func (t *trial) soundSoFar() {
	if t.violated() > 0 {
		t.fatal("not looked at further")
	}
}

// concerned returns how many connections the daemon has ended. It may have done so at any time since began, and had a reason.
func (l *lab) concerned(began moment) (ended int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.clients {
		if c.session.ended < c.session.lostAt() {
			ended++
			c.session.lost.Store(int64(began))
		}
	}
	return ended
}

// exercise does everything that a client does: on keys of all loops, alone and in pipelines, with waits that time out, and
// often enough on keys of one loop to come there. It ends early if the connection does.
func (c *client) exercise(n int) {
	const keys, rounds = 4, 20
	var pipeline []operation
	for k := range keys {
		key := fmt.Sprintf("exercise%dx%d", n, k)
		for range rounds {
			if c.lock(key, 0) == "" || c.unlock(key) == "" {
				return
			}
		}
		pipeline = append(pipeline, command(lock, key, 0), command(unlock, key, 0))
	}
	c.send(pipeline...)
	for range pipeline {
		if c.answer() == "" {
			return
		}
	}
	if other := "own" + strconv.Itoa((n+1)%8); c.lock(other, 20*time.Millisecond) == locked {
		c.unlock(other) // its owner has lost its connection
	}
}

// testStart makes each of the calls of a start fail, one after the other.
func testStart(t *trial) string {
	t.canTrace()
	most := 3
	if t.options.Long {
		most = 12
	}
	served, refused := 0, 0
	for _, call := range startCalls {
		if !knowsCall(call) {
			continue
		}
		for _, errno := range []string{"EMFILE", "ENOMEM", "EPERM"} {
			for n := 1; n <= most; n++ {
				more := true
				t.each(fmt.Sprintf("%s %s at %d", call, errno, n), func(t *trial) {
					var serves bool
					serves, more = testStartWith(t, call, errno, n)
					if serves {
						served++
					} else {
						refused++
					}
				})
				if !more {
					break
				}
			}
		}
	}
	if served == 0 {
		t.violate("none serves")
	}
	return fmt.Sprintf("%d served, %d ended", served, refused)
}

// runtimeDeaf is what the Go runtime says when it ends the process because a write to an eventfd of its own has failed. strace does
// not tell that from those of the loops.
const runtimeDeaf = "netpollBreak write failed"

// testStartWith starts a daemon one of whose calls fails, and reports whether it serves, and whether the call was made that often.
func testStartWith(t *trial, call, errno string, n int) (serves, more bool) {
	l := t.newHost()
	calls := t.path("calls")
	by := straceArgs(calls, call, errno, strconv.Itoa(n))
	if call == "write" {
		by = append(by, "-P", "anon_inode:[eventfd]")
	}
	l.startBy(by, "--loops", "2")
	if err := l.daemon.awaitReady(); err != nil {
		if l.daemon.running() {
			t.violate("it neither serves nor ends: %v", err)
			return false, true
		}
		if l.daemon.lives.end().Success() {
			t.violate("it ends with status 0: %s", l.daemon.log.String())
		}
		return false, true
	}
	all := []*client{l.dial(l.near), l.dial(l.near), l.dial(l.near)}
	for i, c := range all {
		c.exercise(i)
	}
	failed := countInjected(calls)
	if ended := l.concerned(0); ended > failed {
		if l.daemon.endsWithin(time.Second) && strings.Contains(l.daemon.log.String(), runtimeDeaf) {
			return false, true
		}
		t.violate("%d calls have failed, and %d connections have ended", failed, ended)
	}
	for _, what := range check(l.history).violations {
		t.violate("%s", what)
	}
	return true, failed > 0
}
