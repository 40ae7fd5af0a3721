package reactor

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/panjf2000/gnet/v2/pkg/netpoll"
	"golang.org/x/sys/unix"
)

// The mask that gnet sets by itself: Conn counts on it to know what is watched.
var _ = [1]struct{}{}[watchInput^netpoll.ReadEvents]

// TestWatched sees in the kernel what a connection is watched for in each of its states.
func TestWatched(t *testing.T) {
	srv := start(t, setup{})
	client, s := srv.dial()
	c := &s.conn
	written := 0
	s.do(t, func() {
		expectWatched(t, c, watchInput)
		c.Pause()
		expectWatched(t, c, watchHangup)
		c.Pause()
		expectWatched(t, c, watchHangup)
		c.Resume()
		expectWatched(t, c, watchInput)
		written = fill(t, c)
		expectWatched(t, c, watchNothing)
		c.Pause() // a pause waits for the output
		expectWatched(t, c, watchNothing)
		c.Write([]byte("more"))
		expectWatched(t, c, watchNothing)
	})
	drain(t, client, written)
	expect(t, client, "more")
	s.allSent(t)
	s.do(t, func() {
		expectWatched(t, c, watchHangup)
		c.Resume()
		expectWatched(t, c, watchInput)
	})
}

func TestFindEpoll(t *testing.T) {
	const loops = 4
	srv := start(t, setup{loops: loops})
	found := make(map[int]bool)
	for _, h := range srv.handlers {
		h.do(t, func() {
			if h.loop.epoll < 0 {
				t.Errorf("loop %d: the epoll instance was not found", h.loop.Index())
			}
			found[h.loop.epoll] = true
		})
	}
	if len(found) != loops {
		t.Errorf("%d loops have the epoll instances %v", loops, found)
	}
	for range 20 {
		_, s := srv.dial()
		s.do(t, func() {
			if epoll, err := findEpoll(s.conn.fd); epoll != s.conn.loop.epoll || err != nil {
				t.Errorf("descriptor %d is watched by %d (%v), its loop has %d", s.conn.fd, epoll, err, s.conn.loop.epoll)
			}
			if !s.conn.CanHold() {
				t.Error("reading cannot be paused")
			}
		})
	}
	fd := unwatched(t)
	if epoll, err := findEpoll(fd); epoll != -1 || err == nil {
		t.Errorf("descriptor %d is watched by %d (%v), want an error", fd, epoll, err)
	}
}

func TestWatchedBy(t *testing.T) {
	const text = "pos:\t0\nflags:\t02000002\nmnt_id:\t16\nino:\t1057\n" +
		"tfd:        5 events:       1f data:            7f0000000005  pos:0 ino:428 sdev:10\n" +
		"tfd:       17 events: 80002001 data: 7f1200000005  pos:3 ino:29 sdev:10\n"
	if got := watchedBy([]byte(text)); !slices.Equal(got, []int{5, 17}) {
		t.Errorf("%v are watched, want 5 and 17", got)
	}
	if got := append(watchedBy([]byte("tfd:\n")), watchedBy(nil)...); len(got) > 0 {
		t.Errorf("found %v in texts without descriptors", got)
	}
}

// TestWithoutEpoll is about a loop whose epoll instance was not found: clients are served, and cannot be held back.
func TestWithoutEpoll(t *testing.T) {
	srv := start(t, setup{})
	h := srv.handlers[0]
	h.do(t, func() { h.loop.epoll = -1 })
	client, s := srv.dial()
	s.do(t, func() {
		if s.conn.CanHold() {
			t.Error("reading can be paused")
		}
		s.conn.Pause()
		echo(s)
	})
	send(t, client, "echo")
	expect(t, client, "echo")
	written := 0
	s.do(t, func() { written = fill(t, &s.conn) })
	drain(t, client, written)
	send(t, client, "echo")
	expect(t, client, "echo")
}

// expectWatched fails if the kernel says that the connection is watched for something else.
func expectWatched(tb testing.TB, c *Conn, want interest) {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", c.loop.epoll))
	if err != nil {
		tb.Error(err)
		return
	}
	for line := range strings.Lines(string(text)) {
		var fd int
		var events interest
		if n, _ := fmt.Sscanf(line, "tfd: %d events: %x", &fd, &events); n == 2 && fd == c.fd {
			// The kernel adds what is always reported.
			if got := events &^ (unix.EPOLLERR | unix.EPOLLHUP); got != want {
				tb.Errorf("watched for %#x, want %#x", got, want)
			}
			return
		}
	}
	tb.Errorf("descriptor %d is not watched", c.fd)
}

// unwatched returns a descriptor that no epoll instance watches.
func unwatched(tb testing.TB) int {
	tb.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = unix.Close(fds[0])
		_ = unix.Close(fds[1])
	})
	return fds[0]
}

// withoutEpoll runs f on the loop of a session while its epoll instance takes no change.
func withoutEpoll(t *testing.T, s *session, f func()) {
	t.Helper()
	s.do(t, func() {
		l := s.handler.loop
		epoll := l.epoll
		l.epoll = s.conn.fd // a socket: epoll_ctl fails
		f()
		l.epoll = epoll
	})
}

// TestInterestFails closes a connection that cannot be held back, or could not be read again: it alone.
func TestInterestFails(t *testing.T) {
	srv := start(t, setup{handler: func(h *handler) { h.opened = echo }})
	other, _ := srv.dial()
	for name, paused := range map[string]bool{"pause": false, "resume": true} {
		t.Run(name, func(t *testing.T) {
			client, s := srv.dial()
			if paused {
				s.do(t, s.conn.Pause)
			}
			withoutEpoll(t, s, func() {
				if paused {
					s.conn.Resume()
				} else {
					s.conn.Pause()
				}
			})
			expectEnd(t, client)
			if err := receive(t, s.ended, "Closed was not called"); !errors.Is(err, unix.EINVAL) {
				t.Errorf("the connection ended with %v, want %v", err, unix.EINVAL)
			}
			send(t, other, "echo")
			expect(t, other, "echo")
		})
	}
}

// TestUnwatchFails leaves a connection where it is that its loop's epoll instance does not let go.
func TestUnwatchFails(t *testing.T) {
	srv := start(t, setup{loops: 2, handler: func(h *handler) { h.opened = echo }})
	client, s := srv.dial()
	withoutEpoll(t, s, func() {
		if s.conn.TryMove(1 - s.handler.loop.Index()) {
			t.Error("it moves")
		}
	})
	send(t, client, "echo")
	expect(t, client, "echo")
}
