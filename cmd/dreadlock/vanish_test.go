package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"dreadlock/proto/prototest"
)

// dialFrom connects to the daemon from the remote host.
func (d *daemon) dialFrom(r *prototest.Remote) (c *prototest.Client) {
	d.tb.Helper()
	r.Do(func() { c = d.dial() })
	return c
}

// stuff sends commands until the daemon takes no more, because its answers are not read.
func stuff(t *testing.T, c *prototest.Client) {
	t.Helper()
	var commands []byte
	for range 1000 {
		commands = append(commands, "unlock nobodys\r\n"...)
	}
	if err := c.Conn().SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	for total := 0; ; {
		if err := c.Conn().SetWriteDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, err := c.Conn().Write(commands)
		if errors.Is(err, os.ErrDeadlineExceeded) && n == 0 {
			return
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		commands = append(commands[n:], commands[:n]...) // from where it stopped
		if total += n; total > 256<<20 {
			t.Fatal("it takes commands without end")
		}
	}
}

// A host that vanishes says nothing, ever. Its clients lose their locks all the same, and the next in line get them:
// those that were silent, and those that were granted a key after that. Who is there and silent loses nothing.
func TestHostVanishes(t *testing.T) {
	d, r := startForRemote(t)
	silent, waiting, here := d.dialFrom(r), d.dialFrom(r), d.dial()
	silent.Do("lock silent 0", "l locked")
	here.Do("lock here 0", "l locked")
	here.Do("lock granted 0", "l locked")
	waiting.Send("unlock nobodys", "lock granted 600000")
	waiting.Expect("e not locked")
	for range 8 { // one of them through the loop of that client: it is in the queue
		d.dial().Do("unlock granted", "e not owner")
	}
	r.Vanish()
	here.Do("unlock granted", "u unlocked")
	awaitFree(t, d, "silent", "granted")
	d.dial().Do("lock here 0", "t timeout")
}

// The same for a client that had answers to read: the keepalive of the kernel does not look after such a connection.
func TestHostVanishesUnread(t *testing.T) {
	d, r := startForRemote(t)
	unread := d.dialFrom(r)
	unread.Do("lock unread 0", "l locked")
	stuff(t, unread)
	r.Vanish()
	awaitFree(t, d, "unread")
}

func startForRemote(t *testing.T) (*daemon, *prototest.Remote) {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes some seconds until a host is given up")
	}
	r := prototest.NewRemote(t)
	return startWith(t, launch{}, "--listen", net.JoinHostPort(r.Address, "0"), "--loops", "2", "--keepalive", "1s"), r
}

// awaitFree takes keys whose holders are gone.
func awaitFree(t *testing.T, d *daemon, keys ...string) {
	t.Helper()
	began := time.Now()
	for _, key := range keys {
		d.dial().Do("lock "+key+" 60000", "l locked")
		t.Logf("key %s is free after %s", key, time.Since(began).Round(time.Millisecond))
	}
}

// A client that does not read its answers loses nothing as long as its host is there: here they fit into the buffers of
// the kernel, which would give the connection up if it was told to.
func TestSlowReader(t *testing.T) {
	d := start(t, "--keepalive", "1s")
	slow := d.dial()
	if err := slow.Conn().SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	slow.Do("lock a 0", "l locked")
	slow.Write(bytes.Repeat([]byte("unlock nobodys\r\n"), 2000))
	d.dial().Do("lock a 9000", "t timeout") // more than twice the time after which a host is lost
	for range 2000 {
		slow.Expect("e not locked")
	}
}
