package main

import (
	"bytes"
	"errors"
	"net"
	"net/url"
	"os"
	"testing"
	"time"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// dialFrom connects to the daemon from the remote host.
func (d *daemon) dialFrom(r *prototest.Remote) (c *prototest.Client) {
	d.tb.Helper()
	r.Do(func() { c = d.dial() })
	return c
}

// fill sends commands until the daemon takes no more, because its answers are not read. The daemon says when that is so.
func fill(t *testing.T, v *view, c *prototest.Client) {
	t.Helper()
	if err := c.Conn().SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() {
		commands := bytes.Repeat([]byte("unlock nobodys\r\n"), 1000)
		for {
			if _, err := c.Conn().Write(commands); err != nil {
				written <- err
				return
			}
		}
	}()
	eventually(t, "the daemon does not hold back a client that does not read", func() bool {
		var page api.ConnectionPage
		v.get("/api/v1/connections?address="+url.QueryEscape(c.Conn().LocalAddr().String()), &page)
		return len(page.Connections) == 1 && page.Connections[0].State == api.Lagging
	})
	if err := c.Conn().SetWriteDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := <-written; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
}

// A host that vanishes says nothing, ever. Its clients lose their locks all the same, and the next in line get them:
// those that were silent, those that were granted a key after that, and those that had answers to read, which the
// keepalive of the kernel does not look after. Who is there and silent loses nothing.
func TestHostVanishes(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds until a host is given up")
	}
	r := prototest.NewRemote(t)
	t.Parallel() // it mostly waits
	v := startAdmin(t, "--listen", net.JoinHostPort(r.Address, "0"), "--keepalive", "1s")
	d := v.d
	silent, waiting, unread, here := d.dialFrom(r), d.dialFrom(r), d.dialFrom(r), d.dial()
	silent.Do("lock silent 0", "l locked")
	unread.Do("lock unread 0", "l locked")
	here.Do("lock here 0", "l locked")
	here.Do("lock granted 0", "l locked")
	newQueuer(d, 2, waiting).queue(waiting, "granted", 600_000)
	fill(t, v, unread)
	r.Vanish()
	here.Do("unlock granted", "u unlocked")
	began := time.Now()
	for _, key := range []string{"silent", "granted", "unread"} {
		d.dial().Do("lock "+key+" 60000", "l locked")
		t.Logf("key %s is free after %s", key, time.Since(began).Round(time.Millisecond))
	}
	d.dial().Do("lock here 0", "t timeout")
}

// A client that does not read its answers loses nothing as long as its host is there: here they fit into the buffers of
// the kernel, which would give the connection up if it was told to.
func TestSlowReader(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for longer than a host is trusted")
	}
	t.Parallel() // it mostly waits
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
