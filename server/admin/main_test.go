package admin

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	code := m.Run()
	stopBrowser()
	// The worker pool of gnet, which the server links, lives as long as the program.
	pool := []goleak.Option{
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*goWorker).run.func1"),
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"),
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"),
		goleak.IgnoreTopFunction("gopkg.in/natefinch/lumberjack%2ev2.(*Logger).millRun"),
	}
	leak := goleak.Find(pool...)
	for end := time.Now().Add(patience); leak != nil && time.Now().Before(end); {
		leak = goleak.Find(pool...) // one call gives up sooner than a busy machine may need to end a goroutine
	}
	if leak != nil && code == 0 {
		fmt.Fprintln(os.Stderr, leak)
		code = 1
	}
	os.Exit(code)
}

// serve runs a server on a free port until the test ends, and returns the URL of its first address.
func serve(t *testing.T, cfg Config) string {
	t.Helper()
	url, _ := serveUntil(t, cfg)
	return url
}

// serveUntil also returns a function that stops the server. It may be called more than once.
func serveUntil(t *testing.T, cfg Config) (url string, stop func()) {
	t.Helper()
	if cfg.Listen == nil {
		cfg.Listen = []string{"127.0.0.1:0"}
	}
	cfg.Log = zerolog.New(zerolog.NewTestWriter(t))
	server, err := Listen(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return server.Addresses()[0], run(t, server)
}

// run serves until the test ends or the returned function is called, which may be called more than once.
func run(t *testing.T, server *Server) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(ctx)
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return stop
}
