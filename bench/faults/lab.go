package faults

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"dreadlock/proto/prototest/netns"
)

// port is where the daemon listens. Its host has no other programs.
const port = "6001"

// lab is a daemon on a host of its own, the hosts of its clients, and the history of all of them.
type lab struct {
	t       *trial
	host    *netns.Host // of the daemon
	daemon  *daemon
	remotes []*remote
	history *history
	load    *load // nil without one
	// processes end the processes of clients.
	processes []func()

	mu      sync.Mutex
	clients []*client

	// prefix is that of the keys for which clients compete.
	prefix string
	// past is what the clients of histories that were checked and forgotten have sent and received.
	past verdict
	// words has the clients that compete also use the words that the original daemon does not have.
	words bool
	// others is the number of commands that other clients were answered, all of them, as they have checked.
	others atomic.Int64
	// unrecorded says that there were other clients, so that the daemon may have counted more.
	unrecorded bool
}

// remote is a host of clients, with a wire to the daemon's host.
type remote struct {
	*netns.Host
	wire    *wire
	address string // of the daemon, from there
}

// newLab starts a daemon on a host of its own, with a number of hosts for clients and with options. It is ended at the end of
// the case, and everything is checked then.
func (t *trial) newLab(hosts int, options ...string) *lab { return t.newLabBy(nil, hosts, options...) }

// newLabBy is newLab with a command that starts the daemon.
func (t *trial) newLabBy(by []string, hosts int, options ...string) *lab {
	l := t.newHost()
	for i := range hosts {
		l.addRemote(i)
	}
	l.startBy(by, options...)
	t.must(l.daemon.awaitReady())
	t.cleanup(l.finish)
	return l
}

// newHost returns a lab whose daemon is yet to be started. Whoever starts it checks it.
func (t *trial) newHost() *lab {
	l := &lab{t: t, history: &history{}}
	var err error
	if l.host, err = netns.New(); err != nil {
		t.skip("%w", err)
	}
	t.cleanup(func() { _ = l.host.Close() })
	return l
}

func (l *lab) addRemote(i int) {
	h, err := netns.New()
	l.t.must(err)
	l.t.cleanup(func() { _ = h.Close() })
	subnet := "10.77." + strconv.Itoa(i) + "."
	w, err := newWire("wire"+strconv.Itoa(i), [2]*netns.Host{l.host, h}, [2]string{subnet + "1", subnet + "2"})
	l.t.must(err)
	l.t.cleanup(func() { _ = w.close() })
	l.remotes = append(l.remotes, &remote{Host: h, wire: w, address: net.JoinHostPort(subnet+"1", port)})
}

// near connects from the daemon's own host, by TCP.
func (l *lab) near(ctx context.Context) (net.Conn, error) {
	return dialOn(ctx, l.host, net.JoinHostPort("127.0.0.1", port))
}

// dial connects from the remote host.
func (r *remote) dial(ctx context.Context) (net.Conn, error) { return dialOn(ctx, r.Host, r.address) }

func dialOn(ctx context.Context, h *netns.Host, address string) (conn net.Conn, err error) {
	err = h.Do(func() error {
		d := net.Dialer{
			FallbackDelay: -1, // a second attempt would be made on another thread
			// A client that is silent learns that its connection has ended when it probes it. It does so for longer than any cut lasts.
			KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 60},
		}
		conn, err = d.DialContext(ctx, "tcp", address)
		return err
	})
	return conn, err
}

// keep remembers a client for the end of the case.
func (l *lab) keep(c *client) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clients = append(l.clients, c)
}

// mayEnd notes that the connections of these clients may end from now on.
func mayEnd(clients ...*client) {
	for _, c := range clients {
		c.session.mayEnd()
	}
}

// finish ends the case: what the daemon says must fit what the clients know, all keys must be free after the last client has
// gone, the counters must balance, and the history must be without a violation. It is called once.
func (l *lab) finish() {
	defer l.daemon.kill()
	defer l.endProcesses()
	l.load.stop()
	if !l.t.stopped() && l.daemon.running() {
		l.checkHeld()
	}
	l.mu.Lock()
	clients := slices.Clone(l.clients)
	l.mu.Unlock()
	for _, c := range clients {
		c.close()
	}
	if l.t.stopped() {
		return
	}
	l.forget()
	if l.daemon.running() {
		l.checkCounters()
		l.daemon.stop()
	}
	l.daemon.checkLog()
}

// endProcesses ends the processes of clients.
func (l *lab) endProcesses() {
	for _, end := range l.processes {
		end()
	}
	l.processes = nil
}

// forget checks the history so far and begins a new one. The clients must have closed all their connections, and the keys of
// the next history must be others.
func (l *lab) forget() {
	v := check(l.history)
	for _, what := range v.violations {
		l.t.violate("%s", what)
	}
	l.t.commands.Add(v.answered())
	l.past.sent += v.sent
	l.past.pairs += v.pairs
	if l.past.answers == nil {
		l.past.answers = map[string]int64{}
	}
	for answer, n := range v.answers {
		l.past.answers[answer] += n
	}
	l.history.sessions, l.clients = nil, nil
}

// checkHeld compares what the daemon says it holds with what the clients know. Before that, the daemon has to notice the end of
// all connections that have ended.
func (l *lab) checkHeld() {
	var alive, holding, waiting int
	for _, c := range l.clients {
		if c.session.lostAt() != never || c.session.ended != never {
			continue
		}
		alive++
		held, waits := c.state()
		holding += held
		waiting += waits
	}
	var s status
	l.t.eventually(patience, "the daemon knows who is connected", func() error {
		l.ask(&s)
		if s.Connections != alive {
			return fmt.Errorf("it has %d connections, and %d clients live", s.Connections, alive)
		}
		if s.HeldKeys != holding || s.Waiters != waiting {
			return fmt.Errorf("it has %d held keys and %d waiters, and its clients hold %d and wait for %d",
				s.HeldKeys, s.Waiters, holding, waiting)
		}
		return nil
	})
}

// state returns how many keys the client holds, and for how many it waits: commands that were sent and not answered.
func (c *client) state() (held, waiting int) {
	for i := range c.session.operations {
		switch op := &c.session.operations[i]; {
		case op.answered == never:
			return held, 1
		case op.reply == locked:
			held++
		case op.reply == unlocked:
			held--
		}
	}
	return held, 0
}

// checkCounters looks at the daemon when all clients have gone: every command has one outcome, and what was granted was given
// back.
func (l *lab) checkCounters() {
	var s status
	l.t.eventually(patience, "all keys are free when all clients have gone", func() error {
		l.ask(&s)
		if s.Connections != 0 || s.HeldKeys != 0 || s.Waiters != 0 {
			return fmt.Errorf("%d connections, %d held keys, %d waiters", s.Connections, s.HeldKeys, s.Waiters)
		}
		return nil
	})
	answers, commands := s.commands(), int64(0)
	for _, n := range answers {
		commands += n
	}
	unanswered := l.past.sent - l.past.answered()
	loaded := l.load.commands() + l.others.Load()
	l.t.commands.Add(loaded)
	if l.unrecorded {
		return
	}
	if least := l.past.answered() + loaded; commands < least || commands > least+unanswered {
		l.t.violate("the daemon has counted %d commands, and its clients had %d answers and %d commands without one",
			commands, least, unanswered)
	}
	for answer, n := range l.past.answers {
		if got := answers[answer]; got < n || loaded == 0 && got > n+unanswered {
			l.t.violate("the daemon has counted %d of %q, and its clients had %d and %d commands without an answer",
				got, answer, n, unanswered)
		}
	}
}
