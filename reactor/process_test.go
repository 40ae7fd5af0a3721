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
	listener, err := Listen(address)
	if err != nil {
		ended <- err
	} else {
		go func() { ended <- Run(ctx, childConfig(listener, io.Discard, func() { close(ready) })) }()
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

func childConfig(listener *Listener, log io.Writer, ready func()) Config {
	return Config{
		Listener:  listener,
		Loops:     2,
		Tick:      time.Millisecond,
		KeepAlive: time.Minute,
		Log:       zerolog.New(log),
		NewHandler: func(l *Loop) Handler {
			return &handler{loop: l, accepted: make(chan *session, 4096), opened: echo}
		},
		Ready:    ready,
		Stopping: func() {},
		Ending:   func() {},
	}
}

// TestAcceptFails takes the descriptors away from a server that is connected to: Run says that it could not go on, and
// why.
func TestAcceptFails(t *testing.T) {
	c := startChild(t, childStarves)
	address, found := strings.CutPrefix(c.answer(), "serving ")
	if !found {
		t.Fatalf("the child does not serve but says %q", address)
	}
	expectEcho(t, address)
	c.tell("starve")
	if got := c.answer(); got != "starving: "+unix.EMFILE.Error() {
		t.Fatalf("the child says %q", got)
	}
	for range 20 {
		// Those that come after the end are refused.
		if conn, err := net.DialTimeout("tcp", address, patience); err == nil {
			defer conn.Close()
		}
	}
	answer := c.answer()
	if !strings.HasPrefix(answer, "ended: "+ErrEnded.Error()) || !strings.HasSuffix(answer, " true") {
		t.Errorf("%q, want the end of Run with %q", answer, ErrEnded)
	}
	if !strings.Contains(answer, unix.EMFILE.Error()) {
		t.Errorf("%q does not say %q", answer, unix.EMFILE)
	}
}

// runStarving serves, leaves its process without descriptors when it is told so, and says what Run returned.
func runStarving() int {
	listener, err := Listen("127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	go func() {
		lines := bufio.NewScanner(os.Stdin)
		if !lines.Scan() {
			return
		}
		// All that remain are taken, but for two connections.
		limit := unix.Rlimit{Cur: 256, Max: 256}
		err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
		last := -1
		for err == nil {
			var fd int
			if fd, err = unix.Dup(1); err == nil {
				last = fd
			}
		}
		_ = unix.Close(last)
		_ = unix.Close(last - 1)
		fmt.Println("starving:", err)
	}()
	err = Run(context.Background(), childConfig(listener, io.Discard, func() { fmt.Println("serving", listener.Address()) }))
	fmt.Println("ended:", err, errors.Is(err, ErrEnded))
	return 0
}
