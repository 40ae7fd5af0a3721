package faults

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"slices"
	"time"
)

// worstAnswer is the promise: how long any client may wait for an answer that nothing but the daemon's other work delays.
const worstAnswer = 20 * time.Millisecond

// politely starts a daemon that leaves the processor to the client that measures it.
var politely = []string{"nice", "-n", "10"}

func turnCases() (all []*Case) {
	for _, loops := range []int{1, 2} {
		all = append(all, &Case{
			Name:    fmt.Sprintf("pipelines-%d", loops),
			Fault:   fmt.Sprintf("300 clients with 250 KiB of commands after a wait are let go together, loops %d", loops),
			Promise: "the worst answer to anybody else takes " + milliseconds(worstAnswer),
			run:     func(t *trial) string { return testPipelines(t, loops) },
			alone:   true,
		}, &Case{
			Name:    fmt.Sprintf("big-holder-%d", loops),
			Fault:   fmt.Sprintf("a client that holds 100,000 keys ends, and nine more, loops %d", loops),
			Promise: "the worst answer to anybody else takes " + milliseconds(worstAnswer),
			run:     func(t *trial) string { return testBigHolders(t, loops) },
			alone:   true,
		})
	}
	return all
}

// probe measures how long a client that is not concerned waits for its answers.
type probe struct {
	client *client
	daemon *runQueue
	done   chan struct{}
	ended  chan struct{}
	times  []time.Duration // of all answers
	own    []time.Duration // the same without what the daemon has waited for a processor meanwhile
	waited time.Duration   // the longest such wait
	noise  time.Duration   // by how much this machine delays the probe, when it wants to run
}

// startProbe has a client lock and unlock a key of its own, about every millisecond.
func (l *lab) startProbe() *probe {
	p := &probe{client: l.dial(l.near), daemon: l.t.runQueueOf(l.daemon), done: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		defer l.t.recovered()
		tick := time.NewTimer(0)
		defer tick.Stop()
		due := time.Now()
		for i := 0; ; i++ {
			select {
			case <-p.done:
				return
			case <-tick.C:
			}
			p.noise = max(p.noise, time.Since(due))
			before := time.Now()
			if i%2 == 0 {
				p.client.lock("probe", 0)
			} else {
				p.client.unlock("probe")
			}
			took := time.Since(before)
			waited := p.daemon.wait()
			p.times = append(p.times, took)
			p.own = append(p.own, max(took-waited, 0))
			p.waited = max(p.waited, waited)
			due = time.Now().Add(time.Millisecond)
			tick.Reset(time.Millisecond)
		}
	}()
	return p
}

// stop ends the probe. Its figures belong to the caller from then on.
func (p *probe) stop() {
	close(p.done)
	<-p.ended
	slices.Sort(p.times)
	slices.Sort(p.own)
}

// atMost holds the slowest answers against a limit, all but a part of them. What the machine delays, the daemon or the probe, is not
// the daemon's fault.
func (p *probe) atMost(t *trial, limit time.Duration, part float64) string {
	if len(p.times) == 0 {
		t.fatal("the probe has measured nothing")
	}
	last := int(part * float64(len(p.times)-1))
	worst, own := p.times[last], p.own[last]
	what := "worst answer"
	if part < 1 {
		what = fmt.Sprintf("%g %% of the answers within", 100*part)
	}
	figure := fmt.Sprintf("%s %s", what, milliseconds(worst))
	machine := fmt.Sprintf("this machine lets the daemon wait for %s, and a client for %s", milliseconds(p.waited), milliseconds(p.noise))
	switch {
	case worst <= limit:
	case own <= limit+p.noise: // neither kept nor broken, as far as can be seen
		figure += ", not to be judged: " + machine
	default:
		t.violate("%s, want %s; %s", figure, milliseconds(limit), machine)
	}
	return figure
}

// settled returns when the daemon has done all that the pipelines ask for.
func (l *lab) settled() {
	const pause = 200 * time.Millisecond
	refusals := func() int64 {
		var s status
		l.ask(&s)
		return s.commands()["lock "+alreadyLocked] // which no other client causes
	}
	for before := int64(-1); ; {
		after := refusals()
		if after == before {
			return
		}
		before = after
		l.t.pause(pause)
	}
}

