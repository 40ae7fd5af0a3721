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

// A connection is introduced once, in the write of its first lock: it costs no round trip.
func TestIntroduction(t *testing.T) {
	const lock = "lock a 9223372036854"
	for _, tc := range []struct {
		options Options
		want    []string
	}{
		{Options{}, []string{"name " + ownName()}},
		{Options{Name: "ann@build7:/srv"}, []string{"name ann@build7:/srv"}},
		{Options{Owner: "Deploy42"}, []string{"name " + ownName(), "owner Deploy42"}},
		{Options{Name: "ann", Owner: "x"}, []string{"name ann", "owner x"}},
	} {
		var said []string
		c := newClient(t, listen(t, func(conn *net.TCPConn) {
			in := bufio.NewReader(conn)
			for range len(tc.want) + 4 { // all of the first write before any answer
				command, err := in.ReadString('\n')
				if err != nil {
					return
				}
				said = append(said, strings.TrimSuffix(command, "\r\n"))
				switch {
				case strings.HasPrefix(command, "unlock "):
					reply(conn, "u unlocked\r\n")
				case len(said) > len(tc.want)+1:
					reply(conn, "l locked\r\n")
				case len(said) == len(tc.want)+1:
					reply(conn, namedReply+strings.Repeat("o owned\r\n", len(tc.want)-1)+"l locked\r\n")
				}
			}
		}), tc.options)
		for range 2 {
			l, err := c.Lock(patient(t), "a", -1)
			if err != nil {
				t.Fatal(err)
			}
			mustUnlock(t, l)
		}
		if want := append(slices.Clone(tc.want), lock, "unlock a", lock, "unlock a"); !slices.Equal(said, want) {
			t.Errorf("said %q, want %q", said, want)
		}
	}
}

// What the real server answers to the name is kept in the connection.
func TestServerIntroducesItself(t *testing.T) {
	address, _ := startServer(t, func(cfg *server.Config) { cfg.KeepAlive = 40 * time.Second })
	c := newClient(t, address, Options{})
	a, b := mustLock(t, c, "a").conn.server, mustLock(t, c, "b").conn.server
	if a == nil || b == nil || a.space == 0 || *a != *b || a.silence <= 40*time.Second {
		t.Errorf("the server says %+v and %+v", a, b)
	}
}

