package faults

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"syscall"
	"time"
)

func processCases() []*Case {
	const keepalive = time.Second
	return []*Case{{
		Name:    "stop-holder",
		Fault:   fmt.Sprintf("SIGSTOP of a process that holds and waits, for %s, keepalive %s", vanishLimit(keepalive)+time.Second, keepalive),
		Promise: "it loses nothing: its host is there",
		run:     func(t *trial) string { return testStopHolder(t, keepalive) },
	}, {
		Name:    "kill-holder",
		Fault:   "SIGKILL of a process that holds a key",
		Promise: "the next in line has it at once",
		run:     func(t *trial) string { return testKill(t, 1) },
	}, {
		Name:    "kill-hundreds",
		Fault:   "SIGKILL of a process with 500 connections that hold and wait",
		Promise: "all of their keys go to the next in line at once, in order",
		run:     func(t *trial) string { return testKill(t, 500) },
	}, {
		Name:    "stop-daemon",
		Fault:   "SIGSTOP of the daemon under load, for 2 s",
		Promise: "it goes on where it was; no timeout is early",
		run:     testStopDaemon,
	}, {
		Name:    "kill-daemon",
		Fault:   "SIGKILL of the daemon under load",
		Promise: "all clients see it at once; the next one serves at the same address, its tokens are greater",
		run:     testKillDaemon,
	}}
}

// startClient starts a process on a remote host whose connections are those that the dialer makes.
func (l *lab) startClient(r *remote) (*exec.Cmd, dialer) {
	t := l.t
	path := t.path("relay.sock")
	args := append(append([]string{}, t.options.Client...), path, r.address)
	cmd := exec.Command(args[0], args[1:]...) //nolint:noctx // the end of the case ends it
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	input, err := cmd.StdinPipe()
	t.must(err)
	t.must(r.Do(cmd.Start))
	l.processes = append(l.processes, func() {
		_ = input.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	dial := func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	t.eventually(patience, "the client process serves", func() error {
		conn, err := dial(t.ctx)
		if err == nil {
			err = conn.Close()
		}
		return err
	})
	return cmd, dial
}

// testStopHolder stops a client process for longer than a silent host is trusted.
func testStopHolder(t *trial, keepalive time.Duration) string {
	l := t.newLab(1, "--keepalive", keepalive.String())
	process, from := l.startClient(l.remotes[0])
	holder, waiter, near := l.dial(from), l.dial(from), l.dial(l.near)
	holder.mustLock("a")
	near.mustLock("b")
	waiter.waits("b", 1)
	ld := l.startLoad(bystanders())
	_ = process.Process.Signal(syscall.SIGSTOP)
	began := time.Now()
	near.unlock("b")
	for time.Since(began) < vanishLimit(keepalive)+time.Second {
		if got := near.lock("a", 100*time.Millisecond); got != timedOut {
			t.violate("a process that is stopped has lost its key: %q", got)
			break
		}
	}
	_ = process.Process.Signal(syscall.SIGCONT)
	waiter.want(locked)
	holder.send(command(unlock, "a", 0), command(lock, "a", 0))
	holder.want(unlocked, locked)
	ld.stop()
	return "kept for " + seconds(time.Since(began))
}

// testKill kills a client process with many connections. Each holds a key and waits for one of another client.
func testKill(t *trial, connections int) string {
	l := t.newLab(1, "--loops", "2", "--keepalive", "1m")
	process, from := l.startClient(l.remotes[0])
	near := l.dial(l.near)
	dying, heirs := make([]*client, connections), make([]*client, connections)
	for i := range dying {
		held, wanted := fmt.Sprintf("held%d", i), fmt.Sprintf("wanted%d", i)
		near.mustLock(wanted)
		dying[i], heirs[i] = l.dial(from), l.dial(l.near)
		dying[i].mustLock(held)
		dying[i].waits(wanted, 1)
		heirs[i].waits(held, 1)
	}
	ld := l.startLoad(bystanders())
	mayEnd(dying...)
	began := time.Now()
	_ = process.Process.Kill()
	for _, c := range heirs {
		c.want(locked)
	}
	took := time.Since(began)
	const atOnce = 2 * time.Second // on a busy machine
	if took > atOnce {
		t.violate("the last key was granted after %s", took)
	}
	for i := range dying { // nobody waits for these any more
		near.unlock(fmt.Sprintf("wanted%d", i))
		if got := near.lock(fmt.Sprintf("wanted%d", i), 0); got != locked {
			t.violate("a client that was killed got a key: %q", got)
		}
	}
	ld.stop()
	return fmt.Sprintf("granted after %s; others' worst answer %s", milliseconds(took), milliseconds(time.Duration(ld.worst.Load())))
}

// testStopDaemon stops the daemon while clients compete.
func testStopDaemon(t *trial) string {
	l := t.newLab(1, "--loops", "2")
	const stopped, length = 2 * time.Second, 5 * time.Second
	timer := time.AfterFunc(time.Second, func() {
		l.daemon.signal(syscall.SIGSTOP)
		time.AfterFunc(stopped, func() { l.daemon.signal(syscall.SIGCONT) })
	})
	defer timer.Stop()
	return l.compete(20, length, []dialer{l.near, l.remotes[0].dial}, 8)
}

// testKillDaemon kills the daemon while clients compete, and starts another one.
func testKillDaemon(t *trial) string {
	l := t.newLab(1, "--loops", "2")
	const clients = 50
	all := make([]*client, clients)
	for i := range all {
		all[i] = l.dial([]dialer{l.near, l.remotes[0].dial}[i%2])
		all[i].mustLock(fmt.Sprintf("own%d", i))
	}
	before := l.fence("token")
	mayEnd(all...)
	began := time.Now()
	l.daemon.kill()
	t.parallel(clients, func(i int) {
		if !all[i].seesEnd() {
			t.violate("session %d: the daemon was killed, and the connection does not end", i)
		}
	})
	took := time.Since(began)
	l.daemon.checkLog()
	l.forget() // the next daemon knows nothing of it
	l.past = verdict{}
	l.start("--loops", "2")
	back := time.Since(began)
	heir := l.dial(l.near)
	for i := range all {
		heir.mustLock(fmt.Sprintf("own%d", i))
	}
	if after := l.fence("token"); after <= before {
		t.violate("the tokens of the next daemon are not greater: %d after %d", after, before)
	}
	return fmt.Sprintf("seen after %s, serving again after %s", milliseconds(took), milliseconds(back))
}

// fence locks a key on a connection of its own, and returns the token of the grant.
func (l *lab) fence(key string) (token uint64) {
	l.unrecorded = true
	conn, err := l.near(l.t.ctx)
	l.t.must(err)
	defer conn.Close() //nolint:errcheck // its end releases the key
	l.t.must(conn.SetDeadline(time.Now().Add(patience)))
	_, err = fmt.Fprintf(conn, "lock %s 0\r\nfence %s\r\n", key, key)
	l.t.must(err)
	var held string
	if _, err = fmt.Fscanf(conn, "l %s\r\nf %d\r\n", &held, &token); err != nil {
		l.t.fatal("read a token: %w", err)
	}
	return token
}
