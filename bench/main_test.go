package bench

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// daemonProgram is the daemon, built from the checkout for all tests.
var daemonProgram string

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "peer" {
		servePeer()
		return
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "dreadlock-bench-test-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	// A program with the race detector sleeps for a second before it exits, and this one runs itself many times.
	os.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0")
	daemonProgram = filepath.Join(dir, "dreadlock")
	if out, err := exec.Command("go", "build", "-o", daemonProgram, "dreadlock/cmd/dreadlock").CombinedOutput(); err != nil {
		panic(fmt.Sprintf("build the daemon: %v\n%s", err, out))
	}
	return m.Run()
}

// servePeer makes the test program an echo server.
func servePeer() {
	flags := flag.NewFlagSet("peer", flag.ExitOnError)
	loops, port := flags.Int("loops", 1, ""), flags.Int("port", 0, "")
	_ = flags.Parse(os.Args[2:])
	serve := ServeEpollEcho
	if flags.Arg(0) == GnetEcho {
		serve = ServeGnetEcho
	}
	if err := serve(os.Stdin, fmt.Sprintf("127.0.0.1:%d", *port), *loops); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// startPeer starts a server for a test, or skips the test if it is not installed.
func startPeer(t *testing.T, name string) *Server {
	t.Helper()
	p, err := ParsePeer(name)
	if err != nil {
		t.Fatal(err)
	}
	peers := &Peers{Daemon: daemonProgram}
	t.Cleanup(peers.Close)
	s, err := peers.Start(t.Context(), p)
	if errors.Is(err, ErrNotInstalled) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}
