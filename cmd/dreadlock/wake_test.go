package main

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"dreadlock/proto/prototest"
)

// TestFailedWakeUps has the writes fail by which the loops are woken for new connections, the first of each thread, with each
// error but EAGAIN: that takes 2^64 wake-ups before, and gnet repeats the write then. The connections that come meanwhile are
// served, but for one for each failed write. The daemon goes on, and nobody loses a key.
func TestFailedWakeUps(t *testing.T) {
	for _, name := range []string{"ENOBUFS", "ENOMEM", "EINTR", "EPERM"} {
		t.Run(name, func(t *testing.T) {
			const tries = 20
			for range tries {
				if testFailedWakeUps(t, name) {
					return
				}
			}
			t.Fatalf("each of %d daemons was ended by a write of Go's runtime", tries)
		})
	}
}

// testFailedWakeUps is void, and reports false, if no write of ours has failed, or one of Go's runtime, which wakes itself by an
// eventfd as well: it ends every program then.
func testFailedWakeUps(t *testing.T, name string) (valid bool) {
	d := start(t)
	holder := d.dial()
	holder.Do("lock held 0", "l locked")
	in := d.inject(t, "write:error="+name+":when=1", "-P", "anon_inode:[eventfd]")
	const clients = 100
	errs := make(chan error, clients)
	for i := range clients {
		go func() { errs <- d.lockOnce(fmt.Sprintf("k%d", i)) }()
	}
	var lost []error
	for range clients {
		if err := <-errs; err != nil {
			lost = append(lost, err)
		}
	}
	in.end()
	if d.diedOfRuntime() {
		return false
	}
	failed := in.count()
	if len(lost) > failed {
		t.Errorf("%d writes have failed, and %d connections were not served: %v", failed, len(lost), lost)
	}
	holder.Do("lock held 0", "e already locked")
	d.alive()
	d.stop()
	return failed > 0
}

// diedOfRuntime reports whether a write of Go's runtime to its own eventfd has failed.
func (d *daemon) diedOfRuntime() bool {
	return strings.Contains(d.log.String(), "netpollBreak write failed")
}

// lockOnce connects, locks a key, and unlocks it.
func (d *daemon) lockOnce(key string) error {
	conn, err := net.DialTimeout("tcp", d.address, prototest.Patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(prototest.Patience))
	if _, err := fmt.Fprintf(conn, "lock %s 0\r\nunlock %s\r\n", key, key); err != nil {
		return err
	}
	const want = "l locked\r\nu unlocked\r\n"
	got := make([]byte, len(want))
	if n, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		return fmt.Errorf("received %q (%w), want %q", got[:n], err, want)
	}
	return nil
}
