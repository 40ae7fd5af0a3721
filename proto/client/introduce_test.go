package client

import (
	"bufio"
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dreadlock/proto"
	"dreadlock/proto/prototest"
	"dreadlock/server"
)

// A connection is introduced once, before its first lock.
func TestIntroduction(t *testing.T) {
	for _, tc := range []struct {
		options Options
		want    []string
	}{
		{Options{Name: "ann@build7:/srv"}, []string{"name ann@build7:/srv"}},
		{Options{Owner: "Deploy42"}, []string{"owner Deploy42"}},
		{Options{Name: "ann", Owner: "x"}, []string{"name ann", "owner x"}},
	} {
		address, _ := startServer(t, nil)
		r := startRelay(t, address)
		c := newClient(t, r.address, tc.options)
		for range 2 {
			l, err := c.Lock(patient(t), "a", -1)
			if err != nil {
				t.Fatal(err)
			}
			mustUnlock(t, l)
		}
		want := append(slices.Clone(tc.want), "lock a 9223372036854", "unlock a", "lock a 9223372036854", "unlock a")
		r.await("the commands", func() bool { return len(r.commands) == len(want) })
		if got := r.said(); !slices.Equal(got, want) {
			t.Errorf("said %q, want %q", got, want)
		}
	}
}

// Two owners with two connections each wait for each other: only with their owners can the server see it.
func TestOwnersDeadlock(t *testing.T) {
	address, _ := startServer(t, func(cfg *server.Config) { cfg.BreakDeadlocks = true })
	ann, bob := newClient(t, address, Options{Owner: "ann"}), newClient(t, address, Options{Owner: "bob"})
	a, b := mustLock(t, ann, "a"), mustLock(t, bob, "b")
	waits := []<-chan result{lockLater(patient(t), ann, "b", -1), lockLater(patient(t), bob, "a", -1)}
	var broken result
	var other <-chan result
	select {
	case broken = <-waits[0]:
		mustUnlock(t, a)
		other = waits[1]
	case broken = <-waits[1]:
		mustUnlock(t, b)
		other = waits[0]
	}
	wantText(t, broken.err, "deadlock")
	got := <-other
	if got.err != nil {
		t.Fatal(got.err)
	}
	mustUnlock(t, got.lock)
}

// older is a server that knows lock and unlock alone, grants everything, and drops who says another word.
type older struct {
	address string

	mu    sync.Mutex
	words []string // of all connections
}

func startOlder(tb testing.TB, drop func(*net.TCPConn)) *older {
	o := &older{}
	o.address = listen(tb, func(conn *net.TCPConn) {
		in := bufio.NewReader(conn)
		for {
			command, err := in.ReadString('\n')
			if err != nil {
				return
			}
			word, _, _ := strings.Cut(command, " ")
			o.mu.Lock()
			o.words = append(o.words, word)
			o.mu.Unlock()
			switch word {
			case "lock":
				reply(conn, "l locked\r\n")
			case "unlock":
				reply(conn, "u unlocked\r\n")
			default:
				drop(conn)
				return
			}
		}
	})
	return o
}

func (o *older) wantWords(tb testing.TB, want ...string) {
	tb.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if !slices.Equal(o.words, want) {
		tb.Errorf("said %q, want %q", o.words, want)
	}
	o.words = nil
}

// To an older server a name is a syntax error. The client does without, and asks again only when the connection by which
// it knows has ended: the next server may be a newer one.
func TestOlderServer(t *testing.T) {
	for name, drop := range map[string]func(*net.TCPConn){
		"FIN": func(conn *net.TCPConn) { _ = conn.CloseWrite() },
		"RST": func(conn *net.TCPConn) { _ = conn.SetLinger(0) },
	} {
		t.Run(name, func(t *testing.T) {
			o := startOlder(t, drop)
			c := newClient(t, o.address, Options{Name: "ann", Attempts: 1})
			l := mustLock(t, c, "a")
			o.wantWords(t, "name", "lock")
			mustUnlock(t, mustLock(t, c, "b"))
			o.wantWords(t, "lock", "unlock")
			mustUnlock(t, l)

			l.conn.close()
			mustEnd(t, "the end of the connection", l.conn.ended)
			other := mustLock(t, c, "b") // on the one that is idle
			mustLock(t, c, "c")
			mustUnlock(t, other)
			o.wantWords(t, "unlock", "lock", "name", "lock", "unlock")
		})
	}
}

// The same with both words in one write, of which the server leaves one unread.
func TestOlderServerWithOwner(t *testing.T) {
	o := startOlder(t, func(*net.TCPConn) {})
	c := newClient(t, o.address, Options{Name: "ann", Owner: "x", Attempts: 1})
	mustUnlock(t, mustLock(t, c, "a"))
	o.wantWords(t, "name", "lock", "unlock")
}

