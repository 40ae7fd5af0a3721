package reactor

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// withHeir runs f as the part of a server that inherits, and returns the server when it serves.
func withHeir(tb testing.TB, s setup, f func(srv *server, h *Heir)) *server {
	tb.Helper()
	s.inherit = func(_ context.Context, srv *server, h *Heir) error {
		f(srv, h)
		return nil
	}
	return start(tb, s)
}

// TestBlanks makes many: gnet knows them, and no epoll instance does; they are shared among the loops, and go when the heir begins.
func TestBlanks(t *testing.T) {
	const n, loops = 2000, 3
	raiseLimit(t, 3*n)
	withHeir(t, setup{loops: loops}, func(srv *server, h *Heir) {
		before := descriptors(t)
		for range 2 {
			if err := h.MakeBlanks(t.Context(), n/2); err != nil {
				t.Fatal(err)
			}
		}
		if got := len(descriptors(t)) - len(before); got != n {
			t.Errorf("%d descriptors are open for %d blanks", got, n)
		}
		all := 0
		for _, room := range h.Room() {
			all += room
			if room < n/loops/2 {
				t.Errorf("the loops have room for %d", h.Room())
			}
		}
		if all != n {
			t.Errorf("there is room for %d, want %d", all, n)
		}
		for _, handler := range srv.handlers {
			handler.do(t, func() {
				l := handler.loop
				text, err := os.ReadFile(fdinfo + "/" + strconv.Itoa(l.epoll))
				if watched := watchedBy(text); len(watched) != 2 || err != nil { // the eventfd and the wake-up connection
					t.Errorf("loop %d watches %v (%v)", l.index, watched, err)
				}
				for _, sock := range l.blanks {
					if sock.EventLoop() != l.events {
						t.Errorf("loop %d has a blank of another loop", l.index)
					}
				}
			})
		}
		s, err := h.Stand(t.Context(), patience)
		if err != nil || !s.Commit() {
			t.Fatalf("the loops do not stand still: %v", err)
		}
		h.Begin(time.Second)
		eventually(t, "blanks are left", func() bool {
			return !slices.ContainsFunc(h.Room(), func(n int) bool { return n > 0 })
		})
		for _, handler := range srv.handlers {
			handler.settleSockets(t)
		}
		if after := descriptors(t); !slices.Equal(after, before) {
			t.Errorf("descriptors %v before, %v after", before, after)
		}
	})
}

// raiseLimit lets the process open at least n descriptors.
func raiseLimit(tb testing.TB, n uint64) {
	tb.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		tb.Fatal(err)
	}
	if limit.Cur < n {
		tb.Skipf("%d descriptors may be open, %d are needed", limit.Cur, n)
	}
}

// limitDescriptors lets the process open n descriptors more, until restore is called.
func limitDescriptors(tb testing.TB, n int) (restore func()) {
	tb.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		tb.Fatal(err)
	}
	end, open := 0, descriptors(tb) // the number of the first descriptor that cannot be opened
	for ; n > 0; end++ {
		if !slices.Contains(open, strconv.Itoa(end)) {
			n--
		}
	}
	after := unix.Rlimit{Cur: uint64(end), Max: before.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &after); err != nil {
		tb.Fatal(err)
	}
	return func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			tb.Error(err)
		}
	}
}

// TestBlanksFail runs out of descriptors: nothing is left behind, and the server serves.
func TestBlanksFail(t *testing.T) {
	srv := withHeir(t, setup{loops: 2, handler: echoing}, func(_ *server, h *Heir) {
		before := descriptors(t)
		restore := limitDescriptors(t, 50)
		err := h.MakeBlanks(t.Context(), 200)
		restore()
		if !errors.Is(err, unix.EMFILE) {
			t.Errorf("making them: %v, want %v", err, unix.EMFILE)
		}
		if room := h.Room(); room[0]+room[1] != 0 {
			t.Errorf("there is room for %d", room)
		}
		if after := descriptors(t); !slices.Equal(after, before) {
			t.Errorf("descriptors %v before, %v after", before, after)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := h.MakeBlanks(ctx, 10); !errors.Is(err, context.Canceled) {
			t.Errorf("with a context that is done: %v, want %v", err, context.Canceled)
		}
	})
	expectEcho(t, srv.address)
}

// TestBlanksWithoutEpoll cannot be made on a loop whose epoll instance was not found.
func TestBlanksWithoutEpoll(t *testing.T) {
	withHeir(t, setup{}, func(srv *server, h *Heir) {
		l := srv.handlers[0].loop
		epoll := l.epoll
		srv.handlers[0].do(t, func() { l.epoll = -1 })
		if err := h.MakeBlanks(t.Context(), 1); !errors.Is(err, errNoEpoll) {
			t.Errorf("making one: %v, want %v", err, errNoEpoll)
		}
		srv.handlers[0].do(t, func() { l.epoll = epoll })
	})
}

// TestNoRoom is told a connection for which no blank is left: its descriptor stays the caller's.
func TestNoRoom(t *testing.T) {
	withHeir(t, setup{}, func(srv *server, h *Heir) {
		s, err := h.Stand(t.Context(), patience)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Release()
		fd := unwatched(t)
		client := srv.handlers[0].Accept(nil)
		if err := s.on(0, func(l *Loop) { err = l.Adopt(client, fd, ConnState{}) }); err != nil {
			t.Fatal(err)
		}
		if err == nil || !strings.Contains(err.Error(), "no room") {
			t.Errorf("adopt: %v, want an error about room", err)
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			t.Errorf("the descriptor is closed: %v", err)
		}
	})
}