// testPipelines has clients wait, each for a key of one holder, with many commands after the lock.
func testPipelines(t *trial, loops int) string {
	const clients, size = 300, 250 << 10
	l := t.newLabBy(politely, 0, "--loops", fmt.Sprint(loops))
	l.unrecorded = true
	holder := l.dial(l.near)
	var commands [clients]int
	conns := make([]net.Conn, clients)
	for i := range conns {
		holder.mustLock(fmt.Sprintf("gate%d", i))
	}
	t.parallel(clients, func(i int) {
		conn, err := l.near(t.ctx)
		t.must(err)
		t.cleanup(func() { _ = conn.Close() })
		conns[i] = conn
		text := []byte(fmt.Sprintf("lock gate%d 3600000\r\n", i))
		again := []byte(fmt.Sprintf("lock own%d 0\r\n", i))
		commands[i] = size / len(again)
		t.must(conn.SetWriteDeadline(time.Now().Add(patience)))
		_, err = conn.Write(append(text, bytes.Repeat(again, commands[i])...))
		t.must(err)
	})
	l.settled()
	p := l.startProbe()
	t.pause(100 * time.Millisecond)
	holder.close()
	l.settled()
	p.stop()
	t.parallel(clients, func(i int) { // read only now: reading would disturb the probe
		defer conns[i].Close() //nolint:errcheck // it was only read
		in := bufio.NewReader(conns[i])
		for n := range commands[i] + 1 {
			want := alreadyLocked
			if n < 2 {
				want = locked
			}
			t.must(conns[i].SetReadDeadline(time.Now().Add(patience)))
			line, err := in.ReadSlice('\n')
			if err != nil || string(line) != want+"\r\n" {
				t.violate("pipeline %d, answer %d: want %q, got %q, %v", i, n, want, line, err)
				return
			}
			t.commands.Add(1)
		}
	})
	return p.atMost(t, worstAnswer, 1)
}

// testBigHolders ends connections that hold many keys, all at once.
func testBigHolders(t *trial, loops int) string {
	const holders, keys = 10, 100_000
	l := t.newLabBy(politely, 0, "--loops", fmt.Sprint(loops))
	l.unrecorded = true
	conns := make([]net.Conn, holders)
	t.parallel(holders, func(i int) {
		conn, err := l.near(t.ctx)
		t.must(err)
		t.cleanup(func() { _ = conn.Close() })
		conns[i] = conn
		l.hoard(conn, fmt.Sprintf("big%dx", i), keys)
	})
	heir := l.dial(l.near)
	heir.waits("big0x99999", 1)
	p := l.startProbe()
	t.pause(100 * time.Millisecond)
	began := time.Now()
	for _, conn := range conns {
		_ = conn.Close()
	}
	heir.want(locked)
	first := time.Since(began)
	var s status
	t.eventually(patience, "all keys are free", func() error {
		if l.ask(&s); s.HeldKeys > 2 { // those of the heir and the probe
			return fmt.Errorf("%d are held", s.HeldKeys)
		}
		return nil
	})
	all := time.Since(began)
	p.stop()
	return p.atMost(t, worstAnswer, 1) + fmt.Sprintf("; a key granted after %s, all free after %s", milliseconds(first), milliseconds(all))
}

// hoard locks many keys on a connection, and checks the answers.
func (l *lab) hoard(conn net.Conn, prefix string, keys int) {
	const batch = 1000
	in := bufio.NewReader(conn)
	var text bytes.Buffer
	for n := 0; n < keys; n += batch {
		text.Reset()
		for i := n; i < n+batch; i++ {
			fmt.Fprintf(&text, "lock %s%d 0\r\n", prefix, i)
		}
		l.t.must(conn.SetDeadline(time.Now().Add(patience)))
		if _, err := conn.Write(text.Bytes()); err != nil {
			l.t.fatal("hoard keys: %w", err)
		}
		for i := n; i < n+batch; i++ {
			line, err := in.ReadSlice('\n')
			if err != nil || string(line) != locked+"\r\n" {
				l.t.fatal("lock %s%d: want %q, got %q, %w", prefix, i, locked, line, err)
			}
			l.t.commands.Add(1)
		}
	}
}
