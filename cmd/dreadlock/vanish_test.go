package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
// (A smaller buffer would fill sooner, but to shrink one that is in use may stop both directions: what is beyond the new window is dropped,
// with the acknowledgements that it carries.)
func fill(t *testing.T, v *view, c *prototest.Client) {
	t.Helper()
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
		select {
		case err := <-written:
			t.Fatalf("a client that does not read was dropped: %v", err)
		default:
		}
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

// bound is the promise: how long after the last byte from a host its clients have lost everything.
func bound(keepAlive time.Duration) time.Duration { return 2*keepAlive + 2*time.Second }

// busy is what a busy machine may add to a bound in a test.
const busy = 2 * time.Second

// A host that vanishes says nothing, ever. Its clients lose their locks all the same, within the bound, and the next in line
// get them. The holders are silent, have answers to read, or were granted a key after that: late, or one after the other,
// as each of a chain of ten is granted it when the one before is given up. Who is there and silent loses nothing.
func TestHostVanishes(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds until a host is given up")
	}
	r := prototest.NewRemote(t)
	t.Parallel() // it mostly waits
	var hosts []*vanishing
	for _, keepAlive := range []time.Duration{time.Second, 2 * time.Second} {
		hosts = append(hosts, startVanishing(t, r, keepAlive))
	}
	r.Vanish()
	gone := time.Now()
	var all sync.WaitGroup
	for _, h := range hosts {
		all.Go(func() { h.grantLate(gone) })
		for _, key := range []string{"silent", "unread", "granted", "late", "chain"} {
			all.Go(func() { h.wantFree(key, gone) })
		}
	}
	all.Wait()
	for _, h := range hosts {
		h.d.dial().Do("lock here 0", "t timeout")
	}
}

// vanishing is a daemon with clients on a host that is about to vanish.
type vanishing struct {
	tb        testing.TB
	d         *daemon
	keepAlive time.Duration
	here      *prototest.Client            // stays
	next      map[string]*prototest.Client // by key: stays, and waits for it behind those that vanish
}

func startVanishing(t *testing.T, r *prototest.Remote, keepAlive time.Duration) *vanishing {
	v := startAdmin(t, "--listen", net.JoinHostPort(r.Address, "0"), "--keepalive", keepAlive.String())
	h := &vanishing{tb: t, d: v.d, keepAlive: keepAlive, here: v.d.dial(), next: map[string]*prototest.Client{}}
	silent, unread, chain := h.d.dialFrom(r), h.d.dialFrom(r), h.d.dialFrom(r)
	silent.Do("lock silent 0", "l locked")
	unread.Do("lock unread 0", "l locked")
	chain.Do("lock chain 0", "l locked")
	for _, key := range []string{"here", "granted", "late"} {
		h.here.Do("lock "+key+" 0", "l locked")
	}
	waiters := map[string][]*prototest.Client{"granted": {h.d.dialFrom(r)}, "late": {h.d.dialFrom(r)}}
	for range 10 {
		waiters["chain"] = append(waiters["chain"], h.d.dialFrom(r))
	}
	everyone := slices.Concat(waiters["granted"], waiters["late"], waiters["chain"])
	for _, key := range []string{"silent", "unread", "granted", "late", "chain"} {
		h.next[key] = h.d.dial()
		everyone = append(everyone, h.next[key])
	}
	q := newQueuer(h.d, 2, everyone...)
	for key, next := range h.next {
		for _, c := range append(waiters[key], next) {
			q.queue(c, key, 600_000)
		}
	}
	fill(t, v, unread)
	return h
}

// grantLate grants keys to those that have vanished: one at once, one shortly before they are given up.
func (h *vanishing) grantLate(gone time.Time) {
	h.here.Do("unlock granted", "u unlocked")
	<-time.After(time.Until(gone.Add(2*h.keepAlive - h.keepAlive/4)))
	h.here.Do("unlock late", "u unlocked")
}

