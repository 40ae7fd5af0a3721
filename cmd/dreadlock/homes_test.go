package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"dreadlock/proto/prototest"
)

// ports returns the epoll instance, and with it the loop, that watches each of the daemon's connections, by the port of the
// client. The kernel lists the sockets of an epoll instance by inode, and all sockets with their inode and their peer's port.
// There are other instances, that of Go's runtime among them, which watches a connection until the one who has brought it to its
// loop closes his descriptor: they are edge-triggered, or report once, and loops are neither.
func (d *daemon) ports() (map[int]string, error) {
	loops := map[uint64]string{} // by inode
	proc := fmt.Sprintf("/proc/%d/", d.cmd.Process.Pid)
	fds, err := os.ReadDir(proc + "fdinfo")
	if err != nil {
		return nil, err
	}
	for _, fd := range fds {
		if kind, _ := os.Readlink(proc + "fd/" + fd.Name()); kind != "anon_inode:[eventpoll]" {
			continue
		}
		text, err := os.ReadFile(proc + "fdinfo/" + fd.Name())
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(line, "tfd:") {
				continue
			}
			var target int
			var events uint32
			var data, pos, inode uint64
			if _, err := fmt.Sscanf(line, "tfd: %d events: %x data: %x pos:%d ino:%x", &target, &events, &data, &pos, &inode); err != nil {
				return nil, fmt.Errorf("%q: %w", line, err)
			}
			if events&(unix.EPOLLET|unix.EPOLLONESHOT) == 0 {
				loops[inode] = fd.Name()
			}
		}
	}
	text, err := os.ReadFile("/proc/thread-self/net/tcp") // another thread may be in another network namespace
	if err != nil {
		return nil, err
	}
	ports := map[int]string{}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line) // number, local, remote, state, queues, timer, retransmits, user, timeout, inode
		if len(fields) < 10 {
			continue
		}
		inode, err := strconv.ParseUint(fields[9], 10, 64)
		if err != nil || loops[inode] == "" {
			continue
		}
		_, port, _ := strings.Cut(fields[2], ":")
		n, err := strconv.ParseUint(port, 16, 16)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		ports[int(n)] = loops[inode]
	}
	return ports, nil
}

// queuer adds clients to queues and knows when they are there. It has one connection to each loop: messages from one loop to
// another arrive in order, so an answer on that connection confirms that all commands that its loop read before have arrived.
type queuer struct {
	d      *daemon
	probes map[string]*prototest.Client // by loop
	homes  map[int]string               // the loop of each connection, by the port of the client
	dialed int                          // connections made
}

// newQueuer connects until each loop has a connection. It also finds the loops of the given clients.
func newQueuer(d *daemon, loops int, clients ...*prototest.Client) *queuer {
	d.tb.Helper()
	q := &queuer{d: d, probes: map[string]*prototest.Client{}}
	for len(q.probes) < loops {
		var probes []*prototest.Client
		for range 4 * loops {
			probes = append(probes, d.dial())
		}
		if q.dialed += len(probes); q.dialed > 1000*loops {
			d.tb.Fatalf("%d connections to %d loops, want %d", q.dialed, len(q.probes), loops)
		}
		for _, c := range append(probes, clients...) {
			c.Do("unlock nobodys", "e not locked") // it has been accepted
		}
		var err error
		if q.homes, err = d.ports(); err != nil {
			d.tb.Fatal(err)
		}
		for _, c := range probes {
			q.probes[q.home(c)] = c
		}
	}
	return q
}

func (q *queuer) home(c *prototest.Client) string {
	q.d.tb.Helper()
	home := q.homes[c.Conn().LocalAddr().(*net.TCPAddr).Port]
	if home == "" {
		q.d.tb.Fatalf("no loop has the peer of %v", c.Conn().LocalAddr())
	}
	return home
}

// queue sends the command of c for a key that another client holds, and returns when c is in the queue.
func (q *queuer) queue(c *prototest.Client, key string, timeout int) {
	q.d.tb.Helper()
	c.Send("unlock nobodys", fmt.Sprintf("lock %s %d", key, timeout))
	c.Expect("e not locked")
	q.probes[q.home(c)].Do("unlock "+key, "e not owner")
}
