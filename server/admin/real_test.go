package admin

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"dreadlock/proto/prototest"
	"dreadlock/server"
)

// serveReal runs the daemon itself, on two loops, and returns its address and the URL of its admin interface.
func serveReal(t *testing.T) (address, url string) {
	t.Helper()
	srv, address := startReal(t, nil)
	return address, serve(t, Config{Source: srv})
}

// startReal runs the daemon, on two loops, with options that set may change, and returns it with its address.
func startReal(t *testing.T, set func(*server.Config)) (srv *server.Server, address string) {
	t.Helper()
	cfg := server.DefaultConfig()
	cfg.Listen, cfg.Loops = []string{"127.0.0.1:0"}, 2
	if set != nil {
		set(&cfg)
	}
	ready := make(chan string, 1)
	cfg.Ready = func(address string) { ready <- address }
	srv, err := server.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case address = <-ready:
	case <-time.After(patience):
		t.Fatal("the server has not started")
	}
	return srv, address
}

// The page of a real daemon shows who holds what, and that two clients wait for each other. After a kick of one of them the
// other goes on.
func TestPageOfRealDaemon(t *testing.T) {
	skipIfShort(t)
	b := openTab(t)
	address, url := serveReal(t)
	left, right, waiter := prototest.Dial(t, address), prototest.Dial(t, address), prototest.Dial(t, address)
	left.Do("lock orders 0", "l locked")
	right.Do("lock stock 0", "l locked")
	waiter.Send("lock orders 600000")
	b.open(url + "/")
	b.until(text("#health") + " === 'serving'")
	b.until(text("#hot tbody tr:first-child") + ".startsWith('orders')")
	b.until(text("#long tbody tr:first-child") + fmt.Sprintf(".includes('%s')", left.Conn().LocalAddr()))

	left.Send("lock stock 600000")
	right.Send("lock orders 600000")
	began := time.Now()
	b.until("document.querySelectorAll('#cycles svg').length === 1")
	t.Logf("the cycle is drawn after %s", time.Since(began))
	b.until(text("#cycles") + fmt.Sprintf(".includes('%s')", left.Conn().LocalAddr()))

	// Which of the two is listed first is open. The other one gets what the first one held.
	victim := eval[string](b, "document.querySelector('.advice a.who').innerText")
	b.click("#cycles button")
	b.until("document.querySelector('#act').open")
	b.click("#act button[value=yes]")
	b.until("!document.querySelector('#act').open")
	if strings.HasSuffix(victim, left.Conn().LocalAddr().String()) {
		left.Expect("e kicked")
		left.ExpectEnd()
		waiter.Expect("l locked") // it is before the other one in the queue
		waiter.Do("unlock orders", "u unlocked")
		right.Expect("l locked")
	} else {
		right.Expect("e kicked")
		right.ExpectEnd()
		left.Expect("l locked")
	}
	b.until("document.querySelectorAll('#cycles svg').length === 0")
	b.quiet()
}