// A server that has answered the name knows it: if it ends then, the next connection has the name as well.
func TestServerEndsAfterName(t *testing.T) {
	var mu sync.Mutex
	names := 0
	c := newClient(t, listen(t, func(conn *net.TCPConn) {
		in := bufio.NewReader(conn)
		for _, command := range []string{"name ann\r\n", "owner x\r\n"} {
			if got, err := in.ReadString('\n'); err != nil || got != command {
				t.Errorf("got %q, %v, want %q", got, err, command)
			}
		}
		reply(conn, "n named 60000 00000000000000af\r\n")
		mu.Lock()
		names++
		last := names == 3
		mu.Unlock()
		if !last {
			return
		}
		reply(conn, "o owned\r\n")
		_, _ = in.ReadString('\n')
		reply(conn, "l locked\r\n")
		_, _ = in.ReadString('\n')
	}), Options{Name: "ann", Owner: "x", Attempts: 3})
	mustLock(t, c, "a")
	if names != 3 {
		t.Errorf("%d names", names)
	}
}

func TestAnswersToName(t *testing.T) {
	for _, tc := range []struct {
		answer, text string
	}{
		{"e too many connections\r\n", "too many connections"},
		{"e kicked\r\n", "kicked"},
		{"l locked\r\n", ""},
		{"o owned\r\n", ""},
		{"n named 60000\r\n", ""},
		{"n named 60000 00000000000000af\r\nl locked\r\n", ""},
	} {
		ended := make(chan struct{})
		c := newClient(t, listen(t, func(conn *net.TCPConn) {
			takeLine(conn)
			reply(conn, tc.answer)
			takeLine(conn)
			close(ended)
		}), Options{Name: "ann", Attempts: 1})
		_, err := c.TryLock(patient(t), "a")
		if tc.text != "" {
			wantText(t, err, tc.text)
		} else {
			wantErr(t, err, ErrProtocol)
		}
		mustEnd(t, "the end of the connection", ended)
	}
}

func TestCancelIntroduction(t *testing.T) {
	named, ended := make(chan struct{}), make(chan struct{})
	c := newClient(t, listen(t, func(conn *net.TCPConn) {
		takeLine(conn)
		close(named)
		takeLine(conn)
		close(ended)
	}), Options{Name: "ann"})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	waiting := lockLater(ctx, c, "a", -1)
	mustEnd(t, "the name", named)
	cancel()
	wantErr(t, (<-waiting).err, context.Canceled)
	mustEnd(t, "the end of the connection", ended)
}

func TestNameThatCannotBeSent(t *testing.T) {
	for want, o := range map[error]Options{
		proto.ErrNameByte:     {Name: "ann smith"},
		proto.ErrNameTooLong:  {Name: strings.Repeat("n", proto.MaxName+1), Owner: "x"},
		proto.ErrOwnerByte:    {Owner: "a\r\n"},
		proto.ErrOwnerTooLong: {Name: "ann", Owner: strings.Repeat("o", proto.MaxOwner+1)},
	} {
		_, err := newClient(t, "nowhere", o).Lock(patient(t), "a", time.Second)
		wantErr(t, err, want)
	}
}

// A client that would learn of its loss later than the server becomes less patient than that.
func TestShorterPatience(t *testing.T) {
	for _, tc := range []struct {
		keepAlive   time.Duration
		named       string
		idle, until int // s, ms
	}{
		{0, "60000", 15, 30_000},
		{0, "30000", 7, 14_000},
		{time.Minute, "60000", 15, 30_000},
		{time.Minute, "1000", 1, 4_000}, // as soon as the kernel can
		{time.Minute, "0", 60, 120_000}, // the server does not look
	} {
		c := newClient(t, listen(t, func(conn *net.TCPConn) {
			takeLine(conn)
			reply(conn, "n named "+tc.named+" 00000000000000af\r\n")
			takeLine(conn)
			reply(conn, "l locked\r\n")
			takeLine(conn)
		}), Options{Name: "ann", KeepAlive: tc.keepAlive})
		sock := mustLock(t, c, "a").conn.sock.(*net.TCPConn)
		for option, want := range map[int]int{unix.TCP_KEEPIDLE: tc.idle, unix.TCP_USER_TIMEOUT: tc.until} {
			if got := optionOf(t, sock, unix.IPPROTO_TCP, option); got != want {
				t.Errorf("keepalive %s, server %s ms: option %d is %d, want %d", tc.keepAlive, tc.named, option, got, want)
			}
		}
	}
}

// The real server says what the client goes by.
func TestServerTellsItsSilence(t *testing.T) {
	address, _ := startServer(t, func(cfg *server.Config) { cfg.KeepAlive = 8 * time.Second })
	sock := mustLock(t, newClient(t, address, Options{Name: "ann"}), "a").conn.sock.(*net.TCPConn)
	if got := optionOf(t, sock, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); got >= 16_000 || got == 0 {
		t.Errorf("the client waits %d ms for a silent server, which waits 16 s", got)
	}
	prototest.Dial(t, address).Do("unlock a", "e not owner")
}

// optionOf returns a number that the kernel knows about a socket.
func optionOf(t *testing.T, sock syscall.Conn, level, option int) (value int) {
	t.Helper()
	raw, err := sock.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	failed := raw.Control(func(fd uintptr) { value, err = unix.GetsockoptInt(int(fd), level, option) })
	if failed != nil || err != nil {
		t.Fatal(failed, err)
	}
	return value
}
