package faults

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

func successorCases() []*Case {
	const serves = "the predecessor serves on, says why, and the next takeover succeeds"
	return []*Case{{
		Name:    "takeover-programs",
		Fault:   "what lies at the daemon's path is no daemon, ends, hangs or has other options",
		Promise: serves,
		run:     testBadPrograms,
	}, {
		Name:    "takeover-limits",
		Fault:   "the successor has too few descriptors, or a log on a full disk",
		Promise: "it takes over, or the predecessor serves on",
		run:     testPoorSuccessors,
	}, {
		Name:    "takeover-calls-kill",
		Fault:   "SIGKILL of either process at a system call of a takeover",
		Promise: "one of them serves, unless the one is killed that serves: that is a crash",
		run:     func(t *trial) string { return testTakeoverCalls(t, "SIGKILL") },
	}, {
		Name:    "takeover-calls-stop",
		Fault:   "SIGSTOP of either process at a system call of a takeover, for 0.8 s",
		Promise: "one of them serves",
		run:     func(t *trial) string { return testTakeoverCalls(t, "SIGSTOP") },
	}, {
		Name:    "takeover-many",
		Fault:   "takeovers with up to 18,000 connections at a limit of 20,000 open files",
		Promise: "no connection ends, no key is lost, the order stays",
		run:     testTakeoverMany,
		alone:   true,
	}}
}

// testBadPrograms puts something else at the daemon's path.
func testBadPrograms(t *trial) string {
	daemon, err := os.ReadFile(t.options.Daemon)
	t.must(err)
	var sum fates
	for _, bad := range []struct {
		name, script, text string
		is                 fate // 0 for kept
	}{
		{name: "ends at once", script: "exec /bin/false"},
		{name: "ends well", script: "exec /bin/true"},
		{name: "sleeps", script: "exec sleep 1000"},
		{name: "sleeps and has lost the pair", script: "exec sleep 1000 3>&-"},
		{name: "a child of it sleeps with the pair", script: "sleep 1000 &\nexit 3"},
		{name: "says nothing that can be read", script: "exec cat /dev/zero >&3"},
		{name: "a text", text: "This is no program.\n"},
		{name: "empty", text: " "},
		{name: "half a daemon", text: string(daemon[:len(daemon)/2])},
		{name: "the head of a daemon", text: string(daemon[:4096])},
		{name: "missing"},
		{name: "an option that there is not", script: `exec -a "$0" "$DAEMON" "$@" --nonsense`},
		{name: "an address that is taken", script: `exec -a "$0" "$DAEMON" "$@" --listen 127.0.0.1:` + busyPort},
		{name: "help", script: `exec -a "$0" "$DAEMON" --help`},
		{name: "another listener", script: `exec -a "$0" "$DAEMON" "$@" --listen 127.0.0.1:0`, is: taken},
		{name: "no log", script: `exec -a "$0" "$DAEMON" "$@" 2>&-`, is: taken},
	} {
		allowed := bad.is
		if allowed == 0 {
			allowed = kept
		}
		t.each(bad.name, func(t *trial) {
			sum.run(t, &ordeal{script: bad.script, allowed: allowed, prepare: func(l *lab) func() {
				switch {
				case bad.text != "":
					t.replace(bad.text)
				case bad.script == "":
					t.must(os.Remove(t.script))
				}
				return l.occupy(busyPort)
			}})
		})
	}
	for why := range sum.reasons {
		if lines := strings.Count(why, "\n"); lines > 0 {
			t.violate("it is said in %d lines why a takeover has failed: %s", lines+1, why)
		}
	}
	return sum.String()
}

// busyPort is a port of the daemon's host that something else has.
const busyPort = "6999"

// occupy listens at a port of the daemon's host, until the function that it returns is called.
func (l *lab) occupy(port string) (end func()) {
	var listener net.Listener
	l.t.must(l.host.Do(func() (err error) {
		listener, err = (&net.ListenConfig{}).Listen(l.t.ctx, "tcp", net.JoinHostPort("127.0.0.1", port))
		return err
	}))
	return func() { _ = listener.Close() }
}

// testPoorSuccessors has successors that lack something.
func testPoorSuccessors(t *trial) string {
	var sum fates
	lower := func(limit uint64) func(l *lab) func() {
		return func(l *lab) func() {
			var before unix.Rlimit
			pid := l.daemon.pid()
			l.t.must(unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &before))
			l.t.must(unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: before.Max}, nil))
			return func() {
				for _, pid := range l.daemon.daemons() {
					_ = unix.Prlimit(pid, unix.RLIMIT_NOFILE, &before, nil)
				}
			}
		}
	}
	for _, poor := range []struct {
		name string
		o    ordeal
	}{
		{"3 descriptors", ordeal{script: asItself(2), allowed: kept, prepare: lower(3)}},
		{"10 descriptors", ordeal{script: asItself(2), allowed: kept, prepare: lower(10)}},
		{"20 descriptors", ordeal{script: asItself(2), allowed: kept | taken, prepare: lower(20)}},
		{"40 descriptors", ordeal{script: asItself(2), allowed: kept | taken, prepare: lower(40)}},
		{"80 descriptors", ordeal{script: asItself(2), allowed: kept | taken, prepare: lower(80)}},
		{"only it has 40", ordeal{script: "ulimit -n 40\n" + asItself(2), allowed: kept | taken}},
		{"only it has 16", ordeal{script: "ulimit -n 16\n" + asItself(2), allowed: kept}},
		{"its disk is full", ordeal{script: asItself(2) + " 2>/dev/full", allowed: taken}},
	} {
		poor.o.quiet, poor.o.bySignal = true, true // it may have no descriptor for another connection
		t.each(poor.name, func(t *trial) { sum.run(t, &poor.o) })
	}
	return sum.String()
}