// An owner in the context of a call comes before that of the options. A connection that has had an owner and is used again
// for somebody else says so.
func TestOwnerOfContext(t *testing.T) {
	address, _ := startServer(t, nil)
	r := startRelay(t, address)
	c := newClient(t, r.address, Options{})
	lock := func(ctx context.Context, key string) {
		t.Helper()
		l, err := c.Lock(ctx, key, 0)
		if err != nil {
			t.Fatal(err)
		}
		mustUnlock(t, l)
	}
	ann := WithOwner(patient(t), "ann")
	lock(patient(t), "a") // belongs to nobody, and need not say so
	lock(ann, "b")
	lock(ann, "c") // of the same owner
	lock(WithOwner(ann, "bob"), "d")
	lock(WithOwner(ann, ""), "e") // to nobody again: an owner of its own
	r.await("the commands", func() bool { return len(r.commands) == 13 })
	got := r.said()
	fresh, isOwner := strings.CutPrefix(got[10], "owner ")
	if !isOwner || fresh == "ann" || fresh == "bob" || proto.ValidOwner(fresh) != nil {
		t.Errorf("said %q, want an owner that is nobody else's", got[10])
	}
	want := []string{
		"lock a 0", "unlock a", "owner ann", "lock b 0", "unlock b", "lock c 0", "unlock c", "owner bob", "lock d 0", "unlock d",
		got[10], "lock e 0", "unlock e",
	}
	if !slices.Equal(got, want) {
		t.Errorf("said %q, want %q", got, want)
	}
	_, err := c.TryLock(WithOwner(patient(t), "a b"), "a")
	wantErr(t, err, proto.ErrOwnerByte)
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
		unlocked := "e not locked\r\n"
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
				unlocked = "u unlocked\r\n"
			case "unlock":
				reply(conn, unlocked)
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

// To an older server a name is a syntax error. The client finds that out once, and does without. It tries again when the
// server has ended a connection, as the next one may be newer, and after some time.
func TestOlderServer(t *testing.T) {
	for name, drop := range map[string]func(*net.TCPConn){
		"FIN": func(conn *net.TCPConn) { _ = conn.CloseWrite() },
		"RST": func(conn *net.TCPConn) { _ = conn.SetLinger(0) },
	} {
		t.Run(name, func(t *testing.T) {
			o := startOlder(t, drop)
			c := newClient(t, o.address, Options{Attempts: 1, MaxIdle: -1})
			mustUnlock(t, mustLock(t, c, "a"))
			o.wantWords(t, "name", "unlock", "name", "lock", "unlock")
			l := mustLock(t, c, "b") // although no connection without a name was left
			o.wantWords(t, "lock")

			l.conn.sock.(*net.TCPConn).CloseRead() // as when the server ends it
			mustEnd(t, "the end of the connection", l.conn.ended)
			l = mustLock(t, c, "c")
			o.wantWords(t, "name", "unlock", "name", "lock")

			c.mu.Lock()
			c.olderAt = c.olderAt.Add(-2 * olderTime)
			c.mu.Unlock()
			mustLock(t, c, "d")
			o.wantWords(t, "name", "unlock", "name", "lock")
			mustUnlock(t, l)
		})
	}
}

// The same with both words in one write, of which the server leaves one unread.
func TestOlderServerWithOwner(t *testing.T) {
	o := startOlder(t, func(*net.TCPConn) {})
	c := newClient(t, o.address, Options{Name: "ann", Owner: "x", Attempts: 1})
	mustUnlock(t, mustLock(t, c, "a"))
	o.wantWords(t, "name", "unlock", "name", "lock", "unlock")
}

// A connection that ends right after its name, for whatever reason, does not make the client take the server for an older
// one: not once, and not twice.
func TestDroppedAtName(t *testing.T) {
	for dropped := 1; dropped <= 4; dropped++ {
		var mu sync.Mutex
		var words []string
		made := 0
		c := newClient(t, listen(t, func(conn *net.TCPConn) {
			mu.Lock()
			made++
			drop := made <= dropped
			mu.Unlock()
			in := bufio.NewReader(conn)
			for {
				command, err := in.ReadString('\n')
				if err != nil {
					return
				}
				word, _, _ := strings.Cut(command, " ")
				mu.Lock()
				words = append(words, word)
				mu.Unlock()
				if drop {
					return
				}
				reply(conn, map[string]string{"name": namedReply, "lock": "l locked\r\n", "unlock": "e not locked\r\n"}[word])
			}
		}), Options{Attempts: 3})
		l := mustLock(t, c, "a")
		if l.conn.server == nil || made != dropped+1 {
			t.Errorf("dropped %d times: %d connections, said %q", dropped, made, words)
		}
		mu.Lock()
		first := map[int]string{1: "unlock", 2: "name", 3: "unlock", 4: "name"}[dropped] // what the one that lasts says first
		if words[dropped] != first {
			t.Errorf("dropped %d times: said %q", dropped, words)
		}
		mu.Unlock()
	}
}

// A server that has answered the name knows it: if it ends then, the next connection has the name as well.
func TestServerEndsAfterName(t *testing.T) {
	var mu sync.Mutex
	names := 0
	c := newClient(t, listen(t, func(conn *net.TCPConn) {
		in := bufio.NewReader(conn)
		if got, err := in.ReadString('\n'); err != nil || got != "name ann\r\n" {
			t.Errorf("got %q, %v", got, err)
		}
		_, _ = in.ReadString('\n')
		reply(conn, namedReply)
		mu.Lock()
		names++
		last := names == 3
		mu.Unlock()
		if !last {
			return
		}
		reply(conn, "l locked\r\n")
		_, _ = in.ReadString('\n')
	}), Options{Name: "ann", Attempts: 3})
	mustLock(t, c, "a")
	if names != 3 {
		t.Errorf("%d names", names)
	}
}

// takeFirst reads the first write of a connection without an owner: its name and a lock.
func takeFirst(conn net.Conn) {
	in := bufio.NewReader(conn)
	for range 2 {
		_, _ = in.ReadString('\n')
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
		{namedReply + "n named 60000 00000000000000af\r\n", ""},
		{namedReply + "l locked\r\nl locked\r\n", ""},
	} {
		ended := make(chan struct{})
		c := newClient(t, listen(t, func(conn *net.TCPConn) {
			takeFirst(conn)
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
		takeFirst(conn)
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
			takeFirst(conn)
			reply(conn, "n named "+tc.named+" 00000000000000af\r\nl locked\r\n")
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
