package server

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"dreadlock/proto/prototest"
)

// TestMain fails the package if a test leaves a goroutine behind.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// The worker pool of gnet, which lives as long as the program.
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*goWorker).run.func1"),
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"),
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"),
		goleak.IgnoreTopFunction("gopkg.in/natefinch/lumberjack%2ev2.(*Logger).millRun"))
}

// daemon is a server that runs in the test's own process.
type daemon struct {
	tb      testing.TB
	address string
	server  *Server // of its fields only the constant ones may be read
	log     *logLines
	stop    func() // stops it and waits until it has ended
	ended   func() // waits until it has ended by itself
}

// startDaemon starts a server on a free port of the loopback, with two loops unless change says otherwise, and stops it
// at the end of the test.
func startDaemon(tb testing.TB, change func(*Config)) *daemon {
	tb.Helper()
	d := &daemon{tb: tb, log: &logLines{}}
	ready := make(chan string, 1)
	cfg := DefaultConfig()
	cfg.Listen = []string{"127.0.0.1:0"}
	cfg.Loops = 2
	cfg.Version = "test"
	cfg.Log = zerolog.New(d.log)
	cfg.Ready = func(address string) { ready <- address }
	if change != nil {
		change(&cfg)
	}
	srv, err := New(cfg)
	if err != nil {
		tb.Fatalf("start: %v", err)
	}
	srv.moveAfter = 1 // so that sessions move whenever they may, and every test is one of moves as well
	d.server = srv
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	select {
	case d.address = <-ready:
	case err := <-ended:
		tb.Fatalf("start: %v", err)
	case <-time.After(prototest.Patience):
		tb.Fatal("the server has not started")
	}
	d.ended = sync.OnceFunc(func() {
		select {
		case err := <-ended:
			if err != nil {
				tb.Errorf("stop: %v", err)
			}
		case <-time.After(prototest.Patience):
			tb.Error("the server has not stopped")
		}
	})
	d.stop = func() {
		cancel()
		d.ended()
	}
	tb.Cleanup(d.stop)
	return d
}

func (d *daemon) dial() *prototest.Client {
	d.tb.Helper()
	return prototest.Dial(d.tb, d.address)
}

// keysOf returns n keys that the loop owns.
func (d *daemon) keysOf(loop, n int) []string {
	var keys []string
	for i := 0; len(keys) < n; i++ {
		key := "key" + strconv.Itoa(i)
		if d.server.shardOf(d.server.seed.Hash([]byte(key))) == loop {
			keys = append(keys, key)
		}
	}
	return keys
}

// logLines is a log that keeps its lines.
type logLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *logLines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(line))
	return len(line), nil
}

// containing returns the lines that contain all of the texts.
func (l *logLines) containing(texts ...string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.lines), func(line string) bool {
		return slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) })
	})
}