// takeoverCalls are the system calls of a takeover, with which of them, in each thread, something happens.
var takeoverCalls = []struct {
	call  string
	whens []int
	long  []int // in the long form
}{
	{"execve", []int{1}, []int{2}},
	{"clone3,clone", nil, []int{1, 2, 3, 5}},
	{"socketpair", []int{1}, []int{5, 50}},
	{"memfd_create", []int{1}, nil},
	{"sendmsg", []int{1, 2}, []int{3, 4, 5}},
	{"recvmsg", []int{2}, []int{1, 3, 4, 5, 7}},
	{"dup3,dup2,dup", []int{1}, []int{2, 3, 8}},
	{"epoll_ctl", []int{6}, []int{1, 2, 20, 100}},
	{"pidfd_open", nil, []int{1}},
	{"shutdown", nil, []int{1}},
	{"exit_group", []int{1}, nil},
	{"mmap", nil, []int{1, 30}},
	{"futex", nil, []int{20, 100}},
}

// testTakeoverCalls has a signal hit the process that makes a certain call.
func testTakeoverCalls(t *trial, signal string) string {
	t.canTrace()
	stop := time.Duration(0)
	if signal == "SIGSTOP" {
		stop = 800 * time.Millisecond
	}
	var sum fates
	hits := 0
	for _, c := range takeoverCalls {
		call := knownCalls(c.call)
		if call == "" {
			continue
		}
		whens := c.whens
		if t.options.Long {
			whens = slices.Concat(c.whens, c.long)
		}
		for _, when := range whens {
			t.each(fmt.Sprintf("%s at %d", c.call, when), func(t *trial) {
				var in *injection
				o := &ordeal{script: asItself(2), quiet: true, stopped: stop, limit: goesOnWithin + 2*time.Second} // it is slow when traced
				var first int
				o.prepare = func(l *lab) func() {
					first = l.daemon.pid()
					in = l.injectSignal(call, signal, when)
					return func() {
						in.end()
						hits += in.signals(signal)
					}
				}
				o.judge = func(l *lab) fate {
					killed := in.killed()
					switch {
					case stop > 0 || len(killed) == 0:
						return kept | taken
					case killed[first]:
						return taken | lost
					case l.daemon.lives.left(first):
						return lost // the successor was the daemon when it was killed
					}
					return kept
				}
				sum.run(t, o)
			})
		}
	}
	if hits == 0 {
		t.violate("no call was hit")
	}
	return fmt.Sprintf("%d calls hit; %s", hits, &sum)
}

// testTakeoverMany has a daemon with as many connections as it can have be taken over from.
func testTakeoverMany(t *trial) string {
	const limit = 18_000
	room := limit
	var own unix.Rlimit
	t.must(unix.Getrlimit(unix.RLIMIT_NOFILE, &own))
	if most := int(min(own.Cur, 1<<20)) - 1000; most < room { // what this process needs beside
		room = most
	}
	if !t.options.Long {
		room = min(room, 6000)
	}
	l := t.newTakeoverLab(0)
	l.unrecorded = true
	conns := make([]*raw, room)
	var next atomic.Int64
	const dialers = 8
	t.parallel(dialers, func(int) {
		for i := int(next.Add(1)) - 1; i < room; i = int(next.Add(1)) - 1 {
			conns[i] = l.dialRaw()
			if i%2 == 0 {
				conns[i].mustWrite([]byte("lock many" + strconv.Itoa(i) + " 0\r\n"))
				conns[i].want(locked, 1)
			}
		}
	})
	for i := 1; i < room; i += 2 {
		conns[i].mustWrite([]byte("lock many" + strconv.Itoa(i-1) + " 3600000\r\n"))
	}
	var s status
	t.eventually(patience, "all wait", func() error {
		if l.ask(&s); s.Waiters != room/2 {
			return fmt.Errorf("%d do", s.Waiters)
		}
		return nil
	})
	probe := l.startProbe()
	var sum pauses
	for n := range 3 {
		t.install(asItself(takeoverLoops[n%len(takeoverLoops)]))
		done, err := l.daemon.takeOver()
		if err != nil {
			t.fatal("takeover %d: %w; log: %s", n+1, err, l.daemon.log.String())
		}
		l.daemon.awaitSuccessor(done)
		sum.add(done)
		if done.HeldKeys < room/2 || done.Waiters != room/2 || done.Connections < room {
			t.violate("handed over: %+v", done)
		}
	}
	probe.stop()
	for i := 0; i+1 < room; i += 2 {
		conns[i].mustWrite([]byte("unlock many" + strconv.Itoa(i) + "\r\n"))
		conns[i].want(unlocked, 1)
		conns[i+1].want(locked, 1)
	}
	return fmt.Sprintf("%d connections, loops stood for %s, at most %s; slowest answer %s",
		room, milliseconds(sum.median()), milliseconds(sum.longest), milliseconds(probe.times[len(probe.times)-1]))
}
