package reactor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// The parts of child processes. A child reads what it shall do from its standard input, line by line, and answers with
// one line each.
const (
	childStarts  = "starts"  // starts and stops servers
	childStarves = "starves" // serves until its descriptors run out
)

// child is a process that plays a part.
type child struct {
	tb  testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out chan string // its lines
}

func startChild(tb testing.TB, part string) *child {
	tb.Helper()
	c := &child{tb: tb, cmd: childProcess(tb, part), out: make(chan string, 100)}
	in, err := c.cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	c.in = in
	go func() {
		defer close(c.out)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			c.out <- lines.Text()
		}
	}()
	tb.Cleanup(func() {
		_ = in.Close() // ends the child
		impatience := time.AfterFunc(patience, func() { _ = c.cmd.Process.Signal(syscall.SIGQUIT) })
		defer impatience.Stop()
		for range c.out {
			// Until its end.
		}
		if err := c.cmd.Wait(); err != nil {
			tb.Errorf("child process: %v", err)
		}
	})
	return c
}

func (c *child) tell(line string) {
	c.tb.Helper()
	if _, err := io.WriteString(c.in, line+"\n"); err != nil {
		c.tb.Fatalf("tell the child: %v", err)
	}
}

func (c *child) answer() string {
	c.tb.Helper()
	return receive(c.tb, c.out, "the child does not answer")
}

// TestListenProcesses has several processes start a server on one port in the same instant, again and again. Exactly
// one serves; the others say that the address is taken.
func TestListenProcesses(t *testing.T) {
	const processes, rounds = 4, 25
	var children []*child
	for range processes {
		c := startChild(t, childStarts)
		if got := c.answer(); got != "here" {
			t.Fatalf("the child says %q", got)
		}
		children = append(children, c)
	}
	for range rounds {
		address := "127.0.0.1:" + strconv.Itoa(freePort(t))
		for _, c := range children {
			c.tell(address)
		}
		var answers []string
		serving := 0
		for _, c := range children {
			answer := c.answer()
			answers = append(answers, answer)
			switch answer {
			case "serving":
				serving++
			case "in use":
			default:
				t.Errorf("the child says %q", answer)
			}
		}
		if serving != 1 {
			t.Fatalf("%s: %q, want one to serve", address, answers)
		}
		expectEcho(t, address)
		for _, c := range children {
			c.tell("stop")
		}
		for _, c := range children {
			if got := c.answer(); got != "stopped" {
				t.Fatalf("the child says %q", got)
			}
		}
	}
}

// runStarts starts a server for each line with an address, and stops it at the next line.
func runStarts() int {
	fmt.Println("here")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); fmt.Println("stopped") {
		stop := startOnce(lines.Text())
		lines.Scan()
		stop()
	}
	return 0
}

// startOnce tells how the start of a server went, and returns what stops it.
func startOnce(address string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	listener, err := Listen(ctx, address, time.Minute)
	if err != nil {
		ended <- err
	} else {
		go func() { ended <- Run(ctx, childConfig(listener, func() { close(ready) })) }()
	}
	select {
	case <-ready:
		fmt.Println("serving")
		return func() {
			cancel()
			if err := <-ended; err != nil {
				fmt.Println("stop:", err)
			}
		}
	case err := <-ended:
		if errors.Is(err, unix.EADDRINUSE) {
			fmt.Println("in use")
		} else {
			fmt.Println(err)
		}
		return cancel
	}
}

func childConfig(listener net.Listener, ready func()) Config {
	return Config{
		Listeners: []*Listener{{Listener: listener}},
		Loops:     2,
		Tick:      time.Millisecond,
		KeepAlive: time.Minute,
		Log:       zerolog.Nop(),
		NewHandler: func(l *Loop) Handler {
			return &handler{loop: l, accepted: make(chan *session, 4096), opened: echo}
		},
		Ready:    ready,
		Stopping: func() {},
		Ending:   func() {},
	}
}

// TestStarving takes the descriptors away from a server that is connected to. Who is connected is served, the others wait until
// there are descriptors again; each error is counted, and the log says once a second what to do.
func TestStarving(t *testing.T) {
	c := startChild(t, childStarves)
	address, found := strings.CutPrefix(c.answer(), "serving ")
	if !found {
		t.Fatalf("the child does not serve but says %q", address)
	}
	connected := dial(t, address)
	send(t, connected, "before")
	expect(t, connected, "before")
	c.tell("starve")
	if got := c.answer(); got != "starving: "+unix.EMFILE.Error() {
		t.Fatalf("the child says %q", got)
	}
	var waiting []net.Conn
	for range 3 * carriers {
		conn := dial(t, address)
		send(t, conn, "hello")
		waiting = append(waiting, conn)
	}
	if got := c.answer(); got != "failed: EMFILE" {
		t.Fatalf("the child says %q", got)
	}
	send(t, connected, "meanwhile")
	expect(t, connected, "meanwhile")
	c.tell("feed")
	lost := 0
	for i, conn := range waiting {
		got := make([]byte, 5)
		_, err := io.ReadFull(conn, got)
		if err == nil {
			continue
		}
		if lost++; lost > carriers { // those that were on their way together when the last descriptors went
			t.Errorf("client %d is not served afterwards: %v", i, err)
		}
	}
	send(t, connected, "after")
	expect(t, connected, "after")
	c.tell("stop")
	if got := c.answer(); got != "ended: <nil>" {
		t.Errorf("the child says %q", got)
	}
}

// runStarving serves, leaves its process without descriptors and gives them back when it is told so, and says what Run
// returned.
func runStarving() int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	listener, err := Listen(ctx, "127.0.0.1:0", time.Minute)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	go func() {
		defer cancel()
		lines := bufio.NewScanner(os.Stdin)
		lines.Scan()
		// All that remain are taken, but for two.
		limit := unix.Rlimit{Cur: 256, Max: 256}
		err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
		var taken []int
		for err == nil {
			var fd int
			if fd, err = unix.Dup(1); err == nil {
				taken = append(taken, fd)
			}
		}
		for range 2 {
			_ = unix.Close(taken[len(taken)-1])
			taken = taken[:len(taken)-1]
		}
		fmt.Println("starving:", err)
		lines.Scan()
		for _, fd := range taken {
			_ = unix.Close(fd)
		}
		lines.Scan()
	}()
	cfg := childConfig(listener, func() { fmt.Println("serving", listener.Addr()) })
	var once sync.Once
	cfg.AcceptFailed = func(reason string) { once.Do(func() { fmt.Println("failed:", reason) }) }
	fmt.Println("ended:", Run(ctx, cfg))
	return 0
}
