package reactor

import (
	"bytes"
	"context"
	"encoding/gob"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// takeover has a server take over connections of another one in the same process. The loops of the other one stand still
// from then on until the end of the test, and its descriptors stay open, as those of a predecessor that does not exit.
type takeover struct {
	from     *server
	sessions []*session
	setup    setup                    // of the server that takes over
	adopted  func(i int, s *session)  // called on the loop of each connection, before it begins
	frozen   func(carried []*session) // called when all is adopted and nothing has begun
}

// run returns the server that has taken over, with the sessions in the order of those that they continue.
func (k *takeover) run(tb testing.TB) (srv *server, carried []*session) {
	tb.Helper()
	still := k.from.freeze()
	sockets, states := export(tb, still, k.sessions)
	k.setup.began = StartedAt(k.from.handlers[0].loop.reactor.Started())
	k.setup.inherit = func(ctx context.Context, srv *server, h *Heir) (err error) {
		if err := h.MakeBlanks(ctx, len(k.sessions)+k.setup.loops); err != nil {
			return err
		}
		s, err := h.Stand(ctx, patience)
		if err != nil {
			return err
		}
		carried, err = k.adopt(srv, h, s, sockets, states)
		if err != nil {
			return err
		}
		if k.frozen != nil {
			k.frozen(carried)
		}
		if !s.Commit() {
			return ErrReleased
		}
		h.Begin(k.from.keepAlive)
		return nil
	}
	return start(tb, k.setup), carried
}

// adopt has each connection adopted by a loop that has room.
func (k *takeover) adopt(srv *server, h *Heir, still *Standstill, fds []int, states []ConnState) (carried []*session, err error) {
	room := h.Room()
	for i := range fds {
		at := i % len(room)
		if !states[i].HalfClosed {
			at = slices.IndexFunc(room, func(n int) bool { return n > 0 })
			room[at]--
		}
		s := srv.handlers[at].Accept(nil).(*session)
		carried = append(carried, s)
		var failed error
		if err := still.on(at, func(l *Loop) {
			if failed = l.Adopt(s, fds[i], states[i]); failed == nil && k.adopted != nil {
				k.adopted(i, s)
			}
		}); err != nil {
			return nil, err
		}
		if failed != nil {
			return nil, failed
		}
	}
	return carried, nil
}

// freeze has all loops of the server stand still until the end of the test.
func (srv *server) freeze() *Standstill {
	srv.tb.Helper()
	r := srv.handlers[0].loop.reactor
	if err := r.PauseAccepting(srv.tb.Context()); err != nil {
		srv.tb.Fatal(err)
	}
	s, err := r.StandStill(srv.tb.Context(), time.Hour)
	if err != nil {
		srv.tb.Fatal(err)
	}
	srv.tb.Cleanup(func() {
		s.Release()
		r.ResumeAccepting()
	})
	return s
}

// export returns what another process would get of the connections, by SCM_RIGHTS and encoding/gob.
func export(tb testing.TB, still *Standstill, sessions []*session) (fds []int, states []ConnState) {
	tb.Helper()
	fds, exported := make([]int, len(sessions)), make([]ConnState, len(sessions))
	err := still.Each(func(l *Loop) {
		for i, s := range sessions {
			if s.handler.loop == l {
				fds[i], exported[i] = s.conn.Export()
			}
		}
	})
	var encoded bytes.Buffer
	if err == nil {
		err = gob.NewEncoder(&encoded).Encode(exported)
	}
	if err == nil {
		err = gob.NewDecoder(&encoded).Decode(&states)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return pass(tb, fds), states
}

// pass returns duplicates of descriptors, as another process would get them.
func pass(tb testing.TB, fds []int) (passed []int) {
	tb.Helper()
	const most = 253 // SCM_MAX_FD of unix(7)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	rights := make([]byte, unix.CmsgSpace(4*most))
	for some := range slices.Chunk(fds, most) {
		if err := unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(some...), nil, 0); err != nil {
			tb.Fatal(err)
		}
		_, n, _, _, err := unix.Recvmsg(pair[1], make([]byte, 1), rights, unix.MSG_CMSG_CLOEXEC)
		if err != nil {
			tb.Fatal(err)
		}
		messages, err := unix.ParseSocketControlMessage(rights[:n])
		if err != nil || len(messages) != 1 {
			tb.Fatalf("%d messages came with descriptors (%v), want one", len(messages), err)
		}
		came, err := unix.ParseUnixRights(&messages[0])
		if err != nil {
			tb.Fatal(err)
		}
		passed = append(passed, came...)
	}
	return passed
}