// wantFree waits until whoever is still there has the key.
func (h *vanishing) wantFree(key string, gone time.Time) {
	h.next[key].Expect("l locked")
	took := time.Since(gone)
	h.tb.Logf("keepalive %s: key %s is free %s after the host has vanished", h.keepAlive, key, took.Round(time.Millisecond))
	if limit := bound(h.keepAlive) + busy; took > limit {
		h.tb.Errorf("keepalive %s: key %s was free after %s, want %s at most", h.keepAlive, key, took, limit)
	}
}

// A client that does not read its answers loses nothing as long as its host is there, however much is unread: nothing,
// less than its window, more by a byte or by thousands. The answers come at once, or each by itself.
func TestSlowReaders(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for longer than a host is trusted")
	}
	t.Parallel() // it mostly waits
	const (
		step  = 4   // answers
		steps = 160 // up to 9 KB, many times the smallest window
	)
	d := start(t, "--keepalive", "1s")
	var readers []*slowReader
	for i := range steps {
		for _, atOnce := range []bool{true, false} {
			readers = append(readers, d.dialSlow(fmt.Sprintf("k%dx%t", i, atOnce), i*step, atOnce))
		}
	}
	var sending sync.WaitGroup
	for _, r := range readers {
		sending.Go(r.send)
	}
	sending.Wait()
	other := d.dial()
	other.Do("lock "+readers[0].key+" 8000", "t timeout") // twice the bound
	for _, r := range readers {
		other.Send("unlock " + r.key)
		if reply, err := other.ReadReply(); reply != "e not owner" || err != nil {
			t.Errorf("%d unread answers, at once %t: the key is lost: %q, %v", r.unread, r.atOnce, reply, err)
		}
	}
	var reading sync.WaitGroup
	for _, r := range readers {
		reading.Go(r.read)
	}
	reading.Wait()
}

// slowReader holds a key and does not read its answers, with the smallest buffer there is.
type slowReader struct {
	tb     testing.TB
	conn   net.Conn
	key    string
	unread int  // answers
	atOnce bool // all commands are sent in one write, else each in one
}

func (d *daemon) dialSlow(key string, unread int, atOnce bool) *slowReader {
	d.tb.Helper()
	dialer := net.Dialer{Timeout: prototest.Patience, Control: func(_, _ string, raw syscall.RawConn) (err error) {
		return errors.Join(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1) }), err)
	}}
	conn, err := dialer.DialContext(d.tb.Context(), "tcp", d.address)
	if err != nil {
		d.tb.Fatal(err)
	}
	d.tb.Cleanup(func() { _ = conn.Close() })
	r := &slowReader{tb: d.tb, conn: conn, key: key, unread: unread, atOnce: atOnce}
	r.write("lock " + key + " 0\r\n")
	r.expect("l locked\r\n")
	return r
}

func (r *slowReader) write(commands string) {
	if _, err := r.conn.Write([]byte(commands)); err != nil {
		r.tb.Errorf("%d unread answers: %v", r.unread, err)
	}
}

func (r *slowReader) expect(answers string) {
	_ = r.conn.SetReadDeadline(time.Now().Add(prototest.Patience))
	got := make([]byte, len(answers))
	if n, err := io.ReadFull(r.conn, got); err != nil || string(got) != answers {
		r.tb.Errorf("%d unread answers: %d of %d bytes came, or others: %v", r.unread, n, len(answers), err)
	}
}

func (r *slowReader) send() {
	const command = "unlock nobodys\r\n"
	if r.atOnce {
		r.write(strings.Repeat(command, r.unread))
		return
	}
	next := time.NewTicker(time.Millisecond) // so that the answers do not come together
	defer next.Stop()
	for range r.unread {
		r.write(command)
		<-next.C
	}
}

func (r *slowReader) read() { r.expect(strings.Repeat("e not locked\r\n", r.unread)) }
